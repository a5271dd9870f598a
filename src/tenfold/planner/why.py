"""Why the ranks differ, in sentences with the numbers."""

from __future__ import annotations

from tenfold.carbon import system_share
from tenfold.economics.own import HARDWARE
from tenfold.estimate import Estimate
from tenfold.planner.record import Option, Plan

_MEASURES = {
    "tco": "total cost of ownership",
    "capex": "purchase price",
    "carbon": "carbon",
    "rent": "rent",
}


def _first(plan: Plan, rank: str) -> Option | None:
    return next((o for o in plan.options if plan.ranks[rank].get(o.chip.name) == 1), None)


def differences(plan: Plan) -> list[str]:
    """A sentence for each measure that puts another chip first than TCO does, and for each pair
    that price and TCO order differently.
    """
    lines = []
    by_tco = _first(plan, "tco")
    for rank in ("capex", "rent", "carbon"):
        other = _first(plan, rank)
        if other is not None and by_tco is not None and other is not by_tco:
            first = (
                f"By {_MEASURES[rank]} {other.chip.name} is first, by total cost of ownership"
                f" {by_tco.chip.name}"
            )
            lines.append(f"{first}: {_cause(by_tco, other, rank)}.")
    priced = [o for o in plan.options if o.tco]
    for i, a in enumerate(priced):
        for b in priced[i + 1 :]:
            cheaper = (a.capex_usd and b.capex_usd) and b.capex_usd.value < a.capex_usd.value
            if cheaper and {a, b} != {by_tco, _first(plan, "capex")}:
                lines.append(
                    f"{b.chip.name} costs less to buy than {a.chip.name} and more to own:"
                    f" {_cause(a, b, 'capex')}."
                )
    return lines


def _cause(own: Option, other: Option, rank: str) -> str:
    """What makes ``other`` first by ``rank`` though ``own`` costs less to own."""
    if rank == "rent":
        there = _usd(other.usd_per_million_rented)
        if own.rent is None:
            return (
                f"{there} a million items at list price, which owners do not pay, and nobody rents"
                f" {own.chip.name} out"
            )
        return (
            f"{there} against {_usd(own.usd_per_million_rented)} a million items at list price,"
            " which owners do not pay"
        )
    if rank == "carbon":
        return (
            f"{_watts(other)} against {_watts(own)} drawn on average; a chip's price does not emit"
        )
    parts = []
    for what, power in (("to buy", False), ("a year for power, cooling and building", True)):
        a, b = (_part(o, power=power) for o in (other, own))
        parts.append(f"{a} against {b} {what}")
    return "; but ".join(parts)


def _part(o: Option, *, power: bool) -> str:
    if not power:
        return _usd(o.capex_usd)
    assert o.tco is not None
    rest = sum(e.amount.value for e in o.tco.account if e.what not in HARDWARE)
    return f"{rest * o.count.value:,.0f} $"


def _usd(e: Estimate | None) -> str:
    if e is None:
        return "no price"
    return f"{e.value:,.0f} $" if e.value >= 100 else f"{e.value:.3g} $"


def _watts(o: Option) -> str:
    share = system_share(o.chip).value
    return (
        f"{o.mean_w.value * share * o.count.value:,.0f} W with the hosts ({o.count.value} x"
        f" {o.chip.name})"
    )
