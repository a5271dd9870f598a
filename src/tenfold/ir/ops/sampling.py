"""Sampling: pictures resized, and looked into at places and regions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, floordiv, simplify
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    everything,
    per_output,
    space_of,
    widen,
)
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.ops.window import GATHER, window_row
from tenfold.ir.sharding import Split, by_loops
from tenfold.ir.space import ALL, DATA, Space, at, window
from tenfold.ir.table import Call, Context, OpRow


def _resize_axes(attrs: Any, rank: int) -> list[int]:
    return [a % rank for a in attrs.get("axes") or range(rank)]


def _resize_shape(call: Call) -> Sequence[Shape]:
    s = list(call.shape(0))
    axes = _resize_axes(call.op.attrs, len(s))
    scales, sizes = call.numbers(2), call.numbers(3)
    if sizes is not None and call.has(3):
        target = _aspect(call.op.attrs, [s[a] for a in axes], [simplify(n) for n in sizes])
        for a, d in zip(axes, target, strict=True):
            s[a] = d
    elif scales is not None and call.has(2) and scales:
        for a, f in zip(axes, scales, strict=True):
            s[a] = _scaled(s[a], f)
    else:
        for a in axes:
            s[a] = call.unknown_dim(f"resize_{a}")
    return [tuple(s)]


def _scaled(d: Dim, factor: Any) -> Dim:
    if isinstance(d, int) and isinstance(factor, (float, int, np.number)):
        return int(np.floor(d * float(factor)))
    import sympy

    exact = (
        Fraction(float(factor)).limit_denominator(4096)
        if isinstance(factor, (float, int, np.number))
        else factor
    )
    ratio = (
        sympy.Rational(exact.numerator, exact.denominator) if isinstance(exact, Fraction) else exact
    )
    return (
        floordiv(simplify(d * ratio.p), int(ratio.q))
        if ratio.is_Rational
        else simplify(sympy.floor(d * ratio))
    )


def _aspect(attrs: Any, have: list[Any], want: list[Any]) -> list[Any]:
    """Sizes under keep_aspect_ratio_policy: one common scale, the smallest or the largest."""
    policy = attrs.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return want
    ratios = [w / h for w, h in zip(want, have, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(np.floor(scale * h + 0.5)) for h in have]


def _coordinates(mode: str, out: int, extent: int, scale: float, roi: tuple[float, float]) -> Array:
    """Where each output position lies on the input axis (ONNX Resize,
    coordinate_transformation_mode).
    """
    x = np.arange(out, dtype=np.float64)
    match mode:
        case "half_pixel":
            return (x + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            adjustment = out / (scale * extent)
            return extent / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if out > 1 else np.full(out, -0.5)
        case "align_corners":
            length = scale * extent
            return x * (extent - 1) / (length - 1) if length != 1 else np.zeros(out)
        case "asymmetric":
            return x / scale
        case "tf_half_pixel_for_nn":
            return (x + 0.5) / scale
        case "tf_crop_and_resize":
            start, end = roi
            if out > 1:
                return start * (extent - 1) + x * (end - start) * (extent - 1) / (out - 1)
            return np.full(out, 0.5 * (start + end) * (extent - 1))
    raise ValueError(f"unknown coordinate_transformation_mode '{mode}'")


def _kernel(mode: str, attrs: Any, distance: Array) -> Array:
    d = np.abs(distance)
    if mode == "linear":
        return np.clip(1 - d, 0, None)
    a = attrs.get("cubic_coeff_a", -0.75)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _axis_weights(attrs: Any, mode: str, at: Array, extent: int, scale: float) -> Array:
    """[out, in] interpolation weights along one axis; rows sum to one."""
    out = at.size
    weights = np.zeros((out, extent))
    rows = np.arange(out)
    if mode == "nearest":
        how = attrs.get("nearest_mode", "round_prefer_floor")
        pick = {
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
            "floor": np.floor(at),
            "ceil": np.ceil(at),
            "simple": np.floor(at) if scale >= 1 else np.ceil(at),
        }[how]
        weights[rows, np.clip(pick, 0, extent - 1).astype(int)] = 1.0
        return weights
    shrink = min(scale, 1.0) if attrs.get("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / shrink
    base = np.floor(at).astype(int)
    for offset in range(int(-np.ceil(reach)), int(np.ceil(reach)) + 2):
        index = base + offset
        w = _kernel(mode, attrs, (index - at) * shrink)
        if attrs.get("exclude_outside", 0):
            w = np.where((index >= 0) & (index < extent), w, 0.0)
        np.add.at(weights, (rows, np.clip(index, 0, extent - 1)), w)
    return weights / weights.sum(axis=1, keepdims=True)


def _resize(
    ctx: Context,
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:
    axes = _resize_axes(ctx.attrs, x.ndim)
    have = [x.shape[a] for a in axes]
    if sizes is not None and sizes.size:
        want = _aspect(ctx.attrs, have, sizes.reshape(-1).astype(int).tolist())
        factors = [w / h for w, h in zip(want, have, strict=True)]
        if ctx.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            ratios = [s / h for s, h in zip(sizes.reshape(-1).tolist(), have, strict=True)]
            factors = [
                min(ratios) if ctx.get("keep_aspect_ratio_policy") == "not_larger" else max(ratios)
            ] * len(axes)
    else:
        factors = [float(f) for f in (scales.reshape(-1) if scales is not None else [])]
        want = [int(np.floor(h * f)) for h, f in zip(have, factors, strict=True)]
    mode, transform = (
        ctx.get("mode", "nearest"),
        ctx.get("coordinate_transformation_mode", "half_pixel"),
    )
    y, outside = widen(x), np.zeros((1,) * x.ndim, bool)
    exact = x.dtype.kind in "iub"
    y = y.astype(np.float64) if exact or x.dtype == np.float64 else y
    for j, a in enumerate(axes):
        region = (
            (float(roi[j]), float(roi[j + len(axes)]))
            if roi is not None and roi.size
            else (0.0, 1.0)
        )
        at = _coordinates(transform, want[j], have[j], factors[j], region)
        if transform == "tf_crop_and_resize":
            out_here = (at < 0) | (at > have[j] - 1)
            outside = outside | out_here.reshape([-1 if i == a else 1 for i in range(x.ndim)])
        if want[j] == have[j] and factors[j] == 1 and transform != "tf_crop_and_resize":
            continue
        weights = _axis_weights(ctx.attrs, mode, at, have[j], factors[j]).astype(y.dtype)
        y = np.moveaxis(np.tensordot(weights, y, axes=(1, a)), 0, a)
    if transform == "tf_crop_and_resize" and outside.any():
        y = np.where(outside, ctx.get("extrapolation_value", 0.0), y)
    return np.rint(y).astype(x.dtype) if exact else y.astype(x.dtype, copy=False)


def _grid_sample_shape(call: Call) -> Sequence[Shape]:
    x, grid = call.shape(0), call.shape(1)
    return [(x[0], x[1], *grid[1:-1])]


def _affine_grid_shape(call: Call) -> Sequence[Shape]:
    size = call.numbers(1)
    if size is None:
        dims: list[Dim] = [call.unknown_dim(f"grid_{i}") for i in range(call.target_rank(1))]
    else:
        dims = [simplify(d) for d in size]
    return [(dims[0], *dims[2:], len(dims) - 2)]


def _roi_shape(call: Call) -> Sequence[Shape]:
    return [
        (
            call.shape(1)[0],
            call.shape(0)[1],
            call.attr("output_height", 1),
            call.attr("output_width", 1),
        )
    ]


def _max_roi_shape(call: Call) -> Sequence[Shape]:
    return [(call.shape(1)[0], call.shape(0)[1], *call.attr("pooled_shape"))]


def _max_roi_pool(ctx: Context, x: Array, rois: Array) -> Array:
    """Maximum over each cell of a grid laid on each region (Girshick, Fast R-CNN 2015, section
    2.1).
    """
    ph, pw = ctx.get("pooled_shape")
    scale = ctx.get("spatial_scale", 1.0)
    y = np.zeros((rois.shape[0], x.shape[1], ph, pw), x.dtype)
    for r, roi in enumerate(rois):
        image = x[int(roi[0])]
        x1, y1, x2, y2 = (int(np.floor(v * scale + 0.5)) for v in roi[1:])
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in itertools.product(range(ph), range(pw)):
            top, bottom = (
                y1 + int(np.floor(i * height / ph)),
                y1 + int(np.ceil((i + 1) * height / ph)),
            )
            left, right = (
                x1 + int(np.floor(j * width / pw)),
                x1 + int(np.ceil((j + 1) * width / pw)),
            )
            cell = image[
                :, max(top, 0) : min(bottom, x.shape[2]), max(left, 0) : min(right, x.shape[3])
            ]
            if cell.size:
                y[r, :, i, j] = cell.max(axis=(1, 2))
    return y


def _resize_space(call: Call) -> Space:
    """Windows along the axes whose extent changes; a region, where it is given, shifts them all."""
    x, out = call.shape(0), call.out()
    whole = call.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    map_ = tuple(
        at(i) if d == e and not whole else window(i)
        for i, (d, e) in enumerate(zip(x, out, strict=True))
    )
    return space_of(call, map_, everything(call, 1) if whole else None)


def _resize_splits(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By axes that stay as they are, where sizes do not name the whole."""
    return iter(()) if call.has(3) else by_loops(row, call, ways)


