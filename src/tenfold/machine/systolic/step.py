"""THE timing step: how one instruction moves time on the units of a software-scheduled chip.

The units work in order, each instruction takes a fixed number of cycles, and finite buffers are
written as the time at which a slot becomes free. So every event time is a maximum of earlier times
plus a constant, and the same function runs on integers (the event loop: specification and trace)
and on rows of a max-plus matrix (the closed form, in ``maxplus``). They cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias, TypeVar


class At(IntEnum):
    """State: when each unit or buffer slot becomes free, in cycles."""

    DMA = 0  # off-chip memory to vector memory
    NEAR = 1  # large on-chip memory to vector memory
    ACT_0 = 2  # two activation buffers: one is filled while the other is read
    ACT_1 = 3
    WEIGHT_0 = 4  # two weight buffers before the array
    WEIGHT_1 = 5
    WEIGHT_LOAD = 6  # shifts weights into the array's shadow registers
    ACTIVE = 7  # when the weights now in the array were complete
    SHADOW = 8  # when the shadow registers become free
    MATRIX = 9
    ACC_0 = 10  # two accumulator buffers
    ACC_1 = 11
    VECTOR = 12
    OUT = 13  # vector memory to either memory
    READY = 14  # when what the kernel before made is there to be read
    MARK = 15  # when this kernel began to use the off-chip interface


STATES = len(At)


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel begins ``cycles`` after all before it is stored; its first weights, and others', may
    be fetched earlier.
    """

    cycles: int = 0
    prefetch: int = 0  # weights fetched into the large on-chip memory while it starts


@dataclass(frozen=True, slots=True)
class Drain:
    """A kernel ends: reads and writes share the off-chip interface, which was busy with weights and
    with the rest.
    """

    weights: int = 0
    rest: int = 0


@dataclass(frozen=True, slots=True)
class Tile:
    """Durations in cycles of one tile instruction on each unit. A unit with 0 is not waited for,
    but passed.
    """

    weight_dma: int = 0
    weight_near: int = 0
    weight_load: int = 0
    act_dma: int = 0
    act_near: int = 0
    matrix: int = 0
    vector: int = 0
    fill: int = 0  # from the last row in to its result out: rows + columns - 2 of the array
    out_dma: int = 0
    out_near: int = 0
    prefetch: int = 0  # weights of later kernels
    new_weights: bool = False
    weights_near: bool = False  # they come, in part at least, from the large on-chip memory
    weights_early: bool = False  # they came there while an earlier kernel ran
    first_k: bool = True
    last_k: bool = True
    both: bool = False  # its rows fill both accumulator buffers

    @property
    def interface(self) -> int:
        """Cycles for which it holds the off-chip interface."""
        return self.weight_dma + self.act_dma + self.out_dma + self.prefetch


Instruction: TypeAlias = "Tile | Launch | Drain"
T = TypeVar("T")


class Times(Protocol[T]):
    """Timestamps under max and + constant: integers, or rows over an initial state."""

    v: list[T]

    def later(self, *times: T) -> T: ...

    def after(self, time: T, cycles: int) -> T: ...


def step(e: Times[T], instruction: Instruction) -> None:
    """Advance the state ``e`` by one instruction."""
    v = e.v
    if isinstance(instruction, Tile):
        _tile(e, instruction)
    elif isinstance(instruction, Launch):
        stored = e.later(v[At.VECTOR], v[At.OUT], v[At.DMA], v[At.NEAR])
        v[At.MARK] = v[At.DMA]
        v[At.DMA] = e.after(v[At.DMA], instruction.prefetch)
        v[At.READY] = e.after(stored, instruction.cycles)
    else:
        free = e.after(v[At.MARK], instruction.weights + instruction.rest)
        v[At.DMA] = e.later(v[At.DMA], free)
        v[At.OUT] = e.later(v[At.OUT], free)


def _tile(e: Times[T], tile: Tile) -> None:
    """Fetch weights, load them, fetch activations, multiply, drain, store."""
    v = e.v
    if tile.new_weights:
        slot = v[At.WEIGHT_0]
        fetched = v[At.DMA] = e.after(e.later(v[At.DMA], slot), tile.weight_dma)
        there = fetched
        if tile.weights_near:
            begin = (
                e.later(v[At.NEAR], slot, v[At.READY])
                if tile.weights_early
                else e.later(v[At.NEAR], slot)
            )
            v[At.NEAR] = e.after(begin, tile.weight_near)
            there = e.later(fetched, v[At.NEAR])
        loaded = e.after(e.later(v[At.WEIGHT_LOAD], there, v[At.SHADOW]), tile.weight_load)
        v[At.WEIGHT_LOAD] = v[At.ACTIVE] = loaded
        v[At.WEIGHT_0], v[At.WEIGHT_1] = v[At.WEIGHT_1], loaded
    begin = e.later(v[At.ACT_0], v[At.READY])
    arrived = e.after(e.later(v[At.DMA], begin), tile.act_dma)
    v[At.DMA] = e.after(arrived, tile.prefetch)
    near = v[At.NEAR] = e.after(e.later(v[At.NEAR], begin), tile.act_near)
    start = e.later(v[At.MATRIX], arrived, near)
    if tile.new_weights:
        start = e.later(start, v[At.ACTIVE])
        v[At.SHADOW] = start
    if tile.first_k:
        start = (
            e.later(start, v[At.ACC_0], v[At.ACC_1]) if tile.both else e.later(start, v[At.ACC_0])
        )
    end = v[At.MATRIX] = e.after(start, tile.matrix)
    v[At.ACT_0], v[At.ACT_1] = v[At.ACT_1], end
    if tile.last_k:
        drained = v[At.VECTOR] = e.after(e.later(v[At.VECTOR], end), tile.vector)
        v[At.ACC_0], v[At.ACC_1] = drained if tile.both else v[At.ACC_1], drained
        out = e.later(v[At.OUT], e.after(drained, tile.fill))
        v[At.OUT] = e.after(out, tile.out_dma + tile.out_near)
