"""The iteration space of an op, and which of its loops index which axis of each operand.

An op is a nest of loops: parallel ones, which the axes of its result run along, and reduced ones,
over which operands are combined (``indexing_maps`` of MLIR's linalg, ``projection`` of Timeloop's
descendants). A ``Map`` says for each axis of a tensor which loop it is the index of, and how. From
it follow what batching keeps apart, what fusion can join, what a tile reads, and how many rows
there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeAlias

from tenfold.ir.dims import Dim, Shape, mul, prod


class Reach(Enum):
    """How the index along one axis of a tensor follows from the loops."""

    SAME = "same"  # it is the index of a loop
    MOVED = "moved"  # another index along a loop: shifted, reversed, repeated
    FOLDED = "folded"  # of some loops together, as a reshape splits and joins axes
    WINDOW = "window"  # some indices around that of a loop
    ROW = "row"  # all indices along a loop, which each of its points needs
    ALL = "all"  # all indices, for every point
    DATA = "data"  # whatever index the data say
    ONE = "one"  # the only index there is
    BODY = "body"  # whatever a sub-graph does with it


@dataclass(frozen=True, slots=True)
class Index:
    """The index along one axis: its reach, and the loops by number, parallel ones first."""

    reach: Reach
    loops: tuple[int, ...] = ()


Map: TypeAlias = tuple[Index, ...]
ALL, DATA, ONE, BODY = (Index(r) for r in (Reach.ALL, Reach.DATA, Reach.ONE, Reach.BODY))


def at(loop: int) -> Index:
    return Index(Reach.SAME, (loop,))


def moved(loop: int) -> Index:
    return Index(Reach.MOVED, (loop,))


def window(loop: int) -> Index:
    return Index(Reach.WINDOW, (loop,))


def row(loop: int) -> Index:
    return Index(Reach.ROW, (loop,))


def folded(*loops: int) -> Index:
    return Index(Reach.FOLDED, loops)


def straight(rank: int) -> Map:
    """Each axis the index of the loop of its own number."""
    return tuple(at(i) for i in range(rank))


def aligned(shape: Shape, out: Shape) -> Map:
    """A tensor that is spread over a result of shape ``out`` from the last axis on (NumPy)."""
    first = len(out) - len(shape)
    over = out[first:] if first >= 0 else out
    spread = zip(shape, over, strict=False)
    return tuple(
        ONE if d == 1 and extent != 1 else at(first + i) for i, (d, extent) in enumerate(spread)
    )


def refolded(source: Shape, target: Shape) -> Map:
    """A tensor that is read in the same order under another shape: axes of extents that stay are
    apart, others fold with their neighbours.
    """
    left = [(i, d) for i, d in enumerate(source) if d != 1]
    right = [(j, d) for j, d in enumerate(target) if d != 1]
    map_ = [ONE] * len(source)
    while left:
        took, into = _least_equal([d for _, d in left], [d for _, d in right])
        loops = [j for j, _ in right[:into]]
        alone = took == into == 1
        for i, _ in left[:took]:
            map_[i] = at(loops[0]) if alone else folded(*loops)
        left, right = left[took:], right[into:]
    return tuple(map_)


def _least_equal(left: Sequence[Dim], right: Sequence[Dim]) -> tuple[int, int]:
    """How many first extents of both have the same product, the fewest; all, where none have."""
    for total in range(2, len(left) + len(right) + 1):
        for took in range(max(1, total - len(right)), min(total - 1, len(left)) + 1):
            if prod(left[:took]) == prod(right[: total - took]):
                return took, total - took
    return len(left), len(right)


class Access(StrEnum):
    """How an operand is touched as a whole; it follows from its map."""

    POINT = "point"  # one element per output element, same index
    BROADCAST = "broadcast"  # same index, some axes repeated
    VIEW = "view"  # one element per output element, index permuted or shifted
    ROW = "row"  # all elements along the reduced axes
    CONTRACT = "contract"  # indexed by some parallel and some reduced loops
    WINDOW = "window"  # a sliding neighbourhood
    LOOKUP = "lookup"  # addresses that depend on data
    WHOLE = "whole"  # everything, for each output
    SHAPE = "shape"  # only its shape, or a handful of numbers known when compiling


@dataclass(frozen=True, slots=True)
class Serial:
    """Iterations that run one after the other (a scan, a recurrent cell): ``steps`` of them.

    ``chained`` operations of each wait for what the step before left. ``associative``: neighbours
    can be combined in any order (prefix sums), so that hardware may do them in pairs
    (Blelloch 1990, Prefix sums and their applications).
    """

    steps: Dim
    chained: int = 1
    associative: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """Iteration space: extents of parallel and of reduced loops, and the map of each tensor.

    ``maps`` are of the inputs: None for one that is absent, or of which only the shape matters.
    ``results`` are of the outputs, in parallel loops: None for one of which nothing is known.
    ``serial`` says which of the iterations run one after the other; None: none.
    """

    parallel: tuple[Dim, ...]
    reduced: tuple[Dim, ...]
    maps: tuple[Map | None, ...]
    results: tuple[Map | None, ...]
    serial: Serial | None = None

    @property
    def points(self) -> Dim:
        return mul(prod(self.parallel), prod(self.reduced))

    @property
    def access(self) -> tuple[Access, ...]:
        return tuple(self._access(m) for m in self.maps)

    def _access(self, map_: Map | None) -> Access:
        if map_ is None:
            return Access.SHAPE
        reaches = {index.reach for index in map_}
        if Reach.DATA in reaches:
            return Access.LOOKUP
        if Reach.WINDOW in reaches:
            return Access.WINDOW
        if reaches & {Reach.ALL, Reach.BODY}:
            return Access.WHOLE
        if Reach.ROW in reaches:
            return Access.ROW
        loops = [loop for index in map_ for loop in index.loops]
        if any(self.is_reduced(loop) for loop in loops):
            shared = sum(m is not None and self._meets(m, loops) for m in self.maps)
            return Access.CONTRACT if shared > 1 else Access.ROW
        if reaches & {Reach.MOVED, Reach.FOLDED} or loops != sorted(loops):
            return Access.VIEW
        every = len(loops) == len(self.parallel) and Reach.ONE not in reaches
        return Access.POINT if every else Access.BROADCAST

    def is_reduced(self, loop: int) -> bool:
        return loop >= len(self.parallel)

    def _meets(self, map_: Map, loops: Sequence[int]) -> bool:
        """Whether a tensor is indexed by a reduced loop that is among ``loops``."""
        own = {loop for index in map_ for loop in index.loops if self.is_reduced(loop)}
        return bool(own & set(loops))

    def keeps(self, operand: int, axis: int) -> int | None:
        """The parallel loop whose items an axis of an operand keeps apart; None where elements
        along the axis come together, or go elsewhere.
        """
        map_ = self.maps[operand]
        if map_ is None:
            return None
        index = map_[axis]
        apart = index.reach is Reach.SAME and not self.is_reduced(index.loops[0])
        return index.loops[0] if apart else None

    def together(self, operand: int) -> tuple[int, ...]:
        """The axes of an operand along which elements are combined: reduced, or needed in rows."""
        map_ = self.maps[operand] or ()
        return tuple(
            axis
            for axis, index in enumerate(map_)
            if index.reach in (Reach.ROW, Reach.ALL)
            or any(self.is_reduced(loop) for loop in index.loops)
        )

    def columns_of(self, operand: int, beside: int) -> bool:
        """Whether the last axis of the result is an axis of one operand and not of another: the
        columns of a product, which a tile can hold whole.
        """
        last = len(self.parallel) - 1

        def touches(i: int) -> bool:
            map_ = self.maps[i] if i < len(self.maps) else None
            return any(last in index.loops for index in map_ or ())

        return last >= 0 and touches(operand) and not touches(beside)
