"""What a plan is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold.chips import Chip
from tenfold.economics import YEAR_S, Purchase, Rent, Tco
from tenfold.estimate import Estimate
from tenfold.facts import Account
from tenfold.scenario import Models, Service

RANKS = ("tco", "capex", "carbon", "rent")


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
class Ask:
    """The question: all demands on one kind of chip, where, and what the site can cool.

    ``spread`` is the coefficient of variation of service times around the machine's, ``spare`` how
    many chips may fail.
    """

    demands: tuple[Demand, ...]
    region: str | None
    air_only: bool = False
    dtype: str | None = None
    spread: float = 0.05
    spare: int = 1
    seed: int = 0
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


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """One kind of chip for the whole demand.

    ``batch`` is the largest useful one of the first demand; ``p99_s`` its 99th percentile with all
    chips up, ``p99_failed_s`` with the spare ones down, ``p99s_s`` and ``p99s_failed_s`` of every
    demand, ``in_time`` and ``in_time_failed`` the share answered in time of the one that fares
    worst, ``goodput_per_s`` all that is. ``limit_per_s`` is what one chip can answer with 99 of 100
    in time, ``provisioned_w`` what the site must be able to give one with its share of the host.
    Energy an item is at the chip, idle time included; ``kwh`` are for a million items, host and PUE
    included. Money and carbon are for a million items too; None where nobody sells or rents the
    chip, or no region is given.
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
    rent: Rent | None
    kwh: Estimate
    carbon: Account | None
    rate_per_s: float

    @property
    def kgco2e(self) -> Estimate | None:
        return self.carbon.total if self.carbon is not None else None

    @property
    def capex_usd(self) -> Estimate | None:
        return self.bought.usd * self.count.value if self.bought else None

    @property
    def tco_usd_per_year(self) -> Estimate | None:
        return self.tco.usd_per_year * self.count.value if self.tco else None

    @property
    def usd_per_million_owned(self) -> Estimate | None:
        year = self.tco_usd_per_year
        return year * (1e6 / (self.rate_per_s * YEAR_S)) if year else None

    @property
    def usd_per_million_rented(self) -> Estimate | None:
        """All chips at list price by the hour, the spare ones too."""
        return self.rent.usd * (self.count.value * 1e6 / self.rate_per_s) if self.rent else None


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
    """The options, best first (by TCO; those without a price by carbon, or by energy, after them),
    and what is no option.
    """

    ask: Ask
    options: tuple[Option, ...]
    rejected: tuple[Rejected, ...]
    ranks: Mapping[str, Mapping[str, int]]

    @property
    def best(self) -> Option | None:
        return self.options[0] if self.options else None

    @property
    def closest(self) -> Rejected | None:
        """Of the chips that cannot meet the SLO, the one that came nearest, by what one item really
        takes where that is known.
        """
        near = [r for r in self.rejected if r.short_by is not None]
        return min(near, key=lambda r: (r.at_peak, r.short_by or 0.0)) if near else None
