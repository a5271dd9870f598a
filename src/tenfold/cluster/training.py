"""A training step on several chips: stages forward and backward, microbatch after microbatch.

Schedules: one forward, one backward (Narayanan et al. 2019, PipeDream-Flush), interleaved over
several stages a chip (Narayanan et al. 2021, section 2.2). Gradients are added up over the copies,
and the optimiser (Adam; Kingma, Ba 2015) updates what each chip holds, or with a sharded one its
share (Rajbhandari et al. 2020, ZeRO).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.apart import check_experts
from tenfold.cluster.around import Around
from tenfold.cluster.block import Maker
from tenfold.cluster.chunk import Chunk, Memory, memory_of, state_bytes, updated
from tenfold.cluster.network import Joined, prices
from tenfold.cluster.recipe import Recompute, Shard, Training
from tenfold.cluster.stages import in_stages
from tenfold.cluster.topology import Topology, joining
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import InputError
from tenfold.estimate import Estimate
from tenfold.ir.dropout import with_dropout
from tenfold.ir.graph import Graph
from tenfold.ir.table import Lowering
from tenfold.ir.unfused import attentions_of, unfused
from tenfold.machine import Kernel, time_kernel
from tenfold.machine.energy import dynamic_energy, energy_model
from tenfold.machine.kernel import Moved, Traffic

ADAM_OPS = 12  # of a weight


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
    check_experts(whole, layout.experts)
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
    updates = Estimate.total(_update(training, own, chip, precision)[1] for own in mine)
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
    around = Around(training, precision, network)
    waits = [around.each(own) for own in mine]
    each = [Estimate.total(c.time for c in own) + w for own, w in zip(mine, waits, strict=True)]
    slowest = max(range(len(mine)), key=lambda p: each[p].value)
    own, one, waited = mine[slowest], each[slowest], rounds * waits[slowest].value
    others = Estimate.total(t for p, t in enumerate(each) if p != slowest)
    bubble = others * (1 / training.interleave)
    fullest = max(mine, key=lambda own: sum(c.weights for c in own))
    left = around.once(fullest, one.value - sum(c.forward_s for c in own))
    update = Estimate.exact(_update(training, fullest, chip, precision)[0])
    time = one * rounds + bubble + left + update
    links, handed, again, forward = (
        rounds * sum(getattr(c, n) for c in own)
        for n in ("links_s", "handed_s", "again_s", "forward_s")
    )
    entries = {
        "forward": forward,
        "backward": rounds * one.value - forward - again - links - handed - waited,
        "computed again": again,
        "links between parts of a layer": links,
        "links between stages": handed,
        "waiting for other stages": bubble.value,
        "weights from other copies": waited,
        "sums of gradients": left.value,
        "optimiser": update.value,
    }
    return time, {n: s for n, s in entries.items() if s}


def _update(
    training: Training, own: Sequence[Chunk], chip: Chip, precision: MatrixPrecision
) -> tuple[float, Estimate]:
    """Seconds and joules (beside static power) of Adam on the weights of a chip or its share:
    gradient and state are read, state and weight written.
    """
    count = int(updated(own, training))
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


__all__ = [
    "Memory",
    "Recompute",
    "Shard",
    "Step",
    "Training",
    "memory_of",
    "prepared",
    "timed",
    "training_step",
]
