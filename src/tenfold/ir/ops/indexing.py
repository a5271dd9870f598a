"""Gathers, scatters and what selects by data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, mul, prod
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, UnknownShape
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    always,
    dtype_of_input,
    everything,
    need_indices,
    normalise_axis,
    per_input,
    same_dtype,
    same_shape,
    space_of,
    whole_space,
)
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.sharding import SplitRule, but_along, by_loops
from tenfold.ir.space import ALL, DATA, Space, at, straight
from tenfold.ir.table import (
    Call,
    Context,
    Evaluate,
    Lowering,
    OpRow,
    Work,
    attributes,
)


def _gather_work(call: Call) -> Work:
    """Reads only the rows it takes (XLA counts gathers the same way), and all indices."""
    written = all_writes(call)
    return Work(reads=(written[0], *all_reads(call)[1:]), writes=written)


def _scatter_work(call: Call) -> Work:
    """Copies the target, then touches only what the updates cover."""
    reads = all_reads(call)
    return Work(vector_flops=prod(call.shape(2)), reads=reads, writes=all_writes(call))


def _gather_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = normalise_axis(call.attr("axis", 0), len(s))
    if not s:
        raise ValueError("gather from a scalar")
    need_indices(call.numbers(1), s[axis])
    return [(*s[:axis], *call.shape(1), *s[axis + 1 :])]


def _gather(ctx: Context, x: Array, indices: Array) -> Array:
    return np.take(x, indices.astype(np.int64), axis=ctx.get("axis", 0))


def _gather_elements_shape(call: Call) -> Sequence[Shape]:
    s, i = call.shape(0), call.shape(1)
    if len(s) != len(i):
        raise ValueError(
            f"gather_elements takes as many axes of indices as of data, got {len(i)} for {len(s)}"
        )
    need_indices(call.numbers(1), s[normalise_axis(call.attr("axis", 0), len(s))])
    return [i]


def _gather_elements(ctx: Context, x: Array, indices: Array) -> Array:
    axis = ctx.get("axis", 0)
    at = list(np.meshgrid(*(np.arange(n) for n in indices.shape), indexing="ij", sparse=True))
    at[axis] = indices.astype(np.int64)
    return x[tuple(at)]


def _gather_nd_shape(call: Call) -> Sequence[Shape]:
    s, i = call.shape(0), call.shape(1)
    if not isinstance(i[-1], int):
        raise UnknownShape("gather_nd with an unknown index depth")
    at = call.attr("batch_dims", 0)
    if at + i[-1] > len(s):
        raise ValueError(
            f"gather_nd with indices of {i[-1]} axes after {at} of the batch: the data has {len(s)}"
        )
    if 1 in call.known:
        for j in range(i[-1]):
            need_indices(call.known[1][..., j].reshape(-1).tolist(), s[at + j])
    return [(*i[:-1], *s[at + i[-1] :])]


def _gather_nd(ctx: Context, x: Array, indices: Array) -> Array:
    b = ctx.get("batch_dims", 0)
    batch = x.shape[:b]
    flat = x.reshape(-1, *x.shape[b:]) if b else x[None]
    idx = indices.reshape(-1, *indices.shape[b:]) if b else indices[None]
    rows = [
        part[tuple(np.moveaxis(j, -1, 0).astype(np.int64))]
        for part, j in zip(flat, idx, strict=True)
    ]
    stacked = np.stack(rows)
    return stacked.reshape(*batch, *stacked.shape[1:]) if b else stacked[0]


def _apply(target: Array, at: Any, updates: Array, reduction: str) -> None:
    """``target[at] op= updates``, repeated indices accumulating."""
    match reduction:
        case "none":
            target[at] = updates
        case "add":
            np.add.at(target, at, updates)
        case "mul":
            np.multiply.at(target, at, updates)
        case "max":
            np.maximum.at(target, at, updates)
        case "min":
            np.minimum.at(target, at, updates)
        case other:
            raise ValueError(f"scatter reduction '{other}' is none of none, add, mul, max, min")


def _scatter_elements(ctx: Context, x: Array, indices: Array, updates: Array) -> Array:
    axis = ctx.get("axis", 0)
    y = x.copy()
    at = list(np.meshgrid(*(np.arange(n) for n in indices.shape), indexing="ij"))
    at[axis] = indices.astype(np.int64)
    _apply(y, tuple(at), updates, ctx.get("reduction", "none"))
    return y


def _scatter_nd(ctx: Context, x: Array, indices: Array, updates: Array) -> Array:
    y = x.copy()
    _apply(
        y,
        tuple(np.moveaxis(indices, -1, 0).astype(np.int64)),
        updates,
        ctx.get("reduction", "none"),
    )
    return y


def _one_hot_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = normalise_axis(call.attr("axis", -1), len(s) + 1)
    depth = call.numbers(1)
    extent: Dim = int(depth[0]) if depth is not None else call.unknown_dim("one_hot")
    return [(*s[:axis], extent, *s[axis:])]


def _one_hot(ctx: Context, indices: Array, depth: Array, values: Array) -> Array:
    n, axis = int(depth.reshape(-1)[0]), ctx.get("axis", -1)
    wrapped = np.mod(np.expand_dims(indices.astype(np.int64), axis), n)
    inside = (np.expand_dims(indices, axis) >= -n) & (np.expand_dims(indices, axis) < n)
    axis = axis % (indices.ndim + 1)
    classes = np.arange(n).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    return np.where((wrapped == classes) & inside, values[1], values[0]).astype(values.dtype)


def _non_zero_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    return [(max(1, len(s)), call.unknown_dim("non_zero", prod(s)))]


def _non_zero(_ctx: Context, x: Array) -> Array:
    return np.asarray(np.nonzero(np.atleast_1d(x)), dtype=np.int64)


def _compress_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = call.attr("axis")
    if axis is None:
        return [(call.unknown_dim("compress", prod(s)),)]
    a = normalise_axis(axis, len(s))
    return [(*s[:a], call.unknown_dim("compress", s[a]), *s[a + 1 :])]


def _compress(ctx: Context, x: Array, condition: Array) -> Array:
    return np.compress(condition.astype(bool), x, axis=ctx.get("axis"))


def _unique_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = call.attr("axis")
    extent = prod(s) if axis is None else s[normalise_axis(axis, len(s))]
    n = call.unknown_dim("unique", extent)
    a = None if axis is None else normalise_axis(axis, len(s))
    y: Shape = (n,) if a is None else (*s[:a], n, *s[a + 1 :])
    return [y, (n,), (extent,), (n,)][: len(call.op.outputs)]


def _unique(ctx: Context, x: Array) -> Sequence[Array]:
    axis = ctx.get("axis")
    values, index, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not ctx.get("sorted", 1):
        order = np.argsort(index, kind="stable")
        rank = np.argsort(order, kind="stable")
        values = np.take(values, order, axis=axis if axis is not None else 0)
        index, counts, inverse = index[order], counts[order], rank[inverse]
    return values, index.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


def _tensor_scatter(ctx: Context, past: Array, update: Array, start: Array | None = None) -> Array:
    """Writes ``update`` into a KV cache along ``axis`` from each sequence's position, round the end
    if circular.
    """
    axis = ctx.get("axis", -2) % past.ndim
    y = past.copy()
    length, count = past.shape[axis], update.shape[axis]
    for b in range(past.shape[0]):
        begin = int(start[b]) if start is not None else 0
        at = (
            (np.arange(begin, begin + count) % length)
            if ctx.get("mode", "linear") == "circular"
            else np.arange(begin, begin + count)
        )
        np.moveaxis(y[b], axis - 1, 0)[at] = np.moveaxis(update[b], axis - 1, 0)
    return y


def _nms_shape(call: Call) -> Sequence[Shape]:
    boxes, scores = call.shape(0), call.shape(1)
    most = call.numbers(2)
    each: Dim = (
        min(int(most[0]), boxes[1]) if most is not None and isinstance(boxes[1], int) else boxes[1]
    )
    return [(call.unknown_dim("boxes", prod((scores[0], scores[1], each))), 3)]


def _row(
    kind: str,
    arity: tuple[int, int],
    shapes: Any,
    evaluate: Evaluate,
    work: Any = _gather_work,
    *,
    dtypes: Any = same_dtype,
    space: Any,
    symbolic: bool = False,
    grows: bool = False,
    loose: bool = False,
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
        lowering=Lowering.GATHER,
        symbolic=symbolic,
        grows=grows,
        loose=loose,
        splits=splits,
    )


def _gather_space(call: Call) -> Space:
    """Indices stand where the axis was that they look up."""
    x, i = call.shape(0), call.shape(1)
    axis = normalise_axis(call.attr("axis", 0), len(x))
    after = len(i) - 1
    return space_of(
        call,
        tuple(DATA if k == axis else at(k if k < axis else k + after) for k in range(len(x))),
        tuple(at(axis + k) for k in range(len(i))),
    )


def _gather_elements_space(call: Call) -> Space:
    rank = len(call.shape(0))
    axis = normalise_axis(call.attr("axis", 0), rank)
    return space_of(call, tuple(DATA if k == axis else at(k) for k in range(rank)), straight(rank))


def _gather_nd_space(call: Call) -> Space:
    x, i = call.shape(0), call.shape(1)
    batch, depth = call.attr("batch_dims", 0), i[-1]
    found = len(i) - 1  # loops before those of what is found
    taken = depth if isinstance(depth, int) else len(x) - batch
    rest = range(batch + taken, len(x))
    return space_of(
        call,
        (
            *map(at, range(batch)),
            *(DATA for _ in range(taken)),
            *(at(found + k - batch - taken) for k in rest),
        ),
        (*map(at, range(found)), ALL),
    )


def _scatter_elements_space(call: Call) -> Space:
    """What is written, and where, must be there for each of the other indices."""
    rank = len(call.shape(0))
    axis = normalise_axis(call.attr("axis", 0), rank)
    written = tuple(DATA if k == axis else at(k) for k in range(rank))
    return space_of(call, straight(rank), written, written)


def _scatter_nd_space(call: Call) -> Space:
    x, i, updates = call.shape(0), call.shape(1), call.shape(2)
    depth = i[-1] if isinstance(i[-1], int) else len(x)
    outer = len(i) - 1
    written = (
        *(DATA for _ in range(outer)),
        *(at(depth + k) for k in range(len(updates) - outer)),
    )
    return space_of(call, straight(len(x)), (*(DATA for _ in range(outer)), ALL), written)


def _tensor_scatter_space(call: Call) -> Space:
    """A piece is written into each item where that item's index says."""
    rank = len(call.shape(0))
    axis = normalise_axis(call.attr("axis", -2), rank)
    written = tuple(DATA if k == axis else at(k) for k in range(rank))
    return space_of(call, straight(rank), written, (at(0),))


