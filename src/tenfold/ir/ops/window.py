"""Pooling, resizing and sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, add, floordiv, mul, prod, simplify
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    per_output,
    same_dtype,
    space_of,
    widen,
)
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.sharding import SplitRule, by_loops
from tenfold.ir.space import ALL, DATA, Space, at, folded, window
from tenfold.ir.table import Call, Context, Lowering, OpRow, Work, attributes
from tenfold.ir.windows import window_extent, window_pads


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


def windows_of(attrs: Any, x: Array, fill: Any) -> tuple[Array, list[int], list[int]]:
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
    windows, out, _ = windows_of(ctx.attrs, wide, lowest)
    y = windows.max(axis=tuple(range(-rank, 0))).astype(x.dtype)
    if ctx.outputs < 2:
        return [y]
    positions = np.arange(np.prod(x.shape[2:]), dtype=np.int64).reshape(1, 1, *x.shape[2:])
    where, _, _ = windows_of(ctx.attrs, positions, -1)
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


def counted(attrs: Any, shape: Sequence[int], out: Sequence[int], pads: Sequence[int]) -> Array:
    """How many numbers each window of an average counts, [1, 1, out...]."""
    rank = len(out)
    if not attrs.get("count_include_pad", 0):
        ones, _, _ = windows_of(attrs, np.ones((1, 1, *shape[2:]), np.float32), 0)
        return np.asarray(ones.sum(axis=tuple(range(-rank, 0))))
    kernel = attrs.get("kernel_shape")
    strides = attrs.get("strides") or (1,) * rank
    dilations = attrs.get("dilations") or (1,) * rank
    count = np.ones(())
    for i in range(rank):  # taps beyond the explicit padding (ceil_mode) do not count
        first = np.arange(out[i])[:, None] * strides[i] + np.arange(kernel[i])[None] * dilations[i]
        inside = (first < shape[2 + i] + pads[i] + pads[i + rank]).sum(1)
        count = np.multiply.outer(count, inside)
    return count.reshape(1, 1, *out)


def _average_pool(ctx: Context, x: Array) -> Array:
    wide = widen(x)
    axes = tuple(range(2 - x.ndim, 0))
    windows, out, pads = windows_of(ctx.attrs, wide, 0)
    return (windows.sum(axis=axes) / counted(ctx.attrs, x.shape, out, pads)).astype(x.dtype)


def _lp_pool(ctx: Context, x: Array) -> Array:
    p, rank = ctx.get("p", 2), x.ndim - 2
    windows, _, _ = windows_of(ctx.attrs, np.abs(widen(x)) ** p, 0)
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


def window_row(
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
    splits: SplitRule = by_loops,
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
        splits=splits,
    )


def _pool_dtypes(call: Call) -> list[DType]:
    return [call.input(0).dtype, DType.I64][: len(call.op.outputs)]


GATHER = Lowering.GATHER


ROWS: tuple[OpRow, ...] = (
    window_row("max_pool", (1, 1), _pool_shape, _max_pool, _pool_work, dtypes=_pool_dtypes,
        storage_order=int, **_POOL, space=_pool_space),
    window_row("average_pool", (1, 1), _pool_shape, _average_pool, _pool_work,
        count_include_pad=int, **_POOL, space=_pool_space),
    window_row("lp_pool", (1, 1), _pool_shape, _lp_pool, _pool_work, p=int, **_POOL,
        space=_pool_space),
    window_row("max_unpool", (2, 3), _max_unpool_shape, _max_unpool, per_output(1), GATHER,
        **_POOL, space=_unpool_space),
    window_row("col2im", (3, 3), _col2im_shape, onnx_reference("Col2Im"), per_output(1),
        dilations=tuple, pads=tuple, strides=tuple, space=_col2im_space),
)  # fmt: skip
