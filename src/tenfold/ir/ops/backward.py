"""What only gradients need: kernels of the backward pass, kept whole as libraries have them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, add, mul, prod
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.attention import attention_dims, grouped_splits
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    everything,
    in_fp32,
    matrix_row,
    normalise_axis,
    per_input,
    per_output,
    pointwise_space,
    row_space,
    same_dtype,
    same_shape,
    space_of,
    widen,
)
from tenfold.ir.ops.pointwise import erf, sigmoid
from tenfold.ir.sharding import SUM, Cut, Split, along, by_loops
from tenfold.ir.space import ALL, DATA, Space, at, row, straight
from tenfold.ir.table import Call, Context, Lowering, Matmul, OpRow, Rate, Work, attributes

# --- element by element -------------------------------------------------------------------


def _relu_grad(_c: Context, x: Array, g: Array) -> Array:
    return np.where(x > 0, g, 0).astype(g.dtype)


def _gelu_grad(c: Context, x: Array, g: Array) -> Array:
    """Hendrycks, Gimpel 2016; the derivative of x Phi(x), or of its form with tanh."""
    if c.get("approximate", "none") == "tanh":
        a, b = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
        t = np.tanh(a * (x + b * x**3))
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * b * x * x)
    else:
        normal = np.exp(-0.5 * x * x) / np.float32(math.sqrt(2 * math.pi))
        slope = 0.5 * (1 + erf(x / np.float32(math.sqrt(2)))) + x * normal
    return (g * slope).astype(g.dtype)


def _swish_grad(c: Context, x: Array, g: Array) -> Array:
    a = np.asarray(c.get("alpha", 1.0), x.dtype)
    s = sigmoid(a * x)
    return (g * (s + a * x * s * (1 - s))).astype(g.dtype)


def _tanh_grad(_c: Context, y: Array, g: Array) -> Array:
    return g * (1 - y * y)


def _sigmoid_grad(_c: Context, y: Array, g: Array) -> Array:
    return g * y * (1 - y)


def _dropout(c: Context, x: Array) -> list[Array]:
    """Srivastava et al. 2014, scaled where it is kept."""
    keep = 1 - float(c.get("ratio"))
    rng = c.rng or np.random.default_rng(0)
    mask = rng.random(x.shape) < keep
    return [(widen(x) * mask / keep).astype(x.dtype), np.asarray(mask)]


def _dropout_grad(c: Context, g: Array, mask: Array) -> Array:
    return (widen(g) * mask / (1 - float(c.get("ratio")))).astype(g.dtype)


def _dropout_splits(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """Along any axis: each chip draws its own."""
    for axis, extent in enumerate(call.shape(0)):
        if isinstance(extent, int) and extent and extent % ways == 0:
            results = (Cut(axis), Cut(axis))[: len(call.outputs)]
            yield Split((Cut(axis),), results, anywhere=True)


def _pointwise(kind: str, evaluate: Any, flops: int, steps: int = 0, **attrs: type) -> OpRow:
    return OpRow(
        kind=kind,
        arity=(2, 2),
        attrs=attributes(**attrs),
        dtypes=same_dtype,
        shapes=same_shape,
        space=pointwise_space,
        work=per_output(flops, steps),
        evaluate=in_fp32(evaluate),
        lowering=Lowering.VECTOR,
    )


# --- rows ---------------------------------------------------------------------------------


def _softmax_grad(c: Context, y: Array, g: Array) -> Array:
    axis = c.get("axis", -1)
    return y * (g - (g * y).sum(axis=axis, keepdims=True))


def _softmax_grad_space(call: Call) -> Space:
    rank = len(call.shape(0))
    axis = normalise_axis(call.attr("axis", -1), rank)
    rows = tuple(row(i) if i == axis else at(i) for i in range(rank))
    return space_of(call, rows, rows)


def _norm_axes(call: Call) -> range:
    rank = len(call.shape(0))
    return range(normalise_axis(call.attr("axis", -1), rank), rank)


def _norm_grad_shape(call: Call) -> Sequence[Shape]:
    scale = call.shape(1) if call.has(1) else ()
    return [call.shape(0), scale, scale][: len(call.op.outputs)]


def _norm_grad_space(call: Call) -> Space:
    """Rows as in the norm; what is summed over all rows has no place in them."""
    space = row_space(call, list(_norm_axes(call)))
    x = space.maps[0]
    scale = everything(call, 1) if call.has(1) else None
    results = (straight(len(call.shape(0))), None, None)[: len(call.outputs)]
    return space_of(call, x, scale, x, parallel=call.shape(0), results=results)


def _norm_grad_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By rows: the gradient of the scale is then a sum over chips."""
    assert row_.kind
    shape, inside = call.shape(0), set(_norm_axes(call))
    sums = (SUM,) * (len(call.outputs) - 1)
    for axis, extent in enumerate(shape):
        if axis not in inside and isinstance(extent, int) and extent % ways == 0 and extent:
            yield Split((Cut(axis), None, Cut(axis)), (Cut(axis), *sums), anywhere=True)


