"""Processors: a roofline of arithmetic, vector work and memory in one of two speeds, plus a fixed cost for each operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tenfold.chips import Chip
from tenfold.ir.table import Lowering
from tenfold.machine.gpu_rates import Parts, norm
from tenfold.machine.kernel import Kernel, Product

TRANSCENDENTAL_OPS = 10  # SIMD polynomial with range reduction (assumed)


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one operator on all cores (Williams, Waterman, Patterson 2009, Roofline, with overlap in part).

    Bytes marked near come from the caches, the others from memory; a change of layout reaches a share of either.
    """
    clock = chip.clock("time")
    launch = chip.constant("launch_s")
    assert chip.memory_bytes_per_s is not None
    matrix = sum(_product_s(chip, kernel, p) * p.repeat for p in kernel.products)
    work = (0 if kernel.products else kernel.vector_ops) + kernel.transcendentals * TRANSCENDENTAL_OPS
    vector = work / ((chip.vector_ops_per_cycle or 1.0) * clock * chip.constant("vector_fraction"))
    rate = chip.memory_bytes_per_s * chip.constant("memory_fraction")
    rate *= chip.constant("move_fraction") if kernel.kind is Lowering.MOVE else 1.0
    memory = kernel.traffic.total / rate + kernel.traffic.near / (rate * chip.constant("cache_factor"))
    return Parts(float(norm(matrix, memory, vector)) + launch, matrix, vector, memory, 0.0, launch)


def _product_s(chip: Chip, kernel: Kernel, p: Product) -> float:
    """Seconds of one repetition: results fill whole vectors, but where each group has few columns, which runs across groups."""
    peak = chip.peak_flops[kernel.precision]
    lanes = max(1.0, (chip.vector_ops_per_cycle or 4.0) / (chip.units or 1) / 4)  # two fused multiply-adds a cycle
    flops = 2 * p.batch * p.m * p.n * p.k
    if "conv" in kernel.ops and p.batch > 1 and p.n < lanes:
        return flops / (peak * chip.constant("grouped_fraction"))
    share = chip.constant("conv_fraction" if "conv" in kernel.ops else "matrix_fraction")
    return flops * math.ceil(p.n / lanes) * lanes / p.n / (peak * share)


def cached(chip: Chip, kernels: Sequence[Kernel], weight_bytes: int) -> tuple[Kernel, ...]:
    """The kernels with what the caches hold marked near: all weights if they fit together, what one kernel moves if that fits."""
    cache = chip.sram_bytes
    found = []
    for k in kernels:
        t = k.traffic
        if weight_bytes <= cache:
            t = replace(t, weights=0, near_weights=t.weights)
        if t.inputs + t.outputs <= cache:
            t = replace(t, inputs=0, outputs=0, near_inputs=t.inputs, near_outputs=t.outputs)
        found.append(replace(k, traffic=t))
    return tuple(found)
