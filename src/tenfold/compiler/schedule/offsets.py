"""Offsets: buffers with lifetimes into one memory, without overlap, as tight as a few first-fits
get.

Dynamic storage allocation is NP-hard (Garey, Johnson 1979, SR2); first-fit over the buffers in
decreasing size, area or lifetime comes within a few percent on networks, and the best of them is
taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.ir.graph import Array


@dataclass(frozen=True, slots=True)
class Interval:
    """A buffer of ``bytes`` that lives from step ``first`` to step ``last``, both included."""

    name: str
    first: int
    last: int
    bytes: int

    @property
    def area(self) -> int:
        return self.bytes * (self.last - self.first + 1)


MENDINGS = 24  # tries an order
MENDED = 400  # buffers; longer programs take the orders as they are
CLOSE = 1.01  # times the lower bound, below which no more is tried

_ORDERS: tuple[Callable[[Interval], tuple[float, ...]], ...] = (
    lambda b: (-b.bytes, b.first),
    lambda b: (-b.area, -b.bytes, b.first),
    lambda b: (b.first, -b.bytes),
    lambda b: (-(b.last - b.first), -b.bytes),
)


def tightest(buffers: Sequence[Interval]) -> int:
    """The most bytes alive at any step: no placement needs less."""
    if not buffers:
        return 0
    change = np.zeros(max(b.last for b in buffers) + 2, dtype=np.int64)
    for b in buffers:
        change[b.first] += b.bytes
        change[b.last + 1] -= b.bytes
    return int(np.cumsum(change).max())


def place(buffers: Sequence[Interval]) -> tuple[dict[str, int], int]:
    """Offsets by name and the bytes needed in all: the best of first-fit in several orders, each
    mended where it is high.

    Mending places the buffer that reaches highest first and tries again, as long as that may still
    help.
    """
    bound = tightest(buffers)
    best: tuple[int, dict[str, int]] | None = None
    for key in _ORDERS:
        order = sorted(buffers, key=key)
        for _ in range(MENDINGS if len(buffers) <= MENDED else 1):
            offsets, needed = _first_fit(order)
            if best is None or needed < best[0]:
                best = (needed, offsets)
            if best[0] <= bound * CLOSE:
                return best[1], best[0]
            high = max(order, key=lambda b: offsets[b.name] + b.bytes)
            order = [high, *(b for b in order if b is not high)]
    assert best is not None
    return best[1], best[0]


def _first_fit(buffers: Sequence[Interval]) -> tuple[dict[str, int], int]:
    """Each buffer at the lowest offset where nothing that lives at the same time is in the way."""
    count = len(buffers)
    first, last = (np.empty(count, np.int64) for _ in range(2))
    low, high = (np.empty(count, np.int64) for _ in range(2))
    offsets: dict[str, int] = {}
    for i, b in enumerate(buffers):
        alive = np.flatnonzero((first[:i] <= b.last) & (last[:i] >= b.first))
        at = _lowest_gap(low[alive], high[alive], b.bytes)
        first[i], last[i], low[i], high[i] = b.first, b.last, at, at + b.bytes
        offsets[b.name] = at
    return offsets, int(high[:count].max(initial=0))


def _lowest_gap(low: Array, high: Array, size: int) -> int:
    if not len(low):
        return 0
    order = np.argsort(low, kind="stable")
    starts, ends = low[order], np.maximum.accumulate(high[order])
    if starts[0] >= size:
        return 0
    gaps = starts[1:] - ends[:-1]
    wide = np.flatnonzero(gaps >= size)
    return int(ends[wide[0]]) if len(wide) else int(ends[-1])
