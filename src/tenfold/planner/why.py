"""Why the ranks differ, in sentences with the numbers."""

from __future__ import annotations

from tenfold.carbon import system_share
from tenfold.economics.own import HARDWARE
from tenfold.estimate import Estimate
from tenfold.planner.record import Measure, Option, Plan

_CALLED = {
    Measure.RENT: "rent",
    Measure.TCO: "total cost of ownership",
    Measure.CAPEX: "purchase price",
    Measure.CARBON: "carbon",
    Measure.ENERGY: "energy",
}


def _first(plan: Plan, by: Measure) -> Option | None:
    return next((o for o in plan.options if plan.ranks[by].get(o.chip.name) == 1), None)


def differences(plan: Plan) -> list[str]:
    """A sentence for each measure that puts another chip first, and for each pair that price and
    TCO order differently.
    """
    best = plan.best
    if best is None:
        return []
    lines = []
    measures = [m for m in Measure if m not in (plan.ask.conditions.by, Measure.ENERGY)]
    for by in measures:
        other = _first(plan, by)
        if by is Measure.CARBON and plan.ask.region is None:
            continue
        if other is not None and other is not best and not _tied(best, other, by):
            lines.append(f"By {_CALLED[by]} {other.chip.name} is first: {_cause(best, other, by)}.")
    owned = [o for o in plan.options if o.tco]
    for i, a in enumerate(owned):
        for b in owned[i + 1 :]:
            dear, cheap = (a, b) if _amount(a, Measure.TCO) < _amount(b, Measure.TCO) else (b, a)
            if _amount(cheap, Measure.CAPEX) < _amount(dear, Measure.CAPEX):
                lines.append(
                    f"{cheap.chip.name} costs less to buy than {dear.chip.name} and more to own:"
                    f" {_to_own(dear, cheap)}."
                )
    return lines


def _tied(a: Option, b: Option, by: Measure) -> bool:
    x, y = a.amount(by), b.amount(by)
    return x is not None and y is not None and x.value == y.value


def _amount(o: Option, by: Measure) -> float:
    found = o.amount(by)
    assert found is not None, "of owned options only"
    return found.value


def _cause(best: Option, other: Option, by: Measure) -> str:
    """What makes ``other`` first by a measure though ``best`` is first by that of the plan."""
    if by is Measure.CARBON:
        return (
            f"{_watts(other)} against {_watts(best)} drawn on average; a chip's price does not emit"
        )
    unit = {Measure.RENT: " a month", Measure.TCO: " a year", Measure.CAPEX: " to buy"}[by]
    there, here = other.amount(by), best.amount(by)
    guess = " (not sold: an estimate)" if other.bought and other.bought.estimated else ""
    against = f"against {_usd(here)}" if here else f"and {best.chip.name} has no such price"
    return f"{_usd(there)}{unit}{guess if by is not Measure.RENT else ''} {against}"


def _to_own(own: Option, other: Option) -> str:
    """What makes ``other`` dearer to own though it costs less to buy."""
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
    return f"${rest * o.count.value:,.0f}"


def _usd(e: Estimate | None) -> str:
    if e is None:
        return "no price"
    return f"${e.value:,.0f}" if e.value >= 100 else f"${e.value:.3g}"


def _watts(o: Option) -> str:
    share = system_share(o.chip).value
    return (
        f"{o.mean_w.value * share * o.count.value:,.0f} W with the hosts ({o.count.value} x"
        f" {o.chip.name})"
    )
