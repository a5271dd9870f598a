"""Small ONNX models of one operator each, from which the constants of a processor are fitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


@dataclass(frozen=True, slots=True)
class Probe:
    """One operator on fixed shapes, with what ONNX Runtime needs around it. ``whole``: its whole
    run is timed, not its nodes.
    """

    name: str
    model: onnx.ModelProto
    inputs: Mapping[str, tuple[int, ...]]
    whole: bool = False


# m, n, k; a leading number is a batch
_PRODUCTS = (
    (1, 256, 256), (1, 1024, 1024), (1, 4096, 1024), (1, 2048, 4096), (4, 512, 512), (8, 1024,
    1024), (16, 2048, 512), (32, 768, 768), (49, 96, 96), (64, 64, 2048), (100, 400, 120), (128,
    384, 384), (128, 768, 768), (128, 3072, 768), (128, 768, 3072), (256, 256, 64), (512, 512, 512),
    (1024, 1024, 1024), (1000, 128, 32), (2048, 256, 256), (384, 384, 1536),
)  # fmt: skip
_BATCHED = (
    (12, 128, 128, 64),
    (12, 128, 64, 128),
    (8, 64, 64, 32),
    (96, 128, 128, 32),
    (4, 256, 256, 64),
)
# batch, channels, height, width, filters, side, stride, groups
_CONVOLUTIONS = (
    (1, 3, 224, 224, 64, 7, 2, 1), (1, 3, 320, 320, 16, 3, 2, 1), (8, 3, 112, 112, 32, 3, 2, 1), (1,
    64, 56, 56, 64, 3, 1, 1), (1, 128, 28, 28, 128, 3, 1, 1), (1, 256, 14, 14, 256, 3, 1, 1), (1,
    512, 7, 7, 512, 3, 1, 1), (8, 64, 56, 56, 64, 3, 1, 1), (8, 256, 14, 14, 256, 3, 1, 1), (1, 32,
    80, 80, 32, 3, 1, 1), (1, 16, 96, 96, 24, 3, 2, 1), (1, 64, 56, 56, 256, 1, 1, 1), (1, 256, 56,
    56, 64, 1, 1, 1), (1, 512, 28, 28, 128, 1, 1, 1), (1, 1024, 14, 14, 256, 1, 1, 1), (8, 256, 28,
    28, 128, 1, 1, 1), (1, 32, 112, 112, 16, 1, 1, 1), (1, 96, 56, 56, 24, 1, 1, 1), (1, 24, 40,
    160, 96, 1, 1, 1), (32, 64, 14, 14, 64, 3, 1, 1), (32, 128, 7, 7, 512, 1, 1, 1), (1, 480, 14,
    14, 112, 1, 1, 1), (1, 8, 112, 112, 8, 1, 1, 1), (1, 8, 64, 64, 24, 1, 1, 1), (1, 3, 192, 96, 8,
    3, 2, 1), (1, 1, 96, 64, 24, 3, 1, 1), (8, 512, 1, 1, 128, 1, 1, 1), (1, 1280, 1, 1, 320, 1, 1,
    1), (1, 96, 32, 32, 16, 1, 1, 1), (1, 16, 128, 64, 64, 1, 1, 1), (8, 8, 48, 48, 16, 3, 1, 1),
    (1, 24, 40, 40, 72, 1, 1, 1),
)  # fmt: skip
_GROUPED = (
    (1, 32, 112, 112, 32, 3, 1, 32), (1, 96, 56, 56, 96, 3, 2, 96), (1, 144, 56, 56, 144, 3, 1,
    144), (1, 240, 28, 28, 240, 5, 1, 240), (1, 480, 14, 14, 480, 3, 1, 480), (8, 96, 28, 28, 96, 3,
    1, 96), (1, 64, 28, 28, 64, 3, 1, 4), (1, 960, 7, 7, 960, 5, 1, 960), (8, 32, 56, 56, 32, 3, 1,
    32), (8, 256, 14, 14, 256, 5, 1, 256), (1, 64, 112, 112, 64, 3, 2, 64), (8, 128, 28, 28, 128, 3,
    1, 128), (4, 16, 112, 112, 16, 3, 1, 16), (1, 200, 24, 24, 200, 5, 1, 200),
)  # fmt: skip
_LENGTHS = (1 << 12, 1 << 15, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
_POINTWISE = (
    ("Relu", 1),
    ("Add", 2),
    ("Mul", 2),
    ("Sigmoid", 1),
    ("Tanh", 1),
    ("Exp", 1),
    ("HardSigmoid", 1),
)
_ROWS = ((128, 768), (1536, 128), (4096, 512), (384, 1024), (65536, 64))
_QUANTIZED = (
    (1, 1024, 1024), (1, 3072, 768), (8, 2048, 512), (32, 512, 512), (64, 384, 384), (128, 768,
    768), (128, 3072, 768), (256, 768, 3072), (512, 512, 512), (1024, 512, 2048),
)  # fmt: skip
# steps, batch, width, hidden
_RECURRENT = (
    (1, 1, 128, 128), (32, 1, 64, 128), (64, 1, 256, 256), (64, 8, 128, 256), (32, 32, 256, 256),
    (128, 1, 512, 512), (48, 8, 512, 512), (32, 32, 128, 512),
)  # fmt: skip
_CHAINS = ((40, 64), (120, 64), (200, 64), (120, 2048))  # operators one after the other, elements
_MICROSOFT = "com.microsoft"


def probes() -> Iterator[Probe]:
    """All of them, in an order that does not depend on the machine."""
    for m, n, k in _PRODUCTS:
        yield _product(f"matmul {m} {n} {k}", (m, k), (k, n), constant=True)
    for b, m, n, k in _BATCHED:
        yield _product(f"batched matmul {b} {m} {n} {k}", (b, m, k), (b, k, n), constant=False)
    for m, n, k in _QUANTIZED:
        yield _quantized(m, n, k)
    for shape in (*_CONVOLUTIONS, *_GROUPED):
        yield _convolution(*shape)
    for steps, batch, width, hidden in _RECURRENT:
        yield _recurrent(steps, batch, width, hidden)
        yield _recurrent(steps, batch, width, hidden, quantized=True)
    for op, inputs in _POINTWISE:
        for length in _LENGTHS:
            names = [f"x{i}" for i in range(inputs)]
            yield _single(f"{op} {length}", op, dict.fromkeys(names, (length,)), (length,))
    for count, length in _CHAINS:
        yield _chain(count, length)
    for rows, width in _ROWS:
        yield _single(
            f"Softmax {rows} {width}", "Softmax", {"x0": (rows, width)}, (rows, width), axis=-1
        )
        yield _single(
            f"Transpose {rows} {width}",
            "Transpose",
            {"x0": (rows, width)},
            (width, rows),
            perm=[1, 0],
        )
        yield _single(
            f"ReduceMean {rows} {width}",
            "ReduceMean",
            {"x0": (rows, width)},
            (rows, 1),
            axes=[-1],
            keepdims=1,
        )


def _weights(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng(1)
    return numpy_helper.from_array(
        (rng.standard_normal(shape) / np.sqrt(max(1, shape[-1]))).astype(np.float32), name
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, ...]],
    out: tuple[int, ...],
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in inputs.items()
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(out))
    graph = helper.make_graph(nodes, "probe", values, [result], constants)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(_MICROSOFT, 1)],
        ir_version=8,
    )


def _single(
    name: str,
    op: str,
    inputs: Mapping[str, tuple[int, ...]],
    out: tuple[int, ...],
    **attributes: Any,
) -> Probe:
    node = helper.make_node(op, list(inputs), ["y"], name="probe", **attributes)
    return Probe(name, _model([node], inputs, out, []), inputs)


def _product(name: str, a: tuple[int, ...], b: tuple[int, ...], *, constant: bool) -> Probe:
    node = helper.make_node("MatMul", ["x0", "x1"], ["y"], name="probe")
    inputs = {"x0": a} if constant else {"x0": a, "x1": b}
    return Probe(
        name,
        _model([node], inputs, (*a[:-1], b[-1]), [_weights("x1", *b)] if constant else []),
        inputs,
    )


def _chain(count: int, length: int) -> Probe:
    """Operators so small that their number is what counts."""
    names = ["x0", *(f"t{i}" for i in range(count - 1)), "y"]
    kinds = ("Neg", "Sqrt", "Sigmoid", "Abs")
    nodes = [helper.make_node(kinds[i % 4], [a], [b]) for i, (a, b) in enumerate(pairwise(names))]
    return Probe(
        f"chain {count} {length}",
        _model(nodes, {"x0": (length,)}, (length,), []),
        {"x0": (length,)},
        whole=True,
    )


def _quantized(m: int, n: int, k: int) -> Probe:
    """As ONNX Runtime's own dynamic quantisation writes a product."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x0"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["i"], name="probe"),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "w_scale"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    constants = [_int8_weights("w", k, n), _weights("w_scale", 1)]
    return Probe(
        f"int8 matmul {m} {n} {k}", _model(nodes, {"x0": (m, k)}, (m, n), constants), {"x0": (m, k)}
    )


