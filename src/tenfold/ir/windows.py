"""Geometry of sliding windows: convolutions, pools, and what gives their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.ir.dims import Dim, add, ceildiv, floordiv, mul, sub


def window_pads(
    attrs: Mapping[str, Any], spatial: Sequence[Dim], kernel: Sequence[Dim]
) -> list[Dim]:
    """Padding (begins then ends) of a sliding window, from ``pads`` or ``auto_pad``."""
    rank = len(spatial)
    mode = attrs.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return list(attrs.get("pads") or [0] * 2 * rank)
    if mode == "VALID":
        return [0] * 2 * rank
    strides = attrs.get("strides") or (1,) * rank
    dilations = attrs.get("dilations") or (1,) * rank
    begins: list[Dim] = []
    ends: list[Dim] = []
    for d, k, s, t in zip(spatial, kernel, strides, dilations, strict=True):
        need = sub(add(mul(sub(ceildiv(d, s), 1), s), add(mul(sub(k, 1), t), 1)), d)
        total: Dim = max(0, need) if isinstance(need, int) else need
        small = floordiv(total, 2)
        large = sub(total, small)
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def window_extent(
    dim: Dim, kernel: Dim, stride: int, dilation: int, pads: Dim, ceil_mode: bool = False
) -> Dim:
    """Number of window positions along one axis."""
    room = sub(add(dim, pads), add(mul(sub(kernel, 1), dilation), 1))
    return add((ceildiv if ceil_mode else floordiv)(room, stride), 1)
