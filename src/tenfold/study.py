"""A model on chips, as `tenfold profile` asks for it: from the question to everything that is said
of the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.carbon import region_named
from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster import Joined
from tenfold.compiler import DEFAULT, Options
from tenfold.errors import InputError, TenfoldError
from tenfold.evaluate.profiling import Profile, Several, profile_bound
from tenfold.model import Bound, Sizes, load, prepare

if TYPE_CHECKING:
    from tenfold.evaluate.advice import Advice, Relaxed
    from tenfold.evaluate.agreement import Quality
    from tenfold.ir import Graph
    from tenfold.measure import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is asked: ``model`` in ``phase`` on each of ``chips`` at each of ``batches``. ``sizes``
    are the other free dimensions. ``quality`` also runs the model in each dtype, on ``inputs``
    where given; ``measure`` also runs it here. ``on`` several chips of each kind, of whose copies
    each takes its share of a batch.
    """

    model: str
    chips: tuple[Chip, ...]
    batches: tuple[int, ...] = (1,)
    sizes: Sizes = field(default_factory=Sizes)
    phase: str | None = None
    dtype: str | None = None
    region: str | None = None
    options: Options = DEFAULT
    quality: bool = False
    inputs: Path | None = None
    measure: bool = False
    on: Several | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A chip and batch of a study that cannot be, and why."""

    chip: str
    batch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """What holds a single run back, and what would make it quicker."""

    by: tuple[Relaxed, ...]
    advice: tuple[Advice, ...]


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What came out: at least one run. ``quality`` is of each dtype among them, beside the run that
    stands for it; ``measured`` beside the run it is compared with.
    """

    study: Study
    model: str
    runs: tuple[Profile, ...]
    refused: tuple[Refused, ...]
    held: Held | None
    quality: tuple[tuple[Profile, Quality], ...]
    measured: tuple[tuple[Profile, Comparison], ...]


def studied(study: Study, advance: Callable[[], None] = lambda: None) -> StudyResult:
    """The whole study; ``advance`` is called after each chip and batch.

    Raises InputError for what cannot be asked, and where no run can be (of several, those that can
    are the answer).
    """
    _check(study)
    graph = load(study.model, study.phase)
    bound = [prepare(graph, replace(study.sizes, batch=b)) for b in _of_a_copy(study)]
    by_batch = {g.batch: g for g in bound}
    runs, refused = _runs(study, bound, advance)
    if not runs:
        raise InputError("; ".join(r.reason for r in refused))
    return StudyResult(
        study=study,
        model=graph.name,
        runs=runs,
        refused=refused,
        held=_held(graph, runs[0], study) if len(runs) + len(refused) == 1 else None,
        quality=_quality(runs, bound[0], study.inputs) if study.quality else (),
        measured=(
            tuple((p, _measured(study.model, by_batch[p.batch], p)) for p in runs)
            if study.measure
            else ()
        ),
    )


def _of_a_copy(study: Study) -> Iterator[int]:
    """The batches that one copy of the network takes."""
    copies = study.on.layout.data if study.on is not None else 1
    for batch in study.batches:
        if batch % copies:
            raise InputError(
                f"a batch of {batch} is not shared equally by dp={copies}: give a multiple of"
                f" {copies}"
            )
        yield batch // copies


def _check(study: Study) -> None:
    """What can be refused before a model is read."""
    from tenfold.evaluate.agreement import checkable

    if study.inputs is not None and not study.quality:
        raise InputError("--inputs are for --quality: give both, or neither")
    if not study.chips:
        raise InputError("--chip needs the name of at least one chip: see `tenfold chips`")
    if study.quality:
        for record in study.chips:
            checkable(record.storage(study.dtype))
    if study.region is not None:
        region_named(study.region)
    if study.measure:
        if study.on is not None:
            raise InputError("--measure runs on one processor: leave --count and --layout out")
        _measurable(study.model, study.chips)


def _measurable(model: str, records: Sequence[Chip]) -> None:
    """Raises InputError where there is nothing to run, or nothing to run it on."""
    if not model.endswith(".onnx"):
        raise InputError(
            f"--measure runs ONNX files, and '{model}' is none: a network without weights"
            " cannot run"
        )
    if len(records) != 1 or records[0].name != "host":
        raise InputError(
            "--measure runs on this machine: give --chip host, or the file that `tenfold calibrate"
            " host` writes, and no other"
        )


def _runs(
    study: Study, bound: Sequence[Bound], advance: Callable[[], None]
) -> tuple[tuple[Profile, ...], tuple[Refused, ...]]:
    """A run for each chip and batch, or why not; one alone raises its reason."""
    runs: list[Profile] = []
    refused: list[Refused] = []
    alone = len(study.chips) * len(bound) == 1
    for record, g in itertools.product(study.chips, bound):
        try:
            runs.append(
                profile_bound(
                    g,
                    record,
                    dtype=study.dtype,
                    region=study.region,
                    options=study.options,
                    on=study.on,
                )
            )
        except TenfoldError as error:
            if alone:
                raise
            copies = study.on.layout.data if study.on is not None else 1
            refused.append(Refused(record.name, g.batch * copies, str(error)))
        advance()
    return tuple(runs), tuple(refused)


def _held(graph: Graph, p: Profile, study: Study) -> Held:
    from tenfold.evaluate.advice import advise, bottleneck

    precision = p.run.program.precision
    sizes = replace(study.sizes, batch=p.batch)
    network = None
    if p.group is not None:
        network = Joined(p.group.topology, p.chip, study.options.stack)
    return Held(
        tuple(bottleneck(p.run.program, p.chip, network)),
        tuple(advise(graph, sizes, p.chip, precision, study.options, study.on)),
    )


def _quality(
    runs: Sequence[Profile], bound: Bound, path: Path | None
) -> tuple[tuple[Profile, Quality], ...]:
    """The quality of each dtype among the runs, once each, on the first of the batches."""
    from tenfold.evaluate.agreement import inputs_from, quality

    given = inputs_from(path, bound.graph) if path is not None else None
    standing: dict[MatrixPrecision, Profile] = {}
    for p in runs:
        standing.setdefault(p.run.program.precision, p)
    return tuple(
        (p, q)
        for precision, p in standing.items()
        for q in quality(bound.graph, p.chip, precision.value, given)
    )


def _measured(model: str, bound: Bound, p: Profile) -> Comparison:
    from tenfold.evaluate.agreement import SEED, seeded_inputs
    from tenfold.measure import compare_nodes, measure

    inputs = seeded_inputs(bound.graph, SEED)
    return compare_nodes(p.run, measure(model, inputs), p.chip, bound.graph)
