"""Hardware-scheduled chips: tiles, waves and three rooflines that overlap in part.

A product is cut into thread-block tiles, k into splits; the blocks run in waves over the
multiprocessors. Arithmetic, off-chip memory and L2 overlap all but the end of each: together they
take their 4-norm, plus a cost a wave, plus a reduction where k is split, plus launch. The best tile
and split is taken. All functions work on arrays of kernels, so that calibrating evaluates thousands
at once. Times are those at the chip's own clock: what its power allows comes after
(``machine/running.py``). Known to be naive: one block a multiprocessor, compulsory off-chip traffic
only, no stream-K.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from tenfold.chips import Chip, GpuConstant, KernelFamily, MatrixPrecision
from tenfold.ir.table import Rate
from tenfold.machine.gpu.attention import attention_parts
from tenfold.machine.gpu.cache import SHARE
from tenfold.machine.gpu.experts import experts_parts
from tenfold.machine.gpu.rates import HALF_AREA, K_STEP, Rates, rates
from tenfold.machine.kernel import Attention, Kernel, Product
from tenfold.machine.roofline import TRANSCENDENTAL_OPS, Parts, norm, vector_cycles

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_TILES = (
    (256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (256, 64), (64, 256), (32,
    64), (32, 128), (64, 32), (16, 64), (16, 128),
)  # fmt: skip
_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# of fp32 on vector lanes (the tiles in the names of cuBLAS's sgemm kernels)
_LANE_TILES = ((128, 128), (128, 64), (64, 128), (64, 64), (128, 32), (32, 128))


def _cuts(tiles: Sequence[tuple[int, int]]) -> Floats:
    """Every tile with every split of k: rows of heights, widths and splits."""
    return np.array([(tm, tn, s) for tm, tn in tiles for s in _SPLITS], dtype=np.float64).T


_ON_UNITS, _ON_LANES = _cuts(_TILES), _cuts(_LANE_TILES)


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


@dataclass(frozen=True, slots=True)
class _Way:
    """How a chip does products in a precision: the tiles that it has, the share of the peak that a
    large one reaches, the area at which a tile's fixed cost equals its arithmetic, the depth of k
    that filling a tile's pipeline costs, and the seconds of a wave.
    """

    cuts: Floats
    fraction: float
    half_area: float
    fill: float
    wave_s: float


def _way(chip: Chip, precision: MatrixPrecision) -> _Way:
    if chip.on_lanes(precision):
        return _Way(
            _ON_LANES,
            chip.constant(GpuConstant.LANE_FRACTION),
            0.0,
            K_STEP * chip.constant(GpuConstant.LANE_FILL_FACTOR),
            chip.constant(GpuConstant.LANE_WAVE_S),
        )
    return _Way(
        _ON_UNITS,
        chip.constant(GpuConstant.MATRIX_FRACTION),
        HALF_AREA * chip.constant(GpuConstant.TILE_FACTOR),
        0.0,
        chip.constant(GpuConstant.WAVE_S),
    )


def product_parts(
    chip: Chip,
    precision: MatrixPrecision,
    p: Products,
    reached: float = 1.0,
    *,
    whole: bool = False,
) -> Parts:
    """Time of each product with its best tile and split of k, launch left out; ``reached``: of what
    products reach otherwise; ``whole``: k is never split.
    """
    r, way = rates(chip, precision), _way(chip, precision)
    tm, tn, split = way.cuts[:, way.cuts[2] == 1] if whole else way.cuts
    batch, m, n, k, width, moved = (
        a[:, None] for a in (p.batch, p.m, p.n, p.k, p.operand_bytes, p.moved_bytes)
    )
    tiles = np.ceil(m / tm) * np.ceil(n / tn) * split * batch
    waves = np.ceil(tiles / r.units)
    area = tm * tn
    efficiency = reached * way.fraction * area / (area + way.half_area)
    depth = np.ceil(k / split / K_STEP) * K_STEP + way.fill
    arithmetic = waves * area * depth / (r.macs_per_unit_s * efficiency)
    off_chip = (moved + np.where(split > 1, 8 * split * m * n * batch, 0)) / r.memory_bytes_per_s
    from_l2 = tiles * (tm + tn) * (k / split) * width / r.l2_bytes_per_s
    overhead = waves * way.wave_s + np.where(split > 1, chip.constant(GpuConstant.REDUCTION_S), 0.0)
    total = norm(arithmetic, off_chip, from_l2) + overhead
    best = np.arange(len(p.m)), np.argmin(total, axis=1)
    zero = np.zeros(len(p.m))
    return Parts(total[best], arithmetic[best], zero, off_chip[best], from_l2[best], overhead[best])


def _quickest(
    chip: Chip, kernel: Kernel, products: Sequence[Product], moved: Sequence[float]
) -> Parts:
    """Each product by the quickest of the ways that a library has for it; ``kernel`` is one like
    theirs.
    """
    width = kernel.operand_bits / 8
    # partial sums leave the matrix unit to be scaled, once for each block of k
    plain = chip.constant(GpuConstant.BLOCK_FRACTION) if kernel.blocked else 1.0
    lanes, windows = chip.on_lanes(kernel.precision), kernel.rate is Rate.CONVOLUTION
    ways = [
        [(p.batch, p.m, p.n, p.k, width, b) for p, b in zip(products, moved, strict=True)],
    ]
    if lanes and any(p.threes for p in products):
        ways += [
            [
                (*_transformed(p, side), width, b + _transforms(p, side) * width)
                if p.threes
                else (p.batch, p.m, p.n, p.k, width, b)
                for p, b in zip(products, moved, strict=True)
            ]
            for side in WINOGRAD
        ]
    found = [
        product_parts(
            chip,
            kernel.precision,
            Products(*np.array(way, dtype=np.float64).T),
            WINOGRAD_FRACTION if i else plain,
            whole=windows and lanes,
        )
        for i, way in enumerate(ways)
    ]
    if windows and any(p.batch > 1 for p in products):
        found.append(_direct_parts(chip, kernel, products, moved))
    if len(found) == 1:
        return found[0]
    best = np.argmin([f.total for f in found], axis=0)
    each = zip(*(f.columns() for f in found), strict=True)
    return Parts(*(np.choose(best, columns) for columns in each))


# Results of 2 x 2 in one kernel, of 4 x 4 in one for each transform beside the products (Lavin and
# Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016; cuDNN's two of fp32)
WINOGRAD = (2, 4)
# of what products reach otherwise, transforms included (chosen on two thirds of the fp32
# convolutions of V100-PCIe in sitar-lab/NeuSight; 0.4 and 0.6 give 30 and 33 % on the rest for 29)
WINOGRAD_FRACTION = 0.5


def _transformed(p: Product, side: int) -> tuple[int, int, int, int]:
    """The products of F(side x side, 3 x 3): one for each point of a transformed tile."""
    items, rows, columns = p.threes
    tiles = items * math.ceil(rows / side) * math.ceil(columns / side)
    return (side + 2) ** 2, tiles, p.n, p.k // 9


def _transforms(p: Product, side: int) -> int:
    """Elements that transforms in kernels of their own write and read again."""
    if side == WINOGRAD[0]:
        return 0
    points, tiles, n, channels = _transformed(p, side)
    return 2 * points * tiles * (n + channels)


DIRECT_FRACTION = 0.5  # of the vector lanes' rate, in windows that are not put together (assumed)


def _direct_parts(
    chip: Chip, kernel: Kernel, products: Sequence[Product], moved: Sequence[float]
) -> Parts:
    """Convolutions in groups without tiles: each result on a lane, its inputs streamed."""
    r = rates(chip, kernel.precision)
    macs = np.array([p.macs / p.repeat for p in products])
    arithmetic = 2 * macs / (r.vector_ops_per_s * DIRECT_FRACTION)
    share = chip.constant(GpuConstant.STREAM_FRACTION)
    off_chip = np.array(moved) / (r.peak_memory_bytes_per_s * share)
    zero = np.zeros(len(macs))
    return Parts(norm(arithmetic, off_chip), arithmetic, zero, off_chip, zero, zero)


def _attention(chip: Chip, kernels: Sequence[Kernel]) -> Parts:
    moved = np.array([float(k.traffic.total) for k in kernels])
    near = np.array([float(k.traffic.near.total) for k in kernels])
    attentions = [k.attention for k in kernels if k.attention]
    return attention_parts(chip, kernels[0].precision, attentions, moved, near)


# five products for the two of the forward pass (Dao et al. 2022, FlashAttention, appendix B.4)
BACKWARD_PRODUCTS = 5 / 2


def _attention_backward(chip: Chip, kernel: Kernel, a: Attention) -> Parts:
    """Its products at the rate of those of the forward kernel. FlashAttention-3 reaches 0.87 of
    that (Shah et al. 2024, figures 5 and 6, recalled): the best case.
    """
    share = 1 / BACKWARD_PRODUCTS
    moved = np.array([kernel.traffic.total * share])
    near = np.array([kernel.traffic.near.total * share])
    parts = attention_parts(chip, kernel.precision, [a], moved, near).first()
    return Parts(*(column * BACKWARD_PRODUCTS for column in parts.columns()))


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one launch of ``kernel``; every part a number."""
    if kernel.slower != 1:
        best = kernel_time(chip, replace(kernel, slower=1.0))
        more = best.total * (kernel.slower - 1)
        return replace(best, total=best.total + more, overhead=best.overhead + more)
    launch = chip.constant(GpuConstant.LAUNCH_S)
    if kernel.attention is not None:
        return _attention(chip, (kernel,)).first()
    if kernel.backward_of is not None:
        return _attention_backward(chip, kernel, kernel.backward_of)
    if kernel.experts is not None:
        parts = experts_parts(
            chip, kernel.precision, (kernel.experts,), kernel.operand_bits / 8
        ).first()
        narrowing = _narrowing_s(chip, rates(chip, kernel.precision), kernel)
        return replace(parts, total=parts.total + narrowing, overhead=parts.overhead + narrowing)
    if not kernel.products:
        return stream_parts(chip, kernel)
    r = rates(chip, kernel.precision)
    vector = _vector_s(kernel, r)
    macs = max(sum(p.macs for p in kernel.products), 1)
    moved = [kernel.traffic.total * p.macs / macs / p.repeat for p in kernel.products]
    parts = _quickest(chip, kernel, kernel.products, moved)
    repeat = np.array([p.repeat for p in kernel.products], dtype=np.float64)
    total, matrix, _, off_chip, l2, overhead = (float((a * repeat).sum()) for a in parts.columns())
    exposed = max(0.0, vector - max(matrix, off_chip, l2))
    narrowing = _narrowing_s(chip, r, kernel)
    return Parts(
        total + exposed + launch + narrowing,
        matrix,
        vector,
        off_chip,
        l2,
        overhead + launch + narrowing,
    )


