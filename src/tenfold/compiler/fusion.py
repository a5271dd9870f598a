"""Fusion: ops that run as one kernel, so that what passes between them never leaves the chip.

Region growing over the ops in order (the kinds and the cycle test follow TVM Relax's FuseOps and
XLA's instruction fusion): pointwise < row-wise < anchor, where an anchor is a contraction and a
kernel has at most one. An op joins the kernel of one of its producers, other anchorless producers
may be drawn in with it, and nothing is fused that would make the kernels wait for each other in a
circle. Every op says why it is where it is.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from tenfold.ir.cost import op_call
from tenfold.ir.dims import Shape
from tenfold.ir.graph import Graph, Op
from tenfold.ir.infer import row_of
from tenfold.ir.ops.common import whole_space
from tenfold.ir.space import Access, Space
from tenfold.ir.table import Lowering, OpRow, Rate
from tenfold.ir.views import roots
from tenfold.machine import FusionRules, Group, Joining

# that ONNX Runtime fuses
LARGEST = 256  # ops in one kernel (TVM's limit)
_ALONE = frozenset({Lowering.CONTROL, Lowering.OPAQUE, Lowering.TOGETHER})


@dataclass(slots=True, eq=False)
class _Region:
    """A kernel while it grows: its ops, and the ops of others that it reads from."""

    ops: list[int] = field(default_factory=list)
    reads: set[int] = field(default_factory=set)
    anchor: int | None = None
    reduces: Rows | None = None
    alone: bool = False
    first: int = 0
    last: int = 0
    reasons: dict[int, str] = field(default_factory=dict)


class _Grower:
    def __init__(self, graph: Graph, rules: FusionRules) -> None:
        self.graph, self.rules = graph, rules
        self.of: dict[int, _Region] = {}  # op -> region
        self.maker = {o: i for i, op in enumerate(graph.ops) for o in op.outputs if o}
        self.readers: dict[str, list[int]] = {}
        for i, op in enumerate(graph.ops):
            for n in dict.fromkeys(op.inputs):
                if n in self.maker:
                    self.readers.setdefault(n, []).append(i)
        self.rows: list[OpRow] = [row_of(op) for op in graph.ops]
        self.spaces = graph.derived(_space, lambda: [_space(graph, op) for op in graph.ops])
        self.access = [space.access for space in self.spaces]

    def size(self, name: str) -> int:
        size = self.graph.values[name].elements
        assert isinstance(size, int)
        return size

    # --- who waits for whom --------------------------------------------------------------

    def producers(self, i: int) -> dict[_Region, str]:
        """Regions that op ``i`` reads from, with the largest value read from each."""
        found: dict[_Region, str] = {}
        for n in self.graph.ops[i].inputs:
            if n in self.maker:
                r = self.of[self.maker[n]]
                if r not in found or self.size(n) > self.size(found[r]):
                    found[r] = n
        return found

    def _leads(self, starts: Iterable[_Region], goal: _Region) -> bool:
        """Whether one of ``starts`` is ``goal`` or depends on it, directly or not.

        Ops are in an order in which they can run, so that what depends on ``goal`` has an op after
        the first of its ops: nothing before is looked at.
        """
        seen: set[_Region] = set()
        left = list(starts)
        while left:
            region = left.pop()
            if region is goal:
                return True
            if region not in seen and region.last > goal.first:
                seen.add(region)
                left += (self.of[i] for i in region.reads)
        return False

    def _sources(self, region: _Region, *but: _Region) -> Iterator[_Region]:
        return (
            r for r in map(self.of.__getitem__, region.reads) if r is not region and r not in but
        )

    def start(self, i: int, reason: str) -> _Region:
        region = _Region(first=i)
        self.add(region, i, reason)
        return region

    def add(self, region: _Region, i: int, reason: str) -> None:
        region.ops.append(i)
        region.last = i
        region.reads |= {self.maker[n] for n in self.graph.ops[i].inputs if n in self.maker}
        region.reasons[i] = reason
        self.of[i] = region
        row = self.rows[i]
        if row.lowering is Lowering.MATRIX:
            region.anchor = i
        elif row.lowering is Lowering.REDUCE and Access.ROW in self.access[i]:
            region.reduces = self.reduced(i)
        region.alone = region.alone or row.lowering in _ALONE

    def would_circle(self, region: _Region, i: int) -> bool:
        """Whether op ``i`` reads from something else that waits for ``region``."""
        return self._leads((r for r in self.producers(i) if r is not region), region)

    def merge(self, into: _Region, other: _Region) -> bool:
        """Make one region of two, where nothing outside lies between them."""
        if into is other or len(into.ops) + len(other.ops) > LARGEST:
            return into is other
        if self._leads(self._sources(into, other), other) or self._leads(
            self._sources(other, into), into
        ):
            return False
        for i in other.ops:
            self.of[i] = into
        into.ops = sorted(into.ops + other.ops)
        into.first, into.last = into.ops[0], into.ops[-1]
        into.reads |= other.reads
        into.reasons |= other.reasons
        into.reduces = into.reduces or other.reduces
        into.anchor = into.anchor if into.anchor is not None else other.anchor
        return True

    # --- what may join -------------------------------------------------------------------

    def reduced(self, i: int) -> Rows:
        """The rows that a row-wise op goes along."""
        name = self.graph.ops[i].inputs[0]
        return rows_of(self.spaces[i], self.graph.values[name].dims)

    def refusal(self, region: _Region, i: int, value: str) -> str:
        """Why op ``i``, which reads ``value``, may not join ``region``; "" where it may."""
        row = self.rows[i]
        own = self.rules.refuses(self._joining(region, i)) if self.rules.refuses else ""
        if own:
            return own
        if region.alone or len(region.ops) >= LARGEST:
            return "runs alone" if region.alone else f"kernels end at {LARGEST} ops"
        if self.spaces[i].serial is not None:
            return "goes through what it reads step by step"
        position = self.graph.ops[i].inputs.index(value)
        access = self.access[i][position] if position < len(self.access[i]) else Access.WHOLE
        if row.lowering is Lowering.VECTOR:
            if access in (Access.POINT, Access.VIEW):
                return ""
            return (
                ""
                if access is Access.BROADCAST and region.anchor is None
                else f"reads {access} what the kernel before makes"
            )
        if row.lowering is Lowering.REDUCE:
            return self._refusal_of_row(region, i, access)
        if row.lowering is Lowering.MOVE:
            views = all(self.rows[j].lowering is Lowering.VIEW for j in region.ops)
            moves = access in (Access.VIEW, Access.POINT)
            return "" if moves or views else "is read in its small form by what follows"
        return "contractions, look-ups and control flow start a kernel"

    def _joining(self, region: _Region, i: int) -> Joining:
        """Op ``i`` beside ``region``, as the machine's own rules see it."""
        op = self.graph.ops[i]
        vector = (j for j in region.ops if self.rows[j].lowering is Lowering.VECTOR)
        return Joining(
            graph=self.graph,
            op=op,
            anchor=self.graph.ops[region.anchor] if region.anchor is not None else None,
            ended=tuple(self.graph.ops[j] for j in vector),
            outside=tuple(n for n in op.inputs if self.of.get(self.maker.get(n, -1)) is not region),
        )

    def _refusal_of_row(self, region: _Region, i: int, access: Access) -> str:
        if access is not Access.ROW:
            return "" if access is Access.POINT else f"reads {access} what the kernel before makes"
        rows = self.reduced(i)
        if region.reduces is not None and region.reduces != rows:
            return "reduces other rows than the kernel before"
        if region.anchor is not None:
            kind = self.graph.ops[region.anchor].kind
            if self.rules.rows_once and self.rows[i].rate is Rate.SOFTMAX:
                return "needs its rows twice"
            held = self.spaces[region.anchor].columns_of(1, beside=0)
            if not rows.last or not held or rows.width > self.rules.row_elements:
                return f"needs whole rows of {rows.width}, which the tiles of {kind} do not hold"
        return ""

    def visit(self, i: int) -> None:
        row, op = self.rows[i], self.graph.ops[i]
        producers = self.producers(i)
        if row.lowering is Lowering.VIEW and op.inputs and op.inputs[0] in self.maker:
            self.add(self.of[self.maker[op.inputs[0]]], i, "a view")
            return
        if row.lowering is Lowering.MATRIX:
            region = self.start(i, "a contraction starts a kernel")
            for other in producers:
                self._prologue(region, other, i)
            return
        refused = []
        order = sorted(
            producers, key=lambda r: (r.anchor is None, -self.size(producers[r]), -r.ops[-1])
        )
        for region in order:
            why = self.refusal(region, i, producers[region])
            if not why and self.would_circle(region, i):
                why = "would wait for itself"
            if why:
                refused.append(why)
                continue
            self.add(
                region,
                i,
                _JOINS.get(row.lowering, "joins")
                + f" of {self.graph.ops[self.maker[producers[region]]].kind}",
            )
            for other in order:
                if other is not region:
                    self._draw_in(region, other, i, producers[other])
            return
        self.start(i, refused[0] if refused else "starts a kernel")

    def _only_for(self, region: _Region, i: int) -> bool:
        """Whether nobody but op ``i`` reads anything that ``region`` makes."""
        outputs = set(self.graph.outputs)
        for j in region.ops:
            for o in self.graph.ops[j].outputs:
                if o in outputs or any(
                    self.of.get(r) is not region and r != i for r in self.readers.get(o, ())
                ):
                    return False
        return True

    def _draw_in(self, region: _Region, other: _Region, i: int, value: str) -> None:
        """Anchorless work that feeds op ``i`` too: into the same kernel where that needs no other
        rows.
        """
        if other.anchor is not None and region.anchor is not None:
            return
        main, extra = (other, region) if other.anchor is not None else (region, other)
        if extra.alone or main.alone or self.refusal(other, i, value):
            return
        if extra.reduces is not None and main.reduces != extra.reduces:
            return
        if main.anchor is not None and not self._only_for(extra, i):
            return
        self.merge(main, extra)

    def _prologue(self, region: _Region, other: _Region, i: int) -> None:
        """Layout changes, and where the chip can element-wise work, done as a contraction reads its
        operands.
        """
        if (
            other.anchor is not None
            or other.alone
            or other.reduces is not None
            or not self._only_for(other, i)
        ):
            return
        if all(self._feeds(i, j) for j in other.ops):
            for j in other.ops:
                other.reasons[j] = f"read by {self.graph.ops[i].kind} as it comes"
            self.merge(region, other)

    def _feeds(self, i: int, j: int) -> bool:
        """Whether the contraction ``i`` does op ``j`` as it reads its operands."""
        if self.rules.feeds is not None:
            return self.rules.feeds(self.graph, self.graph.ops[i], self.graph.ops[j])
        row = self.rows[j]
        allowed = {Lowering.MOVE, Lowering.VIEW}
        if self.rules.vector_prologue:
            allowed.add(Lowering.VECTOR)
        return row.lowering in allowed or row.converts


