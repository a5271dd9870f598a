"""Hardware-scheduled chips: tiles, waves and three rooflines that overlap in part.

A product is cut into thread-block tiles, k into splits; the blocks run in waves over the
multiprocessors. Arithmetic, off-chip memory and L2 overlap all but the end of each: together they
take their 4-norm, plus a cost a wave, plus a reduction where k is split, plus launch. The best tile
and split is taken. All functions work on arrays of kernels, so that calibrating evaluates thousands
at once. Known to be naive: one block a multiprocessor, compulsory off-chip traffic only, no
throttling by power, no stream-K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tenfold.chips import Chip, GpuConstant, KernelFamily, MatrixPrecision
from tenfold.machine.gpu.attention import attention_parts
from tenfold.machine.gpu.experts import experts_parts
from tenfold.machine.gpu.rates import HALF_AREA, K_STEP, Rates, rates
from tenfold.machine.kernel import Kernel
from tenfold.machine.roofline import TRANSCENDENTAL_OPS, Parts, norm, vector_cycles

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_TILES = (
    (256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (256, 64), (64, 256), (32,
    64), (32, 128), (64, 32), (16, 64), (16, 128),
)  # fmt: skip
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_TM, _TN, _SPLIT = np.array([(tm, tn, s) for tm, tn in _TILES for s in _SPLITS], dtype=np.float64).T
# shared memory of a block unless asked for more (CUDA C++ Programming Guide, compute capabilities)
SHARED_BYTES = 48 * 1024


@dataclass(frozen=True, slots=True)
class Products:
    """Matrix products as arrays: ``batch`` of [m, k] x [k, n], bytes an operand element takes,
    bytes moved off chip.
    """

    batch: Floats
    m: Floats
    n: Floats
    k: Floats
    operand_bytes: Floats
    moved_bytes: Floats


def product_parts(chip: Chip, precision: MatrixPrecision, p: Products) -> Parts:
    """Time of each product with its best tile and split of k, launch left out."""
    r = rates(chip, precision)
    batch, m, n, k, width, moved = (
        a[:, None] for a in (p.batch, p.m, p.n, p.k, p.operand_bytes, p.moved_bytes)
    )
    tiles = np.ceil(m / _TM) * np.ceil(n / _TN) * _SPLIT * batch
    waves = np.ceil(tiles / r.units)
    area = _TM * _TN
    efficiency = (
        chip.constant(GpuConstant.MATRIX_FRACTION)
        * area
        / (area + HALF_AREA * chip.constant(GpuConstant.TILE_FACTOR))
    )
    depth = np.ceil(k / _SPLIT / K_STEP) * K_STEP
    arithmetic = waves * area * depth / (r.macs_per_unit_s * efficiency)
    off_chip = (moved + np.where(_SPLIT > 1, 8 * _SPLIT * m * n * batch, 0)) / r.memory_bytes_per_s
    from_l2 = tiles * (_TM + _TN) * (k / _SPLIT) * width / r.l2_bytes_per_s
    overhead = waves * chip.constant(GpuConstant.WAVE_S) + np.where(
        _SPLIT > 1, chip.constant(GpuConstant.REDUCTION_S), 0.0
    )
    total = norm(arithmetic, off_chip, from_l2) + overhead
    best = np.arange(len(p.m)), np.argmin(total, axis=1)
    zero = np.zeros(len(p.m))
    return Parts(total[best], arithmetic[best], zero, off_chip[best], from_l2[best], overhead[best])


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one launch of ``kernel``; every part a number."""
    launch = chip.constant(GpuConstant.LAUNCH_S)
    if kernel.attention is not None:
        return attention_parts(
            chip, kernel.precision, (kernel.attention,), np.array([float(kernel.traffic.total)])
        ).first()
    if kernel.experts is not None:
        return experts_parts(
            chip, kernel.precision, (kernel.experts,), kernel.operand_bits / 8
        ).first()
    if not kernel.products:
        return stream_parts(chip, kernel)
    r = rates(chip, kernel.precision)
    vector = _vector_s(kernel, r)
    macs = max(sum(p.macs for p in kernel.products), 1)
    columns = [
        (
            p.batch,
            p.m,
            p.n,
            p.k,
            kernel.operand_bits / 8,
            kernel.traffic.total * p.macs / macs / p.repeat,
        )
        for p in kernel.products
    ]
    parts = product_parts(chip, kernel.precision, Products(*np.array(columns, dtype=np.float64).T))
    repeat = np.array([p.repeat for p in kernel.products], dtype=np.float64)
    total, matrix, _, off_chip, l2, overhead = (float((a * repeat).sum()) for a in parts.columns())
    exposed = max(0.0, vector - max(matrix, off_chip, l2))
    narrowing = float(quantize_time(chip, r, kernel.quantizes)) if kernel.quantizes else 0.0
    return Parts(
        total + exposed + launch + narrowing,
        matrix,
        vector,
        off_chip,
        l2,
        overhead + launch + narrowing,
    )


