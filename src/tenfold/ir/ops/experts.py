"""Mixture of experts, kept whole: a router and the feed-forward layers of the experts that it
picks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, add, ceildiv, floordiv, minimum, mul, prod
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import everything, same_dtype, same_shape, space_of, widen
from tenfold.ir.ops.normalization import softmax
from tenfold.ir.ops.pointwise import erf, sigmoid
from tenfold.ir.sharding import SUM, Cut, Split, by_loops
from tenfold.ir.space import Space, at
from tenfold.ir.table import Call, Context, ExpertDims, Lowering, Matmul, OpRow, Work, attributes

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(np.float32(2)))),
    "gelu_tanh": lambda x: (
        0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3)))
    ),
}


def _gelu_slope(x: Array) -> Array:
    normal = np.exp(-0.5 * x * x) / np.float32(np.sqrt(2 * np.pi))
    return np.asarray(0.5 * (1 + erf(x / np.sqrt(np.float32(2)))) + x * normal)


def _gelu_tanh_slope(x: Array) -> Array:
    a, b = np.float32(0.7978845608), np.float32(0.044715)
    t = np.tanh(a * (x + b * x**3))
    return np.asarray(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * b * x * x))


_SLOPES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: (x > 0).astype(x.dtype),
    "silu": lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "gelu": _gelu_slope,
    "gelu_tanh": _gelu_tanh_slope,
}


def _shape(call: Call) -> Sequence[Shape]:
    x, router, up, down = (call.shape(i) for i in range(4))
    held, width, inner, k = up[0], up[1], down[1], call.attr("top_k")
    gate, experts = 2 if call.attr("gated", 0) else 1, mul(held, _ways(call))
    if (
        router != (x[-1], experts)
        or width != x[-1]
        or down != (held, inner, x[-1])
        or up[2] != mul(gate, inner)
    ):
        raise ValueError(
            f"experts of {up} and {down} with router {router} do not fit tokens of width {x[-1]}"
        )
    if isinstance(experts, int) and not 1 <= k <= experts:
        raise ValueError(f"top_k must be 1 to {experts}, got {k}")
    if call.attr("capacity", 0) < 0 or (call.attr("capacity", 0) and len(x) < 2):
        raise ValueError("a capacity is of tokens in sequences, and 0 for none")
    if call.attr("activation") not in _ACTIVATIONS:
        raise ValueError(
            f"activation '{call.attr('activation')}': allowed are {', '.join(_ACTIVATIONS)}"
        )
    return same_shape(call)


def _ways(call: Call) -> int:
    """How many chips hold a share of the experts each."""
    return int(call.attr("ways", 1))


def touched(tokens: Dim, experts: Dim, top_k: int) -> Dim:
    """How many experts some token is sent to, where each token picks ``top_k`` of them evenly and
    on its own (the expected number).

    For a number of tokens that is not known yet, the most it can be.
    """
    if not isinstance(tokens, int) or not isinstance(experts, int):
        return minimum(experts, mul(tokens, top_k))
    return min(experts, max(top_k, round(experts * (1 - (1 - top_k / experts) ** tokens))))


def _routed(call: Call) -> Dim:
    """Visits of tokens to experts. With a ``capacity`` an expert takes that many tokens of one
    sequence at most, and the others pass it by (Fedus et al. 2021, section 2.2); tokens are spread
    evenly, but that the busiest of several chips gets ``skew`` times the mean.
    """
    x, experts, k = call.shape(0), call.shape(1)[1], call.attr("top_k")
    capacity = call.attr("capacity", 0)
    visits = mul(prod(x[:-1]), k)
    if capacity:
        each = minimum(mul(x[-2], k), mul(experts, capacity))
        visits = mul(prod(x[:-2]), each)
    skew = float(call.attr("skew", 1.0))
    return math.ceil(visits * skew) if skew != 1 and isinstance(visits, int) else visits


def _active(call: Call) -> Dim:
    """Of the experts that are held here, those that some token is sent to, from whichever chip."""
    x, experts, ways = call.shape(0), call.shape(1)[1], _ways(call)
    found = touched(mul(prod(x[:-1]), ways), experts, int(call.attr("top_k")))
    return ceildiv(found, ways) if ways > 1 else found


def work_of_experts(call: Call) -> Work:
    """Every token passes the router and ``top_k`` experts; weights of experts that no token is sent
    to stay where they are.

    Shazeer et al. 2017, section 2, with tokens spread evenly over the experts that are touched.
    """
    x, up, down = call.shape(0), call.shape(2), call.shape(3)
    tokens, experts, inner = prod(x[:-1]), call.shape(1)[1], down[1]
    routed, active = _routed(call), _active(call)
    each = ceildiv(routed, active)
    products = (
        Matmul(1, tokens, experts, x[-1]),
        Matmul(active, each, up[2], up[1]),
        Matmul(active, each, x[-1], inner),
    )
    macs = add(products[0].macs, mul(routed, add(mul(up[1], up[2]), mul(inner, x[-1]))))
    weights = tuple(floordiv(mul(call.input(i).bytes, active), up[0]) for i in (2, 3))
    others = tuple(call.input(i).bytes for i in range(4, len(call.inputs)))
    gating = mul(tokens, mul(4, experts))
    return Work(
        contraction_flops=mul(2, macs),
        vector_flops=add(gating, mul(routed, add(mul(4, inner), mul(2, x[-1])))),
        transcendentals=add(mul(tokens, experts), mul(routed, inner)),
        matmuls=products,
        reads=(call.input(0).bytes, call.input(1).bytes, *weights, *others),
        writes=tuple(v.bytes if v is not None else 0 for v in call.outputs),
    )


def _dims(call: Call) -> ExpertDims:
    """Of a layer with tokens spread evenly over the experts that are touched (Shazeer et al. 2017,
    section 2).
    """
    x, up, down = call.shape(0), call.shape(2), call.shape(3)
    return ExpertDims(
        tokens=prod(x[:-1]),
        hidden=x[-1],
        inner=down[1],
        experts=call.shape(1)[1],
        held=up[0],
        active=_active(call),
        routed=_routed(call),
        gated=bool(call.attr("gated", 0)),
    )


def _space(call: Call) -> Space:
    """Tokens apart; each meets the weights of the experts that it is sent to. With a capacity what
    a token meets depends on the others of its sequence.
    """
    x = call.shape(0)
    rank = len(x)
    weights = (everything(call, i) for i in range(1, len(call.inputs)))
    if call.attr("capacity", 0):
        sequence = (*map(at, range(rank - 2)), at(rank), at(rank + 1))
        return space_of(call, sequence, *weights, reduced=(x[-2], x[-1]))
    tokens = (*map(at, range(rank - 1)), at(rank))
    return space_of(call, tokens, *weights, reduced=(x[-1],))


def _splits(row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By tokens, or by inner width."""
    yield from by_loops(row, call, ways)
    yield from by_inner_width(row, call, ways)


