"""The backward pass of an LSTM, through time (Werbos 1990), kept whole as libraries have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape, add, mul, prod
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import all_reads, all_writes, same_dtype, space_of, widen
from tenfold.ir.ops.pointwise import sigmoid
from tenfold.ir.sharding import SUM, Cut, Result, Split, divides
from tenfold.ir.space import ALL, Map, Serial, Space, at, row
from tenfold.ir.table import Call, Context, Lowering, Matmul, OpRow, Rate, Work, attributes


def _shape(call: Call) -> Sequence[Shape]:
    """Of input, both weights and, where it is there, the bias."""
    given = [call.shape(i) for i in (0, 1, 2)]
    return [*given, call.shape(4)] if len(call.op.outputs) > 3 else given


def _space(call: Call) -> Space:
    """Items of a batch go back through the steps apart; the gradients of weights are of all."""
    x, y = call.shape(0), call.shape(3)
    seen: Map = (row(0), at(1), ALL)
    maps: list[Map | None] = [seen]
    for i in range(1, len(call.inputs)):
        shape = call.shape(i) if call.has(i) else ()
        items = len(shape) == 4 and shape == y
        maps.append((row(0), ALL, at(1), ALL) if items else (ALL,) * len(shape))
    results = [(row(0), at(1), ALL), None, None, None][: len(call.outputs)]
    return space_of(call, *maps, parallel=x, results=results, serial=Serial(x[0]))


def _splits(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By items: the gradients of weights are sums over chips."""
    if not divides(Cut(1), call.shape(0), ways):
        return
    operands: list[Cut | None] = [Cut(1), None, None, Cut(2), None]
    operands += [Cut(2)] * (len(call.inputs) - 5)
    given = tuple(c if call.has(i) else None for i, c in enumerate(operands[: len(call.inputs)]))
    sums: list[Result] = [Cut(1), SUM, SUM, SUM]
    yield Split(given, tuple(sums[: len(call.outputs)]))


def _work(call: Call) -> Work:
    """Twice the products of the layer: of what comes in, and of weights, over all steps; the gates
    are computed again.
    """
    x, w, r = call.shape(0), call.shape(1), call.shape(2)
    count, wide, hidden = w[0], w[1], r[2]
    seq, batch = x[0], x[1]
    items = mul(seq, batch)
    products = (
        Matmul(1, batch, wide, hidden, mul(seq, count)),  # gates again, step by step
        Matmul(1, items, mul(wide, count), x[2]),
        Matmul(1, batch, hidden, wide, mul(seq, count)),
        Matmul(count, wide, x[2], items),
        Matmul(count, wide, hidden, items),
        Matmul(1, items, x[2], mul(wide, count)),
    )
    macs = add(mul(2, prod((items, count, wide, x[2]))), mul(2, prod((items, count, wide, hidden))))
    cells = prod((items, count, hidden))
    return Work(
        contraction_flops=mul(2, macs),
        vector_flops=mul(30, cells),
        transcendentals=mul(5, cells),
        matmuls=products,
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _lstm_grad(
    c: Context, x: Array, w: Array, r: Array, g: Array, b: Array | None = None
) -> list[Array]:
    """With the usual functions, no peepholes, and states that begin at zero."""
    wide, grad = widen(x), widen(g)
    dx, dw, dr = np.zeros_like(wide), np.zeros_like(widen(w)), np.zeros_like(widen(r))
    db = np.zeros((w.shape[0], 2 * w.shape[1]), wide.dtype)
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    for d, back in enumerate(backwards[c.get("direction", "forward")]):
        turn = slice(None, None, -1) if back else slice(None)
        bias = 0 if b is None else widen(b[d]).reshape(2, -1).sum(0)
        steps = _Steps(wide[turn], widen(w[d]), widen(r[d]), bias)
        each, dw[d], dr[d], sums = steps.back(grad[turn, d])
        dx += each[turn]
        db[d] = np.concatenate((sums, sums))
    found = [dx, dw, dr, db][: c.outputs]
    return [f.astype(x.dtype) for f in found]


class _Steps:
    """One direction: the forward pass again, and back through it."""

    def __init__(self, x: Array, w: Array, r: Array, bias: Any) -> None:
        self.x, self.w, self.r = x, w, r
        hidden = r.shape[-1]
        h, c = (np.zeros((x.shape[1], hidden), x.dtype) for _ in range(2))
        self.kept: list[tuple[Array, ...]] = []
        for xt in x:
            i, o, f, n = np.split(xt @ w.T + h @ r.T + bias, 4, axis=-1)
            i, o, f, n = sigmoid(i), sigmoid(o), sigmoid(f), np.tanh(n)
            before, past = c, h
            c = f * c + i * n
            self.kept.append((i, o, f, n, before, c, past))
            h = o * np.tanh(c)

    def back(self, g: Array) -> tuple[Array, Array, Array, Array]:
        dw, dr = np.zeros_like(self.w), np.zeros_like(self.r)
        db = np.zeros(self.w.shape[0], self.x.dtype)
        dx = np.zeros_like(self.x)
        dh = dc = np.zeros_like(g[0])
        for t in reversed(range(len(self.x))):
            i, o, f, n, before, now, past = self.kept[t]
            dh = dh + g[t]
            bent = np.tanh(now)
            dc = dc + dh * o * (1 - bent * bent)
            gates = (
                dc * n * i * (1 - i),
                dh * bent * o * (1 - o),
                dc * before * f * (1 - f),
                dc * i * (1 - n * n),
            )
            z = np.concatenate(gates, -1)
            dw += z.T @ self.x[t]
            dr += z.T @ past
            db += z.sum(0)
            dx[t] = z @ self.w
            dh, dc = z @ self.r, dc * f
        return dx, dw, dr, db


ROWS: tuple[OpRow, ...] = (
    OpRow(kind="lstm_grad", arity=(4, 5), attrs=attributes(direction=str, hidden_size=int),
        dtypes=same_dtype, shapes=_shape, space=_space, work=_work, evaluate=_lstm_grad,
        lowering=Lowering.MATRIX, rate=Rate.PRODUCT, splits=_splits),
)  # fmt: skip
