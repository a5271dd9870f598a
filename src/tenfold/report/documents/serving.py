"""Documents of servers, simulated and real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.report.documents.part import Maybe, Part


class TenantPart(Part, frozen=True, kw_only=True):
    """What a tenant asked for and got; no times where nothing was answered."""

    name: str
    offered: int
    answered: int
    rejected: int
    in_time: int
    offered_per_s: float
    goodput_per_s: float
    mean_batch: float
    p50_s: Maybe[float] = UNSET
    p99_s: Maybe[float] = UNSET
    p99_over_slo: Maybe[float] = UNSET


class ScorePart(Part, frozen=True, kw_only=True):
    """A policy, its knobs tuned."""

    policy: str
    knobs: str
    goodput_per_s: float
    p99_held: bool
    worst_share: float


class SimulateDocument(Part, frozen=True, kw_only=True):
    """`tenfold simulate`."""

    scenario: str
    policy: str
    tenants: Sequence[TenantPart]
    total: TenantPart
    utilisation: float
    loading: float
    batches: int
    duration_s: float
    batch_reasons: Mapping[str, int]
    refusals: Mapping[str, int]
    energy_j: Maybe[float] = UNSET
    compared: Maybe[Sequence[ScorePart]] = UNSET
    releases: Maybe[Sequence[str]] = UNSET
    left_out: Maybe[Sequence[str]] = UNSET


class ScenarioPart(Part, frozen=True, kw_only=True):
    """A scenario that ships."""

    name: str
    note: str


class ScenariosDocument(Part, frozen=True, kw_only=True):
    """`tenfold simulate --list`."""

    scenarios: Sequence[ScenarioPart]


class TrialPart(Part, frozen=True, kw_only=True):
    """One run on the real clock."""

    rate_per_s: float
    goodput_per_s: float
    offered: int
    rejected: int
    mean_batch: float
    valid: bool
    loadgen_reasons: Maybe[Sequence[str]] = UNSET
    misses: int
    reasons: Sequence[str]
    p50_s: Maybe[float] = UNSET
    p99_s: Maybe[float] = UNSET


class ToldPart(Part, frozen=True, kw_only=True):
    """What the simulation says of the same run."""

    goodput_per_s: float
    mean_batch: float
    p50_s: Maybe[float] = UNSET
    p99_s: Maybe[float] = UNSET


class LoadtestDocument(Part, frozen=True, kw_only=True):
    """`tenfold loadtest`: whether it held in a sentence, the run that is reported, its simulation,
    and all that were tried.
    """

    answer: str
    loadgen_reasons: Maybe[Sequence[str]] = UNSET
    model: str
    slo_s: float
    rate_per_s: float
    goodput_per_s: float
    offered: int
    rejected: int
    mean_batch: float
    valid: bool
    misses: int
    reasons: Sequence[str]
    p50_s: Maybe[float] = UNSET
    p99_s: Maybe[float] = UNSET
    simulated: ToldPart
    service_s: Mapping[str, float]
    runs: Sequence[TrialPart]
    offline_per_s: Maybe[float] = UNSET
    arrivals: str
