"""Owning a chip: what it costs to buy, to house and to power, a year (lesson 10)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from tenfold import units
from tenfold.chips import Chip
from tenfold.errors import DataFileError
from tenfold.estimate import Estimate
from tenfold.facts import Status
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data"
YEAR_S = 31557600.0


class _Purchase(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    chip: str
    date: str
    price: str
    with_server: bool
    basis: Literal["list", "estimate"]
    status: Status
    source: str


class _Purchases(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    purchase: list[_Purchase]


class _Figure(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    value: str
    low: str
    high: str
    unit: Dimension
    status: Status
    source: str


class _Ownership(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    figure: dict[str, _Figure]


@lru_cache(maxsize=2)
def _figures(name: str) -> tuple[Mapping[str, Estimate], Mapping[str, str]]:
    path = DATA / name
    try:
        file = msgspec.toml.decode(path.read_bytes(), type=_Ownership)
        figures = {
            n: Estimate(*(units.parse(t, f.unit) for t in (f.value, f.low, f.high)))
            for n, f in file.figure.items()
        }
        sources = {
            n: f"{n}: {f.value} ({f.low} to {f.high}), {f.status}, {file.sources[f.source]}"
            for n, f in file.figure.items()
        }
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise DataFileError(f"{path.name}: {error}") from error
    return figures, sources


def ownership(name: str) -> Estimate:
    """A figure of ``ownership.toml`` in SI units, with its interval."""
    return _figures("ownership.toml")[0][name]


def dispatch(name: str) -> Estimate:
    """A figure of ``dispatch.toml`` in SI units, with its interval: what a host takes of a chip's
    time when single requests come.
    """
    return _figures("dispatch.toml")[0][name]


def ownership_sources() -> tuple[str, ...]:
    """Every figure of ownership with value, interval, status and source."""
    return tuple(_figures("ownership.toml")[1].values())


@lru_cache(maxsize=1)
def _purchases() -> tuple[_Purchase, ...]:
    path = DATA / "purchase.toml"
    try:
        return tuple(msgspec.toml.decode(path.read_bytes(), type=_Purchases).purchase)
    except msgspec.MsgspecError as error:
        raise DataFileError(f"{path.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Purchase:
    """What one chip with its share of a server costs, in dollars: the two entries, and where the
    prices came from.
    """

    chip_usd: Estimate
    server_usd: Estimate
    estimated: bool
    sources: tuple[str, ...]

    @property
    def usd(self) -> Estimate:
        return self.chip_usd + self.server_usd


def purchase(chip: str) -> Purchase | None:
    """The price of ``chip`` with its share of a server: the median of what was asked, from the
    lowest to the highest; None for a chip that has no price. An estimate, of a chip that is not
    sold, may be off by a factor of two.
    """
    rows = [p for p in _purchases() if p.chip == chip]
    if not rows:
        return None
    share = ownership("server_over_chip").value
    alone = [units.parse(p.price, Dimension.USD) / (share if p.with_server else 1.0) for p in rows]
    middle = statistics.median(alone)
    wide = ownership("estimate_factor").value if all(p.basis == "estimate" for p in rows) else 1.0
    price = Estimate(middle, min(alone) / wide, max(alone) * wide)
    sources = tuple(
        f"{p.price} on {p.date}{' with server' if p.with_server else ''}, {p.basis}, {p.source}"
        for p in rows
    )
    server = ownership("server_over_chip")
    extra = price * Estimate(server.value - 1, server.low - 1, server.high - 1)
    return Purchase(price, extra, wide > 1, sources)


def idle_power(chip: Chip, top_w: float) -> Estimate:
    """Watts of a chip that waits: published, else the measured share of the most it draws."""
    published = chip.figures.get("idle_power")
    if published is not None:
        return Estimate(published.value, published.low, published.high)
    return ownership("idle_over_peak") * top_w


@dataclass(frozen=True, slots=True)
class Tco:
    """Dollars a year for one chip, as entries that sum."""

    entries: tuple[tuple[str, Estimate], ...]

    @property
    def usd_per_year(self) -> Estimate:
        return Estimate.total(e for _, e in self.entries)


def tco(bought: Purchase, peak_w: Estimate, mean_w: Estimate, pue: Estimate) -> Tco:
    """What owning one chip costs a year.

    price over its life + provisioned watts x price of a data centre's watt over its life + its
    upkeep + mean watts x PUE x price of electricity (Barroso et al. 2018, chapter 6; no interest).
    ``peak_w`` and ``mean_w`` are of the chip with its share of the host.
    """
    life, facility_life = ownership("life"), ownership("facility_life")
    per_year = Estimate(YEAR_S / life.value, YEAR_S / life.high, YEAR_S / life.low)
    facility = Estimate(
        YEAR_S / facility_life.value, YEAR_S / facility_life.high, YEAR_S / facility_life.low
    )
    return Tco(
        (
            ("chip", bought.chip_usd * per_year),
            ("server", bought.server_usd * per_year),
            ("upkeep of the server", bought.usd * ownership("server_opex")),
            ("power and cooling provisioned", peak_w * ownership("facility") * facility),
            ("upkeep of the building", peak_w * (ownership("facility_opex") * YEAR_S)),
            ("electricity", mean_w * pue * (ownership("electricity") * YEAR_S)),
        )
    )
