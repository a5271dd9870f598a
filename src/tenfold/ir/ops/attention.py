"""Attention, kept whole, and what goes with it: rotary positions, short convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, Shape, add, floordiv, maximum, minimum, mul, prod, simplify
from tenfold.ir.graph import Array, Attr, Value
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    everything,
    matrix_row,
    need_spread,
    same_dtype,
    same_shape,
    space_of,
)
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.sharding import Cut, Split, along, by_loops
from tenfold.ir.space import ALL, Map, Serial, at, folded, moved, row, straight, window
from tenfold.ir.table import (
    AttentionDims,
    Call,
    Context,
    Lowering,
    Matmul,
    OpRow,
    Rate,
    Space,
    Work,
    attributes,
)


def attention_dims(call: Call) -> AttentionDims:
    """Raises ValueError for operands of rank 3 without numbers of heads."""
    q, k, v = call.shape(0), call.shape(1), call.shape(2)
    cached = call.op.kind == "cached_attention"
    # whose further operands are no cache
    backward = call.op.kind in ("attention_grad", "attention_apart_grad")
    past = call.shape(4)[2] if call.has(4) and not backward else 0
    causal = cached or bool(call.attr("is_causal", 0))
    four = len(q) == 4
    hq, hk = (q[1], k[1]) if four else (call.attr("q_num_heads"), call.attr("kv_num_heads"))
    if not hq or not hk:
        raise ValueError("attention on rank 3 needs q_num_heads and kv_num_heads")
    ways = int(call.attr("ways", 1))  # chips that have a stretch of the sequence each
    keys = mul(add(k[2] if four else k[1], past), ways)
    return AttentionDims(
        batch=q[0],
        heads=hq,
        kv_heads=hk,
        queries=q[2] if four else q[1],
        keys=_filled(call, keys) if cached else keys,
        key_width=q[3] if four else floordiv(q[2], hq),
        value_width=v[3] if four else floordiv(v[2], hk),
        causal=causal,
        window=_attention_window(call, causal),
        spread=ways > 1,
    )


def _filled(call: Call, room: Dim) -> Dim:
    """Keys of a cache that are attended: its total where that is known, however much room there
    is.
    """
    total = call.numbers(7)
    return room if total is None else minimum(room, simplify(total[0]))


def _attention_window(call: Call, causal: bool) -> int | None:
    """Keys that one query sees at most, itself included, by ``left_window_size`` and
    ``right_window_size``; None: no bound.

    Causal attention sees nothing to the right whatever the window says.
    """
    left = int(call.attr("left_window_size", -1))
    right = 0 if causal else int(call.attr("right_window_size", -1))
    return None if left < 0 or right < 0 else left + right + 1


def _attention_shape(call: Call) -> Sequence[Shape]:
    d = attention_dims(call)
    scores: Shape = (d.batch, d.heads, d.queries, d.keys)
    if call.has(3):
        _check_mask(call, scores)
    y: Shape = (d.batch, d.heads, d.queries, d.value_width)
    if len(call.shape(0)) != 4:
        y = (d.batch, d.queries, mul(d.heads, d.value_width))
    cache: Shape = (d.batch, d.kv_heads, d.keys)
    results = [y, (*cache, d.key_width), (*cache, d.value_width), scores]
    return results[: len(call.op.outputs)]


def _check_mask(call: Call, scores: Shape) -> None:
    """Raises ValueError for a mask that does not spread over the scores; fewer keys than there are
    mean that the last are masked.
    """
    keys = call.shape(3)[-1:]
    if not keys:
        raise ValueError("the mask is a single number, must have an axis of keys")
    shorter = all(
        isinstance(k, int) and isinstance(s, int) and k < s
        for k, s in zip(keys, scores[-1:], strict=False)
    )
    need_spread(call, 3, (*scores[:-1], *keys) if shorter else scores, "the mask")


def _attention_work(call: Call) -> Work:
    """Two products and a softmax over the scores; a causal mask halves nothing here (XLA counts all
    scores too).

    A window does: each query meets as many keys as its window has, and of the past only what the
    windows reach is read.
    """
    d = attention_dims(call)
    keys = d.keys if d.window is None else minimum(d.keys, d.window)
    each = mul(d.batch, d.heads)
    products = (
        Matmul(each, d.queries, keys, d.key_width),
        Matmul(each, d.queries, d.value_width, keys),
    )
    scores = prod((each, d.queries, keys))
    return Work(
        contraction_flops=mul(2, add(products[0].macs, products[1].macs)),
        vector_flops=mul(5, scores),
        transcendentals=scores,
        matmuls=products,
        reads=_attention_reads(call),
        writes=_attention_writes(call),
    )


def _attention_writes(call: Call) -> tuple[Dim, ...]:
    """A cache that has room for the total is written in place: this step's keys and values only
    (ONNX Runtime shares the buffer of past and present where they are as long).
    """
    whole = all_writes(call)
    if call.op.kind != "cached_attention" or not call.has(4):
        return whole
    steps, room = call.shape(1)[1], call.shape(4)[2]
    total = call.numbers(7)
    if total is None or maximum(room, simplify(total[0])) != room:
        return whole

    def new(cache: Value) -> Dim:
        b, heads, _, width = cache.dims
        return floordiv(mul(prod((b, heads, steps, width)), cache.dtype.bits), 8)

    return (whole[0], *(0 if v is None else new(v) for v in call.outputs[1:]))


def _attention_reads(call: Call) -> tuple[Dim, ...]:
    whole, d = all_reads(call), attention_dims(call)
    most = d.keys if d.window is None else minimum(d.keys, d.window - 1)

    def reached(i: int) -> Dim:
        b, heads, past, width = call.shape(i)
        return floordiv(
            mul(prod((b, heads, minimum(past, most), width)), call.input(i).dtype.bits), 8
        )

    return tuple(reached(i) if i in (4, 5) and call.has(i) else w for i, w in enumerate(whole))


def _attention_space(call: Call) -> Space:
    """Loops over the result, then over keys and over the width in which they meet queries.

    On rank 3 heads and their width are one axis. What comes after the first three - mask, past,
    lengths - holds the batch first, where it is not spread over it; the caches that are given on
    and the scores do too.
    """
    d, out = attention_dims(call), call.out()
    keys, width = len(out), len(out) + 1
    if len(out) == 4:
        maps: list[Map | None] = [
            (at(0), at(1), at(2), at(width)),
            (at(0), folded(1), at(keys), at(width)),
            (at(0), folded(1), at(keys), at(3)),
        ]
    else:
        maps = [
            (at(0), at(1), folded(2, width)),
            (at(0), at(keys), folded(2, width)),
            (at(0), at(keys), folded(2)),
        ]
    maps += [_of_items(call, i, d.batch) for i in range(3, len(call.inputs))]
    results = [straight(len(out)), *((at(0), ALL, ALL, ALL) for _ in call.outputs[1:])]
    return space_of(call, *maps, reduced=(d.keys, d.key_width), results=results)


def _of_items(call: Call, i: int, batch: Dim) -> Map | None:
    """An operand whose first axis is the batch, where it has as many; all else as it may be."""
    if not call.has(i):
        return None
    shape = call.shape(i)
    items = len(shape) > 0 and shape[0] == batch and (i != 3 or len(shape) == 4)
    return tuple(at(0) if items and k == 0 else ALL for k in range(len(shape)))


def _attention_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By items of a batch, or by heads: those of the keys too, where they are as many, and one
    head of keys is on every chip.
    """
    items = along(row_, call, row_.space(call), 0, ways)
    if items is not None:
        yield items
    found = grouped_splits(call, 3, ways)
    if found is None:
        return
    mixed, keys, mask, each = found
    kept = Cut(1) if keys is not None else None
    operands: list[Cut | None] = [mixed, keys, keys, mask, kept, kept, None, None]
    given = (c if call.has(i) else None for i, c in enumerate(operands[: len(call.inputs)]))
    results = (mixed, kept, kept, Cut(1))
    yield Split(tuple(given), results[: len(call.outputs)], attrs=each)


