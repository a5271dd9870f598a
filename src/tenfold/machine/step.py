"""THE timing step: how one tile instruction moves time on the units of a software-scheduled chip.

The units work in order, each instruction takes a fixed number of cycles, and finite buffers are
written as the time at which a slot becomes free. So every event time is a maximum of earlier times
plus a constant, and the same function runs on integers (the event loop: specification and trace) and
on rows of a max-plus matrix (the closed form, in ``maxplus``). They cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeVar


class At(IntEnum):
    """State: when each unit or buffer slot becomes free, in cycles."""

    DMA = 0  # off-chip memory to vector memory
    ACT_0 = 1  # two activation buffers: one is filled while the other is read
    ACT_1 = 2
    WEIGHT_0 = 3  # two weight buffers before the array
    WEIGHT_1 = 4
    WEIGHT_LOAD = 5  # shifts weights into the array's shadow registers
    ACTIVE = 6  # when the weights now in the array were complete
    SHADOW = 7  # when the shadow registers become free
    MATRIX = 8
    ACC_0 = 9  # two accumulator buffers
    ACC_1 = 10
    VECTOR = 11
    OUT = 12  # vector memory to off-chip memory


STATES = len(At)


@dataclass(frozen=True, slots=True)
class Tile:
    """Durations in cycles of one tile instruction on each unit. A unit with 0 is not waited for, but passed."""

    weight_dma: int = 0
    weight_load: int = 0
    act_dma: int = 0
    matrix: int = 0
    vector: int = 0
    fill: int = 0  # from the last row in to its result out: rows + columns - 2 of the array
    out_dma: int = 0
    new_weights: bool = False
    first_k: bool = True
    last_k: bool = True


T = TypeVar("T")


class Times(Protocol[T]):
    """Timestamps under max and + constant: integers, or rows over an initial state."""

    v: list[T]

    def later(self, *times: T) -> T: ...

    def after(self, time: T, cycles: int) -> T: ...


def step(e: Times[T], tile: Tile) -> None:
    """Advance the state ``e`` by one tile: fetch weights, load them, fetch activations, multiply, drain, store."""
    v = e.v
    if tile.new_weights:
        fetched = e.after(e.later(v[At.DMA], v[At.WEIGHT_0]), tile.weight_dma)
        v[At.DMA] = fetched
        loaded = e.after(e.later(v[At.WEIGHT_LOAD], fetched, v[At.SHADOW]), tile.weight_load)
        v[At.WEIGHT_LOAD] = v[At.ACTIVE] = loaded
        v[At.WEIGHT_0], v[At.WEIGHT_1] = v[At.WEIGHT_1], loaded
    arrived = e.after(e.later(v[At.DMA], v[At.ACT_0]), tile.act_dma)
    v[At.DMA] = arrived
    start = e.later(v[At.MATRIX], arrived)
    if tile.new_weights:
        start = e.later(start, v[At.ACTIVE])
        v[At.SHADOW] = start
    if tile.first_k:
        start = e.later(start, v[At.ACC_0])
    end = e.after(start, tile.matrix)
    v[At.MATRIX] = end
    v[At.ACT_0], v[At.ACT_1] = v[At.ACT_1], end
    if tile.last_k:
        drained = e.after(e.later(v[At.VECTOR], end), tile.vector)
        v[At.VECTOR] = drained
        v[At.ACC_0], v[At.ACC_1] = v[At.ACC_1], drained
        v[At.OUT] = e.after(e.later(v[At.OUT], e.after(drained, tile.fill)), tile.out_dma)
