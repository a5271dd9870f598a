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

LOSS = f"{SEED}loss"  # begins the names of its values, which are in fp32


def with_loss(graph: Graph, seeds: Sequence[str]) -> Graph:
    """The gradient of the mean cross-entropy of the first seed's output, in place of the seed: what
    is expected less one where the target is. Other outputs have none: their seeds stay inputs.

    It is computed in fp32, and what is expected and its gradient are in memory so, as frameworks
    leave them there (pytorch/torchtitan, components/loss.py; NVIDIA/Megatron-LM,
    tensor_parallel/cross_entropy.py).
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
    t.loc = LOSS
    targets = "targets"
    scope.declare(Value(targets, DType.I64, tuple(shape[:-1])))
    narrow = graph.values[logits].dtype
    wide = t.op("cast", logits, to=DType.F32.value) if narrow.bits < DType.F32.bits else logits
    e = t.op("exp", wide)
    total = t.op("reduce_sum", e, t.ints(len(shape) - 1), keepdims=1)
    expected = t.op("div", e, total)
    column = t.op("unsqueeze", targets, t.ints(len(shape) - 1))
    hit = t.op("equal", column, t.ints(*range(shape[-1])))
    less = t.op("sub", expected, t.number(1.0, wide))
    loss = t.op("where", hit, less, expected)
    scaled = t.op("mul", loss, t.number(1 / math.prod(shape[:-1]), wide))
    back = t.op("cast", scaled, to=narrow.value) if wide != logits else t.op("identity", scaled)
    t.rename(back, seed)
    forward = next(
        i for i, op in enumerate(graph.ops) if any(o.startswith(SEED) for o in op.outputs)
    )
    return replace(
        graph,
        inputs=(*(n for n in graph.inputs if n != seed), targets),
        outputs=(*graph.outputs, expected, scaled),
        ops=(*graph.ops[:forward], *t.ops, *graph.ops[forward:]),
        values=scope.values,
        constants=scope.constants,
        stored=scope.stored,
    )
