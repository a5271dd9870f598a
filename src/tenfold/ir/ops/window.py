"""Pooling, resizing and sampling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, add, floordiv, mul, prod, simplify
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    everything,
    per_output,
    same_dtype,
    space_of,
    widen,
)
from tenfold.ir.ops.contraction import window_extent, window_pads
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.space import ALL, DATA, Space, at, folded, window
from tenfold.ir.table import Call, Context, Lowering, OpRow, Work, attributes

# --- pooling -----------------------------------------------------------------------------


def _pool_geometry(attrs: Any, spatial: Sequence[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Output extents and pads. A last window that starts in the padding is dropped (ONNX,
    ceil_mode).
    """
    kernel = attrs.get("kernel_shape")
    rank = len(kernel)
    if len(spatial) != rank:
        raise ValueError(f"pooling window {kernel} does not fit spatial extents {tuple(spatial)}")
    strides, dilations = attrs.get("strides") or (1,) * rank, attrs.get("dilations") or (1,) * rank
    pads = window_pads(attrs, spatial, kernel)
    ceil = bool(attrs.get("ceil_mode", 0))
    out: list[Dim] = []
    for i in range(rank):
        n = window_extent(
            spatial[i], kernel[i], strides[i], dilations[i], add(pads[i], pads[i + rank]), ceil
        )
        if (
            ceil
            and isinstance(n, int)
            and isinstance(spatial[i], int)
            and (n - 1) * strides[i] >= spatial[i] + pads[i]
        ):
            n -= 1
        if isinstance(n, int) and n < 1:
            raise ValueError(f"pooling window {kernel} has no room in {tuple(spatial)}")
        out.append(n)
    return out, pads


def _pool_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    out, _ = _pool_geometry(call.op.attrs, s[2:])
    return [(*s[:2], *out)] * len(call.op.outputs)


def _pool_work(call: Call) -> Work:
    taps = prod(call.attr("kernel_shape"))
    return Work(
        vector_flops=mul(prod(call.out()), taps), reads=all_reads(call), writes=all_writes(call)
    )


