"""Narrow types against ONNX Runtime where it has kernels, else against our own fp32.

Tolerances: fp16 rtol 2e-3 and atol 2e-3 (one rounding an op, ONNX Runtime may keep fp32 inside a
fused op); bf16 cosine above 0.9999 to fp32; quantised one quantum; integers exact.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import imported, model_of, runtime
from tenfold.ir import DType, interpret, verify
from tenfold.ir.graph import Array

RNG = np.random.default_rng(5)


def u8(*shape: int) -> Array:
    return RNG.integers(0, 255, shape).astype(np.uint8)


def i8(*shape: int) -> Array:
    return RNG.integers(-127, 127, shape).astype(np.int8)


def f(value: Any) -> Array:
    return np.asarray(value, np.float32)


def compare(
    model: Any,
    feeds: dict[str, Array],
    quanta: int = 0,
    tolerance: float = 1e-4,
    *,
    optimise: bool = True,
) -> None:
    graph = imported(model)
    verify(graph)
    assert not any(op.kind == "opaque" for op in graph.ops)
    ours = interpret(graph, feeds)
    for name, want in zip(graph.outputs, runtime(model, feeds, optimise=optimise), strict=True):
        got = ours[name]
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind in "iu":
            assert np.abs(got.astype(np.int64) - want.astype(np.int64)).max(initial=0) <= quanta
        else:
            np.testing.assert_allclose(
                got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance
            )


def mlp(dtype: Any) -> tuple[Any, dict[str, Array]]:
    weights = {
        "w": RNG.standard_normal((16, 32)) / 4,
        "b": RNG.standard_normal(32) / 4,
        "v": RNG.standard_normal((32, 8)) / 6,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h0"]),
        helper.make_node("Add", ["h0", "b"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("MatMul", ["h2", "v"], ["y0"]),
        helper.make_node("Softmax", ["y0"], ["y"], axis=-1),
    ]
    constants = {n: a.astype(dtype) for n, a in weights.items()}
    return model_of(nodes, {"x": (dtype, (4, 16))}, ["y0", "y"], constants), {
        "x": RNG.standard_normal((4, 16)).astype(dtype)
    }


def test_fp16() -> None:
    compare(*mlp(np.float16), tolerance=2e-3)


def test_fp16_convolution_and_norms() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["y"], axes=[2, 3]),
    ]
    constants = {
        "w": (RNG.standard_normal((4, 3, 3, 3)) / 5).astype(np.float16),
        "b": np.ones(4, np.float16),
    }
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float16)
    compare(
        model_of(nodes, {"x": (np.float16, x.shape)}, ["y"], constants), {"x": x}, tolerance=4e-3
    )


def test_bf16_stays_near_fp32() -> None:
    """ONNX Runtime's CPU provider has no bf16 matmul: the same network in fp32 is the reference."""
    rng_state = RNG.bit_generator.state
    wide, feeds = mlp(np.float32)
    RNG.bit_generator.state = rng_state
    narrow, narrow_feeds = mlp(ml_dtypes.bfloat16)
    want = interpret(imported(wide), feeds)["y0"]
    graph = imported(narrow)
    got = interpret(graph, narrow_feeds)["y0"]
    assert graph.values["y0"].dtype is DType.BF16
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert 0.9999 < cosine < 1 - 1e-9


def test_qdq_network() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "cs", "cz"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "cs", "cz"], ["y"]),
    ]
    constants = {
        "xs": f(0.03),
        "xz": np.uint8(120),
        "w": i8(4, 3, 3, 3),
        "ws": f([0.01, 0.02, 0.015, 0.03]),
        "wz": np.zeros(4, np.int8),
        "b": f([0.1, -0.2, 0.3, 0]),
        "cs": f(0.1),
        "cz": np.uint8(128),
    }
    x = RNG.standard_normal((2, 3, 7, 7)).astype(np.float32)
    model = model_of(nodes, {"x": (np.float32, x.shape)}, ["cq", "xq"], constants)
    compare(model, {"x": x}, quanta=1)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qlinear_conv(per_channel: bool, bias: bool) -> None:
    scale = f([0.01, 0.02, 0.015, 0.03]) if per_channel else f(0.02)
    zero = np.zeros(4, np.int8) if per_channel else np.int8(0)
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"] + (["b"] if bias else [])
    constants = {
        "xs": f(0.03),
        "xz": np.uint8(110),
        "w": i8(4, 3, 3, 3),
        "ws": scale,
        "wz": zero,
        "ys": f(0.8),
        "yz": np.uint8(128),
    }
    constants |= {"b": RNG.integers(-5000, 5000, 4).astype(np.int32)} if bias else {}
    node = helper.make_node("QLinearConv", names, ["y"], pads=[1, 1, 1, 1], strides=[2, 2])
    x = u8(2, 3, 9, 9)
    compare(model_of([node], {"x": (np.uint8, x.shape)}, ["y"], constants), {"x": x}, quanta=1)


