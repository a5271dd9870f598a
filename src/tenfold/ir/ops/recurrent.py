"""Recurrent layers, kept whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, add, mul, prod
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    everything,
    matrix_row,
    need_shape,
    space_of,
    widen,
)
from tenfold.ir.ops.pointwise import sigmoid
from tenfold.ir.space import ALL, Map, Serial, at, row, straight
from tenfold.ir.table import (
    Call,
    Context,
    Matmul,
    OpRow,
    Space,
    Work,
)


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
    "relu": lambda x, _a, _b: np.maximum(x, 0),
    "tanh": lambda x, _a, _b: np.tanh(x),
    "sigmoid": lambda x, _a, _b: sigmoid(x),
    "affine": _affine,
    "leakyrelu": lambda x, a, _b: np.where(x < 0, a * x, x),
    "thresholdedrelu": lambda x, a, _b: np.where(x > a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, _b: np.where(x > 0, x, a * np.expm1(x)),
    "softsign": lambda x, _a, _b: x / (1 + np.abs(x)),
    "softplus": lambda x, _a, _b: np.logaddexp(x, 0),
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
    """Items of a batch go through the steps of a sequence apart, one step after the other; within
    a step each number of the state needs all of the input and of the state before.
    """
    x, layout = call.shape(0), bool(call.attr("layout", 0))
    items, steps = (x[0], x[1]) if layout else (x[1], x[0])
    directions, hidden = len(_directions(call.op.attrs)), call.attr("hidden_size")
    step, direction, item, unit = (1, 2, 0, 3) if layout else (0, 1, 2, 3)
    order: tuple[Dim, ...] = (
        (items, steps, directions, hidden) if layout else (steps, directions, items, hidden)
    )
    state = (at(item), at(direction), ALL) if layout else (at(direction), at(item), ALL)
    last = (at(item), at(direction), at(unit)) if layout else (at(direction), at(item), at(unit))
    maps: list[Map | None] = [(at(item), row(step), ALL) if layout else (row(step), at(item), ALL)]
    for i in range(1, len(call.inputs)):
        shape = call.inputs[i].shape if call.has(i) else None  # type: ignore[union-attr]
        if i == 4 and shape is not None:
            maps.append((at(item),))
        elif i in (5, 6) and shape is not None and len(shape) == 3:
            maps.append(state)
        else:
            maps.append(everything(call, i))
    results = [straight(4), *(last for _ in call.outputs[1:])]
    return space_of(call, *maps, parallel=order, results=results, serial=Serial(steps))


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


ROWS: tuple[OpRow, ...] = (
    matrix_row("lstm", (3, 8), _recurrent_shape(2, 4), _recurrent_space, _recurrent_work(4, 10,
        5), _lstm, {**_RECURRENT, "input_forget": int}),
    matrix_row("gru", (3, 6), _recurrent_shape(1, 3), _recurrent_space, _recurrent_work(3, 8,
        3), _gru, {**_RECURRENT, "linear_before_reset": int}),
    matrix_row("rnn", (3, 6), _recurrent_shape(1, 1), _recurrent_space, _recurrent_work(1, 2,
        1), _rnn, _RECURRENT),
    matrix_row("dynamic_quantize_lstm", (12, 12), _recurrent_shape(2, 4, hidden_last=False),
        _recurrent_space, _recurrent_work(4, 14, 5), _quantized_lstm, {**_RECURRENT,
        "input_forget": int}, factors=(1, 2)),
)  # fmt: skip
