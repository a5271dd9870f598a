"""Money: what a chip rents for, and what owning it costs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold import units
from tenfold.chips import Chip
from tenfold.economics.own import (
    YEAR_S,
    Purchase,
    Tco,
    dispatch,
    idle_power,
    known_chip,
    ownership,
    ownership_sources,
    purchase,
    tco,
)
from tenfold.errors import DataFileError, UnitError
from tenfold.estimate import Estimate
from tenfold.facts import ABOVE_0, Status, read_folder
from tenfold.units import Dimension

__all__ = [
    "YEAR_S",
    "Price",
    "Purchase",
    "Rent",
    "Tco",
    "dispatch",
    "idle_power",
    "ownership",
    "ownership_sources",
    "purchase",
    "rent",
    "rent_prices",
    "tco",
]

DATA = Path(__file__).parent / "data" / "rent"


class _Row(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    chip: str
    provider: str
    location: str
    date: str
    price: str
    status: Status
    source: str


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    rent: list[_Row]


@dataclass(frozen=True, slots=True)
class Price:
    """One list price of renting a chip, in dollars a second, with its date and source."""

    chip: str
    provider: str
    location: str
    date: str
    usd_per_s: float
    status: Status
    source: str


@lru_cache(maxsize=1)
def rent_prices() -> tuple[Price, ...]:
    """All list prices, of all files of ``data/rent``. Raises DataFileError for an unknown field,
    unit or chip.
    """
    return tuple(_price(r, path) for path, file in read_folder(DATA, _File) for r in file.rent)


def _price(r: _Row, path: Path) -> Price:
    known_chip(r.chip, path)
    try:
        usd_per_s = units.parse(r.price, Dimension.USD_PER_S)
    except UnitError as error:
        raise DataFileError(f"{path.name}: {r.chip} at {r.provider}: {error}") from error
    if fault := ABOVE_0.fault(usd_per_s):
        raise DataFileError(f"{path.name}: {r.chip} at {r.provider}: {fault}, found '{r.price}'")
    return Price(
        chip=r.chip,
        provider=r.provider,
        location=r.location,
        date=_date(r, path),
        usd_per_s=usd_per_s,
        status=r.status,
        source=r.source,
    )


_DATE = re.compile(r"20\d\d(-(0[1-9]|1[0-2])(-([0-2]\d|3[01]))?)?")


def _date(r: _Row, path: Path) -> str:
    """As given, a day, month or year: their order finds the newest price. Raises DataFileError."""
    if not _DATE.fullmatch(r.date):
        raise DataFileError(
            f"{path.name}: {r.chip} at {r.provider}: a date is like 2026-11-28, 2026-11 or"
            f" 2026, found '{r.date}'"
        )
    return r.date


@dataclass(frozen=True, slots=True)
class Rent:
    """What it costs to rent the chip for a time: ``price`` is the row used, the interval spans all
    providers' latest rows.
    """

    usd: Estimate
    price: Price


HOME_PROVIDER = "Google Cloud"  # regions are Google Cloud's, so its price comes first


def rent(chip: Chip, time_s: Estimate) -> Rent | None:
    """Dollars at list price for ``time_s`` on one chip; None for a chip that nobody rents.

    The price is the regions' own provider's latest where it has one, else the latest of all.
    """
    rows = [p for p in rent_prices() if p.chip == chip.name]
    if not rows:
        return None
    latest = {p.provider: p for p in sorted(rows, key=lambda p: p.date)}
    chosen = latest.get(HOME_PROVIDER) or max(latest.values(), key=lambda p: p.date)
    rates = [p.usd_per_s for p in latest.values()]
    rate = Estimate(chosen.usd_per_s, min(rates), max(rates))
    return Rent(time_s * rate, chosen)
