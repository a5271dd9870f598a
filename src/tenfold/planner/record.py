"""What a plan is asked, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from tenfold.chips import Chip
from tenfold.economics import MONTH_S, YEAR_S, Prices, Purchase, Rented, Tco, Terms, list_prices
from tenfold.estimate import Estimate
from tenfold.facts import Account
from tenfold.scenario import Models, Service


class Measure(StrEnum):
    """What options can be ranked by."""

    RENT = "rent"
    TCO = "tco"
    CARBON = "carbon"
    ENERGY = "energy"
    CAPEX = "capex"


class Way(StrEnum):
    """How a user gets chips."""

    RENTED = "rented"
    OWNED = "owned"


@dataclass(frozen=True, slots=True)
class Spare:
    """Chips beyond those that the demand takes: so many, or a share of them (at least one)."""

    chips: int = 1
    share: float = 0.0

    def of(self, working: int) -> int:
        return math.ceil(self.share * working - 1e-9) if self.share else self.chips


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Requests of one tenant for one model: ``rate_per_s`` of them, 99 of 100 answered within
    ``slo_s``.
    """

    tenant: str
    name: str
    models: Models
    slo_s: float
    rate_per_s: float
    weight: float = 1.0
    dtype: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """On what conditions chips are looked for: how many may fail, what options are ranked by
    (None: the money that the cheapest way to get them takes), how they are rented, whose prices,
    and whether the site cools by air only.
    """

    spare: Spare = Spare()
    by: Measure | None = None
    terms: Terms = Terms.ON_DEMAND
    prices: Prices = field(default_factory=list_prices)
    air_only: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """The question: all demands on one kind of chip, where, and on what conditions.

    ``spread`` is the coefficient of variation of service times around the machine's. ``assumed`` is
    what the user left open and was decided here.
    """

    demands: tuple[Demand, ...]
    region: str | None = None
    dtype: str | None = None
    conditions: Conditions = field(default_factory=lambda: Conditions())
    spread: float = 0.05
    seed: int = 0
    assumed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # of what a scenario says

    def demands_of(self, tenant: str) -> int:
        return sum(d.tenant == tenant for d in self.demands)

    @property
    def rate_per_s(self) -> float:
        return sum(d.rate_per_s for d in self.demands)


