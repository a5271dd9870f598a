"""Softmax and the normalisations, kept whole because hardware and compilers treat them as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    along_axis_space,
    from_axis_space,
    in_fp32,
    need_shape,
    need_spread,
    normalise_axis,
    per_input,
    same_dtype,
    same_shape,
    space_of,
    widen,
)
from tenfold.ir.sharding import Cut, Split, SplitRule, by_loops
from tenfold.ir.space import Map, Space, at, row, window
from tenfold.ir.table import Call, Context, Lowering, OpRow, Rate, attributes


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def _softmax(ctx: Context, x: Array) -> Array:
    return softmax(x, ctx.get("axis", -1))


def _log_softmax(ctx: Context, x: Array) -> Array:
    axis = ctx.get("axis", -1)
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _hardmax(ctx: Context, x: Array) -> Array:
    axis = ctx.get("axis", -1)
    y = np.zeros_like(x)
    np.put_along_axis(y, np.argmax(x, axis=axis, keepdims=True), 1, axis)
    return y


def _layer_norm(
    ctx: Context, x: Array, scale: Array | None = None, bias: Array | None = None
) -> Sequence[Array]:
    """Ba, Kiros, Hinton 2016, equation 4; outputs y, mean and 1/sqrt(variance + epsilon)."""
    wide = widen(x)
    axes = tuple(range(ctx.get("axis", -1) % x.ndim, x.ndim))
    mean = wide.mean(axis=axes, keepdims=True, dtype=wide.dtype)
    centred = wide - mean
    inverse = (
        1
        / np.sqrt(
            (centred * centred).mean(axis=axes, keepdims=True)
            + wide.dtype.type(ctx.get("epsilon", 1e-5))
        )
    ).astype(wide.dtype)
    y = centred * inverse
    if scale is not None:
        y = y * widen(scale)
    if bias is not None:
        y = y + widen(bias)
    return y.astype(x.dtype), mean, inverse


def _along_axis(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    normalise_axis(call.attr("axis", -1), len(s))
    return [s]


def _layer_norm_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    need_spread(call, 1, s, "the scale")
    need_spread(call, 2, s, "the bias")
    axis = normalise_axis(call.attr("axis", -1), len(s))
    stats: Shape = tuple(d if i < axis else 1 for i, d in enumerate(s))
    return [s, stats, stats][: len(call.op.outputs)]


def _layer_norm_dtypes(call: Call) -> list[DType]:
    x = call.input(0).dtype
    stats = x if x is DType.F64 else DType.F32
    return [x, stats, stats][: len(call.op.outputs)]


def _rms_norm(ctx: Context, x: Array, scale: Array) -> Array:
    """Zhang, Sennrich 2019, equation 4."""
    wide = widen(x)
    axes = tuple(range(ctx.get("axis", -1) % x.ndim, x.ndim))
    y = wide / np.sqrt(
        (wide * wide).mean(axis=axes, keepdims=True) + wide.dtype.type(ctx.get("epsilon", 1e-5))
    )
    return (y.astype(x.dtype) * scale).astype(x.dtype)


def _rms_norm_shape(call: Call) -> Sequence[Shape]:
    need_spread(call, 1, call.shape(0), "the scale")
    return _along_axis(call)


def _per_channel(x: Array, v: Array) -> Array:
    return widen(v).reshape(1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else widen(v)


def _batch_norm(
    ctx: Context, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Sequence[Array]:
    """Ioffe, Szegedy 2015, algorithm 2; with training_mode also the running statistics."""
    wide = widen(x)
    if not ctx.get("training_mode", 0):
        inverse = _per_channel(x, scale) / np.sqrt(
            _per_channel(x, variance) + wide.dtype.type(ctx.get("epsilon", 1e-5))
        )
        y = (wide - _per_channel(x, mean)) * inverse + _per_channel(x, bias)
        return [y.astype(x.dtype)]
    axes = tuple(i for i in range(x.ndim) if i != 1)
    now_mean, now_variance = wide.mean(axis=axes), wide.var(axis=axes)
    momentum = ctx.get("momentum", 0.9)
    y = (wide - _per_channel(x, now_mean)) / np.sqrt(
        _per_channel(x, now_variance) + ctx.get("epsilon", 1e-5)
    )
    y = y * _per_channel(x, scale) + _per_channel(x, bias)
    running = [
        (old * momentum + new * (1 - momentum)).astype(old.dtype)
        for old, new in ((mean, now_mean), (variance, now_variance))
    ]
    return [y.astype(x.dtype), *running]


def _batch_norm_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    for i, what in enumerate(("scale", "bias", "mean", "variance"), 1):
        need_shape(call, i, (s[1] if len(s) > 1 else 1,), f"the {what}")
    return [s, call.shape(3), call.shape(4)][: len(call.op.outputs)]


def _of_channels(call: Call, x: Map, over: Shape) -> Space:
    """A first input with its map, and others of one number a channel."""
    channel = at(1) if len(over) > 1 else at(0)
    others = [(channel,) for _ in call.inputs[1:]]
    return space_of(call, x, *others, parallel=over)


def _batch_norm_space(call: Call) -> Space:
    """In inference the statistics are constants, so each element stands alone."""
    x = call.shape(0)
    training = call.attr("training_mode", 0)
    map_ = tuple(row(i) if training and i != 1 else at(i) for i in range(len(x)))
    return _of_channels(call, map_, x)


def _instance_norm_space(call: Call) -> Space:
    """A picture of one item and channel is a row."""
    x = call.shape(0)
    return _of_channels(call, tuple(row(i) if i > 1 else at(i) for i in range(len(x))), x)


def _group_norm_space(call: Call) -> Space:
    """Pictures of some channels of one item are a row."""
    x = call.shape(0)
    return _of_channels(call, tuple(row(i) if i else at(i) for i in range(len(x))), x)


def _group_norm_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By items, or by groups."""
    yield from by_loops(row_, call, ways)
    groups, scales = int(call.attr("num_groups")), call.shape(1)[0]
    if groups % ways == 0 and isinstance(scales, int) and scales % ways == 0:
        each = {"num_groups": groups // ways}
        yield Split((Cut(1), Cut(0), Cut(0)), (Cut(1),), attrs=each)


def _lrn_space(call: Call) -> Space:
    """Each channel with some beside it."""
    rank = len(call.shape(0))
    return space_of(call, tuple(window(i) if i == 1 else at(i) for i in range(rank)))


def _batch_norm_dtypes(call: Call) -> list[DType]:
    return [call.input(0).dtype, call.input(3).dtype, call.input(4).dtype][: len(call.op.outputs)]


def _instance_norm(ctx: Context, x: Array, scale: Array, bias: Array) -> Array:
    """Ulyanov, Vedaldi, Lempitsky 2016."""
    axes = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    y = centred / np.sqrt(
        (centred * centred).mean(axis=axes, keepdims=True) + ctx.get("epsilon", 1e-5)
    )
    return y * _per_channel(x, scale) + _per_channel(x, bias)


def _instance_norm_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    if len(s) < 3:
        raise ValueError(f"instance_norm needs an input of rank 3 and more, got {len(s)}")
    need_shape(call, 1, (s[1],), "the scale")
    need_shape(call, 2, (s[1],), "the bias")
    return [s]


def _group_norm_shape(call: Call) -> Sequence[Shape]:
    s, groups = call.shape(0), call.attr("num_groups")
    if len(s) < 2 or groups < 1 or (isinstance(s[1], int) and s[1] % groups):
        raise ValueError(
            f"group_norm of {s[1] if len(s) > 1 else 'no'} channels in {groups} groups: the groups"
            " must divide the channels"
        )
    if call.shape(1) != (groups,):
        need_shape(call, 1, (s[1],), f"the scale of {groups} groups")
    need_shape(call, 2, call.shape(1), "the bias")
    return [s]


def _group_norm(ctx: Context, x: Array, scale: Array, bias: Array) -> Array:
    """Wu, He 2018; ``scale`` and ``bias`` per channel, or per group as in opset 18."""
    groups = ctx.get("num_groups")
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(axis=-1, keepdims=True)
    y = centred / np.sqrt(
        (centred * centred).mean(axis=-1, keepdims=True) + ctx.get("epsilon", 1e-5)
    )
    each = x.shape[1] // scale.size
    return y.reshape(x.shape) * _per_channel(x, np.repeat(scale, each)) + _per_channel(
        x, np.repeat(bias, each)
    )


def _lrn(ctx: Context, x: Array) -> Array:
    """Krizhevsky, Sutskever, Hinton 2012, section 3.3."""
    size = ctx.get("size")
    before, after = (size - 1) // 2, size // 2
    padded = np.pad(x * x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    total = sum(padded[:, i : i + x.shape[1]] for i in range(size))
    return x / (ctx.get("bias", 1.0) + ctx.get("alpha", 1e-4) / size * total) ** ctx.get(
        "beta", 0.75
    )


def _lp_normalization(ctx: Context, x: Array) -> Array:
    p, axis = ctx.get("p", 2), ctx.get("axis", -1)
    size = np.linalg.norm(x, ord=p, axis=axis, keepdims=True)
    with np.errstate(all="ignore"):
        return np.where(size == 0, 0, x / size).astype(x.dtype)


def _row(
    kind: str,
    arity: tuple[int, int],
    evaluate: Any,
    flops: int,
    transcendentals: int = 0,
    *,
    shapes: Any = same_shape,
    dtypes: Any = same_dtype,
    space: Any = along_axis_space,
    rate: Rate = Rate.STREAM,
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
        work=per_input(flops, transcendentals),
        evaluate=evaluate,
        lowering=Lowering.REDUCE,
        rate=rate,
        splits=splits,
    )


ROWS: tuple[OpRow, ...] = (
    _row("softmax", (1, 1), in_fp32(_softmax), 4, 1, shapes=_along_axis, axis=int,
        rate=Rate.SOFTMAX),
    _row("log_softmax", (1, 1), in_fp32(_log_softmax), 4, 1, shapes=_along_axis, axis=int,
        rate=Rate.SOFTMAX),
    _row("hardmax", (1, 1), _hardmax, 1, shapes=_along_axis, axis=int),
    _row("layer_norm", (1, 3), _layer_norm, 7, shapes=_layer_norm_shape,
        dtypes=_layer_norm_dtypes, axis=int, epsilon=float, rate=Rate.NORM, space=from_axis_space),
    _row("rms_norm", (2, 2), _rms_norm, 4, shapes=_rms_norm_shape, axis=int, epsilon=float,
        rate=Rate.NORM, space=from_axis_space),
    OpRow(kind="batch_norm", arity=(5, 5), attrs=attributes(epsilon=float, momentum=float,
        training_mode=int), dtypes=_batch_norm_dtypes, shapes=_batch_norm_shape,
        space=_batch_norm_space, work=per_input(2), evaluate=_batch_norm, lowering=Lowering.VECTOR),
    _row("instance_norm", (3, 3), in_fp32(_instance_norm), 7, shapes=_instance_norm_shape,
        epsilon=float, rate=Rate.NORM, space=_instance_norm_space),
    _row("group_norm", (3, 3), in_fp32(_group_norm), 7, shapes=_group_norm_shape, epsilon=float,
        num_groups=int, rate=Rate.NORM, space=_group_norm_space, splits=_group_norm_splits),
    _row("lrn", (1, 1), in_fp32(_lrn), 8, 1, alpha=float, beta=float, bias=float, size=int,
        rate=Rate.POWER, space=_lrn_space),
    _row("lp_normalization", (1, 1), _lp_normalization, 3, shapes=_along_axis, axis=int, p=int,
        rate=Rate.NORM),
)  # fmt: skip
