"""Fused and quantised ops of the com.microsoft domain, decomposed into the op table.

Semantics follow ONNX Runtime's ContribOperators documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tenfold.errors import ModelError
from tenfold.importers.onnx.grouped import group_query
from tenfold.importers.onnx.node import Node

Handler: TypeAlias = Callable[[Node], Sequence[str]]

_WINDOW = ("auto_pad", "dilations", "group", "pads", "strides")


def _activation(n: Node, x: str, name: str, parameters: Sequence[float] = ()) -> list[str]:
    """The final activation of a fused op."""
    kinds = {
        "Relu": "relu",
        "Tanh": "tanh",
        "Sigmoid": "sigmoid",
        "Gelu": "gelu",
        "HardSwish": "hard_swish",
    }
    if name in kinds:
        return n.out(kinds[name], [x])
    if name == "LeakyRelu":
        return n.out(
            "leaky_relu", [x], alpha=parameters[0] if parameters else n.attr("alpha", 0.01)
        )
    if name == "Clip":
        return n.out("clip", [x, n.like(parameters[0]), n.like(parameters[1])])
    if name == "HardSigmoid":
        return n.out("hard_sigmoid", [x], alpha=parameters[0], beta=parameters[1])
    raise ModelError(f"node '{n.loc}': fused activation '{name}' is not supported")


def _fused_matmul(n: Node) -> list[str]:
    a, b = n.input(0), n.input(1)
    if n.attr("transBatchA", 0) or n.attr("transBatchB", 0):
        raise ModelError(f"node '{n.loc}': FusedMatMul with transposed batch is not supported")
    attrs = {
        k: 1
        for k, on in (("transpose_a", n.attr("transA", 0)), ("transpose_b", n.attr("transB", 0)))
        if on
    }
    alpha = n.attr("alpha", 1.0)
    if alpha == 1.0:
        return n.out("matmul", [a, b], **attrs)
    return n.out("mul", [n.emit("matmul", [a, b], **attrs), n.like(alpha)])


def _fused_conv(n: Node) -> list[str]:
    y = n.emit("conv", n.inputs[:3], **n.same(*_WINDOW))
    if n.has(3):
        y = n.emit("add", [y, n.input(3)])
    if not n.attr("activation"):
        return n.out("identity", [y])
    return _activation(n, y, n.attr("activation"), n.attr("activation_params", ()))


def _fused_gemm(n: Node) -> list[str]:
    attrs = {
        k: 1
        for k, on in (("transpose_a", n.attr("transA", 0)), ("transpose_b", n.attr("transB", 0)))
        if on
    }
    y = n.emit("matmul", n.inputs[:2], **attrs)
    if n.attr("alpha", 1.0) != 1.0:
        y = n.emit("mul", [y, n.like(n.attr("alpha"))])
    if n.has(2):
        bias = (
            n.input(2)
            if n.attr("beta", 1.0) == 1.0
            else n.emit("mul", [n.input(2), n.like(n.attr("beta"), 2)])
        )
        y = n.emit("add", [y, bias])
    return _activation(
        n,
        y,
        n.attr("activation", "Relu"),
        (n.attr("activation_alpha", 0.01), n.attr("activation_beta", 0.0)),
    )


def _bias_gelu(approximate: str) -> Handler:
    def handle(n: Node) -> list[str]:
        x = n.emit("add", [n.input(0), n.input(1)]) if n.has(1) else n.input(0)
        return n.out("gelu", [x], approximate=approximate)

    return handle


def _quick_gelu(n: Node) -> list[str]:
    return n.out("swish", [n.input(0)], alpha=n.attr("alpha", 1.702))


def _skip_norm(kind: str, has_beta: bool) -> Handler:
    """(input + skip [+ bias]) normalised; the fourth output is the sum."""

    def handle(n: Node) -> list[str]:
        at_bias = 4 if has_beta else 3
        total = n.emit("add", [n.input(0), n.input(1)])
        if n.has(at_bias):
            total = n.emit("add", [total, n.input(at_bias)])
        operands = [total, n.input(2)] + ([n.inputs[3]] if has_beta and n.has(3) else [])
        epsilon = n.attr("epsilon", 1e-12)
        y = n.emit(kind, operands, axis=-1, epsilon=epsilon)
        return [y, "", "", total][: max(1, len(n.outputs))]

    return handle


def _simplified_norm(n: Node) -> list[str]:
    """The second output, the inverse deviation, is for training: whoever reads it is told that
    nothing defines it.
    """
    return [
        n.emit("rms_norm", n.inputs[:2], axis=n.attr("axis", -1), epsilon=n.attr("epsilon", 1e-5))
    ]


def _embed_norm(n: Node) -> list[str]:
    total = n.emit("gather", [n.input(2), n.input(0)], axis=0)
    ids = n.input(0)
    length = n.emit("shape", [ids], start=1, end=2)
    if n.has(8):
        position = n.emit("gather", [n.input(3), n.input(8)], axis=0)
    else:
        position = n.emit("slice", [n.input(3), n.ints(0), length, n.ints(0)])
    total = n.emit("add", [total, position])
    if n.has(4) and n.has(1):
        total = n.emit("add", [total, n.emit("gather", [n.input(4), n.input(1)], axis=0)])
    y = n.emit(
        "layer_norm", [total, n.input(5), n.input(6)], axis=-1, epsilon=n.attr("epsilon", 1e-12)
    )
    results = [y]
    if len(n.outputs) > 1 and n.outputs[1]:
        if n.has(7):
            mask = n.emit(
                "cast", [n.emit("reduce_sum", [n.input(7), n.ints(1)], keepdims=0)], to="int32"
            )
        else:
            mask = n.emit(
                "expand", [n.const(np.zeros((), np.int32)), n.emit("shape", [ids], start=0, end=1)]
            )
        results.append(mask)
    if len(n.outputs) > 2 and n.outputs[2]:
        results = [*results, *[""] * (2 - len(results)), total]
    return results


def _mask_bias(n: Node, mask: str, value: float) -> str:
    """A [batch, length] or higher mask of ones and zeros as a bias: -``value`` where it is zero."""
    real = n.emit("cast", [mask], to="fp32")
    bias = n.emit(
        "mul", [n.emit("sub", [real, n.const(np.float32(1))]), n.const(np.float32(value))]
    )
    rank = len(n.type_of(mask).dims)
    if rank == 2:
        return str(n.emit("unsqueeze", [bias, n.ints(1, 2)]))
    if rank == 3:
        return str(n.emit("unsqueeze", [bias, n.ints(1)]))
    if rank == 4:
        return str(bias)
    raise ModelError(f"node '{n.loc}': attention mask of rank {rank} is not supported")


def _attention(n: Node) -> list[str]:
    """com.microsoft Attention: one projection to q, k, v, then attention over heads."""
    heads = n.needs("num_heads")
    if n.has(4) or n.attr("qkv_hidden_sizes"):
        raise ModelError(
            f"node '{n.loc}': com.microsoft Attention with past or uneven q, k, v sizes is not"
            " supported"
        )
    qkv = n.emit("matmul", [n.input(0), n.input(1)])
    if n.has(2):
        qkv = n.emit("add", [qkv, n.input(2)])
    q, k, v = n.emit("split", [qkv], 3, axis=-1)
    bias = _mask_bias(n, n.input(3), -n.attr("mask_filter_value", -10000.0)) if n.has(3) else ""
    if n.has(5):
        bias = n.emit("add", [bias, n.input(5)]) if bias else n.input(5)
    return [
        n.emit(
            "attention",
            [q, k, v, bias],
            q_num_heads=heads,
            kv_num_heads=heads,
            scale=n.attr("scale") or None,
            is_causal=1 if n.attr("unidirectional", 0) else None,
        )
    ]


def _multi_head(n: Node) -> list[str]:
    """com.microsoft MultiHeadAttention with separate q, k, v."""
    heads = n.needs("num_heads")
    if not n.has(1) or not n.has(2) or n.rank(0) != 3 or n.rank(1) != 3:
        raise ModelError(
            f"node '{n.loc}': packed query-key-value in MultiHeadAttention is not supported"
        )
    q, k, v = n.input(0), n.input(1), n.input(2)
    if n.has(3):
        width = n.value(0).dims[-1]
        sizes = [n.ints(0), n.ints(int(width)), n.ints(2 * int(width)), n.ints(3 * int(width))]
        parts = [n.emit("slice", [n.input(3), sizes[i], sizes[i + 1]]) for i in range(3)]
        q, k, v = (n.emit("add", [x, b]) for x, b in zip((q, k, v), parts, strict=True))
    bias = _mask_bias(n, n.input(4), -n.attr("mask_filter_value", -10000.0)) if n.has(4) else ""
    if n.has(5):
        bias = n.emit("add", [bias, n.input(5)]) if bias else n.input(5)
    past = [n.inputs[6], n.inputs[7]] if n.has(6) and n.has(7) else ["", ""]
    steps, keys = n.value(0).dims[1], n.value(1).dims[1]
    if (
        n.attr("unidirectional", 0)
        and not past[0]
        and isinstance(steps, int)
        and isinstance(keys, int)
        and steps < keys
    ):
        raise ModelError(
            f"node '{n.loc}': causal MultiHeadAttention of {steps} queries over {keys} keys needs a"
            f" past of {keys - steps}"
        )
    count = 3 if any(o for o in n.outputs[1:]) or past[0] else 1
    result = n.emit(
        "attention",
        [q, k, v, bias, *past],
        count,
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=n.attr("scale") or None,
        is_causal=1 if n.attr("unidirectional", 0) else None,
    )
    return [result] if count == 1 else list(result)


def _rotary(n: Node) -> list[str]:
    """com.microsoft RotaryEmbedding(x, position_ids, cos, sin)."""
    attrs = n.same("interleaved", "num_heads", "rotary_embedding_dim")
    if n.rank(0) == 3 and not attrs.get("num_heads"):
        half = n.value(2).dims[-1]
        attrs["num_heads"] = int(n.value(0).dims[-1]) // (2 * int(half))
    return n.out("rotary_embedding", [n.input(0), n.input(2), n.input(3), n.input(1)], **attrs)


def _dynamic_quantize_lstm(n: Node) -> list[str]:
    names = (
        "activation_alpha",
        "activation_beta",
        "activations",
        "clip",
        "direction",
        "input_forget",
    )
    inputs = [*n.inputs, *[""] * 12][:12]
    hidden = n.attr("hidden_size") or n.value(2).dims[1]
    return n.out("dynamic_quantize_lstm", inputs, hidden_size=int(hidden), **n.same(*names))


def _dynamic_quantize_matmul(n: Node) -> list[str]:
    """A is quantised on the fly; B is int8 with a scale per tensor or column."""
    q, scale, zero = n.emit("dynamic_quantize", [n.input(0)], 3)
    product = n.emit("matmul_integer", [q, n.input(1), zero, n.inputs[3] if n.has(3) else ""])
    return _scaled_product(n, product, scale, n.input(2), 4)


def _matmul_integer_to_float(n: Node) -> list[str]:
    product = n.emit(
        "matmul_integer",
        [n.input(0), n.input(1), n.inputs[4] if n.has(4) else "", n.inputs[5] if n.has(5) else ""],
    )
    return _scaled_product(n, product, n.input(2), n.input(3), 6)


def _scaled_product(n: Node, product: str, a_scale: str, b_scale: str, bias: int) -> list[str]:
    real = n.emit("mul", [n.emit("cast", [product], to="fp32"), n.emit("mul", [a_scale, b_scale])])
    return n.out("add", [real, n.input(bias)]) if n.has(bias) else n.out("identity", [real])


def _matmul_nbits(n: Node) -> list[str]:
    """Weights of 4 (or 8) bits in blocks along k, two to a byte, scaled per block."""
    bits, block, k, width = n.attr("bits", 4), n.needs("block_size"), n.needs("K"), n.needs("N")
    packed = n.builder.scope.constants.get(n.input(1))
    scales = n.builder.scope.constants.get(n.input(2))
    if packed is None or scales is None or bits not in (4, 8) or n.has(4):
        raise ModelError(
            f"node '{n.loc}': MatMulNBits needs constant weights of 4 or 8 bits without a group"
            " index"
        )
    blocks = -(-k // block)
    raw = packed.reshape(width, blocks, -1)
    codes = raw if bits == 8 else np.stack([raw & 15, raw >> 4], axis=-1)
    codes = codes.reshape(width, blocks * block)[:, :k]
    zero = _nbits_zero(n, bits, width, blocks)
    import ml_dtypes

    weights = n.const(codes.astype(ml_dtypes.uint4 if bits == 4 else np.uint8))
    scale = n.const(scales.reshape(width, blocks))
    zeros = n.const(zero.astype(ml_dtypes.uint4 if bits == 4 else np.uint8))
    real = n.emit("dequantize", [weights, scale, zeros], axis=1, block_size=block)
    product = [n.input(0), real]
    if n.has(5):
        return n.out("add", [n.emit("matmul", product, transpose_b=1), n.input(5)])
    return n.out("matmul", product, transpose_b=1)


def _nbits_zero(n: Node, bits: int, width: int, blocks: int) -> Any:
    if not n.has(3):
        return np.full((width, blocks), 1 << (bits - 1), np.uint8)
    raw = n.builder.scope.constants.get(n.input(3))
    if raw is None or raw.dtype != np.uint8:
        raise ModelError(f"node '{n.loc}': MatMulNBits needs constant integer zero points")
    if bits == 8:
        return raw.reshape(width, blocks)
    return np.stack([raw.reshape(width, -1) & 15, raw.reshape(width, -1) >> 4], axis=-1).reshape(
        width, -1
    )[:, :blocks]


def _qlinear_binary(kind: str) -> Handler:
    def handle(n: Node) -> list[str]:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = n.inputs[:7]
        y_zero = n.inputs[7] if n.has(7) else ""
        left, right = (
            n.emit("dequantize", [a, a_scale, a_zero]),
            n.emit("dequantize", [b, b_scale, b_zero]),
        )
        return n.out("quantize", [n.emit(kind, [left, right]), y_scale, y_zero])

    return handle


def _qlinear_unary(real: Callable[[Node, str], str]) -> Handler:
    """Dequantised, computed by ``real``, quantised again."""

    def handle(n: Node) -> list[str]:
        x, x_scale, x_zero, y_scale = n.inputs[:4]
        y = real(n, n.emit("dequantize", [x, x_scale, x_zero]))
        return n.out("quantize", [y, y_scale, n.inputs[4] if n.has(4) else ""])

    return handle


def _same_op(kind: str, *names: str) -> Callable[[Node, str], str]:
    return lambda n, x: str(n.emit(kind, [x], **n.same(*names)))


def _real_softmax(n: Node, x: str) -> str:
    """Over one axis or, as before opset 13, over all axes from it on: the attribute says which."""
    axis = n.attr("axis", -1)
    if n.needs("opset") >= 13:
        return str(n.emit("softmax", [x], axis=axis))
    return str(n.emit("reshape", n.flattened("softmax", x, axis)))


def _real_pool(n: Node, x: str) -> str:
    pool = _same_op(
        "average_pool",
        "kernel_shape",
        "strides",
        "pads",
        "auto_pad",
        "ceil_mode",
        "count_include_pad",
    )
    if not n.attr("channels_last", 0):
        return pool(n, x)
    rank = n.rank(0)
    first = n.emit("transpose", [x], perm=(0, rank - 1, *range(1, rank - 1)))
    return str(n.emit("transpose", [pool(n, first)], perm=(0, *range(2, rank), 1)))


def _real_global_pool(n: Node, x: str) -> str:
    spatial = range(1, n.rank(0) - 1) if n.attr("channels_last", 0) else range(2, n.rank(0))
    return str(n.emit("reduce_mean", [x, n.ints(*spatial)], keepdims=1))


def _qlinear_concat(n: Node) -> list[str]:
    y_scale, y_zero, rest = n.inputs[0], n.inputs[1], n.inputs[2:]
    parts = [n.emit("dequantize", list(rest[i : i + 3])) for i in range(0, len(rest), 3)]
    return n.out("quantize", [n.emit("concat", parts, axis=n.needs("axis")), y_scale, y_zero])


def _qgemm(n: Node) -> list[str]:
    a, a_scale, a_zero, b, b_scale, b_zero = n.inputs[:6]
    attrs = {
        k: 1
        for k, on in (("transpose_a", n.attr("transA", 0)), ("transpose_b", n.attr("transB", 0)))
        if on
    }
    if attrs.get("transpose_b"):
        b = n.emit("transpose", [b], perm=(1, 0))
    if attrs.get("transpose_a"):
        a = n.emit("transpose", [a], perm=(1, 0))
    acc = n.emit("matmul_integer", [a, b, a_zero, b_zero])
    if n.has(6):
        acc = n.emit("add", [acc, n.input(6)])
    real = n.emit("mul", [n.emit("cast", [acc], to="fp32"), n.emit("mul", [a_scale, b_scale])])
    if n.attr("alpha", 1.0) != 1.0:
        real = n.emit("mul", [real, n.const(np.float32(n.attr("alpha")))])
    return (
        n.out("quantize", [real, n.input(7), n.inputs[8] if n.has(8) else ""])
        if n.has(7)
        else n.out("identity", [real])
    )


def _quantize(kind: str) -> Handler:
    return lambda n: n.out(kind, n.inputs, **n.same("axis", "block_size"))


# private ops that ONNX Runtime registers in the default domain
ALSO_DEFAULT = ("SimplifiedLayerNormalization",)

MICROSOFT: Mapping[str, Handler] = {
    "Attention": _attention,
    "BiasGelu": _bias_gelu("none"),
    "DequantizeLinear": _quantize("dequantize"),
    "DynamicQuantizeLSTM": _dynamic_quantize_lstm,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "EmbedLayerNormalization": _embed_norm,
    "FastGelu": _bias_gelu("tanh"),
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": lambda n: n.out("gelu", n.inputs),
    "GroupQueryAttention": group_query,
    "MatMulIntegerToFloat": _matmul_integer_to_float,
    "MatMulNBits": _matmul_nbits,
    "MultiHeadAttention": _multi_head,
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_binary("add"),
    "QLinearAveragePool": _qlinear_unary(_real_pool),
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _qlinear_unary(_real_global_pool),
    "QLinearLeakyRelu": _qlinear_unary(_same_op("leaky_relu", "alpha")),
    "QLinearMul": _qlinear_binary("mul"),
    "QLinearSigmoid": _qlinear_unary(_same_op("sigmoid")),
    "QLinearSoftmax": _qlinear_unary(_real_softmax),
    "QuantizeLinear": _quantize("quantize"),
    "QuickGelu": _quick_gelu,
    "RotaryEmbedding": _rotary,
    "SimplifiedLayerNormalization": _simplified_norm,
    "SkipLayerNormalization": _skip_norm("layer_norm", True),
    "SkipSimplifiedLayerNormalization": _skip_norm("rms_norm", False),
}
