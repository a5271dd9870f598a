"""In which ways an op can be done in equal parts, each by a chip of its own.

A ``Split`` says along which axis each operand and each result is cut, as the annotations of GSPMD
do (Xu et al. 2021, section 3); most follow from an op's iteration space: a parallel loop whose
index an axis holds can be cut there, a reduced one gives results that are still to be summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tenfold.ir.dims import Dim, Shape, prod
from tenfold.ir.graph import NO_ATTRS, Array, Attr
from tenfold.ir.space import Map, Reach, Space

if TYPE_CHECKING:
    from tenfold.ir.table import Call, OpRow


class Collective(StrEnum):
    """What chips do together."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BROADCAST = "broadcast"
    SEND_RECV = "send_recv"


@dataclass(frozen=True, slots=True)
class Cut:
    """A tensor cut into equal parts along ``axis``. ``sections`` are the extents of stretches of
    the axis that are cut each on its own, as the gates of a fused weight; empty: the whole axis.
    """

    axis: int
    sections: tuple[int, ...] = ()


class Sum(Enum):
    """What is made of a result that parts only add to."""

    SUM = "added up over all chips"


SUM = Sum.SUM
Result: TypeAlias = "Cut | Sum | None"


@dataclass(frozen=True, slots=True)
class Split:
    """One way to do an op in parts: how each operand and each result is cut (None: whole, on every
    chip alike).

    A result may also be a sum over chips. ``attrs`` are those of a part where they differ. ``once``
    are operands that are added to the sum, not to each part. ``anywhere``: parts need not be
    stretches, any share of the indices will do. ``shifted`` are operands from which each chip takes
    off where its stretch of the first result begins.
    """

    operands: tuple[Cut | None, ...]
    results: tuple[Result, ...]
    attrs: Mapping[str, Attr] = field(default_factory=lambda: NO_ATTRS)
    once: tuple[int, ...] = ()
    anywhere: bool = False
    shifted: tuple[int, ...] = ()

    @property
    def summed(self) -> bool:
        return any(r is SUM for r in self.results)


SplitRule: TypeAlias = "Callable[[OpRow, Call, int], Iterator[Split]]"


def sections_of(cut: Cut, extent: int) -> tuple[int, ...]:
    return cut.sections or (extent,)


def divides(cut: Cut | None, shape: Sequence[Dim], ways: int) -> bool:
    """Whether a tensor of ``shape`` can be cut in ``ways`` equal parts."""
    if cut is None:
        return True
    extent = shape[cut.axis]
    if not isinstance(extent, int):
        return False
    stretches = sections_of(cut, extent)
    return sum(stretches) == extent and all(s % ways == 0 and s for s in stretches)


