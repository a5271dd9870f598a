"""Dropout where networks of attention have it in training: on what a block adds to its input, and
on the shares of scores where attention is in parts (Vaswani et al. 2017, section 5.4).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tenfold.ir.graph import Graph, Op
from tenfold.ir.infer import Scope, infer_op, row_of
from tenfold.ir.table import Lowering, Rate

RATIO = 0.1


def with_dropout(graph: Graph) -> Graph:
    """A static ``graph`` with dropout: of two operands of a sum of equal shape, the one that has no
    other reader; and behind each softmax.
    """
    scope = Scope(
        values=dict(graph.values), constants=dict(graph.constants), stored=dict(graph.stored)
    )
    uses = Counter(n for op in graph.ops for n in op.inputs)
    uses.update(graph.outputs)
    ops: list[Op] = []
    dropped: dict[str, str] = {}

    def drop(name: str) -> str:
        kept, mask = f"{name}/dropout", f"{name}/dropout.mask"
        made = Op("dropout", (name,), (kept, mask), {"ratio": RATIO}, (), kept)
        ops.append(infer_op(scope, made))
        return kept

    for op in graph.ops:
        row = row_of(op)
        inputs = tuple(dropped.get(n, n) for n in op.inputs)
        shapes = {graph.values[n].shape for n in op.inputs if n}
        alone = [n for n in op.inputs if uses[n] == 1 and n not in graph.constants]
        if row.additive and len(shapes) == 1 and len(alone) == 1 and len(op.inputs) == 2:
            new = drop(dropped.get(alone[0], alone[0]))
            inputs = tuple(new if n == alone[0] else dropped.get(n, n) for n in op.inputs)
        ops.append(replace(op, inputs=inputs))
        if row.rate is Rate.SOFTMAX and row.lowering is Lowering.REDUCE:
            dropped[op.outputs[0]] = drop(op.outputs[0])
    return replace(
        graph,
        ops=tuple(ops),
        values=scope.values,
        constants=scope.constants,
        stored=scope.stored,
    )
