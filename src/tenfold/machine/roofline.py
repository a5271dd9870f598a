"""What the models of hardware-scheduled chips share: parts of a time, and counters from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenfold.chips import Chip
from tenfold.machine.kernel import Kernel, Level
from tenfold.machine.run import Counters, Timed, by_level

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


def norm(*resources: Any) -> Any:
    """The time of resources that overlap in part: the largest, and a little of the others."""
    return sum(r**OVERLAP for r in resources) ** (1 / OVERLAP)


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
    active = min(parts.total, parts.matrix)
    rest = parts.total - active
    idle = min(rest, parts.overhead)
    memory = min(rest - idle, max(0.0, max(parts.memory, parts.l2) - active))
    slots = active * chip.peak_flops[kernel.precision] / 2
    t = kernel.traffic
    passing = t.total + t.near.total  # what comes from the caches passes the units too
    counters = Counters(
        cycles=parts.total * clock,
        active=active * clock,
        memory_stall=memory * clock,
        vector=(rest - idle - memory) * clock,
        idle=idle * clock,
        macs_useful=useful,
        macs_wasted=max(0.0, slots - useful),
        vector_ops=kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS,
        read=by_level({Level.OFF_CHIP: t.reads, Level.NEAR: t.near.reads, Level.ON_CHIP: passing}),
        written=by_level(
            {Level.OFF_CHIP: t.off_chip.outputs, Level.NEAR: t.near.outputs, Level.ON_CHIP: passing}
        ),
    )
    return Timed(parts.total, bound, counters)
