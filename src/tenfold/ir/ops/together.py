"""What chips do together between their parts of a network, as ops of the part that each runs.

``ways`` chips take part, each ``stride`` places after the one before. Tensors are those of one
chip: an all-gather makes ``ways`` times as much of its operand. What they mean takes all
chips (the column ``together``); one chip alone only has what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape, floordiv, mul
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    alone,
    no_work,
    normalise_axis,
    same_dtype,
    same_shape,
    space_of,
    widen,
)
from tenfold.ir.sharding import Collective, Cut, joined, part_of
from tenfold.ir.space import Space, at, moved
from tenfold.ir.table import Call, Context, Lowering, OpRow, Work, attributes


def _itself(_ctx: Context, x: Array) -> Array:
    return x


def _axis(call: Call) -> int:
    return normalise_axis(call.attr("axis"), len(call.shape(0)))


def _cut(ctx: Context) -> Cut:
    return Cut(ctx.get("axis"), tuple(ctx.get("sections", ())))


def _gathered_shape(call: Call) -> Sequence[Shape]:
    axis, ways = _axis(call), int(call.attr("ways"))
    return [tuple(mul(d, ways) if a == axis else d for a, d in enumerate(call.shape(0)))]


def _share_shape(call: Call) -> Sequence[Shape]:
    axis, ways = _axis(call), int(call.attr("ways"))
    extent = call.shape(0)[axis]
    if isinstance(extent, int) and extent % ways:
        raise ValueError(f"an extent of {extent} is not cut in {ways} equal parts")
    return [tuple(floordiv(d, ways) if a == axis else d for a, d in enumerate(call.shape(0)))]


def _along_space(call: Call) -> Space:
    """Along the axis elements lie elsewhere, or on another chip."""
    axis = _axis(call)
    rank = len(call.shape(0))
    return space_of(call, tuple(moved(a) if a == axis else at(a) for a in range(rank)))


def _straight_space(call: Call) -> Space:
    return space_of(call, tuple(at(a) for a in range(len(call.shape(0)))))


def _moved_work(call: Call) -> Work:
    """What leaves and comes passes each chip's memory; the links are for the network to price."""
    return Work(reads=all_reads(call), writes=all_writes(call))


def _first(
    rule: Callable[[Context, Sequence[Array]], list[Array]],
) -> Callable[[Context, Sequence[Sequence[Array | None]]], list[list[Array]]]:
    """A rule of the first operands that gives one result each."""

    def together(ctx: Context, chips: Sequence[Sequence[Array | None]]) -> list[list[Array]]:
        parts = [own[0] for own in chips]
        return [[result] for result in rule(ctx, [p for p in parts if p is not None])]

    return together


def _sum(parts: Sequence[Array]) -> Array:
    total = widen(parts[0])
    for p in parts[1:]:
        total = total + widen(p)
    return total.astype(parts[0].dtype, copy=False)


def _all_reduce(_ctx: Context, parts: Sequence[Array]) -> list[Array]:
    return [_sum(parts)] * len(parts)


def _all_gather(ctx: Context, parts: Sequence[Array]) -> list[Array]:
    return [joined(parts, _cut(ctx))] * len(parts)


def _reduce_scatter(ctx: Context, parts: Sequence[Array]) -> list[Array]:
    total = _sum(parts)
    return [part_of(total, _cut(ctx), rank, len(parts)) for rank in range(len(parts))]


def _own_part(ctx: Context, parts: Sequence[Array]) -> list[Array]:
    return [
        np.ascontiguousarray(part_of(p, _cut(ctx), rank, len(parts)))
        for rank, p in enumerate(parts)
    ]


def _row(
    kind: str,
    together: Callable[[Context, Sequence[Array]], list[Array]],
    shapes: Any,
    *,
    collective: Collective | None,
) -> OpRow:
    own = collective is None
    summed = collective is Collective.ALL_REDUCE
    return OpRow(
        kind=kind,
        arity=(1, 1),
        attrs=attributes(ways=int, stride=int)
        if summed
        else attributes(ways=int, stride=int, axis=int, sections=tuple),
        dtypes=same_dtype,
        shapes=shapes,
        space=_straight_space if summed else _along_space,
        work=no_work if own else _moved_work,
        evaluate=alone(_itself),
        lowering=Lowering.VIEW if own else Lowering.TOGETHER,
        together=_first(together),
        collective=collective,
    )


ROWS: tuple[OpRow, ...] = (
    _row("all_reduce", _all_reduce, same_shape, collective=Collective.ALL_REDUCE),
    _row("all_gather", _all_gather, _gathered_shape, collective=Collective.ALL_GATHER),
    _row("reduce_scatter", _reduce_scatter, _share_shape, collective=Collective.REDUCE_SCATTER),
    # of what every chip has whole, the part that is its own
    _row("own_part", _own_part, _share_shape, collective=None),
)