def _int8_weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(
        np.random.default_rng(1).integers(-127, 128, shape).astype(np.int8), name
    )


def _recurrent(
    steps: int, batch: int, width: int, hidden: int, *, quantized: bool = False
) -> Probe:
    inputs = {"x0": (steps, batch, width)}
    name = f"{'int8 ' if quantized else ''}lstm {steps} {batch} {width} {hidden}"
    out = (steps, 1, batch, hidden)
    if not quantized:
        node = helper.make_node("LSTM", ["x0", "w", "r"], ["y"], name="probe", hidden_size=hidden)
        return Probe(
            name,
            _model(
                [node],
                inputs,
                out,
                [_weights("w", 1, 4 * hidden, width), _weights("r", 1, 4 * hidden, hidden)],
            ),
            inputs,
        )
    scales = [_weights(n, 1) for n in ("w_scale", "r_scale")]
    zeros = [numpy_helper.from_array(np.zeros(1, np.int8), n) for n in ("w_zero", "r_zero")]
    given = ["x0", "w", "r", "", "", "", "", "", "w_scale", "w_zero", "r_scale", "r_zero"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", given, ["y"], name="probe", domain=_MICROSOFT, hidden_size=hidden
    )
    constants = [
        _int8_weights("w", 1, width, 4 * hidden),
        _int8_weights("r", 1, hidden, 4 * hidden),
        *scales,
        *zeros,
    ]
    return Probe(name, _model([node], inputs, out, constants), inputs)


def _convolution(*shape: int) -> Probe:
    batch, channels, height, width, filters, side, stride, groups = shape
    pad = side // 2
    size = [(d + 2 * pad - side) // stride + 1 for d in (height, width)]
    node = helper.make_node(
        "Conv",
        ["x0", "w", "b"],
        ["y"],
        name="probe",
        kernel_shape=[side] * 2,
        strides=[stride] * 2,
        pads=[pad] * 4,
        group=groups,
    )
    constants = [_weights("w", filters, channels // groups, side, side), _weights("b", filters)]
    inputs = {"x0": (batch, channels, height, width)}
    name = f"conv {batch} {channels} {height} {width} {filters} {side} {stride} {groups}"
    return Probe(name, _model([node], inputs, (batch, filters, *size), constants), inputs)
