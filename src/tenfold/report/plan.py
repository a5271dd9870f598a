"""A plan for people: the answer in one line, how sure it is, what was assumed, the options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import assert_never

from tenfold.carbon import region_named
from tenfold.economics import UNDATED, Terms, dispatch, ownership_sources
from tenfold.estimate import Estimate
from tenfold.planner import Growth, LeftOut, Measure, Mixed, Option, Plan, Way
from tenfold.report.fit import Fitted
from tenfold.report.numbers import counted, ranged, short, with_unit
from tenfold.report.tables import changed_lines, roofline_lines
from tenfold.units import show

SPEED = (
    "chip", "dtype", "batch (mean)", "busy", "p99 without the spare", "limit", "J an item",
)  # fmt: skip
_ORDER = {
    None: "money a month, got the cheapest way there is",
    Measure.RENT: "rent",
    Measure.TCO: "total cost of ownership",
    Measure.CAPEX: "purchase price",
    Measure.CARBON: "carbon",
    Measure.ENERGY: "energy",
}


def answer_line(plan: Plan) -> str:
    """What to get, how many, p99, money and carbon a month."""
    o = plan.best
    if o is None:
        return "No chip meets it."
    spare = {0: "no spare", 1: "one spare"}.get(o.count.spare, f"{o.count.spare} spare")
    if o.together > 1:
        spare = f"in {counted(o.count.value // o.together, 'group')} of {o.together}, {spare}"
    parts = [f"{o.count.value:,} x {o.chip.name} ({spare})", f"p99 {with_unit(o.p99_s, 's')}"]
    parts.append(money(o, plan.ask.conditions.by))
    if o.kgco2e_per_month is not None:
        parts.append(f"{ranged(o.kgco2e_per_month)} kgCO2e a month")
    elif plan.ask.conditions.by is Measure.ENERGY:
        parts.append(f"{ranged(o.kwh_per_month)} kWh a month")
    return ", ".join(parts)


def money(o: Option, by: Measure | None) -> str:
    """Dollars a month as they are paid: the way that is ranked by, else the cheapest."""
    rent, owned, capex = o.rent_usd_per_month, o.tco_usd_per_year, o.capex_usd
    if by is Measure.CAPEX and capex is not None:
        return f"${ranged(capex)} to buy{_guess(o)}"
    if by is Measure.TCO and owned is not None:
        return f"${ranged(owned / 12)} a month owned{_guess(o)}"
    if by is Measure.RENT and rent is not None:
        return f"${ranged(rent)} a month rented"
    if o.usd_per_month is None:
        return "no price: nobody sells it or rents it out"
    assert o.way is not None
    return f"${ranged(o.usd_per_month)} a month {o.way.value}"


def _guess(o: Option) -> str:
    return " (not sold: an estimate)" if o.bought and o.bought.estimated else ""


def how_lines(plan: Plan) -> list[str]:
    """How to get the best option, and how sure the choice is."""
    o = plan.best
    if o is None:
        return []
    return [*_how_to_get(o), *_how_sure(plan, o)]


def _how_to_get(o: Option) -> list[str]:
    if o.way is Way.RENTED and o.rented is not None:
        more = o.rented.chips - o.count.value
        rest = f", {counted(more, 'chip')} more than needed" if more else ""
        where = ", ".join(x for x in (o.rented.provider, o.rented.region) if x)
        dated = "" if o.rented.date == UNDATED else f"; prices of {o.rented.date}"
        return [f"Rent {o.rented.shown} ({where}){rest}{dated}."]
    if o.way is Way.OWNED and o.capex_usd is not None and o.bought is not None:
        dated = "" if o.bought.date == UNDATED else f"; prices from {o.bought.date} on"
        return [f"Buy {o.count.value} with their servers: ${ranged(o.capex_usd)}{dated}."]
    return []


def _how_sure(plan: Plan, o: Option) -> list[str]:
    lines = []
    if o.count.high is None:
        lines.append(
            f"How sure: at the upper end of its interval one item takes longer than the SLO, so"
            f" that no number of {o.chip.name} would do; at the lower end {o.count.low} do."
        )
    elif o.count.low != o.count.high:
        lines.append(
            f"How sure: {o.count.low} to {o.count.high} chips, at the ends of the times' intervals."
        )
    if o.together > 1:
        lines.append(
            f"One {o.chip.name} does not hold the model: {o.together} share every layer"
            f" (tp={o.together}), and the group is what requests, batches and rates are counted by."
        )
    if o.limited_by:
        lines.append(f"Each {o.chip.name} is limited by the {o.limited_by}; it could do more.")
    if plan.as_good:
        names = ", ".join(
            f"{a.chip.name} ({money(a, plan.ask.conditions.by)})" for a in plan.as_good
        )
        lines.append(f"Not told apart from it, as the intervals meet: {names}.")
    return lines


def assumed_lines(plan: Plan) -> list[str]:
    """What was decided here because nobody said."""
    ask, on = plan.ask, plan.ask.conditions
    lines = list(ask.assumed)
    parts = []
    if ask.dtype is None and plan.best is not None and any(d.dtype is None for d in ask.demands):
        parts.append(f"{plan.best.dtype}, the best precision of {plan.best.chip.name}")
    if on.prices.utilisation < 1:
        parts.append(f"chips loaded to {on.prices.utilisation:.0%} of what they hold")
    parts.append("Poisson arrivals")
    if on.terms is not Terms.ON_DEMAND:
        parts.append(_terms(on.terms))
    if on.prices.own:
        parts.append(f"prices of {on.prices.own}")
    parts.append(f"ranked by {_ORDER[on.by]}")
    changed = changed_lines(o.chip for o in plan.options)
    plain = roofline_lines(o.chip for o in plan.options)
    return [*lines, f"Assumed: {', '.join(parts)}.", *changed, *plain]


def _terms(terms: Terms) -> str:
    match terms:
        case Terms.ON_DEMAND:
            return "rented on demand"
        case Terms.SPOT:
            return "spot prices, for instances that may be taken away at any time"
        case Terms.COMMITTED:
            return "prices for commitments"
        case _:
            assert_never(terms)


def named(o: Option) -> str:
    """The chip, and how many of them share every layer."""
    return f"{o.chip.name}, tp={o.together}" if o.together > 1 else o.chip.name


def _chips(o: Option) -> str:
    high = f"{o.count.high:,}" if o.count.high is not None else "none"
    interval = "" if o.count.low == o.count.high else f" ({o.count.low:,}-{high})"
    return f"{o.count.value:,}{interval}"


def plan_rows(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """What to get and what it comes to: the columns, and a row for each option."""
    carbon = plan.ask.region is not None
    columns = ["chip", "chips", "p99", "$ a month", "how", *(["kgCO2e a month"] if carbon else [])]
    rows = []
    for o in plan.options:
        month = o.usd_per_month
        rows.append(
            [
                named(o),
                _chips(o),
                with_unit(o.p99_s, "s"),
                ranged(month) if month else "-",
                o.way.value if o.way else "-",
                *([ranged(o.kgco2e_per_month)] if o.kgco2e_per_month else []),
            ]
        )
    return columns, rows


def speed_rows(plan: Plan) -> list[list[str]]:
    """The options, a row each, by ``SPEED``."""
    return [
        [
            named(o),
            o.dtype,
            f"{o.batch} ({o.mean_batch:.1f})",
            f"{o.utilisation:.0%}",
            show(o.p99_failed_s, "s"),
            f"{short(o.limit_per_s)}/s",
            ranged(o.energy_j),
        ]
        for o in plan.options
    ]


def money_rows(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Money by every measure, for the measures that any option has."""
    columns = ["chip", "rent $ a month", "TCO $ a year", "CapEx $", "$ a million items"]
    rows = [
        [
            named(o),
            _cell(o.rent_usd_per_month),
            _cell(o.tco_usd_per_year),
            _cell(o.capex_usd),
            _cell(o.usd_per_month / o.millions_per_month if o.usd_per_month else None),
        ]
        for o in plan.options
    ]
    kept = [i for i in range(5) if i == 0 or any(r[i] != "-" for r in rows)]
    return [columns[i] for i in kept], [[r[i] for i in kept] for r in rows]


