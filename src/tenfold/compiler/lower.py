"""Lowering: a static graph to kernels for one chip. One kernel an op for now; views cost nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tenfold.chips import Chip, MatrixPrecision
from tenfold.errors import InputError, ModelError
from tenfold.ir.bind import bind
from tenfold.ir.cost import op_call, op_work
from tenfold.ir.dims import symbols_of
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, Op, Value
from tenfold.ir.infer import row_of
from tenfold.ir.ops.control import trip_count
from tenfold.ir.table import Lowering, Work
from tenfold.machine.kernel import Kernel, Product, Program, Traffic

_NARROW_INT = frozenset({DType.I8, DType.U8, DType.I4, DType.U4, DType.I2, DType.U2})
_NARROW_FLOAT = frozenset({DType.F8E4M3, DType.F8E5M2, DType.F8E4M3FNUZ, DType.F8E5M2FNUZ, DType.F4E2M1})


@dataclass(frozen=True, slots=True)
class _Scope:
    """What lowering an op needs beside the op: its graph, the chip's precision and where constants are."""

    graph: Graph
    chip: Chip
    precision: MatrixPrecision
    bits: int

    def width(self, value: Value) -> float:
        """Bytes an element takes on this chip: floats in the precision chosen, never wider than they are."""
        if value.dtype.is_float:
            return min(value.dtype.bits, self.bits) / 8
        return value.dtype.bits / 8

    def on_chip(self, value: Value) -> bool:
        """Whether this activation never leaves the chip: only where the chip's data say that it cannot."""
        level = next((s.bytes for s in self.chip.sram if s.name == self.chip.activation_level), 0.0)
        return self.bytes(value) <= level

    def bytes(self, value: Value | None) -> int:
        if value is None:
            return 0
        return _ceil(_int(value.elements, value.name) * self.width(value))


def lower(graph: Graph, chip: Chip, precision: MatrixPrecision, items: int) -> Program:
    """The program for ``graph``, which must be bound to static shapes.

    ``items`` is how many inputs one pass handles (the batch). Floats are priced in ``precision``.
    Raises ModelError for a shape that is not static.
    """
    scope = _Scope(graph, chip, precision, chip.bits(precision))
    kernels, native, total = [], 0.0, 0.0
    for op in graph.ops:
        made = _kernels(scope, op)
        kernels += made
        work = sum(k.arithmetic * k.repeat for k in made)
        total += work
        native += 0.0 if row_of(op).lowering is Lowering.OPAQUE else work
    assumed = tuple((n, b) for n, b in graph.bounds.items() if isinstance(b, int))
    return Program(
        model=graph.name,
        chip=chip.name,
        precision=precision,
        items=items,
        kernels=tuple(kernels),
        weight_bytes=sum(scope.bytes(graph.values[n]) for n in graph.constants),
        peak_activation_bytes=_peak_activations(scope),
        io_bytes=sum(scope.bytes(graph.values[n]) for n in (*graph.inputs, *graph.outputs)),
        native_fraction=native / total if total else 1.0,
        assumed=assumed,
    )


def _int(dim: object, where: str) -> int:
    if isinstance(dim, int):
        return dim
    raise ModelError(f"'{where}' has the free dimension {dim}: give {', '.join(sorted(symbols_of(dim)))}")