def grouped_splits(
    call: Call, mask: int, ways: int
) -> tuple[Cut, Cut | None, Cut | None, dict[str, Attr]] | None:
    """How queries, keys and the mask (input number ``mask``) of an attention are cut by heads, and
    the attributes of a part; keys are whole where there is one head of them. None where heads do
    not divide.
    """
    d = attention_dims(call)
    heads: Any = d.heads
    keys: Any = d.kv_heads
    if heads % ways or (keys % ways and keys != 1):
        return None
    mixed = Cut(1 if len(call.shape(0)) == 4 else 2)
    kept = mixed if keys % ways == 0 else None
    attrs = {n: int(call.attr(n)) for n in ("q_num_heads", "kv_num_heads") if call.attr(n)}
    each: dict[str, Attr] = {
        n: k // ways if n == "q_num_heads" or kept else k for n, k in attrs.items()
    }
    return mixed, kept, _mask_cut(call, mask, heads), each


def _mask_cut(call: Call, i: int, heads: int) -> Cut | None:
    """Where a mask is cut with the heads; None where it is the same for all."""
    shape = call.shape(i) if call.has(i) else ()
    axis = len(shape) - 3
    return Cut(axis) if axis >= 0 and shape[axis] == heads > 1 else None


def _attention(
    ctx: Context, q: Array, k: Array, v: Array, mask: Array | None = None, *rest: Array | None
) -> Sequence[Array]:
    """By the standard's reference, which counts causal positions along the mask's own query axis:
    it must be there whole.
    """
    if mask is not None:
        mask = np.broadcast_to(mask, (*mask.shape[:-2], q.shape[-2], mask.shape[-1]))
    return _ATTENTION_REFERENCE(ctx, q, k, v, mask, *rest)


