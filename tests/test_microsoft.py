"""Fused and quantised com.microsoft ops against ONNX Runtime: fp32 rtol 1e-4, quantised one
quantum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from support import imported, model_of, runtime
from tenfold.importers.onnx.microsoft import ALSO_DEFAULT, MICROSOFT
from tenfold.ir import interpret, verify
from tenfold.ir.graph import Array

RNG = np.random.default_rng(0)
F = np.float32


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(F)


def u8(*shape: int) -> Array:
    return RNG.integers(0, 255, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    return RNG.integers(-127, 127, shape).astype(np.int8)


def one(value: float, dtype: Any = F) -> Array:
    return np.asarray(value, dtype)


Z8 = one(120, np.uint8)
X = normal(2, 5, 16)
SCALES = (one(0.03), Z8, one(0.05), one(110, np.uint8), one(0.04), one(128, np.uint8))
IDS = RNG.integers(0, 9, (2, 5)).astype(np.int32)
QKV = (normal(2, 5, 32), normal(2, 7, 32), normal(2, 7, 32))
ANGLES = np.outer(np.arange(8), 0.5 ** np.arange(4)).astype(F)

# op: (inputs, with None for an absent one; outputs; attributes)
CASES: dict[str, tuple[str, list[Array | None], int, dict[str, Any]]] = {
    "fused_matmul": ("FusedMatMul", [normal(2, 6, 4), normal(2, 6, 3)], 1, {"transA": 1,
        "alpha": 0.5}),
    "fused_conv": ("FusedConv", [normal(1, 3, 8, 8), normal(4, 3, 3, 3), normal(4)], 1,
        {"activation": "Relu", "kernel_shape": [3, 3]}),
    "fused_conv_leaky": ("FusedConv", [normal(1, 3, 8, 8), normal(4, 3, 3, 3)], 1,
        {"activation": "LeakyRelu", "activation_params": [0.2], "kernel_shape": [3, 3]}),
    "fused_gemm": ("FusedGemm", [normal(4, 6), normal(3, 6), normal(3)], 1, {"transB": 1,
        "activation": "Tanh"}),
    "bias_gelu": ("BiasGelu", [X, normal(16)], 1, {}),
    "fast_gelu": ("FastGelu", [X, normal(16)], 1, {}),
    "quick_gelu": ("QuickGelu", [X], 1, {}),
    "gelu": ("Gelu", [X], 1, {}),
    "skip_norm": ("SkipLayerNormalization", [X, normal(2, 5, 16), normal(16), normal(16),
        normal(16)], 4, {"epsilon": 1e-5}),
    "skip_rms": ("SkipSimplifiedLayerNormalization", [X, normal(2, 5, 16), normal(16)], 4,
        {"epsilon": 1e-5}),
    "embed": ("EmbedLayerNormalization", [IDS, np.zeros((2, 5), np.int32), normal(9, 16),
        normal(8, 16), normal(2, 16), normal(16), normal(16), np.ones((2, 5), np.int32)], 2, {}),
    "attention": ("Attention", [X, normal(16, 48), normal(48)], 1, {"num_heads": 4}),
    "attention_causal": ("Attention", [X, normal(16, 48), normal(48)], 1, {"num_heads": 2,
        "unidirectional": 1}),
    "attention_mask": ("Attention", [X, normal(16, 48), normal(48), np.array([[1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1]], np.int32)], 1, {"num_heads": 4}),
    "multi_head": ("MultiHeadAttention", [*QKV], 1, {"num_heads": 4}),
    "multi_head_bias": ("MultiHeadAttention", [*QKV, normal(96)], 1, {"num_heads": 4}),
    "group_query": ("GroupQueryAttention", [normal(1, 4, 32), normal(1, 4, 16), normal(1, 4,
        16), None, None, np.array([3], np.int32), np.array(4, np.int32)], 3, {"num_heads": 4,
        "kv_num_heads": 2}),
    "rotary": ("RotaryEmbedding", [normal(1, 5, 16), np.arange(5)[None].astype(np.int64),
        np.cos(ANGLES), np.sin(ANGLES)], 1, {}),
    "dynamic_matmul": ("DynamicQuantizeMatMul", [normal(4, 8), i8(8, 3), one(0.02), one(3,
        np.int8), normal(3)], 1, {}),
    "integer_to_float": ("MatMulIntegerToFloat", [u8(4, 8), i8(8, 3), one(0.1), one(0.02), Z8,
        one(3, np.int8), normal(3)], 1, {}),
    "nbits": ("MatMulNBits", [normal(3, 32), u8(6, 2, 8), RNG.uniform(0.01, 0.1, 12).astype(F)],
        1, {"K": 32, "N": 6, "bits": 4, "block_size": 16}),
    "nbits_zero": ("MatMulNBits", [normal(3, 32), u8(6, 2, 8), RNG.uniform(0.01, 0.1,
        12).astype(F), u8(6)], 1, {"K": 32, "N": 6, "bits": 4, "block_size": 16}),
    "q_add": ("QLinearAdd", [u8(2, 3, 4), *SCALES[:2], u8(2, 3, 4), *SCALES[2:]], 1, {}),
    "q_mul": ("QLinearMul", [u8(2, 3, 4), *SCALES[:2], u8(2, 3, 4), *SCALES[2:]], 1, {}),
    "q_concat": ("QLinearConcat", [one(0.05), Z8, u8(2, 3), *SCALES[:2], u8(2, 4),
        *SCALES[2:4]], 1, {"axis": 1}),
    "q_sigmoid": ("QLinearSigmoid", [u8(3, 9), *SCALES[:2], one(1 / 256), one(0, np.uint8)], 1,
        {}),
    "q_leaky": ("QLinearLeakyRelu", [u8(3, 9), *SCALES[:4]], 1, {"alpha": 0.1}),
    "q_pool": ("QLinearAveragePool", [u8(1, 2, 6, 6), *SCALES[:4]], 1, {"kernel_shape": [2, 2],
        "strides": [2, 2]}),
    "q_global": ("QLinearGlobalAveragePool", [u8(1, 2, 6, 6), *SCALES[:4]], 1, {}),
    "q_softmax": ("QLinearSoftmax", [u8(3, 9), *SCALES[:2], one(1 / 256), one(0, np.uint8)], 1,
        {"axis": -1, "opset": 13}),
    **{f"q_softmax_{opset}_{axis}": ("QLinearSoftmax", [u8(2, 3, 4), *SCALES[:2], one(1 / 256),
        one(0, np.uint8)], 1, {"axis": axis, "opset": opset}) for opset in (11, 12, 13) for axis in
        (-2, 0, 1, 2)},
    **{f"q_pool_last_{i}": ("QLinearAveragePool", [u8(1, 6, 5, 2), *SCALES[:4]], 1,
        {"channels_last": 1, **attrs}) for i, attrs in enumerate(({"kernel_shape": [2, 2],
        "strides": [2, 2]}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}, {"kernel_shape": [2, 2], "strides": [2,
        2], "ceil_mode": 1}))},
    "q_global_last": ("QLinearGlobalAveragePool", [u8(1, 6, 5, 2), *SCALES[:4]], 1,
        {"channels_last": 1}),
    "simplified": ("SimplifiedLayerNormalization", [X, normal(16)], 1, {"epsilon": 1e-5}),
    "simplified_axis": ("SimplifiedLayerNormalization", [X, normal(5, 16)], 1, {"axis": 1}),
    "q_gemm": ("QGemm", [u8(4, 8), one(0.1), Z8, i8(8, 3), one(0.02), one(0, np.int8),
        RNG.integers(-99, 99, 3).astype(np.int32), one(0.5), Z8], 1, {}),
    "q_gemm_float": ("QGemm", [u8(4, 8), one(0.1), Z8, i8(3, 8), one(0.02), one(0, np.int8)], 1,
        {"transB": 1}),
    "quantize": ("QuantizeLinear", [normal(3, 4), one(0.03), Z8], 1, {}),
    "dequantize": ("DequantizeLinear", [u8(3, 4), one(0.03), Z8], 1, {}),
}  # fmt: skip

NOT_HERE = {"DynamicQuantizeLSTM": "tests/test_real_models.py compares it on short sequences"}


def test_every_handler_is_exercised() -> None:
    assert {c[0] for c in CASES.values()} | set(NOT_HERE) == set(MICROSOFT)


@pytest.mark.parametrize("case", CASES)
def test_equals_onnx_runtime(case: str) -> None:
    op, arrays, outputs, attrs = CASES[case]
    names = [f"i{j}" if a is not None else "" for j, a in enumerate(arrays)]
    # ONNX Runtime wants scales, zero points and weights as constants; the first input is the only
    # free one
    constants = {n: a for n, a in zip(names[1:], arrays[1:], strict=True) if a is not None}
    first = arrays[0]
    assert first is not None
    if op == "QLinearConcat":
        constants, feeds = (
            {n: a for n, a in zip(names, arrays, strict=True) if a is not None and n != "i2"},
            {"i2": arrays[2]},
        )
    else:
        feeds = {"i0": first}
    results = [f"o{j}" for j in range(outputs)]
    asked = ["o0", "", "", "o3"] if op.startswith("Skip") else results
    node = helper.make_node(
        op, names, asked, domain="" if op in ALSO_DEFAULT else "com.microsoft", **attrs
    )
    inputs = {n: (a.dtype, a.shape) for n, a in feeds.items() if a is not None}
    model = model_of([node], inputs, [o for o in asked if o], constants, opset=17, microsoft=True)
    graph = imported(model)
    verify(graph)
    ours = interpret(graph, {n: a for n, a in feeds.items() if a is not None})
    for name, want in zip(graph.outputs, runtime(model, feeds), strict=True):  # type: ignore[arg-type]
        got = ours[name]
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind in "iu":
            assert np.abs(got.astype(int) - want.astype(int)).max() <= 1
        else:
            np.testing.assert_allclose(
                got, want, rtol=1e-4, atol=2e-5 * max(1.0, float(np.abs(want).max()))
            )