def part_shape(shape: Shape, cut: Cut | None, ways: int) -> Shape:
    """The shape of one part."""
    if cut is None:
        return shape
    return tuple(d // ways if a == cut.axis else d for a, d in enumerate(shape))


def part_cut(cut: Cut, ways: int) -> Cut:
    """The same stretches in a part that is one of ``ways``."""
    return Cut(cut.axis, tuple(s // ways for s in cut.sections))


def part_of(array: Array, cut: Cut | None, rank: int, ways: int) -> Array:
    """The part of chip ``rank`` of ``ways``."""
    if cut is None:
        return array
    found, start = [], 0
    for length in sections_of(cut, array.shape[cut.axis]):
        each = length // ways
        along = slice(start + rank * each, start + (rank + 1) * each)
        found.append(array[(slice(None),) * cut.axis + (along,)])
        start += length
    return found[0] if len(found) == 1 else np.concatenate(found, cut.axis)


def joined(parts: Sequence[Array], cut: Cut | None) -> Array:
    """The whole again."""
    if cut is None:
        return parts[0]
    if len(cut.sections) < 2:
        return np.concatenate(parts, cut.axis)
    ends = np.cumsum([s // len(parts) for s in cut.sections])[:-1]
    stretches = [np.split(p, ends, cut.axis) for p in parts]
    return np.concatenate([p[i] for i in range(len(cut.sections)) for p in stretches], cut.axis)


# --- rules --------------------------------------------------------------------------------


def never(_row: OpRow, _call: Call, _ways: int) -> Iterator[Split]:
    """Of an op whose parts would need each other, or the number of the chip."""
    return iter(())


def by_loops(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """Along each parallel loop that axes are the index of."""
    space = row.space(call)
    splits = (along(row, call, space, loop, ways) for loop in range(len(space.parallel)))
    yield from (s for s in splits if s is not None)


def but_along(axes: Callable[[Call], Sequence[int]]) -> SplitRule:
    """As ``by_loops``, but not along axes of the result whose index itself counts (a diagonal)."""

    def rule(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
        left_out = {a % max(1, len(call.out())) for a in axes(call)}
        space = row.space(call)
        loops = (n for n in range(len(space.parallel)) if n not in left_out)
        yield from (s for n in loops if (s := along(row, call, space, n, ways)) is not None)

    return rule


def by_totals(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """As ``by_loops``, and along the reduced loops of an op that adds up."""
    yield from by_loops(row, call, ways)
    space = row.space(call)
    first = len(space.parallel)
    loops = range(first, first + len(space.reduced))
    yield from (s for n in loops if (s := along(row, call, space, n, ways)) is not None)


def by_sums(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """As ``by_totals``, of an op that adds products up: along loops that both factors have."""
    for split in by_totals(row, call, ways):
        if not split.summed or sum(c is not None for c in split.operands) > 1:
            yield split


def along(row: OpRow, call: Call, space: Space, loop: int, ways: int) -> Split | None:
    """The split along one loop of ``space``: summed along a reduced one. None where operands or
    results cannot be cut so.
    """
    extents = (*space.parallel, *space.reduced)
    whole = extents[loop]
    if not isinstance(whole, int) or whole % ways or not whole or not row.pure or row.control:
        return None
    views = row.views
    operands: list[Cut | None] = []
    for i, map_ in enumerate(space.maps):
        cut = _cut(call.shape(i), map_, loop, extents, views=views) if map_ is not None else None
        if isinstance(cut, _No) or (cut and not divides(cut, call.shape(i), ways)):
            return None
        operands.append(cut)
    results = _results(call, space, loop, ways)
    if results is None or not any(operands):
        return None
    # of axes that fold, stretches count
    reaches = {index.reach for map_ in space.maps for index in map_ or () if loop in index.loops}
    return Split(tuple(operands), results, anywhere=reaches == {Reach.SAME})


class _No:
    """No cut there."""


_NO = _No()


def _results(call: Call, space: Space, loop: int, ways: int) -> tuple[Result, ...] | None:
    found: list[Result] = []
    for value, map_ in zip(call.outputs, space.results, strict=True):
        axes = [a for a, index in enumerate(map_ or ()) if loop in index.loops]
        if value is None:
            found.append(None)
            continue
        if map_ is None or value.shape is None or len(axes) != (not space.is_reduced(loop)):
            return None
        cut = Cut(axes[0]) if axes else None
        if not divides(cut, value.dims, ways):
            return None
        found.append(cut or SUM)
    return tuple(found)


def _cut(
    shape: Shape, map_: Map, loop: int, extents: Sequence[Dim], *, views: bool
) -> Cut | _No | None:
    """Where an operand is cut with the loop; None: nowhere, it is needed whole."""
    if any(index.reach is Reach.BODY for index in map_):
        return _NO
    axes = [a for a, index in enumerate(map_) if loop in index.loops]
    if not axes:
        return None
    reaches = {map_[a].reach for a in axes}
    if reaches == {Reach.SAME}:
        alone = len(axes) == 1 and shape[axes[0]] == extents[loop]
        return Cut(axes[0]) if alone else _NO
    if reaches == {Reach.FOLDED} and views:
        return _refolded_cut(shape, axes, map_[axes[0]].loops, loop, extents)
    return _NO


def _refolded_cut(
    shape: Shape, axes: Sequence[int], loops: Sequence[int], loop: int, extents: Sequence[Dim]
) -> Cut | _No:
    """Where axes are cut that are read in the order of ``loops``, one of which is cut: the axis
    that holds all of it, perhaps several times over, or the one that it begins with.
    """
    at = loops.index(loop)
    outer: Any = prod(extents[i] for i in loops[:at])
    inner: Any = prod(extents[i] for i in loops[at + 1 :])
    whole: Any = extents[loop]
    before: Any = 1
    for axis in axes:
        here: Any = shape[axis]
        after: Any = prod(shape[a] for a in axes if a > axis)
        times, rest = divmod(outer, before)
        each, odd = divmod(inner, after)
        if not rest and not odd and times * whole * each == here:
            return Cut(axis, (whole * each,) * times if times > 1 else ())
        if before == outer and here < whole and whole * inner == here * after:
            return Cut(axis)
        before *= here
    return _NO
