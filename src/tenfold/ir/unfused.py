"""Attention as its parts, for software without a kernel for the whole: scores, softmax, values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tenfold.ir.cost import op_call
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, Op
from tenfold.ir.infer import Scope, row_of
from tenfold.ir.table import Lowering
from tenfold.ir.tape import Tape

LARGEST_MASK = 1 << 20


def attentions_of(graph: Graph) -> frozenset[str]:
    """Names of the ops that ``unfused`` takes apart; those of their parts begin with them."""
    return frozenset(op.name for op in graph.ops if _whole(op))


def _whole(op: Op) -> bool:
    """Whether it is an attention without cache."""
    alone = not any(op.inputs[4:]) and len(op.outputs) == 1
    return alone and row_of(op).attention is not None and row_of(op).lowering is Lowering.MATRIX


def unfused(graph: Graph) -> Graph:
    """A static ``graph`` in which each attention without cache is two products and a softmax, with
    all scores, causal or not.
    """
    scope = Scope(
        values=dict(graph.values), constants=dict(graph.constants), stored=dict(graph.stored)
    )
    scope.known = {n: a for n, a in graph.constants.items() if a is not None and a.size <= 4096}
    tape = Tape(scope)
    for op in graph.ops:
        if not _whole(op):
            tape.ops.append(op)
        else:
            tape.loc = op.name
            _parts(tape, graph, op)
    return replace(
        graph,
        ops=tuple(tape.ops),
        values=scope.values,
        constants=scope.constants,
        stored=scope.stored,
    )


def _parts(t: Tape, graph: Graph, op: Op) -> None:
    rule = row_of(op).attention
    assert rule is not None
    d = rule(op_call(graph, op))
    heads, keys_of = int(str(d.heads)), int(str(d.kv_heads))
    counts = heads, keys_of, keys_of
    q, k, v = (_by_heads(t, n, h) for n, h in zip(op.inputs, counts, strict=False))
    if heads != keys_of:
        k, v = (_repeated(t, n, heads // keys_of) for n in (k, v))
    width = t.shape(q)[-1]
    scale = float(str(op.attrs.get("scale") or width**-0.5))
    scores = t.op("matmul", q, t.swapped(k))
    scores = t.op("mul", scores, t.number(scale, scores))
    cap = float(str(op.attrs.get("softcap", 0.0)))
    if cap:
        bent = t.op("tanh", t.op("div", scores, t.number(cap, scores)))
        scores = t.op("mul", bent, t.number(cap, scores))
    mask = op.inputs[3] if len(op.inputs) > 3 else ""
    if mask and graph.values[mask].dtype is DType.BOOL:
        scores = t.op("where", mask, scores, t.number(-np.inf, scores))
    elif mask:
        scores = t.op("add", scores, mask)
    left, right = (int(str(op.attrs.get(f"{s}_window_size", -1))) for s in ("left", "right"))
    right = 0 if d.causal else right
    if left >= 0 or right >= 0:
        scores = t.op("add", scores, _mask(t, scores, left, right))
    mixed = t.op("matmul", t.op("softmax", scores, axis=-1), v)
    if len(t.shape(op.outputs[0])) == 3:
        mixed = t.op("transpose", mixed, perm=(0, 2, 1, 3))
        mixed = t.op("reshape", mixed, t.ints(*t.shape(op.outputs[0])))
    t.rename(mixed, op.outputs[0])


def _by_heads(t: Tape, name: str, heads: int) -> str:
    shape = t.shape(name)
    if len(shape) == 4:
        return name
    apart = t.op("reshape", name, t.ints(shape[0], shape[1], heads, shape[2] // heads))
    return t.op("transpose", apart, perm=(0, 2, 1, 3))


def _repeated(t: Tape, name: str, times: int) -> str:
    b, heads, length, width = t.shape(name)
    apart = t.op("unsqueeze", name, t.ints(2))
    spread = t.op("expand", apart, t.ints(b, heads, times, length, width))
    return t.op("reshape", spread, t.ints(b, heads * times, length, width))


def _mask(t: Tape, scores: str, left: int, right: int) -> str:
    """Minus infinity where a query does not look, so many to either side of it (-1: all): one for
    all layers. The content of a large one is left out, as pricing does not read it.
    """
    queries, keys = t.shape(scores)[-2:]
    name = f"mask.{queries}.{keys}.{left}.{right}"
    if name in t.scope.values:
        return name
    if queries * keys > LARGEST_MASK:
        return t.unfilled(name, (queries, keys), scores)
    after, places = np.arange(queries)[:, None], np.arange(keys)
    seen = np.ones((queries, keys), bool)
    if right >= 0:
        seen = seen & (places <= after + right)
    if left >= 0:
        seen = seen & (places >= after - left)
    return t.filled(name, np.where(seen, 0.0, -np.inf), scores)
