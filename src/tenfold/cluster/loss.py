"""The end of a network in training: the gradient of a mean cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tenfold.ir.dtypes import DType
from tenfold.ir.gradient import SEED
from tenfold.ir.graph import Graph, Value
from tenfold.ir.infer import Scope
from tenfold.ir.tape import Tape


def with_loss(graph: Graph, seeds: Sequence[str]) -> Graph:
    """The gradient of the mean cross-entropy of the first seed's output, in place of the seed: what
    is expected less one where the target is. Other outputs have none: their seeds stay inputs.
    """
    seed = seeds[0]
    logits = seed.removeprefix(SEED)
    shape = [int(str(d)) for d in graph.values[logits].dims]
    scope = Scope(
        values={n: v for n, v in graph.values.items() if n != seed},
        constants=dict(graph.constants),
        stored=dict(graph.stored),
    )
    scope.known = {n: a for n, a in graph.constants.items() if a is not None and a.size <= 4096}
    t = Tape(scope)
    t.loc = f"{SEED}loss"
    targets = "targets"
    scope.declare(Value(targets, DType.I64, tuple(shape[:-1])))
    e = t.op("exp", logits)
    total = t.op("reduce_sum", e, t.ints(len(shape) - 1), keepdims=1)
    expected = t.op("div", e, total)
    column = t.op("unsqueeze", targets, t.ints(len(shape) - 1))
    hit = t.op("equal", column, t.ints(*range(shape[-1])))
    less = t.op("sub", expected, t.number(1.0, logits))
    loss = t.op("where", hit, less, expected)
    scaled = t.op("mul", loss, t.number(1 / math.prod(shape[:-1]), logits))
    t.rename(scaled, seed)
    forward = next(
        i for i, op in enumerate(graph.ops) if any(o.startswith(SEED) for o in op.outputs)
    )
    return replace(
        graph,
        inputs=(*(n for n in graph.inputs if n != seed), targets),
        ops=(*graph.ops[:forward], *t.ops, *graph.ops[forward:]),
        values=scope.values,
        constants=scope.constants,
        stored=scope.stored,
    )