def _narrowing_s(chip: Chip, r: Rates, kernel: Kernel) -> float:
    return float(quantize_time(chip, r, kernel, kernel.quantizes)) if kernel.quantizes else 0.0


def _vector_s(kernel: Kernel, r: Rates) -> float:
    ops = kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS
    cycles = vector_cycles(ops, r.vector_ops_per_s / r.clock_hz, kernel.chain, pairs=True)
    return cycles / r.clock_hz


# an element of 16 bits is read for the largest, read again, and written in 8 bits
QUANTIZE_BYTES = 5


def quantize_time(chip: Chip, r: Rates, kernel: Kernel, elements: Any) -> Any:
    """Seconds to scale and narrow the activations of a product that arrives in 16 bits (dynamic
    quantization). One scale for all needs their maximum first; one for each block does not.
    """
    fixed = GpuConstant.BLOCK_QUANTIZE_S if kernel.blocked else GpuConstant.QUANTIZE_S
    return chip.constant(fixed) + QUANTIZE_BYTES * elements / r.memory_bytes_per_s


_FRACTION = {
    KernelFamily.SOFTMAX: GpuConstant.SOFTMAX_FRACTION,
    KernelFamily.NORM: GpuConstant.NORM_FRACTION,
    KernelFamily.STREAM: GpuConstant.STREAM_FRACTION,
}
# as PyTorch's kernels do rows (aten/src/ATen/native/cuda/layer_norm_kernel.cu and SoftMax.cu,
# 2.1): a softmax of at most this many elements stays in a warp's registers and reads them once
WARP_ROW = 1024
# else a row is read again - by a norm once, by a softmax twice - and by so many blocks at a time on
# a multiprocessor, whose rows are still in L2 if they fit the share of it that counts
_AGAIN = {KernelFamily.NORM: (1, 16), KernelFamily.SOFTMAX: (2, 2), KernelFamily.STREAM: (0, 0)}