def _vector_s(kernel: Kernel, r: Rates) -> float:
    ops = kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS
    cycles = vector_cycles(ops, r.vector_ops_per_s / r.clock_hz, kernel.chain, pairs=True)
    return cycles / r.clock_hz


# an element of 16 bits is read for the largest, read again, and written in 8 bits
QUANTIZE_BYTES = 5


def quantize_time(chip: Chip, r: Rates, elements: Any) -> Any:
    """Seconds to scale and narrow the activations of a product that arrives in 16 bits (dynamic
    quantization, one scale).
    """
    return chip.constant(GpuConstant.QUANTIZE_S) + QUANTIZE_BYTES * elements / r.memory_bytes_per_s


_FRACTION = {
    KernelFamily.SOFTMAX: GpuConstant.SOFTMAX_FRACTION,
    KernelFamily.NORM: GpuConstant.NORM_FRACTION,
    KernelFamily.STREAM: GpuConstant.STREAM_FRACTION,
}


def stream_parts(chip: Chip, kernel: Kernel) -> Parts:
    """A kernel without products: bytes off chip at what such kernels reach, and a cost for each
    round of rows.

    A norm whose rows, in fp32, exceed a block's shared memory reads them once more.
    """
    r = rates(chip, kernel.precision)
    moved = float(kernel.traffic.total)
    if kernel.family is KernelFamily.NORM and kernel.row_elements * 4 > SHARED_BYTES:
        moved += kernel.traffic.off_chip.inputs
    off_chip = moved / (r.peak_memory_bytes_per_s * chip.constant(_FRACTION[kernel.family]))
    vector = _vector_s(kernel, r)
    rounds = kernel.rows / r.units * chip.constant(GpuConstant.ROW_S)
    overhead = chip.constant(GpuConstant.LAUNCH_S) + rounds
    return Parts(float(norm(off_chip, vector)) + overhead, 0.0, vector, off_chip, 0.0, overhead)


def times(chip: Chip, kernels: Sequence[Kernel]) -> Floats:
    """Seconds of many kernels of one family and precision at once, as ``kernel_time`` gives them
    one by one.
    """
    first = kernels[0]
    width = first.operand_bits / 8
    if first.attention is not None:
        moved = np.array([float(k.traffic.total) for k in kernels])
        return np.asarray(
            attention_parts(
                chip, first.precision, [k.attention for k in kernels if k.attention], moved
            ).total
        )
    if first.experts is not None:
        return np.asarray(
            experts_parts(
                chip, first.precision, [k.experts for k in kernels if k.experts], width
            ).total
        )
    if not all(len(k.products) == 1 and not k.vector_ops for k in kernels):
        return np.array([kernel_time(chip, k).total for k in kernels])
    columns = [
        (p.batch, p.m, p.n, p.k, width, k.traffic.total) for k in kernels for p in k.products
    ]
    total = product_parts(
        chip, first.precision, Products(*np.array(columns, dtype=np.float64).T)
    ).total + chip.constant(GpuConstant.LAUNCH_S)
    if first.quantizes:
        total = total + quantize_time(
            chip, rates(chip, first.precision), np.array([float(k.quantizes) for k in kernels])
        )
    return np.asarray(total)
