"""Money: what a chip rents for, and what owning it costs."""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.chips import Chip
from tenfold.economics.offers import Let, Offer, Rented, Terms
from tenfold.economics.own import (
    YEAR_S,
    Purchase,
    Tco,
    dispatch,
    idle_power,
    ownership,
    ownership_sources,
    purchase,
    tco,
)
from tenfold.economics.prices import UNDATED, Prices, list_prices, own_prices
from tenfold.estimate import Estimate

__all__ = [
    "MONTH_S",
    "UNDATED",
    "YEAR_S",
    "Let",
    "Offer",
    "Prices",
    "Purchase",
    "Rent",
    "Rented",
    "Tco",
    "Terms",
    "dispatch",
    "idle_power",
    "list_prices",
    "own_prices",
    "ownership",
    "ownership_sources",
    "purchase",
    "rent",
    "tco",
]

MONTH_S = YEAR_S / 12


@dataclass(frozen=True, slots=True)
class Rent:
    """What one busy chip costs for a time, as a share of the instance it is in: ``price`` is the
    offer used, the interval spans all providers' cheapest.
    """

    usd: Estimate
    price: Offer


def rent(chip: Chip, time_s: Estimate, region: str | None = None) -> Rent | None:
    """Dollars at list price, on demand, for ``time_s`` on one chip; None for a chip that nobody
    rents out.

    The price is the lowest a chip in ``region`` where anybody lets it there, else the lowest of
    all.
    """
    prices = list_prices()
    everywhere = prices.offers_in(chip.sold_as, None, Terms.ON_DEMAND)
    if not everywhere:
        return None
    here = prices.offers_in(chip.sold_as, region, Terms.ON_DEMAND)
    chosen = min(here, key=lambda o: o.usd_per_chip_s)
    cheapest: dict[str, float] = {}
    for o in everywhere:
        cheapest[o.provider] = min(cheapest.get(o.provider, o.usd_per_chip_s), o.usd_per_chip_s)
    rates = [chosen.usd_per_chip_s, *cheapest.values()]
    return Rent(time_s * Estimate(chosen.usd_per_chip_s, min(rates), max(rates)), chosen)
