"""Hardware-scheduled chips: tiles, waves and three rooflines.

A product is cut into thread-block tiles; the blocks run in waves over the multiprocessors; time is the
slowest of arithmetic, off-chip memory and L2, plus launch, plus a fixed cost a wave, plus a reduction
where k is split. Known to be naive: one block a multiprocessor, compulsory off-chip traffic only, no
throttling, no stream-K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tenfold.chips import Chip, MatrixPrecision
from tenfold.machine.kernel import QUERY_BLOCK, Attention, Kernel, Product

TILES = np.array(
    [(256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64), (256, 64), (64, 256), (32, 64), (32, 128), (64, 32),
     (16, 64), (16, 128)],
    dtype=np.float64,
)  # fmt: skip
SPLITS = np.array([1, 2, 3, 4, 6, 8], dtype=np.float64)
L2_BYTES_PER_CYCLE = 64.0  # per multiprocessor (NVIDIA A100 whitepaper: 5120 bytes a cycle over 80 slices, recalled)
HALF_AREA = 1024.0  # tile area at which the fixed cost of a tile equals tile_factor of its arithmetic
TRANSCENDENTAL_OPS = 4  # special function units run at a quarter of the fp32 rate


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the time of one kernel goes, in seconds; ``total`` is what it takes, not the sum of overlapping parts."""

    total: float
    matrix: float
    vector: float
    memory: float
    l2: float
    overhead: float


def _rates(chip: Chip, precision: MatrixPrecision) -> tuple[float, float, float, float]:
    """Clock, multiply-adds a cycle and multiprocessor, bytes a second off chip and from L2, after losses."""
    clock = chip.clock("time")
    assert chip.units is not None
    assert chip.memory_bytes_per_s is not None
    macs = chip.peak_flops[precision] / (2 * chip.units * clock)
    memory = chip.memory_bytes_per_s * chip.constant("memory_fraction")
    l2 = L2_BYTES_PER_CYCLE * chip.units * clock * chip.constant("l2_fraction")
    return clock, macs, memory, l2


def product_time(chip: Chip, precision: MatrixPrecision, p: Product, operand_bytes: float, moved_bytes: float) -> Parts:
    """Time of one repetition of ``p`` with the best tile and split of k."""
    clock, macs, memory, l2 = _rates(chip, precision)
    units = float(chip.units or 1)
    tm, tn = TILES[:, 0, None], TILES[:, 1, None]
    s = SPLITS[None, :]
    tiles = np.ceil(p.m / tm) * np.ceil(p.n / tn) * s * p.batch
    waves = np.ceil(tiles / units)
    area = tm * tn
    efficiency = chip.constant("matrix_fraction") * area / (area + HALF_AREA * chip.constant("tile_factor"))
    depth = np.ceil(p.k / s / 32) * 32
    arithmetic = waves * area * depth / (macs * efficiency) / clock
    partial = np.where(s > 1, 8 * s * p.m * p.n * p.batch, 0)
    off_chip = (moved_bytes + partial) / memory
    from_l2 = tiles * (tm + tn) * (p.k / s) * operand_bytes / l2
    slowest = np.maximum(np.maximum(arithmetic, off_chip), from_l2)
    overhead = waves * chip.constant("wave_s") + np.where(s > 1, chip.constant("reduction_s"), 0.0)
    total = slowest + overhead
    arithmetic, off_chip, from_l2, overhead = (np.broadcast_to(a, total.shape) for a in (arithmetic, off_chip, from_l2, overhead))
    i, j = np.unravel_index(int(np.argmin(total)), total.shape)
    return Parts(float(total[i, j]), float(arithmetic[i, j]), 0.0, float(off_chip[i, j]), float(from_l2[i, j]), float(overhead[i, j]))


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one launch of ``kernel``."""
    launch = chip.constant("launch_s")
    clock, _, memory, _ = _rates(chip, kernel.precision)
    vector = (kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS) / ((chip.vector_ops_per_cycle or 1.0) * clock)
    if kernel.attention is not None:
        return attention_time(chip, kernel.precision, kernel.attention, kernel.traffic.total)
    if not kernel.products:
        moved = kernel.traffic.total / memory
        return Parts(max(moved, vector) + launch, 0.0, vector, moved, 0.0, launch)
    macs = sum(p.macs for p in kernel.products)
    total, matrix, off_chip, l2, overhead = launch, 0.0, 0.0, 0.0, launch
    for p in kernel.products:
        share = kernel.traffic.total * p.macs / max(macs, 1) / p.repeat
        part = product_time(chip, kernel.precision, p, kernel.operand_bits / 8, share)
        total += part.total * p.repeat
        matrix += part.matrix * p.repeat
        off_chip += part.memory * p.repeat
        l2 += part.l2 * p.repeat
        overhead += part.overhead * p.repeat
    hidden = max(matrix, off_chip, l2)
    return Parts(total + max(0.0, vector - hidden), matrix, vector, off_chip, l2, overhead)


def attention_time(chip: Chip, precision: MatrixPrecision, a: Attention, moved_bytes: float) -> Parts:
    """Fused attention (Dao 2023, FlashAttention-2): scores never leave the chip.

    Prefill runs blocks of 128 queries over the multiprocessors, each with a fixed cost; decode streams
    keys and values once, one block a sequence and key-value head.
    """
    clock, macs, memory, _ = _rates(chip, precision)
    units = chip.units or 1
    launch = chip.constant("attention_launch_s")
    moved = moved_bytes / memory
    if a.q_len == 1:
        blocks = a.batch * a.kv_heads
        total = launch + moved + blocks / units * chip.constant("decode_block_s")
        return Parts(total, 0.0, 0.0, moved, 0.0, total - moved)
    blocks = a.batch * a.heads * math.ceil(a.q_len / QUERY_BLOCK)
    rounds = blocks / units if blocks > 4 * units else math.ceil(blocks / units)
    fraction = a.computed
    scores = min(a.q_len, QUERY_BLOCK) * a.kv_len * fraction
    matrix = rounds * 2 * scores * a.head_dim / (macs * chip.constant("attention_fraction")) / clock
    fixed = rounds * chip.constant("attention_block_s")
    vector = a.batch * a.heads * a.q_len * a.kv_len * fraction * TRANSCENDENTAL_OPS / ((chip.vector_ops_per_cycle or 1.0) * clock)
    return Parts(max(matrix, moved, vector) + fixed + launch, matrix, vector, moved, 0.0, fixed + launch)
