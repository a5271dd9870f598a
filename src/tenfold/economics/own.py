"""Owning a chip: what it costs to buy, to house and to power, a year (lesson 10)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from tenfold import units
from tenfold.chips import Chip
from tenfold.economics.offers import known_chip
from tenfold.errors import DataFileError, UnitError
from tenfold.estimate import Estimate
from tenfold.facts import (
    FROM_0,
    Account,
    Entry,
    FigureText,
    Spec,
    Status,
    check_sources,
    read_file,
    read_folder,
)
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data"
YEAR_S = 31557600.0


class Listed(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What one chip was offered for."""

    chip: str
    date: str
    price: str
    with_server: bool
    basis: Literal["list", "estimate"]
    status: Status
    source: str


class _Purchases(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    purchase: list[Listed]


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
    file = read_file(path, _Ownership)
    figures: dict[str, Estimate] = {}
    sources: dict[str, str] = {}
    check_sources(path, {n: f.source for n, f in file.figure.items()}, file.sources)
    for n, f in file.figure.items():
        text = FigureText(f.value, f.status, f.source, f.low, f.high)
        try:
            figures[n] = text.read(Spec(f.unit, FROM_0)).estimate
        except UnitError as error:
            raise DataFileError(f"{path.name}: {n}: {error}") from error
        interval = f"{f.value} ({f.low} to {f.high})"
        sources[n] = f"{n}: {interval}, {f.status}, {file.sources[f.source]}"
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


def ownership_figures() -> Mapping[str, Estimate]:
    """All figures of ``ownership.toml`` in SI units, by name."""
    return _figures("ownership.toml")[0]


@lru_cache(maxsize=1)
def listed_purchases() -> tuple[Listed, ...]:
    """All offers, of all files of ``data/purchase``."""
    found = []
    for path, file in read_folder(DATA / "purchase", _Purchases):
        for p in file.purchase:
            known_chip(p.chip, path)
            found.append(p)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Purchase:
    """What one chip with its share of a server costs, in dollars: the two entries, and where the
    prices came from.
    """

    chip_usd: Estimate
    server_usd: Estimate
    estimated: bool
    date: str  # of the oldest price in it
    sources: tuple[str, ...]

    @property
    def usd(self) -> Estimate:
        return self.chip_usd + self.server_usd


def purchase(chip: str, listed: Sequence[Listed] | None = None) -> Purchase | None:
    """The price of ``chip`` with its share of a server: the median of what was asked, from the
    lowest to the highest; None for a chip that has no price. An estimate, of a chip that is not
    sold, may be off by a factor of two. ``listed`` are the offers, by default those of the product.
    """
    rows = [p for p in (listed_purchases() if listed is None else listed) if p.chip == chip]
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
    return Purchase(
        chip_usd=price,
        server_usd=extra,
        estimated=wide > 1,
        date=min(p.date for p in rows),
        sources=sources,
    )


def idle_power(chip: Chip, top_w: float) -> Estimate:
    """Watts of a chip that waits: published, else the measured share of the most it draws."""
    published = chip.figures.get("idle_power")
    if published is not None:
        return Estimate(published.value, published.low, published.high)
    return ownership("idle_over_peak") * top_w


CHIP, SERVER, UPKEEP_OF_SERVER = "chip", "server", "upkeep of the server"
HARDWARE = frozenset({CHIP, SERVER, UPKEEP_OF_SERVER})  # entries that power has no part in


@dataclass(frozen=True, slots=True)
class Tco:
    """Dollars a year for one chip, as entries that sum."""

    account: Account

    @property
    def usd_per_year(self) -> Estimate:
        return self.account.total


def tco(
    bought: Purchase,
    peak_w: Estimate,
    mean_w: Estimate,
    pue: Estimate,
    figures: Mapping[str, Estimate] | None = None,
) -> Tco:
    """What owning one chip costs a year.

    price over its life + provisioned watts x price of a data centre's watt over its life + its
    upkeep + mean watts x PUE x price of electricity (Barroso et al. 2018, chapter 6; no interest).
    ``peak_w`` and ``mean_w`` are of the chip with its share of the host; ``figures`` those of
    ownership, by default the product's.
    """
    own = ownership_figures() if figures is None else figures
    life, facility_life = own["life"], own["facility_life"]
    per_year = Estimate(YEAR_S / life.value, YEAR_S / life.high, YEAR_S / life.low)
    facility = Estimate(
        YEAR_S / facility_life.value, YEAR_S / facility_life.high, YEAR_S / facility_life.low
    )
    return Tco(
        Account(
            (
                Entry(CHIP, bought.chip_usd * per_year),
                Entry(SERVER, bought.server_usd * per_year),
                Entry(UPKEEP_OF_SERVER, bought.usd * own["server_opex"]),
                Entry("power and cooling provisioned", peak_w * own["facility"] * facility),
                Entry("upkeep of the building", peak_w * (own["facility_opex"] * YEAR_S)),
                Entry("electricity", mean_w * pue * (own["electricity"] * YEAR_S)),
            )
        )
    )
