"""What a collective takes: the quickest of the ways that a library has for it.

Of a switch: rings (Thakur, Rabenseifner, Gropp 2005, section 3) in a protocol for short messages,
which waits little and moves little, and in one for long ones, which fills a pipeline first; sums
made by the switch itself (Klenk et al., ISCA 2020); engines' kernels that read all others at once,
whole or each its share. Of a torus: rings along all sides at once, each link with its share
(Chan et al. 2007, section 7). Across levels: reduce-scatter inside, all-reduce between, all-gather
inside. ``bytes`` are those that nccl-tests calls size: of the whole buffer on each chip, for
gathers of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from tenfold.chips import Chip
from tenfold.cluster.link import LinkFacts, link_facts
from tenfold.cluster.topology import Level, Shape, Topology, bandwidth
from tenfold.estimate import Estimate
from tenfold.ir.sharding import Collective


class Way(StrEnum):
    """How it is done."""

    NOTHING = "nothing"
    SHORT_RING = "ring, short messages"
    LONG_RING = "ring"
    IN_SWITCH = "in the switch"
    ONE_SHOT = "one-shot"
    TWO_SHOT = "two-shot"
    SHORT_TREE = "tree, short messages"
    LONG_TREE = "tree"
    TORUS = "rings of a torus"
    LEVELS = "level by level"
    DIRECT = "each to each"


@dataclass(frozen=True, slots=True)
class Moved:
    """Seconds, the way, and bytes that leave each chip."""

    time_s: float
    way: Way
    sent_bytes: float
    error: float

    @property
    def time(self) -> Estimate:
        return Estimate.within(self.time_s, self.error)


@dataclass(frozen=True, slots=True)
class _How:
    """Whether an ``engine``'s own kernels are there, and whether it is ``between`` boxes."""

    engine: bool
    between: bool = False


_BETWEEN = _How(engine=False, between=True)


def collective(
    kind: Collective,
    size_bytes: float,
    count: int,
    topology: Topology,
    chip: Chip,
    *,
    engine: bool = False,
    stride: int = 1,
) -> Moved:
    """``kind`` over ``count`` chips of ``topology``, each ``stride`` places after the one before;
    ``engine``: a serving engine's own kernels are there too, inside a graph.

    Raises InputError for a count that the topology does not have.
    """
    parts = topology.parts(count, stride)
    if count == 1 or size_bytes == 0:
        return Moved(0.0, Way.NOTHING, 0.0, 0.0)
    how = _How(engine=engine)
    if len(parts) == 1:
        return _one(kind, size_bytes, *parts[0], chip, how)
    return _levels(kind, size_bytes, parts, chip, how)


def steps_and_share(kind: Collective, n: int) -> tuple[int, float]:
    """Steps of a ring of ``n``, and the share of the buffer that leaves each chip: no way moves
    less (Patarasuk and Yuan 2009, section 2).
    """
    match kind:
        case Collective.ALL_REDUCE:
            return 2 * (n - 1), 2 * (n - 1) / n
        case Collective.ALL_GATHER | Collective.REDUCE_SCATTER | Collective.ALL_TO_ALL:
            return n - 1, (n - 1) / n
        case Collective.BROADCAST:
            return n - 1, 1.0
        case Collective.SEND_RECV:
            return 1, 1.0
        case _:
            assert_never(kind)


def _one(
    kind: Collective,
    size: float,
    level: Level,
    sides: Sequence[int],
    chip: Chip,
    how: _How,
) -> Moved:
    """On one level."""
    facts, rate = link_facts(level.link), bandwidth(level, chip)
    match level.shape:
        case Shape.SWITCH:
            ways = _switched(kind, size, math.prod(sides), facts, rate, how)
            return min(ways, key=lambda m: m.time_s)
        case Shape.MESH:
            # of the links to all others only those to the chips that take part
            used = (math.prod(sides) - 1) / (level.members - 1)
            ways = _switched(kind, size, math.prod(sides), facts, rate * used, how)
            return min(ways, key=lambda m: m.time_s)
        case Shape.TORUS:
            return _torus(kind, size, level, sides, facts, rate)
        case _:
            assert_never(level.shape)


def _switched(
    kind: Collective, size: float, n: int, f: LinkFacts, rate: float, how: _How
) -> Iterator[Moved]:
    steps, share = steps_and_share(kind, n)
    sent = share * size
    ring = Way.SHORT_RING, Way.LONG_RING
    # the pipeline of a ring of 8 has 14 steps, for which its filling was fitted
    yield from _protocols(ring, size, sent, steps, f, rate, fills=steps / _STEPS_OF_8)
    if how.between and kind in (Collective.ALL_REDUCE, Collective.BROADCAST):
        yield from _trees(kind, size, n, f, rate)
    if kind is not Collective.ALL_REDUCE:
        return
    if f.has("switch_fraction") and n >= _FEWEST_IN_SWITCH:
        once = (n + 1) / n * size
        time = f.value("switch_launch") + once / (rate * f.value("switch_fraction"))
        yield Moved(time, Way.IN_SWITCH, once, f.error)
    if how.engine and f.has("engine_fraction"):
        reached = rate * f.value("engine_fraction")
        whole = (n - 1) * size
        yield Moved(f.value("engine_launch") + whole / reached, Way.ONE_SHOT, whole, f.error)
        time = f.value("engine_long_launch") + sent / reached
        yield Moved(time, Way.TWO_SHOT, sent, f.error)