@pytest.mark.parametrize("per_column", [False, True])
def test_qlinear_matmul(per_column: bool) -> None:
    scale, zero = (
        (f([0.02, 0.03, 0.01]), np.zeros(3, np.int8)) if per_column else (f(0.02), np.int8(0))
    )
    constants = {
        "xs": f(0.05),
        "xz": np.uint8(100),
        "w": i8(8, 3),
        "ws": scale,
        "wz": zero,
        "ys": f(0.3),
        "yz": np.uint8(120),
    }
    node = helper.make_node("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    x = u8(2, 4, 8)
    compare(model_of([node], {"x": (np.uint8, x.shape)}, ["y"], constants), {"x": x}, quanta=1)


def test_integer_products_are_exact() -> None:
    x, image = u8(5, 64), u8(1, 2, 6, 6)
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"]),
        helper.make_node("ConvInteger", ["image", "k", "xz"], ["z"], pads=[1, 1, 1, 1]),
    ]
    constants = {"w": i8(64, 7), "xz": np.uint8(33), "wz": i8(7), "k": u8(3, 2, 3, 3)}
    compare(
        model_of(
            nodes,
            {"x": (np.uint8, x.shape), "image": (np.uint8, image.shape)},
            ["y", "z"],
            constants,
        ),
        {"x": x, "image": image},
    )


def test_dynamic_quantisation() -> None:
    x = RNG.standard_normal((3, 5)).astype(np.float32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    compare(
        model_of([node], {"x": (np.float32, x.shape)}, ["q", "s", "z"]), {"x": x}, tolerance=1e-6
    )


def test_int4_weights_in_blocks() -> None:
    raw = RNG.integers(-8, 7, (128, 64)).astype(ml_dtypes.int4)
    node = helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], axis=0, block_size=16)
    product = helper.make_node("MatMul", ["x", "wd"], ["y"])
    constants = {"s": RNG.uniform(0.01, 0.1, (8, 64)).astype(np.float32)}
    model = model_of([node, product], {"x": (np.float32, (4, 128))}, ["y"], constants, opset=21)
    for name, data in (("w", raw), ("z", np.zeros((8, 64), ml_dtypes.int4))):
        tensor = helper.make_tensor(
            name, TensorProto.INT4, data.shape, data.astype(np.int8).ravel().tolist()
        )
        assert numpy_helper.to_array(tensor).shape == data.shape
        model.graph.initializer.append(tensor)
    x = RNG.standard_normal((4, 128)).astype(np.float32)
    compare(model, {"x": x}, optimise=False)  # optimised, it also quantises the activations
    assert imported(model).values["w"].bytes == 128 * 64 // 2


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.float64, np.float16])
def test_arithmetic_keeps_its_type(kind: Any) -> None:
    a, b = (RNG.integers(1, 9, (3, 4)).astype(kind) for _ in range(2))
    nodes = [helper.make_node(op, ["a", "b"], [op.lower()]) for op in ("Add", "Mul", "Sub", "Div")]
    model = model_of(
        nodes, {"a": (kind, a.shape), "b": (kind, b.shape)}, ["add", "mul", "sub", "div"]
    )
    graph = imported(model)
    for name, array in interpret(graph, {"a": a, "b": b}).items():
        assert array.dtype == np.dtype(kind)
        want = {"add": a + b, "mul": a * b, "sub": a - b, "div": (a / b).astype(kind)}[name]
        np.testing.assert_array_equal(array, want)
