"""Views: values that are other names for the bytes of another value."""

from __future__ import annotations

from collections.abc import Mapping

from tenfold.ir.graph import Graph, Op
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering


def is_view(op: Op) -> bool:
    """Whether the op's result has the bytes of its first operand."""
    row = row_of(op)
    return (
        row.lowering is Lowering.VIEW
        and not row.measures
        and bool(op.inputs)
        and bool(op.inputs[0])
    )


def roots(graph: Graph) -> Mapping[str, str]:
    """For each view the value that holds its bytes."""
    found: dict[str, str] = {}
    for op in graph.ops:
        if is_view(op):
            source = op.inputs[0]
            found[op.outputs[0]] = found.get(source, source)
    return found