_ATTENTION_REFERENCE = onnx_reference("Attention", 25)


def _cached_attention_shape(call: Call) -> Sequence[Shape]:
    """The cache has room for ``total`` keys; one that is longer than that stays as long as it
    is.
    """
    d = attention_dims(call)
    if call.has(3):
        held = call.shape(4)[2] if call.has(4) else 0
        _check_mask(call, (d.batch, d.heads, d.queries, add(call.shape(1)[1], held)))
    total = call.numbers(7)
    past = call.shape(4)[2] if call.has(4) else 0
    room = (
        maximum(past, simplify(total[0]))
        if total is not None
        else call.unknown_dim("cache", d.keys)
    )
    cache: Shape = (d.batch, d.kv_heads, room)
    y: Shape = (d.batch, d.queries, mul(d.heads, d.value_width))
    return [y, (*cache, d.key_width), (*cache, d.value_width)][: len(call.op.outputs)]


def _cached_attention(
    ctx: Context, q: Array, k: Array, v: Array, bias: Array | None, *cache: Any
) -> Sequence[Array]:
    """Causal attention over a cache in which each sequence has a length of its own, this step
    included.

    As ONNX Runtime's GroupQueryAttention: the step's keys go where the sequence's past ends (at the
    front if the step is all there is), and nothing beyond the sequence is attended.
    """
    past_k, past_v, lengths, total = cache
    hq, hk = ctx.get("q_num_heads"), ctx.get("kv_num_heads")
    steps, most = q.shape[1], int(total.reshape(-1)[0])
    ends = lengths.reshape(-1).astype(np.int64)
    starts = np.zeros_like(ends) if most == steps else ends - steps
    kept = past_k.shape[2] if past_k is not None else 0
    if (
        ends.shape != q.shape[:1]
        or starts.min(initial=0) < 0
        or starts.max(initial=0) > kept
        or starts.max(initial=0) + steps > max(most, kept)
    ):
        raise ModelError(
            f"sequences of lengths {ends.tolist()[:8]} do not fit a past of {kept}, a step of"
            f" {steps} and a total of {most}"
        )
    keys = _into_cache(past_k, _heads(k, hk), starts, most)
    values = _into_cache(past_v, _heads(v, hk), starts, most)
    last = np.minimum(np.arange(steps) + starts[:, None], ends[:, None] - 1)
    allowed = (np.arange(keys.shape[2]) <= last[..., None])[:, None]
    if ctx.get("left_window_size", -1) >= 0:
        allowed &= (np.arange(keys.shape[2]) >= last[..., None] - ctx.get("left_window_size"))[
            :, None
        ]
    room = (
        np.zeros(keys.shape[2], q.dtype)
        if bias is None
        else np.pad(bias, [(0, 0)] * 3 + [(0, keys.shape[2] - bias.shape[-1])])
    )
    mask = np.where(allowed, room, q.dtype.type(-np.inf))
    scale = {"scale": ctx.attrs["scale"]} if "scale" in ctx.attrs else {}
    (y,) = _ATTENTION_REFERENCE(Context(scale, 1), _heads(q, hq), keys, values, mask)
    return np.swapaxes(y, 1, 2).reshape(q.shape[0], steps, -1), keys, values


