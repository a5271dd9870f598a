"""A training run: from a model and tokens to days, chip-hours and energy at the chips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster import Layout, Topology
from tenfold.cluster.failures import Interruptions, interruptions
from tenfold.cluster.layout import Side
from tenfold.cluster.narrow import check_narrow
from tenfold.cluster.search import RESERVED_BYTES, Tried, fits, layouts
from tenfold.cluster.training import Recompute, Shard, Step, Training, training_step
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import DoesNotFit, InputError
from tenfold.estimate import Estimate
from tenfold.ir.graph import Graph
from tenfold.model import Sizes, load, prepare, roles

DEFAULT_SEQ = 2048
LEAST_BITS = 16
FINALISTS = 3  # layouts that fit compiled whole
MOST_TRIED = 8  # compiled whole at most
DEFAULT_ITEMS_A_CHIP = 32  # of networks without a sequence (assumed)
DEFAULT_TOKENS_A_STEP = (
    4_194_304  # of language models of billions of parameters (Brown et al. 2020)
)


class Unit(StrEnum):
    """What a run counts."""

    TOKENS = "tokens"
    ITEMS = "items"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainAsk:
    """What is asked: ``model`` on ``count`` chips for ``tokens``, or ``items`` where it has no
    sequence or they are counted; ``batch`` items (of ``seq`` tokens) a step, those left out decided
    here; a ``training`` without a layout to be sought.
    """

    model: str
    chip: Chip
    count: int
    tokens: float | None = None
    items: float | None = None
    batch: int | None = None
    seq: int | None = None
    dtype: str | None = None
    training: Training | None = None
    wanted: Training | None = None
    topology: Topology | None = None
    options: Options = DEFAULT


@dataclass(frozen=True, slots=True)
class TrainRun:
    """What came out. ``tried`` are the layouts that were priced, the quickest first; empty where
    one was given. ``assumed`` is what nobody said.
    """

    ask: TrainAsk
    name: str
    parameters: int
    batch: int
    seq: int | None
    step: Step
    tried: tuple[Tried, ...]
    assumed: tuple[str, ...]

    @property
    def rounds(self) -> int:
        """Microbatches of a step on each copy."""
        training = self.step.training
        return self.batch // (training.layout.data * training.micro)

    @property
    def unit(self) -> Unit:
        return Unit.TOKENS if self.ask.tokens is not None else Unit.ITEMS

    @property
    def amount(self) -> float:
        """Tokens or items of the whole run."""
        return _amount(self.ask)

    @property
    def a_step(self) -> int:
        """Tokens or items of a step."""
        each = self.seq if self.unit is Unit.TOKENS else 1
        assert each is not None
        return self.batch * each

    @property
    def steps(self) -> float:
        return self.amount / self.a_step

    @property
    def seconds(self) -> Estimate:
        return self.step.time * self.steps

    @property
    def interrupted(self) -> Interruptions:
        return interruptions(self.step.training.layout.chips)

    @property
    def with_interruptions_s(self) -> Estimate:
        """Of the whole run, with what interruptions cost."""
        got = self.interrupted.goodput
        slower = Estimate(1 / got.value, 1 / got.high, 1 / got.low)
        return self.seconds * slower

    @property
    def chip_hours(self) -> Estimate:
        return self.seconds * (self.step.training.layout.chips / 3600)

    @property
    def kwh(self) -> Estimate:
        """At the chips."""
        return self.step.energy_j * (self.steps / 3.6e6)

    @property
    def per_s(self) -> float:
        """Tokens or items a second."""
        return self.a_step / self.step.time.value


def precisions(chip: Chip, dtype: str | None) -> tuple[MatrixPrecision, MatrixPrecision | None]:
    """Of tensors, and of products where these are narrower. Raises InputError for what training is
    not modelled in.
    """
    asked = chip.storage(dtype)
    if asked.bits >= LEAST_BITS:
        return asked, None
    check_narrow(chip, asked)
    return chip.storage("bf16"), asked


@dataclass(frozen=True, slots=True)
class Scaled:
    """The same step with another number of copies."""

    count: int
    per_s: Estimate  # tokens or items
    mfu: float


SCALED = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the copies


def scaled(run: TrainRun) -> Iterator[Scaled]:
    """The step of ``run`` with fewer and with more copies, where the batch divides, the topology
    has them and they fit.
    """
    ask, step = run.ask, run.step
    layout = step.training.layout
    precision, _ = precisions(ask.chip, ask.dtype)
    stretch = _stretch(run.seq, layout.context)
    sizes = Sizes(batch=step.training.micro, seq=stretch)
    graph = prepare(load(ask.model), sizes).graph
    for times in SCALED:
        copies = layout.data * times
        try:
            other = replace(layout, data=int(copies))
            if copies != int(copies) or other.data < 1:
                continue
            found = training_step(
                graph,
                ask.chip,
                precision,
                replace(step.training, layout=other),
                run.batch,
                topology=ask.topology,
                options=ask.options,
            )
        except InputError:
            continue
        if fits(ask.chip, found.memory):
            rate = Estimate(*(run.a_step / t for t in _slowest_first(found.time)))
            yield Scaled(other.chips, rate, found.mfu)


def _slowest_first(time: Estimate) -> tuple[float, float, float]:
    return time.value, time.high, time.low


class NoLayout(InputError):
    """No layout fits."""


def _amount(ask: TrainAsk) -> float:
    """Raises InputError unless one of tokens and items is given, and it is above 0."""
    if ask.tokens is not None and ask.items is not None:
        raise InputError("--tokens and --items both say how long a run is: leave one out")
    if ask.tokens is None and ask.items is None:
        raise InputError("a run is so many tokens or so many items: give --tokens or --items")
    amount = ask.tokens if ask.tokens is not None else ask.items
    assert amount is not None
    if not amount > 0:
        unit = Unit.TOKENS if ask.tokens is not None else Unit.ITEMS
        raise InputError(f"the {unit} to train on must be above 0, got {amount:g}")
    return amount


def _sizes(ask: TrainAsk, graph: Graph) -> tuple[int | None, int, tuple[str, ...]]:
    """Tokens of a sequence (None where there are none), items of a step, and what was assumed of
    them. Raises InputError for what cannot be asked of the network.
    """
    amount = _amount(ask)
    assumed: list[str] = []
    seq: int | None = None
    if "seq" in roles(graph).values():
        limit = graph.limits.get("seq")
        seq = ask.seq or min(limit or DEFAULT_SEQ, DEFAULT_SEQ)
        if ask.seq is None:
            assumed.append(f"sequences of {seq:,} tokens")
        if limit is not None and seq > limit:
            raise InputError(f"{graph.name} has positions for {limit:,} tokens, got --seq {seq:,}")
    elif ask.tokens is not None or ask.seq is not None:
        said = "--tokens" if ask.tokens is not None else "--seq"
        raise InputError(
            f"{said}: {graph.name} has no free sequence, its free dimensions are"
            f" {', '.join(graph.symbols) or 'none'}:"
            f" {'give --items' if ask.tokens is not None else 'leave it out'}"
        )
    usual = DEFAULT_TOKENS_A_STEP // seq if seq else DEFAULT_ITEMS_A_CHIP * ask.count
    # whole parts for as many copies as there are chips
    batch = ask.batch or -(-usual // ask.count) * ask.count
    what = "sequences" if seq else Unit.ITEMS.value
    if ask.batch is None:
        assumed.append(f"{batch:,} {what} a step")
    counted = batch * seq if seq and ask.tokens is not None else batch
    if amount < counted:
        unit = Unit.TOKENS if ask.tokens is not None else Unit.ITEMS
        raise InputError(
            f"{amount:g} {unit} are less than a step of {counted:,}: give more, or a smaller"
            " --batch"
        )
    return seq, batch, tuple(assumed)


def _stretch(seq: int | None, context: int) -> int | None:
    """Tokens of a sequence that one of ``context`` chips has. Raises InputError where there are
    none, or they do not divide.
    """
    if context == 1 or (seq is not None and seq % context == 0):
        return None if seq is None else seq // context
    if seq is None:
        raise InputError(
            f"{Side.CONTEXT}={context}: stretches are of sequences, and the network has none: give"
            f" {Side.DATA}"
        )
    raise InputError(
        f"{Side.CONTEXT}={context}: {seq:,} tokens to lie apart in equal stretches: give a divisor"
    )


def train(ask: TrainAsk, advance: Callable[[], None] = lambda: None) -> TrainRun:
    """The run. Raises InputError for what cannot be asked, NoLayout where nothing fits (with the
    nearest miss), DoesNotFit for a given layout that does not.
    """
    graph = load(ask.model)
    seq, batch, assumed = _sizes(ask, graph)
    precision, products = precisions(ask.chip, ask.dtype)

    @lru_cache(maxsize=16)
    def graph_of(micro: int, context: int = 1) -> Graph:
        return prepare(graph, Sizes(batch=micro, seq=_stretch(seq, context))).graph

    def step_of(training: Training) -> Step:
        return training_step(
            graph_of(training.micro, training.layout.context),
            ask.chip,
            precision,
            replace(training, products=products),
            batch,
            topology=ask.topology,
            options=ask.options,
        )

    tried: tuple[Tried, ...] = ()
    if ask.training is None:
        wanted = replace(ask.wanted or Training(layout=Layout()), products=products)
        tried = layouts(
            graph_of,
            ask.chip,
            precision,
            wanted,
            ask.count,
            batch,
            topology=ask.topology,
            options=ask.options,
        )
        advance()
        step = _quickest(ask.chip, map(step_of, _finalists(ask, tried, batch)))
    else:
        step = step_of(ask.training)
    advance()
    if not fits(ask.chip, step.memory):
        assert ask.chip.memory_bytes is not None
        what = f"{graph.name} in training, {step.training.layout}: one chip's part"
        need = int(step.memory.total + RESERVED_BYTES)
        if ask.training is None:
            raise NoLayout(
                f"none of the quickest layouts fits: {what} needs {need / 1e9:.3g} GB; give more"
                " chips"
            )
        raise DoesNotFit(what, need, ask.chip.name, ask.chip.memory_bytes)
    return TrainRun(
        ask=ask,
        name=graph.name,
        parameters=graph.parameters,
        batch=batch,
        seq=seq,
        step=step,
        tried=tried,
        assumed=assumed,
    )


def _quickest(chip: Chip, steps: Iterator[Step]) -> Step:
    """Of the first few that fit compiled whole; of all, where none does."""
    seen: list[Step] = []
    for step in steps:
        seen.append(step)
        if sum(fits(chip, s.memory) for s in seen) == FINALISTS:
            break
    return min(seen, key=lambda s: (not fits(chip, s.memory), s.time.value))


def _finalists(ask: TrainAsk, tried: tuple[Tried, ...], batch: int) -> list[Training]:
    """The quickest that fit, by the sums of blocks. Raises NoLayout with the nearest miss."""
    able = [t.training for t in tried if t.fits]
    if able:
        return able[:MOST_TRIED]
    near = tried[0] if tried else None
    nearest = ""
    if near is not None and near.memory is not None:
        nearest = f": the nearest, {shown(near.training)}, {near.why} on a chip"
    elif near is not None:
        nearest = f": {near.why}"
    raise NoLayout(
        f"no layout of {ask.count:,} {ask.chip.name} trains {ask.model} with {batch:,} sequences"
        f" a step{nearest}"
    )


def shown(training: Training) -> str:
    """A layout with what else was chosen."""
    said = f"{training.layout}, {training.micro} a microbatch"
    if training.interleave > 1:
        said += f", {training.interleave} stages a chip"
    if training.recompute is not Recompute.NONE:
        said += f", {training.recompute} recomputation"
    if training.shard is not Shard.NONE:
        said += f", {training.shard} shared"
    return said