def _grid_sample_space(call: Call) -> Space:
    """Pictures looked up where the grid says, which has a place for each position."""
    rank = len(call.shape(0))
    grid = (at(0), *(at(i) for i in range(2, rank)), ALL)
    return space_of(call, (at(0), at(1), *(DATA for _ in range(2, rank))), grid)


def _affine_grid_space(call: Call) -> Space:
    return space_of(call, (at(0), ALL, ALL))


def _roi_space(call: Call) -> Space:
    """Each region looks into the picture that it names."""
    each = (at(0),)
    return space_of(call, (DATA, at(1), DATA, DATA), (at(0), ALL), each)


ROWS: tuple[OpRow, ...] = (
    window_row("resize", (1, 4), _resize_shape, _resize, per_output(4), GATHER, antialias=int,
        axes=tuple, mode=str, coordinate_transformation_mode=str, cubic_coeff_a=float,
        exclude_outside=int, extrapolation_value=float, keep_aspect_ratio_policy=str,
        nearest_mode=str, space=_resize_space, grows=True, splits=_resize_splits),
    window_row("grid_sample", (2, 2), _grid_sample_shape, onnx_reference("GridSample"),
        per_output(8), GATHER, align_corners=int, mode=str, padding_mode=str,
        space=_grid_sample_space),
    window_row("affine_grid", (2, 2), _affine_grid_shape, onnx_reference("AffineGrid"),
        per_output(4), align_corners=int, space=_affine_grid_space),
    window_row("roi_align", (3, 3), _roi_shape, onnx_reference("RoiAlign"), per_output(16),
        GATHER, coordinate_transformation_mode=str, mode=str, output_height=int, output_width=int,
        sampling_ratio=int, spatial_scale=float, space=_roi_space),
    window_row("max_roi_pool", (2, 2), _max_roi_shape, _max_roi_pool, per_output(16), GATHER,
        pooled_shape=tuple, spatial_scale=float, space=_roi_space),
)  # fmt: skip
