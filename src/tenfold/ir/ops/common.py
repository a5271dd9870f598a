"""Rules that many rows share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, Shape, broadcast, mul, prod
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, UnknownShape
from tenfold.ir.sharding import SplitRule, by_loops
from tenfold.ir.space import ALL, ONE, Map, Serial, Space, aligned, at, refolded, row, straight
from tenfold.ir.table import AttentionDims, Call, Context, Evaluate, Lowering, OpRow, Rate, Work

# --- element types -----------------------------------------------------------------------


def same_dtype(call: Call) -> Sequence[DType]:
    """Every output has the type of the first input."""
    return [call.input(0).dtype] * len(call.op.outputs)


def always(*dtypes: DType) -> Callable[[Call], Sequence[DType]]:
    """Outputs of fixed types, the last repeated."""
    return lambda call: [dtypes[min(i, len(dtypes) - 1)] for i in range(len(call.op.outputs))]


def dtype_of_attr(name: str, default: DType | None = None) -> Callable[[Call], Sequence[DType]]:
    """The type that an attribute names, else ``default``, else that of the first input."""

    def rule(call: Call) -> Sequence[DType]:
        given = call.attr(name)
        dtype = DType(given) if given else default or call.input(0).dtype
        return [dtype] * len(call.op.outputs)

    return rule


def dtype_of_input(i: int) -> Callable[[Call], Sequence[DType]]:
    return lambda call: [call.input(i).dtype] * len(call.op.outputs)


# --- shapes -----------------------------------------------------------------------------


def same_shape(call: Call) -> Sequence[Shape]:
    return [call.shape(0)] * len(call.op.outputs)


def broadcast_shape(call: Call) -> Sequence[Shape]:
    return [broadcast(call.shape(i) for i in range(len(call.inputs)) if call.has(i))]


def normalise_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank if rank else 0


def normalise_axes(axes: Sequence[int], rank: int) -> list[int]:
    return [normalise_axis(int(a), rank) for a in axes]


def contradict(a: Dim, b: Dim) -> bool:
    """Whether two extents are known, and known to differ."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def need_shape(call: Call, i: int, wanted: Shape, what: str) -> None:
    """Raises ValueError where input ``i``, if there is one, is known not to have the shape
    ``wanted``.
    """
    found = call.input(i).shape if call.has(i) else None
    if found is not None and (len(found) != len(wanted) or any(map(contradict, found, wanted))):
        raise ValueError(f"{what} has the shape {_shown(found)}, must have {_shown(wanted)}")


def need_spread(call: Call, i: int, over: Shape, what: str) -> None:
    """Raises ValueError where input ``i``, if there is one, is known not to broadcast to the shape
    ``over``.
    """
    found = call.input(i).shape if call.has(i) else None
    if found is None:
        return
    pairs = zip(reversed(found), reversed(over), strict=False)
    if len(found) > len(over) or any(a != 1 and contradict(a, b) for a, b in pairs):
        raise ValueError(f"{what} has the shape {_shown(found)}, must spread over {_shown(over)}")


def need_indices(indices: Sequence[Any] | None, extent: Dim) -> None:
    """Raises ValueError where an index that is known lies outside an axis whose extent is known."""
    for index in indices if indices is not None and isinstance(extent, int) else ():
        if isinstance(index, int | np.integer) and not -int(extent) <= index < int(extent):
            raise ValueError(f"index {index} is outside an axis of extent {extent}")