def stream_parts(chip: Chip, kernel: Kernel) -> Parts:
    """A kernel without products: bytes off chip at what such kernels reach, and a cost for each
    round of rows.
    """
    r = rates(chip, kernel.precision)
    off_chip = _streamed_s(chip, kernel, r)
    vector = _vector_s(kernel, r)
    l2 = kernel.traffic.near.total / r.l2_bytes_per_s
    rounds = kernel.rows / r.units * chip.constant(GpuConstant.ROW_S)
    overhead = chip.constant(GpuConstant.LAUNCH_S) + rounds
    total = float(norm(off_chip, vector, l2)) + overhead
    return Parts(total, 0.0, vector, off_chip, l2, overhead)


def _streamed_s(chip: Chip, kernel: Kernel, r: Rates) -> float:
    """Seconds of the bytes off chip: once at what rows of the family reach, or as often as they are
    read at what any stream does, whichever is longer.
    """
    family, moved = kernel.family, float(kernel.traffic.total)
    if not moved:
        return 0.0
    plain = moved / (r.peak_memory_bytes_per_s * chip.constant(GpuConstant.STREAM_FRACTION))
    if family is KernelFamily.SOFTMAX and kernel.row_elements <= WARP_ROW:
        return plain
    again, blocks = _AGAIN[family]
    row_bytes = kernel.row_elements * kernel.operand_bits / 8
    held = min(kernel.rows, blocks * r.units) * row_bytes <= SHARE * r.l2_bytes
    more = 0.0 if held else again * kernel.traffic.off_chip.inputs / moved
    # shares were fitted to elements of 16 bits, of which the kernels do so many a second
    share = chip.constant(_FRACTION[family]) * max(1.0, kernel.operand_bits / 16)
    once = moved / (r.peak_memory_bytes_per_s * share)
    return max(once, plain * (1 + more))


def parts_of(chip: Chip, kernels: Sequence[Kernel]) -> Parts:
    """Many kernels of one family and precision at once, as ``kernel_time`` gives them one by
    one.
    """
    first = kernels[0]
    width = first.operand_bits / 8
    if first.attention is not None:
        return _attention(chip, kernels)
    if first.experts is not None and not any(k.quantizes for k in kernels):
        experts = [k.experts for k in kernels if k.experts]
        return experts_parts(chip, first.precision, experts, width)
    if not all(len(k.products) == 1 and not k.vector_ops for k in kernels):
        each = (kernel_time(chip, k).columns() for k in kernels)
        return Parts(*np.array(list(each), dtype=np.float64).T)
    products = [p for k in kernels for p in k.products]
    parts = _quickest(chip, first, products, [k.traffic.total for k in kernels])
    beside = np.full(len(kernels), chip.constant(GpuConstant.LAUNCH_S))
    if first.quantizes:
        elements = np.array([float(k.quantizes) for k in kernels])
        beside = beside + quantize_time(chip, rates(chip, first.precision), first, elements)
    return replace(parts, total=parts.total + beside, overhead=parts.overhead + beside)