def _cell(e: Estimate | None) -> str:
    return "-" if e is None else ranged(e)


def plan_tables(plan: Plan) -> list[Fitted]:
    """What to get; what the chips do; money by every measure."""
    columns, rows = plan_rows(plan)
    prices, priced = money_rows(plan)
    tables = [_table(columns, rows), _table(SPEED, speed_rows(plan))]
    return [*tables, _table(prices, priced)] if len(prices) > 1 else tables


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Fitted:
    table = Fitted(list(columns))
    for row in rows:
        table.add_row(*row)
    return table


def demand_lines(plan: Plan) -> list[str]:
    """The p99 of each demand on each chip, where there are several: all up, and with the spare ones
    down.
    """
    if len(plan.ask.demands) < 2:
        return []
    return [
        f"{o.chip.name}: p99 (one down) "
        + ", ".join(
            f"{n} {show(p, 's')} ({show(o.p99s_failed_s.get(n, p), 's')})"
            for n, p in o.p99s_s.items()
            if not math.isnan(p)
        )
        for o in plan.options
    ]


def rejected_lines(plan: Plan) -> list[str]:
    """Why not, for the rest: those that cannot first, then those that a guess put behind, on one
    line.
    """
    lines = [f"{r.chip}: {r.reason}" for r in plan.rejected if r.certain]
    guessed = [r.chip for r in plan.rejected if not r.certain]
    if guessed:
        lines.append(
            "not compiled for, a guess puts them behind (name one with --chip to see it):"
            f" {', '.join(guessed)}"
        )
    return lines


