"""Reductions, arg-reductions, scans along an axis, sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, UnknownShape
from tenfold.ir.ops.common import (
    along_axis_space,
    always,
    normalise_axes,
    normalise_axis,
    per_input,
    row_space,
    same_dtype,
    same_shape,
    space_of,
    whole_space,
    widen,
)
from tenfold.ir.sharding import by_loops, by_totals
from tenfold.ir.space import ONE, Serial, Space, at
from tenfold.ir.table import Call, Context, Lowering, OpRow, attributes


def _axes(call: Call) -> list[int]:
    rank = len(call.shape(0))
    if call.has(1):
        given = [int(a) for a in call.need(1)]
        if given:
            return normalise_axes(given, rank)
    return [] if call.attr("noop_with_empty_axes", 0) else list(range(rank))


def _reduce_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    try:
        axes = _axes(call)
    except UnknownShape:
        if not call.attr("keepdims", 1):
            raise
        return [tuple(call.unknown_dim(f"reduce_{i}", d) for i, d in enumerate(s))]
    if call.attr("keepdims", 1):
        return [tuple(1 if i in axes else d for i, d in enumerate(s))]
    return [tuple(d for i, d in enumerate(s) if i not in axes)]


def _reduce_space(call: Call) -> Space:
    try:
        axes = _axes(call)
    except UnknownShape:  # axes that arrive when the model runs: all may be reduced
        return whole_space(call)
    return _reduced(call, axes)


def _reduced(call: Call, axes: Sequence[int]) -> Space:
    """Loops over the axes that stay, then over those that go."""
    s = call.shape(0)
    kept = [i for i in range(len(s)) if i not in axes]
    loop = {axis: number for number, axis in enumerate((*kept, *sorted(axes)))}
    flat = tuple(at(loop[i]) for i in kept)
    results = tuple(ONE if i in axes else at(loop[i]) for i in range(len(s)))
    return space_of(
        call,
        tuple(at(loop[i]) for i in range(len(s))),
        parallel=tuple(s[i] for i in kept),
        reduced=tuple(s[i] for i in sorted(axes)),
        results=[results if len(call.out()) == len(s) else flat],
    )


def _reducer(
    fn: Callable[..., Any], before: Callable[[Array], Array] | None = None
) -> Callable[..., Array]:
    def run(ctx: Context, x: Array, axes: Array | None = None) -> Array:
        given = tuple(int(a) for a in axes.reshape(-1)) if axes is not None else ()
        if not given and ctx.get("noop_with_empty_axes", 0):
            return np.asarray(before(x) if before else x)
        with np.errstate(all="ignore"):
            wide = x if x.dtype.kind in "iub" else widen(x)
            wide = before(wide) if before else wide
            y = fn(wide, axis=given or None, keepdims=bool(ctx.get("keepdims", 1)))
        return np.asarray(y).astype(x.dtype, copy=False)

    return run


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    top = (
        np.max(x, axis=axis, keepdims=True, initial=-np.inf)
        if x.dtype.kind == "f"
        else np.max(x, axis=axis, keepdims=True)
    )
    top = np.where(np.isfinite(top), top, 0).astype(x.dtype)
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis=axis)


def _mean(x: Array, axis: Any, keepdims: bool) -> Array:
    if x.dtype.kind in "iu":
        count = x.size if axis is None else int(np.prod([x.shape[a] for a in axis]))
        total = np.sum(x, axis=axis, keepdims=keepdims)
        return np.trunc(total / count) if count else total
    return np.asarray(np.mean(x, axis=axis, keepdims=keepdims))


def _extreme(fn: Callable[..., Any], for_float: float, integer_end: str) -> Callable[..., Any]:
    """max or min that gives the identity for an empty axis."""

    def run(x: Array, axis: Any, keepdims: bool) -> Array:
        if x.dtype.kind == "b":
            return np.asarray(
                fn(x.astype(np.int8), axis=axis, keepdims=keepdims, initial=int(for_float > 0))
            )
        if x.dtype.kind in "iu":
            return np.asarray(
                fn(x, axis=axis, keepdims=keepdims, initial=getattr(np.iinfo(x.dtype), integer_end))
            )
        return np.asarray(fn(x, axis=axis, keepdims=keepdims, initial=for_float))

    return run


def _reduce_row(
    kind: str, fn: Callable[..., Any], before: Any = None, flops: int = 1, transcendentals: int = 0
) -> OpRow:
    return OpRow(
        kind=f"reduce_{kind}",
        arity=(1, 2),
        attrs=attributes(keepdims=int, noop_with_empty_axes=int),
        dtypes=same_dtype,
        shapes=_reduce_shape,
        space=_reduce_space,
        work=per_input(flops, transcendentals),
        evaluate=_reducer(fn, before),
        lowering=Lowering.REDUCE,
        splits=by_totals if kind in _TOTALS else by_loops,
    )


_TOTALS = ("sum", "l1", "sum_square")  # whose parts add up


def _arg_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = normalise_axis(call.attr("axis", 0), len(s))
    keep = (1,) if call.attr("keepdims", 1) else ()
    return [(*s[:axis], *keep, *s[axis + 1 :])]


def _arg_space(call: Call) -> Space:
    return _reduced(call, [normalise_axis(call.attr("axis", 0), len(call.shape(0)))])


def _cumulative_space(call: Call) -> Space:
    """One element after the other along an axis; along any, where it is not known."""
    x, known = call.shape(0), call.numbers(1)
    if known is None:
        return row_space(call, range(len(x)))
    axis = normalise_axis(int(known[0]), len(x))
    return replace(row_space(call, [axis]), serial=Serial(x[axis], associative=True))


def _arg(fn: Callable[..., Any]) -> Callable[..., Array]:
    def run(ctx: Context, x: Array) -> Array:
        axis = ctx.get("axis", 0)
        if ctx.get("select_last_index", 0):
            index = x.shape[axis] - 1 - fn(np.flip(x, axis), axis=axis)
        else:
            index = fn(x, axis=axis)
        return (
            np.expand_dims(index, axis).astype(np.int64)
            if ctx.get("keepdims", 1)
            else np.asarray(index, dtype=np.int64)
        )

    return run


def _cumulative(fn: Callable[..., Any], identity: int) -> Callable[..., Array]:
    def run(ctx: Context, x: Array, axis: Array) -> Array:
        a = int(axis.reshape(-1)[0])
        y = np.flip(x, a) if ctx.get("reverse", 0) else x
        z = fn(y, axis=a, dtype=x.dtype)
        if ctx.get("exclusive", 0):
            z = np.roll(z, 1, axis=a)
            at = [slice(None)] * x.ndim
            at[a] = slice(0, 1)
            z[tuple(at)] = identity
        return np.flip(z, a) if ctx.get("reverse", 0) else z

    return run


def _top_k_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = normalise_axis(call.attr("axis", -1), len(s))
    k = call.numbers(1)
    extent = k[0] if k is not None else call.unknown_dim("top_k", s[axis])
    extent = int(extent) if isinstance(extent, np.integer) else extent
    if isinstance(extent, int) and isinstance(s[axis], int) and extent > s[axis]:
        raise ValueError(f"top_k of {extent} from an axis of extent {s[axis]}")
    shape = (*s[:axis], extent, *s[axis + 1 :])
    return [shape, shape]


def _top_k(ctx: Context, x: Array, k: Array) -> Sequence[Array]:
    axis, n = ctx.get("axis", -1), int(k.reshape(-1)[0])
    wide = widen(x)
    if ctx.get("largest", 1):
        flipped = np.flip(wide, axis)
        order = wide.shape[axis] - 1 - np.flip(np.argsort(flipped, axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(wide, axis=axis, kind="stable")
    index = np.take(order, range(n), axis=axis)
    return np.take_along_axis(x, index, axis=axis), index.astype(np.int64)


_INF = float("inf")

ROWS: tuple[OpRow, ...] = (
    _reduce_row("sum", np.sum),
    _reduce_row("mean", _mean),
    _reduce_row("max", _extreme(np.max, -_INF, "min")),
    _reduce_row("min", _extreme(np.min, _INF, "max")),
    _reduce_row("prod", np.prod),
    _reduce_row("l1", np.sum, np.abs, 2),
    _reduce_row(
        "l2",
        lambda x, axis, keepdims: np.sqrt(np.sum(x, axis=axis, keepdims=keepdims)),
        np.square,
        2,
    ),
    _reduce_row(
        "log_sum", lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims))
    ),
    _reduce_row("log_sum_exp", _log_sum_exp, None, 2, 1),
    _reduce_row("sum_square", np.sum, np.square, 2),
    *(
        OpRow(
            kind=kind,
            arity=(1, 1),
            attrs=attributes(axis=int, keepdims=int, select_last_index=int),
            dtypes=always(DType.I64),
            shapes=_arg_shape,
            space=_arg_space,
            work=per_input(1),
            evaluate=_arg(fn),
            lowering=Lowering.REDUCE,
        )
        for kind, fn in (("arg_max", np.argmax), ("arg_min", np.argmin))
    ),
    *(
        OpRow(
            kind=kind,
            arity=(2, 2),
            attrs=attributes(exclusive=int, reverse=int),
            dtypes=same_dtype,
            shapes=same_shape,
            space=_cumulative_space,
            work=per_input(1),
            evaluate=_cumulative(fn, identity),
            lowering=Lowering.REDUCE,
        )
        for kind, fn, identity in (("cum_sum", np.cumsum, 0), ("cum_prod", np.cumprod, 1))
    ),
    OpRow(
        kind="top_k",
        arity=(2, 2),
        attrs=attributes(axis=int, largest=int, sorted=int),
        dtypes=lambda call: [call.input(0).dtype, DType.I64],
        shapes=_top_k_shape,
        space=along_axis_space,
        work=per_input(2),
        evaluate=_top_k,
        lowering=Lowering.REDUCE,
    ),
)
