"""Tile programs and their exact time: by event loop, and in closed form over (max, +).

Background: Baccelli, Cohen, Olsder, Quadrat, Synchronization and Linearity (1992), chapter 3: a tile is
a matrix over (max, +), a loop of T equal iterations its T-th power, by squaring in O(log T).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tenfold.machine.step import STATES, Tile, step

NEVER = -(1 << 60)
Matrix: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """Parts in order, all of them ``count`` times: a loop nest over tiles."""

    parts: tuple[Tile | Repeat, ...]
    count: int = 1

    @property
    def tiles(self) -> int:
        return self.count * sum(1 if isinstance(p, Tile) else p.tiles for p in self.parts)

    def kinds(self, times: int = 1) -> Iterator[tuple[Tile, int]]:
        """Every kind of tile in the nest with how often it runs: counters are sums over these."""
        for p in self.parts:
            if isinstance(p, Tile):
                yield p, times * self.count
            else:
                yield from p.kinds(times * self.count)


class Clock:
    """Timestamps as plain integers."""

    def __init__(self, start: list[int]) -> None:
        self.v = start

    def later(self, *times: int) -> int:
        return max(times)

    def after(self, time: int, cycles: int) -> int:
        return time + cycles


class Rows:
    """Timestamps as rows over the initial state: entry j says how long after initial time j at least."""

    def __init__(self) -> None:
        identity = np.full((STATES, STATES), NEVER, dtype=np.int64)
        np.fill_diagonal(identity, 0)
        self.v: list[Matrix] = list(identity)

    def later(self, *times: Matrix) -> Matrix:
        result = times[0]
        for t in times[1:]:
            result = np.maximum(result, t)
        return result

    def after(self, time: Matrix, cycles: int) -> Matrix:
        return time + cycles if cycles else time


def event_loop(program: Repeat, start: list[int] | None = None) -> list[int]:
    """Final state after every tile in order, from ``start`` (all zero by default). The specification."""
    clock = Clock(list(start) if start is not None else [0] * STATES)
    for tile in _walk(program):
        step(clock, tile)
    return clock.v


def _walk(program: Repeat) -> Iterator[Tile]:
    for _ in range(program.count):
        for p in program.parts:
            if isinstance(p, Tile):
                yield p
            else:
                yield from _walk(p)


def product(after: Matrix, before: Matrix) -> Matrix:
    """The matrix of ``before`` followed by ``after``."""
    return np.maximum((after[:, :, None] + before[None]).max(axis=1), NEVER)


def power(matrix: Matrix, times: int) -> Matrix:
    """``times`` iterations of ``matrix``, ``times`` >= 1."""
    result: Matrix | None = None
    while True:
        if times & 1:
            result = matrix if result is None else product(matrix, result)
        times >>= 1
        if not times:
            assert result is not None
            return result
        matrix = product(matrix, matrix)


def matrix_of(program: Tile | Repeat, cache: dict[Tile, Matrix]) -> Matrix:
    """The max-plus matrix of a program; tiles seen before come from ``cache``."""
    if isinstance(program, Tile):
        if program not in cache:
            rows = Rows()
            step(rows, program)
            cache[program] = np.stack(rows.v)
        return cache[program]
    result: Matrix | None = None
    for p in program.parts:
        m = matrix_of(p, cache)
        result = m if result is None else product(m, result)
    assert result is not None, "an empty program has no time"
    return power(result, program.count)


def closed_form(program: Repeat, start: list[int] | None = None) -> list[int]:
    """The same final state as ``event_loop``, in time that does not depend on the number of tiles."""
    matrix = matrix_of(program, {})
    initial = np.asarray(start if start is not None else [0] * STATES, dtype=np.int64)
    return [int(t) for t in (matrix + initial[None]).max(axis=1)]


EVENT_LOOP_TILES = 128  # below this the event loop is the quicker of two equal answers


def cycles(program: Repeat) -> int:
    """Cycles until every unit is done, from rest."""
    final = event_loop(program) if program.tiles <= EVENT_LOOP_TILES else closed_form(program)
    return max(final)
