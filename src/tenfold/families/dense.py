"""Networks of dense layers: plain stacks, and recommendation with embedding tables."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from tenfold.errors import InputError
from tenfold.families.net import Net
from tenfold.ir.dims import symbol
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph


class Stack(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Dense layers with ReLU between: the widths from input to output."""

    widths: list[int]
    bias: bool = False


def stack_graph(name: str, s: Stack, dtype: DType) -> Graph:
    """The graph with free ``batch``."""
    if len(s.widths) < 2:
        raise InputError(f"{name}: a stack needs at least two widths, got {s.widths}")
    net = Net(name, dtype)
    x = net.input("x", (symbol("batch"), s.widths[0]))
    return net.graph(_stack(net, x, "layer", s.widths, bias=s.bias))


def _stack(net: Net, x: str, name: str, widths: list[int], *, bias: bool) -> str:
    for i, (a, b) in enumerate(pairwise(widths)):
        x = net.activation(net.linear(x, f"{name}.{i}", a, b, bias=bias), "relu")
    return x


class Recommender(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """DLRM (Naumov et al. 2019): a stack over dense features, one row of every table, all pairs of
    dot products, a stack.
    """

    bottom: list[int]
    top: list[int]
    tables: list[int]


def recommender_graph(name: str, r: Recommender, dtype: DType) -> Graph:
    """The graph with free ``batch``; one look-up a table."""
    net = Net(name, dtype)
    batch, width, count = symbol("batch"), r.bottom[-1], len(r.tables) + 1
    x = _stack(net, net.input("dense", (batch, r.bottom[0])), "bottom", r.bottom, bias=True)
    rows = [net.reshape(x, "dense.row", 0, 1, width)]
    for i, size in enumerate(r.tables):
        index = net.input(f"category.{i}", (batch, 1), DType.I64)
        rows.append(
            net.op(
                "gather",
                net.weight(f"table.{i}", size, width),
                index,
                name=f"look.{i}",
                attrs={"axis": 0},
            )
        )
    features = net.op("concat", *rows, name="features", attrs={"axis": 1})
    dots = net.op("matmul", features, features, name="pairs", attrs={"transpose_b": 1})
    flat = net.reshape(dots, "pairs.flat", 0, count * count)
    lower = net.ints("pairs.lower", *(i * count + j for i in range(count) for j in range(i)))
    chosen = net.op("gather", flat, lower, name="pairs.chosen", attrs={"axis": 1})
    y = net.op("concat", x, chosen, name="interaction", attrs={"axis": -1})
    y = _stack(net, y, "top", [width + count * (count - 1) // 2, *r.top[:-1]], bias=True)
    return net.graph(
        net.activation(net.linear(y, "click", r.top[-2], r.top[-1], bias=True), "sigmoid")
    )
