"""Contraction FLOPs equal XLA's cost analysis: dots and convolutions exactly, with its valid-taps
rule.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support import imported, model_of, real_model
from tenfold.importers.onnx import import_model
from tenfold.ir import Graph, Op, bind, graph_totals, op_work

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.jax


@lru_cache(maxsize=512)
def xla_conv(
    x: tuple[int, ...],
    w: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilations: tuple[int, ...],
    base: tuple[int, ...],
    groups: int,
) -> int:
    """XLA's flops of one convolution alone."""
    spatial = "DHW"[-len(strides) :]
    numbers = ("NC" + spatial, "OI" + spatial, "NC" + spatial)

    def f(a: Any, b: Any) -> Any:
        return jax.lax.conv_general_dilated(
            a,
            b,
            strides,
            pads,
            lhs_dilation=base,
            rhs_dilation=dilations,
            dimension_numbers=numbers,
            feature_group_count=groups,
        )

    return flops(f, x, w)


@lru_cache(maxsize=512)
def xla_dot(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return flops(jax.numpy.matmul, a, b)


def flops(f: Any, *shapes: tuple[int, ...]) -> int:
    arguments = [jax.ShapeDtypeStruct(s, np.float32) for s in shapes]
    return int(jax.jit(f).lower(*arguments).cost_analysis()["flops"])


def xla_of(graph: Graph, op: Op) -> int:
    """XLA's count for one of our contractions, written again in JAX."""
    shapes = [tuple(int(d) for d in graph.values[n].dims) for n in op.inputs if n]
    if op.kind == "matmul":
        a, b = shapes
        a = (*a[:-2], a[-1], a[-2]) if op.attrs.get("transpose_a") else a
        b = (*b[:-2], b[-1], b[-2]) if op.attrs.get("transpose_b") else b
        return xla_dot(a, b)
    assert op.kind == "conv"
    rank = len(shapes[0]) - 2
    flat: Any = op.attrs.get("pads") or (0,) * 2 * rank
    ones = (1,) * rank
    strides: Any = op.attrs.get("strides") or ones
    dilations: Any = op.attrs.get("dilations") or ones
    groups: Any = op.attrs.get("group", 1)
    return xla_conv(
        shapes[0],
        shapes[1],
        tuple(strides),
        tuple(zip(flat[:rank], flat[rank:], strict=True)),
        tuple(dilations),
        ones,
        groups,
    )


def check_all(graph: Graph) -> int:
    """Every contraction of a bound graph against XLA; returns their sum."""
    total = 0
    for op in graph.ops:
        ours = op_work(graph, op).contraction_flops
        if ours:
            assert ours == xla_of(graph, op), op.name
            total += int(ours)
    assert total == graph_totals(graph).contraction_flops
    return total


@pytest.mark.parametrize("batch", [1, 8])
def test_resnet50(batch: int) -> None:
    graph = bind(
        import_model(real_model("light/light_resnet50.onnx"), "resnet50"), {"batch": batch}
    )
    total = check_all(graph)
    assert total == batch * check_all(bind(graph, {})) // batch
    assert 7.2e9 < total / batch < 8.2e9


BLOCK = {"batch": 8, "seq": 384, "width": 1024, "ffn": 4096, "heads": 16}


def transformer_block() -> Graph:
    """Post-norm encoder block, weights never made: shapes alone are counted."""
    b, s, d, f, h = BLOCK.values()
    nodes = []
    for name in "qkv":
        nodes += [
            helper.make_node("MatMul", ["x", f"w{name}"], [f"{name}0"]),
            helper.make_node("Reshape", [f"{name}0", "split"], [f"{name}1"]),
            helper.make_node(
                "Transpose",
                [f"{name}1"],
                [f"{name}2"],
                perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3],
            ),
        ]
    nodes += [
        helper.make_node("MatMul", ["q2", "k2"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v2"], ["o0"]),
        helper.make_node("Transpose", ["o0"], ["o1"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["o1", "join"], ["o2"]),
        helper.make_node("MatMul", ["o2", "wo"], ["o3"]),
        helper.make_node("Add", ["x", "o3"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["f0"]),
        helper.make_node("Relu", ["f0"], ["f1"]),
        helper.make_node("MatMul", ["f1", "w2"], ["f2"]),
        helper.make_node("Add", ["r", "f2"], ["y"]),
    ]
    weights = {f"w{n}": (np.float32, (d, d)) for n in "qkvo"} | {
        "w1": (np.float32, (d, f)),
        "w2": (np.float32, (f, d)),
    }
    constants = {"split": np.array([0, 0, h, d // h]), "join": np.array([0, 0, d])}
    return bind(
        imported(model_of(nodes, {"x": (np.float32, (b, s, d)), **weights}, ["y"], constants)), {}
    )


def test_transformer_block() -> None:
    graph = transformer_block()
    b, s, d, f, _ = BLOCK.values()
    total = check_all(graph)
    assert total == 2 * b * s * (4 * d * d + 2 * d * f + 2 * s * d)

    def whole(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, w1: Any, w2: Any) -> Any:
        split = lambda a: a.reshape(b, s, BLOCK["heads"], -1).transpose(0, 2, 1, 3)  # noqa: E731
        scores = split(x @ wq) @ split(x @ wk).swapaxes(-1, -2)
        o = (jax.nn.softmax(scores) @ split(x @ wv)).transpose(0, 2, 1, 3).reshape(b, s, d)
        r = x + o @ wo
        return r + jax.nn.relu(r @ w1) @ w2

    everything = flops(whole, (b, s, d), (d, d), (d, d), (d, d), (d, d), (d, f), (f, d))
    assert total < everything < 1.005 * total  # the rest is element-wise


CONVS = [
    # input, kernel, strides, pads (begins, ends), dilations, groups
    ((2, 64, 7, 7), (64, 64, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((1, 3, 15, 11), (8, 3, 5, 3), (2, 3), (2, 0, 1, 2), (1, 1), 1),
    ((1, 8, 20, 20), (8, 1, 3, 3), (2, 2), (1, 1, 1, 1), (2, 3), 8),
    ((2, 12, 9, 9), (6, 4, 3, 3), (1, 2), (2, 2, 2, 2), (1, 1), 3),
    ((1, 4, 33), (5, 4, 7), (3,), (6, 1), (2,), 1),
    ((1, 2, 6, 7, 8), (3, 2, 3, 3, 3), (1, 2, 1), (1, 1, 1, 0, 1, 2), (1, 1, 2), 1),
    ((1, 4, 3, 3), (4, 4, 5, 5), (1, 1), (3, 3, 3, 3), (1, 1), 1),
]


@pytest.mark.parametrize("case", CONVS)
def test_convolution(case: tuple[Any, ...]) -> None:
    x, w, strides, pads, dilations, group = case
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], strides=strides, pads=pads, dilations=dilations, group=group
    )
    graph = bind(
        imported(model_of([node], {"x": (np.float32, x), "w": (np.float32, w)}, ["y"])), {}
    )
    assert check_all(graph) > 0


TRANSPOSED = [
    ((1, 4, 5, 5), (4, 6, 3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (0, 0)),
    ((2, 3, 7, 4), (3, 5, 4, 2), (2, 3), (0, 1, 1, 0), (1, 1), (1, 0)),
    ((1, 2, 6, 6), (2, 2, 3, 3), (1, 1), (0, 0, 0, 0), (2, 2), (0, 0)),
]


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolution(case: tuple[Any, ...]) -> None:
    """As XLA sees it: a convolution of the input dilated by the stride with the flipped kernel."""
    x, w, strides, pads, dilations, extra = case
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=strides,
        pads=pads,
        dilations=dilations,
        output_padding=extra,
    )
    graph = bind(
        imported(model_of([node], {"x": (np.float32, x), "w": (np.float32, w)}, ["y"])), {}
    )
    rank = len(strides)
    reach = [(w[2 + i] - 1) * dilations[i] for i in range(rank)]
    around = tuple((reach[i] - pads[i], reach[i] - pads[i + rank] + extra[i]) for i in range(rank))
    ours = graph_totals(graph).contraction_flops
    assert ours == xla_conv(x, (w[1], w[0], *w[2:]), (1,) * rank, around, dilations, strides, 1)
