"""Systolic arrays as the tile program sees them: rates in cycles, what is kept where."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tenfold.chips import Chip, Matrix, MatrixPrecision, Sram, SramRole, SystolicConstant


@dataclass(frozen=True, slots=True)
class Array:
    """What the tile program needs to know of a chip, in cycles and bytes."""

    matrix: Matrix
    clock_hz: float
    bytes_per_cycle: float
    near_read_per_cycle: float
    near_write_per_cycle: float
    cycles_per_row: float  # of the streamed operand, at this precision
    vector_ops_per_cycle: float
    buffer_bytes: float
    minimum_rows: int
    operand_bytes: float
    # rows that all accumulators hold, where a FIFO brings weights and nothing keeps them; else 0
    one_pass_rows: int = 0


def near_memory(chip: Chip) -> Sram:
    """The on-chip memory in which buffers are kept between kernels."""
    roles = (SramRole.CMEM, chip.activation_level, SramRole.VMEM)
    return next(s for s in map(chip.level, roles) if s is not None)


def near_bytes(chip: Chip) -> float:
    """How much of it is free for that: half where the working buffers of the kernel that runs are
    in it too.
    """
    near = near_memory(chip)
    shared = near.role is SramRole.VMEM and chip.activation_level is None
    return near.bytes / 2 if shared else near.bytes


def array_of(chip: Chip, precision: MatrixPrecision, operand_bits: int) -> Array:
    """Raises MissingFigure for a chip without a clock."""
    clock = chip.clock("time")
    matrix = chip.matrix
    assert matrix is not None
    assert chip.memory_bytes_per_s is not None
    natural = matrix.macs_per_cycle * clock * 2
    near = near_memory(chip)
    bandwidth = chip.memory_bytes_per_s * chip.constant(SystolicConstant.MEMORY_FRACTION)
    return Array(
        matrix=matrix,
        clock_hz=clock,
        bytes_per_cycle=bandwidth / clock,
        near_read_per_cycle=_near_rate(near.read_bytes_per_s, clock),
        near_write_per_cycle=_near_rate(near.write_bytes_per_s, clock),
        cycles_per_row=natural
        / (chip.peak_flops[precision] * chip.constant(SystolicConstant.MATRIX_FRACTION)),
        vector_ops_per_cycle=(chip.vector_ops_per_cycle or matrix.columns)
        * chip.constant(SystolicConstant.VECTOR_FRACTION),
        buffer_bytes=chip.level_bytes(SramRole.VMEM) / 2,
        minimum_rows=int(chip.constant(SystolicConstant.MINIMUM_ROWS)),
        operand_bytes=operand_bits / 8,
        one_pass_rows=_accumulator_rows(chip, matrix) if chip.whole_weight_tiles else 0,
    )


def _accumulator_rows(chip: Chip, matrix: Matrix) -> int:
    """Rows of 32-bit sums that the accumulators of all columns hold."""
    size = chip.level_bytes(SramRole.ACC)
    return int(size / (matrix.columns * 4))


def _near_rate(bytes_per_s: float | None, clock: float) -> float:
    """Bytes a cycle; memory that the units read directly, without a copy, has no rate of its
    own.
    """
    return bytes_per_s / clock if bytes_per_s else math.inf
