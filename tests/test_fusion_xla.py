"""What fusion leaves to move, against XLA's own fusion on the CPU (fp32)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support import model_path
from tenfold.chips import chip
from tenfold.compiler import STEPS, Options, build, pipeline
from tenfold.ir import Graph, Op
from tenfold.machine.gpu.target import Gpu
from tenfold.model import Sizes, load, prepare

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.jax
numpy: Any = jax.numpy


def _conv(op: Op, x: Any, w: Any, *bias: Any) -> Any:
    rank = x.ndim - 2
    pads: Any = op.attrs.get("pads") or (0,) * 2 * rank
    ones = (1,) * rank
    y = jax.lax.conv_general_dilated(
        x,
        w,
        op.attrs.get("strides") or ones,
        list(zip(pads[:rank], pads[rank:], strict=True)),
        rhs_dilation=op.attrs.get("dilations") or ones,
        feature_group_count=op.attrs.get("group", 1),
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    return y + bias[0].reshape(1, -1, 1, 1) if bias else y


def _pool(op: Op, x: Any, start: float, fn: Any) -> Any:
    pads: Any = op.attrs.get("pads") or (0,) * 4
    window: Any = op.attrs["kernel_shape"]
    strides: Any = op.attrs.get("strides") or (1, 1)
    around = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    return jax.lax.reduce_window(x, start, fn, (1, 1, *window), (1, 1, *strides), around)


def _attention(op: Op, q: Any, k: Any, v: Any) -> Any:
    heads: Any = op.attrs["q_num_heads"]
    split = lambda a: a.reshape(*a.shape[:2], heads, -1).transpose(0, 2, 1, 3)  # noqa: E731
    q, k, v = split(q), split(k), split(v)
    y = jax.nn.softmax(q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5) @ v
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def _layer_norm(op: Op, x: Any, scale: Any, bias: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred
        * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + op.attrs["epsilon"])
        * scale
        + bias
    )


JAX: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "relu": lambda _op, x: numpy.maximum(x, 0),
    "add": lambda _op, a, b: a + b,
    "split": lambda op, x, sizes: numpy.split(x, np.cumsum(sizes)[:-1].tolist(),
        axis=op.attrs["axis"]),
    "tanh": lambda _op, x: numpy.tanh(x),
    "gelu": lambda _op, x: jax.nn.gelu(x, approximate=False),
    "softmax": lambda op, x: jax.nn.softmax(x, axis=op.attrs["axis"]),
    "max_pool": lambda op, x: _pool(op, x, -np.inf, jax.lax.max),
    "average_pool": lambda op, x: _pool(op, x, 0.0, jax.lax.add) /
        np.prod(op.attrs["kernel_shape"]),
    "reshape": lambda _op, x, shape: x.reshape([int(d) for d in shape]),
    "gather": lambda op, x, i: numpy.take(x, i, axis=op.attrs.get("axis", 0)),
    "matmul": lambda op, a, b: a @ (b.swapaxes(-1, -2) if op.attrs.get("transpose_b") else b),
    "attention": _attention,
    "layer_norm": _layer_norm,
}  # fmt: skip


def xla_bytes(graph: Graph) -> float:
    """Bytes that XLA's compiled module accesses, for the same network written in JAX."""
    weights = [n for n in graph.constants if graph.values[n].dtype.is_float]
    known = {n: a for n, a in graph.constants.items() if n not in weights}

    def run(inputs: list[Any], values: list[Any]) -> list[Any]:
        live = {
            **known,
            **dict(zip(graph.inputs, inputs, strict=True)),
            **dict(zip(weights, values, strict=True)),
        }
        for op in graph.ops:
            made = JAX[op.kind](op, *(live[n] for n in op.inputs if n))
            live |= dict(
                zip(op.outputs, made if isinstance(made, list | tuple) else [made], strict=True)
            )
        return [live[n] for n in graph.outputs]

    def shapes(names: Any) -> list[Any]:
        return [
            jax.ShapeDtypeStruct(
                graph.values[n].dims, np.int32 if graph.values[n].dtype.is_integer else np.float32
            )
            for n in names
        ]

    return float(
        jax.jit(run)
        .lower(shapes(graph.inputs), shapes(weights))
        .compile()
        .cost_analysis()["bytes accessed"]
    )


@pytest.mark.models
@pytest.mark.parametrize(("name", "seq"), [("resnet50", None), ("bert-large", 384)])
def test_fusion_removes_half_and_leaves_no_more_than_xla(
    name: str, seq: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fusion as a GPU allows it, whatever one operator at a time would do on a processor."""
    monkeypatch.setattr(pipeline, "target_of", Gpu)
    monkeypatch.setattr(Gpu, "parts", lambda _, kernel, *_rest: (kernel,))
    assert name != "resnet50" or model_path("light/light_resnet50.onnx").is_file()
    graph = prepare(load(name), Sizes(batch=8, seq=seq)).graph
    record = chip("epyc-9654")
    precision = record.storage("fp32")
    unfused = build(graph, record, precision, 8, Options(tuple(STEPS)))
    fused = build(graph, record, precision, 8)
    assert fused.moved_bytes < 0.5 * unfused.moved_bytes
    assert fused.moved_bytes < 1.25 * xla_bytes(fused.graph)
    least = fused.weight_bytes + fused.io_bytes
    assert fused.moved_bytes > least
