"""Collectives of a part that are done at once: sums of sums, and turns of one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tenfold.ir.graph import Attr, Graph, Op, Value
from tenfold.ir.infer import row_of
from tenfold.ir.sharding import Collective

_JOINED = (Collective.ALL_REDUCE, Collective.ALL_GATHER)


def joined_turns(graph: Graph) -> Graph:
    """What chips do in two turns, one right after the other, done by all of them at once."""
    uses = Counter(n for op in graph.ops for n in op.inputs)
    uses.update(graph.outputs)
    last: dict[str, Op] = {}
    found: dict[str, Op] = {}
    for op in graph.ops:
        found[op.outputs[0]] = op
        kind = row_of(op).collective
        before = last.get(op.inputs[0]) if op.inputs else None
        if kind not in _JOINED:
            continue
        last[op.outputs[0]] = op
        if before is None or before.kind != op.kind or uses[op.inputs[0]] > 1:
            continue
        same = {k: v for k, v in op.attrs.items() if k not in ("ways", "stride")}
        inner, outer = (
            (int(str(x.attrs["ways"])), int(str(x.attrs["stride"]))) for x in (before, op)
        )
        alike = all(before.attrs.get(k) == v for k, v in same.items())
        if not alike or "sections" in same or inner[0] * inner[1] != outer[1]:
            continue
        attrs: dict[str, Attr] = {**op.attrs, "ways": inner[0] * outer[0], "stride": inner[1]}
        del found[op.inputs[0]]
        joined = replace(op, inputs=before.inputs, attrs=attrs)
        found[op.outputs[0]] = last[op.outputs[0]] = joined
    return replace(graph, ops=tuple(found.values()))


_SUMS = (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER)


def _alike(sums: Sequence[Op | None]) -> bool:
    """Whether they are the same collective over the same chips."""
    return len({(s.kind, tuple(sorted(s.attrs.items()))) for s in sums if s is not None}) == 1


def summed_first(ops: Sequence[Op], outputs: Sequence[str], values: dict[str, Value]) -> list[Op]:
    """Results that are only added to each other are summed over chips once, after that (one
    all-reduce for attention and feed-forward side by side, or for experts and what all tokens
    pass). ``values`` get the sums of parts that are new.
    """
    uses = Counter(n for op in ops for n in op.inputs)
    uses.update(outputs)
    sums = {op.outputs[0]: op for op in ops if row_of(op).collective in _SUMS}
    gone: set[str] = set()
    found: list[Op] = []
    taken = {o for op in ops for o in op.outputs}
    for op in ops:
        both = [sums.get(n) for n in op.inputs]
        once = all(s is not None and uses[s.outputs[0]] == 1 for s in both) and _alike(both)
        if not row_of(op).additive or len(both) < 2 or not once:
            found.append(op)
            continue
        parts = tuple(s.inputs[0] for s in both if s is not None)
        gone |= set(op.inputs)
        like, name = sums[op.inputs[0]], op.outputs[0]
        part = f"{name}/part"
        while part in taken:
            part += "'"
        taken.add(part)
        values[part] = replace(values[parts[0]], name=part)
        total = replace(like, inputs=(part,), outputs=(name,), loc=f"{name}/{like.kind}")
        found += [replace(op, inputs=parts, outputs=(part,)), total]
        sums[name] = total
    return [op for op in found if not gone.intersection(op.outputs)]