def _sum_rows(x: Array, shape: tuple[int, ...]) -> Array:
    extra = x.ndim - len(shape)
    axes = tuple(a for a in range(x.ndim) if a < extra or shape[a - extra] == 1)
    return np.asarray(x.sum(axis=axes, keepdims=False)).reshape(shape)


def _norm_grads(
    c: Context, x: Array, scale: Array | None, g: Array, *, centred: bool
) -> list[Array]:
    """Ba, Kiros, Hinton 2016; Zhang, Sennrich 2019: dx = r (h - mean(h) - n mean(h n)) with
    h = dy scale, n the normalised x, r one over its deviation; without centring no mean(h).
    """
    wide, grad = widen(x), widen(g)
    axes = tuple(range(c.get("axis", -1) % x.ndim, x.ndim))
    mean = wide.mean(axis=axes, keepdims=True) if centred else wide.dtype.type(0)
    middle = wide - mean
    square = (middle * middle).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(square + wide.dtype.type(c.get("epsilon", 1e-5)))
    n = middle * inverse
    h = grad * widen(scale) if scale is not None else grad
    dx = h - n * (h * n).mean(axis=axes, keepdims=True)
    if centred:
        dx = dx - h.mean(axis=axes, keepdims=True)
    found = [(dx * inverse).astype(x.dtype)]
    if scale is not None and c.outputs > 1:
        found.append(_sum_rows(grad * n, scale.shape).astype(scale.dtype))
        found.append(_sum_rows(grad, scale.shape).astype(scale.dtype))
    return found[: c.outputs]


def _norm_grad(kind: str, *, centred: bool) -> OpRow:
    def evaluate(c: Context, x: Array, scale: Array | None, g: Array) -> list[Array]:
        return _norm_grads(c, x, scale, g, centred=centred)

    return OpRow(
        kind=kind,
        arity=(3, 3),
        attrs=attributes(axis=int, epsilon=float, stash_type=int),
        dtypes=same_dtype,
        shapes=_norm_grad_shape,
        space=_norm_grad_space,
        work=per_input(12),
        evaluate=evaluate,
        lowering=Lowering.REDUCE,
        rate=Rate.NORM,
        splits=_norm_grad_splits,
    )


# --- look-ups -----------------------------------------------------------------------------


def _gather_grad(c: Context, indices: Array, g: Array) -> Array:
    """Rows added up where they were looked up; places beyond the rows are another chip's."""
    rows, axis = c.get("rows"), c.get("axis", 0)
    head, tail = g.shape[:axis], g.shape[axis + indices.ndim :]
    flat = indices.reshape(-1)
    grads = np.moveaxis(widen(g).reshape(*head, flat.size, *tail), axis, 0)
    here = (flat >= 0) & (flat < rows)
    total = np.zeros((rows, *head, *tail), grads.dtype)
    np.add.at(total, flat[here], grads[here])
    return np.ascontiguousarray(np.moveaxis(total, 0, axis)).astype(g.dtype)


def _gather_grad_shape(call: Call) -> Sequence[Shape]:
    places, grads, axis = call.shape(0), call.shape(1), int(call.attr("axis", 0))
    return [(*grads[:axis], int(call.attr("rows")), *grads[axis + len(places) :])]


def _gather_grad_space(call: Call) -> Space:
    """Rows go where the data say; each column on its own."""
    places, grads, axis = call.shape(0), call.shape(1), int(call.attr("axis", 0))
    after = axis + len(places)
    found = tuple(
        at(i) if i < axis else DATA if i < after else at(i - len(places) + 1)
        for i in range(len(grads))
    )
    return space_of(call, (ALL,) * len(places), found)


