"""Prices: what chips rent for and cost to buy, and what a site takes; the product's lists, or the
user's own over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold import units
from tenfold.carbon import region_named
from tenfold.economics.offers import (
    Offer,
    Rented,
    RentFile,
    Terms,
    current,
    known_chip,
    offers_of,
    read_offers,
    rented,
)
from tenfold.economics.own import (
    Listed,
    Purchase,
    listed_purchases,
    ownership_figures,
    purchase,
)
from tenfold.errors import DataFileError, InputError, UnitError
from tenfold.estimate import Estimate
from tenfold.facts import ABOVE_0, SHARE, Range, Status, read_file
from tenfold.units import Dimension


class _Site(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a site takes: each left out keeps the product's figure."""

    pue: float | None = None
    electricity: str | None = None
    life: str | None = None
    facility: str | None = None
    facility_life: str | None = None
    utilisation: float | None = None


class _Bought(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    chip: str
    price: str
    with_server: bool = False


class _Own(RentFile, forbid_unknown_fields=True, frozen=True):
    """A file of one's own."""

    site: _Site = _Site()
    purchase: list[_Bought] = []


_FIGURES = {
    "electricity": Dimension.USD_PER_J,
    "life": Dimension.TIME_S,
    "facility": Dimension.USD_PER_W,
    "facility_life": Dimension.TIME_S,
}
_PUE = Range(1.0, 10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Offers to rent, offers to sell, the figures of ownership by name, PUE (None: the general
    one), and the share of what it can do that a chip is planned to do at most. ``own`` names the
    user's file.
    """

    offers: tuple[Offer, ...]
    listed: tuple[Listed, ...]
    figures: Mapping[str, Estimate] = field(default_factory=ownership_figures)
    pue: Estimate | None = None
    utilisation: float = 1.0
    own: str = ""

    def rented(
        self,
        chip: str,
        count: int,
        region: str | None = None,
        terms: Terms = Terms.ON_DEMAND,
        together: int = 1,
    ) -> Rented | None:
        """The cheapest way to rent ``count`` of ``chip``, ``together`` of them in one instance: in
        ``region``, where anybody lets it there.
        """
        return rented(self.offers_in(chip, region, terms), count, together)

    def offers_in(self, chip: str, region: str | None, terms: Terms) -> list[Offer]:
        """The offers of ``chip`` in ``region``, of the cloud whose region it is, as others use the
        same names; those of everywhere, where there are none.
        """
        mine = [o for o in self.offers if o.chip == chip and o.terms is terms]
        if region is None:
            return mine
        place = region_named(region)
        here = [o for o in mine if o.region == place.name or f"({place.name})" in o.region]
        return [o for o in here if o.provider == place.cloud] or mine

    def purchase(self, chip: str) -> Purchase | None:
        return purchase(chip, self.listed)


@lru_cache(maxsize=1)
def list_prices() -> Prices:
    """The product's own lists. Raises DataFileError for a fault in them."""
    return Prices(tuple(current(read_offers())), listed_purchases())


def own_prices(path: Path) -> Prices:
    """The product's prices with those of the file at ``path`` in their place, chip by chip, and
    the site's figures. Raises InputError for a file that is not there, DataFileError for its
    faults.
    """
    if not path.is_file():
        raise InputError(f"there is no file '{path}' with prices")
    file = read_file(path, _Own)
    base = list_prices()
    given = offers_of(_dated(file), path)
    letting = {o.chip for o in given}
    bought = [_listed(p, path) for p in file.purchase]
    selling = {p.chip for p in bought}
    found = replace(
        base,
        offers=(*(o for o in base.offers if o.chip not in letting), *current(given)),
        listed=(*(p for p in base.listed if p.chip not in selling), *bought),
        own=path.name,
    )
    return _of_site(found, file.site, path)


def _dated(file: _Own) -> RentFile:
    """One's own prices need no date, provider or source: they are of this file."""
    return msgspec.structs.replace(
        file,
        provider=file.provider or OWN,
        date=file.date or UNDATED,
        source=file.source or "the user's own prices",
    )


OWN = "own prices"
UNDATED = "2099"  # newer than any list: never the oldest price of an answer


def _listed(p: _Bought, path: Path) -> Listed:
    known_chip(p.chip, path)
    try:
        usd = units.parse(p.price, Dimension.USD)
    except UnitError as error:
        raise DataFileError(f"{path.name}: purchase of {p.chip}: {error}") from error
    if fault := ABOVE_0.fault(usd):
        raise DataFileError(f"{path.name}: purchase of {p.chip}: {fault}, found '{p.price}'")
    return Listed(p.chip, UNDATED, p.price, p.with_server, "list", Status.VERIFIED, path.name)


def _of_site(prices: Prices, site: _Site, path: Path) -> Prices:
    figures = dict(prices.figures)
    for name, dimension in _FIGURES.items():
        text = getattr(site, name)
        if text is None:
            continue
        try:
            value = units.parse(text, dimension)
        except UnitError as error:
            raise DataFileError(f"{path.name}: site.{name}: {error}") from error
        if fault := ABOVE_0.fault(value):
            raise DataFileError(f"{path.name}: site.{name}: {fault}, found '{text}'")
        figures[name] = Estimate.exact(value)
    for name, given, range_ in (("pue", site.pue, _PUE), ("utilisation", site.utilisation, SHARE)):
        if given is not None and (fault := range_.fault(given)):
            raise DataFileError(f"{path.name}: site.{name}: {fault}, found {given:g}")
    return replace(
        prices,
        figures=figures,
        pue=prices.pue if site.pue is None else Estimate.exact(site.pue),
        utilisation=prices.utilisation if site.utilisation is None else site.utilisation,
    )
