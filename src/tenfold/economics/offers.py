"""Renting: instances as providers sell them, and the cheapest ones that hold so many chips."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import assert_never

import msgspec

from tenfold import units
from tenfold.chips import names as chip_names
from tenfold.errors import DataFileError, UnitError, UnknownName
from tenfold.facts import ABOVE_0, Status, read_folder
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data" / "rent"


class Terms(StrEnum):
    """How a provider lets an instance."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"  # may be taken away at any time
    COMMITTED = "committed"  # for a year or more


class _Chip(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A price of one chip, where the list does not say which instance it is in."""

    chip: str
    provider: str
    location: str
    date: str
    price: str
    status: Status
    source: str


class Instance(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A machine with ``chips`` of one kind; prices of all of it by region."""

    chip: str
    chips: int
    price: dict[str, str] = {}
    spot: dict[str, str] = {}
    committed: dict[str, str] = {}


class RentFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A price list: of one provider, by instance, or of several, by chip."""

    provider: str = ""
    date: str = ""
    status: Status = Status.SECOND_HAND
    source: str = ""
    instance: dict[str, Instance] = {}
    rent: list[_Chip] = []


@dataclass(frozen=True, slots=True)
class Offer:
    """One list price: of an instance, whole, in dollars a second, in one region on one date.

    ``instance`` is "" where the list gives a price for each chip and no more.
    """

    chip: str
    provider: str
    instance: str
    chips: int
    region: str
    terms: Terms
    date: str
    usd_per_s: float
    status: Status
    source: str

    @property
    def usd_per_chip_s(self) -> float:
        return self.usd_per_s / self.chips


def read_offers(folder: Path = DATA) -> tuple[Offer, ...]:
    """All list prices of all files of ``folder``. Raises DataFileError for an unknown field, unit,
    chip or date.
    """
    return tuple(o for path, file in read_folder(folder, RentFile) for o in offers_of(file, path))


def offers_of(file: RentFile, path: Path) -> list[Offer]:
    """The offers of one file. Raises DataFileError."""
    found = [_of_chip(r, path) for r in file.rent]
    if file.instance and not (file.provider and file.date and file.source):
        raise DataFileError(f"{path.name}: instances need provider, date and source above them")
    for name, instance in file.instance.items():
        known_chip(instance.chip, path)
        if instance.chips < 1:
            raise DataFileError(f"{path.name}: {name}: chips must be at least 1")
        for terms in Terms:
            for region, price in _listed(instance, terms).items():
                found.append(
                    Offer(
                        chip=instance.chip,
                        provider=file.provider,
                        instance=name,
                        chips=instance.chips,
                        region=region,
                        terms=terms,
                        date=_date(file.date, f"{path.name}: {name}"),
                        usd_per_s=_price(price, f"{path.name}: {name} in {region}"),
                        status=file.status,
                        source=file.source,
                    )
                )
    return found


def _listed(instance: Instance, terms: Terms) -> dict[str, str]:
    match terms:
        case Terms.ON_DEMAND:
            return instance.price
        case Terms.SPOT:
            return instance.spot
        case Terms.COMMITTED:
            return instance.committed
        case _:
            assert_never(terms)


def _of_chip(r: _Chip, path: Path) -> Offer:
    known_chip(r.chip, path)
    where = f"{path.name}: {r.chip} at {r.provider}"
    return Offer(
        chip=r.chip,
        provider=r.provider,
        instance="",
        chips=1,
        region=r.location,
        terms=Terms.ON_DEMAND,
        date=_date(r.date, where),
        usd_per_s=_price(r.price, where),
        status=r.status,
        source=r.source,
    )


def known_chip(name: str, path: Path) -> None:
    """Raises DataFileError for a price of a chip that is not in the catalogue."""
    if name not in chip_names():
        raise DataFileError(f"{path.name}: {UnknownName('chip', name, chip_names())}")


def _price(text: str, where: str) -> float:
    try:
        usd_per_s = units.parse(text, Dimension.USD_PER_S)
    except UnitError as error:
        raise DataFileError(f"{where}: {error}") from error
    if fault := ABOVE_0.fault(usd_per_s):
        raise DataFileError(f"{where}: {fault}, found '{text}'")
    return usd_per_s


_DATE = re.compile(r"20\d\d(-(0[1-9]|1[0-2])(-([0-2]\d|3[01]))?)?")


def _date(text: str, where: str) -> str:
    """As given, a day, month or year: their order finds the newest price. Raises DataFileError."""
    if not _DATE.fullmatch(text):
        raise DataFileError(f"{where}: a date is like 2026-11-28, 2026-11 or 2026, found '{text}'")
    return text


def current(offers: Iterable[Offer]) -> list[Offer]:
    """The newest price of each instance in each region; a price by the chip counts only where its
    provider has none by the instance in the same terms.
    """
    newest: dict[tuple[str, str, str, str, Terms], Offer] = {}
    for o in sorted(offers, key=lambda o: o.date):
        newest[o.chip, o.provider, o.instance, o.region if o.instance else "", o.terms] = o
    whole = {(o.chip, o.provider, o.terms) for o in newest.values() if o.instance}
    return [o for o in newest.values() if o.instance or (o.chip, o.provider, o.terms) not in whole]


@dataclass(frozen=True, slots=True)
class Let:
    """So many of one instance."""

    offer: Offer
    count: int


@dataclass(frozen=True, slots=True)
class Rented:
    """Whole instances of one provider in one region that hold at least the chips asked for."""

    lets: tuple[Let, ...]

    @property
    def usd_per_s(self) -> float:
        return sum(x.offer.usd_per_s * x.count for x in self.lets)

    @property
    def chips(self) -> int:
        return sum(x.offer.chips * x.count for x in self.lets)

    @property
    def date(self) -> str:
        """Of the oldest price in it."""
        return min(x.offer.date for x in self.lets)

    @property
    def provider(self) -> str:
        return self.lets[0].offer.provider

    @property
    def region(self) -> str:
        return self.lets[0].offer.region

    @property
    def shown(self) -> str:
        """Such as 2 x p5.48xlarge."""
        named = (f"{x.count} x {x.offer.instance}" for x in self.lets if x.offer.instance)
        return " + ".join(named) or "by the chip"


def rented(offers: Sequence[Offer], count: int, together: int = 1) -> Rented | None:
    """The cheapest whole instances for ``count`` chips, among providers and regions, ``together``
    of them always in one; None where nobody lets the chip so. ``offers`` are of one chip.
    """
    places: dict[tuple[str, str], list[Offer]] = {}
    for o in offers:
        # a price by the chip says nothing of instances
        if o.chips >= together or not o.instance:
            places.setdefault((o.provider, o.region), []).append(o)
    found = [_cover(here, count, together) for here in places.values()]
    return min(found, key=lambda r: (r.usd_per_s, r.chips), default=None)


def _held(offer: Offer, together: int) -> int:
    """Chips of an instance that are in whole groups."""
    return offer.chips // together * together if offer.instance else offer.chips


def _cover(offers: Sequence[Offer], count: int, together: int) -> Rented:
    """The cheapest in one place: as many as go of the instance that is cheapest a chip, and what is
    cheapest for the rest; or one kind alone.
    """
    alone = [Rented((Let(o, math.ceil(count / _held(o, together))),)) for o in offers]
    bulk = min(offers, key=lambda o: (o.usd_per_s / _held(o, together), o.chips))
    whole, rest = divmod(count, _held(bulk, together))
    if whole and rest:
        last = min(
            (Let(o, math.ceil(rest / _held(o, together))) for o in offers),
            key=lambda x: x.offer.usd_per_s * x.count,
        )
        if last.offer is not bulk:
            alone.append(Rented((Let(bulk, whole), last)))
    return min(alone, key=lambda r: (r.usd_per_s, r.chips))
