"""Documents of predictions beside references, and of single sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import UNSET

from tenfold.calibration import Calibration, ModelFit
from tenfold.carbon import Envelope
from tenfold.claims import NOT_YET, Lesson
from tenfold.evaluate.predicting import Prediction
from tenfold.report.document import interval, real
from tenfold.report.documents.part import some
from tenfold.report.documents.trust import (
    CalibrateDocument,
    CountsPart,
    ErrorsPart,
    EstimateDocument,
    FamilyPart,
    LayerPart,
    LessonPart,
    LessonsDocument,
    ModelFitPart,
    RowPart,
    ScaleSimDocument,
    SummaryPart,
    ValidateDocument,
)
from tenfold.scalesim import Report
from tenfold.validation import Row, Summary, summaries


def envelope_document(e: Envelope) -> EstimateDocument:
    return EstimateDocument(
        energy_kwh=e.energy_j / 3.6e6,
        kgco2e=e.kgco2e,
        kg_per_kwh=e.kgco2e_per_j * 3.6e6,
        grid=e.grid,
        ev_miles=interval(e.ev_miles),
    )


def lessons_document(rows: Sequence[Lesson]) -> LessonsDocument:
    return LessonsDocument(lessons=[_lesson(r) for r in rows])


def _lesson(r: Lesson) -> LessonPart:
    published = r.published is not None
    return LessonPart(
        id=r.id,
        claim=r.claim,
        source=r.source,
        command=r.command,
        quantity=r.quantity if published else UNSET,
        published=some(r.published),
        unit=r.unit if published else UNSET,
        ours=some(r.ours),
        error=some(r.error),
        status=UNSET if r.ours is not None else NOT_YET,
        missing=real(r.missing),
    )


def predicted_rows(
    given: Sequence[Mapping[str, str]], found: Sequence[Prediction]
) -> list[dict[str, float | str]]:
    """The rows as given, each with its prediction."""
    return [{**row, **_predicted(p)} for row, p in zip(given, found, strict=True)]


def _predicted(p: Prediction) -> dict[str, float | str]:
    time: dict[str, float | str] = {"time_s": p.time_s.value, "bound": p.bound}
    ends = {"time_low_s": p.time_s.low, "time_high_s": p.time_s.high}
    if p.energy_j is None:
        return time | ends
    energy = {"energy_low_j": p.energy_j.low, "energy_high_j": p.energy_j.high}
    return time | {"energy_j": p.energy_j.value} | ends | energy


def validate_document(rows: Sequence[Row]) -> ValidateDocument:
    return ValidateDocument(
        rows=[
            RowPart(
                area=r.area,
                case=r.case,
                predicted=r.predicted,
                reference=r.reference,
                unit=r.unit,
                error=r.error,
                source=r.source,
                fitted_on=r.seen,
                inside=some(r.inside),
            )
            for r in rows
        ],
        summary={a: _summary(s) for a, s in summaries(rows).items()},
    )


def _summary(s: Summary) -> SummaryPart:
    return SummaryPart(
        n=s.n,
        mape=s.mape,
        median=s.median,
        p90=s.p90,
        worst=s.worst,
        worst_case=s.worst_case,
        bias=s.bias,
        fitted_on=s.seen,
        inside=some(s.inside),
    )


def calibration_document(c: Calibration, file: Path) -> CalibrateDocument:
    families = {
        f.family: FamilyPart(
            constants=dict(f.constants),
            offsets_s=dict(f.offsets),
            rows=CountsPart(train=len(f.fitted_on), test=len(f.held_out)),
            error=_errors(f.fitted_on, f.held_out, f.before),
            interval=f.interval,
        )
        for f in c.families
    }
    return CalibrateDocument(
        chip=c.chip.name,
        file=str(file),
        constants={n: v for f in c.families for n, v in f.constants.items()},
        error=_errors(
            [e for f in c.families for e in f.fitted_on],
            [e for f in c.families for e in f.held_out],
            [e for f in c.families for e in f.before],
        ),
        families=families,
        models=[_model_fit(m) for m in c.models],
    )


def _model_fit(m: ModelFit) -> ModelFitPart:
    return ModelFitPart(
        model=m.what.model,
        batch=m.what.batch,
        seq=some(m.what.seq),
        dtype=m.what.dtype,
        stack=m.what.stack.value,
        held_out=m.held_out,
        measured_s=m.measured_s,
        before_s=m.before_s,
        after_s=m.after_s,
    )


def _errors(
    fitted_on: Sequence[float], held_out: Sequence[float], before: Sequence[float] = ()
) -> ErrorsPart:
    def mean(errors: Sequence[float]) -> float | None:
        return sum(map(abs, errors)) / len(errors) if errors else None

    return ErrorsPart(train=mean(fitted_on), test=mean(held_out), before=some(mean(before)))


def scalesim_document(file: Path, rows: Sequence[Report]) -> ScaleSimDocument:
    return ScaleSimDocument(
        file=str(file),
        total_cycles=sum(r.total_cycles for r in rows),
        layers=[
            LayerPart(
                layer=r.layer,
                total_cycles=r.total_cycles,
                overall_util_percent=r.overall_util,
                mapping_efficiency_percent=r.mapping_efficiency,
                compute_util_percent=r.compute_util,
            )
            for r in rows
        ],
    )
