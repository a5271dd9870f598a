"""A stage of a training step, one microbatch forward and backward, compiled and run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import assert_never

import numpy as np

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.apart import Experts, context_apart, experts_apart, held_apart
from tenfold.cluster.chunk import Chunk
from tenfold.cluster.loss import LOSS, with_loss
from tenfold.cluster.narrow import head_of, is_narrow, narrowed
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
from tenfold.machine import Program, Run, simulate
from tenfold.machine.energy import energy_model
from tenfold.machine.run import KernelRun

ROOMY = 1e6


@dataclass(frozen=True, slots=True)
class Again:
    """What computing again takes: seconds of a microbatch, of links besides, and joules; bytes
    that are kept until the backward pass, and the most that is alive besides (gradients of weights
    apart).
    """

    seconds: float
    links_s: float
    energy_j: Estimate
    kept_bytes: float
    work_bytes: float


@dataclass(frozen=True, slots=True)
class Raw:
    """A stage compiled and run, before it is decided what is computed ``again``. Seconds of a
    microbatch, of its forward pass without links, and of all links; bytes that it hands on.
    """

    time: Estimate
    forward_s: float
    links_s: float
    sent_bytes: float
    weights: int
    experts: int
    layers: int
    energy_j: Estimate
    flops: int
    again: Mapping[Recompute, Again]

    def chunk(self, recompute: Recompute, handed: Estimate) -> Chunk:
        """With what of the forward pass is computed again, and what handing results on takes."""
        again = self.again[recompute]
        return Chunk(
            time=self.time * (1 + (again.seconds + again.links_s) / self.time.value),
            handed=handed,
            forward_s=self.forward_s,
            again_s=again.seconds,
            links_s=self.links_s + again.links_s,
            weights=self.weights,
            experts=self.experts,
            blocks=self.layers,
            kept_bytes=again.kept_bytes,
            work_bytes=again.work_bytes,
            energy_j=self.energy_j + again.energy_j,
            flops=self.flops,
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """A stage on one chip: its part of the graph, results that are gradients of weights, the logits
    ("" where it makes none), and FLOPs of products on all chips that share it.
    """

    run: Run
    part: Graph
    gradients: tuple[str, ...]
    logits: str
    flops: int


@lru_cache(maxsize=8)
def _roomy(chip: Chip) -> Chip:
    """The chip with memory without end: what is kept is counted apart, and nothing need fit with
    all of it.
    """
    room = chip.memory_bytes
    return chip.with_figures({"memory.capacity": ROOMY * room}) if room else chip


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
        self.network, self.price = network, price
        self.options = replace(options, flash=training.flash, wide=LOSS)
        self.scores = tuple(f"{n}/" for n in attentions)
        self.roomy = _roomy(chip)
        self.made: dict[object, Raw] = {}

    def raw(self, stage: StageGraph, *, last: bool) -> Raw:
        key = _signature(stage.graph), stage.sent_bytes, last
        if key not in self.made:
            self.made[key] = self._raw(stage, last=last)
        return self.made[key]

    def ran(self, stage: StageGraph, *, last: bool) -> Ran:
        """A stage forward and backward, cut, compiled and run."""
        graph = stage.graph
        received = [n for n in graph.inputs if graph.values[n].dtype.is_float]
        made = differentiated(graph, (*trained(graph), *received))
        like = {g: n for n, g in made.grads.items() if n in graph.constants}
        whole = with_loss(made.graph, made.seeds) if last else made.graph
        layout = self.training.layout
        if layout.context > 1:
            whole = context_apart(whole, layout.context, layout.tensor).graph
        flops = int(str(graph_totals(whole).contraction_flops)) * layout.context
        if layout.experts > 1:
            how = Experts(layout.experts, layout.tensor, self.training.skew)
            whole = experts_apart(whole, how).graph
        local = whole
        if layout.tensor > 1:
            local = partition(
                whole,
                layout.tensor,
                self.price,
                like=like,
                sequence=self.training.sequence,
                received=received,
            )[-1].graph
        ends = dict(zip(whole.outputs, local.outputs, strict=True))
        gradients = {ends[g]: n for g, n in like.items()}
        logits = made.seeds[0].removeprefix(SEED) if last else ""
        program = build(local, self.chip, self.precision, self.training.micro, self.options)
        if self.training.products is not None:
            head = head_of(made.graph, logits) if last else ""
            program = narrowed(program, self.training.products, gradients, head)
        run = simulate(program, self.roomy, self.network)
        return Ran(run, local, tuple(gradients), logits, flops)

    def _raw(self, stage: StageGraph, *, last: bool) -> Raw:
        graph, ran = stage.graph, self.ran(stage, last=last)
        run = ran.run
        kept = _kept(run)
        beside = _beside(run, {*kept, *ran.gradients})
        return Raw(
            time=run.time_s,
            forward_s=sum(_seconds(k) for k in _forward(run) if not k.kernel.together),
            links_s=sum(_seconds(k) for k in run.kernels if k.kernel.together),
            sent_bytes=stage.sent_bytes * self.precision.bits / 8 / width_of(graph),
            weights=ran.part.parameters,
            experts=held_apart(ran.part),
            layers=max(1, blocks_of(graph)),
            energy_j=run.energy_j,
            flops=ran.flops,
            again={r: self._again(r, graph, run, kept, beside, ran.logits) for r in Recompute},
        )

    def _again(
        self,
        recompute: Recompute,
        graph: Graph,
        run: Run,
        kept: Mapping[str, float],
        beside: float,
        logits: str,
    ) -> Again:
        """With ``kept`` bytes of values where nothing is, and ``beside`` them at most. ``logits``
        are of no block: they stay.
        """
        layers = max(1, blocks_of(graph))
        forward = [
            k for k in _forward(run) if logits not in run.program.groups[k.kernel.group].outputs
        ]
        apart = kept.get(logits, 0.0)
        everything = sum(kept.values()) - apart
        again: list[KernelRun] = []
        match recompute:
            case Recompute.NONE:
                left = everything
            case Recompute.ATTENTION:
                again = [k for k in forward if k.kernel.name.startswith(self.scores)]
                scores = sum(b for n, b in kept.items() if n.startswith(self.scores))
                left = everything - scores
            case Recompute.OPS:
                saved = _saved(run, forward)
                again = [k for k in forward if id(k) not in saved]
                left = layers * self._given(graph) + sum(saved.values())
            case Recompute.FULL:
                again, left = forward, layers * self._given(graph)
            case _:
                assert_never(recompute)
        # what is there of one block while it is computed again
        work = beside + max(0.0, everything - left) / layers
        if recompute is Recompute.FULL:
            work = beside + everything / layers
        links = sum(_seconds(k) for k in again if k.kernel.together)
        return Again(
            seconds=sum(map(_seconds, again)) - links,
            links_s=links,
            energy_j=self._joules(again),
            kept_bytes=left + apart,
            work_bytes=work,
        )

    def _given(self, graph: Graph) -> float:
        """Bytes that a block is given, which are kept cut where sums are."""
        shares = self.training.layout.tensor if self.training.sequence else 1
        return given_to_a_block(graph) * self.precision.bits / 8 / shares

    def _joules(self, kernels: Collection[KernelRun]) -> Estimate:
        """Of kernels done once more, with the static power meanwhile."""
        own = Estimate.total(k.energy.total * k.kernel.repeat for k in kernels)
        static = energy_model(self.chip, self.precision).static_w
        return own + static * sum(map(_seconds, kernels))


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


def _saved(run: Run, forward: Sequence[KernelRun]) -> Mapping[int, float]:
    """Bytes of what the per-op policy keeps, by the identity of the kernel: results of attention,
    of sums that are scattered, and of the first, third, fifth product of the rest (pytorch/
    torchtitan, distributed/activation_checkpoint.py).
    """
    groups, graph = run.program.groups, run.program.graph
    found: dict[int, float] = {}
    products: dict[str, int] = {}
    counted: set[str] = set()
    for k in forward:
        group = groups[k.kernel.group]
        op = group.anchor or group.ops[0]
        row = row_of(op)
        alone = row.attention is None and row.collective is None
        if alone and not k.kernel.products:
            continue
        if alone:
            # each block counts its own
            block = ".".join(op.name.split(".")[:2])
            products[block] = products.get(block, 0) + 1
            if not products[block] % 2:
                continue
        elif row.collective not in (None, Collective.REDUCE_SCATTER):
            continue
        name = op.outputs[0]
        value = graph.values[name]
        width = min(run.program.precision.bits, value.dtype.bits) / 8
        # an attention may be several kernels, with one result
        found[id(k)] = 0.0 if name in counted else int(str(value.elements)) * width
        counted.add(name)
    return found


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
    wide, narrow = _read_wide(run)
    found: dict[str, float] = {}
    for n in {root.get(n, n) for n in before} & read:
        value = graph.values[n]
        each = min(width, value.dtype.bits / 8) if value.dtype.is_float else value.dtype.bits / 8
        found[n] = int(str(value.elements)) * (each if n in wide else min(each, narrow))
    return found


def _read_wide(run: Run) -> tuple[set[str], float]:
    """Buffers that some kernel of the backward pass reads as they are, and the bytes of an element
    of those that only narrow products read.
    """
    program = run.program
    kernels = program.kernels[_backward_from(run) :]
    wide = {o.name for k in kernels if not is_narrow(k, program) for o in k.operands}
    narrow = [k.operand_bits / 8 for k in kernels if is_narrow(k, program)]
    return wide, min(narrow, default=program.precision.bits / 8)


def _beside(run: Run, counted: Collection[str]) -> float:
    """The most bytes that are alive at once beside those that are ``counted`` apart. What chips
    gathered is not kept between its last reader forward and its first one backward.
    """
    root, program = roots(run.program.graph), run.program
    apart = {root.get(n, n) for n in counted}
    graph = program.graph
    gathered = {op.outputs[0] for op in graph.ops if row_of(op).collective is Collective.ALL_GATHER}
    starts = _backward_from(run)
    change = np.zeros(len(program.kernels) + 2)
    for b in program.memory.far:
        if b.name in apart:
            continue
        spans = [(b.first, b.last)]
        if b.name in gathered and b.first < starts <= b.last:
            read = [
                i
                for i in range(b.first, b.last + 1)
                if any(o.name == b.name for o in program.kernels[i].operands)
            ]
            before, after = ([i for i in read if (i >= starts) == late] for late in (False, True))
            spans = [(x[0], x[-1]) for x in (before, after) if x]
        for first, last in spans:
            change[first] += b.bytes
            change[last + 1] -= b.bytes
    return float(np.cumsum(change).max()) + _met_bytes(program)


def _met_bytes(program: Program) -> float:
    """The most that an op which several chips do together gathers and sends: buffers of its own."""
    found: dict[int, float] = {}
    for k in program.kernels:
        if k.together is not None and not k.operands:
            found[k.group] = found.get(k.group, 0.0) + k.together.bytes
    return max(found.values(), default=0.0)


def _backward_from(run: Run) -> int:
    """The first kernel that is not of the forward pass."""
    forward = {id(k.kernel) for k in _forward(run)}
    kernels = run.program.kernels
    return next((i for i, k in enumerate(kernels) if id(k) not in forward), len(kernels))


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
