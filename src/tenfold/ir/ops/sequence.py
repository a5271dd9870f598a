"""Attention and recurrent layers, kept whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, Shape, add, floordiv, maximum, minimum, mul, prod, simplify
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    first,
    need_shape,
    need_spread,
    same_dtype,
    same_shape,
    widen,
)
from tenfold.ir.ops.pointwise import sigmoid
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.table import (
    Access,
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

# --- attention ---------------------------------------------------------------------------


def attention_dims(call: Call) -> tuple[Dim, Dim, Dim, Dim, Dim, Dim, Dim]:
    """batch, query heads, key-value heads, query length, key length (with the past), head size of
    k, of v.
    """
    q, k, v = call.shape(0), call.shape(1), call.shape(2)
    past = call.shape(4)[2] if call.has(4) else 0
    if len(q) == 4:
        return q[0], q[1], k[1], q[2], add(k[2], past), q[3], v[3]
    hq, hk = call.attr("q_num_heads"), call.attr("kv_num_heads")
    if not hq or not hk:
        raise ValueError("attention on rank 3 needs q_num_heads and kv_num_heads")
    return q[0], hq, hk, q[1], add(k[1], past), floordiv(q[2], hq), floordiv(v[2], hk)


def attention_window(call: Call) -> int | None:
    """Keys that one query sees at most, itself included, by ``left_window_size`` and
    ``right_window_size``; None: no bound.

    Causal attention sees nothing to the right whatever the window says.
    """
    causal = call.op.kind == "cached_attention" or bool(call.attr("is_causal", 0))
    left, right = (
        int(call.attr("left_window_size", -1)),
        0 if causal else int(call.attr("right_window_size", -1)),
    )
    return None if left < 0 or right < 0 else left + right + 1


def _attention_shape(call: Call) -> Sequence[Shape]:
    b, hq, hk, lq, lk, dk, dv = attention_dims(call)
    if call.has(3):
        _check_mask(call, (b, hq, lq, lk))
    y: Shape = (b, hq, lq, dv) if len(call.shape(0)) == 4 else (b, lq, mul(hq, dv))
    return [y, (b, hk, lk, dk), (b, hk, lk, dv), (b, hq, lq, lk)][: len(call.op.outputs)]


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
    b, hq, _, lq, lk, dk, dv = attention_dims(call)
    window = attention_window(call)
    if window is not None:
        lk = minimum(lk, window)
    products = (Matmul(mul(b, hq), lq, lk, dk), Matmul(mul(b, hq), lq, dv, lk))
    scores = prod((b, hq, lq, lk))
    return Work(
        contraction_flops=mul(2, add(products[0].macs, products[1].macs)),
        vector_flops=mul(5, scores),
        transcendentals=scores,
        matmuls=products,
        reads=_attention_reads(call),
        writes=all_writes(call),
    )


def _attention_reads(call: Call) -> tuple[Dim, ...]:
    whole, window = all_reads(call), attention_window(call)
    if window is None:
        return whole

    def reached(i: int) -> Dim:
        b, heads, past, width = call.shape(i)
        return floordiv(
            mul(prod((b, heads, minimum(past, window - 1), width)), call.input(i).dtype.bits), 8
        )

    return tuple(reached(i) if i in (4, 5) and call.has(i) else w for i, w in enumerate(whole))


def _attention_space(call: Call) -> Space:
    _, _, _, _, lk, dk, _ = attention_dims(call)
    return Space(
        call.out(),
        (lk, dk),
        tuple(Access.CONTRACT if i < 3 else Access.BROADCAST for i in range(len(call.inputs))),
    )


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
    b, hq, hk, lq, most, dk, dv = attention_dims(call)
    if call.has(3):
        _check_mask(call, (b, hq, lq, most))
    total = call.numbers(7)
    past = call.shape(4)[2] if call.has(4) else 0
    room = (
        maximum(past, simplify(total[0])) if total is not None else call.unknown_dim("cache", most)
    )
    return [(b, lq, mul(hq, dv)), (b, hk, room, dk), (b, hk, room, dv)][: len(call.op.outputs)]


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


# --- recurrent layers -------------------------------------------------------------------


def _directions(attrs: Any) -> list[bool]:
    """One entry per direction: does it run backwards."""
    known = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    direction = attrs.get("direction", "forward")
    if direction not in known:
        raise ValueError(f"the direction '{direction}' is none of {', '.join(known)}")
    return known[direction]


def _affine(x: Array, alpha: float, beta: float) -> Array:
    return alpha * x + beta


_ACTIVATIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "relu": lambda x, a, b: np.maximum(x, 0),
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: sigmoid(x),
    "affine": _affine,
    "leakyrelu": lambda x, a, b: np.where(x < 0, a * x, x),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x > 0, x, a * np.expm1(x)),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.logaddexp(x, 0),
}
_DEFAULTS = {
    "affine": (1.0, 0.0), "leakyrelu": (0.01, 0.0), "thresholdedrelu": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0), "hardsigmoid": (0.2, 0.5), "elu": (1.0, 0.0),
}  # fmt: skip


def _activations(
    ctx: Context, direction: int, names: Sequence[str]
) -> list[Callable[[Array], Array]]:
    """The activation functions of one direction, with their clip and parameters applied."""
    given = ctx.get("activations") or tuple(names) * 2
    mine = [n.lower() for n in given[direction * len(names) : (direction + 1) * len(names)]]
    alphas, betas = list(ctx.get("activation_alpha") or ()), list(ctx.get("activation_beta") or ())
    clip = ctx.get("clip", 0.0)

    def make(name: str) -> Callable[[Array], Array]:
        a0, b0 = _DEFAULTS.get(name, (0.0, 0.0))
        a = alphas.pop(0) if alphas and name in _DEFAULTS else a0
        b = betas.pop(0) if betas and name in ("affine", "scaledtanh", "hardsigmoid") else b0
        fn = _ACTIVATIONS[name]
        return (lambda x: fn(np.clip(x, -clip, clip), a, b)) if clip else (lambda x: fn(x, a, b))

    return [make(n) for n in mine]


def _recurrent_shape(
    states: int, gates: int, *, hidden_last: bool = True
) -> Callable[[Call], Sequence[Shape]]:
    """The rule of a layer with so many states and gates; ``hidden_last`` is how the standard lays
    out its weights.
    """

    def rule(call: Call) -> Sequence[Shape]:
        x = call.shape(0)
        if len(x) != 3:
            raise ValueError(f"a recurrent layer takes [sequence, batch, width], got rank {len(x)}")
        hidden: Dim = call.attr("hidden_size")
        count = len(_directions(call.op.attrs))
        wide, batch = mul(gates, hidden), x[0] if call.attr("layout", 0) else x[1]
        need_shape(
            call, 1, (count, wide, x[2]) if hidden_last else (count, x[2], wide), "the weight W"
        )
        need_shape(
            call,
            2,
            (count, wide, hidden) if hidden_last else (count, hidden, wide),
            "the recurrent weight R",
        )
        need_shape(call, 3, (count, mul(2, wide)), "the bias B")
        need_shape(call, 4, (batch,), "the list of sequence lengths")
        for i in range(5, 5 + states):
            need_shape(
                call,
                i,
                (batch, count, hidden) if call.attr("layout", 0) else (count, batch, hidden),
                "an initial state",
            )
        if states == 2:
            need_shape(call, 7, (count, mul(3, hidden)), "the peephole weight P")
        if call.attr("layout", 0):
            return [(x[0], x[1], count, hidden), *[(x[0], count, hidden)] * states][
                : len(call.op.outputs)
            ]
        return [(x[0], count, x[1], hidden), *[(count, x[1], hidden)] * states][
            : len(call.op.outputs)
        ]

    return rule


def _recurrent_work(gates: int, vector: int, transcendentals: int) -> Callable[[Call], Work]:
    def rule(call: Call) -> Work:
        x = call.shape(0)
        hidden: Dim = call.attr("hidden_size")
        count = len(_directions(call.op.attrs))
        seq, batch = (x[1], x[0]) if call.attr("layout", 0) else (x[0], x[1])
        wide = mul(gates, hidden)
        products = (
            Matmul(1, mul(seq, batch), mul(wide, count), x[2]),
            Matmul(1, batch, wide, hidden, mul(seq, count)),
        )
        cells = prod((seq, batch, hidden, count))
        return Work(
            contraction_flops=mul(2, add(products[0].macs, products[1].macs)),
            vector_flops=mul(vector, cells),
            transcendentals=mul(transcendentals, cells),
            matmuls=products,
            reads=all_reads(call),
            writes=all_writes(call),
        )

    return rule


def _recurrent_space(call: Call) -> Space:
    return Space(
        call.out() if call.outputs[0] else call.shape(0),
        (call.shape(0)[-1],),
        first(call, Access.WHOLE, Access.WHOLE),
    )


Step = Callable[[Array, Array, Array], "tuple[Array, Array]"]


def _unroll(
    x: Array, lengths: Array | None, h: Array, c: Array, backwards: bool, step: Step
) -> tuple[Array, Array, Array]:
    """Run ``step(x_t, h, c)`` over [seq, batch, in]; shorter sequences keep their state and give
    zeros.
    """
    seq, batch = x.shape[:2]
    y = np.zeros((seq, batch, h.shape[-1]), h.dtype)
    for t in range(seq):
        at = np.full(batch, t)
        alive = np.ones(batch, bool)
        if lengths is not None:
            alive = t < lengths
        if backwards:
            at = (lengths if lengths is not None else np.full(batch, seq)) - 1 - t
        rows = np.clip(at, 0, seq - 1).astype(int)
        new_h, new_c = step(x[rows, np.arange(batch)], h, c)
        h = np.where(alive[:, None], new_h, h)
        c = np.where(alive[:, None], new_c, c)
        y[rows[alive], np.arange(batch)[alive]] = h[alive]
    return y, h, c


def _run_directions(
    ctx: Context,
    x: Array,
    hidden: int,
    h0: Array | None,
    c0: Array | None,
    lengths: Array | None,
    make_step: Callable[[int], Step],
) -> tuple[Array, Array, Array]:
    """All directions of a recurrent layer: outputs [seq, directions, batch, hidden] and final
    states.
    """
    batch_first = bool(ctx.get("layout", 0))
    if batch_first:
        x = np.swapaxes(x, 0, 1)
        h0 = np.swapaxes(h0, 0, 1) if h0 is not None else None
        c0 = np.swapaxes(c0, 0, 1) if c0 is not None else None
    batch = x.shape[1]
    zero = np.zeros((batch, hidden), x.dtype)
    ys, hs, cs = [], [], []
    for d, backwards in enumerate(_directions(ctx.attrs)):
        h = h0[d].astype(x.dtype) if h0 is not None else zero
        c = c0[d].astype(x.dtype) if c0 is not None else zero
        y, h, c = _unroll(x, lengths, h, c, backwards, make_step(d))
        ys.append(y)
        hs.append(h)
        cs.append(c)
    y, hn, cn = np.stack(ys, 1), np.stack(hs), np.stack(cs)
    if batch_first:
        y, hn, cn = y.transpose(2, 0, 1, 3), np.swapaxes(hn, 0, 1), np.swapaxes(cn, 0, 1)
    return y, hn, cn


def _lstm(
    ctx: Context,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    peephole: Array | None = None,
) -> Sequence[Array]:
    """Hochreiter, Schmidhuber 1997 with forget gate and peepholes; gate order i, o, f, c."""
    dtype, hidden = x.dtype, r.shape[-1]
    x, w, r = widen(x), widen(w), widen(r)

    def make_step(d: int) -> Step:
        f, g, h_act = _activations(ctx, d, ("Sigmoid", "Tanh", "Tanh"))
        bias = (widen(b[d][: 4 * hidden]) + widen(b[d][4 * hidden :])) if b is not None else 0
        p = (
            widen(peephole[d]).reshape(3, hidden)
            if peephole is not None
            else np.zeros((3, hidden), x.dtype)
        )
        wt, rt = w[d].T, r[d].T
        couple = bool(ctx.get("input_forget", 0))

        def step(xt: Array, h: Array, c: Array) -> tuple[Array, Array]:
            i, o, fg, cg = np.split(xt @ wt + h @ rt + bias, 4, axis=-1)
            i = f(i + p[0] * c)
            fg = 1 - i if couple else f(fg + p[2] * c)
            c = fg * c + i * g(cg)
            return f(o + p[1] * c) * h_act(c), c

        return step

    y, h, c = _run_directions(ctx, x, hidden, h0, c0, lengths, make_step)
    return y.astype(dtype), h.astype(dtype), c.astype(dtype)


def _gru(
    ctx: Context,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h0: Array | None = None,
) -> Sequence[Array]:
    """Cho et al. 2014; gate order z, r, h; linear_before_reset as in cuDNN."""
    dtype, hidden = x.dtype, r.shape[-1]
    x, w, r = widen(x), widen(w), widen(r)

    def make_step(d: int) -> Step:
        f, g = _activations(ctx, d, ("Sigmoid", "Tanh"))
        zero = np.zeros(3 * hidden, x.dtype)
        wb, rb = (
            (widen(b[d][: 3 * hidden]), widen(b[d][3 * hidden :]))
            if b is not None
            else (zero, zero)
        )
        wt, rt = w[d].T, r[d].T
        linear = bool(ctx.get("linear_before_reset", 0))

        def step(xt: Array, h: Array, c: Array) -> tuple[Array, Array]:
            xz, xr, xh = np.split(xt @ wt + wb, 3, axis=-1)
            hz, hr = np.split(h @ rt[:, : 2 * hidden] + rb[: 2 * hidden], 2, axis=-1)
            z, reset = f(xz + hz), f(xr + hr)
            if linear:
                candidate = g(xh + reset * (h @ rt[:, 2 * hidden :] + rb[2 * hidden :]))
            else:
                candidate = g(xh + (reset * h) @ rt[:, 2 * hidden :] + rb[2 * hidden :])
            return (1 - z) * candidate + z * h, c

        return step

    y, h, _ = _run_directions(ctx, x, hidden, h0, None, lengths, make_step)
    return y.astype(dtype), h.astype(dtype)


def _rnn(
    ctx: Context,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h0: Array | None = None,
) -> Sequence[Array]:
    """Elman 1990."""
    dtype, hidden = x.dtype, r.shape[-1]
    x, w, r = widen(x), widen(w), widen(r)

    def make_step(d: int) -> Step:
        (f,) = _activations(ctx, d, ("Tanh",))
        bias = (widen(b[d][:hidden]) + widen(b[d][hidden:])) if b is not None else 0
        return lambda xt, h, c: (f(xt @ w[d].T + h @ r[d].T + bias), c)

    y, h, _ = _run_directions(ctx, x, hidden, h0, None, lengths, make_step)
    return y.astype(dtype), h.astype(dtype)


def _quantized_lstm(
    ctx: Context,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None,
    lengths: Array | None,
    h0: Array | None,
    c0: Array | None,
    peephole: Array | None,
    w_scale: Array,
    w_zero: Array,
    r_scale: Array,
    r_zero: Array,
) -> Sequence[Array]:
    """LSTM with int8 weights [directions, in, 4 hidden]; inputs and states are quantised as they
    come.
    """
    hidden = r.shape[1]

    def make_step(d: int) -> Step:
        f, g, h_act = _activations(ctx, d, ("Sigmoid", "Tanh", "Tanh"))
        bias = (b[d][: 4 * hidden] + b[d][4 * hidden :]) if b is not None else np.float32(0)
        p = (
            peephole[d].reshape(3, hidden)
            if peephole is not None
            else np.zeros((3, hidden), np.float32)
        )

        def product(a: Array, weight: Array, scale: Array, zero: Array) -> Array:
            q, a_scale, a_zero = _quantise_rows(a)
            exact = (q - a_zero) @ (weight.astype(np.float64) - zero.astype(np.float64))
            return (exact * (a_scale * scale.astype(np.float64))).astype(np.float32)

        projected = {}

        def step(xt: Array, h: Array, c: Array) -> tuple[Array, Array]:
            key = xt.tobytes()
            if key not in projected:
                projected[key] = product_x(xt)
            gates = projected[key] + product(h, r[d], r_scale[d], r_zero[d]) + bias
            i, o, fg, cg = np.split(gates, 4, axis=-1)
            i, fg = f(i + p[0] * c), f(fg + p[2] * c)
            c = fg * c + i * g(cg)
            return f(o + p[1] * c) * h_act(c), c

        whole = _range_of(x)

        def product_x(xt: Array) -> Array:
            q = np.clip(np.rint(xt / whole[0]) + whole[1], 0, 255).astype(np.float64)
            exact = (q - whole[1]) @ (w[d].astype(np.float64) - w_zero[d].astype(np.float64))
            return (exact * (float(whole[0]) * w_scale[d].astype(np.float64))).astype(np.float32)

        return step

    return _run_directions(ctx, x, hidden, h0, c0, lengths, make_step)


def _range_of(a: Array) -> tuple[np.float32, float]:
    low, high = np.minimum(a.min(initial=0.0), 0), np.maximum(a.max(initial=0.0), 0)
    scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
    return scale, float(np.clip(np.rint(-low / scale), 0, 255))


def _quantise_rows(a: Array) -> tuple[Array, float, float]:
    scale, zero = _range_of(a)
    return (
        np.clip(np.rint(a / scale) + np.float32(zero), 0, 255).astype(np.float64),
        float(scale),
        zero,
    )


_RECURRENT = {
    "activation_alpha": tuple, "activation_beta": tuple, "activations": tuple, "clip": float,
    "direction": str, "hidden_size": int, "layout": int,
}  # fmt: skip
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


def _matrix(
    kind: str,
    arity: tuple[int, int],
    shapes: Any,
    space: Any,
    work: Any,
    evaluate: Any,
    attrs: Mapping[str, type],
    rate: Rate = Rate.PRODUCT,
) -> OpRow:
    return OpRow(
        kind=kind,
        arity=arity,
        attrs=attrs,
        dtypes=same_dtype,
        shapes=shapes,
        space=space,
        work=work,
        evaluate=evaluate,
        lowering=Lowering.MATRIX,
        rate=rate,
    )


def _quantized_dtypes(call: Call) -> list[DType]:
    return [call.input(0).dtype] * len(call.op.outputs)


ROWS: tuple[OpRow, ...] = (
    _matrix("attention", (3, 7), _attention_shape, _attention_space, _attention_work,
        _attention, _ATTENTION, Rate.SOFTMAX),
    _matrix("cached_attention", (8, 8), _cached_attention_shape, _attention_space,
        _attention_work, _cached_attention, _CACHED, Rate.SOFTMAX),
    _matrix("linear_attention", (3, 8), _linear_attention_shape, _recurrent_space,
        _linear_attention_work, onnx_reference("LinearAttention", 27), _LINEAR),
    _matrix("lstm", (3, 8), _recurrent_shape(2, 4), _recurrent_space, _recurrent_work(4, 10, 5),
        _lstm, {**_RECURRENT, "input_forget": int}),
    _matrix("gru", (3, 6), _recurrent_shape(1, 3), _recurrent_space, _recurrent_work(3, 8, 3),
        _gru, {**_RECURRENT, "linear_before_reset": int}),
    _matrix("rnn", (3, 6), _recurrent_shape(1, 1), _recurrent_space, _recurrent_work(1, 2, 1),
        _rnn, _RECURRENT),
    _matrix("dynamic_quantize_lstm", (12, 12), _recurrent_shape(2, 4, hidden_last=False),
        _recurrent_space, _recurrent_work(4, 14, 5), _quantized_lstm,
        {**_RECURRENT, "input_forget": int}),
    OpRow("rotary_embedding", (3, 4), attributes(interleaved=int, num_heads=int,
        rotary_embedding_dim=int), same_dtype, same_shape, lambda c: Space(c.out(), (), first(c,
        Access.VIEW, Access.BROADCAST)), _rotary_work, onnx_reference("RotaryEmbedding"),
        Lowering.VECTOR),
    OpRow("causal_conv", (2, 4), attributes(activation=str), same_dtype, _causal_conv_shape,
        lambda c: Space(c.out(), (), first(c, Access.WINDOW, Access.BROADCAST)), _causal_conv_work,
        onnx_reference("CausalConvWithState", 27), Lowering.VECTOR),
)  # fmt: skip