def by_inner_width(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """Each expert by its inner width: gate and value apart."""
    inner: Any = call.shape(3)[1]
    if inner % ways:
        return
    up = Cut(2, (inner, inner) if call.attr("gated", 0) else ())
    others = (None for _ in call.inputs[4:])
    yield Split((None, None, up, Cut(1), *others), (SUM,))


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts tokens go to, in the order of their scores, and what each choice weighs."""

    scores: Array
    ranked: Array
    share: Array
    taken: Array

    def visits(self) -> Iterator[tuple[int, Array, Array]]:
        """Each expert with the tokens that visit it, and which of their choices it is."""
        for expert in np.unique(self.ranked):
            rows, choice = np.nonzero((self.ranked == expert) & self.taken)
            yield int(expert), rows, choice

    def logits_grad(self, ctx: Context, d_share: Array) -> Array:
        """The gradient of the router's logits from that of the weights of choices."""
        d_share = d_share * np.asarray(ctx.get("scale", 1.0), d_share.dtype)
        picked = np.take_along_axis(self.scores, self.ranked, -1)
        if ctx.get("renormalise", 1):
            total = picked.sum(-1, keepdims=True)
            d_share = (d_share - (d_share * picked / total).sum(-1, keepdims=True)) / total
        d_scores = np.zeros_like(self.scores)
        np.put_along_axis(d_scores, self.ranked, d_share, -1)
        if ctx.get("score", "softmax") == "sigmoid":
            return d_scores * self.scores * (1 - self.scores)
        mean = (d_scores * self.scores).sum(-1, keepdims=True)
        return np.asarray(self.scores * (d_scores - mean))


def routing(ctx: Context, flat: Array, router: Array, bias: Array | None, length: int) -> Routing:
    """Of tokens [tokens, hidden] in sequences of ``length``. ``bias`` is added to the scores only
    to choose (DeepSeek-V3, section 2.1.2).
    """
    logits = flat @ router
    scores = sigmoid(logits) if ctx.get("score", "softmax") == "sigmoid" else softmax(logits, -1)
    ranked = np.argsort(-(scores + bias if bias is not None else scores), axis=-1, kind="stable")[
        :, : ctx.get("top_k")
    ]
    share = np.take_along_axis(scores, ranked, -1)
    if ctx.get("renormalise", 1):
        share = share / share.sum(-1, keepdims=True)
    share = share * np.asarray(ctx.get("scale", 1.0), share.dtype)
    taken = np.ones(ranked.shape, bool)
    capacity = ctx.get("capacity", 0)
    for expert in np.unique(ranked) if capacity else ():
        rows, choice = np.nonzero(ranked == expert)
        taken[rows, choice] = _within(rows // length, capacity)
    return Routing(scores, ranked, share, taken)


def activation_of(name: str) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """A function of the layer, and its slope."""
    return _ACTIVATIONS[name], _SLOPES[name]


def _moe(
    ctx: Context, x: Array, router: Array, up: Array, down: Array, bias: Array | None = None
) -> Array:
    flat = widen(x).reshape(-1, x.shape[-1])
    chosen = routing(ctx, flat, widen(router), bias, x.shape[-2])
    act = _ACTIVATIONS[ctx.get("activation")]
    y = np.zeros_like(flat)
    for expert, rows, choice in chosen.visits():
        h = flat[rows] @ widen(up[expert])
        if ctx.get("gated", 0):
            gate, value = np.split(h, 2, axis=-1)
            h = act(gate) * value
        else:
            h = act(h)
        y[rows] += chosen.share[rows, choice, None] * (h @ widen(down[expert]))
    return y.reshape(x.shape).astype(x.dtype)


def _within(sequences: Array, capacity: int) -> Array:
    """Which of an expert's tokens, in order, are among the first ``capacity`` of their sequence."""
    starts = np.searchsorted(sequences, sequences)
    return np.arange(len(sequences)) - starts < capacity


ATTRIBUTES = attributes(
    top_k=int, gated=int, activation=str, score=str, renormalise=int, scale=float, capacity=int
)

MOE = OpRow(
    kind="moe",
    arity=(4, 5),
    attrs=ATTRIBUTES,
    dtypes=same_dtype,
    shapes=_shape,
    space=_space,
    work=work_of_experts,
    evaluate=_moe,
    lowering=Lowering.MATRIX,
    experts=_dims,
    splits=_splits,
)
ROWS: tuple[OpRow, ...] = (MOE,)
