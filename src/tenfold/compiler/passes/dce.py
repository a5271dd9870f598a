"""Dead code: ops and constants that no output needs."""

from __future__ import annotations

from dataclasses import replace

from tenfold.compiler.passes.sweep import Pass
from tenfold.ir.binding import prune
from tenfold.ir.graph import Graph


def _apply(graph: Graph) -> Graph:
    graph = prune(graph, {})
    if not any(op.bodies for op in graph.ops):
        return graph
    return replace(
        graph,
        ops=tuple(replace(op, bodies=tuple(_apply(b) for b in op.bodies)) for op in graph.ops),
    )


PASS = Pass("dce", "ops whose results nobody reads go, after every other pass", _apply)
