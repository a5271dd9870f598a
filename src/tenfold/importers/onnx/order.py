"""The order of nodes: the standard asks for one in which values are made before they are used, and
exporters do not always keep to it; and for one maker of each value.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import onnx

from tenfold.errors import ModelError


def made_once(graph: onnx.GraphProto) -> None:
    """Raises ModelError for a value of two makers: which of them is meant, nobody says."""
    makers = {i.name: "the graph's inputs" for i in graph.input}
    makers |= {t.name: "an initialiser" for t in graph.initializer}
    for node in graph.node:
        called = f"node '{node.name or node.op_type}'"
        for name in node.output:
            if name and name in makers:
                raise ModelError(
                    f"'{name}' is made twice, by {makers[name]} and by {called}: a value has one"
                    " maker"
                )
            makers[name] = called


def ordered(nodes: Sequence[onnx.NodeProto], given: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes so that each comes after those that make what it reads, else as they are (Kahn
    1962). Raises ModelError for nodes that wait for each other, naming a circle of them.

    ``given`` are the values that are there before any node.
    """
    there = set(given)
    made: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.output:
            if name and name not in there:
                made.setdefault(name, i)
    waits = [{made[n] for n in _read(node) if n in made} for node in nodes]
    if all(before < i for i, needs in enumerate(waits) for before in needs):
        return list(nodes)
    readers: dict[int, list[int]] = {}
    for i, needs in enumerate(waits):
        for before in needs:
            readers.setdefault(before, []).append(i)
    missing = [len(needs) for needs in waits]
    ready = [i for i, n in enumerate(missing) if not n]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for after in readers.get(i, ()):
            missing[after] -= 1
            if not missing[after]:
                heapq.heappush(ready, after)
    if len(order) < len(nodes):
        raise ModelError(_circle(nodes, waits, set(order)))
    return [nodes[i] for i in order]


def _read(node: onnx.NodeProto) -> list[str]:
    """What a node reads, and what its bodies read from outside."""
    found = [n for n in node.input if n]
    for a in node.attribute:
        for body in [a.g] if a.type == onnx.AttributeProto.GRAPH else list(a.graphs):
            inside = {i.name for i in body.input} | {t.name for t in body.initializer}
            inside |= {o for n in body.node for o in n.output}
            found += [n for inner in body.node for n in _read(inner) if n not in inside]
            found += [o.name for o in body.output if o.name not in inside]
    return found


def _circle(nodes: Sequence[onnx.NodeProto], waits: Sequence[set[int]], done: set[int]) -> str:
    at = next(i for i in range(len(nodes)) if i not in done)
    seen: list[int] = []
    while at not in seen:
        seen.append(at)
        at = next(i for i in sorted(waits[at]) if i not in done)
    circle = [*seen[seen.index(at) :], at]
    names = " <- ".join(f"'{_name(nodes[i])}'" for i in circle[:6])
    return f"nodes wait for each other in a circle: {names}"


def _name(node: onnx.NodeProto) -> str:
    return str(node.name) or next((str(o) for o in node.output if o), str(node.op_type))
