"""Layers: ONNX ops that are more than a name, from products to quantised convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tenfold.errors import ModelError
from tenfold.importers.onnx.node import Node
from tenfold.importers.onnx.types import DTYPES
from tenfold.ir.ops.common import contradict, normalise_axis

Handler: TypeAlias = Callable[[Node], Sequence[str]]


def plain(kind: str, *attrs: str, inputs: int | None = None) -> Handler:
    """The op has a row of its own: same inputs, the named attributes under the same names."""
    return lambda n: n.out(kind, n.inputs[:inputs], **n.same(*attrs))


def dtype_name(n: Node, attribute: str) -> str | None:
    number = n.attr(attribute)
    if number is None or number == 0:
        return None
    if number not in DTYPES:
        raise ModelError(f"node '{n.loc}': attribute '{attribute}' names the unknown type {number}")
    return DTYPES[number].value


def gemm(n: Node) -> list[str]:
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    attrs = {
        k: 1
        for k, on in (("transpose_a", n.attr("transA", 0)), ("transpose_b", n.attr("transB", 0)))
        if on
    }
    if not n.has(2) and alpha == 1.0:
        return n.out("matmul", n.inputs[:2], **attrs)
    product = n.emit("matmul", n.inputs[:2], **attrs)
    if alpha != 1.0:
        if not n.has(2):
            return n.out("mul", [product, n.like(alpha)])
        product = n.emit("mul", [product, n.like(alpha)])
    bias = n.input(2) if beta == 1.0 else n.emit("mul", [n.input(2), n.like(beta, 2)])
    return n.out("add", [product, bias])


def softmax(kind: str) -> Handler:
    def handle(n: Node) -> list[str]:
        if n.opset >= 13:
            return n.out(kind, n.inputs, axis=n.attr("axis", -1))
        rank, axis = n.rank(0), n.attr("axis", 1)
        if normalise_axis(axis, rank) == rank - 1:
            return n.out(kind, n.inputs, axis=-1)
        return n.out("reshape", n.flattened(kind, n.input(0), axis))

    return handle


def global_pool(kind: str) -> Handler:
    return lambda n: n.out(kind, [n.input(0), n.ints(*range(2, n.rank(0)))], keepdims=1)


def global_lp_pool(n: Node) -> list[str]:
    p = n.attr("p", 2)
    axes = n.ints(*range(2, n.rank(0)))
    powered = n.emit("pow", [n.emit("abs", [n.input(0)]), n.like(p)])
    return n.out("pow", [n.emit("reduce_sum", [powered, axes], keepdims=1), n.like(1.0 / p)])


def pool(kind: str) -> Handler:
    def handle(n: Node) -> list[str]:
        n.needs("kernel_shape")
        names = (
            "kernel_shape",
            "strides",
            "pads",
            "dilations",
            "auto_pad",
            "ceil_mode",
            "count_include_pad",
            "p",
            "storage_order",
        )
        allowed = {
            "max_pool": {"storage_order"},
            "average_pool": {"count_include_pad"},
            "lp_pool": {"p"},
        }[kind]
        return n.out(
            kind,
            n.inputs,
            **{
                k: v
                for k, v in n.same(*names).items()
                if k in allowed or k not in ("storage_order", "count_include_pad", "p")
            },
        )

    return handle


def conv(n: Node) -> list[str]:
    return n.out("conv", n.inputs, **n.same("auto_pad", "dilations", "group", "pads", "strides"))


def batch_norm(n: Node) -> list[str]:
    return n.out(
        "batch_norm",
        n.inputs,
        **n.same("epsilon", "momentum"),
        training_mode=1 if n.attr("training_mode", 0) else None,
    )


def group_norm(n: Node) -> list[str]:
    return n.out("group_norm", n.inputs, num_groups=n.needs("num_groups"), **n.same("epsilon"))


def mean_variance(n: Node) -> list[str]:
    axes = n.ints(*n.attr("axes", (0, 2, 3)))
    mean = n.emit("reduce_mean", [n.input(0), axes], keepdims=1)
    centred = n.emit("sub", [n.input(0), mean])
    variance = n.emit("reduce_mean", [n.emit("mul", [centred, centred]), axes], keepdims=1)
    return n.out("div", [centred, n.emit("add", [n.emit("sqrt", [variance]), n.like(1e-9)])])


def swiglu(n: Node) -> list[str]:
    return n.out("mul", [n.emit("swish", [n.input(0)], alpha=n.attr("alpha", 1.0)), n.input(1)])


def attention(n: Node) -> list[str]:
    names = (
        "is_causal",
        "kv_num_heads",
        "q_num_heads",
        "qk_matmul_output_mode",
        "scale",
        "softcap",
        "softmax_precision",
        "left_window_size",
        "right_window_size",
    )
    attrs = n.same(*names)
    # the shape says how many heads there are, and since opset 25 nothing else may
    if len(n.value(0).shape or ()) == 4:
        attrs = {k: v for k, v in attrs.items() if k not in ("q_num_heads", "kv_num_heads")}
    return n.out("attention", n.inputs, **attrs)


def recurrent(kind: str, *extra: str) -> Handler:
    names = (
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "layout",
        *extra,
    )

    def handle(n: Node) -> list[str]:
        hidden = n.attr("hidden_size")
        if hidden is None:
            shape = n.value(2).shape
            if shape is None or not isinstance(shape[-1], int):
                raise ModelError(f"node '{n.loc}': {n.op_type} without hidden_size")
            hidden = shape[-1]
        return n.out(kind, n.inputs, hidden_size=int(hidden), **n.same(*names))

    return handle


def quantize(n: Node) -> list[str]:
    return n.out(
        "quantize",
        n.inputs,
        dtype=dtype_name(n, "output_dtype"),
        **n.same("axis", "block_size", "saturate"),
    )


def dequantize(n: Node) -> list[str]:
    return n.out(
        "dequantize", n.inputs, dtype=dtype_name(n, "output_dtype"), **n.same("axis", "block_size")
    )


def requantize(
    n: Node,
    accumulator: str,
    scales: Sequence[str],
    out_scale: str,
    out_zero: str,
    axis: int,
    rank: int,
) -> list[str]:
    """int32 accumulator times the product of the input scales, quantised to the output's scale and
    zero point.
    """
    real = n.emit("cast", [accumulator], to="fp32")
    combined = n.emit("mul", [n.emit("cast", [s], to="fp32") for s in scales])
    shape = n.type_of(combined).shape
    if shape is not None and len(shape) == 1 and shape != (1,) and axis != rank - 1:
        combined = n.emit("unsqueeze", [combined, n.ints(*range(1, rank - axis))])
    real = n.emit("mul", [real, combined])
    return n.out("quantize", [real, n.emit("cast", [out_scale], to="fp32"), out_zero], axis=1)


def qlinear_matmul(n: Node) -> list[str]:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = n.inputs[:8]
    if n.type_of(a).dtype.is_float:  # fp8: not an integer product
        raise ModelError(f"node '{n.loc}': QLinearMatMul of {n.type_of(a).dtype}")
    product = n.emit("matmul_integer", [a, b, a_zero, b_zero])
    shape = n.type_of(a_scale).shape
    if shape is not None and len(shape) == 1 and shape != (1,):
        a_scale = n.emit("unsqueeze", [a_scale, n.ints(1)])
    return requantize(n, product, [a_scale, b_scale], y_scale, y_zero, n.rank(0) - 1, n.rank(0))


def qlinear_conv(n: Node) -> list[str]:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = n.inputs[:8]
    acc = n.emit(
        "conv_integer",
        [x, w, x_zero, w_zero],
        **n.same("auto_pad", "dilations", "group", "pads", "strides"),
    )
    rank = n.rank(0)
    if n.has(8):
        found, outputs = n.value(8).dims, n.type_of(w).dims[0]
        if len(found) != 1 or contradict(found[0], outputs):
            raise ModelError(
                f"node '{n.loc}': QLinearConv of {outputs} outputs has a bias of shape"
                f" {list(found)}"
            )
        bias = n.emit("unsqueeze", [n.input(8), n.ints(*range(1, rank - 1))])
        acc = n.emit("add", [acc, bias])
    return requantize(n, acc, [x_scale, w_scale], y_scale, y_zero, 1, rank)


def conv_integer(n: Node) -> list[str]:
    return n.out(
        "conv_integer", n.inputs, **n.same("auto_pad", "dilations", "group", "pads", "strides")
    )
