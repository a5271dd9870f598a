"""Gradients of experts, and experts that lie apart on several chips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape, mul, prod
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    alone,
    everything,
    matrix_row,
    space_of,
    widen,
)
from tenfold.ir.ops.experts import (
    ATTRIBUTES,
    MOE,
    activation_of,
    by_inner_width,
    routing,
    work_of_experts,
)
from tenfold.ir.sharding import SUM, Cut, Split
from tenfold.ir.space import Space
from tenfold.ir.table import Call, Context, Evaluate, Exchange, OpRow, Together, Work


def _moe_grad(
    c: Context,
    x: Array,
    router: Array,
    up: Array,
    down: Array,
    g: Array,
    bias: Array | None = None,
) -> list[Array]:
    """Of the experts that each token was sent to, and of the scores that weigh them; which ones
    are chosen does not change smoothly.
    """
    flat, grad = widen(x).reshape(-1, x.shape[-1]), widen(g).reshape(-1, x.shape[-1])
    act, slope = activation_of(str(c.get("activation")))
    chosen = routing(c, flat, widen(router), bias, x.shape[-2])
    dx, d_up, d_down = (np.zeros(s, flat.dtype) for s in (flat.shape, up.shape, down.shape))
    d_share = np.zeros_like(chosen.share)
    for expert, rows, choice in chosen.visits():
        share = chosen.share[rows, choice, None]
        h = flat[rows] @ widen(up[expert])
        if c.get("gated", 0):
            gate, value = np.split(h, 2, axis=-1)
            inner = act(gate) * value
        else:
            inner = act(h)
        out = inner @ widen(down[expert])
        d_share[rows, choice] = (grad[rows] * out).sum(-1)
        d_out = share * grad[rows]
        d_down[expert] = inner.T @ d_out
        d_inner = d_out @ widen(down[expert]).T
        if c.get("gated", 0):
            d_h = np.concatenate((d_inner * value * slope(gate), d_inner * act(gate)), -1)
        else:
            d_h = d_inner * slope(h)
        d_up[expert] = flat[rows].T @ d_h
        dx[rows] += d_h @ widen(up[expert]).T
    d_logits = chosen.logits_grad(c, d_share)
    dx += d_logits @ widen(router).T
    d_router = flat.T @ d_logits
    found = (dx.reshape(x.shape), d_router, d_up, d_down)
    return [f.astype(like.dtype) for f, like in zip(found, (x, router, up, down), strict=True)]


def _moe_grad_shape(call: Call) -> Sequence[Shape]:
    return [call.shape(i) for i in range(4)]


def _moe_grad_space(call: Call) -> Space:
    """All tokens together, since weights' gradients are sums over them."""
    x = call.shape(0)
    maps = (everything(call, i) for i in range(len(call.inputs)))
    return space_of(call, *maps, parallel=x, results=[None] * 4)


def _moe_grad_splits(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """Each expert by its inner width, as in the layer itself; its share of the gradients of tokens
    and of the router is summed.
    """
    inner: Any = call.shape(3)[1]
    if inner % ways:
        return
    up = Cut(2, (inner, inner) if call.attr("gated", 0) else ())
    given = (None, None, up, Cut(1), None, None)[: len(call.inputs)]
    yield Split(given, (SUM, SUM, up, Cut(1)))


def _moe_grad_work(call: Call) -> Work:
    """Twice the products of the layer, and those of its first once more for what it kept."""
    work = work_of_experts(call)
    return Work(
        contraction_flops=mul(2, work.contraction_flops),
        vector_flops=mul(3, work.vector_flops),
        transcendentals=work.transcendentals,
        matmuls=(*work.matmuls, *work.matmuls, work.matmuls[1]),
        reads=all_reads(call),
        writes=all_writes(call),
    )


# --- apart --------------------------------------------------------------------------------

WEIGHTS = (2, 3)  # operands that each chip has a share of
APART = {"moe": "moe_apart", "moe_grad": "moe_apart_grad"}


def _together(
    evaluate: Evaluate, by_token: tuple[int, ...], by_expert: tuple[int, ...]
) -> Together:
    """All tokens of all chips past all experts; each chip gets its tokens' results and those of its
    experts. Other results are sums over all tokens: the first chip gets them and the others
    nothing, so that they add up to what they would if each had its own.
    """

    def together(ctx: Context, chips: Sequence[Sequence[Array | None]]) -> list[list[Array]]:
        whole: list[Array | None] = []
        for i, own in enumerate(zip(*chips, strict=True)):
            given = [a for a in own if a is not None]
            joins = i in WEIGHTS or i in by_token
            whole.append(np.concatenate(given) if given and joins else own[0])
        found = evaluate(ctx, *whole)
        results = [found] if isinstance(found, np.ndarray) else list(found)
        split: list[list[Array]] = [[] for _ in chips]
        for i, result in enumerate(results):
            assert result is not None
            cut = i in (0, *by_expert)
            nothing = [np.zeros_like(result)] * (len(chips) - 1)
            shares = np.split(result, len(chips)) if cut else [result, *nothing]
            for own_results, share in zip(split, shares, strict=True):
                own_results.append(share)
        return split

    return together


def _exchange(before: int) -> Callable[[Call], Exchange]:
    def rule(call: Call) -> Exchange:
        x = call.shape(0)
        return Exchange(
            tokens=prod(x[:-1]),
            hidden=x[-1],
            choices=int(call.attr("top_k")),
            ways=int(call.attr("ways")),
            stride=int(call.attr("stride")),
            before=before,
            skew=float(call.attr("skew", 1.0)),
        )

    return rule


_GRAD = matrix_row(
    "moe_grad", (5, 6), _moe_grad_shape, _moe_grad_space, _moe_grad_work, _moe_grad, ATTRIBUTES,
    splits=_moe_grad_splits,
)  # fmt: skip
_APART = {**ATTRIBUTES, "ways": int, "stride": int, "skew": float}


ROWS: tuple[OpRow, ...] = (
    _GRAD,
    # experts on several chips, each with tokens of its own (Lepikhin et al. 2020, GShard, section
    # 3.2): tokens go to the chips of their experts, and what those made of them comes back
    replace(
        MOE,
        kind="moe_apart",
        attrs=_APART,
        splits=by_inner_width,
        evaluate=alone(MOE.evaluate),
        together=_together(MOE.evaluate, (0,), ()),
        exchange=_exchange(1),
    ),
    # both the tokens and their gradients go there
    replace(
        _GRAD,
        kind="moe_apart_grad",
        attrs=_APART,
        evaluate=alone(_moe_grad),
        together=_together(_moe_grad, (0, 4), WEIGHTS),
        exchange=_exchange(2),
    ),
)
