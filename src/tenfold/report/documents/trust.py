"""Documents of predictions beside references, and of single sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.report.documents.part import Interval, Maybe, Part


class PredictDocument(Part, frozen=True, kw_only=True):
    """`tenfold predict`: each row as given, with ``time_s``, ``bound`` and ``energy_j``, and the
    ends of their intervals; ``library`` where it was said whose kernels run.
    """

    chip: str
    library: Maybe[str] = UNSET
    rows: Sequence[Mapping[str, float | str]]


class EstimateDocument(Part, frozen=True, kw_only=True):
    """`tenfold estimate`."""

    energy_kwh: float
    kgco2e: float
    kg_per_kwh: float
    grid: str
    ev_miles: Interval


class LessonPart(Part, frozen=True, kw_only=True):
    """A lesson: its claim, the published number, and ours."""

    id: str
    claim: str
    source: str
    command: str
    quantity: Maybe[str] = UNSET
    published: Maybe[float] = UNSET
    unit: Maybe[str] = UNSET
    ours: Maybe[float] = UNSET
    error: Maybe[float] = UNSET
    status: Maybe[str] = UNSET
    missing: Maybe[str] = UNSET


class LessonsDocument(Part, frozen=True, kw_only=True):
    """`tenfold lessons`."""

    lessons: Sequence[LessonPart]


class RowPart(Part, frozen=True, kw_only=True):
    """A prediction beside its reference."""

    area: str
    case: str
    predicted: float
    reference: float
    unit: str
    error: float
    source: str
    fitted_on: bool
    inside: Maybe[bool] = UNSET


class SummaryPart(Part, frozen=True, kw_only=True):
    """The errors of an area; ``inside`` is the share within the interval."""

    n: int
    mape: float
    median: float
    p90: float
    worst: float
    worst_case: str
    bias: float
    fitted_on: bool
    inside: Maybe[float] = UNSET


class ValidateDocument(Part, frozen=True, kw_only=True):
    """`tenfold validate`."""

    rows: Sequence[RowPart]
    summary: Mapping[str, SummaryPart]


class ErrorsPart(Part, frozen=True, kw_only=True):
    """Mean absolute errors on the rows fitted on, and on those held out; ``before`` with the
    constants that the chip had, of those held out where there are any.
    """

    train: float | None
    test: float | None
    before: Maybe[float] = UNSET


class CountsPart(Part, frozen=True, kw_only=True):
    """Rows fitted on and held out."""

    train: int
    test: int


class FamilyPart(Part, frozen=True, kw_only=True):
    """The fit of one family of kernels."""

    constants: Mapping[str, float]
    offsets_s: Mapping[str, float]
    rows: CountsPart
    error: ErrorsPart
    interval: float


class ModelFitPart(Part, frozen=True, kw_only=True):
    """A whole model measured, and predicted with the constants before and after."""

    model: str
    batch: int
    seq: Maybe[int] = UNSET
    dtype: str
    stack: str
    held_out: bool
    measured_s: float
    before_s: float
    after_s: float


class CalibrateDocument(Part, frozen=True, kw_only=True):
    """`tenfold calibrate`."""

    chip: str
    file: str
    constants: Mapping[str, float]
    error: ErrorsPart
    families: Mapping[str, FamilyPart]
    models: Sequence[ModelFitPart]


class LayerPart(Part, frozen=True, kw_only=True):
    """A layer as SCALE-Sim reports it."""

    layer: int
    total_cycles: int
    overall_util_percent: float
    mapping_efficiency_percent: float
    compute_util_percent: float


class ScaleSimDocument(Part, frozen=True, kw_only=True):
    """`tenfold scalesim`."""

    file: str
    total_cycles: int
    layers: Sequence[LayerPart]