def _shown(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


# --- iteration spaces ---------------------------------------------------------------------


def space_of(
    call: Call,
    *maps: Map | None,
    reduced: Sequence[Dim] = (),
    results: Sequence[Map | None] | None = None,
    parallel: Shape | None = None,
    serial: Serial | None = None,
) -> Space:
    """The space over the first output, with the maps of the inputs from the first on, None for
    the rest. Outputs of the first one's shape lie straight in it unless ``results`` are given.
    """
    over = call.out() if parallel is None else parallel
    given = [*maps, *(None for _ in call.inputs)][: len(call.inputs)]
    if results is None:
        results = [
            straight(len(over)) if v is not None and v.shape == over else None for v in call.outputs
        ]
    return Space(
        parallel=over,
        reduced=tuple(reduced),
        maps=tuple(m if call.has(i) else None for i, m in enumerate(given)),
        results=tuple([*results, *(None for _ in call.outputs)][: len(call.outputs)]),
        serial=serial,
    )


def spread(call: Call, i: int, over: Shape) -> Map | None:
    """The map of an input that broadcasts to ``over``."""
    return aligned(call.shape(i), over) if call.has(i) else None


def everything(call: Call, i: int) -> Map | None:
    """The map of an input of which every point needs all."""
    return (ALL,) * len(call.shape(i)) if call.has(i) else None


def pointwise_space(call: Call) -> Space:
    out = call.out()
    return space_of(call, *(spread(call, i, out) for i in range(len(call.inputs))))


def view_space(call: Call) -> Space:
    """The first input is given another shape, the others are shape arguments."""
    return space_of(call, refolded(call.shape(0), call.out()))


def row_space(call: Call, axes: Sequence[int]) -> Space:
    """As many points as the input has, each needing its row along ``axes``; what else comes in is
    spread over the input.
    """
    x = call.shape(0)
    rows = tuple(row(i) if i in axes else at(i) for i in range(len(x)))
    others = (spread(call, i, x) for i in range(1, len(call.inputs)))
    results = [
        None if v is None or v.shape is None or len(v.shape) != len(x) else _kept(v.shape, x)
        for v in call.outputs
    ]
    return space_of(call, rows, *others, parallel=x, results=results)


def _kept(shape: Shape, x: Shape) -> Map:
    """A result over the loops of the input: the same index, but where an extent is another."""
    return tuple(
        at(i) if d == extent else ONE for i, (d, extent) in enumerate(zip(shape, x, strict=True))
    )


def along_axis_space(call: Call) -> Space:
    """A row along the attribute ``axis``, by default the last."""
    return row_space(call, [normalise_axis(call.attr("axis", -1), len(call.shape(0)))])


def from_axis_space(call: Call) -> Space:
    """A row along all axes from the attribute ``axis`` on, by default the last."""
    rank = len(call.shape(0))
    return row_space(call, range(normalise_axis(call.attr("axis", -1), rank), rank))


def whole_space(call: Call) -> Space:
    """Every result may depend on everything."""
    maps = (everything(call, i) for i in range(len(call.inputs)))
    parallel = call.out() if call.outputs and call.outputs[0] is not None else ()
    return space_of(call, *maps, parallel=parallel, results=[None] * len(call.outputs))


# --- work -------------------------------------------------------------------------------


def all_reads(call: Call) -> tuple[Dim, ...]:
    return tuple(v.bytes if v is not None else 0 for v in call.inputs)


def all_writes(call: Call) -> tuple[Dim, ...]:
    return tuple(v.bytes if v is not None else 0 for v in call.outputs)


def no_work(_call: Call) -> Work:
    """A view or a number known when compiling: nothing is computed, nothing moves."""
    return Work()


def move_work(call: Call) -> Work:
    """Reads what it writes, no arithmetic; index and shape arguments are read whole."""
    written = all_writes(call)
    total = prod(()) * 0
    for w in written:
        total = total + w
    return Work(reads=(total, *all_reads(call)[1:]), writes=written)


def per_output(flops: float, transcendentals: int = 0) -> Callable[[Call], Work]:
    """``flops`` and ``transcendentals`` for each element of the first output."""

    def rule(call: Call) -> Work:
        n = prod(call.out())
        return Work(
            vector_flops=mul(n, int(flops)),
            transcendentals=mul(n, transcendentals),
            reads=all_reads(call),
            writes=all_writes(call),
        )

    return rule


def per_input(flops: int, transcendentals: int = 0) -> Callable[[Call], Work]:
    """``flops`` and ``transcendentals`` for each element of the first input."""

    def rule(call: Call) -> Work:
        n = prod(call.shape(0))
        return Work(
            vector_flops=mul(n, flops),
            transcendentals=mul(n, transcendentals),
            reads=all_reads(call),
            writes=all_writes(call),
        )

    return rule


# --- evaluation -------------------------------------------------------------------------


def widen(x: Array) -> Array:
    """fp16, bf16 and fp8 arrays as fp32, others unchanged: NumPy has no BLAS for narrow floats."""
    narrow = (
        x.dtype == np.float16
        or (x.dtype.kind == "V" and x.dtype.names is None)
        or _is_narrow(x.dtype)
    )
    return x.astype(np.float32) if narrow else x


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    return dtype.name.startswith(("bfloat16", "float8", "float4"))


def in_fp32(fn: Callable[..., Array]) -> Callable[..., Array]:
    """Run ``fn(ctx, *arrays)`` on widened arrays and round the result to the first input's type."""

    def run(ctx: Context, x: Array, *rest: Array | None) -> Array:
        wide = fn(ctx, widen(x), *(widen(r) if r is not None else None for r in rest))
        return wide.astype(x.dtype, copy=False)

    return run


def known_ints(call: Call, i: int) -> list[int]:
    """The content of input ``i``; raises UnknownShape where it is not known."""
    if i >= len(call.inputs) or call.inputs[i] is None:
        raise UnknownShape(f"{call.op.kind}: input {i}")
    return [v if not isinstance(v, np.generic) else v.item() for v in call.need(i)]


# --- rows ---------------------------------------------------------------------------------


def matrix_row(
    kind: str,
    arity: tuple[int, int],
    shapes: Any,
    space: Any,
    work: Any,
    evaluate: Any,
    attrs: Mapping[str, type],
    rate: Rate = Rate.PRODUCT,
    attention: Callable[[Call], AttentionDims] | None = None,
    factors: tuple[int, int] = (0, 1),
    splits: SplitRule = by_loops,
) -> OpRow:
    """A contraction that is kept whole."""
    return OpRow(
        kind=kind,
        arity=arity,
        attrs=attrs,
        dtypes=same_dtype,
        shapes=shapes,
        space=space,
        work=work,
        evaluate=evaluate,
        lowering=Lowering.MATRIX,
        rate=rate,
        attention=attention,
        factors=factors,
        splits=splits,
    )


def alone(evaluate: Evaluate) -> Evaluate:
    """``evaluate`` for the one chip of an op that several do together; more of them only run
    together.
    """

    def one(ctx: Context, *arrays: Array | None) -> Sequence[Array | None] | Array:
        if ctx.get("ways") != 1:
            raise ModelError(f"this is one part of {ctx.get('ways')}, which only run together")
        return evaluate(ctx, *arrays)

    return one
