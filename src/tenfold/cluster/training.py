"""A training step on several chips: stages forward and backward, microbatch after microbatch.

Schedules: one forward, one backward (Narayanan et al. 2019, PipeDream-Flush), interleaved over
several stages a chip (Narayanan et al. 2021, section 2.2). Gradients are added up over the copies,
and the optimiser (Adam; Kingma, Ba 2015) updates what each chip holds, or with a sharded one its
share (Rajbhandari et al. 2020, ZeRO).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.apart import check_context, check_experts
from tenfold.cluster.around import Around, total
from tenfold.cluster.block import Maker
from tenfold.cluster.chunk import Chunk, Memory, Stages, memory_of, updated
from tenfold.cluster.narrow import check_narrow
from tenfold.cluster.network import Joined, prices
from tenfold.cluster.recipe import Recompute, Shard, Training
from tenfold.cluster.stages import in_stages
from tenfold.cluster.topology import Topology, joining
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import InputError
from tenfold.estimate import Estimate
from tenfold.ir.dropout import with_dropout
from tenfold.ir.graph import Graph
from tenfold.ir.unfused import attentions_of, unfused
from tenfold.machine.energy import energy_model


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
    """A step over ``batch`` sequences; ``graph`` is bound for one microbatch, and for the stretch
    of each sequence that a chip has.

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
    if training.products is not None:
        check_narrow(chip, training.products)
    network = Joined(joined, chip, options.stack)
    price = prices(chip, precision, network, layout.tensor)
    whole = prepared(graph, training)
    check_experts(whole, layout.experts)
    check_context(whole, layout.context)
    stages = in_stages(whole, layout.pipeline * training.interleave, price)
    maker = Maker(chip, precision, training, network, price, options, attentions_of(graph))
    raws = [maker.raw(s, last=i == len(stages) - 1) for i, s in enumerate(stages)]
    around = Around(chip, precision, network)
    chunks = tuple(
        raw.chunk(training.recompute, around.handed(training, raw.sent_bytes)) for raw in raws
    )
    placed = Stages.of(chunks).placed(layout.pipeline)
    time, entries = timed(placed, training, rounds, around)
    flops = sum(c.flops for c in chunks) * rounds * layout.data
    peak = chip.peak_flops[training.products or precision] * layout.chips
    each = layout.tensor * layout.holders
    busy = Estimate.total(c.energy_j for c in chunks) * (rounds * each)
    # static power while results are handed on and others are waited for
    waits = np.maximum(0.0, time.value - rounds * placed.time[0].sum(0)).sum()
    idle = energy_model(chip, precision).static_w * (float(waits) * each)
    shares = updated(placed.weights.sum(0), placed.experts.sum(0), training)
    updates = Estimate.total(around.update(training, n)[1] for n in shares.tolist())
    return Step(
        training=training,
        topology=joined,
        time=time,
        entries=entries,
        memory=memory_of(placed, training, rounds, precision),
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
    placed: Stages, training: Training, rounds: int, around: Around
) -> tuple[Estimate, dict[str, float]]:
    """The step, and what it is spent on, by the slowest chip of the pipeline."""
    waits = around.each(training, placed)
    waiting = np.array([[w.value, w.low, w.high] for w in waits]).T
    each = placed.time.sum(1) + placed.handed.sum(1) + waiting
    slowest = int(each[0].argmax())
    one, waited = each[:, slowest], rounds * waits[slowest].value
    bubble = (each.sum(1) - one) / training.interleave
    forward, again, links, handed = (
        rounds * float(a[:, slowest].sum())
        for a in (placed.forward_s, placed.again_s, placed.links_s, placed.handed[0])
    )
    held, experts = placed.weights.sum(0), placed.experts.sum(0)
    fullest = int(held.argmax())
    backward = float(one[0]) - forward / rounds
    left = around.once(training, float(held[fullest]), float(experts[fullest]), backward)
    share = float(updated(held, experts, training)[fullest])
    update, _ = around.update(training, share)
    time = total(one * rounds + bubble) + left + Estimate.exact(update)
    entries = {
        "forward": forward,
        "backward": rounds * float(one[0]) - forward - again - links - handed - waited,
        "computed again": again,
        "links between parts of a layer": links,
        "links between stages": handed,
        "waiting for other stages": float(bubble[0]),
        "weights from other copies": waited,
        "sums of gradients": left.value,
        "optimiser": update,
    }
    return time, {n: s for n, s in entries.items() if s}


__all__ = [
    "Memory",
    "Recompute",
    "Shard",
    "Step",
    "Training",
    "prepared",
    "timed",
    "training_step",
]
