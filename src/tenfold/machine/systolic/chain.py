"""Kernels one after the other on a software-scheduled chip: the state of the units passes from each
to the next.

The next kernel's weights may be on their way while the last one drains; what it reads waits until
that is stored. Counters come from the same program with one unit after another made infinitely
fast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tenfold.chips import Chip, Matrix, SystolicConstant
from tenfold.machine.kernel import Kernel, Level
from tenfold.machine.run import Counters, Timed, crossing
from tenfold.machine.systolic import tiles
from tenfold.machine.systolic.array import array_of
from tenfold.machine.systolic.maxplus import Matrix as MaxPlus
from tenfold.machine.systolic.maxplus import Repeat, Variant, apply, matrix_of, power
from tenfold.machine.systolic.step import STATES

_WEIGHTS: Variant = frozenset({"weight_dma", "weight_near"})
_SHIFT: Variant = _WEIGHTS | {"weight_load"}
_MEMORY: Variant = _SHIFT | {"act_dma", "act_near", "out_dma", "out_near", "prefetch"}
_VECTOR: Variant = _MEMORY | {"vector"}
VARIANTS: tuple[Variant, ...] = (frozenset(), _WEIGHTS, _SHIFT, _MEMORY, _VECTOR)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A kernel as lowered: the matrices of its tile program over all variants, cycles of each unit
    and of shifts, its own counters.
    """

    matrices: MaxPlus
    busy: dict[str, float]
    active: float
    shifts: float
    counters: Counters


def kernel_program(chip: Chip, kernel: Kernel) -> Repeat:
    """The tile program of one launch of ``kernel``."""
    array = array_of(chip, kernel.precision, kernel.operand_bits)
    overhead = round(chip.constant(SystolicConstant.KERNEL_S) * array.clock_hz)
    # fetched while the kernel starts
    ahead = min(float(kernel.traffic.prefetch), overhead * array.bytes_per_cycle)
    kernel = replace(
        kernel, traffic=replace(kernel.traffic, prefetch=kernel.traffic.prefetch - int(ahead))
    )
    during = math.ceil(ahead / array.bytes_per_cycle)
    if not kernel.products:
        return tiles.launched(
            (tiles.vector_program(kernel, array, array.buffer_bytes / 8),), overhead, during
        )
    macs = sum(p.macs for p in kernel.products)
    results = max(sum(p.batch * p.m * p.n * p.repeat for p in kernel.products), 1)
    drain = 1 + (kernel.vector_ops + kernel.transcendentals * tiles.TRANSCENDENTAL_OPS) / results
    parts = []
    for p in kernel.products:
        share = p.macs / max(macs, 1) / p.repeat
        t = kernel.traffic
        weights = (
            tiles.whole_tiles(p, array)
            if chip.whole_weight_tiles and t.off_chip.weights
            else t.off_chip.weights * share
        )
        moved = tiles.Bytes(
            streamed=t.off_chip.inputs * share,
            stationary=weights,
            result=t.off_chip.outputs * share,
            near_streamed=t.near.inputs * share,
            near_stationary=t.near.weights * share,
            near_result=t.near.outputs * share,
            prefetch=t.prefetch * share,
            early=t.prefetched > 0,
        )
        best = tiles.best_program(
            replace(p, repeat=1), array, moved, drain, weights_stationary=chip.whole_weight_tiles
        )
        parts.append(Repeat((best,), p.repeat) if p.repeat > 1 else best)
    return tiles.launched(tuple(parts), overhead, during)


@lru_cache(maxsize=1 << 12)
def lower(chip: Chip, kernel: Kernel) -> Lowered:
    """``kernel`` as a tile program with what does not depend on its neighbours, nor on its name."""
    program = kernel_program(chip, kernel)
    busy = {n: float(c) for n, c in tiles.busy_cycles(program).items()}
    active = busy["matrix"]
    matrix = chip.matrix
    assert matrix is not None
    array = array_of(chip, kernel.precision, kernel.operand_bits)
    slots = active / array.cycles_per_row * matrix.macs_per_cycle
    useful = sum(p.macs for p in kernel.products)
    streamed, sums = _between_units(kernel, matrix)
    taken, put = streamed + kernel.traffic.all_writes, sums + kernel.traffic.all_reads
    crossed = crossing(kernel.traffic, {Level.ON_CHIP: (taken, put)})
    counters = Counters(
        active=active,
        macs_useful=useful,
        macs_wasted=max(0.0, slots - useful),
        read=crossed.read,
        written=crossed.written,
        vector_ops=kernel.vector_ops + kernel.transcendentals * tiles.TRANSCENDENTAL_OPS,
    )
    shifts = float(sum(t.weight_load * n for t, n in program.kinds() if t.new_weights))
    return Lowered(matrix_of(program, VARIANTS), busy, active, shifts, counters)


def _between_units(kernel: Kernel, matrix: Matrix) -> tuple[float, float]:
    """Bytes from vector memory to the arrays, activations once per column tile, and back, results
    once per k tile in 32 bits.
    """
    width = kernel.operand_bits / 8
    streamed = sums = 0.0
    for p in kernel.products:
        items = p.batch * p.repeat * p.m
        streamed += items * p.k * -(-p.n // matrix.columns) * width
        sums += items * p.n * -(-p.k // matrix.rows) * 4
    return streamed, sums


def time_kernels(chip: Chip, kernels: tuple[Kernel, ...]) -> tuple[list[Timed], Counters]:
    """Each kernel as it runs after the ones before it, and the counters of them all, which add up
    to all cycles.
    """
    clock = chip.clock("time")
    cache: dict[Kernel, Lowered] = {}
    state = np.zeros((len(VARIANTS), STATES), dtype=np.int64)
    ends: list[MaxPlus] = []
    for k in kernels:
        if k.shape not in cache:
            cache[k.shape] = lower(chip, k.shape)
        matrices = cache[k.shape].matrices
        state = apply(power(matrices, k.repeat) if k.repeat > 1 else matrices, state)
        ends.append(state.max(axis=1))
    times = np.diff(np.asarray(ends).reshape(-1, len(VARIANTS)), axis=0, prepend=0)
    timed, total = [], Counters()
    for k, took in zip(kernels, times.tolist(), strict=True):
        low = cache[k.shape]
        counters = _attributed(low, [t / k.repeat for t in took])
        timed.append(Timed(took[0] / k.repeat / clock, _bound(low, took[0] / k.repeat), counters))
        total = total + counters.times(k.repeat)
    return timed, total


def _attributed(low: Lowered, took: list[float]) -> Counters:
    """Cycles by cause: what each unit, made infinitely fast after the ones before it, takes off the
    time.

    Weights that come late are shifted in while the array waits: of the cycles that it waits for
    weights, those are shift.
    """
    whole, _, shift, memory, vector = took
    waits = whole - shift
    shifting = max(0.0, min(waits, low.shifts))
    return replace(
        low.counters,
        cycles=whole,
        weight_stall=waits - shifting,
        weight_shift=shifting,
        memory_stall=shift - memory,
        vector=memory - vector,
        idle=vector - low.active,
    )


def _bound(low: Lowered, took: float) -> str:
    """The unit that works longest, or "launch" where none works for most of the time."""
    name = max(low.busy, key=lambda n: low.busy[n])
    return name if low.busy[name] * 2 >= took else "launch"