def _windows(attrs: Any, x: Array, fill: Any) -> tuple[Array, list[int], list[int]]:
    """[N, C, out…, kernel…] view of the padded input, with the output extents and pads."""
    kernel = attrs.get("kernel_shape")
    rank = len(kernel)
    strides, dilations = attrs.get("strides") or (1,) * rank, attrs.get("dilations") or (1,) * rank
    out_dims, pad_dims = _pool_geometry(attrs, x.shape[2:])
    out, pads = [int(d) for d in out_dims], [int(p) for p in pad_dims]
    room = [(out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(rank)]
    after = [max(pads[i + rank], room[i] - x.shape[2 + i] - pads[i]) for i in range(rank)]
    padded = np.pad(
        x, [(0, 0), (0, 0), *((pads[i], after[i]) for i in range(rank))], constant_values=fill
    )
    views = np.lib.stride_tricks.sliding_window_view(
        padded,
        tuple((kernel[i] - 1) * dilations[i] + 1 for i in range(rank)),
        axis=tuple(range(2, 2 + rank)),
    )
    at = (
        slice(None),
        slice(None),
        *(slice(None, (out[i] - 1) * strides[i] + 1, strides[i]) for i in range(rank)),
        *(slice(None, None, d) for d in dilations),
    )
    return views[at], out, pads


def _max_pool(ctx: Context, x: Array) -> Sequence[Array]:
    wide = widen(x)
    lowest = -np.inf if wide.dtype.kind == "f" else np.iinfo(wide.dtype).min
    rank = x.ndim - 2
    windows, out, _ = _windows(ctx.attrs, wide, lowest)
    y = windows.max(axis=tuple(range(-rank, 0))).astype(x.dtype)
    if ctx.outputs < 2:
        return [y]
    positions = np.arange(np.prod(x.shape[2:]), dtype=np.int64).reshape(1, 1, *x.shape[2:])
    where, _, _ = _windows(ctx.attrs, positions, -1)
    flat = windows.reshape(*windows.shape[: 2 + rank], -1)
    index = np.take_along_axis(
        np.broadcast_to(where.reshape(1, 1, *out, -1), flat.shape),
        flat.argmax(-1)[..., None],
        axis=-1,
    )[..., 0]
    if ctx.get("storage_order", 0) == 1 and rank == 2:
        h, w = x.shape[2:]
        index = (index % w) * h + index // w
    base = np.arange(x.shape[0] * x.shape[1], dtype=np.int64).reshape(*x.shape[:2], *(1,) * rank)
    return [y, index + base * int(np.prod(x.shape[2:]))]


def _average_pool(ctx: Context, x: Array) -> Array:
    wide = widen(x)
    rank = x.ndim - 2
    axes = tuple(range(-rank, 0))
    windows, out, pads = _windows(ctx.attrs, wide, 0)
    if not ctx.get("count_include_pad", 0):
        counted, _, _ = _windows(ctx.attrs, np.ones((1, 1, *x.shape[2:]), wide.dtype), 0)
        return (windows.sum(axis=axes) / counted.sum(axis=axes)).astype(x.dtype)
    kernel = ctx.get("kernel_shape")
    strides = ctx.get("strides") or (1,) * rank
    dilations = ctx.get("dilations") or (1,) * rank
    count = np.ones(())
    for i in range(rank):  # taps beyond the explicit padding (ceil_mode) do not count
        first = np.arange(out[i])[:, None] * strides[i] + np.arange(kernel[i])[None] * dilations[i]
        inside = (first < x.shape[2 + i] + pads[i] + pads[i + rank]).sum(1)
        count = np.multiply.outer(count, inside)
    return (windows.sum(axis=axes) / count.reshape(1, 1, *out)).astype(x.dtype)


def _lp_pool(ctx: Context, x: Array) -> Array:
    p, rank = ctx.get("p", 2), x.ndim - 2
    windows, _, _ = _windows(ctx.attrs, np.abs(widen(x)) ** p, 0)
    return (windows.sum(axis=tuple(range(-rank, 0))) ** (1.0 / p)).astype(x.dtype)


def _max_unpool_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    given = call.numbers(2)
    if call.has(2):
        return (
            [tuple(int(d) for d in given)]
            if given is not None
            else [tuple(call.unknown_dim("unpool") for _ in s)]
        )
    kernel = call.attr("kernel_shape")
    rank = len(kernel)
    strides, pads = call.attr("strides") or (1,) * rank, call.attr("pads") or (0,) * 2 * rank
    out = [
        add(mul(add(s[2 + i], -1), strides[i]), kernel[i] - pads[i] - pads[i + rank])
        for i in range(rank)
    ]
    return [(*s[:2], *out)]


def _max_unpool(ctx: Context, x: Array, index: Array, shape: Array | None = None) -> Array:
    natural = _unpooled(ctx, x)
    y = np.zeros(int(np.prod(natural)), x.dtype)
    y[index.reshape(-1).astype(np.int64)] = x.reshape(-1)
    y = y.reshape(natural)
    if shape is None:
        return y
    full = np.zeros(tuple(int(d) for d in shape), x.dtype)
    full[tuple(slice(0, d) for d in natural)] = y
    return full


def _unpooled(ctx: Context, x: Array) -> tuple[int, ...]:
    kernel = ctx.get("kernel_shape")
    rank = len(kernel)
    strides, pads = ctx.get("strides") or (1,) * rank, ctx.get("pads") or (0,) * 2 * rank
    return (
        *x.shape[:2],
        *(
            (x.shape[2 + i] - 1) * strides[i] + kernel[i] - pads[i] - pads[i + rank]
            for i in range(rank)
        ),
    )


# --- resize -----------------------------------------------------------------------------


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


# --- sampling ---------------------------------------------------------------------------


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


def _col2im_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    image, block = call.numbers(1), call.numbers(2)
    dims = (
        [simplify(d) for d in image]
        if image is not None
        else [call.unknown_dim(f"col2im_{i}") for i in range(call.target_rank(1))]
    )
    channels = (
        floordiv(s[1], prod(int(b) for b in block))
        if block is not None
        else call.unknown_dim("channels", s[1])
    )
    return [(s[0], channels, *dims)]


def _pool_space(call: Call) -> Space:
    rank = len(call.shape(0))
    return space_of(call, tuple(at(i) if i < 2 else window(i) for i in range(rank)))


def _unpool_space(call: Call) -> Space:
    """Each value goes to where, in the picture of its item and channel, it came from."""
    rank = len(call.shape(0))
    places = tuple(at(i) if i < 2 else DATA for i in range(rank))
    return space_of(call, places, places)


def _resize_space(call: Call) -> Space:
    """Windows along the axes whose extent changes; a region, where it is given, shifts them all."""
    x, out = call.shape(0), call.out()
    whole = call.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    map_ = tuple(
        at(i) if d == e and not whole else window(i)
        for i, (d, e) in enumerate(zip(x, out, strict=True))
    )
    return space_of(call, map_, everything(call, 1) if whole else None)


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


def _col2im_space(call: Call) -> Space:
    return space_of(call, (at(0), folded(1, 2), *(ALL for _ in call.shape(0)[2:])))


_POOL: dict[str, Any] = {
    "kernel_shape": tuple,
    "strides": tuple,
    "pads": tuple,
    "dilations": tuple,
    "auto_pad": str,
    "ceil_mode": int,
}


def _row(
    kind: str,
    arity: tuple[int, int],
    shapes: Any,
    evaluate: Any,
    work: Any,
    lowering: Lowering = Lowering.REDUCE,
    *,
    space: Any,
    grows: bool = False,
    dtypes: Any = same_dtype,
    **attrs: type,
) -> OpRow:
    return OpRow(
        kind=kind,
        arity=arity,
        attrs=attributes(**attrs),
        dtypes=dtypes,
        shapes=shapes,
        space=space,
        work=work,
        evaluate=evaluate,
        lowering=lowering,
        grows=grows,
    )


def _pool_dtypes(call: Call) -> list[DType]:
    return [call.input(0).dtype, DType.I64][: len(call.op.outputs)]


_GATHER = Lowering.GATHER

ROWS: tuple[OpRow, ...] = (
    _row("max_pool", (1, 1), _pool_shape, _max_pool, _pool_work, dtypes=_pool_dtypes,
        storage_order=int, **_POOL, space=_pool_space),
    _row("average_pool", (1, 1), _pool_shape, _average_pool, _pool_work, count_include_pad=int,
        **_POOL, space=_pool_space),
    _row("lp_pool", (1, 1), _pool_shape, _lp_pool, _pool_work, p=int, **_POOL,
        space=_pool_space),
    _row("max_unpool", (2, 3), _max_unpool_shape, _max_unpool, per_output(1), _GATHER, **_POOL,
        space=_unpool_space),
    _row("resize", (1, 4), _resize_shape, _resize, per_output(4), _GATHER, antialias=int,
        axes=tuple, mode=str, coordinate_transformation_mode=str, cubic_coeff_a=float,
        exclude_outside=int, extrapolation_value=float, keep_aspect_ratio_policy=str,
        nearest_mode=str, space=_resize_space, grows=True),
    _row("grid_sample", (2, 2), _grid_sample_shape, onnx_reference("GridSample"), per_output(8),
        _GATHER, align_corners=int, mode=str, padding_mode=str, space=_grid_sample_space),
    _row("affine_grid", (2, 2), _affine_grid_shape, onnx_reference("AffineGrid"), per_output(4),
        align_corners=int, space=_affine_grid_space),
    _row("roi_align", (3, 3), _roi_shape, onnx_reference("RoiAlign"), per_output(16), _GATHER,
        coordinate_transformation_mode=str, mode=str, output_height=int, output_width=int,
        sampling_ratio=int, spatial_scale=float, space=_roi_space),
    _row("max_roi_pool", (2, 2), _max_roi_shape, _max_roi_pool, per_output(16), _GATHER,
        pooled_shape=tuple, spatial_scale=float, space=_roi_space),
    _row("col2im", (3, 3), _col2im_shape, onnx_reference("Col2Im"), per_output(1),
        dilations=tuple, pads=tuple, strides=tuple, space=_col2im_space),
)  # fmt: skip
