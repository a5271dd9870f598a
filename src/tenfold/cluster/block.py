"""A stage of a training step, one microbatch forward and backward, compiled and run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.loss import with_loss
from tenfold.cluster.network import Joined
from tenfold.cluster.part import Prices
from tenfold.cluster.partition import partition
from tenfold.cluster.recipe import Recompute, Training
from tenfold.cluster.stages import StageGraph, given_to_a_block, width_of
from tenfold.compiler import Options, build
from tenfold.estimate import Estimate
from tenfold.ir.cost import graph_totals
from tenfold.ir.gradient import SEED, differentiated, trained
from tenfold.ir.graph import Graph
from tenfold.ir.infer import row_of
from tenfold.ir.sharding import Collective
from tenfold.ir.table import Lowering, Rate
from tenfold.ir.views import roots
from tenfold.machine import Run, Together, simulate
from tenfold.machine.energy import energy_model
from tenfold.machine.run import KernelRun

ROOMY = 1e6


@dataclass(frozen=True, slots=True)
class Chunk:
    """One stage, a microbatch forward and backward: seconds of both, of which what is computed
    again and the links take so much; bytes kept until the backward pass, and what it needs besides.
    ``energy_j`` is for the time but that in which results are handed on. ``flops`` are those of its
    products forward and backward, on all chips that share it, as a model's are counted (Chowdhery
    et al. 2022, PaLM, appendix B).
    """

    time: Estimate
    forward_s: float
    again_s: float
    links_s: float
    handed_s: float
    weights: int
    kept_bytes: float
    work_bytes: float
    energy_j: Estimate
    flops: int


@dataclass(frozen=True, slots=True)
class Raw:
    """A stage compiled and run, before it is decided what is computed again. Seconds of a
    microbatch, of its forward pass with links and without, of scores, of all links; joules of the
    forward pass and of scores; bytes kept until the backward pass, of scores among them, and the
    most that is alive besides (gradients of weights apart); bytes that a block is given, and how
    many blocks there are.
    """

    time: Estimate
    again_s: float
    forward_s: float
    scores_s: float
    links_s: float
    handed: Estimate
    weights: int
    kept_bytes: float
    score_bytes: float
    work_bytes: float
    given_bytes: float
    layers: int
    energy_j: Estimate
    again_j: Estimate
    scores_j: Estimate
    flops: int

    def chunk(self, recompute: Recompute) -> Chunk:
        """With what of the forward pass is computed again."""
        again, joules = 0.0, Estimate.exact(0.0)
        kept, work = self.kept_bytes, self.work_bytes
        match recompute:
            case Recompute.NONE:
                pass
            case Recompute.ATTENTION:
                again, joules = self.scores_s, self.scores_j
                kept -= self.score_bytes
                work += self.score_bytes / self.layers
            case Recompute.FULL:
                again, joules = self.again_s, self.again_j
                work += kept / self.layers
                kept = self.layers * self.given_bytes
            case _:
                assert_never(recompute)
        return Chunk(
            time=self.time * (1 + again / self.time.value) + self.handed,
            forward_s=self.forward_s,
            again_s=again,
            links_s=self.links_s,
            handed_s=self.handed.value,
            weights=self.weights,
            kept_bytes=kept,
            work_bytes=work,
            energy_j=self.energy_j + joules,
            flops=self.flops,
        )


class Maker:
    """Compiles and runs stages; those that are alike once. ``attentions`` are the names of the ops
    that were an attention before it was taken apart.
    """

    def __init__(
        self,
        chip: Chip,
        precision: MatrixPrecision,
        training: Training,
        network: Joined,
        price: Prices,
        options: Options,
        attentions: Collection[str] = (),
    ) -> None:
        self.chip, self.precision, self.training = chip, precision, training
        self.network, self.price, self.options = network, price, options
        self.scores = tuple(f"{n}/" for n in attentions)
        # what is kept is counted apart: nothing need fit with all of it
        room = chip.memory_bytes
        self.roomy = chip.with_figures({"memory.capacity": ROOMY * room}) if room else chip
        self.made: dict[object, Raw] = {}

    def chunk(self, stage: StageGraph, *, last: bool) -> Chunk:
        return self.raw(stage, last=last).chunk(self.training.recompute)

    def raw(self, stage: StageGraph, *, last: bool) -> Raw:
        key = _signature(stage.graph), stage.sent_bytes, last
        if key not in self.made:
            self.made[key] = self._raw(stage, last=last)
        return self.made[key]

    def _raw(self, stage: StageGraph, *, last: bool) -> Raw:
        graph = stage.graph
        received = [n for n in graph.inputs if graph.values[n].dtype.is_float]
        made = differentiated(graph, (*trained(graph), *received))
        like = {g: n for n, g in made.grads.items() if n in graph.constants}
        whole = with_loss(made.graph, made.seeds) if last else made.graph
        local = whole
        if self.training.layout.tensor > 1:
            local = partition(
                whole,
                self.training.layout.tensor,
                self.price,
                like=like,
                sequence=self.training.sequence,
                received=received,
            )[-1].graph
        program = build(local, self.chip, self.precision, self.training.micro, self.options)
        run = simulate(program, self.roomy, self.network)
        handed = Estimate.exact(0.0)
        if stage.sent_bytes:
            wide = self.precision.bits / 8 / width_of(graph)
            handed = self._handed(stage.sent_bytes * wide) * 2  # and its gradient back
        forward = list(_forward(run))
        scores = [k for k in forward if k.kernel.name.startswith(self.scores)]
        all_links = (_seconds(k) for k in run.kernels if k.kernel.together)
        kept = _kept(run)
        ends = dict(zip(whole.outputs, local.outputs, strict=True))
        # what a block is given is kept cut where sums are
        shares = self.training.layout.tensor if self.training.sequence else 1
        return Raw(
            time=run.time_s,
            again_s=sum(map(_seconds, forward)),
            forward_s=sum(_seconds(k) for k in forward if not k.kernel.together),
            scores_s=sum(map(_seconds, scores)),
            links_s=sum(all_links),
            handed=handed,
            weights=local.parameters,
            kept_bytes=sum(kept.values()),
            score_bytes=sum(b for n, b in kept.items() if n.startswith(self.scores)),
            work_bytes=_beside(run, {*kept, *(ends[g] for g in like)}),
            given_bytes=given_to_a_block(graph) * self.precision.bits / 8 / shares,
            layers=max(1, blocks_of(graph)),
            energy_j=run.energy_j,
            again_j=self._joules(forward),
            scores_j=self._joules(scores),
            flops=int(str(graph_totals(made.graph).contraction_flops)),
        )

    def _joules(self, kernels: Collection[KernelRun]) -> Estimate:
        """Of kernels done once more, with the static power meanwhile."""
        own = Estimate.total(k.energy.total * k.kernel.repeat for k in kernels)
        static = energy_model(self.chip, self.precision).static_w
        return own + static * sum(map(_seconds, kernels))

    def _handed(self, size: float) -> Estimate:
        """From one stage to the next: where sums are cut each chip its part; else each chip its
        part over the links between and all of it around inside (Narayanan et al. 2021, section
        4.1), or whole, whichever is quicker.
        """
        layout = self.training.layout
        stride = layout.tensor * layout.data
        if layout.tensor == 1 or self.training.sequence:
            return self.network.sent(size / layout.tensor, stride)
        alone = self.network.sent(size, stride)
        gather = Together(Collective.ALL_GATHER, int(size), layout.tensor)
        shared = self.network.sent(size / layout.tensor, stride) + self.network.seconds(gather)
        return min(alone, shared, key=lambda t: t.value)


def blocks_of(graph: Graph) -> int:
    """Blocks of a stage: as many as it has attentions, whole or in parts, else a fourth of its
    weights.
    """
    rows = [row_of(op) for op in graph.ops]
    whole = sum(row.attention is not None for row in rows)
    parts = sum(row.rate is Rate.SOFTMAX and row.lowering is Lowering.REDUCE for row in rows)
    return whole or parts or len(graph.constants) // 4


def _seconds(k: KernelRun) -> float:
    return k.time_s * k.kernel.repeat


def _forward(run: Run) -> Iterator[KernelRun]:
    """Kernels of the forward pass: those whose contraction, or else first op, is of it. They may
    change the layout of a result for the backward pass at their end.
    """
    groups = run.program.groups
    for k in run.kernels:
        group = groups[k.kernel.group]
        if not (group.anchor or group.ops[0]).outputs[0].startswith(SEED):
            yield k


def _kept(run: Run) -> Mapping[str, float]:
    """Bytes of values that are there or made before the backward pass and read in it, whole inputs
    among them. What chips gathered they keep as it was before, and gather again beside the products
    that need it (Korthikanti et al. 2022, section 4.2.2).
    """
    graph, root = run.program.graph, dict(roots(run.program.graph))
    for op in graph.ops:
        if row_of(op).collective is Collective.ALL_GATHER:
            root[op.outputs[0]] = root.get(op.inputs[0], op.inputs[0])
    width = run.program.precision.bits / 8
    before = {o for op in graph.ops for o in op.outputs if o and not o.startswith(SEED)}
    before |= {n for n in graph.inputs if not n.startswith(SEED)}
    read = {
        root.get(n, n)
        for op in graph.ops
        if any(o.startswith(SEED) for o in op.outputs)
        for n in op.inputs
        if n
    }
    found: dict[str, float] = {}
    for n in {root.get(n, n) for n in before} & read:
        value = graph.values[n]
        each = min(width, value.dtype.bits / 8) if value.dtype.is_float else value.dtype.bits / 8
        found[n] = int(str(value.elements)) * each
    return found


def _beside(run: Run, counted: Collection[str]) -> float:
    """The most bytes that are alive at once beside those that are ``counted`` apart."""
    root, program = roots(run.program.graph), run.program
    apart = {root.get(n, n) for n in counted}
    change = np.zeros(len(program.kernels) + 2)
    for b in program.memory.far:
        if b.name not in apart:
            change[b.first] += b.bytes
            change[b.last + 1] -= b.bytes
    return float(np.cumsum(change).max())


def _signature(graph: Graph) -> tuple[object, ...]:
    """What a stage is but for its names."""
    number: dict[str, int] = {}

    def of(name: str) -> int:
        return number.setdefault(name, len(number)) if name else -1

    def typed(name: str) -> tuple[object, ...]:
        value = graph.value(name)
        held = graph.stored.get(name, -1) if name in graph.constants else None
        return (of(name), *((value.dtype, value.shape, held) if value else ()))

    ops = tuple(
        (
            op.kind,
            tuple(sorted(op.attrs.items())),
            tuple(map(typed, op.inputs)),
            tuple(of(o) for o in op.outputs),
        )
        for op in graph.ops
    )
    return (*ops, tuple(of(o) for o in graph.outputs))