def _trees(kind: Collective, size: float, n: int, f: LinkFacts, rate: float) -> Iterator[Moved]:
    """Two binary trees with half of the buffer each (Sanders, Speck, Traeff 2009), which libraries
    use between boxes: up and down again for a sum.
    """
    ways = 2 if kind is Collective.ALL_REDUCE else 1
    steps = ways * math.ceil(math.log2(n))
    tree = Way.SHORT_TREE, Way.LONG_TREE
    yield from _protocols(tree, size, ways * size, steps, f, rate, fills=1.0)


def _protocols(
    ways: tuple[Way, Way],
    size: float,
    sent: float,
    steps: int,
    f: LinkFacts,
    rate: float,
    *,
    fills: float,
) -> Iterator[Moved]:
    """The protocol for short messages, where the link has one, and that for long ones, which fills
    a pipeline ``fills`` times first.
    """
    short, long = ways
    waits = steps * f.value("step")
    if f.has("short_fraction"):
        time = f.value("launch") + waits + sent / (rate * f.value("short_fraction"))
        yield Moved(time, short, sent, f.error)
    start = f.value("long_launch") if f.has("long_launch") else f.value("launch")
    time = start + waits + sent / (rate * f.value("long_fraction"))
    if f.has("copy"):
        filled = math.sqrt(min(size / f.value("fill_bytes"), 1.0))
        time += size / f.value("copy") + f.value("fill") * filled * fills
    yield Moved(time, long, sent, f.error)


_STEPS_OF_8 = 14
_FEWEST_IN_SWITCH = 8  # NCCL uses NVLS for whole nodes


def _torus(
    kind: Collective,
    size: float,
    level: Level,
    sides: Sequence[int],
    f: LinkFacts,
    rate: float,
) -> Moved:
    """Rings along every side in both directions, each link with its share; a side that does not
    wrap around has half of the links at its ends, and its messages go there and back.
    """
    n = math.prod(sides)
    _, share = steps_and_share(kind, n)
    links = 2 * len(level.largest)
    each = rate / links * f.value("long_fraction")
    long = [s for s in sides if s > 1]
    whole = [s % level.wraps_from == 0 for s in sides]
    around = {s: s > 2 and s % level.wraps_from == 0 for s in long}
    wraps = {s: around[s] and (all(whole) or not level.wraps_together) for s in long}
    hops = sum(s - 1 for s in long)
    used = sum(2 if wraps[s] else 1 for s in long)
    launch, step = f.value("launch"), f.value("step")
    match kind:
        case Collective.ALL_REDUCE:
            time = 2 * hops * step + share * size / (used * each)
        case Collective.ALL_GATHER | Collective.REDUCE_SCATTER | Collective.BROADCAST:
            time = hops * step + share * size / (used * each)
        case Collective.SEND_RECV:
            time = step + size / each
        case Collective.ALL_TO_ALL:
            # the bytes over the busiest link: an eighth of a ring's, a quarter of a line's
            crossing = max(s / (8 if wraps[s] else 4) for s in long)
            time = sum(s / 2 for s in long) * step + crossing * size / each
        case _:
            assert_never(kind)
    return Moved(launch + time, Way.TORUS, share * size, f.error)


def _levels(
    kind: Collective,
    size: float,
    parts: Sequence[tuple[Level, tuple[int, ...]]],
    chip: Chip,
    how: _How,
) -> Moved:
    """Inside first, then between the groups, each chip with its share of the buffer."""
    (level, sides), *outer = parts
    n = math.prod(sides)

    def inside(what: Collective, bytes_: float) -> Moved:
        return _one(what, bytes_, level, sides, chip, how)

    def between(what: Collective, bytes_: float) -> Moved:
        if len(outer) == 1:
            return _one(what, bytes_, *outer[0], chip, _BETWEEN)
        return _levels(what, bytes_, outer, chip, _BETWEEN)

    done: tuple[Moved, ...]
    match kind:
        case Collective.ALL_REDUCE:
            done = (
                inside(Collective.REDUCE_SCATTER, size),
                between(Collective.ALL_REDUCE, size / n),
                inside(Collective.ALL_GATHER, size),
            )
        case Collective.ALL_GATHER:
            done = (between(kind, size / n), inside(kind, size))
        case Collective.REDUCE_SCATTER:
            done = (inside(kind, size), between(kind, size / n))
        case Collective.ALL_TO_ALL:
            # what is for other groups crosses once, the rest stays inside; both at the same time
            groups = math.prod(math.prod(s) for _, s in outer)
            out, stays = between(kind, size), inside(kind, size / groups)
            longer = max(out, stays, key=lambda m: m.time_s)
            done = (replace(longer, sent_bytes=out.sent_bytes + stays.sent_bytes),)
        case Collective.BROADCAST:
            done = (
                inside(Collective.REDUCE_SCATTER, size),  # a scatter moves as much
                between(kind, size / n),
                inside(Collective.ALL_GATHER, size),
            )
        case Collective.SEND_RECV:
            done = (between(kind, size),)  # to a chip of another box, the farthest there is
        case _:
            assert_never(kind)
    return Moved(
        sum(m.time_s for m in done),
        Way.LEVELS,
        sum(m.sent_bytes for m in done),
        max(m.error for m in done),
    )
