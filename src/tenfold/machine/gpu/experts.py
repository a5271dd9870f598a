"""Mixture of experts on GPUs: two grouped products in which every expert pads its own tokens to
whole tiles.

Weights of every expert that has tokens are read once. Tokens are copied to their experts and the
results added up in order; that and the routing are kernels of their own, which also cost something
for each expert.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenfold.chips import Chip, GpuConstant, MatrixPrecision
from tenfold.machine.gpu.rates import HALF_AREA, K_STEP, rates
from tenfold.machine.kernel import Experts
from tenfold.machine.roofline import Parts, norm

_TILES = ((16, 128), (32, 128), (64, 128), (128, 128), (128, 256), (64, 256))
_TM, _TN = np.array(_TILES, dtype=np.float64).T


def experts_parts(
    chip: Chip, precision: MatrixPrecision, layers: Sequence[Experts], width: float
) -> Parts:
    """Time of each layer, launch included; ``width`` is the bytes an element takes."""
    r = rates(chip, precision)
    names = ("tokens", "hidden", "inner", "experts")
    tokens, hidden, inner, experts = (
        np.array([getattr(e, n) for e in layers], dtype=np.float64) for n in names
    )
    routed = np.array([sum(e.counts) for e in layers], dtype=np.float64)
    active = np.array([sum(c > 0 for c in e.counts) for e in layers], dtype=np.float64)
    gates = np.array([2.0 if e.gated else 1.0 for e in layers])
    row_tiles = np.array([np.ceil(np.array(e.counts)[:, None] / _TM).sum(axis=0) for e in layers])
    bandwidth = r.peak_memory_bytes_per_s * chip.constant(GpuConstant.MOE_MEMORY_FRACTION)
    area = _TM * _TN
    efficiency = (
        chip.constant(GpuConstant.MOE_MATRIX_FRACTION)
        * area
        / (area + HALF_AREA * chip.constant(GpuConstant.TILE_FACTOR))
    )
    total = np.zeros_like(row_tiles)
    columns = []
    for n, k in ((gates * inner, hidden), (hidden, inner)):
        tiles = row_tiles * np.ceil(n[:, None] / _TN)
        waves = np.maximum(tiles / r.units, 1)
        matrix = (
            waves * area * np.ceil(k[:, None] / K_STEP) * K_STEP / (r.macs_per_unit_s * efficiency)
        )
        l2 = tiles * (_TM + _TN) * k[:, None] * width / r.l2_bytes_per_s
        memory = (width * (active * n * k + routed * (n + k)) / bandwidth)[:, None] * np.ones_like(
            area
        )
        overhead = waves * chip.constant(GpuConstant.MOE_WAVE_S)
        total = total + norm(matrix, l2, memory) + overhead
        columns.append((matrix, memory, l2, overhead))
    best = np.arange(len(layers)), np.argmin(total, axis=1)
    matrix, memory, l2, overhead = (sum(c[i] for c in columns)[best] for i in range(4))
    moving = (
        chip.constant(GpuConstant.MOE_TOKEN_FACTOR)
        * 2
        * width
        * (tokens + routed)
        * hidden
        / bandwidth
    )
    fixed = (
        chip.constant(GpuConstant.MOE_LAUNCH_S) + chip.constant(GpuConstant.MOE_EXPERT_S) * experts
    )
    return Parts(
        total[best] + moving + fixed,
        matrix,
        np.zeros(len(layers)),
        memory + moving,
        l2,
        overhead + fixed,
    )