def headroom_lines(
    grown: Mapping[str, Growth], mixed: Sequence[Mixed], left: Sequence[LeftOut]
) -> list[str]:
    """Lessons 1, 2 and 7 for this choice."""
    lines = []
    for name, g in grown.items():
        lines.append(
            f"{name}: a model that grows 1.5x a year outgrows its memory in {g.memory_years:.1f}"
            f" years, and with one item alone the SLO in {g.latency_years:.1f} years."
        )
    for m in mixed:
        others = [
            f"{n} {s:.2f}x" if s is not None else f"{n} cannot"
            for n, s in list(m.speed.items())[1:]
        ]
        shares = ", ".join(f"{f} {s:.1%}" for f, s in m.shares.items())
        if others:
            lines.append(
                f"With the workloads of {m.year} ({shares}), against {next(iter(m.speed))}:"
                f" {', '.join(others)} as fast."
            )
    for x in left:
        if x.loss > 0.005:
            lines.append(
                f"Without {x.demand} the choice would be {x.chosen}, on which it costs {x.loss:.0%}"
                f" more than on {x.best_for_it}."
            )
        else:
            lines.append(
                f"Without {x.demand} the choice would be {x.chosen}, which is the best for it too."
            )
    return lines


def notes(plan: Plan) -> list[str]:
    """What the figures mean and what they leave out, in few words."""
    found = [
        "p99 and counts by the policy of `tenfold simulate`, the host's part included"
        f" ({1 - dispatch('busy').value:.0%} of the time and {dispatch('item').value * 1e6:g} us a"
        " request), pre-processing and network not."
    ]
    narrow = sorted({o.dtype for o in plan.options} - {"fp32"})
    if narrow:
        found.append(f"Quality not checked in {', '.join(narrow)} (`tenfold profile --quality`).")
    if any(o.bought and o.bought.estimated for o in plan.options):
        names = ", ".join(o.chip.name for o in plan.options if o.bought and o.bought.estimated)
        found.append(f"Not sold, price estimated within a factor of two: {names}.")
    if len(plan.ask.demands) > 1:
        found.append("In the table: batch and p99 of the first demand.")
    if plan.ask.left_out:
        found.append(f"Left out of what the file says: {', '.join(plan.ask.left_out)}.")
    if any(o.tco for o in plan.options):
        found.append(
            "Owned: price and server over their life, a data centre's watts, upkeep, electricity"
            " with PUE; no interest, network or staff (`--prices` for your own)."
        )
    oldest = oldest_price(plan)
    if oldest:
        found.append(f"List prices, the oldest of {oldest} (`tenfold prices CHIP`).")
    if plan.ask.region:
        found.append(
            "Carbon: operational, location-based, mean of the year, host and PUE included."
        )
    return found


def oldest_price(plan: Plan) -> str:
    """The date of the oldest price that an option's money rests on; "" where there is none."""
    dates = [o.rented.date for o in plan.options if o.rented and o.way is Way.RENTED]
    dates += [o.bought.date for o in plan.options if o.bought and o.way is Way.OWNED]
    return min((d for d in dates if d != UNDATED), default="")


def source_lines(plan: Plan) -> list[str]:
    """Where prices, ownership and the grid come from; `tenfold profile --sources` has those of a
    chip.
    """
    lines = [
        f"{o.chip.name}, to buy: {s}" for o in plan.options if o.bought for s in o.bought.sources
    ]
    lines += [
        f"{o.chip.name}, to rent: {x.offer.status}, {x.offer.source} ({x.offer.date})"
        for o in plan.options
        if o.rented
        for x in o.rented.lets
    ]
    lines += ownership_sources() if any(o.tco for o in plan.options) else ()
    return lines + ([f"grid: {region_named(plan.ask.region).source}"] if plan.ask.region else [])