def _along_scattered(call: Call) -> Sequence[int]:
    return (normalise_axis(call.attr("axis", 0), len(call.shape(0))),)


def _along_tensor_scattered(call: Call) -> Sequence[int]:
    return (normalise_axis(call.attr("axis", -2), len(call.shape(0))),)


def _along_indexed(call: Call) -> Sequence[int]:
    depth = call.shape(1)[-1]
    return range(depth if isinstance(depth, int) else len(call.shape(0)))


def _one_hot_space(call: Call) -> Space:
    rank = len(call.out())
    axis = normalise_axis(call.attr("axis", -1), rank)
    kept = tuple(at(k) for k in range(rank) if k != axis)
    return space_of(call, kept, everything(call, 1), everything(call, 2))


def _compress_space(call: Call) -> Space:
    """Which elements stay depends on all that is said of them."""
    x, axis = call.shape(0), call.attr("axis")
    if axis is None:
        return whole_space(call)
    along = normalise_axis(axis, len(x))
    map_ = tuple(DATA if k == along else at(k) for k in range(len(x)))
    return space_of(call, map_, (ALL,))


def _unique_dtypes(call: Call) -> list[DType]:
    return [call.input(0).dtype, DType.I64, DType.I64, DType.I64][: len(call.op.outputs)]


