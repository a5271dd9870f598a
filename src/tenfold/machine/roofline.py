"""What the models of hardware-scheduled chips share: parts of a time, and counters from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.chips import Chip
from tenfold.machine.kernel import Chain, Kernel, Level
from tenfold.machine.run import Counters, Timed, crossing

# Exponent of the norm of resources that overlap in part (assumed; a maximum would be infinite, a
# sum 1)
OVERLAP = 4.0
TRANSCENDENTAL_OPS = 4  # special function units run at a quarter of the fp32 rate


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the time of kernels goes, in seconds; ``total`` is what they take, not the sum of
    overlapping parts.

    Every field is a number, or an array with one entry a kernel.
    """

    total: Any
    matrix: Any
    vector: Any
    memory: Any
    l2: Any
    overhead: Any

    def columns(self) -> tuple[Any, ...]:
        return self.total, self.matrix, self.vector, self.memory, self.l2, self.overhead

    def first(self) -> Parts:
        """The first kernel's parts, as numbers."""
        return Parts(*(float(c[0]) for c in self.columns()))


# cycles until a result of a vector unit can be used: a fused multiply-add of GPUs since Volta (Jia
# et al. 2018, Dissecting the NVIDIA Volta GPU architecture, table 4.1) and of processors since
# Skylake and Zen (Fog, Instruction tables); taken for TPUs too, which publish none
LATENCY_CYCLES = 4.0


def vector_cycles(ops: float, per_cycle: float, chain: Chain | None, *, pairs: bool) -> float:
    """Cycles of a kernel's vector work at ``per_cycle`` operations, or more where they wait for
    each other: a step takes what its points take beside each other, and at least the latency of
    what is chained. With ``pairs`` an associative chain is as deep as a tree.
    """
    if chain is None:
        return ops / per_cycle
    tree = pairs and chain.associative
    depth = max(1, math.ceil(math.log2(chain.steps))) if tree else chain.steps
    beside = chain.beside * chain.steps / depth
    a_step = ops / depth / min(per_cycle, beside)
    return depth * max(a_step, chain.chained * LATENCY_CYCLES)


def norm(*resources: Any) -> Any:
    """The time of resources that overlap in part: the largest, and a little of the others."""
    return sum(r**OVERLAP for r in resources) ** (1 / OVERLAP)


@dataclass(frozen=True, slots=True)
class Spent:
    """The total of kernels by what it is spent on: the matrix unit multiplies, launches and the
    like, waiting for bytes, and the rest, in which vector units work. Numbers or arrays.
    """

    active: Any
    idle: Any
    memory: Any
    vector: Any


def spent(parts: Parts) -> Spent:
    active = np.minimum(parts.total, parts.matrix)
    rest = parts.total - active
    idle = np.minimum(rest, parts.overhead)
    waits = np.maximum(0.0, np.maximum(parts.memory, parts.l2) - active)
    memory = np.minimum(rest - idle, waits)
    return Spent(active, idle, memory, rest - idle - memory)


def timed(chip: Chip, kernel: Kernel, parts: Parts) -> Timed:
    """Counters of a roofline kernel: cycles not spent multiplying go to what held it up."""
    clock = chip.clock("time")
    names = {
        "matrix": parts.matrix,
        "memory": parts.memory,
        "vector": parts.vector,
        "l2": parts.l2,
        "launch": parts.overhead,
    }
    bound = max(names, key=lambda n: names[n])
    useful = sum(p.macs for p in kernel.products)
    s = spent(parts)
    active, idle, memory, vector = (float(n) for n in (s.active, s.idle, s.memory, s.vector))
    slots = active * chip.peak_flops[kernel.precision] / 2
    done = min(float(useful), slots)  # a transform of windows saves some
    # what comes from the caches passes the units too
    passing = float(kernel.traffic.all_reads + kernel.traffic.all_writes)
    crossed = crossing(kernel.traffic, {Level.ON_CHIP: (passing, passing)})
    counters = Counters(
        cycles=parts.total * clock,
        active=active * clock,
        memory_stall=memory * clock,
        vector=vector * clock,
        idle=idle * clock,
        macs_useful=done,
        macs_wasted=max(0.0, slots - done),
        vector_ops=kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS,
        read=crossed.read,
        written=crossed.written,
    )
    return Timed(parts.total, bound, counters)
