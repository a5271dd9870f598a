"""Lowering: groups of ops to kernels for one chip, with every buffer that they touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from tenfold.chips import Chip, MatrixPrecision
from tenfold.compiler.fusion import rows_of
from tenfold.errors import ModelError
from tenfold.ir.cost import op_call, op_work
from tenfold.ir.dims import symbols_of
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, Op, Value
from tenfold.ir.infer import row_of
from tenfold.ir.sharding import Collective
from tenfold.ir.table import AttentionDims, Exchange, Gathering, Lowering, Matmul, Rate, Work
from tenfold.ir.views import roots
from tenfold.machine import Cut, target_of
from tenfold.machine.kernel import (
    Attention,
    Chain,
    Exchanged,
    Experts,
    Group,
    Kernel,
    Moved,
    Operand,
    Product,
    Role,
    Together,
    Traffic,
    off_chip,
)

_NARROW_INT = frozenset({DType.I8, DType.U8, DType.I4, DType.U4, DType.I2, DType.U2})
_NARROW_FLOAT = frozenset(
    {DType.F8E4M3, DType.F8E5M2, DType.F8E4M3FNUZ, DType.F8E5M2FNUZ, DType.F4E2M1}
)
# a processor runs them as fp32, and so does who asks for it
_HALVES = frozenset({DType.F16, DType.BF16})
_DOMINATES = (
    Lowering.MATRIX,
    Lowering.TOGETHER,
    Lowering.OPAQUE,
    Lowering.GATHER,
    Lowering.REDUCE,
    Lowering.VECTOR,
    Lowering.MOVE,
    Lowering.VIEW,
)


@dataclass(frozen=True, slots=True)
class LoweringScope:
    """What lowering a group needs beside it: its graph, the chip, the precision of arithmetic and
    the width of stored floats.

    ``stored_bits`` of None leaves every tensor as it is in the file.
    """

    graph: Graph
    chip: Chip
    precision: MatrixPrecision
    stored_bits: int | None
    root: Mapping[str, str] = field(default_factory=dict)
    trips: Mapping[str, int] = field(default_factory=dict)  # of loops that data end, as given
    wide: str = ""  # begins the names of values that are stored as in the file

    def width(self, value: Value) -> float:
        """Bytes an element takes on this chip: floats in the width chosen; what a quantised model
        stores narrower stays so.
        """
        bits = value.dtype.bits
        as_it_is = self.wide and value.name.startswith(self.wide)
        if self.stored_bits is not None and value.dtype.is_float and not as_it_is:
            bits = self.stored_bits if value.dtype in _HALVES else min(bits, self.stored_bits)
        return bits / 8

    def work(self, op: Op) -> Work:
        """What ``op`` does, on whatever chip."""
        return self.graph.derived((op_work, id(op)), lambda: op_work(self.graph, op))

    def bytes(self, name: str) -> int:
        value = self.graph.values[name]
        return _ceil(_int(value.elements, name) * self.width(value))


def scope_of(
    graph: Graph,
    chip: Chip,
    precision: MatrixPrecision,
    stored_bits: int | None,
    wide: str = "",
) -> LoweringScope:
    trips = {n: b for n, b in graph.bounds.items() if isinstance(b, int)}
    return LoweringScope(graph, chip, precision, stored_bits, roots(graph), trips, wide)


def _int(dim: object, where: str) -> int:
    if isinstance(dim, int):
        return dim
    raise ModelError(
        f"'{where}' has the free dimension {dim}: give {', '.join(sorted(symbols_of(dim)))}"
    )


def _ceil(x: float) -> int:
    return int(-(-x // 1))


def kernels(
    scope: LoweringScope, groups: Sequence[Group], bodies: Mapping[int, tuple[Group, ...]]
) -> Iterator[Kernel]:
    """The kernels of ``groups`` in order; all traffic off chip until memory is planned.

    ``bodies`` are the groups of the bodies of control flow, by the identity of the body.
    """
    for number, group in enumerate(groups):
        if row_of(group.ops[0]).lowering is Lowering.CONTROL:
            for kernel in _control(scope, group.ops[0], bodies):
                yield replace(kernel, group=number)
        elif not all(row_of(op).lowering is Lowering.VIEW for op in group.ops):
            for kernel in _with_others(scope, group):
                yield replace(kernel, group=number)


def _with_others(scope: LoweringScope, group: Group) -> Iterator[Kernel]:
    """The kernel of a group, between what its op needs of other chips and makes for them."""
    kernel, op = _kernel(scope, group), group.anchor
    before: _Met = []
    behind: _Met = []
    if op is not None:
        row, call = row_of(op), op_call(scope.graph, op)
        if row.exchange is not None:
            before, behind = _exchanged(scope, op, row.exchange(call))
        if row.gathering is not None:
            before, behind = _gathered(scope, op, row.gathering(call))
    yield from (_met(scope, met) for met in before)
    yield kernel
    yield from (_met(scope, met) for met in behind)


_Met: TypeAlias = "list[tuple[str, Together]]"


def _exchanged(scope: LoweringScope, op: Op, e: Exchange) -> tuple[_Met, _Met]:
    """Tokens to the chips of their experts, and back."""
    tokens, hidden = _int(e.tokens, op.name), _int(e.hidden, op.name)
    width = scope.width(scope.graph.values[op.inputs[0]])
    sent = _ceil(tokens * e.choices * hidden * width * e.skew)
    there, back = (
        Together(
            Collective.ALL_TO_ALL,
            sent,
            e.ways,
            e.stride,
            Exchanged(tokens, hidden * width, e.choices, e.skew, back),
        )
        for back in (False, True)
    )
    return [(f"{op.name}/tokens there", there)] * e.before, [(f"{op.name}/tokens back", back)]


def _gathered(scope: LoweringScope, op: Op, g: Gathering) -> tuple[_Met, _Met]:
    """Operands of all chips, and results that they add up and scatter."""

    def met(collective: Collective, names: Sequence[str]) -> _Met:
        size = sum(scope.bytes(n) for n in names) * g.ways
        together = Together(collective, size, g.ways, g.stride)
        return [(f"{op.name}/{collective.value}", together)] if names else []

    gathered, scattered = [op.inputs[i] for i in g.gathered], [op.outputs[i] for i in g.scattered]
    return met(Collective.ALL_GATHER, gathered), met(Collective.REDUCE_SCATTER, scattered)


def _met(scope: LoweringScope, met: tuple[str, Together]) -> Kernel:
    """What chips do together around an op; its buffers are no values of the graph."""
    name, together = met
    return Kernel(
        name=name,
        ops=(together.collective.value,),
        kind=Lowering.TOGETHER,
        precision=scope.precision,
        traffic=Traffic(Moved(inputs=together.bytes, outputs=together.bytes)),
        operand_bits=scope.precision.bits,
        together=together,
    )


def _kernel(scope: LoweringScope, group: Group) -> Kernel:
    works = [scope.work(op) for op in group.ops]
    anchor = group.anchor
    products: tuple[Product, ...] = ()
    attention = _attention(scope, anchor) if anchor is not None else None
    if anchor is not None:
        products = tuple(_product(m, anchor) for m in works[group.ops.index(anchor)].matmuls)
    if attention is not None:
        products = _scores_computed(products, attention)
    contraction = any(p.macs for p in products)
    precision = _precision(scope, anchor) if anchor is not None else scope.precision
    flops = _total(works, "contraction_flops", group)
    operands = (*_reads(scope, group, works), *_writes(scope, group, works))
    lowerings = {row_of(op).lowering for op in group.ops}
    rows, row_elements = _rows(scope, group)
    in_steps = contraction and any(p.repeat > 1 for p in products)
    return Kernel(
        name=group.name,
        ops=tuple(_shown(op) for op in group.ops if row_of(op).lowering is not Lowering.VIEW),
        kind=next(k for k in _DOMINATES if k in lowerings),
        precision=precision,
        rate=_rate(group, contraction),
        products=products if contraction else (),
        flops=flops,
        vector_ops=_total(works, "vector_flops", group) + (0 if contraction else flops),
        transcendentals=_total(works, "transcendentals", group),
        traffic=off_chip(operands),
        operand_bits=precision.bits,
        operands=operands,
        attention=attention,
        experts=_experts(scope, anchor) if anchor is not None else None,
        rows=rows,
        row_elements=row_elements,
        chain=None if in_steps else _chain(group),
        together=_together(scope, group.ops[0]),
        backward_of=_backward_of(scope, anchor) if anchor is not None else None,
    )


_ROW_RATES = (Rate.SOFTMAX, Rate.NORM, Rate.POWER)


def _rate(group: Group, contraction: bool) -> Rate:
    """The sort of loop that sets the pace of a group: its contraction, or what it does to rows."""
    if contraction and group.anchor is not None:
        convolves = row_of(group.anchor).rate is Rate.CONVOLUTION
        return Rate.CONVOLUTION if convolves else Rate.PRODUCT
    rates = {row_of(op).rate for op in group.ops}
    return next((rate for rate in _ROW_RATES if rate in rates), Rate.STREAM)


def _attention(scope: LoweringScope, op: Op) -> Attention | None:
    rule = row_of(op).attention
    return _extents(op, rule(op_call(scope.graph, op))) if rule is not None else None


def _backward_of(scope: LoweringScope, op: Op) -> Attention | None:
    """The attention of which an op is the gradient."""
    rule = row_of(op).backward_of
    return _extents(op, rule(op_call(scope.graph, op))) if rule is not None else None


def _extents(op: Op, d: AttentionDims) -> Attention:
    key_width, value_width = _int(d.key_width, op.name), _int(d.value_width, op.name)
    return Attention(
        batch=_int(d.batch, op.name),
        heads=_int(d.heads, op.name),
        kv_heads=_int(d.kv_heads, op.name),
        q_len=_int(d.queries, op.name),
        kv_len=_int(d.keys, op.name),
        head_dim=(key_width + value_width) // 2,
        causal=d.causal,
        window=d.window or 0,
        spread=d.spread,
    )


def _experts(scope: LoweringScope, op: Op) -> Experts | None:
    """A layer with tokens spread evenly over the experts here that are touched."""
    rule = row_of(op).experts
    if rule is None:
        return None
    d = rule(op_call(scope.graph, op))
    tokens, experts, held, active = (
        _int(n, op.name) for n in (d.tokens, d.experts, d.held, d.active)
    )
    each, more = divmod(_int(d.routed, op.name), active)
    counts = tuple((each + (i < more)) * (i < active) for i in range(held))
    hidden, inner = _int(d.hidden, op.name), _int(d.inner, op.name)
    return Experts(tokens, hidden, inner, experts, counts, d.gated)


def _together(scope: LoweringScope, op: Op) -> Together | None:
    """What chips do together, where the op is of that kind; nothing else is in its group."""
    collective = row_of(op).collective
    if collective is None:
        return None
    size = max(scope.bytes(n) for n in (*op.inputs, *op.outputs))
    ways, stride = (int(str(op.attrs[n])) for n in ("ways", "stride"))
    return Together(collective, size, ways, stride)


def _rows(scope: LoweringScope, group: Group) -> tuple[int, int]:
    """How many rows of which length the group reduces along, by its first op that does."""
    for op, space in zip(group.ops, group.spaces, strict=True):
        value = scope.graph.value(op.inputs[0]) if op.inputs else None
        if row_of(op).lowering is not Lowering.REDUCE or value is None or not value.dims:
            continue
        if space.together(0):  # windows are no rows
            rows = rows_of(space, value.dims)
            return rows.count, max(1, rows.width)
    return 0, 0


def _chain(group: Group) -> Chain | None:
    """The longest of the group's ops that go step by step, where no products say so already."""
    found = []
    for op, space in zip(group.ops, group.spaces, strict=True):
        if space.serial is not None:
            steps = max(1, _int(space.serial.steps, op.name))
            found.append(
                Chain(
                    steps=steps,
                    beside=max(1, _int(space.points, op.name) // steps),
                    chained=space.serial.chained,
                    associative=space.serial.associative,
                )
            )
    return max(found, key=lambda c: c.steps * c.chained, default=None)


def _scores_computed(products: tuple[Product, ...], a: Attention) -> tuple[Product, ...]:
    """The two products of an attention over the scores that are computed; the queries of a group
    share keys and values.
    """
    keys, group = _ceil(a.kv_len * a.computed), max(1, a.heads // a.kv_heads)
    first, second = products
    batch, m = first.batch // group, first.m * group
    return Product(batch, m, keys, first.k), Product(batch, m, second.n, keys)


def _shown(op: Op) -> str:
    return str(op.attrs["source"]) if row_of(op).lowering is Lowering.OPAQUE else op.kind


def _total(works: Sequence[Work], what: str, group: Group) -> int:
    return sum(_int(getattr(w, what), group.name) for w in works)


def _product(m: Matmul, op: Op) -> Product:
    batch, rows, columns, depth, repeat = (
        _int(d, op.name) for d in (m.batch, m.m, m.n, m.k, m.repeat)
    )
    threes = tuple(_int(d, op.name) for d in m.threes)
    return Product(batch, rows, columns, depth, repeat, threes)


def _precision(scope: LoweringScope, op: Op) -> MatrixPrecision:
    """The precision of a contraction: int8 or fp8 where the model itself is quantised and the chip
    has it.
    """
    if scope.precision is MatrixPrecision.INT8:
        return scope.precision
    # which narrows what comes in itself
    inputs = [op.inputs[i] for i in row_of(op).factors if i < len(op.inputs)]
    operands = [v.dtype for v in (scope.graph.value(n) for n in inputs) if v is not None]
    if (
        operands
        and all(d in _NARROW_INT for d in operands)
        and MatrixPrecision.INT8 in scope.chip.peak_flops
    ):
        return MatrixPrecision.INT8
    if (
        operands
        and all(d in _NARROW_FLOAT for d in operands)
        and MatrixPrecision.FP8 in scope.chip.peak_flops
    ):
        return MatrixPrecision.FP8
    return scope.precision


def _reads(scope: LoweringScope, group: Group, works: Sequence[Work]) -> list[Operand]:
    """Each buffer from outside once: all of it, or what the ops touch of it where that is less."""
    touched: dict[str, int] = {}
    outside = set(group.inputs)
    for op, work in zip(group.ops, works, strict=True):
        for name, amount in zip(op.inputs, work.reads, strict=False):
            value = scope.graph.value(name)
            root = scope.root.get(name, name)
            if value is not None and root in outside:
                scaled = _ceil(_int(amount, name) * scope.width(value) * 8 / value.dtype.bits)
                touched[root] = touched.get(root, 0) + scaled
    constants = scope.graph.constants
    return [
        Operand(
            n,
            Role.WEIGHT if n in constants else Role.INPUT,
            min(t, scope.bytes(n)) if n in scope.graph.values else t,
        )
        for n, t in touched.items()
        if t
    ]


def _writes(scope: LoweringScope, group: Group, works: Sequence[Work]) -> list[Operand]:
    """Each result whole, or the part of it that is new where an op writes in place."""
    new: dict[str, int] = {}
    for op, work in zip(group.ops, works, strict=True):
        for name, amount in zip(op.outputs, work.writes, strict=False):
            value = scope.graph.value(name)
            if value is not None and isinstance(amount, int) and amount:
                new[name] = _ceil(amount * scope.width(value) * 8 / value.dtype.bits)
    return [
        Operand(n, Role.OUTPUT, min(new.get(n, whole), whole))
        for n in group.outputs
        for whole in (scope.bytes(n),)
    ]


def _control(scope: LoweringScope, op: Op, bodies: Mapping[int, tuple[Group, ...]]) -> list[Kernel]:
    """Kernels of the body, as often as it runs; unknown trips count once."""
    rule = row_of(op).trips
    trips = rule(op_call(scope.graph, op)) if rule is not None else 1
    count = int(trips) if isinstance(trips, int) else scope.trips.get(f"{op.name}.trips", 1)
    if not count:
        return []
    body = op.bodies[0]
    inner = scope_of(body, scope.chip, scope.precision, scope.stored_bits, scope.wide)
    inner = replace(inner, trips=scope.trips)
    groups = bodies[id(body)]
    cut = Cut(body, groups, inner.root, inner.bytes)
    made = target_of(scope.chip).laid_out(kernels(inner, groups, bodies), cut)
    return [
        replace(k, name=f"{op.name}/{k.name}", repeat=k.repeat * count, operands=()) for k in made
    ]


def unknown_trips(graph: Graph) -> list[str]:
    """Loops whose number of trips only the data say; each is counted once."""
    rules = ((op, row_of(op).trips) for op in graph.ops)
    own = [
        f"{op.name}.trips"
        for op, rule in rules
        if rule is not None and not isinstance(rule(op_call(graph, op)), int)
    ]
    return own + [n for op in graph.ops for body in op.bodies for n in unknown_trips(body)]


def activation_sizes(scope: LoweringScope, groups: Sequence[Group]) -> dict[str, int]:
    """Bytes of every buffer that a kernel makes or the model is given; weights are always there."""
    names = dict.fromkeys(
        n for g in groups for n in (*g.inputs, *g.outputs) if n not in scope.graph.constants
    )
    return {n: scope.bytes(n) for n in names}


def native_fraction(made: Sequence[Kernel]) -> float:
    """Share of the arithmetic in ops that are native."""
    total = sum(k.arithmetic * k.repeat for k in made)
    opaque = sum(k.arithmetic * k.repeat for k in made if k.kind is Lowering.OPAQUE)
    return 1.0 - opaque / total if total else 1.0


def weight_bytes(scope: LoweringScope) -> int:
    """Bytes of all constants, those of bodies included."""
    own = sum(scope.bytes(n) for n in scope.graph.constants)
    inner: Any = (b for op in scope.graph.ops for b in op.bodies)
    return own + sum(weight_bytes(replace(scope, graph=b)) for b in inner)
