"""Tile programs and their exact time: by event loop, and in closed form over (max, +).

Background: Baccelli, Cohen, Olsder, Quadrat, Synchronization and Linearity (1992), chapter 3: an
instruction is a matrix over (max, +), a loop of T equal iterations its T-th power, by squaring in
O(log T). Several variants of one program, each with some units made infinitely fast, are evaluated
side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from tenfold.machine.systolic.step import STATES, Drain, Instruction, Launch, Tile, step

MINUS_INFINITY = -(1 << 60)
Matrix: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Variant: TypeAlias = frozenset[str]  # the durations that are zero in it

EXACT: tuple[Variant, ...] = (frozenset(),)


@dataclass(frozen=True, slots=True)
class Repeat:
    """Parts in order, all of them ``count`` times: a loop nest over instructions."""

    parts: tuple[Instruction | Repeat, ...]
    count: int = 1

    @property
    def tiles(self) -> int:
        return self.count * sum(p.tiles if isinstance(p, Repeat) else 1 for p in self.parts)

    def kinds(self, times: int = 1) -> Iterator[tuple[Tile, int]]:
        """Every kind of tile in the nest with how often it runs: counters are sums over these."""
        for p in self.parts:
            if isinstance(p, Repeat):
                yield from p.kinds(times * self.count)
            elif isinstance(p, Tile):
                yield p, times * self.count


class Clock:
    """Timestamps as plain integers."""

    def __init__(self, start: list[int]) -> None:
        self.v = start

    def later(self, *times: int) -> int:
        return max(times)

    def after(self, time: int, cycles: int) -> int:
        return time + cycles


class SymbolicTimes:
    """Timestamps as rows over the initial state: entry j says how long after initial time j at
    least.

    One row for each variant; a duration is then a column of cycles, one for each.
    """

    def __init__(self, variants: int) -> None:
        identity = np.full((STATES, STATES), MINUS_INFINITY, dtype=np.int64)
        np.fill_diagonal(identity, 0)
        self.v: list[Matrix] = [np.broadcast_to(row, (variants, STATES)) for row in identity]

    def later(self, *times: Matrix) -> Matrix:
        result = times[0]
        for t in times[1:]:
            result = np.maximum(result, t)
        return result

    def after(self, time: Matrix, cycles: Any) -> Matrix:
        return time + cycles if isinstance(cycles, np.ndarray) or cycles else time


DURATIONS = (
    "weight_dma", "weight_near", "weight_load", "act_dma", "act_near", "matrix", "vector", "fill",
    "out_dma", "out_near", "prefetch",
)  # fmt: skip


def _relaxed(instruction: Instruction, variants: tuple[Variant, ...]) -> Instruction:
    """The instruction with each duration as a column over the variants."""

    def column(name: str, cycles: int) -> Any:
        if not cycles or not any(name in v for v in variants):
            return cycles
        return np.asarray([[0 if name in v else cycles] for v in variants], dtype=np.int64)

    if isinstance(instruction, Tile):
        durations = {n: column(n, getattr(instruction, n)) for n in DURATIONS}
        return replace(instruction, **durations)
    if isinstance(instruction, Drain):
        return Drain(column("weight_dma", instruction.weights), column("act_dma", instruction.rest))
    return Launch(column("launch", instruction.cycles), column("prefetch", instruction.prefetch))


def event_loop(program: Repeat, start: list[int] | None = None) -> list[int]:
    """Final state after every instruction in order, from ``start`` (all zero by default). The
    specification.
    """
    clock = Clock(list(start) if start is not None else [0] * STATES)
    for instruction in walk(program):
        step(clock, instruction)
    return clock.v


def walk(program: Repeat) -> Iterator[Instruction]:
    """Every instruction of the nest, as often as it runs."""
    for _ in range(program.count):
        for p in program.parts:
            if isinstance(p, Repeat):
                yield from walk(p)
            else:
                yield p


def product(after: Matrix, before: Matrix) -> Matrix:
    """The matrices of ``before`` followed by ``after``, variant by variant."""
    return np.maximum((after[:, :, :, None] + before[:, None]).max(axis=2), MINUS_INFINITY)


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


def matrix_of(program: Repeat, variants: tuple[Variant, ...] = EXACT) -> Matrix:
    """The max-plus matrices of a program, [variants, states, states]."""
    return _matrix(program, variants, {})


def _matrix(
    program: Instruction | Repeat, variants: tuple[Variant, ...], cache: dict[Instruction, Matrix]
) -> Matrix:
    if not isinstance(program, Repeat):
        if program not in cache:
            rows = SymbolicTimes(len(variants))
            step(rows, _relaxed(program, variants))
            cache[program] = np.stack(rows.v, axis=1)
        return cache[program]
    result: Matrix | None = None
    for p in program.parts:
        m = _matrix(p, variants, cache)
        result = m if result is None else product(m, result)
    assert result is not None, "an empty program has no time"
    return power(result, program.count)


def apply(matrix: Matrix, state: Matrix) -> Matrix:
    """The state [variants, states] after the program of ``matrix``."""
    return (matrix + state[:, None]).max(axis=2)


def closed_form(program: Repeat, start: list[int] | None = None) -> list[int]:
    """The same final state as ``event_loop``, in time that does not depend on the number of
    tiles.
    """
    initial = np.asarray([start if start is not None else [0] * STATES], dtype=np.int64)
    return [int(t) for t in apply(matrix_of(program), initial)[0]]


EVENT_LOOP_TILES = 128  # below this the event loop is the quicker of two equal answers


def cycles(program: Repeat) -> int:
    """Cycles until every unit is done, from rest."""
    final = event_loop(program) if program.tiles <= EVENT_LOOP_TILES else closed_form(program)
    return max(final)
