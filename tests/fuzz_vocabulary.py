"""What the mutations are made of: hostile numbers and names, and ways to pick a graph, a node, a
value.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import onnx
import onnx.defs
from onnx import GraphProto, ModelProto, NodeProto

Mutation: TypeAlias = Callable[[random.Random, ModelProto], str]

INTS = (
    0,
    -1,
    1,
    2,
    3,
    5,
    7,
    64,
    65,
    127,
    1000,
    4096,
    10**6,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
    2**63 - 1,
    -2,
    -3,
    -(2**31),
    -(2**63),
)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-30,
    3.4e38,
    -3.4e38,
    float("inf"),
    float("-inf"),
    float("nan"),
)
STRINGS = (
    "",
    "x",
    "constant",
    "SAME_UPPER",
    "linear",
    "bidirectional",
    "ij,jk->ik",
    "...->",
    "a\nb",
    "\x00",
    "é" * 40,
    "y" * 5000,
)
NAMES = ("", "nowhere", "a\nb", "0", "x y", "batch", "%", "n" * 300, "n" * 3000)
SYMBOLS = (
    "",
    "batch",
    "N",
    "Max",
    "floor",
    "lambda",
    "1",
    "a b",
    "a\nb",
    "-",
    "x" * 2000,
    "seq*2",
    "u0_x",
    "é",
    "I",
    "pi",
)
TYPES = (*range(30), -1, 99, 2**31 - 1)


def graphs(model: ModelProto) -> list[GraphProto]:
    found: list[GraphProto] = []
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        found.append(graph)
        waiting += [
            g
            for n in graph.node
            for a in n.attribute
            for g in ([a.g] if a.HasField("g") else a.graphs)
        ]
    return found


def pick_graph(rng: random.Random, model: ModelProto) -> GraphProto:
    return rng.choice([model.graph, rng.choice(graphs(model))])


def pick_node(rng: random.Random, model: ModelProto) -> NodeProto | None:
    nodes = pick_graph(rng, model).node or model.graph.node
    return rng.choice(nodes) if nodes else None


def value_names(graph: GraphProto) -> list[str]:
    return (
        [i.name for i in graph.input]
        + [t.name for t in graph.initializer]
        + [o for n in graph.node for o in n.output]
    )


def pick_name(rng: random.Random, model: ModelProto) -> str:
    known = value_names(rng.choice([model.graph, pick_graph(rng, model)]))
    return rng.choice(known) if known and rng.random() < 0.7 else rng.choice(NAMES)


def pick_int(rng: random.Random) -> int:
    return rng.choice(INTS) if rng.random() < 0.7 else rng.randint(-4, 12)


@cache
def op_names() -> tuple[tuple[str, str], ...]:
    from tenfold.importers.onnx.handlers import HANDLERS

    return tuple(sorted({(s.domain, s.name) for s in onnx.defs.get_all_schemas()} | set(HANDLERS)))


@cache
def attribute_names(op_type: str) -> tuple[str, ...]:
    found = {
        a
        for s in onnx.defs.get_all_schemas_with_history()
        if s.name == op_type
        for a in s.attributes
    }
    return tuple(sorted(found)) or ("axis", "axes", "alpha")