def _sort_work(call: Call) -> Work:
    """A sort: about 20 comparisons an element at a million elements."""
    return Work(
        vector_flops=mul(prod(call.shape(0)), 20), reads=all_reads(call), writes=all_writes(call)
    )


_INT64 = always(DType.I64)

ROWS: tuple[OpRow, ...] = (
    _row("gather", (2, 2), _gather_shape, _gather, symbolic=True, axis=int,
        space=_gather_space),
    _row("gather_elements", (2, 2), _gather_elements_shape, _gather_elements, axis=int,
        space=_gather_elements_space),
    _row("gather_nd", (2, 2), _gather_nd_shape, _gather_nd, batch_dims=int,
        space=_gather_nd_space),
    _row("scatter_elements", (3, 3), same_shape, _scatter_elements, _scatter_work, axis=int,
        reduction=str, space=_scatter_elements_space, splits=but_along(_along_scattered)),
    _row("scatter_nd", (3, 3), same_shape, _scatter_nd, _scatter_work, reduction=str,
        space=_scatter_nd_space, splits=but_along(_along_indexed)),
    _row("tensor_scatter", (2, 3), same_shape, _tensor_scatter, per_input(0), axis=int,
        mode=str, space=_tensor_scatter_space, splits=but_along(_along_tensor_scattered)),
    _row("one_hot", (3, 3), _one_hot_shape, _one_hot, per_input(0), dtypes=dtype_of_input(2),
        axis=int, space=_one_hot_space, grows=True,
        splits=but_along(lambda c: (normalise_axis(c.attr("axis", -1), len(c.out())),))),
    _row("non_zero", (1, 1), _non_zero_shape, _non_zero, per_input(1), dtypes=_INT64,
        space=whole_space, loose=True),
    _row("compress", (2, 2), _compress_shape, _compress, per_input(0), axis=int,
        space=_compress_space),
    _row("unique", (1, 1), _unique_shape, _unique, _sort_work, dtypes=_unique_dtypes, axis=int,
        sorted=int, space=whole_space),
    _row("non_max_suppression", (2, 5), _nms_shape, onnx_reference("NonMaxSuppression"),
        per_input(20), dtypes=_INT64, center_point_box=int, space=whole_space, loose=True),
)  # fmt: skip
