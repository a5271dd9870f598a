"""The vocabulary of chips: kinds of machines, precisions, memory technologies, on-chip memories."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """Which machine model a chip has."""

    SYSTOLIC = "systolic"  # software-scheduled arrays: TPUs, the Neuron chips
    GPU = "gpu"
    HOST = "host"  # processors
    ROOFLINE = "roofline"  # peak, bandwidth, capacity and power are enough
    LISTED = "listed"  # figures only, no model


class MatrixPrecision(StrEnum):
    """Dtypes that a chip may have a peak for."""

    INT8 = "int8"
    FP8 = "fp8"
    FP4 = "fp4"
    BF16 = "bf16"
    FP16 = "fp16"
    TF32 = "tf32"
    FP32 = "fp32"

    @property
    def bits(self) -> int:
        """Bits that an operand takes in memory."""
        return _BITS[self]


_BITS: Mapping[MatrixPrecision, int] = {
    MatrixPrecision.INT8: 8,
    MatrixPrecision.FP8: 8,
    MatrixPrecision.FP4: 4,
    MatrixPrecision.BF16: 16,
    MatrixPrecision.FP16: 16,
    MatrixPrecision.TF32: 32,
    MatrixPrecision.FP32: 32,
}


class MemoryTechnology(StrEnum):
    """Off-chip memory; each has its energy a bit in ``machine/data/energy_per_op.toml``."""

    DDR3 = "DDR3"
    DDR4 = "DDR4"
    DDR5 = "DDR5"
    GDDR5 = "GDDR5"
    GDDR6 = "GDDR6"
    GDDR6X = "GDDR6X"
    GDDR7 = "GDDR7"
    HBM = "HBM"
    HBM2 = "HBM2"
    HBM2E = "HBM2E"
    HBM3 = "HBM3"
    HBM3E = "HBM3E"


class SramRole(StrEnum):
    """What an on-chip memory is to its machine."""

    CMEM = "CMEM"  # common memory, where buffers wait between kernels
    VMEM = "VMEM"  # vector memory, which the units of a systolic chip read and write
    ACC = "ACC"  # accumulators behind the arrays
    SPMEM = "SPMEM"  # of the sparse cores
    REGISTERS = "registers"
    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    ON_CHIP = "on-chip"  # of a chip without a machine model
    TILE = "tile memory"  # the same, spread over its tiles


ROLES: Mapping[Kind, frozenset[SramRole]] = {
    Kind.SYSTOLIC: frozenset({SramRole.CMEM, SramRole.VMEM, SramRole.ACC, SramRole.SPMEM}),
    Kind.GPU: frozenset({SramRole.REGISTERS, SramRole.L1, SramRole.L2, SramRole.L3}),
    Kind.HOST: frozenset({SramRole.L1, SramRole.L2, SramRole.L3}),
    Kind.ROOFLINE: frozenset(SramRole),
    Kind.LISTED: frozenset(SramRole),
}
NEEDED: Mapping[Kind, frozenset[SramRole]] = {
    Kind.SYSTOLIC: frozenset({SramRole.VMEM}),
    Kind.GPU: frozenset(),
    Kind.HOST: frozenset(),
    Kind.ROOFLINE: frozenset(),
    Kind.LISTED: frozenset(),
}
