"""Fusion: ops that run as one kernel, so that what passes between them never leaves the chip.

Region growing over the ops in order (the kinds and the cycle test follow TVM Relax's FuseOps and
XLA's instruction fusion): pointwise < row-wise < anchor, where an anchor is a contraction and a
kernel has at most one. An op joins the kernel of one of its producers, other anchorless producers
may be drawn in with it, and nothing is fused that would make the kernels wait for each other in a
circle. Every op says why it is where it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from tenfold.chips import Chip
from tenfold.ir.cost import op_call
from tenfold.ir.graph import Graph, Op
from tenfold.ir.infer import row_of
from tenfold.ir.table import Access, Lowering, OpRow
from tenfold.ir.views import roots
from tenfold.machine.kernel import Group

# that ONNX Runtime fuses
_FUNCTIONS = frozenset(
    {"relu", "clip", "sigmoid", "tanh", "leaky_relu", "hard_sigmoid", "hard_swish"}
)
SOFTMAX = frozenset({"softmax", "log_softmax"})
LARGEST = 256  # ops in one kernel (TVM's limit)
_ALONE = frozenset({Lowering.CONTROL, Lowering.OPAQUE})


@dataclass(frozen=True, slots=True)
class Rules:
    """What a chip can run as one kernel.

    ``row_elements``: the longest row of a product's result that can be reduced before it leaves the
    chip; ``vector_prologue``: whether element-wise work can feed the matrix unit, or only layout
    changes can. ``alone``: whether a kernel is a contraction with at most a sum and one simple
    function behind it, and every other op a kernel of its own. ``softmax_apart``: whether a
    softmax, which needs its rows twice, is never joined to the contraction that makes them.
    """

    row_elements: int
    vector_prologue: bool
    alone: bool = False
    softmax_apart: bool = False


def rules_of(chip: Chip) -> Rules:
    """Software-scheduled chips hold whole rows of accumulators; a GPU's thread block sees one tile
    of columns.

    On a processor ONNX Runtime is meant, which fuses little.
    """
    if chip.kind == "systolic":
        return Rules(row_elements=8192, vector_prologue=True, softmax_apart=True)
    if chip.kind == "host":
        return Rules(row_elements=0, vector_prologue=False, alone=True)
    return Rules(row_elements=128, vector_prologue=False)


@dataclass(slots=True, eq=False)
class _Region:
    """A kernel while it grows. ``bits`` are the numbers of all regions merged into it."""

    bits: int
    ops: list[int] = field(default_factory=list)
    anchor: int | None = None
    reduces: tuple[object, ...] | None = None
    alone: bool = False
    waits_for: int = 0  # regions that it depends on, directly or not
    waited_by: int = 0
    reasons: dict[int, str] = field(default_factory=dict)


class _Grower:
    def __init__(self, graph: Graph, rules: Rules) -> None:
        self.graph, self.rules = graph, rules
        self.regions: list[_Region] = []
        self.of: dict[int, _Region] = {}  # op -> region
        self.maker = {o: i for i, op in enumerate(graph.ops) for o in op.outputs if o}
        self.readers: dict[str, list[int]] = {}
        for i, op in enumerate(graph.ops):
            for n in dict.fromkeys(op.inputs):
                if n in self.maker:
                    self.readers.setdefault(n, []).append(i)
        self.rows: list[OpRow] = [row_of(op) for op in graph.ops]
        self.access = [_access(graph, op) for op in graph.ops]

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

    def _needs(self, i: int) -> int:
        bits = 0
        for r in self.producers(i):
            bits |= r.bits | r.waits_for
        return bits

    def _depend(self, region: _Region, needs: int) -> None:
        new = needs & ~region.waits_for & ~region.bits
        if not new:
            return
        region.waits_for |= new
        behind = region.bits | region.waited_by
        for other in self._named(new):
            other.waited_by |= behind
        for other in self._named(region.waited_by):
            other.waits_for |= new

    def _named(self, bits: int) -> Iterator[_Region]:
        yield from dict.fromkeys(self.regions[n] for n in _numbers(bits))

    def start(self, i: int, reason: str) -> _Region:
        region = _Region(1 << len(self.regions))
        self.regions.append(region)
        self.add(region, i, reason)
        return region

    def add(self, region: _Region, i: int, reason: str) -> None:
        self._depend(region, self._needs(i) & ~region.bits)
        region.ops.append(i)
        region.reasons[i] = reason
        self.of[i] = region
        row = self.rows[i]
        if row.lowering is Lowering.MATRIX:
            region.anchor = i
        elif row.lowering is Lowering.REDUCE and Access.ROW in self.access[i]:
            region.reduces = self.reduced(i)
        region.alone = region.alone or row.lowering in _ALONE

    def would_circle(self, region: _Region, needs: int) -> bool:
        """Whether something that waits for ``region`` is among ``needs``."""
        return bool(region.waited_by & needs & ~region.bits)

    def merge(self, into: _Region, other: _Region) -> bool:
        """Make one region of two, where nothing outside lies between them."""
        if into is other or len(into.ops) + len(other.ops) > LARGEST:
            return into is other
        inside = ~(into.bits | other.bits)
        if (into.waited_by & other.waits_for & inside) or (
            other.waited_by & into.waits_for & inside
        ):
            return False
        for i in other.ops:
            self.of[i] = into
        into.ops = sorted(into.ops + other.ops)
        into.reasons |= other.reasons
        into.reduces = into.reduces or other.reduces
        into.bits |= other.bits
        into.anchor = into.anchor if into.anchor is not None else other.anchor
        for number in _numbers(other.bits):
            self.regions[number] = into
        into.waits_for = (into.waits_for | other.waits_for) & ~into.bits
        into.waited_by = (into.waited_by | other.waited_by) & ~into.bits
        for region in self._named(into.waits_for):
            region.waited_by |= into.waited_by | into.bits
        for region in self._named(into.waited_by):
            region.waits_for |= into.waits_for | into.bits
        return True

    # --- what may join -------------------------------------------------------------------

    def reduced(self, i: int) -> tuple[object, ...]:
        """What a row-wise op reduces over: the extent of its rows and the number of them."""
        op = self.graph.ops[i]
        shape, elements = self.graph.values[op.inputs[0]].dims, self.size(op.inputs[0])
        out = max(self.size(o) for o in op.outputs if o)
        if out != elements:
            last = self.graph.values[next(o for o in op.outputs if o)].dims[-1:] != shape[-1:]
            return last, elements // max(out, 1), elements
        # instance and group norms: whole pictures
        if not shape or "axis" not in self.rows[i].attrs:
            return False, op.kind, elements
        axis = op.attrs.get("axis", -1)
        at = axis % len(shape) if isinstance(axis, int) else 0
        # from the axis on; softmax and its like along it alone
        whole = op.kind in (
            "layer_norm",
            "rms_norm",
        )
        return whole or at == len(shape) - 1, _product(shape[at:]) if whole else shape[at], elements

    def refusal(self, region: _Region, i: int, value: str) -> str:
        """Why op ``i``, which reads ``value``, may not join ``region``; "" where it may."""
        row = self.rows[i]
        if self.rules.alone and not self._simple_end(region, i):
            return (
                "a runtime of single operators fuses only a sum and one function behind a"
                " contraction"
            )
        if region.alone or len(region.ops) >= LARGEST:
            return "runs alone" if region.alone else f"kernels end at {LARGEST} ops"
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
            moves = access is Access.VIEW and self.graph.ops[i].kind != "expand"
            return "" if moves or views else "is read in its small form by what follows"
        return "contractions, look-ups and control flow start a kernel"

    def _simple_end(self, region: _Region, i: int) -> bool:
        """Whether op ``i`` is what a runtime of single operators takes into a contraction: a sum,
        then a function.
        """
        op = self.graph.ops[i]
        ended = [
            self.graph.ops[j].kind for j in region.ops if self.rows[j].lowering is Lowering.VECTOR
        ]
        if region.anchor is None or any(k in _FUNCTIONS for k in ended):
            return False
        if self.graph.ops[region.anchor].kind == "matmul_integer":
            return self._scales_back(region, op, ended)
        if (
            self.graph.ops[region.anchor].kind == "matmul"
            and len(self.graph.values[op.outputs[0]].dims) > 2
        ):
            return False  # ONNX Runtime has a bias for matrices alone
        return op.kind in _FUNCTIONS or (
            op.kind == "add" and "add" not in ended and self._sums_in_place(region, op)
        )

    def _scales_back(self, region: _Region, op: Op, ended: list[str]) -> bool:
        """What makes floats of an integer product: a cast, a scale for all or one a column, a
        bias.
        """
        if op.kind == "cast":
            return not ended
        if op.kind == "mul" and ended == ["cast"]:
            columns = self.graph.values[op.outputs[0]].dims[-1]
            return all(
                self.size(n) in (1, columns)
                for n in op.inputs
                if self.of.get(self.maker.get(n, -1)) is not region
            )
        return op.kind == "add" and ended == ["cast", "mul"] and self._sums_in_place(region, op)

    def _sums_in_place(self, region: _Region, op: Op) -> bool:
        """A bias of one number a column or channel; behind a convolution also another result of the
        same shape.
        """
        assert region.anchor is not None
        conv = self.graph.ops[region.anchor].kind == "conv"
        shape = self.graph.values[op.outputs[0]].dims
        columns = shape[1 if conv else -1] if shape else 1
        others = [n for n in op.inputs if n and self.of.get(self.maker.get(n, -1)) is not region]
        bias = all(n in self.graph.constants and self.size(n) == columns for n in others)
        return bias or (
            conv and all(n in self.maker and self.graph.values[n].dims == shape for n in others)
        )

    def _refusal_of_row(self, region: _Region, i: int, access: Access) -> str:
        if access is not Access.ROW:
            return "" if access is Access.POINT else f"reads {access} what the kernel before makes"
        last, width, elements = self.reduced(i)
        if region.reduces is not None and region.reduces != (last, width, elements):
            return "reduces other rows than the kernel before"
        if region.anchor is not None:
            kind = self.graph.ops[region.anchor].kind
            if self.rules.softmax_apart and self.graph.ops[i].kind in SOFTMAX:
                return "needs its rows twice"
            if (
                not last
                or kind != "matmul"
                or not isinstance(width, int)
                or width > self.rules.row_elements
            ):
                return f"needs whole rows of {width}, which the tiles of {kind} do not hold"
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
            if not why and self.would_circle(region, self._needs(i)):
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

    def _swaps(self, j: int, i: int) -> bool:
        """Whether op ``j`` only swaps the last two dimensions of what the product ``i`` reads."""
        perm = self.graph.ops[j].attrs.get("perm", ())
        assert isinstance(perm, tuple)
        straight = tuple(range(len(perm)))
        kinds = self.graph.ops[j].kind, self.graph.ops[i].kind
        return (
            kinds == ("transpose", "matmul")
            and len(perm) > 1
            and perm == (*straight[:-2], straight[-1], straight[-2])
        )

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
        allowed = {Lowering.MOVE, Lowering.VIEW} | (
            {Lowering.VECTOR} if self.rules.vector_prologue else set()
        )
        light = {"cast", "dequantize"}
        # a runtime of single operators puts padding into convolutions, and swaps what a product
        # reads
        if self.rules.alone:
            allowed = {Lowering.VIEW}
            light |= {"pad"} if self.graph.ops[i].kind == "conv" else set()
        if all(
            self.rows[j].lowering in allowed
            or self.graph.ops[j].kind in light
            or (self.rules.alone and self._swaps(j, i))
            for j in other.ops
        ):
            for j in other.ops:
                other.reasons[j] = f"read by {self.graph.ops[i].kind} as it comes"
            self.merge(region, other)


_JOINS = {
    Lowering.VECTOR: "element by element on the result",
    Lowering.REDUCE: "row by row on the result", Lowering.MOVE: "changes the layout of the result",
}  # fmt: skip


def _numbers(bits: int) -> Iterator[int]:
    """The positions of the ones."""
    while bits:
        low = bits & -bits
        bits ^= low
        yield low.bit_length() - 1


def _product(dims: tuple[object, ...]) -> int:
    result = 1
    for d in dims:
        result *= int(d)  # type: ignore[call-overload]
    return result


def _access(graph: Graph, op: Op) -> tuple[Access, ...]:
    try:
        return row_of(op).space(op_call(graph, op)).access
    except (ValueError, IndexError, TypeError):
        return tuple(Access.WHOLE for _ in op.inputs)


def fuse(graph: Graph, rules: Rules) -> tuple[Group, ...]:
    """The ops of a static ``graph`` as groups, one kernel each, in an order in which they can
    run.
    """
    grower = _Grower(graph, rules)
    for i in range(len(graph.ops)):
        grower.visit(i)
    return _groups(graph, grower)


def separate(graph: Graph) -> tuple[Group, ...]:
    """One kernel an op, views apart."""
    grower = _Grower(graph, Rules(0, False))
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
    for region in _ordered(grower, list(dict.fromkeys(grower.regions))):
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
