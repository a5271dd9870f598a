"""Prices of a chip: for people, and as a document."""

from __future__ import annotations

from collections.abc import Iterator

from tenfold.economics import UNDATED, Offer, Prices, Terms
from tenfold.report.document import real
from tenfold.report.documents.plan import OfferPart, PricesDocument, PurchasePart
from tenfold.report.fit import Fitted
from tenfold.report.numbers import ranged


def price_tables(chip: str, known: Prices) -> Iterator[Fitted | str]:
    """Offers to rent, the cheapest a chip first, and what it was sold for."""
    offers = _offers(chip, known)
    if offers:
        columns = (
            "provider",
            "instance",
            "chips",
            "region",
            "terms",
            "$ an hour",
            "a chip",
            "date",
        )
        table = Fitted(list(columns), title=f"{chip}, to rent")
        for o in offers:
            table.add_row(
                o.provider,
                o.instance or "by the chip",
                str(o.chips),
                o.region,
                o.terms.value,
                f"{o.usd_per_s * 3600:,.2f}",  # as the lists have it
                f"{o.usd_per_chip_s * 3600:,.2f}",
                "own" if o.date == UNDATED else o.date,
            )
        yield table
    else:
        yield f"{chip} is not rented out at any list price that is known here."
    bought = known.purchase(chip)
    if bought is None:
        yield f"{chip} is not sold at any price that is known here."
        return
    guess = "an estimate, as it is not sold" if bought.estimated else "the median of what was asked"
    yield (
        f"{chip}, to buy: ${ranged(bought.chip_usd)}, {guess}, and ${ranged(bought.server_usd)} for"
        " its share of a server. From:"
    )
    for source in bought.sources:
        yield f"  {source}"


def _offers(chip: str, known: Prices) -> list[Offer]:
    order = list(Terms)
    mine = (o for o in known.offers if o.chip == chip)
    return sorted(mine, key=lambda o: (order.index(o.terms), o.usd_per_chip_s))


def prices_document(chip: str, known: Prices) -> PricesDocument:
    bought = known.purchase(chip)
    return PricesDocument(
        chip=chip,
        rent=[
            OfferPart(
                provider=o.provider,
                instance=real(o.instance),
                chips=o.chips,
                region=o.region,
                terms=o.terms.value,
                usd_per_hour=o.usd_per_s * 3600,
                date=o.date,
                status=o.status.value,
                source=o.source,
            )
            for o in _offers(chip, known)
        ],
        purchase=real(
            PurchasePart(
                usd=bought.chip_usd.value,
                interval_usd=(bought.chip_usd.low, bought.chip_usd.high),
                server_usd=bought.server_usd.value,
                interval_server_usd=(bought.server_usd.low, bought.server_usd.high),
                estimated=bought.estimated,
                sources=bought.sources,
            )
            if bought
            else None
        ),
    )
