"""What all models of a GPU share: rates after losses, and the parts that a time is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenfold.chips import Chip, MatrixPrecision

L2_BYTES_PER_CYCLE = (
    64.0  # per multiprocessor (NVIDIA A100 whitepaper: 5120 bytes a cycle over 80 slices, recalled)
)
HALF_AREA = (
    1024.0  # tile area at which the fixed cost of a tile equals tile_factor of its arithmetic
)
K_STEP = 32  # the depth in which tiles advance
TRANSCENDENTAL_OPS = 4  # special function units run at a quarter of the fp32 rate
# exponent of the norm of resources that overlap in part (assumed; a maximum would be infinite, a
# sum 1)
OVERLAP = 4.0


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


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second: multiply-adds of one multiprocessor at peak, bytes off chip and from L2 after
    losses, vector operations.
    """

    units: float
    macs_per_unit_s: float
    memory_bytes_per_s: float
    peak_memory_bytes_per_s: float
    l2_bytes_per_s: float
    vector_ops_per_s: float
    l2_bytes: float


def rates(chip: Chip, precision: MatrixPrecision) -> Rates:
    """Raises MissingFigure for a chip without a clock."""
    clock = chip.clock("time")
    sustained = chip.figures.get("sustained_clock")
    # of the clock that peaks are published for
    held = min(1.0, sustained.value / clock) if sustained is not None else 1.0
    assert chip.units is not None
    assert chip.memory_bytes_per_s is not None
    return Rates(
        units=float(chip.units),
        macs_per_unit_s=held * chip.peak_flops[precision] / (2 * chip.units),
        memory_bytes_per_s=chip.memory_bytes_per_s * chip.constant("memory_fraction"),
        peak_memory_bytes_per_s=chip.memory_bytes_per_s,
        l2_bytes_per_s=L2_BYTES_PER_CYCLE * chip.units * clock * chip.constant("l2_fraction"),
        vector_ops_per_s=(chip.vector_ops_per_cycle or 1.0) * clock,
        l2_bytes=next((s.bytes for s in chip.sram if s.name == "L2"), 0.0),
    )


def norm(*resources: Any) -> Any:
    """The time of resources that overlap in part: the largest, and a little of the others."""
    return sum(r**OVERLAP for r in resources) ** (1 / OVERLAP)
