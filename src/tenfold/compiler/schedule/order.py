"""Order: kernels so that little is alive at once, where the graph leaves a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tenfold.compiler.schedule.offsets import Interval, tightest
from tenfold.machine import Group


def ordered(
    groups: Sequence[Group], sizes: Mapping[str, int], outputs: frozenset[str]
) -> tuple[Group, ...]:
    """``groups``, which are in a valid order, in that one or in a greedy one, whichever keeps less
    alive.

    Greedy: of the kernels whose inputs are there, the one that frees most for what it makes (list
    scheduling, Coffman 1976, with memory for the priority). Ties go to the order as it was.
    """
    other = _greedy(groups, sizes, outputs)
    return min((tuple(groups), other), key=lambda o: peak(o, sizes, outputs))


def peak(groups: Sequence[Group], sizes: Mapping[str, int], outputs: frozenset[str]) -> int:
    """The most bytes of activations alive at any kernel of this order."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, g in enumerate(groups):
        for n in (*g.inputs, *g.outputs):
            if n in sizes:
                first.setdefault(n, i if n in g.outputs else 0)
                last[n] = i
    last |= {n: len(groups) - 1 for n in outputs if n in first}
    return tightest([Interval(n, first[n], last[n], sizes[n]) for n in first])


def _greedy(
    groups: Sequence[Group], sizes: Mapping[str, int], outputs: frozenset[str]
) -> tuple[Group, ...]:
    maker = {n: i for i, g in enumerate(groups) for n in g.outputs}
    readers: dict[str, set[int]] = {}
    for i, g in enumerate(groups):
        for n in g.inputs:
            readers.setdefault(n, set()).add(i)
    waits = [{maker[n] for n in g.inputs if n in maker} for g in groups]
    ready = [i for i, w in enumerate(waits) if not w]
    done: list[int] = []
    while ready:
        best = min(ready, key=lambda i: (_grown(groups[i], i, readers, sizes, outputs), i))
        ready.remove(best)
        done.append(best)
        for n in groups[best].inputs:
            readers[n].discard(best)
        for i in {i for n in groups[best].outputs for i in readers.get(n, ())}:
            waits[i].discard(best)
            if not waits[i]:
                ready.append(i)
    return tuple(groups[i] for i in done)


def _grown(
    group: Group,
    number: int,
    readers: Mapping[str, set[int]],
    sizes: Mapping[str, int],
    outputs: frozenset[str],
) -> int:
    """Bytes that the kernel makes less those that nobody needs after it."""
    made = sum(sizes.get(n, 0) for n in group.outputs)
    freed = sum(
        sizes.get(n, 0) for n in group.inputs if readers[n] == {number} and n not in outputs
    )
    return made - freed