@dataclass(frozen=True, slots=True)
class Count:
    """Chips, with the spare ones; ``low`` and ``high`` where every time is at that end of its
    interval (None: no number would do).
    """

    value: int
    low: int
    high: int | None
    spare: int

    @property
    def estimate(self) -> Estimate:
        """As a number that amounts are multiplied by; where no count would do at the upper end,
        that of the middle.
        """
        return Estimate(self.value, self.low, self.value if self.high is None else self.high)


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One kind of chip for the whole demand.

    ``batch`` is the largest useful one of the first demand; ``p99_s`` its 99th percentile with all
    chips up, ``p99_failed_s`` with the spare ones down, ``p99s_s`` and ``p99s_failed_s`` of every
    demand, ``in_time`` and ``in_time_failed`` the share answered in time of the one that fares
    worst, ``goodput_per_s`` all that is. ``together`` chips share every layer and answer as one;
    ``limit_per_s`` is what they can answer with 99 of 100
    in time, ``provisioned_w`` what the site must be able to give one with its share of the host.
    Energy an item is at the chip, idle time included; ``kwh`` are for a million items, host and PUE
    included. ``rented`` are the instances that hold the chips, ``rented_usd_per_s`` what those for
    the count take, and for the counts at its ends; ``tco`` is of one chip. None where nobody sells
    or rents the chip, or no region is given.
    """

    chip: Chip
    services: tuple[Service, ...]
    dtype: str
    batch: int
    mean_batch: float
    count: Count
    p99_s: Estimate
    p99_failed_s: float
    p99s_s: Mapping[str, float]
    p99s_failed_s: Mapping[str, float]
    in_time: float
    in_time_failed: float
    goodput_per_s: float
    limit_per_s: float
    utilisation: float
    energy_j: Estimate
    mean_w: Estimate
    provisioned_w: Estimate
    bought: Purchase | None
    tco: Tco | None
    rented: Rented | None
    rented_usd_per_s: Estimate | None
    kwh: Estimate
    carbon: Account | None
    rate_per_s: float
    together: int = 1
    limited_by: str = ""  # what beside the chip limits it, where the chip itself could do more

    @property
    def kgco2e(self) -> Estimate | None:
        """For a million items."""
        return self.carbon.total if self.carbon is not None else None

    @property
    def millions_per_month(self) -> float:
        return self.rate_per_s * MONTH_S / 1e6

    @property
    def kgco2e_per_month(self) -> Estimate | None:
        return self.kgco2e * self.millions_per_month if self.kgco2e is not None else None

    @property
    def kwh_per_month(self) -> Estimate:
        return self.kwh * self.millions_per_month

    @property
    def capex_usd(self) -> Estimate | None:
        return self.bought.usd * self.count.estimate if self.bought else None

    @property
    def tco_usd_per_year(self) -> Estimate | None:
        return self.tco.usd_per_year * self.count.estimate if self.tco else None

    @property
    def rent_usd_per_month(self) -> Estimate | None:
        """All chips by the hour, the spare ones too."""
        return self.rented_usd_per_s * MONTH_S if self.rented_usd_per_s else None

    @property
    def way(self) -> Way | None:
        """The cheapest way in which anybody can get it: rented where it is let, owned where it is
        sold at a known price; None for what only its maker runs.
        """
        rent, owned = self.rent_usd_per_month, self.tco_usd_per_year
        if self.bought is None or self.bought.estimated or owned is None:
            return Way.RENTED if rent else None
        cheaper = rent is not None and rent.value <= owned.value / 12
        return Way.RENTED if cheaper else Way.OWNED

    @property
    def usd_per_month(self) -> Estimate | None:
        """Of the cheapest way."""
        match self.way:
            case Way.RENTED:
                return self.rent_usd_per_month
            case Way.OWNED:
                return self.tco_usd_per_year / 12 if self.tco_usd_per_year else None
            case None:
                return None
            case _:
                assert_never(self.way)

    def amount(self, by: Measure | None) -> Estimate | None:
        """What options are ranked by, least first; None where it is not known."""
        match by:
            case None:
                return self.usd_per_month
            case Measure.RENT:
                return self.rent_usd_per_month
            case Measure.TCO:
                return self.tco_usd_per_year
            case Measure.CAPEX:
                return self.capex_usd
            case Measure.CARBON:
                return self.kgco2e_per_month
            case Measure.ENERGY:
                return self.kwh_per_month
            case _:
                assert_never(by)

    @property
    def usd_per_million_owned(self) -> Estimate | None:
        year = self.tco_usd_per_year
        return year * (1e6 / (self.rate_per_s * YEAR_S)) if year else None

    @property
    def usd_per_million_rented(self) -> Estimate | None:
        month = self.rent_usd_per_month
        return month / self.millions_per_month if month else None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A chip that is no option, and why; ``certain`` is False where only a guess put it behind
    others, ``short_by`` how many SLOs one item takes at least, where that is the reason,
    ``at_peak`` that nothing was compiled for that.
    """

    chip: str
    reason: str
    certain: bool = True
    short_by: float | None = None
    at_peak: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The options, best first, and what is no option. ``ranks`` are places by each measure, from 1,
    of the options that have it.
    """

    ask: Ask
    options: tuple[Option, ...]
    rejected: tuple[Rejected, ...]
    ranks: Mapping[Measure, Mapping[str, int]]

    @property
    def best(self) -> Option | None:
        return self.options[0] if self.options else None

    @property
    def as_good(self) -> tuple[Option, ...]:
        """The options that cannot be told from the best: their interval of what is ranked by meets
        the best one's.
        """
        best = self.best
        mine = best.amount(self.ask.conditions.by) if best else None
        if best is None or mine is None:
            return ()
        others = ((o, o.amount(self.ask.conditions.by)) for o in self.options[1:])
        return tuple(o for o, a in others if a is not None and a.low <= mine.high)

    @property
    def closest(self) -> Rejected | None:
        """Of the chips that cannot meet the SLO, the one that came nearest, by what one item really
        takes where that is known.
        """
        near = [r for r in self.rejected if r.short_by is not None]
        return min(near, key=lambda r: (r.at_peak, r.short_by or 0.0)) if near else None
