"""A training step on several chips: stages forward and backward, microbatch after microbatch.

Schedules: one forward, one backward (Narayanan et al. 2019, PipeDream-Flush), interleaved over
several stages a chip (Narayanan et al. 2021, section 2.2). Gradients are added up over the copies,
and the optimiser (Adam; Kingma, Ba 2015) updates what each chip holds, or with a sharded one its
share (Rajbhandari et al. 2020, ZeRO stage 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.layout import Layout
from tenfold.cluster.network import Joined, prices
from tenfold.cluster.part import Prices
from tenfold.cluster.partition import partition
from tenfold.cluster.stages import StageGraph, in_stages, narrowest
from tenfold.cluster.topology import Topology, joining
from tenfold.compiler import DEFAULT, Options, build
from tenfold.errors import InputError
from tenfold.estimate import Estimate
from tenfold.ir.cost import graph_totals
from tenfold.ir.gradient import SEED, differentiated, trained
from tenfold.ir.graph import Graph
from tenfold.ir.infer import Scope, row_of
from tenfold.ir.sharding import Collective
from tenfold.ir.table import Lowering
from tenfold.ir.tape import Tape
from tenfold.ir.unfused import unfused
from tenfold.ir.views import roots
from tenfold.machine import Kernel, Run, Together, simulate, time_kernel
from tenfold.machine.energy import energy_model
from tenfold.machine.kernel import Moved, Traffic


class Recompute(StrEnum):
    """What of the forward pass is computed again in the backward pass instead of being kept."""

    NONE = "none"
    ATTENTION = "attention"  # scores and what follows from them (Korthikanti et al. 2022)
    FULL = "full"  # all of each layer but what it was given


@dataclass(frozen=True, slots=True)
class Training:
    """How a step is laid out: sequences of a ``micro`` batch, stages a chip (``interleave``), what
    is computed again, sums cut along sequences (``sequence``), the optimiser's state shared by the
    copies (``sharded``), attention in one kernel (``flash``), gradients added up while the last
    backward pass still runs (``overlap``), and bytes of a gradient.
    """

    layout: Layout
    micro: int = 1
    interleave: int = 1
    recompute: Recompute = Recompute.NONE
    sequence: bool = False
    sharded: bool = False
    flash: bool = True
    overlap: bool = True
    gradient_bytes: int = 4


# master weights and both moments in fp32 (Micikevicius et al. 2018; Kingma, Ba 2015)
STATE_BYTES = 12
ADAM_OPS = 12  # of a weight
ROOMY = 1e6


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
class Chunk:
    """One stage, a microbatch forward and backward: seconds of both, of which what is computed
    again and the links take so much; bytes kept until the backward pass, and what it needs besides.
    ``flops`` are those of its products forward and backward, on all chips that share it, as a
    model's are counted (Chowdhery et al. 2022, PaLM, appendix B).
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
    microbatch, of its forward pass with links and without, of scores, of all links; bytes of all
    buffers but gradients of weights, of what is kept, and of scores among it; bytes that a layer is
    given, and how many there are.
    """

    time: Estimate
    again_s: float
    forward_s: float
    scores_s: float
    links_s: float
    handed: Estimate
    weights: int
    made_bytes: float
    kept_bytes: float
    score_bytes: float
    given_bytes: float
    layers: int
    energy_j: Estimate
    flops: int

    def chunk(self, recompute: Recompute) -> Chunk:
        """With what of the forward pass is computed again."""
        again, kept = 0.0, self.kept_bytes
        work = max(0.0, self.made_bytes - kept)
        match recompute:
            case Recompute.NONE:
                pass
            case Recompute.ATTENTION:
                again, kept = self.scores_s, kept - self.score_bytes
                work += self.score_bytes / self.layers
            case Recompute.FULL:
                again, kept = self.again_s, self.layers * self.given_bytes
                work = max(0.0, self.made_bytes) / self.layers
            case _:
                assert_never(recompute)
        more = 1 + again / self.time.value
        return Chunk(
            time=self.time * more + self.handed,
            forward_s=self.forward_s,
            again_s=again,
            links_s=self.links_s,
            handed_s=self.handed.value,
            weights=self.weights,
            kept_bytes=kept,
            work_bytes=work,
            energy_j=self.energy_j * more,
            flops=self.flops,
        )


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
    joined = joining(chip, topology)
    layout = training.layout
    rounds = _microbatches(training, batch)
    if layout.chips > joined.most:
        raise InputError(f"{joined.name} joins 1 to {joined.most:,} chips, got {layout.chips:,}")
    network = Joined(joined, chip, options.stack)
    price = prices(chip, precision, network, layout.tensor)
    whole = graph if training.flash else unfused(graph)
    stages = in_stages(whole, layout.pipeline * training.interleave, price)
    maker = Maker(chip, precision, training, network, price, options)
    chunks = tuple(maker.chunk(s, last=i == len(stages) - 1) for i, s in enumerate(stages))
    mine = [chunks[p :: layout.pipeline] for p in range(layout.pipeline)]
    time, entries = timed(mine, training, rounds, chip, precision, network)
    memory = max(
        (memory_of(c, training, p, rounds, precision) for p, c in enumerate(mine)),
        key=lambda m: m.total,
    )
    flops = sum(c.flops for c in chunks) * rounds * layout.data
    peak = chip.peak_flops[precision] * layout.chips
    busy = Estimate.total(c.energy_j for c in chunks) * (rounds * layout.tensor * layout.data)
    waits = sum(max(0.0, time.value - rounds * sum(c.time.value for c in own)) for own in mine)
    idle = energy_model(chip, precision).static_w * (waits * layout.tensor * layout.data)
    return Step(
        training=training,
        topology=joined,
        time=time,
        entries=entries,
        memory=memory,
        flops=flops,
        mfu=flops / (peak * time.value),
        energy_j=busy + idle,
        chunks=chunks,
    )


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
    bubble = one * ((len(mine) - 1) / training.interleave)
    held = max(sum(c.weights for c in own) for own in mine)
    sums = _gradient_sums(training, held, network)
    backward = one.value - sum(c.forward_s for c in own)
    hidden = min(sums.value, backward) if training.overlap else 0.0
    left = sums * ((sums.value - hidden) / sums.value) if sums.value else sums
    update = Estimate.exact(_update_s(training, held, chip, precision))
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


def _gradient_sums(training: Training, held: int, network: Joined) -> Estimate:
    """Seconds to add the gradients of ``held`` weights up over the copies; with a sharded optimiser
    each gets its share, and what it updated goes round.
    """
    layout = training.layout
    if layout.data == 1:
        return Estimate.exact(0.0)

    def seconds(kind: Collective, size: float) -> Estimate:
        return network.seconds(Together(kind, int(size), layout.data, layout.tensor))

    size = held * training.gradient_bytes
    if not training.sharded:
        return seconds(Collective.ALL_REDUCE, size)
    return seconds(Collective.REDUCE_SCATTER, size) + seconds(Collective.ALL_GATHER, 2.0 * held)


def _update_s(training: Training, held: int, chip: Chip, precision: MatrixPrecision) -> float:
    """Adam on ``held`` weights, or on a share of them: the gradient and the state are read, the
    state and the weight written.
    """
    count = held // (training.layout.data if training.sharded else 1)
    read, written = training.gradient_bytes + STATE_BYTES, STATE_BYTES + 2
    kernel = Kernel(
        name="optimiser",
        ops=("adam",),
        kind=Lowering.VECTOR,
        precision=precision,
        vector_ops=ADAM_OPS * count,
        traffic=Traffic(Moved(inputs=read * count, outputs=written * count)),
    )
    return time_kernel(chip, kernel).time_s


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
    after = training.layout.pipeline - place - 1
    if training.interleave == 1:
        flying = min(rounds, after + 1)
        kept = flying * own[0].kept_bytes
    else:
        warm = 2 * after + (training.interleave - 1) * training.layout.pipeline + 1
        flying = min(rounds * training.interleave, warm)
        kept = flying * max(c.kept_bytes for c in own)
    return Memory(
        weights=held * precision.bits / 8,
        gradients=held * training.gradient_bytes,
        optimiser=held * STATE_BYTES / shares,
        activations=kept,
        workspace=max(c.work_bytes for c in own),
    )


class Maker:
    """Compiles and runs stages; those that are alike once."""

    def __init__(
        self,
        chip: Chip,
        precision: MatrixPrecision,
        training: Training,
        network: Joined,
        price: Prices,
        options: Options,
    ) -> None:
        self.chip, self.precision, self.training = chip, precision, training
        self.network, self.price, self.options = network, price, options
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
        local = _with_loss(made.graph, made.seeds) if last else made.graph
        if self.training.layout.tensor > 1:
            local = partition(
                local,
                self.training.layout.tensor,
                self.price,
                like={g: n for n, g in made.grads.items() if n in graph.constants},
                sequence=self.training.sequence,
            )[-1].graph
        program = build(local, self.chip, self.precision, self.training.micro, self.options)
        run = simulate(program, self.roomy, self.network)
        handed = self._handed(stage.sent_bytes) if stage.sent_bytes else Estimate.exact(0.0)
        forward = list(_forward(run))
        all_links = (k.time_s * k.kernel.repeat for k in run.kernels if k.kernel.together)
        # gradients of weights are counted apart
        grads = local.parameters * self.precision.bits / 8
        # what a block is given is kept cut where sums are
        shares = self.training.layout.tensor if self.training.sequence else 1
        return Raw(
            time=run.time_s,
            again_s=sum(t for _, t in forward),
            forward_s=sum(t for k, t in forward if not k.together),
            scores_s=sum(t for k, t in forward if _of_scores(k)),
            links_s=sum(all_links),
            handed=handed * 2,  # an activation on, its gradient back
            weights=local.parameters,
            made_bytes=program.memory.far_bytes - grads,
            kept_bytes=_kept(run),
            score_bytes=_kept(run, scores=True),
            given_bytes=narrowest(graph) * self.precision.bits / 8 / shares,
            layers=max(1, blocks_of(graph)),
            energy_j=run.energy_j,
            flops=int(str(graph_totals(made.graph).contraction_flops)),
        )

    def _handed(self, size: int) -> Estimate:
        """From one stage to the next: each chip its part over the links between, and all of it
        around inside (Narayanan et al. 2021, section 4.1), or whole, whichever is quicker.
        """
        tensor, stride = self.training.layout.tensor, self._stride
        alone = self.network.sent(size, stride)
        if tensor == 1:
            return alone
        gather = Together(Collective.ALL_GATHER, size, tensor)
        shared = self.network.sent(size / tensor, stride) + self.network.seconds(gather)
        return min(alone, shared, key=lambda t: t.value)

    @property
    def _stride(self) -> int:
        return self.training.layout.tensor * self.training.layout.data


def blocks_of(graph: Graph) -> int:
    """Blocks of a stage: as many as it has attentions, else a fourth of its products."""
    whole = sum(row_of(op).attention is not None for op in graph.ops)
    parts = sum(op.kind == "softmax" for op in graph.ops)
    return whole or parts or len(graph.constants) // 4


def _forward(run: Run) -> Iterator[tuple[Kernel, float]]:
    """Kernels of the forward pass, and their seconds: those whose contraction, or else first op, is
    of it. They may change the layout of a result for the backward pass at their end.
    """
    groups = run.program.groups
    for k in run.kernels:
        group = groups[k.kernel.group]
        if not (group.anchor or group.ops[0]).outputs[0].startswith(SEED):
            yield k.kernel, k.time_s * k.kernel.repeat


def _of_scores(kernel: Kernel) -> bool:
    """Whether a kernel belongs to an attention in parts, or to one as a whole."""
    return kernel.attention is not None or "attend/" in kernel.name


def _kept(run: Run, *, scores: bool = False) -> float:
    """Bytes of values that the forward pass makes and the backward pass reads; with ``scores`` only
    those of the size of scores. What chips gathered they keep as it was before, and gather again
    beside the products that need it (Korthikanti et al. 2022, section 4.2.2).
    """
    graph, root = run.program.graph, dict(roots(run.program.graph))
    for op in graph.ops:
        if row_of(op).collective is Collective.ALL_GATHER:
            source = root.get(op.inputs[0], op.inputs[0])
            root[op.outputs[0]] = source
    width = run.program.precision.bits / 8
    made = {o for op in graph.ops for o in op.outputs if o and not o.startswith(SEED)}
    read = {
        root.get(n, n)
        for op in graph.ops
        if any(o.startswith(SEED) for o in op.outputs)
        for n in op.inputs
        if n
    }
    total = 0.0
    for n in {root.get(n, n) for n in made} & read:
        value = graph.values[n]
        if scores and "attend/" not in n:
            continue
        each = width if value.dtype.is_float else value.dtype.bits / 8
        total += int(str(value.elements)) * each
    return total


def _with_loss(graph: Graph, seeds: Sequence[str]) -> Graph:
    """The gradient of the mean cross-entropy of the first seed's output, in place of the seed: what
    is expected less one where the target is. Other outputs have none: their seeds stay inputs.
    """
    seed = seeds[0]
    logits = seed.removeprefix(SEED)
    shape = [int(str(d)) for d in graph.values[logits].dims]
    scope = Scope(
        values={n: v for n, v in graph.values.items() if n != seed},
        constants=dict(graph.constants),
        stored=dict(graph.stored),
    )
    scope.known = {n: a for n, a in graph.constants.items() if a is not None and a.size <= 4096}
    t = Tape(scope)
    t.loc = f"{SEED}loss"
    targets = "targets"
    from tenfold.ir.dtypes import DType
    from tenfold.ir.graph import Value

    scope.declare(Value(targets, DType.I64, tuple(shape[:-1])))
    e = t.op("exp", logits)
    total = t.op("reduce_sum", e, t.ints(len(shape) - 1), keepdims=1)
    expected = t.op("div", e, total)
    column = t.op("unsqueeze", targets, t.ints(len(shape) - 1))
    hit = t.op("equal", column, t.ints(*range(shape[-1])))
    less = t.op("sub", expected, t.number(1.0, logits))
    loss = t.op("where", hit, less, expected)
    count = 1.0
    for d in shape[:-1]:
        count *= d
    scaled = t.op("mul", loss, t.number(1 / count, logits))
    t.rename(scaled, seed)
    forward = next(
        i for i, op in enumerate(graph.ops) if any(o.startswith(SEED) for o in op.outputs)
    )
    return replace(
        graph,
        inputs=(*(n for n in graph.inputs if n != seed), targets),
        ops=(*graph.ops[:forward], *t.ops, *graph.ops[forward:]),
        values=scope.values,
        constants=scope.constants,
        stored=scope.stored,
    )


def _signature(graph: Graph) -> tuple[object, ...]:
    """What a stage is but for its names."""
    number: dict[str, int] = {}

    def of(name: str) -> int:
        return number.setdefault(name, len(number)) if name else -1

    return tuple(
        (
            op.kind,
            tuple(sorted(op.attrs.items())),
            tuple((of(n), graph.values[n].shape if n else None) for n in op.inputs),
            tuple(of(o) for o in op.outputs),
        )
        for op in graph.ops
    )
