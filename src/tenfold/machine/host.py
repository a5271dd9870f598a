"""Processors: a roofline of arithmetic, vector work and memory, plus a fixed cost for each operator."""

from __future__ import annotations

from tenfold.chips import Chip
from tenfold.machine.gpu_rates import Parts
from tenfold.machine.kernel import Kernel

TRANSCENDENTAL_OPS = 10  # SIMD polynomial with range reduction (assumed)


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one operator on all cores (Williams, Waterman, Patterson 2009, Roofline)."""
    clock = chip.clock("time")
    launch = chip.constant("launch_s")
    assert chip.memory_bytes_per_s is not None
    macs = sum(p.macs for p in kernel.products)
    matrix = 2 * macs / (chip.peak_flops[kernel.precision] * chip.constant("matrix_fraction"))
    work = kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS
    vector = work / ((chip.vector_ops_per_cycle or 1.0) * clock * chip.constant("vector_fraction"))
    memory = kernel.traffic.total / (chip.memory_bytes_per_s * chip.constant("memory_fraction"))
    return Parts(max(matrix + vector, memory) + launch, matrix, vector, memory, 0.0, launch)
