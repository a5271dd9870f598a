"""A training step on several chips: stages forward and backward, microbatch after microbatch.

Schedules: one forward, one backward (Narayanan et al. 2019, PipeDream-Flush), interleaved over
several stages a chip (Narayanan et al. 2021, section 2.2). Gradients are added up over the copies,
and the optimiser (Adam; Kingma, Ba 2015) updates what each chip holds, or with a sharded one its
share (Rajbhandari et al. 2020, ZeRO stage 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.block import Chunk, Maker
from tenfold.cluster.network import Joined, prices
from tenfold.cluster.recipe import Recompute, Training
from tenfold.cluster.stages import in_stages
from tenfold.cluster.topology import Topology, joining
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import InputError
from tenfold.estimate import Estimate
from tenfold.ir.dropout import with_dropout
from tenfold.ir.graph import Graph
from tenfold.ir.sharding import Collective
from tenfold.ir.table import Lowering
from tenfold.ir.unfused import attentions_of, unfused
from tenfold.machine import Kernel, Together, time_kernel
from tenfold.machine.energy import dynamic_energy, energy_model
from tenfold.machine.kernel import Moved, Traffic

MOMENTS_BYTES, MASTER_BYTES = 8, 4  # in fp32 (Kingma, Ba 2015; Micikevicius et al. 2018)
ADAM_OPS = 12  # of a weight


def state_bytes(precision: MatrixPrecision) -> int:
    """Of the optimiser for a weight: both moments, and a master copy of narrow ones."""
    return MOMENTS_BYTES + (MASTER_BYTES if precision.bits < 32 else 0)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a chip, by what they are."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    workspace: float

    @property
    def total(self) -> float:
        parts = self.weights, self.gradients, self.optimiser, self.activations, self.workspace
        return sum(parts)


@dataclass(frozen=True, slots=True)
class Step:
    """A training step: entries that sum to ``time``, and bytes of the fullest chip."""

    training: Training
    topology: Topology
    time: Estimate
    entries: Mapping[str, float]
    memory: Memory
    flops: int
    mfu: float
    energy_j: Estimate
    chunks: tuple[Chunk, ...]


def training_step(
    graph: Graph,
    chip: Chip,
    precision: MatrixPrecision,
    training: Training,
    batch: int,
    *,
    topology: Topology | None = None,
    options: Options = DEFAULT,
) -> Step:
    """A step over ``batch`` sequences; ``graph`` is bound for one microbatch.

    Raises InputError for what does not divide, and ModelError for what has no gradient.
    """
    joined = joining(chip, topology, training.layout.chips)
    layout = training.layout
    rounds = _microbatches(training, batch)
    if training.interleave > 1 and layout.pipeline == 1:
        raise InputError(
            f"{training.interleave} stages a chip are for several chips one after the other: give"
            " pp, or an interleave of 1"
        )
    if training.flash and training.recompute is Recompute.ATTENTION:
        raise InputError(
            "an attention in one kernel keeps no scores to compute again: give --no-flash, or"
            " recompute none or full"
        )
    if layout.chips > joined.most:
        raise InputError(f"{joined.name} joins 1 to {joined.most:,} chips, got {layout.chips:,}")
    network = Joined(joined, chip, options.stack)
    price = prices(chip, precision, network, layout.tensor)
    whole = prepared(graph, training)
    stages = in_stages(whole, layout.pipeline * training.interleave, price)
    maker = Maker(chip, precision, training, network, price, options, attentions_of(graph))
    chunks = tuple(maker.chunk(s, last=i == len(stages) - 1) for i, s in enumerate(stages))
    mine = [chunks[p :: layout.pipeline] for p in range(layout.pipeline)]
    time, entries = timed(mine, training, rounds, chip, precision, network)
    memory = max(
        (memory_of(c, training, p, rounds, precision) for p, c in enumerate(mine)),
        key=lambda m: m.total,
    )
    flops = sum(c.flops for c in chunks) * rounds * layout.data
    peak = chip.peak_flops[precision] * layout.chips
    each = layout.tensor * layout.data
    busy = Estimate.total(c.energy_j for c in chunks) * (rounds * each)
    # static power while results are handed on and others are waited for
    worked = (rounds * sum(c.time.value - c.handed_s for c in own) for own in mine)
    waits = sum(max(0.0, time.value - seconds) for seconds in worked)
    idle = energy_model(chip, precision).static_w * (waits * each)
    updates = Estimate.total(
        _update(training, sum(c.weights for c in own), chip, precision)[1] for own in mine
    )
    return Step(
        training=training,
        topology=joined,
        time=time,
        entries=entries,
        memory=memory,
        flops=flops,
        mfu=flops / (peak * time.value),
        energy_j=busy + idle + updates * each,
        chunks=chunks,
    )


def prepared(graph: Graph, training: Training) -> Graph:
    """The network as it runs in training: attention in parts, dropout."""
    whole = graph if training.flash else unfused(graph)
    return with_dropout(whole) if training.dropout else whole


def _microbatches(training: Training, batch: int) -> int:
    layout = training.layout
    each = layout.data * training.micro
    if batch % each:
        raise InputError(
            f"a batch of {batch} is not made of microbatches of {training.micro} on"
            f" {layout.data} copies: give a multiple of {each}"
        )
    rounds = batch // each
    if training.interleave > 1 and rounds % layout.pipeline:
        raise InputError(
            f"{rounds} microbatches do not go round pp={layout.pipeline} stages interleaved: give a"
            " multiple"
        )
    return rounds


def timed(
    mine: Sequence[Sequence[Chunk]],
    training: Training,
    rounds: int,
    chip: Chip,
    precision: MatrixPrecision,
    network: Joined,
) -> tuple[Estimate, dict[str, float]]:
    """The step, and what it is spent on, by the slowest chip of the pipeline."""
    each = [Estimate.total(c.time for c in own) for own in mine]
    slowest = max(range(len(mine)), key=lambda p: each[p].value)
    own, one = mine[slowest], each[slowest]
    others = Estimate.total(t for p, t in enumerate(each) if p != slowest)
    bubble = others * (1 / training.interleave)
    held = max(sum(c.weights for c in own) for own in mine)
    sums, gathered = _gradient_sums(training, held, precision, network)
    backward = one.value - sum(c.forward_s for c in own)
    hidden = min(sums.value, backward) if training.overlap else 0.0
    left = sums * ((sums.value - hidden) / sums.value) if sums.value else sums
    left = left + gathered
    update = Estimate.exact(_update(training, held, chip, precision)[0])
    time = one * rounds + bubble + left + update
    links, handed, again, forward = (
        rounds * sum(getattr(c, n) for c in own)
        for n in ("links_s", "handed_s", "again_s", "forward_s")
    )
    entries = {
        "forward": forward,
        "backward": rounds * one.value - forward - again - links - handed,
        "computed again": again,
        "links between parts of a layer": links,
        "links between stages": handed,
        "waiting for other stages": bubble.value,
        "sums of gradients": left.value,
        "optimiser": update.value,
    }
    return time, {n: s for n, s in entries.items() if s}


def _gradient_sums(
    training: Training, held: int, precision: MatrixPrecision, network: Joined
) -> tuple[Estimate, Estimate]:
    """Seconds to add the gradients of ``held`` weights up over the copies, and with a sharded
    optimiser, where each gets its share, until what it updated went round.
    """
    layout = training.layout
    nothing = Estimate.exact(0.0)
    if layout.data == 1:
        return nothing, nothing

    def seconds(kind: Collective, size: float) -> Estimate:
        return network.seconds(Together(kind, int(size), layout.data, layout.tensor))

    size = held * training.gradient_bytes
    if not training.sharded:
        return seconds(Collective.ALL_REDUCE, size), nothing
    updated = seconds(Collective.ALL_GATHER, held * precision.bits / 8)
    return seconds(Collective.REDUCE_SCATTER, size), updated


def _update(
    training: Training, held: int, chip: Chip, precision: MatrixPrecision
) -> tuple[float, Estimate]:
    """Seconds and joules (beside static power) of Adam on ``held`` weights, or on a share of them:
    gradient and state are read, state and weight written.
    """
    count = held // (training.layout.data if training.sharded else 1)
    state = state_bytes(precision)
    read, written = training.gradient_bytes + state, state + precision.bits // 8
    kernel = Kernel(
        name="optimiser",
        ops=("adam",),
        kind=Lowering.VECTOR,
        precision=precision,
        vector_ops=ADAM_OPS * count,
        traffic=Traffic(Moved(inputs=read * count, outputs=written * count)),
    )
    t = time_kernel(chip, kernel)
    model = energy_model(chip, precision)
    return t.time_s, dynamic_energy(model, t.counters, t.clocked).total


def memory_of(
    own: Sequence[Chunk],
    training: Training,
    place: int,
    rounds: int,
    precision: MatrixPrecision,
) -> Memory:
    """Bytes of the chip at a ``place`` of the pipeline: so many microbatches are on their way
    there (Narayanan et al. 2021, section 2.2).
    """
    held = sum(c.weights for c in own)
    shares = training.layout.data if training.sharded else 1
    pipeline, after = training.layout.pipeline, training.layout.pipeline - place - 1
    if training.interleave == 1:
        kept = min(rounds, after + 1) * own[0].kept_bytes
    else:
        # all of the earlier stages of a chip go round before the last one begins
        first, *others = own
        early = (pipeline + 2 * after) * first.kept_bytes
        early += sum(pipeline * c.kept_bytes for c in others[:-1])
        kept = min(rounds * sum(c.kept_bytes for c in own), early + own[-1].kept_bytes)
    return Memory(
        weights=held * precision.bits / 8,
        gradients=held * training.gradient_bytes,
        optimiser=held * state_bytes(precision) / shares,
        activations=kept,
        workspace=max(c.work_bytes for c in own),
    )


__all__ = [
    "Memory",
    "Recompute",
    "Step",
    "Training",
    "memory_of",
    "prepared",
    "timed",
    "training_step",
]
