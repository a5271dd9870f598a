"""Views, and shape arithmetic: new names for the same bytes, and tensors made of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import (
    Dim,
    Shape,
    all_static,
    ceildiv,
    floordiv,
    prod,
    sub,
)
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, UnknownShape
from tenfold.ir.ops.common import (
    dtype_of_attr,
    known_ints,
    normalise_axes,
    same_shape,
    space_of,
)
from tenfold.ir.ops.movement import INT64, VIEW, movement_row, plain_text_array
from tenfold.ir.space import Space
from tenfold.ir.table import (
    Call,
    Context,
    OpRow,
)


def _reshape_shape(call: Call) -> Sequence[Shape]:
    source = call.shape(0)
    numbers = call.numbers(1)
    if numbers is None:
        return [tuple(call.unknown_dim(f"reshape_{i}") for i in range(call.target_rank(1)))]
    return [resolve_reshape(source, numbers, bool(call.attr("allowzero", 0)))]


def resolve_reshape(source: Shape, target: Sequence[Any], allowzero: bool) -> Shape:
    """The shape that ``target`` (with 0 for copy and -1 for the rest) means for ``source``.

    Raises ValueError where the number of elements cannot agree.
    """
    out: list[Dim] = []
    for i, d in enumerate(target):
        if isinstance(d, (int, np.integer)) and d == 0 and not allowzero:
            if i >= len(source):
                raise ValueError(f"reshape copies dimension {i} of a tensor of rank {len(source)}")
            out.append(source[i])
        else:
            out.append(int(d) if isinstance(d, (int, np.integer)) else d)
    if sum(1 for d in out if isinstance(d, int) and d == -1) == 1:
        rest = prod(d for d in out if not (isinstance(d, int) and d == -1))
        whole = prod(source)
        if isinstance(whole, int) and isinstance(rest, int) and (rest == 0 or whole % rest):
            raise ValueError(
                f"cannot reshape {source} to {tuple(target)}: {whole} elements do not divide by"
                f" {rest}"
            )
        out[out.index(-1)] = floordiv(whole, rest)
    if all_static(out) and all_static(source) and prod(out) != prod(source):
        raise ValueError(
            f"cannot reshape {source} ({prod(source)} elements) to {tuple(target)} ({prod(out)})"
        )
    return tuple(out)


def _reshape(ctx: Context, x: Array, shape: Array) -> Array:
    return x.reshape(
        resolve_reshape(x.shape, shape.reshape(-1).tolist(), bool(ctx.get("allowzero", 0)))
    )


def _flatten_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = call.attr("axis", 1)
    if not -len(s) <= axis <= len(s):
        raise ValueError(f"flatten axis {axis} is outside a tensor of rank {len(s)}")
    axis = axis + len(s) if axis < 0 else axis
    return [(prod(s[:axis]), prod(s[axis:]))]


def _flatten(ctx: Context, x: Array) -> Array:
    axis = ctx.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return (
        x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)
        if x.size
        else x.reshape(
            int(np.prod(x.shape[:axis], dtype=np.int64)),
            int(np.prod(x.shape[axis:], dtype=np.int64)),
        )
    )


def _squeeze_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    if call.has(1):
        drop = normalise_axes(known_ints(call, 1), len(s))
        for a in drop:
            if isinstance(s[a], int) and s[a] != 1:
                raise ValueError(f"cannot squeeze axis {a} of extent {s[a]}")
    else:
        drop = [i for i, d in enumerate(s) if isinstance(d, int) and d == 1]
        if not all_static(s):
            raise UnknownShape("squeeze of symbolic dimensions without axes")
    return [tuple(d for i, d in enumerate(s) if i not in drop)]


def _squeeze(_ctx: Context, x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, axis=tuple(int(a) for a in axes.reshape(-1)) if axes is not None else None)


def _unsqueeze_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axes = known_ints(call, 1)
    return [tuple(_insert_ones(list(s), axes))]


def _insert_ones(dims: list[Dim], axes: Sequence[int]) -> list[Dim]:
    rank = len(dims) + len(axes)
    at = sorted(normalise_axes(axes, rank))
    if len(set(at)) != len(at):
        raise ValueError(f"unsqueeze axes {list(axes)} repeat")
    for a in at:
        dims.insert(a, 1)
    return dims


def _unsqueeze(_ctx: Context, x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(int(a) for a in axes.reshape(-1)))


def _shape_of(call: Call) -> Sequence[Shape]:
    rank = len(call.shape(0))
    return [(len(range(rank)[slice(call.attr("start", 0), call.attr("end"))]),)]


def _shape(ctx: Context, x: Array) -> Array:
    return np.asarray(x.shape[slice(ctx.get("start", 0), ctx.get("end"))], dtype=np.int64)


def _size(_ctx: Context, x: Array) -> Array:
    return np.asarray(x.size, dtype=np.int64)


def _full_shape(call: Call) -> Sequence[Shape]:
    numbers = call.numbers(0)
    if numbers is not None:
        return [tuple(plain_text_array(n) for n in numbers)]
    return [tuple(call.unknown_dim(f"full_{i}") for i in range(call.target_rank(0)))]


def _full(_ctx: Context, shape: Array, value: Array) -> Array:
    return np.broadcast_to(value.reshape(()), tuple(int(d) for d in shape.reshape(-1)))


def _range_shape(call: Call) -> Sequence[Shape]:
    start, limit, delta = (call.numbers(i) for i in range(3))
    if start is None or limit is None or delta is None:
        return [(call.unknown_dim("range"),)]
    a, b, d = start[0], limit[0], delta[0]
    if all(isinstance(v, (int, float, np.number)) for v in (a, b, d)):
        return [(max(0, int(np.ceil((float(b) - float(a)) / float(d)))),)]
    return [(ceildiv(sub(plain_text_array(b), plain_text_array(a)), plain_text_array(d)),)]


def _range(_ctx: Context, start: Array, limit: Array, delta: Array) -> Array:
    a, b, d = (v.reshape(()) for v in (start, limit, delta))
    count = max(
        0, int(np.ceil((b.astype(np.float64) - a.astype(np.float64)) / d.astype(np.float64)))
    )
    return (
        (a.astype(np.float64) + np.arange(count) * d.astype(np.float64)).astype(start.dtype)
        if start.dtype.kind in "fV"
        else (a + np.arange(count, dtype=start.dtype) * d).astype(start.dtype)
    )


def _eye(ctx: Context, x: Array) -> Array:
    return np.eye(x.shape[0], x.shape[1], k=ctx.get("k", 0)).astype(
        DType(ctx.get("dtype")).numpy if ctx.get("dtype") else x.dtype
    )


def _identity(_ctx: Context, x: Array) -> Array:
    return x


def _made_space(call: Call) -> Space:
    """Results that operands give the extents of, and perhaps one value."""
    return space_of(
        call, *(() if call.has(i) and not call.shape(i) else None for i in range(len(call.inputs)))
    )


def _measured_space(call: Call) -> Space:
    return space_of(call, None)


ROWS: tuple[OpRow, ...] = (
    movement_row("identity", (1, 1), same_shape, _identity, VIEW, symbolic=True),
    movement_row("reshape", (2, 2), _reshape_shape, _reshape, VIEW, symbolic=True,
        allowzero=int, grows=True, target=1),
    movement_row("flatten", (1, 1), _flatten_shape, _flatten, VIEW, axis=int),
    movement_row("squeeze", (1, 2), _squeeze_shape, _squeeze, VIEW, symbolic=True),
    movement_row("unsqueeze", (2, 2), _unsqueeze_shape, _unsqueeze, VIEW, symbolic=True),
    movement_row("shape", (1, 1), _shape_of, _shape, VIEW, dtypes=INT64, start=int, end=int,
        space=_measured_space, measures=True),
    movement_row("size", (1, 1), lambda _c: [()], _size, VIEW, dtypes=INT64,
        space=_measured_space, measures=True),
    movement_row("full", (2, 2), _full_shape, _full, dtypes=lambda c: [c.input(1).dtype],
        space=_made_space, grows=True, target=0),
    movement_row("range", (3, 3), _range_shape, _range, space=_made_space, grows=True),
    movement_row("eye", (1, 1), same_shape, _eye, dtypes=dtype_of_attr("dtype"), k=int,
        dtype=str, space=_measured_space),
)  # fmt: skip
