"""A graph in stages that follow each other, each on chips of its own.

Cuts lie where a single value crosses, if there are such places enough, and the slowest stage, with
what it sends on, is quickest. What is computed from the
inputs without weights (positions, masks) every stage that needs it computes for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from tenfold.cluster.part import Prices
from tenfold.errors import InputError
from tenfold.ir.cost import op_work
from tenfold.ir.graph import Graph, Op, stored_numbers
from tenfold.ir.infer import row_of

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True, slots=True)
class StageGraph:
    """One stage, and the bytes that it hands to the next."""

    graph: Graph
    sent_bytes: int


def in_stages(graph: Graph, count: int, prices: Prices) -> tuple[StageGraph, ...]:
    """``graph``, which must be static, in ``count`` stages.

    Raises InputError for more stages than it has ops with weights.
    """
    if count == 1:
        return (StageGraph(graph, 0),)
    free = _free(graph)
    ops = [op for op in graph.ops if not free.intersection(op.outputs)]
    heavy = sum(any(_stored(graph, n) for n in op.inputs) for op in ops)
    if count > heavy:
        raise InputError(
            f"pp={count}: {graph.name} has {heavy} operations with weights: give no more stages"
        )
    crossing, values = _crossing(graph, ops)
    single = [i for i in range(1, len(ops)) if values[i] == 1]
    places = single if len(single) >= count else list(range(1, len(ops)))
    seconds = [_seconds(graph, op, prices) for op in ops]
    send = np.asarray(crossing) / prices.link_bytes_per_s + prices.link_s
    ends = _ends(seconds, send, places, count)
    whole, stages, start = _whole(graph, free), [], 0
    for end in ends:
        stages.append(_stage(whole, ops[start:end]))
        start = end
    sent = [crossing[end] for end in ends[:-1]] + [0]
    return tuple(StageGraph(g, s) for g, s in zip(stages, sent, strict=True))


def width_of(graph: Graph) -> float:
    """Bytes of a number as the graph has it: that of its widest weights."""
    widths = (graph.values[n].dtype for n in graph.constants)
    return max((d.bits / 8 for d in widths if d.is_float), default=4.0)


def given_to_a_block(graph: Graph) -> int:
    """Elements of the middle one of the values that alone cross from one op to the rest: what a
    block of the network is given (its ends may be narrower).
    """
    free = _free(graph)
    ops = [op for op in graph.ops if not free.intersection(op.outputs)]
    _, values = _crossing(graph, ops)
    made = {o: i for i, op in enumerate(ops) for o in op.outputs if o}
    last = {n: i for i, op in enumerate(ops) for n in op.inputs if n in made}
    alone = sorted(
        int(str(graph.values[n].elements))
        for n, end in last.items()
        if any(values[i] == 1 for i in range(made[n] + 1, end + 1))
    )
    return alone[len(alone) // 2] if alone else 0


def _stored(graph: Graph, name: str) -> int:
    known = name in graph.constants
    return stored_numbers(graph.values[name], graph.stored) if known else 0


def _free(graph: Graph) -> set[str]:
    """Values that follow from the inputs and no weights, by ops that move or compute next to
    nothing.
    """
    cheap = set(graph.inputs)
    free: set[str] = set()
    for op in graph.ops:
        without = all(
            not n or n in cheap or (n in graph.constants and not _stored(graph, n))
            for n in op.inputs
        )
        if without and not op.bodies and row_of(op).attention is None:
            free.update(o for o in op.outputs if o)
            cheap.update(o for o in op.outputs if o)
    return free - set(graph.outputs)


def _seconds(graph: Graph, op: Op, prices: Prices) -> float:
    work = graph.derived((op_work, id(op)), lambda: op_work(graph, op))
    moved = sum(float(str(b)) for b in (*work.reads, *work.writes))
    flops = float(str(work.contraction_flops))
    return max(moved / prices.memory_bytes_per_s, flops / prices.flops_per_s)


def _crossing(graph: Graph, ops: Sequence[Op]) -> tuple[list[int], list[int]]:
    """Bytes made before each place between ops and read after it, and of how many values."""
    made = {o: i for i, op in enumerate(ops) for o in op.outputs if o}
    last = {n: i for i, op in enumerate(ops) for n in op.inputs if n in made}
    change = np.zeros((2, len(ops) + 2), np.int64)
    for name, end in last.items():
        size = int(str(graph.values[name].bytes))
        change[:, made[name] + 1] += (size, 1)
        change[:, end + 1] -= (size, 1)
    sizes, counts = np.cumsum(change, 1)[:, : len(ops) + 1].tolist()
    return sizes, counts


def _ends(seconds: Sequence[float], send: Floats, places: Sequence[int], count: int) -> list[int]:
    """Where each stage ends, at ``places``: the slowest one is as quick as can be (linear
    partition, by the least maximum over every last cut).
    """
    total = np.concatenate(([0.0], np.cumsum(seconds)))
    n = len(seconds)
    send = np.concatenate((send[:n], (0.0,)))
    at = np.asarray([0, *places, n])
    best = total[at] + send[at]  # of the first stage, which is not empty
    best[0] = np.inf
    cuts: list[Any] = []
    for _ in range(count - 1):
        stage = total[at][None, :] - total[at][:, None] + send[at][None, :]
        worst = np.maximum(best[:, None], np.where(stage > 0, stage, np.inf))
        worst[at[:, None] >= at[None, :]] = np.inf
        cuts.append(worst.argmin(0))
        best = worst.min(0)
    if not np.isfinite(best[-1]):
        return _ends(seconds, send, list(range(1, n)), count)
    ends, here = [n], len(at) - 1
    for chosen in reversed(cuts):
        here = int(chosen[here])
        ends.append(int(at[here]))
    return ends[::-1]


@dataclass(frozen=True, slots=True)
class _Whole:
    """What cutting a graph asks again and again: ops that every stage computes for itself, the
    place of each op, and the last place where each value is read.
    """

    graph: Graph
    free: set[str]
    cheap: tuple[Op, ...]
    place: dict[int, int]
    last: dict[str, int]


def _whole(graph: Graph, free: set[str]) -> _Whole:
    last = {n: i for i, op in enumerate(graph.ops) for n in op.inputs if n}
    last |= dict.fromkeys(graph.outputs, len(graph.ops))
    cheap = tuple(op for op in graph.ops if free.intersection(op.outputs))
    return _Whole(graph, free, cheap, {id(op): i for i, op in enumerate(graph.ops)}, last)


def _stage(whole: _Whole, ops: Sequence[Op]) -> Graph:
    """The graph of some ops that follow each other, with what they need that every stage computes
    for itself.
    """
    graph, free = whole.graph, whole.free
    needed = {n for op in ops for n in op.inputs if n}
    own: list[Op] = list(ops)
    for op in reversed(whole.cheap):
        if needed.intersection(op.outputs):
            own.append(op)
            needed.update(n for n in op.inputs if n)
    ordered = tuple(sorted(own, key=lambda op: whole.place[id(op)]))
    made = {o for op in ordered for o in op.outputs if o}
    outside = dict.fromkeys(n for op in ordered for n in op.inputs if n and n not in made)
    end = whole.place[id(ops[-1])]
    handed = [o for op in ops for o in op.outputs if o and whole.last.get(o, -1) > end]
    return replace(
        graph,
        inputs=tuple(n for n in outside if n not in graph.constants),
        outputs=tuple(dict.fromkeys(n for n in handed if n not in free or n in graph.outputs)),
        ops=ordered,
        values={n: graph.values[n] for n in (*outside, *made)},
        constants={n: graph.constants[n] for n in outside if n in graph.constants},
    )
