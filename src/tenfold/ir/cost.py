"""Arithmetic and traffic of ops and graphs, from the work column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, add
from tenfold.ir.graph import Graph, Op, UnknownShape
from tenfold.ir.infer import row_of
from tenfold.ir.space import Reach
from tenfold.ir.table import Call, Lowering, Work


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the ops of a graph. ``opaque_flops`` and ``opaque_bytes`` belong to ops that are
    not native.
    """

    contraction_flops: Dim = 0
    vector_flops: Dim = 0
    transcendentals: Dim = 0
    read_bytes: Dim = 0
    write_bytes: Dim = 0
    opaque_flops: Dim = 0

    @property
    def flops(self) -> Dim:
        return add(self.contraction_flops, self.vector_flops)


def op_call(graph: Graph, op: Op) -> Call:
    """``op`` with the types of its operands and results and the contents of constants."""
    known = {
        i: data for i, n in enumerate(op.inputs) if (data := graph.constants.get(n)) is not None
    }
    return Call(
        op,
        tuple(graph.value(n) for n in op.inputs),
        tuple(graph.value(n) for n in op.outputs),
        known,
    )


def op_work(graph: Graph, op: Op) -> Work:
    """The work of one op. Raises ModelError where its operands' shapes are unknown or make no
    sense.
    """
    try:
        return row_of(op).work(op_call(graph, op))
    except UnknownShape as error:
        raise ModelError(
            f"node '{op.name}' ({op.kind}) cannot be priced: the shape of '{error}' is not known"
            " before the model runs"
        ) from error
    except (ValueError, IndexError, TypeError, ZeroDivisionError, AttributeError) as error:
        raise ModelError(f"node '{op.name}' ({op.kind}) cannot be priced: {error}") from error


def graph_totals(graph: Graph) -> Totals:
    """Totals of a graph: each is the sum of the works that ``op_work`` lists, counted once."""
    sums: list[Dim] = [0] * 6
    for op in graph.ops:
        work = op_work(graph, op)
        opaque = row_of(op).lowering is Lowering.OPAQUE
        parts: tuple[Dim, ...] = (
            work.contraction_flops,
            work.vector_flops,
            work.transcendentals,
            _sum(work.reads),
            _sum(work.writes),
            work.flops if opaque else 0,
        )
        sums = [add(s, p) for s, p in zip(sums, parts, strict=True)]
    return Totals(*sums)


def _sum(parts: tuple[Dim, ...]) -> Dim:
    total: Dim = 0
    for p in parts:
        total = add(total, p)
    return total


def active_parameters(graph: Graph) -> int:
    """Weights that one token passes: of a mixture of experts only the experts that it is sent
    to.
    """
    idle = 0
    for op in graph.walk():
        if row_of(op).experts is not None:
            chosen: Any = op.attrs["top_k"]
            for name in op.inputs[2:4]:
                experts = int(graph.values[name].dims[0])
                idle += int(graph.values[name].elements) * (experts - int(chosen)) // experts
    return graph.parameters - idle


def lookup_axis(graph: Graph, op: Op) -> int | None:
    """The axis of its first operand along which an op looks up what the data say."""
    if row_of(op).lowering is not Lowering.GATHER or not op.inputs:
        return None
    map_ = row_of(op).space(op_call(graph, op)).maps[0] or ()
    return next((axis for axis, index in enumerate(map_) if index.reach is Reach.DATA), None)
