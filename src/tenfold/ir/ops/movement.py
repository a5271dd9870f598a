"""Views, copies, layout changes and shape arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import (
    Dim,
    Shape,
    add,
    all_static,
    broadcast,
    ceildiv,
    floordiv,
    maximum,
    minimum,
    mul,
    sub,
)
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    always,
    known_ints,
    move_work,
    no_work,
    normalise_axes,
    normalise_axis,
    same_dtype,
    same_shape,
    space_of,
    view_space,
)
from tenfold.ir.sharding import SplitRule, but_along, by_loops, never
from tenfold.ir.space import Map, Space, aligned, at, folded, moved, straight
from tenfold.ir.table import (
    MANY,
    Call,
    Context,
    Evaluate,
    Lowering,
    OpRow,
    Work,
    attributes,
)


def _transpose_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    perm = call.attr("perm") or tuple(reversed(range(len(s))))
    if sorted(normalise_axes(perm, len(s))) != list(range(len(s))):
        raise ValueError(f"transpose permutation {perm} does not fit rank {len(s)}")
    return [tuple(s[p] for p in perm)]


def _transpose(ctx: Context, x: Array) -> Array:
    return np.transpose(x, ctx.get("perm") or None)


def _expand_shape(call: Call) -> Sequence[Shape]:
    numbers = call.numbers(1)
    if numbers is not None:
        return [
            broadcast(
                (call.shape(0), tuple(int(n) if isinstance(n, np.integer) else n for n in numbers))
            )
        ]
    rank = max(call.target_rank(1), len(call.shape(0)))
    return [tuple(call.unknown_dim(f"expand_{i}") for i in range(rank))]


def _expand(_ctx: Context, x: Array, shape: Array) -> Array:
    return np.broadcast_to(
        x, np.broadcast_shapes(x.shape, tuple(int(d) for d in shape.reshape(-1)))
    )


def _slice_shape(call: Call) -> Sequence[Shape]:
    s = list(call.shape(0))
    count = call.shape(1)[0]
    axes = (
        known_ints(call, 3) if call.has(3) else list(range(count)) if isinstance(count, int) else []
    )
    starts, ends = call.numbers(1), call.numbers(2)
    steps = call.numbers(4) if call.has(4) else [1] * len(axes)
    for j, axis in enumerate(normalise_axes(axes, len(s))):
        if starts is None or ends is None or steps is None:
            s[axis] = call.unknown_dim(f"slice_{axis}", s[axis])
        else:
            extent = _slice_extent(s[axis], starts[j], ends[j], int(steps[j]))
            s[axis] = extent if extent is not None else call.unknown_dim(f"slice_{axis}", s[axis])
    return [tuple(s)]


def _slice_extent(dim: Dim, start: Any, end: Any, step: int) -> Dim | None:
    """How many a slice takes; None where that is not known: backwards through a symbolic extent,
    other than through all of it.
    """
    if step == 0:
        raise ValueError("slice step is 0")
    if (
        isinstance(dim, int)
        and isinstance(start, (int, np.integer))
        and isinstance(end, (int, np.integer))
    ):
        return len(range(*slice(int(start), _clip_end(int(end), step), step).indices(dim)))
    if step < 0:
        last, before = (isinstance(v, (int, np.integer)) and int(v) for v in (start, end))
        whole = (last == -1 or last > _FAR) and before < -_FAR
        return ceildiv(dim, -step) if whole else None
    first = _position(start, dim)
    last = _position(end, dim)
    return ceildiv(sub(last, first), step)


_FAR = 2**30  # beyond the end of any axis


def _position(index: Any, dim: Dim) -> Dim:
    """Where a possibly negative or overlong index lies in a dimension of symbolic extent."""
    if isinstance(index, (int, np.integer)):
        i = int(index)
        if i > _FAR:
            return dim
        return minimum(i, dim) if i > 0 else maximum(0, add(dim, i)) if i < 0 else 0
    if index == dim:
        return dim
    return (
        minimum(index, dim)
        if not getattr(index, "could_extract_minus_sign", bool)()
        else maximum(0, add(dim, index))
    )


def _clip_end(end: int, step: int) -> int | None:
    return None if step < 0 and end < -(2**31) else end


def _slice(
    _ctx: Context,
    x: Array,
    starts: Array,
    ends: Array,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    at = [slice(None)] * x.ndim
    count = starts.size
    for j in range(count):
        axis = int(axes.reshape(-1)[j]) if axes is not None else j
        step = int(steps.reshape(-1)[j]) if steps is not None else 1
        extent = x.shape[axis]
        start, end = int(starts.reshape(-1)[j]), int(ends.reshape(-1)[j])
        if step < 0:
            start = min(start if start >= 0 else start + extent, extent - 1)
            end = end if end >= 0 else end + extent
            at[axis] = slice(max(start, -1) if start >= 0 else 0, end if end >= 0 else None, step)
            if start < 0:
                at[axis] = slice(0, 0)
        else:
            at[axis] = slice(start, end, step)
    return x[tuple(at)]


def _concat_shape(call: Call) -> Sequence[Shape]:
    shapes = [call.shape(i) for i in range(len(call.inputs))]
    rank = len(shapes[0])
    axis = normalise_axis(call.attr("axis"), rank)
    total: Dim = 0
    for s in shapes:
        if len(s) != rank:
            raise ValueError(f"concat of ranks {rank} and {len(s)}")
        for i, (a, b) in enumerate(zip(shapes[0], s, strict=True)):
            if i != axis and isinstance(a, int) and isinstance(b, int) and a != b:
                raise ValueError(f"concat along axis {axis} of {shapes[0]} and {s}")
        total = add(total, s[axis])
    return [(*shapes[0][:axis], total, *shapes[0][axis + 1 :])]


def _concat(ctx: Context, *arrays: Array) -> Array:
    return np.concatenate(arrays, axis=ctx.get("axis"))


def _split_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    axis = normalise_axis(call.attr("axis", 0), len(s))
    count = len(call.op.outputs)
    sizes = call.numbers(1)
    if sizes is None and call.has(1):
        sizes = [call.unknown_dim(f"split_{i}", s[axis]) for i in range(count)]
    if sizes is None:
        each = ceildiv(s[axis], count)
        sizes = [each] * (count - 1) + [sub(s[axis], mul(each, count - 1))]
    if len(sizes) != count or (all_static([*sizes, s[axis]]) and sum(sizes) != s[axis]):
        raise ValueError(f"split of extent {s[axis]} into {count} parts of {sizes}")
    return [(*s[:axis], int(n) if isinstance(n, np.integer) else n, *s[axis + 1 :]) for n in sizes]


def _split(ctx: Context, x: Array, sizes: Array | None = None) -> Sequence[Array]:
    axis = ctx.get("axis", 0)
    if sizes is None:
        each = -(-x.shape[axis] // ctx.outputs)
        cuts = [each * (i + 1) for i in range(ctx.outputs - 1)]
    else:
        cuts = np.cumsum(sizes.reshape(-1))[:-1].astype(int).tolist()
    return np.split(x, cuts, axis=axis)


def _tile_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    repeats = call.numbers(1)
    if repeats is None:
        return [tuple(call.unknown_dim(f"tile_{i}") for i in range(len(s)))]
    return [
        tuple(
            mul(d, int(r) if isinstance(r, np.integer) else r)
            for d, r in zip(s, repeats, strict=True)
        )
    ]


def _tile(_ctx: Context, x: Array, repeats: Array) -> Array:
    return np.tile(x, tuple(int(r) for r in repeats.reshape(-1)))


def _pad_shape(call: Call) -> Sequence[Shape]:
    s = list(call.shape(0))
    axes = normalise_axes(known_ints(call, 3), len(s)) if call.has(3) else list(range(len(s)))
    pads = call.numbers(1)
    for j, a in enumerate(axes):
        if pads is None:
            s[a] = call.unknown_dim(f"pad_{a}")
        else:
            s[a] = add(s[a], add(plain_text_array(pads[j]), plain_text_array(pads[j + len(axes)])))
    return [tuple(s)]


def plain_text_array(n: Any) -> Any:
    return int(n) if isinstance(n, np.integer) else n


def _pad(
    ctx: Context, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None
) -> Array:
    which = (
        normalise_axes(axes.reshape(-1).tolist(), x.ndim)
        if axes is not None
        else list(range(x.ndim))
    )
    flat = pads.reshape(-1).astype(int).tolist()
    before, after = [0] * x.ndim, [0] * x.ndim
    for j, a in enumerate(which):
        before[a], after[a] = flat[j], flat[j + len(which)]
    cut = tuple(
        slice(max(0, -b), x.shape[i] - max(0, -a))
        for i, (b, a) in enumerate(zip(before, after, strict=True))
    )
    x = x[cut]
    width = [(max(0, b), max(0, a)) for b, a in zip(before, after, strict=True)]
    mode = ctx.get("mode", "constant")
    if mode == "constant":
        fill = (
            value.reshape(()).item()
            if value is not None
            else (x.dtype.type(0) if x.dtype.kind != "O" else "")
        )
        return np.pad(x, width, mode="constant", constant_values=fill)
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"pad mode '{mode}' is none of constant, reflect, edge, wrap")
    return np.pad(x, width, mode=mode)


def _depth_to_space_shape(call: Call) -> Sequence[Shape]:
    n, c, h, w = call.shape(0)
    b = call.attr("blocksize")
    return [(n, floordiv(c, b * b), mul(h, b), mul(w, b))]


def _depth_to_space(ctx: Context, x: Array) -> Array:
    n, c, h, w = x.shape
    b = ctx.get("blocksize")
    if ctx.get("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth_shape(call: Call) -> Sequence[Shape]:
    n, c, h, w = call.shape(0)
    b = call.attr("blocksize")
    return [(n, mul(c, b * b), floordiv(h, b), floordiv(w, b))]


def _space_to_depth(ctx: Context, x: Array) -> Array:
    n, c, h, w = x.shape
    b = ctx.get("blocksize")
    if ctx.get("mode", "DCR") == "CRD":
        y = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 1, 3, 5, 2, 4)
    else:
        y = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * b * b, h // b, w // b)


def _trilu(ctx: Context, x: Array, k: Array | None = None) -> Array:
    diagonal = int(k.reshape(-1)[0]) if k is not None else 0
    return np.triu(x, diagonal) if ctx.get("upper", 1) else np.tril(x, diagonal)


def _reverse_sequence(ctx: Context, x: Array, lengths: Array) -> Array:
    batch, time = ctx.get("batch_axis", 1), ctx.get("time_axis", 0)
    moved = np.moveaxis(x, (batch, time), (0, 1)).copy()
    for i, n in enumerate(lengths.reshape(-1).astype(int)):
        moved[i, :n] = moved[i, :n][::-1]
    return np.moveaxis(moved, (0, 1), (batch, time))


def _center_crop_pad_shape(call: Call) -> Sequence[Shape]:
    s = list(call.shape(0))
    axes = normalise_axes(call.attr("axes") or range(len(s)), len(s))
    target = call.numbers(1)
    for j, a in enumerate(axes):
        s[a] = plain_text_array(target[j]) if target is not None else call.unknown_dim(f"crop_{a}")
    return [tuple(s)]


def _center_crop_pad(ctx: Context, x: Array, shape: Array) -> Array:
    axes = normalise_axes(ctx.get("axes") or range(x.ndim), x.ndim)
    for a, want in zip(axes, shape.reshape(-1).astype(int).tolist(), strict=True):
        have = x.shape[a]
        if want < have:
            start = (have - want) // 2
            x = np.take(x, range(start, start + want), axis=a)
        elif want > have:
            width = [(0, 0)] * x.ndim
            width[a] = ((want - have) // 2, want - have - (want - have) // 2)
            x = np.pad(x, width)
    return x


def _same_or_moved(call: Call) -> Space:
    """Each axis on its own; along one whose extent is another, elements lie elsewhere."""
    x, out = call.shape(0), call.out()
    map_ = tuple(at(i) if d == e else moved(i) for i, (d, e) in enumerate(zip(x, out, strict=True)))
    return space_of(call, map_)


def _slice_space(call: Call) -> Space:
    x, out = call.shape(0), call.out()
    axes = call.numbers(3) if call.has(3) else list(range(len(x)))
    steps = call.numbers(4) if call.has(4) else None
    cut = set(normalise_axes(axes, len(x))) if axes is not None else set(range(len(x)))
    forward = not call.has(4) or (steps is not None and all(n == 1 for n in steps))
    map_ = tuple(
        at(i) if i not in cut or (forward and x[i] == out[i]) else moved(i) for i in range(len(x))
    )
    return space_of(call, map_)


def _pad_space(call: Call) -> Space:
    rank = len(call.shape(0))
    pads = call.numbers(1)
    axes = known_ints(call, 3) if call.has(3) and 3 in call.known else list(range(rank))
    if pads is None:
        return space_of(call, tuple(moved(i) for i in range(rank)))
    count = len(axes)
    still = set(range(rank)) - {
        a % rank for j, a in enumerate(axes) if pads[j] != 0 or pads[j + count] != 0
    }
    value = () if call.has(2) and not call.shape(2) else None
    return space_of(
        call, tuple(at(i) if i in still else moved(i) for i in range(rank)), None, value
    )


def _transpose_space(call: Call) -> Space:
    rank = len(call.shape(0))
    perm = normalise_axes(call.attr("perm") or tuple(reversed(range(rank))), rank)
    return space_of(call, tuple(at(perm.index(i)) for i in range(rank)))


def _expand_space(call: Call) -> Space:
    return space_of(call, aligned(call.shape(0), call.out()))


def _axis_moved(call: Call, rank: int) -> Map:
    """All axes straight but the one that an attribute names."""
    axis = normalise_axis(call.attr("axis", 0), rank)
    return tuple(moved(i) if i == axis else at(i) for i in range(rank))


def _split_space(call: Call) -> Space:
    rank = len(call.shape(0))
    return space_of(call, _axis_moved(call, rank), results=[straight(rank)] * len(call.outputs))


def _concat_space(call: Call) -> Space:
    rank = len(call.out())
    return space_of(call, *(_axis_moved(call, rank) for _ in call.inputs))


def _depth_to_space_space(call: Call) -> Space:
    return space_of(call, (at(0), folded(1, 2, 3), folded(2), folded(3)))


def _space_to_depth_space(call: Call) -> Space:
    return space_of(call, (at(0), folded(1), folded(1, 2), folded(1, 3)))


def _reverse_space(call: Call) -> Space:
    rank = len(call.shape(0))
    time, batch = (
        normalise_axis(call.attr(n, d), rank) for n, d in (("time_axis", 0), ("batch_axis", 1))
    )
    return space_of(
        call, tuple(moved(i) if i == time else at(i) for i in range(rank)), (at(batch),)
    )


def _join_work(call: Call) -> Work:
    return Work(reads=all_reads(call), writes=all_writes(call))


def movement_row(
    kind: str,
    arity: tuple[int, int],
    shapes: Any,
    evaluate: Evaluate,
    lowering: Lowering = Lowering.MOVE,
    *,
    dtypes: Any = same_dtype,
    work: Any = None,
    space: Any = view_space,
    symbolic: bool = False,
    grows: bool = False,
    measures: bool = False,
    target: int | None = None,
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
        work=work or (no_work if lowering is Lowering.VIEW else move_work),
        evaluate=evaluate,
        lowering=lowering,
        symbolic=symbolic,
        grows=grows,
        measures=measures,
        target=target,
        splits=splits,
    )


VIEW = Lowering.VIEW


INT64 = always(DType.I64)


ROWS: tuple[OpRow, ...] = (
    movement_row("transpose", (1, 1), _transpose_shape, _transpose, symbolic=True, perm=tuple,
        space=_transpose_space),
    movement_row("expand", (2, 2), _expand_shape, _expand, symbolic=True, space=_expand_space,
        grows=True, target=1),
    movement_row("slice", (3, 5), _slice_shape, _slice, symbolic=True, space=_slice_space),
    movement_row("concat", (1, MANY), _concat_shape, _concat, work=_join_work,
        space=_concat_space, symbolic=True, axis=int),
    movement_row("split", (1, 2), _split_shape, _split, symbolic=True, axis=int,
        space=_split_space),
    movement_row("tile", (2, 2), _tile_shape, _tile, space=_same_or_moved, grows=True),
    movement_row("pad", (2, 4), _pad_shape, _pad, mode=str, space=_pad_space, grows=True),
    movement_row("depth_to_space", (1, 1), _depth_to_space_shape, _depth_to_space,
        blocksize=int, mode=str, space=_depth_to_space_space),
    movement_row("space_to_depth", (1, 1), _space_to_depth_shape, _space_to_depth,
        blocksize=int, mode=str, space=_space_to_depth_space),
    movement_row("trilu", (1, 2), same_shape, _trilu, upper=int, space=_same_or_moved,
        splits=but_along(lambda _: (-1, -2))),
    movement_row("reverse_sequence", (2, 2), same_shape, _reverse_sequence, batch_axis=int,
        time_axis=int, space=_reverse_space),
    movement_row("center_crop_pad", (2, 2), _center_crop_pad_shape, _center_crop_pad,
        axes=tuple, space=_same_or_moved, splits=never),
)  # fmt: skip
