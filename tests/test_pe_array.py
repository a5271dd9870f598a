"""An 8 x 8 grid of processing elements, simulated cell by cell, against the tile formula of
``step``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tenfold.machine.systolic.maxplus import Repeat, closed_form, event_loop
from tenfold.machine.systolic.step import Tile

SIDE = 8
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Grid:
    """Weight-stationary cells: activations move right, sums move down, one cell a cycle.

    Weights come in from the top with a tag that says which row keeps them, into shadow registers; a
    cell swaps to its shadow weight when the first activation of the next tile reaches it.
    """

    active: Array = field(default_factory=lambda: np.zeros((SIDE, SIDE)))
    shadow: Array = field(default_factory=lambda: np.zeros((SIDE, SIDE)))
    act: list[list[tuple[float, int, int] | None]] = field(
        default_factory=lambda: [[None] * SIDE for _ in range(SIDE)]
    )
    total: list[list[float]] = field(default_factory=lambda: [[0.0] * SIDE for _ in range(SIDE)])
    passing: list[list[tuple[float, int] | None]] = field(
        default_factory=lambda: [[None] * SIDE for _ in range(SIDE)]
    )

    def cycle(
        self, left: list[tuple[float, int, int] | None], top: list[tuple[float, int] | None]
    ) -> list[tuple[int, int, float] | None]:
        """One clock: ``left`` feeds (value, tile, row of the tile) to each row, ``top`` (weight,
        row) to each column.

        Returns what leaves each column at the bottom: (tile, row, sum).
        """
        act = [
            [left[k] if c == 0 else self.act[k][c - 1] for c in range(SIDE)] for k in range(SIDE)
        ]
        passing = [
            [top[c] if k == 0 else self.passing[k - 1][c] for c in range(SIDE)] for k in range(SIDE)
        ]
        out: list[tuple[int, int, float] | None] = [None] * SIDE
        total = [[0.0] * SIDE for _ in range(SIDE)]
        for k in range(SIDE):
            for c in range(SIDE):
                arriving = act[k][c]
                if arriving is not None:
                    value, tile, row = arriving
                    if row == 0:
                        self.active[k, c] = self.shadow[k, c]
                    above = self.total[k - 1][c] if k else 0.0
                    total[k][c] = above + value * self.active[k, c]
                    if k == SIDE - 1:
                        out[c] = (tile, row, total[k][c])
        for k in range(SIDE):
            for c in range(SIDE):
                weight = passing[k][c]
                if weight is not None and weight[1] == k:
                    self.shadow[k, c] = weight[0]
        self.act, self.total, self.passing = act, total, passing
        return out


def simulate(tiles: list[Array], weights: list[Array]) -> tuple[list[Array], int]:
    """Run the tiles in order as early as the shadow registers allow; results and cycles until the
    last sum is out.
    """
    loads: list[int] = []
    starts: list[int] = []
    for i in range(len(tiles)):
        free = starts[i - 1] if i else 0
        loads.append(max(free, loads[i - 1] + SIDE if i else 0))
        ready = loads[i] + SIDE
        starts.append(max(ready, starts[i - 1] + tiles[i - 1].shape[0] if i else 0))
    results = [np.full((a.shape[0], SIDE), np.nan) for a in tiles]
    last = starts[-1] + tiles[-1].shape[0] + 2 * SIDE + 4
    grid, done = Grid(), 0
    for now in range(last):
        left: list[tuple[float, int, int] | None] = [None] * SIDE
        top: list[tuple[float, int] | None] = [None] * SIDE
        for i, a in enumerate(tiles):
            for k in range(SIDE):
                t = now - starts[i] - k
                if 0 <= t < a.shape[0]:
                    left[k] = (float(a[t, k]), i, t)
            for c in range(SIDE):
                s = now - loads[i] - c
                if 0 <= s < SIDE:
                    top[c] = (float(weights[i][SIDE - 1 - s, c]), SIDE - 1 - s)
        for c, out in enumerate(grid.cycle(left, top)):
            if out is not None:
                tile, row, value = out
                results[tile][row, c] = value
                done = now + 1
    return results, done


@pytest.mark.parametrize(
    "rows", [[1], [5], [8], [20], [8, 8], [3, 3, 3], [20, 4, 13], [1, 1, 1, 1], [16, 9, 8, 30]]
)
def test_grid_agrees_with_step(rows: list[int]) -> None:
    """Numbers are the matrix product; cycles are those of the event loop and of the closed form."""
    rng = np.random.default_rng(len(rows))
    tiles = [rng.integers(-9, 9, (t, SIDE)).astype(float) for t in rows]
    weights = [rng.integers(-9, 9, (SIDE, SIDE)).astype(float) for _ in rows]
    results, cycles = simulate(tiles, weights)
    for a, w, y in zip(tiles, weights, results, strict=True):
        np.testing.assert_array_equal(y, a @ w)
    program = Repeat(
        tuple(Tile(weight_load=SIDE, matrix=t, fill=2 * SIDE - 2, new_weights=True) for t in rows)
    )
    assert max(event_loop(program)) == cycles
    assert max(closed_form(program)) == cycles


def test_one_tile_is_the_published_formula() -> None:
    """2R + C + T - 2 cycles for one fold of a weight-stationary array (Samajdar et al., SCALE-Sim
    2018).
    """
    for t in (1, 7, 8, 50):
        program = Repeat((Tile(weight_load=SIDE, matrix=t, fill=2 * SIDE - 2, new_weights=True),))
        assert max(event_loop(program)) == 2 * SIDE + SIDE + t - 2
