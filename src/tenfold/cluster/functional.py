"""The parts of a network run together: what every chip computes, in NumPy, step by step.

It defines what a part means, as the plain interpreter does for the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tenfold.cluster.part import Part
from tenfold.ir.graph import Array, Graph
from tenfold.ir.infer import row_of
from tenfold.ir.interpreter import check_inputs, run_op
from tenfold.ir.sharding import joined, part_of
from tenfold.ir.table import Context


def interpret_parts(
    graph: Graph, parts: Sequence[Part], inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """Outputs of ``graph`` by name, computed by the chips that ``parts`` cut it for.

    Raises InputError for missing, extra or wrongly ranked inputs, ModelError for a weight without
    data.
    """
    held: list[dict[str, Array | None]] = [{**graph.constants, **check_inputs(graph, inputs)}]
    for part in parts:
        held = [_own(part, whole, rank) for whole in held for rank in range(part.ways)]
    last = parts[-1].graph
    for op in last.ops:
        row = row_of(op)
        if row.together is None:
            for live in held:
                run_op(last, op, live, np.random.default_rng(0))
            continue
        ways, stride = (int(str(op.attrs[n])) for n in ("ways", "stride"))
        for group in _groups(len(held), ways, stride):
            arrays = [[held[rank][n] if n else None for n in op.inputs] for rank in group]
            results = row.together(Context(op.attrs), arrays)
            for rank, own in zip(group, results, strict=True):
                held[rank].update(zip(op.outputs, own, strict=True))
    return {
        name: _joined([h[own] for h in held], parts, i)
        for i, (name, own) in enumerate(zip(graph.outputs, last.outputs, strict=True))
    }


def _array(array: Array | None) -> Array:
    assert array is not None
    return array


def _own(part: Part, whole: Mapping[str, Array | None], rank: int) -> dict[str, Array | None]:
    """What one chip has before it starts."""
    own: dict[str, Array | None] = {}
    for name, cut in part.inputs.items():
        own[name] = part_of(_array(whole[name]), cut, rank, part.ways)
    for name, held in part.constants.items():
        source = held.content if held.content is not None else whole[held.source]
        own[name] = None if source is None else part_of(source, held.cut, rank, part.ways)
    return own


def _groups(chips: int, ways: int, stride: int) -> list[list[int]]:
    """Which chips meet: ``ways`` of them, each ``stride`` after the one before."""
    ranks = np.arange(chips).reshape(-1, ways, stride)
    groups: list[list[int]] = np.moveaxis(ranks, 1, 2).reshape(-1, ways).tolist()
    return groups


def _joined(arrays: Sequence[Array | None], parts: Sequence[Part], number: int) -> Array:
    """The whole of an output by its number, the last cut first."""
    left = [_array(a) for a in arrays]
    for part in reversed(parts):
        cut = tuple(part.outputs.values())[number]
        left = [joined(left[i : i + part.ways], cut) for i in range(0, len(left), part.ways)]
    return left[0]
