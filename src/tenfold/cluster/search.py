"""The quickest layout of a training step: every legal one priced from single blocks.

A network is cut into its blocks once for each tensor-parallel size and microbatch; the time and the
bytes of a stage are the sums of those of its blocks. What comes out best is then compiled whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.block import Maker, Raw, blocks_of
from tenfold.cluster.chunk import Chunk, Memory, memory_of
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

MICRO = (1, 2, 4, 8)  # sequences of a microbatch that are tried
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
    """A layout with the time and memory of its step, or why it cannot be."""

    training: Training
    time: Estimate | None
    memory: Memory | None
    why: str = ""

    @property
    def fits(self) -> bool:
        return not self.why


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
    if count > joined.most:
        raise InputError(f"{joined.name} joins 1 to {joined.most:,} chips, got {count:,}")
    network = Joined(joined, chip, options.stack)
    found: list[Tried] = []
    box = joined.levels[0].members if joined.levels else 1
    for tensor in _powers(min(count, box, MOST_TENSOR)):
        for micro in MICRO:
            if count % tensor or batch % micro:
                continue
            asked = replace(wanted, layout=Layout(tensor=tensor), micro=micro, sequence=tensor > 1)
            try:
                units, again = _units(graph_of(micro), chip, precision, asked, network, options)
            except ModelError:
                raise
            except InputError as error:
                found.append(Tried(asked, None, None, str(error)))
                break
            found += _laid_out(units, again, chip, precision, asked, count, batch, network)
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


def _units(
    graph: Graph,
    chip: Chip,
    precision: MatrixPrecision,
    asked: Training,
    network: Joined,
    options: Options,
) -> tuple[list[Raw], int]:
    """The blocks of the network, each compiled and run forward and backward, and how many weights
    of a chip more than one of them holds.
    """
    whole = prepared(graph, asked)
    price = prices(chip, precision, network, asked.layout.tensor)
    stages = in_stages(whole, blocks_of(whole), price)
    maker = Maker(chip, precision, asked, network, price, options, attentions_of(graph))
    units = [maker.raw(s, last=i == len(stages) - 1) for i, s in enumerate(stages)]
    again = sum(s.graph.parameters for s in stages) - whole.parameters
    return units, again // asked.layout.tensor


def _laid_out(
    units: Sequence[Raw],
    again: int,
    chip: Chip,
    precision: MatrixPrecision,
    asked: Training,
    count: int,
    batch: int,
    network: Joined,
) -> Iterator[Tried]:  # as many as say what a layout is of
    left = count // asked.layout.tensor
    for pipeline in (n for n in range(1, min(left, len(units)) + 1) if left % n == 0):
        data = left // pipeline
        if batch % (data * asked.micro):
            continue
        rounds = batch // (data * asked.micro)
        for recompute, turns in _ways(units, pipeline, rounds):
            training = replace(
                asked,
                layout=Layout(asked.layout.tensor, pipeline, data),
                recompute=recompute,
                interleave=turns,
                shard=Shard.OPTIMISER if data > 1 else Shard.NONE,
            )
            # weights that several blocks hold, one chip holds once
            twice = again if pipeline * turns == 1 else 0
            stages = [_merged(u, recompute, twice) for u in _shared(units, pipeline * turns)]
            mine = [stages[p::pipeline] for p in range(pipeline)]
            try:
                time, _ = timed(mine, training, rounds, chip, precision, network)
            except InputError as error:
                yield Tried(training, None, None, str(error))
                continue
            memory = max(
                (memory_of(c, training, p, rounds, precision) for p, c in enumerate(mine)),
                key=lambda m: m.total,
            )
            room, need = (chip.memory_bytes or 0) / 1e9, (memory.total + RESERVED_BYTES) / 1e9
            why = "" if fits(chip, memory) else f"takes {need:.3g} GB of {room:.3g}"
            yield Tried(training, time, memory, why)


def _ways(units: Sequence[Raw], pipeline: int, rounds: int) -> Iterator[tuple[Recompute, int]]:
    """What is computed again, and how many stages a chip has: several only where microbatches go
    round.
    """
    for recompute in (Recompute.NONE, Recompute.FULL):
        yield recompute, 1
        for turns in TURNS:
            if pipeline > 1 and rounds % pipeline == 0 and pipeline * turns <= len(units):
                yield recompute, turns


def _shared(units: Sequence[Raw], count: int) -> Iterator[Sequence[Raw]]:
    """Blocks in ``count`` stages, as even as they go; the last ones have fewer."""
    each, more = divmod(len(units), count)
    at = 0
    for i in range(count):
        size = each + (i < more)
        yield units[at : at + size]
        at += size


def _merged(units: Sequence[Raw], recompute: Recompute, twice: int) -> Chunk:
    """One stage of some blocks, which hold ``twice`` weights again: only the last one hands on."""
    chunks = [u.chunk(recompute) for u in units]
    inside = Estimate.total(u.handed for u in units[:-1])
    total = Estimate.total(c.time for c in chunks)
    return Chunk(
        time=Estimate(total.value - inside.value, total.low - inside.low, total.high - inside.high),
        forward_s=sum(c.forward_s for c in chunks),
        again_s=sum(c.again_s for c in chunks),
        links_s=sum(c.links_s for c in chunks),
        handed_s=units[-1].handed.value,
        weights=sum(c.weights for c in chunks) - twice,
        experts=sum(c.experts for c in chunks),
        blocks=sum(c.blocks for c in chunks),
        kept_bytes=sum(c.kept_bytes for c in chunks),
        work_bytes=max(c.work_bytes for c in chunks),
        energy_j=Estimate.total(c.energy_j for c in chunks),
        flops=sum(c.flops for c in chunks),
    )
