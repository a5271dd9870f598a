"""What all models of a GPU share: rates after losses."""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.chips import Chip, GpuConstant, MatrixPrecision, SramRole

# per multiprocessor (NVIDIA A100 whitepaper: 5120 bytes a cycle over 80 slices, recalled)
L2_BYTES_PER_CYCLE = 64.0
# tile area at which the fixed cost of a tile equals tile_factor of its arithmetic
HALF_AREA = 1024.0
K_STEP = 32  # the depth in which tiles advance


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
    clock_hz: float
    l2_bytes: float


def rates(chip: Chip, precision: MatrixPrecision) -> Rates:
    """Raises MissingFigure for a chip without a clock."""
    clock = chip.clock("time")
    assert chip.units is not None
    assert chip.memory_bytes_per_s is not None
    return Rates(
        units=float(chip.units),
        macs_per_unit_s=chip.peak_flops[precision] / (2 * chip.units),
        memory_bytes_per_s=chip.memory_bytes_per_s * chip.constant(GpuConstant.MEMORY_FRACTION),
        peak_memory_bytes_per_s=chip.memory_bytes_per_s,
        l2_bytes_per_s=L2_BYTES_PER_CYCLE
        * chip.units
        * clock
        * chip.constant(GpuConstant.L2_FRACTION),
        vector_ops_per_s=(chip.vector_ops_per_cycle or 1.0) * clock,
        clock_hz=clock,
        l2_bytes=chip.level_bytes(SramRole.L2),
    )