def _gather_grad_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By columns; by rows, of which each chip has a stretch; by what is looked up, and summed."""
    yield from by_loops(row_, call, ways)
    rows, axis = int(call.attr("rows")), int(call.attr("axis", 0))
    if rows % ways == 0:
        each = {"rows": rows // ways}
        yield Split((None, None), (Cut(axis),), attrs=each, shifted=(0,))
    for place, extent in enumerate(call.shape(0)):
        if isinstance(extent, int) and extent % ways == 0 and extent:
            yield Split((Cut(place), Cut(axis + place)), (SUM,))


def _gather_grad_work(call: Call) -> Work:
    return Work(vector_flops=prod(call.shape(1)), reads=all_reads(call), writes=all_writes(call))


# --- attention ----------------------------------------------------------------------------


def _heads(x: Array, heads: int) -> Array:
    return np.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2) if x.ndim == 3 else x


def _merged(x: Array, rank: int) -> Array:
    return np.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1) if rank == 3 else x


def _attention_grad(
    c: Context, q: Array, k: Array, v: Array, g: Array, _y: Array, mask: Array | None = None
) -> list[Array]:
    """Dao et al. 2022, FlashAttention, appendix B: scores again, then the four products."""
    hq, hk = c.get("q_num_heads", q.shape[1]), c.get("kv_num_heads", k.shape[1])
    Q, K, V, G = (_heads(widen(x), h) for x, h in ((q, hq), (k, hk), (v, hk), (g, hq)))
    share = hq // hk
    K2, V2 = (np.repeat(x, share, 1) for x in (K, V))
    scale = np.float32(c.get("scale", 1 / math.sqrt(Q.shape[-1])) or 1 / math.sqrt(Q.shape[-1]))
    scores = (Q @ np.swapaxes(K2, -1, -2)) * scale
    cap = c.get("softcap", 0.0)
    bent = np.tanh(scores / cap) if cap else scores
    raw = bent * cap if cap else scores
    P = _probabilities(c, raw, mask)
    dV = np.swapaxes(P, -1, -2) @ G
    dP = G @ np.swapaxes(V2, -1, -2)
    dS = P * (dP - (dP * P).sum(-1, keepdims=True))
    d_mask = dS
    if cap:
        dS = dS * (1 - bent * bent)
    dS = dS * scale
    dQ, dK = dS @ K2, np.swapaxes(dS, -1, -2) @ Q
    dK, dV = (x.reshape(x.shape[0], hk, share, *x.shape[2:]).sum(2) for x in (dK, dV))
    rank = q.ndim
    found = [_merged(x, rank).astype(q.dtype) for x in (dQ, dK, dV)]
    if c.outputs > 3 and mask is not None:
        found.append(_sum_rows(d_mask, mask.shape).astype(mask.dtype))
    return found


def _probabilities(c: Context, scores: Array, mask: Array | None) -> Array:
    queries, keys = scores.shape[-2:]
    allowed = np.ones((queries, keys), bool)
    if mask is not None and mask.dtype == bool:
        allowed = allowed & mask
    elif mask is not None:
        scores = scores + widen(mask)
    places, after = np.arange(keys), np.arange(queries)[:, None]
    if c.get("is_causal", 0):
        allowed = allowed & (places <= after)
    if c.get("left_window_size", -1) >= 0:
        allowed = allowed & (places >= after - c.get("left_window_size"))
    if c.get("right_window_size", -1) >= 0:
        allowed = allowed & (places <= after + c.get("right_window_size"))
    kept = np.where(allowed, scores, -np.inf)
    most = kept.max(-1, keepdims=True)
    e = np.exp(kept - np.where(np.isfinite(most), most, 0))
    return np.asarray(e / np.maximum(e.sum(-1, keepdims=True), np.finfo(e.dtype).tiny))


def _attention_grad_shape(call: Call) -> Sequence[Shape]:
    found = [call.shape(0), call.shape(1), call.shape(2)]
    return [*found, call.shape(5)] if len(call.op.outputs) > 3 else found


def _attention_grad_space(call: Call) -> Space:
    """Items of a batch apart."""
    q = call.shape(0)
    items = [(at(0), *(ALL for _ in call.shape(i)[1:])) for i in range(5)]
    mask = everything(call, 5)
    if call.has(5) and len(call.shape(5)) == 4 and call.shape(5)[0] == q[0] != 1:
        mask = (at(0), ALL, ALL, ALL)
    results = [(at(0), *(ALL for _ in call.shape(i)[1:])) for i in range(3)]
    given = [*results, mask][: len(call.outputs)]
    return space_of(call, *items, mask, parallel=q, results=given)


def _attention_grad_splits(row_: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By items or by heads, as the attention itself; of keys that all heads share, sums."""
    items = along(row_, call, row_.space(call), 0, ways)
    if items is not None:
        yield items
    found = grouped_splits(call, 5, ways)
    if found is None:
        return
    mixed, kept, mask, attrs = found
    cuts = (mixed, kept, kept, mixed, mixed, mask)
    given = tuple(c if call.has(i) else None for i, c in enumerate(cuts[: len(call.inputs)]))
    results = (mixed, kept or SUM, kept or SUM, mask or SUM)
    yield Split(given, results[: len(call.outputs)], attrs=attrs)


