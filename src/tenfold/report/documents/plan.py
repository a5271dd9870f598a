"""The document of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.report.documents.part import Interval, Maybe, Part


class DemandPart(Part, frozen=True, kw_only=True):
    """What a plan must serve."""

    tenant: str
    model: str
    slo_s: float
    rate_per_s: float


class LetPart(Part, frozen=True, kw_only=True):
    """So many of an instance, whole; without a name where the list gives a price by the chip."""

    provider: str
    instance: Maybe[str] = UNSET
    region: str
    terms: str
    count: int
    chips: int
    usd_per_hour: float
    date: str


class OptionPart(Part, frozen=True, kw_only=True):
    """A chip that serves the demands, how many, and what it comes to; ``failed`` is with the spare
    ones down. ``way`` is the cheapest in which it can be got, and ``usd_per_month`` what that
    takes, with the counts at the ends of its interval. ``rented`` are the instances. ``together``
    chips share every layer and answer as one: rates and batches are of such a group.
    """

    chip: str
    dtype: str
    batch: int
    mean_batch: float
    count: int
    interval_count: tuple[int, int | None]
    together: int
    spare: int
    p99_s: float
    interval_p99_s: Interval
    p99_failed_s: float
    p99_by_tenant_s: Mapping[str, float]
    p99_failed_by_tenant_s: Mapping[str, float]
    in_time: float
    in_time_failed: float
    kwh_per_million: float
    interval_kwh_per_million: Interval
    goodput_per_s: float
    throughput_per_s: float
    utilisation: float
    energy_j_per_item: float
    interval_j_per_item: Interval
    power_w: float
    provisioned_w: float
    quality: Maybe[str] = UNSET
    capex_usd: Maybe[float] = UNSET
    interval_capex_usd: Maybe[Interval] = UNSET
    tco_usd_per_year: Maybe[float] = UNSET
    interval_tco_usd_per_year: Maybe[Interval] = UNSET
    usd_per_million: Maybe[float] = UNSET
    interval_usd_per_million: Maybe[Interval] = UNSET
    usd_per_million_rented: Maybe[float] = UNSET
    interval_usd_per_million_rented: Maybe[Interval] = UNSET
    gco2e_per_million: Maybe[float] = UNSET
    interval_gco2e_per_million: Maybe[Interval] = UNSET
    tco_entries_usd_per_year: Maybe[Mapping[str, float]] = UNSET
    carbon_entries_gco2e_per_million: Maybe[Mapping[str, float]] = UNSET
    price_estimated: Maybe[bool] = UNSET
    rank: Mapping[str, int]
    way: Maybe[str] = UNSET
    limited_by: Maybe[str] = UNSET
    usd_per_month: Maybe[float] = UNSET
    interval_usd_per_month: Maybe[Interval] = UNSET
    rent_usd_per_month: Maybe[float] = UNSET
    interval_rent_usd_per_month: Maybe[Interval] = UNSET
    kgco2e_per_month: Maybe[float] = UNSET
    interval_kgco2e_per_month: Maybe[Interval] = UNSET
    rented: Maybe[Sequence[LetPart]] = UNSET


class RejectedPart(Part, frozen=True, kw_only=True):
    """Why not a chip; not ``certain`` where a guess put it behind."""

    chip: str
    reason: str
    certain: bool


class GrowthPart(Part, frozen=True, kw_only=True):
    """Years until a model that grows 1.5 times a year outgrows the memory, and the SLO."""

    memory_years: float
    latency_years: float


class MixPart(Part, frozen=True, kw_only=True):
    """How fast the choices are on a year's workloads."""

    year: int
    shares: Mapping[str, float]
    speed: Mapping[str, float | None]
    source: str


class LeftOutPart(Part, frozen=True, kw_only=True):
    """What a choice without one demand loses on it."""

    demand: str
    chosen: str
    best: str
    loss: float


class ClosestPart(Part, frozen=True, kw_only=True):
    """The chip that comes closest where none will do."""

    chip: str
    slos_for_one_item: Maybe[float] = UNSET


class PlanDocument(Part, frozen=True, kw_only=True):
    """`tenfold plan`: the answer in a sentence, how it is got, how sure it is and what was assumed,
    then the options, best first.
    """

    answer: str
    ranked_by: str
    not_told_apart: Sequence[str]
    assumed: Sequence[str]
    oldest_price: Maybe[str] = UNSET
    demands: Sequence[DemandPart]
    options: Sequence[OptionPart]
    rejected: Sequence[RejectedPart]
    differences: Sequence[str]
    region: Maybe[str] = UNSET
    left_out_of_the_file: Maybe[Sequence[str]] = UNSET
    headroom: Maybe[Mapping[str, GrowthPart]] = UNSET
    mixes: Maybe[Sequence[MixPart]] = UNSET
    left_out: Maybe[Sequence[LeftOutPart]] = UNSET
    closest: Maybe[ClosestPart] = UNSET
    sources: Maybe[Sequence[str]] = UNSET


class OfferPart(Part, frozen=True, kw_only=True):
    """A list price of an instance, whole, for an hour."""

    provider: str
    instance: Maybe[str] = UNSET
    chips: int
    region: str
    terms: str
    usd_per_hour: float
    date: str
    status: str
    source: str


class PurchasePart(Part, frozen=True, kw_only=True):
    """What a chip and its share of a server cost."""

    usd: float
    interval_usd: Interval
    server_usd: float
    interval_server_usd: Interval
    estimated: bool
    sources: Sequence[str]


class PricesDocument(Part, frozen=True, kw_only=True):
    """`tenfold prices`."""

    chip: str
    rent: Sequence[OfferPart]
    purchase: Maybe[PurchasePart] = UNSET
