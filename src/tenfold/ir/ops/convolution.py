"""Convolutions: products over windows, straight, transposed and deformed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, add, floordiv, mul, prod, sub
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    always,
    contradict,
    need_shape,
    same_dtype,
    space_of,
    widen,
)
from tenfold.ir.ops.contraction import CONTRACTION, zero_point
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.sharding import Cut, Split, SplitRule, but_along, by_sums
from tenfold.ir.space import ALL, DATA, ONE, Index, Map, Space, at, folded, window
from tenfold.ir.table import (
    Call,
    Context,
    Lowering,
    Matmul,
    OpRow,
    Rate,
    Work,
)
from tenfold.ir.windows import window_extent, window_pads


def _conv_geometry(call: Call) -> tuple[list[Dim], list[Dim], list[Dim]]:
    """Output spatial extents, kernel extents and pads of a convolution."""
    x, w = call.shape(0), call.shape(1)
    if len(x) != len(w) or len(x) < 3:
        raise ValueError(f"conv of input {x} and kernel {w}: ranks must agree and be 3 or more")
    group = _groups(call, w[0], "outputs")
    if isinstance(x[1], int) and isinstance(w[1], int) and x[1] != w[1] * group:
        raise ValueError(
            f"conv of input {x} with kernel {w} in {group} groups: {x[1]} channels, needs"
            f" {w[1] * group}"
        )
    spatial, kernel = list(x[2:]), list(w[2:])
    rank = len(spatial)
    strides, dilations = call.attr("strides") or (1,) * rank, call.attr("dilations") or (1,) * rank
    pads = window_pads(call.op.attrs, spatial, kernel)
    out = [
        window_extent(spatial[i], kernel[i], strides[i], dilations[i], add(pads[i], pads[i + rank]))
        for i in range(rank)
    ]
    if any(isinstance(d, int) and d < 1 for d in out):
        raise ValueError(
            f"conv of input {x} with kernel {w}: no room for the kernel, output would be {out}"
        )
    return out, kernel, pads


def _groups(call: Call, channels: Dim, what: str) -> int:
    group = int(call.attr("group", 1))
    if group < 1 or (isinstance(channels, int) and channels % group):
        raise ValueError(
            f"{call.op.kind} in {group} groups: they must divide the {channels} {what}"
        )
    return group


def _conv_shape(bias: int | None) -> Callable[[Call], Sequence[Shape]]:
    """The rule of a convolution whose input ``bias``, if any, is one number for each output
    channel.
    """

    def rule(call: Call) -> Sequence[Shape]:
        out, _, _ = _conv_geometry(call)
        outputs = call.shape(1)[0]
        if bias is not None:
            need_shape(call, bias, (outputs,), "the bias")
        return [(call.shape(0)[0], outputs, *out)]

    return rule


def valid_taps(
    extent: Dim, out: Dim, kernel: Dim, stride: int, dilation: int, pad: Dim, base: int = 1
) -> Dim:
    """Pairs of output position and kernel tap along one axis that fall on a real input element.

    The rule of XLA's HloCostAnalysis for convolutions. ``base`` is the input dilation of transposed
    ones. Symbolic extents count every tap.
    """
    if not all(isinstance(v, int) for v in (extent, out, kernel, pad)):
        return mul(out, kernel)
    if int(kernel) > 1 << 20:
        raise ValueError(f"a kernel of extent {kernel} is beyond any network")
    # position of output o at a tap: o * stride + shift
    shift = np.arange(int(kernel), dtype=object) * dilation - int(pad)
    last = (int(extent) - 1) * base
    total = 0
    for s in shift.tolist():
        low, high = max(0, -(s // stride)), min(int(out) - 1, (last - s) // stride)
        if base == 1:
            total += max(0, high - low + 1)
        # input dilation comes with stride 1: every base-th position is a real element
        elif high >= low:
            total += (high + s) // base - (low + s - 1) // base
    return total


def _conv_work(call: Call) -> Work:
    x, w = call.shape(0), call.shape(1)
    out, kernel, pads = _conv_geometry(call)
    rank, group = len(out), call.attr("group", 1)
    strides, dilations = call.attr("strides") or (1,) * rank, call.attr("dilations") or (1,) * rank
    taps = prod(
        valid_taps(x[2 + i], out[i], kernel[i], strides[i], dilations[i], pads[i])
        for i in range(rank)
    )
    macs = prod((x[0], w[0], w[1], taps))
    moves_by_one = all(s == 1 for s in (*strides, *dilations))
    threes = tuple(kernel) == (3, 3) and moves_by_one and group == 1 and call.op.kind == "conv"
    product = Matmul(
        group,
        mul(x[0], prod(out)),
        floordiv(w[0], group),
        mul(w[1], prod(kernel)),
        threes=(x[0], *out) if threes else (),
    )
    bias = prod(call.out()) if call.has(2) and call.op.kind == "conv" else 0
    return Work(
        contraction_flops=mul(2, macs),
        vector_flops=bias,
        matmuls=(product,),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _conv_space(call: Call) -> Space:
    """Loops over items, filters and positions, then over channels of a group and the window."""
    return _windowed(call, window)


def _deform_space(call: Call) -> Space:
    """A convolution whose windows lie where offsets say, which are there for each position."""
    space = _windowed(call, lambda _: DATA)
    places = tuple(
        (at(0), ALL, *(at(i) for i in range(2, len(call.shape(i))))) if call.has(i) else None
        for i in (2, 4)
    )
    maps = list(space.maps)
    for i, map_ in zip((2, 4), places, strict=True):
        if i < len(maps):
            maps[i] = map_
    return replace(space, maps=tuple(maps))


def _windowed(call: Call, reach: Callable[[int], Index]) -> Space:
    """Items, filters and positions; what else comes in is one number a filter, or one for all."""
    x, w = call.shape(0), call.shape(1)
    out, group = call.out(), call.attr("group", 1)
    first = len(out)
    spatial = range(2, len(x))
    over_channels = at(first) if group == 1 else folded(1, first)
    maps: list[Map | None] = [
        (at(0), over_channels, *map(reach, spatial)),
        (at(1), *(at(first + i) for i in range(len(w) - 1))),
    ]
    maps += [_a_filter(call, i) for i in range(2, len(call.inputs))]
    return space_of(call, *maps, reduced=w[1:])


def _a_filter(call: Call, i: int) -> Map | None:
    """One number for all, or one for each filter."""
    if not call.has(i):
        return None
    shape = call.shape(i)
    return tuple(ONE if d == 1 else at(1) for d in shape)


def _conv_transpose_space(call: Call) -> Space:
    """Every position of the input is spread over a window of the result."""
    x, w = call.shape(0), call.shape(1)
    first, group = len(call.out()), call.attr("group", 1)
    over_channels = at(first) if group == 1 else folded(1, first)
    filters = at(1) if group == 1 else folded(1)
    return space_of(
        call,
        (at(0), over_channels, *(window(i) for i in range(2, len(x)))),
        (over_channels, filters, *(at(first + 1 + i) for i in range(len(w) - 2))),
        _a_filter(call, 2),
        reduced=(w[0], *w[2:]),
    )


def _conv_splits(bias: int) -> SplitRule:
    """Of a convolution whose input ``bias`` is added to each result: by items and filters, by
    channels whose parts are summed, by groups.
    """

    def rule(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
        for split in by_sums(row, call, ways):
            added = split.summed and call.has(bias)
            yield replace(split, once=(bias,)) if added else split
        group = int(call.attr("group", 1))
        if group > 1 and group % ways == 0 and not any(map(call.has, range(3, len(call.inputs)))):
            operands = (Cut(1), *(Cut(0) if call.has(i) else None for i in (1, 2)))
            each = {"group": group // ways}
            yield Split(operands[: len(call.inputs)], (Cut(1),), attrs=each)

    return rule


def convolve(x: Array, w: Array, attrs: Mapping[str, Any]) -> Array:
    """N-dimensional convolution [N, C, …] * [O, C/group, …] by one BLAS product per group over
    gathered windows.
    """
    rank, group = x.ndim - 2, attrs.get("group", 1)
    strides, dilations = attrs.get("strides") or (1,) * rank, attrs.get("dilations") or (1,) * rank
    kernel = w.shape[2:]
    pads = [int(p) for p in window_pads(attrs, x.shape[2:], kernel)]
    padded = np.pad(x, [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))])
    out = tuple(
        (padded.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(rank)
    )
    n, outputs = x.shape[0], w.shape[0]
    if group > 1 and w.shape[1] == 1 and outputs == group:
        return _depthwise(padded, w, out, strides, dilations)
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
    windows = views[at]  # N, C, out…, kernel…
    result = np.empty((n, outputs, *out), np.result_type(x, w))
    per_in, per_out = w.shape[1], outputs // group
    order = (*range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank))
    for b, g in itertools.product(range(n), range(group)):
        part = (
            windows[b : b + 1, g * per_in : (g + 1) * per_in]
            .transpose((0, *order))
            .reshape(int(np.prod(out)), -1)
        )
        weights = w[g * per_out : (g + 1) * per_out].reshape(per_out, -1)
        result[b, g * per_out : (g + 1) * per_out] = (weights @ part.T).reshape(per_out, *out)
    return result


def _depthwise(
    padded: Array, w: Array, out: tuple[int, ...], strides: Sequence[int], dilations: Sequence[int]
) -> Array:
    rank = len(out)
    result = np.zeros((padded.shape[0], w.shape[0], *out), np.result_type(padded, w))
    for tap in itertools.product(*(range(k) for k in w.shape[2:])):
        at = tuple(
            slice(
                tap[i] * dilations[i],
                tap[i] * dilations[i] + (out[i] - 1) * strides[i] + 1,
                strides[i],
            )
            for i in range(rank)
        )
        weight: Any = (slice(None), 0, *tap)
        result += padded[(slice(None), slice(None), *at)] * w[weight].reshape(1, -1, *(1,) * rank)
    return result


def _conv(ctx: Context, x: Array, w: Array, bias: Array | None = None) -> Array:
    y = convolve(widen(x), widen(w), ctx.attrs)
    if bias is not None:
        y = y + widen(bias).reshape(1, -1, *(1,) * (x.ndim - 2))
    return y.astype(x.dtype, copy=False)


def _conv_integer(
    ctx: Context, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None
) -> Array:
    left = x.astype(np.float64) - (
        x_zero.astype(np.float64).reshape(()) if x_zero is not None else 0
    )
    right = w.astype(np.float64) - zero_point(w_zero, w.ndim, 0)
    return np.rint(convolve(left, right, ctx.attrs)).astype(np.int32)


def _transposed_geometry(call: Call) -> tuple[list[Dim], list[Dim], list[Dim]]:
    """Output extents, kernel extents and pads (begins then ends) of a transposed convolution."""
    x, w = call.shape(0), call.shape(1)
    if len(x) != len(w) or len(x) < 3:
        raise ValueError(
            f"conv_transpose of input {x} and kernel {w}: ranks must agree and be 3 or more"
        )
    if contradict(x[1], w[0]):
        raise ValueError(
            f"conv_transpose of input {x} with kernel {w}: {x[1]} channels, needs {w[0]}"
        )
    return transposed_pads(call.op.attrs, list(x[2:]), list(w[2:]))


def transposed_pads(
    attrs: Mapping[str, Any], spatial: list[Dim], kernel: list[Dim]
) -> tuple[list[Dim], list[Dim], list[Dim]]:
    rank = len(spatial)
    strides, dilations = attrs.get("strides") or (1,) * rank, attrs.get("dilations") or (1,) * rank
    extra = attrs.get("output_padding") or (0,) * rank
    full = [
        add(
            add(mul(strides[i], sub(spatial[i], 1)), extra[i]),
            add(mul(sub(kernel[i], 1), dilations[i]), 1),
        )
        for i in range(rank)
    ]
    mode = attrs.get("auto_pad", "NOTSET")
    wanted: Any = attrs.get("output_shape") or (
        [mul(spatial[i], strides[i]) for i in range(rank)] if mode.startswith("SAME") else None
    )
    if wanted is None:
        pads = list(attrs.get("pads") or [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
    else:
        total = [sub(full[i], wanted[-rank:][i]) for i in range(rank)]
        total = [max(0, t) if isinstance(t, int) else t for t in total]
        small = [floordiv(t, 2) for t in total]
        large = [sub(t, s) for t, s in zip(total, small, strict=True)]
        pads = [*large, *small] if mode == "SAME_LOWER" else [*small, *large]
    out = (
        list(wanted[-rank:])
        if wanted is not None
        else [sub(full[i], add(pads[i], pads[i + rank])) for i in range(rank)]
    )
    return out, kernel, pads


def _conv_transpose_shape(call: Call) -> Sequence[Shape]:
    out, _, _ = _transposed_geometry(call)
    outputs = mul(call.shape(1)[1], _groups(call, call.shape(0)[1], "inputs"))
    need_shape(call, 2, (outputs,), "the bias")
    return [(call.shape(0)[0], outputs, *out)]


def _conv_transpose_work(call: Call) -> Work:
    x, w = call.shape(0), call.shape(1)
    out, kernel, pads = _transposed_geometry(call)
    group, rank = call.attr("group", 1), len(out)
    strides, dilations = call.attr("strides") or (1,) * rank, call.attr("dilations") or (1,) * rank
    taps = prod(
        valid_taps(
            x[2 + i],
            out[i],
            kernel[i],
            1,
            dilations[i],
            sub(mul(dilations[i], sub(kernel[i], 1)), pads[i]),
            strides[i],
        )
        for i in range(rank)
    )
    macs = prod((x[0], x[1], w[1], taps))
    product = Matmul(group, mul(x[0], prod(x[2:])), mul(w[1], prod(kernel)), floordiv(x[1], group))
    return Work(
        contraction_flops=mul(2, macs),
        vector_flops=prod(call.out()),
        matmuls=(product,),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _conv_transpose(ctx: Context, x: Array, w: Array, bias: Array | None = None) -> Array:
    xw, ww = widen(x), widen(w)
    rank, group = x.ndim - 2, ctx.get("group", 1)
    strides, dilations = ctx.get("strides") or (1,) * rank, ctx.get("dilations") or (1,) * rank
    out, kernel, pads = transposed_pads(ctx.attrs, list(x.shape[2:]), list(w.shape[2:]))
    full = [
        strides[i] * (x.shape[2 + i] - 1) + (w.shape[2 + i] - 1) * dilations[i] + 1
        for i in range(rank)
    ]
    room = [max(full[i], int(pads[i]) + int(out[i])) for i in range(rank)]
    n, per_out = x.shape[0], w.shape[1]
    result = np.zeros((n, per_out * group, *room), np.result_type(xw, ww))
    per_in = x.shape[1] // group
    for g in range(group):
        columns = np.tensordot(
            xw[:, g * per_in : (g + 1) * per_in], ww[g * per_in : (g + 1) * per_in], axes=(1, 0)
        )
        columns = np.moveaxis(columns, 1 + rank, 1)  # N, O, spatial…, kernel…
        for tap in itertools.product(*(range(int(k)) for k in kernel)):
            at = tuple(
                slice(
                    tap[i] * dilations[i],
                    tap[i] * dilations[i] + strides[i] * (x.shape[2 + i] - 1) + 1,
                    strides[i],
                )
                for i in range(rank)
            )
            here: Any = (..., *tap)
            result[(slice(None), slice(g * per_out, (g + 1) * per_out), *at)] += columns[here]
    crop = tuple(slice(int(pads[i]), int(pads[i]) + int(out[i])) for i in range(rank))
    y = result[(slice(None), slice(None), *crop)]
    if bias is not None:
        y = y + widen(bias).reshape(1, -1, *(1,) * rank)
    return np.ascontiguousarray(y).astype(x.dtype, copy=False)


_WINDOW = {
    "auto_pad": str,
    "dilations": tuple,
    "group": int,
    "kernel_shape": tuple,
    "pads": tuple,
    "strides": tuple,
}


ROWS: tuple[OpRow, ...] = (
    OpRow(kind="conv", arity=(2, 3), attrs=_WINDOW, dtypes=same_dtype, shapes=_conv_shape(2),
        space=_conv_space, work=_conv_work, evaluate=_conv, rate=Rate.CONVOLUTION, scaled_axis=0,
        lowering=Lowering.MATRIX, splits=_conv_splits(2)),
    OpRow(kind="conv_integer", arity=(2, 4), attrs=_WINDOW, dtypes=always(DType.I32),
        shapes=_conv_shape(None), space=_conv_space, work=_conv_work, evaluate=_conv_integer,
        **CONTRACTION),
    OpRow(kind="conv_transpose", arity=(2, 3), attrs={**_WINDOW, "output_padding": tuple,
        "output_shape": tuple}, dtypes=same_dtype, shapes=_conv_transpose_shape,
        space=_conv_transpose_space, work=_conv_transpose_work, evaluate=_conv_transpose,
        lowering=Lowering.MATRIX, splits=_conv_splits(2)),
    OpRow(kind="deform_conv", arity=(3, 5), attrs={**_WINDOW, "offset_group": int},
        dtypes=same_dtype, shapes=_conv_shape(3), space=_deform_space, work=_conv_work,
        evaluate=onnx_reference("DeformConv"), lowering=Lowering.MATRIX,
        splits=but_along(lambda c: range(2, len(c.out())))),
)  # fmt: skip