_JOINS = {
    Lowering.VECTOR: "element by element on the result",
    Lowering.REDUCE: "row by row on the result", Lowering.MOVE: "changes the layout of the result",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """What a row-wise op goes along: whether the last axis is in it, elements of a row, rows."""

    last: bool
    width: int
    count: int


def rows_of(space: Space, shape: Shape) -> Rows:
    """The rows of a first operand of ``shape``: the axes along which its elements meet."""
    axes = space.together(0)
    width = math.prod(cast("int", shape[a]) for a in axes)
    elements = math.prod(cast("tuple[int, ...]", shape))
    return Rows(len(shape) - 1 in axes, width, elements // max(width, 1))


def _space(graph: Graph, op: Op) -> Space:
    """The loops of an op; where its operands say too little, everything depends on everything."""
    call = op_call(graph, op)
    try:
        return row_of(op).space(call)
    except (ValueError, IndexError, TypeError):
        return whole_space(call)


def fuse(graph: Graph, rules: FusionRules) -> tuple[Group, ...]:
    """The ops of a static ``graph`` as groups, one kernel each, in an order in which they can
    run.
    """
    grower = _Grower(graph, rules)
    for i in range(len(graph.ops)):
        grower.visit(i)
    return _groups(graph, grower)


def separate(graph: Graph) -> tuple[Group, ...]:
    """One kernel an op, views apart."""
    grower = _Grower(graph, FusionRules(0, vector_prologue=False))
    for i, op in enumerate(graph.ops):
        if grower.rows[i].lowering is Lowering.VIEW and op.inputs and op.inputs[0] in grower.maker:
            grower.add(grower.of[grower.maker[op.inputs[0]]], i, "a view")
        else:
            grower.start(i, "fusion is off")
    return _groups(graph, grower)


def _groups(graph: Graph, grower: _Grower) -> tuple[Group, ...]:
    root = roots(graph)
    kept = set(graph.outputs) | {root.get(o, o) for o in graph.outputs}
    readers: dict[str, set[int]] = {}
    for i, op in enumerate(graph.ops):
        for n in op.inputs:
            readers.setdefault(root.get(n, n), set()).add(i)
    groups = []
    for region in _ordered(grower, list(dict.fromkeys(grower.of.values()))):
        ops = sorted(region.ops)
        inside = set(ops)
        made = {o for i in ops for o in graph.ops[i].outputs if o}
        held = list(dict.fromkeys(root.get(o, o) for o in made))
        inputs = dict.fromkeys(root.get(n, n) for i in ops for n in graph.ops[i].inputs if n)
        outputs = [o for o in held if o in made and (o in kept or readers.get(o, set()) - inside)]
        groups.append(
            Group(
                ops=tuple(graph.ops[i] for i in ops),
                inputs=tuple(n for n in inputs if n not in made),
                outputs=tuple(sorted(outputs)),
                anchor=graph.ops[region.anchor] if region.anchor is not None else None,
                reasons=tuple(region.reasons[i] for i in ops),
                spaces=tuple(grower.spaces[i] for i in ops),
            )
        )
    return tuple(groups)


def _ordered(grower: _Grower, regions: list[_Region]) -> list[_Region]:
    """Regions so that none comes before one it reads from, else by their first op (Kahn 1962)."""
    readers: dict[_Region, set[_Region]] = {r: set() for r in regions}
    missing = dict.fromkeys(regions, 0)
    for region in regions:
        for before in {p for i in region.ops for p in grower.producers(i)} - {region}:
            readers[before].add(region)
            missing[region] += 1
    ready = [(min(r.ops), r) for r in regions if not missing[r]]
    heapq.heapify(ready)
    order: list[_Region] = []
    while ready:
        _, region = heapq.heappop(ready)
        order.append(region)
        for after in readers[region]:
            missing[after] -= 1
            if not missing[after]:
                heapq.heappush(ready, (min(after.ops), after))
    assert len(order) == len(regions), "kernels wait for each other in a circle"
    return order
