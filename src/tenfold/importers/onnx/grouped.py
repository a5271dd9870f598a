"""GroupQueryAttention of com.microsoft, as onnxruntime-genai's model builder writes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tenfold.errors import ModelError
from tenfold.importers.onnx.node import Node

QUERY, KEY, VALUE, LENGTHS, TOTAL, COS, SIN, POSITIONS, BIAS = 0, 1, 2, 5, 6, 7, 8, 9, 10


def group_query(n: Node) -> Sequence[str]:
    """The cache of each sequence is as long as seqlens_k + 1; queries, keys and values come apart
    or packed into one, and may be turned by their positions here.
    """
    if n.attr("softcap", 0.0) or n.attr("smooth_softmax", 0):
        raise ModelError(
            f"node '{n.loc}': GroupQueryAttention with softcap or smooth softmax is not supported"
        )
    if any(n.has(i) for i in range(11, len(n.inputs))) or any(n.outputs[3:]):
        raise ModelError(
            f"node '{n.loc}': GroupQueryAttention with a head sink, a quantised cache or scores as"
            " output is not supported"
        )
    heads, shared = n.needs("num_heads"), n.needs("kv_num_heads")
    q, k, v = _apart(n, heads, shared)
    if n.attr("do_rotary", 0):
        at = _positions(n, q)
        q, k = _turned(n, q, heads, at), _turned(n, k, shared, at)
    past = [n.inputs[3], n.inputs[4]] if n.has(3) and n.has(4) else ["", ""]
    lengths = n.emit("add", [n.input(LENGTHS), n.like(1, LENGTHS)])
    bias, window = n.inputs[BIAS] if n.has(BIAS) else "", n.attr("local_window_size", -1)
    return n.out(
        "cached_attention",
        [q, k, v, bias, *past, lengths, n.input(TOTAL)],
        q_num_heads=heads,
        kv_num_heads=shared,
        scale=n.attr("scale") or None,
        left_window_size=window - 1 if window > 0 else None,
    )


def _apart(n: Node, heads: int, shared: int) -> tuple[str, str, str]:
    """Queries, keys and values [batch, steps, width], cut out of one where they are packed."""
    if n.has(KEY) and n.has(VALUE):
        return n.input(QUERY), n.input(KEY), n.input(VALUE)
    if n.has(KEY) or n.has(VALUE):
        raise ModelError(f"node '{n.loc}': GroupQueryAttention has keys or values, and not both")
    width = n.value(QUERY).dims[-1]
    if not isinstance(width, int) or width % (heads + 2 * shared):
        raise ModelError(
            f"node '{n.loc}': GroupQueryAttention of {heads} and 2 x {shared} heads packed into a"
            f" width of {width}, which they do not divide"
        )
    head = width // (heads + 2 * shared)
    cuts = [0, heads * head, (heads + shared) * head, width]
    q, k, v = (
        n.emit("slice", [n.input(QUERY), n.ints(a), n.ints(b), n.ints(2)])
        for a, b in pairwise(cuts)
    )
    return q, k, v


def _positions(n: Node, q: str) -> str:
    """[batch, steps]: each step's place in its sequence, as given or counted on from its past."""
    if not n.has(COS) or not n.has(SIN):
        raise ModelError(
            f"node '{n.loc}': GroupQueryAttention with do_rotary lacks cos_cache or sin_cache"
        )
    if n.has(POSITIONS):
        return n.input(POSITIONS)
    one = n.const(1, np.int64)
    steps = n.emit("gather", [n.emit("shape", [q]), one], axis=0)
    ends = n.emit("add", [n.emit("cast", [n.input(LENGTHS)], to="int64"), one])
    # a first prompt that is shorter than the others starts at 0 too
    past = n.emit("max", [n.emit("sub", [ends, steps]), n.const(0, np.int64)])
    column = n.emit("reshape", [past, n.ints(-1, 1)])
    along = n.emit("range", [n.const(0, np.int64), steps, one])
    return str(n.emit("add", [column, along]))


def _turned(n: Node, x: str, heads: int, positions: str) -> str:
    half = n.value(COS).dims[-1]
    rotated = 2 * half if isinstance(half, int) else 0
    width = n.type_of(x).dims[-1]
    whole = isinstance(width, int) and width == heads * rotated
    return str(
        n.emit(
            "rotary_embedding",
            [x, n.input(COS), n.input(SIN), positions],
            num_heads=heads,
            interleaved=n.attr("rotary_interleaved", 0) or None,
            rotary_embedding_dim=None if whole else rotated,
        )
    )