def _ceil(x: float) -> int:
    return int(-(-x // 1))


def _kernels(scope: _Scope, op: Op) -> list[Kernel]:
    row = row_of(op)
    if row.lowering is Lowering.VIEW:
        return []
    if row.lowering is Lowering.CONTROL:
        return _control(scope, op)
    work = op_work(scope.graph, op)
    products = tuple(_product(m, op) for m in work.matmuls)
    precision = _precision(scope, op)
    contraction = row.lowering is Lowering.MATRIX and any(p.macs for p in products)
    return [
        Kernel(
            name=op.name,
            ops=(op.attrs["source"] if op.kind == "opaque" else op.kind,),  # type: ignore[arg-type]
            kind=row.lowering,
            precision=precision,
            products=products if contraction else (),
            flops=_int(work.contraction_flops, op.name),
            vector_ops=_int(work.vector_flops, op.name) + (0 if contraction else _int(work.contraction_flops, op.name)),
            transcendentals=_int(work.transcendentals, op.name),
            traffic=_traffic(scope, op, work),
            operand_bits=scope.chip.bits(precision),
        )
    ]


def _product(m: object, op: Op) -> Product:
    from tenfold.ir.table import Matmul

    assert isinstance(m, Matmul)
    return Product(*(_int(d, op.name) for d in (m.batch, m.m, m.n, m.k, m.repeat)))


def _precision(scope: _Scope, op: Op) -> MatrixPrecision:
    """The precision of an op's arithmetic: int8 where the model itself is quantised and the chip has it."""
    if scope.precision is MatrixPrecision.INT8:
        return scope.precision
    operands = [v.dtype for v in (scope.graph.value(n) for n in op.inputs[:2]) if v is not None]
    if operands and all(d in _NARROW_INT for d in operands) and MatrixPrecision.INT8 in scope.chip.peak_flops:
        return MatrixPrecision.INT8
    if operands and all(d in _NARROW_FLOAT for d in operands) and MatrixPrecision.FP8 in scope.chip.peak_flops:
        return MatrixPrecision.FP8
    return scope.precision


def _traffic(scope: _Scope, op: Op, work: Work) -> Traffic:
    """Bytes by what they are. The work column counts the file's dtypes; here they get the chip's widths."""
    weights = inputs = outputs = 0
    for name, amount in zip(op.inputs, work.reads, strict=False):
        value = scope.graph.value(name)
        if value is None:
            continue
        scaled = _ceil(_int(amount, name) * scope.width(value) * 8 / value.dtype.bits)
        if name in scope.graph.constants:
            weights += scaled
        elif not scope.on_chip(value):
            inputs += scaled
    for name, amount in zip(op.outputs, work.writes, strict=False):
        value = scope.graph.value(name)
        if value is not None and not scope.on_chip(value):
            outputs += _ceil(_int(amount, name) * scope.width(value) * 8 / value.dtype.bits)
    return Traffic(weights, inputs, outputs)


def _control(scope: _Scope, op: Op) -> list[Kernel]:
    """Kernels of the body, as often as it runs; unknown trips count once."""
    trips = trip_count(op_call(scope.graph, op)) if op.kind != "if" else 1
    count = int(trips) if isinstance(trips, int) else 1
    body = op.bodies[0]
    inner = replace(scope, graph=body)
    return [replace(k, name=f"{op.name}/{k.name}", repeat=k.repeat * count) for b in body.ops for k in _kernels(inner, b)]


def _peak_activations(scope: _Scope) -> int:
    """Most bytes of activations alive at once, each from its making to its last use (no reuse within an op)."""
    graph = scope.graph
    last: dict[str, int] = {}
    for i, op in enumerate(graph.ops):
        last |= dict.fromkeys((n for n in op.inputs if n), i)
    last |= dict.fromkeys(graph.outputs, len(graph.ops))
    alive = sum(scope.bytes(graph.values[n]) for n in graph.inputs)
    most = alive
    ends: dict[int, int] = {}
    for n in graph.inputs:
        ends[last.get(n, 0)] = ends.get(last.get(n, 0), 0) + scope.bytes(graph.values[n])
    for i, op in enumerate(graph.ops):
        if row_of(op).lowering is not Lowering.VIEW:
            for n in op.outputs:
                if n:
                    size = scope.bytes(graph.values[n])
                    alive += size
                    ends[last.get(n, i)] = ends.get(last.get(n, i), 0) + size
        most = max(most, alive)
        alive -= ends.pop(i, 0)
    return most


def compile(graph: Graph, chip: Chip, *, dtype: str | None = None, items: int | None = None) -> Program:
    """The program of a bound ``graph`` for ``chip`` in ``dtype`` (the chip's best precision by default).

    Extents that depend on data are set to their upper bound. ``items`` is what one pass handles, by
    default the first extent of the first input.
    Raises InputError for a graph with free dimensions, UnsupportedDType for a dtype the chip has not.
    """
    if graph.symbols:
        raise InputError(f"the graph still has free dimensions ({', '.join(graph.symbols)}): bind them first")
    precision = chip.storage(dtype)
    if items is None:
        first = next((graph.values[n].shape for n in graph.inputs if graph.values[n].shape), None)
        items = int(first[0]) if first else 1
    return lower(bind(graph, {}, assume_bounds=True), chip, precision, items)
