"""What a cutting is asked, and what is read off the graph before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tenfold.ir.cost import graph_totals, lookup_axis, op_call
from tenfold.ir.graph import Graph
from tenfold.ir.infer import row_of
from tenfold.ir.sharding import SUM, Cut, Split, divides
from tenfold.ir.table import Call, Lowering


@dataclass(frozen=True, slots=True)
class Asked:
    """``ways`` chips, each ``stride`` after the one before; ``like`` names outputs that are cut as
    a constant is; with ``sequence`` sums stay cut along the second axis, and inputs that are
    ``received`` from other parts come cut so.
    """

    ways: int
    stride: int
    like: Mapping[str, str]
    sequence: bool
    received: frozenset[str] = frozenset()


def products_of(graph: Graph) -> int:
    return int(str(graph_totals(graph).contraction_flops))


def wishes(graph: Graph, like: Mapping[str, str]) -> dict[str, str]:
    """The values that end as an output which is cut as a constant is, unchanged or added up."""
    found = dict(like)
    for op in reversed(graph.ops):
        weight = found.get(op.outputs[0])
        row = row_of(op)
        if weight is not None and (row.additive or row.views):
            shape = graph.values[op.outputs[0]].shape
            found |= {n: weight for n in op.inputs if n and graph.values[n].shape == shape}
    return found


def tied_tables(graph: Graph, ways: int) -> dict[str, Cut]:
    """Tables that a product multiplies by too, with the columns by which it is cut."""
    looked_up = {op.inputs[0] for op in graph.ops if lookup_axis(graph, op) is not None}
    found: dict[str, Cut] = {}
    for op in graph.ops:
        row = row_of(op)
        shared = [n for n in op.inputs if n in looked_up and n in graph.constants]
        if row.lowering is not Lowering.MATRIX or not shared:
            continue
        call = op_call(graph, op)
        for split in row.splits(row, call, ways):
            cuts = dict(zip(op.inputs, split.operands, strict=True))
            alone = not split.summed and sum(c is not None for c in split.operands) == 1
            new = {n: c for n in shared if alone and (c := cuts[n]) is not None}
            found = new | found  # the first product's
    return found


def sectioned(split: Split, given: Sequence[Cut | None], call: Call, ways: int) -> Split:
    """The split with the stretches in which its operands are cut, where any share will do."""
    if not split.anywhere:
        return split
    pairs = zip(given, split.operands, strict=True)
    found = {h.sections for h, w in pairs if h is not None and w is not None and h.axis == w.axis}
    if len(found) != 1 or found == {()}:
        return split
    (sections,) = found

    def cut(c: Cut | None) -> Cut | None:
        return Cut(c.axis, sections) if c is not None else None

    operands = tuple(map(cut, split.operands))
    results = tuple(r if r is SUM else cut(r) for r in split.results)
    fits = all(divides(c, call.shape(n), ways) for n, c in enumerate(operands) if c is not None)
    return replace(split, operands=operands, results=results) if fits else split