def _attention_grad_work(call: Call) -> Work:
    """The four products of the gradient; scores are computed again beside them, and blocks that a
    causal mask leaves out are not.
    """
    d = attention_dims(call)
    each, keys = mul(d.batch, d.heads), d.keys
    computed: Dim = keys
    if d.causal and isinstance(keys, int):
        computed = (keys + min(keys, 128)) // 2
    if d.window is not None and isinstance(computed, int):
        computed = min(computed, d.window + 128)

    def products(k: Dim) -> tuple[Matmul, ...]:
        scores = Matmul(each, d.queries, k, d.key_width)
        return (
            scores,
            Matmul(each, d.queries, k, d.value_width),
            Matmul(each, k, d.value_width, d.queries),
            Matmul(each, d.queries, d.key_width, k),
            Matmul(each, k, d.key_width, d.queries),
        )

    macs: Dim = 0
    for m in products(keys)[1:]:
        macs = add(macs, m.macs)
    scores = prod((each, d.queries, keys))
    return Work(
        contraction_flops=mul(2, macs),
        vector_flops=mul(8, scores),
        transcendentals=scores,
        matmuls=products(computed),
        reads=all_reads(call),
        writes=all_writes(call),
    )


_ATTENTION = attributes(
    is_causal=int, kv_num_heads=int, q_num_heads=int, scale=float, softcap=float,
    left_window_size=int, right_window_size=int, qk_matmul_output_mode=int, softmax_precision=int,
)  # fmt: skip
ROWS: tuple[OpRow, ...] = (
    # a kernel of its own in training, which keeps what it drew
    OpRow(kind="dropout", arity=(1, 1), attrs=attributes(ratio=float),
        dtypes=lambda c: [c.input(0).dtype, DType.BOOL][: len(c.op.outputs)],
        shapes=lambda c: [c.shape(0)] * len(c.op.outputs), space=pointwise_space,
        work=per_output(6), evaluate=_dropout, lowering=Lowering.VECTOR, pure=False,
        splits=_dropout_splits),
    OpRow(kind="dropout_grad", arity=(2, 2), attrs=attributes(ratio=float), dtypes=same_dtype,
        shapes=same_shape, space=pointwise_space, work=per_output(2), evaluate=_dropout_grad,
        lowering=Lowering.VECTOR),
    _pointwise("relu_grad", _relu_grad, 1),
    _pointwise("gelu_grad", _gelu_grad, 8, 1, approximate=str),
    _pointwise("swish_grad", _swish_grad, 7, 1, alpha=float),
    _pointwise("tanh_grad", _tanh_grad, 3),
    _pointwise("sigmoid_grad", _sigmoid_grad, 3),
    OpRow(kind="softmax_grad", arity=(2, 2), attrs=attributes(axis=int), dtypes=same_dtype,
        shapes=same_shape, space=_softmax_grad_space, work=per_input(4),
        evaluate=in_fp32(_softmax_grad), lowering=Lowering.REDUCE, rate=Rate.SOFTMAX),
    _norm_grad("layer_norm_grad", centred=True),
    _norm_grad("rms_norm_grad", centred=False),
    OpRow(kind="gather_grad", arity=(2, 2), attrs=attributes(rows=int, axis=int),
        dtypes=lambda c: [c.input(1).dtype],
        shapes=_gather_grad_shape,
        space=_gather_grad_space, work=_gather_grad_work, evaluate=_gather_grad,
        lowering=Lowering.GATHER, splits=_gather_grad_splits),
    replace(
        matrix_row("attention_grad", (5, 6), _attention_grad_shape, _attention_grad_space,
            _attention_grad_work, _attention_grad, _ATTENTION, splits=_attention_grad_splits),
        backward_of=attention_dims),
)  # fmt: skip