def _heads(x: Array, heads: int) -> Array:
    return np.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2)


def _into_cache(past: Array | None, new: Array, starts: Array, total: int) -> Array:
    """[batch, heads, room, width]: each sequence's past up to its start, then the new entries, then
    zeros.
    """
    old = past if past is not None else new[:, :, :0]
    cache = np.zeros((*new.shape[:2], max(old.shape[2], total), new.shape[3]), new.dtype)
    for b, start in enumerate(starts):
        cache[b, :, :start] = old[b, :, :start]
        cache[b, :, start : start + new.shape[2]] = new[b]
    return cache


def _linear_attention_shape(call: Call) -> Sequence[Shape]:
    q, v = call.shape(0), call.shape(2)
    hq, hk = call.attr("q_num_heads"), call.attr("kv_num_heads")
    d = floordiv(q[-1], hq)
    dv = floordiv(v[-1], hk)
    return [(q[0], q[1], mul(hq, dv)), (q[0], hk, d, dv)][: len(call.op.outputs)]


def _linear_attention_work(call: Call) -> Work:
    q, v = call.shape(0), call.shape(2)
    hq, hk = call.attr("q_num_heads"), call.attr("kv_num_heads")
    d, dv = floordiv(q[-1], hq), floordiv(v[-1], hk)
    step = Matmul(mul(q[0], hk), d, dv, 1, q[1])
    read = Matmul(mul(q[0], hq), 1, dv, d, q[1])
    return Work(
        contraction_flops=mul(2, add(step.macs, read.macs)),
        matmuls=(step, read),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _causal_conv_shape(call: Call) -> Sequence[Shape]:
    x, w = call.shape(0), call.shape(1)
    return [x, (x[0], x[1], add(w[-1], -1))][: len(call.op.outputs)]


def _causal_conv_work(call: Call) -> Work:
    taps = mul(prod(call.shape(0)), call.shape(1)[-1])
    return Work(vector_flops=mul(2, taps), reads=all_reads(call), writes=all_writes(call))


def _rotary_work(call: Call) -> Work:
    return Work(
        vector_flops=mul(3, prod(call.shape(0))), reads=all_reads(call), writes=all_writes(call)
    )


def _linear_attention_space(call: Call) -> Space:
    """Items of a batch apart, one position after the other."""
    q = call.shape(0)
    maps = (_of_items(call, i, q[0]) for i in range(1, len(call.inputs)))
    results = [(at(0), at(1), at(2)), *((at(0), ALL, ALL, ALL) for _ in call.outputs[1:])]
    return space_of(call, (at(0), row(1), ALL), *maps, results=results, serial=Serial(q[1]))


def _linear_attention_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By items of a batch, or by heads, with the keys of each."""
    items = along(row_, call, row_.space(call), 0, ways)
    if items is not None:
        yield items
    heads, keys = int(call.attr("q_num_heads")), int(call.attr("kv_num_heads"))
    if heads % ways or keys % ways:
        return
    cuts = (Cut(2), Cut(2), Cut(2), Cut(1), Cut(2), Cut(2), None, None)
    given = tuple(
        # a decay or a rate of writing may be one for all heads
        c if call.has(i) and (i < 4 or call.shape(i)[-1] != 1) else None
        for i, c in enumerate(cuts[: len(call.inputs)])
    )
    attrs = {"q_num_heads": heads // ways, "kv_num_heads": keys // ways}
    yield Split(given, (Cut(2), Cut(1))[: len(call.outputs)], attrs=attrs)


def _rotary_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By heads too where they are one axis with their width."""
    yield from by_loops(row_, call, ways)
    heads = int(call.attr("num_heads", 0))
    if len(call.shape(0)) == 3 and heads and heads % ways == 0:
        operands = (Cut(2), *(None for _ in call.inputs[1:]))
        yield Split(operands, (Cut(2),), attrs={"num_heads": heads // ways})


def _rotary_space(call: Call) -> Space:
    """Each pair of numbers of a head is turned by the angle of its position."""
    x = call.shape(0)
    last = len(x) - 1
    heads = len(x) == 4
    turned = tuple(moved(i) if i == last else at(i) for i in range(len(x)))
    positions = call.has(3) and len(call.shape(3)) == 2
    place = 2 if heads else 1
    angles: Map = (ALL, ALL) if positions else (at(0), at(place), ALL)
    maps: list[Map | None] = [turned, angles, angles]
    if call.has(3):
        maps.append((at(0), at(place)) if positions else everything(call, 3))
    return space_of(call, *maps)


def _causal_conv_space(call: Call) -> Space:
    """Windows along the sequence, each channel on its own, from the end of the one before on."""
    filters = (at(1), *(ALL for _ in call.shape(1)[1:]))
    bias = (at(1),)
    state = (at(0), at(1), ALL)
    results = [straight(3), *(state for _ in call.outputs[1:])]
    return space_of(call, (at(0), at(1), window(2)), filters, bias, state, results=results)


_ATTENTION = {
    "is_causal": int, "kv_num_heads": int, "q_num_heads": int, "qk_matmul_output_mode": int,
    "scale": float, "softcap": float, "softmax_precision": int, "left_window_size": int,
    "right_window_size": int,
}  # fmt: skip

_LINEAR = {
    "q_num_heads": int,
    "kv_num_heads": int,
    "scale": float,
    "update_rule": str,
    "chunk_size": int,
}

_CACHED = {"kv_num_heads": int, "q_num_heads": int, "scale": float, "left_window_size": int}


ROWS: tuple[OpRow, ...] = (
    matrix_row("attention", (3, 7), _attention_shape, _attention_space, _attention_work,
        _attention, _ATTENTION, Rate.SOFTMAX, attention_dims, splits=_attention_splits),
    matrix_row("cached_attention", (8, 8), _cached_attention_shape, _attention_space,
        _attention_work, _cached_attention, _CACHED, Rate.SOFTMAX, attention_dims,
        splits=_attention_splits),
    matrix_row("linear_attention", (3, 8), _linear_attention_shape, _linear_attention_space,
        _linear_attention_work, onnx_reference("LinearAttention", 27), _LINEAR,
        splits=_linear_attention_splits),
    OpRow(kind="rotary_embedding", arity=(3, 4), attrs=attributes(interleaved=int,
        num_heads=int, rotary_embedding_dim=int), dtypes=same_dtype, shapes=same_shape,
        space=_rotary_space, work=_rotary_work, evaluate=onnx_reference("RotaryEmbedding"),
        lowering=Lowering.VECTOR, splits=_rotary_splits),
    OpRow(kind="causal_conv", arity=(2, 4), attrs=attributes(activation=str), dtypes=same_dtype,
        shapes=_causal_conv_shape, space=_causal_conv_space, work=_causal_conv_work,
        evaluate=onnx_reference("CausalConvWithState", 27), lowering=Lowering.VECTOR),
)  # fmt: skip
