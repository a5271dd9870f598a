"""The quickest layout of a training step: every legal one priced from single blocks.

A network is cut into its blocks once for each tensor-parallel size, share of experts and
microbatch; the time and the bytes of a stage are the sums of those of its blocks. What comes out
best is then compiled whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.apart import experts_count
from tenfold.cluster.around import NOTHING, Around
from tenfold.cluster.block import Maker, Raw, blocks_of
from tenfold.cluster.chunk import Memory, Stages, memory_of
from tenfold.cluster.layout import Layout
from tenfold.cluster.network import Joined, prices
from tenfold.cluster.recipe import Recompute, Shard, Training
from tenfold.cluster.stages import in_stages
from tenfold.cluster.topology import Topology, joining
from tenfold.cluster.training import prepared, timed
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import InputError, ModelError
from tenfold.estimate import Estimate
from tenfold.ir.graph import Graph
from tenfold.ir.unfused import attentions_of

MICRO = tuple(2**i for i in range(11))  # items of a microbatch that are tried
# where twice the microbatch makes a sequence no quicker than this, larger ones are left out: they
# hold more, and stages wait longer
QUICKER = 0.99
TURNS = (2, 4, 8)  # stages a chip, beside one
MOST_TENSOR = 64
# of a chip's memory that contexts, buffers of links and gaps take (assumed; half and double move
# the largest microbatch of a few layouts)
RESERVED_BYTES = 4e9


def fits(chip: Chip, memory: Memory) -> bool:
    room = chip.memory_bytes
    return room is None or memory.total + RESERVED_BYTES <= room


@dataclass(frozen=True, slots=True)
class Tried:
    """A layout with the time and memory of its step and what the time is spent on, or why it cannot
    be.
    """

    training: Training
    time: Estimate | None
    memory: Memory | None
    entries: Mapping[str, float]
    why: str = ""

    @property
    def fits(self) -> bool:
        return not self.why


def best_of(tried: Sequence[Tried]) -> tuple[Tried, ...]:
    """Of layouts that fit, the quickest first, those that no other beats in both time and memory:
    each one holds less than all that are quicker.
    """
    found: list[Tried] = []
    for t in tried:
        memory = t.memory.total if t.fits and t.memory is not None else None
        least = found[-1].memory.total if found and found[-1].memory is not None else None
        if memory is not None and (least is None or memory < least):
            found.append(t)
    return tuple(found)


def layouts(
    graph_of: Callable[[int], Graph],
    chip: Chip,
    precision: MatrixPrecision,
    wanted: Training,
    count: int,
    batch: int,
    *,
    topology: Topology | None = None,
    options: Options = DEFAULT,
) -> tuple[Tried, ...]:
    """Every layout of ``count`` chips, the quickest that fits first, then those that do not by
    their memory. ``graph_of`` binds the network for a microbatch; ``wanted`` says the rest of how a
    step is done.

    Raises ModelError for a network that has no gradient.
    """
    joined = joining(chip, topology, count)
    search = _Search(chip, precision, Joined(joined, chip, options.stack), count, batch, options)
    found: list[Tried] = []
    box = joined.levels[0].members if joined.levels else 1
    for tensor in _powers(min(count, box, MOST_TENSOR)):
        if count % tensor:
            continue
        for experts in _shares(graph_of(1), count // tensor, box // tensor):
            layout = Layout(tensor=tensor, data=count // tensor, experts=experts)
            asked = replace(wanted, layout=layout, sequence=tensor > 1)
            found += search.of(graph_of, asked)
    return tuple(sorted(found, key=_order))


def _order(t: Tried) -> tuple[bool, float]:
    if t.fits and t.time is not None:
        return False, t.time.value
    return True, t.memory.total if t.memory is not None else float("inf")


def _powers(most: int) -> Iterator[int]:
    n = 1
    while n <= most:
        yield n
        n *= 2


def _shares(graph: Graph, copies: int, box: int) -> Iterator[int]:
    """On how many chips experts may lie apart: none, those of a box, and one expert a chip."""
    most = experts_count(graph)
    able = [n for n in _powers(min(most, copies)) if most % n == 0 and copies % n == 0]
    inside = max((n for n in able if n <= box), default=1)
    yield from sorted({1, inside, able[-1] if able else 1})


class _Search:
    """Layouts of ``count`` chips for a step of ``batch`` sequences."""

    def __init__(
        self,
        chip: Chip,
        precision: MatrixPrecision,
        network: Joined,
        count: int,
        batch: int,
        options: Options,
    ) -> None:
        self.chip, self.precision, self.network, self.options = chip, precision, network, options
        self.count, self.batch = count, batch
        self.around = Around(chip, precision, network)

    def of(self, graph_of: Callable[[int], Graph], asked: Training) -> Iterator[Tried]:
        """Those with chips that share layers and experts as ``asked``."""
        quickest = float("inf")
        for micro in (m for m in MICRO if self.batch % m == 0):
            own = replace(asked, micro=micro)
            try:
                units, again = self._units(graph_of(micro), own)
            except ModelError:
                raise
            except InputError as error:
                yield Tried(own, None, None, {}, str(error))
                return
            yield from self._laid_out(units, again, own)
            each = sum(u.time.value for u in units) / micro
            if each > QUICKER * quickest:
                return
            quickest = each

    def _units(self, graph: Graph, asked: Training) -> tuple[list[Raw], int]:
        """The blocks of the network, each compiled and run forward and backward, and how many
        weights of a chip more than one of them holds.
        """
        whole = prepared(graph, asked)
        price = prices(self.chip, self.precision, self.network, asked.layout.tensor)
        stages = in_stages(whole, blocks_of(whole), price)
        names = attentions_of(graph)
        maker = Maker(self.chip, self.precision, asked, self.network, price, self.options, names)
        units = [maker.raw(s, last=i == len(stages) - 1) for i, s in enumerate(stages)]
        again = sum(s.graph.parameters for s in stages) - whole.parameters
        return units, again // asked.layout.tensor

    def _laid_out(self, units: Sequence[Raw], again: int, asked: Training) -> Iterator[Tried]:
        blocks = {
            r: Stages.of([u.chunk(r, NOTHING) for u in units])
            for r in Recompute
            if r is not Recompute.ATTENTION or not asked.flash
        }
        left = self.count // asked.layout.tensor
        for pipeline in (n for n in range(1, min(left, len(units)) + 1) if left % n == 0):
            data = left // pipeline
            if self.batch % (data * asked.micro) or data % asked.layout.experts:
                continue
            rounds = self.batch // (data * asked.micro)
            layout = replace(asked.layout, pipeline=pipeline, data=data)
            one = replace(asked, layout=layout)
            sent = [self.around.handed(one, u.sent_bytes) for u in units]
            handed = np.array([[t.value, t.low, t.high] for t in sent]).T
            for turns in _turns(len(units), pipeline, rounds):
                for recompute, own in blocks.items():
                    training = replace(one, interleave=turns, recompute=recompute)
                    stages = replace(own, handed=handed).merged(pipeline * turns)
                    if pipeline * turns == 1:  # weights of several blocks are held once
                        stages = replace(stages, weights=stages.weights - again)
                    placed = stages.placed(pipeline)
                    yield from self._shared(placed, training, rounds)

    def _shared(self, placed: Stages, training: Training, rounds: int) -> Iterator[Tried]:
        """With each thing that copies can hold a share of."""
        for shard in Shard if training.layout.holders > 1 else (Shard.NONE,):
            own = replace(training, shard=shard)
            try:
                time, entries = timed(placed, own, rounds, self.around)
            except InputError as error:
                yield Tried(own, None, None, {}, str(error))
                continue
            memory = memory_of(placed, own, rounds, self.precision)
            need = (memory.total + RESERVED_BYTES) / 1e9
            room = (self.chip.memory_bytes or 0) / 1e9
            why = "" if fits(self.chip, memory) else f"takes {need:.3g} GB of {room:.3g}"
            yield Tried(own, time, memory, entries, why)


def _turns(blocks: int, pipeline: int, rounds: int) -> Iterator[int]:
    """Stages a chip: several only where microbatches go round."""
    yield 1
    for turns in TURNS:
        if pipeline > 1 and rounds % pipeline == 0 and pipeline * turns <= blocks:
            yield turns
