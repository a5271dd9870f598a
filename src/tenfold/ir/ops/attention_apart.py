"""Attention over sequences that lie apart on several chips, each with its stretch of every one
(context parallelism): keys and values of all of them meet the queries of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tenfold.ir.graph import Array
from tenfold.ir.ops import attention, backward
from tenfold.ir.ops.attention import attention_dims
from tenfold.ir.ops.common import alone
from tenfold.ir.table import Call, Context, Evaluate, Gathering, OpRow, Together

APART = {"attention": "attention_apart", "attention_grad": "attention_apart_grad"}
KEYS = (1, 2)  # operands that each chip needs of all others, and results that it makes for them


def _plain(evaluate: Evaluate) -> Evaluate:
    """``evaluate`` of the attention itself, which knows no chips."""

    def one(ctx: Context, *arrays: Array | None) -> Sequence[Array | None] | Array:
        attrs = {n: v for n, v in ctx.attrs.items() if n not in ("ways", "stride")}
        return evaluate(replace(ctx, attrs=attrs), *arrays)

    return one


def _axis(array: Array) -> int:
    return 2 if array.ndim == 4 else 1


def _together(evaluate: Evaluate) -> Together:
    """The whole of it, of which each chip gets its stretch."""

    def together(ctx: Context, chips: Sequence[Sequence[Array | None]]) -> list[list[Array]]:
        whole: list[Array | None] = []
        for own in zip(*chips, strict=True):
            given = [a for a in own if a is not None]
            whole.append(np.concatenate(given, _axis(given[0])) if given else None)
        found = evaluate(ctx, *whole)
        results = [found] if isinstance(found, np.ndarray) else list(found)
        shares = [np.split(r, len(chips), _axis(r)) for r in results if r is not None]
        return [[share[rank] for share in shares] for rank in range(len(chips))]

    return together


def _gathering(scattered: tuple[int, ...]) -> Callable[[Call], Gathering]:
    def rule(call: Call) -> Gathering:
        return Gathering(KEYS, scattered, int(call.attr("ways")), int(call.attr("stride")))

    return rule


def _apart(row: OpRow, scattered: tuple[int, ...]) -> OpRow:
    return replace(
        row,
        kind=APART[row.kind],
        attrs={**row.attrs, "ways": int, "stride": int},
        evaluate=alone(_plain(row.evaluate)),
        together=_together(_plain(row.evaluate)),
        gathering=_gathering(scattered),
    )


_FORWARD = next(r for r in attention.ROWS if r.kind == "attention")
_BACKWARD = next(r for r in backward.ROWS if r.kind == "attention_grad")


ROWS: tuple[OpRow, ...] = (
    # keys and values are gathered (Grattafiori et al. 2024, Llama 3, section 3.3.2), queries spread
    # so that each chip sees as many keys (Liu et al. 2023, Ring Attention)
    replace(_apart(_FORWARD, ()), attention=attention_dims),
    # gathered again, and the gradients of keys and values added up where they are held
    replace(_apart(_BACKWARD, KEYS), backward_of=attention_dims),
)
