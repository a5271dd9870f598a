"""A plan for people, for programs, and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import UNSET
from rich import box
from rich.table import Table

from tenfold.carbon import region_named
from tenfold.economics import dispatch, ownership_sources
from tenfold.estimate import Estimate
from tenfold.planner import Growth, LeftOut, Mixed, Option, Plan, differences
from tenfold.report.document import interval, real
from tenfold.report.documents.part import Interval, Maybe, some
from tenfold.report.documents.plan import (
    ClosestPart,
    DemandPart,
    GrowthPart,
    LeftOutPart,
    MixPart,
    OptionPart,
    PlanDocument,
    RejectedPart,
)
from tenfold.report.svg import pareto_svg
from tenfold.units import show

COLUMNS = (
    "chip", "dtype", "batch", "chips", "p99", "one down", "limit each", "busy", "J an item",
    "CapEx $", "TCO $/year", "$ a million", "rented", "kWh a million", "gCO2e a million",
    "TCO, CapEx, carbon",
)  # fmt: skip


def _number(e: Estimate | None, scale: float = 1.0) -> str:
    if e is None:
        return "-"
    return f"{_short(e.value * scale)} ({_short(e.low * scale)}-{_short(e.high * scale)})"


def _short(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"


def _time(e: Estimate) -> str:
    return f"{show(e.value, 's')} ({show(e.low, 's')}-{show(e.high, 's')})"


def _chips(o: Option) -> str:
    high = str(o.count.high) if o.count.high is not None else "none"
    return f"{o.count.value} ({o.count.low}-{high})"


def plan_rows(plan: Plan) -> list[list[str]]:
    """The options, a row each, by ``COLUMNS``."""
    rows = []
    for o in plan.options:
        ranks = [str(plan.ranks[r].get(o.chip.name, "-")) for r in ("tco", "capex", "carbon")]
        rows.append(
            [
                o.chip.name,
                o.dtype,
                f"{o.batch} ({o.mean_batch:.1f})",
                _chips(o),
                _time(o.p99_s),
                show(o.p99_failed_s, "s"),
                f"{_short(o.limit_per_s)}/s",
                f"{o.utilisation:.0%}",
                _number(o.energy_j),
                _number(o.capex_usd),
                _number(o.tco_usd_per_year),
                _number(o.usd_per_million_owned),
                _number(o.usd_per_million_rented),
                _number(o.kwh),
                _number(o.kgco2e, 1e3),
                ", ".join(ranks),
            ]
        )
    return rows


def plan_tables(plan: Plan) -> list[Table]:
    """What it does and how fast, and what it costs: two tables, so that neither is cut."""
    rows = plan_rows(plan)
    speed = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    money = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    priced = any(o.tco or o.rent for o in plan.options)
    shown = [
        0,
        *(
            i
            for i in range(9, len(COLUMNS))
            if (priced or i >= 13) and not (i == 14 and plan.ask.region is None)
        ),
    ]
    for i in range(9):
        speed.add_column(COLUMNS[i], no_wrap=i < 2, overflow="fold")
    for i in shown:
        money.add_column(COLUMNS[i], no_wrap=i == 0, overflow="fold")
    for r in rows:
        speed.add_row(*r[:9])
        money.add_row(*(r[i] for i in shown))
    return [speed, money]


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
    """What the figures mean and what they leave out."""
    found = [
        "p99 by the policy of `tenfold simulate` under Poisson arrivals, all chips up. Intervals:"
        " every time at its own end of its interval, the count fixed (chips: the count that would"
        " do; none: not even one item in time). An accelerator's host is in it with"
        f" {1 - dispatch('busy').value:.0%} of the time and {dispatch('item').value * 1e6:g} us a"
        " request; pre-processing and network are not."
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
            "Owned: price and server share over 3 years, 9 to 13 $ for each watt of data centre"
            " over 10 to 15 years, upkeep, electricity with PUE; no interest, network or staff."
        )
    if any(o.rent for o in plan.options):
        found.append(
            "Rented: on demand at list price, every chip all the time; the interval spans"
            " providers."
        )
    if plan.ask.region:
        found.append(
            "Carbon: operational, location-based, mean of the year, host share, PUE and idle time"
            " included."
        )
    return found


def source_lines(plan: Plan) -> list[str]:
    """Where prices, ownership and the grid come from; `tenfold profile --sources` has those of a
    chip.
    """
    lines = [
        f"{o.chip.name}, to buy: {s}" for o in plan.options if o.bought for s in o.bought.sources
    ]
    lines += [
        f"{o.chip.name}, to rent: {o.rent.price.status}, {o.rent.price.source}"
        f" ({o.rent.price.date})"
        for o in plan.options
        if o.rent
    ]
    lines += ownership_sources() if any(o.tco for o in plan.options) else ()
    return lines + ([f"grid: {region_named(plan.ask.region).source}"] if plan.ask.region else [])


def option_part(plan: Plan, o: Option) -> OptionPart:
    """One option; a key is absent where its value does not exist."""
    grams = o.kgco2e * 1e3 if o.kgco2e else None
    tco, carbon = o.tco, o.carbon
    return OptionPart(
        chip=o.chip.name,
        dtype=o.dtype,
        batch=o.batch,
        mean_batch=o.mean_batch,
        count=o.count.value,
        interval_count=(o.count.low, o.count.high),
        spare=o.count.spare,
        p99_s=o.p99_s.value,
        interval_p99_s=interval(o.p99_s),
        p99_failed_s=o.p99_failed_s,
        p99_by_tenant_s=dict(o.p99s_s),
        p99_failed_by_tenant_s=dict(o.p99s_failed_s),
        in_time=o.in_time,
        in_time_failed=o.in_time_failed,
        kwh_per_million=o.kwh.value,
        interval_kwh_per_million=interval(o.kwh),
        goodput_per_s=o.goodput_per_s,
        throughput_per_s=o.limit_per_s,
        utilisation=o.utilisation,
        energy_j_per_item=o.energy_j.value,
        interval_j_per_item=interval(o.energy_j),
        power_w=o.mean_w.value,
        provisioned_w=o.provisioned_w.value,
        quality="not checked" if o.dtype != "fp32" else UNSET,
        capex_usd=_value(o.capex_usd),
        interval_capex_usd=_interval(o.capex_usd),
        tco_usd_per_year=_value(o.tco_usd_per_year),
        interval_tco_usd_per_year=_interval(o.tco_usd_per_year),
        usd_per_million=_value(o.usd_per_million_owned),
        interval_usd_per_million=_interval(o.usd_per_million_owned),
        usd_per_million_rented=_value(o.usd_per_million_rented),
        interval_usd_per_million_rented=_interval(o.usd_per_million_rented),
        gco2e_per_million=_value(grams),
        interval_gco2e_per_million=_interval(grams),
        tco_entries_usd_per_year=(
            {e.what: e.amount.value * o.count.value for e in tco.account} if tco else UNSET
        ),
        carbon_entries_gco2e_per_million=(
            {e.what: e.amount.value * 1e3 for e in carbon} if carbon else UNSET
        ),
        price_estimated=True if o.bought and o.bought.estimated else UNSET,
        rank={r: ranks[o.chip.name] for r, ranks in plan.ranks.items() if o.chip.name in ranks},
    )


def _value(e: Estimate | None) -> Maybe[float]:
    return e.value if e is not None else UNSET


def _interval(e: Estimate | None) -> Maybe[Interval]:
    return interval(e) if e is not None else UNSET


def plan_document(
    plan: Plan,
    grown: Mapping[str, Growth],
    mixed: Sequence[Mixed],
    left: Sequence[LeftOut],
    *,
    sources: bool,
) -> PlanDocument:
    ask, closest = plan.ask, plan.closest if not plan.options else None
    return PlanDocument(
        demands=[
            DemandPart(tenant=d.tenant, model=d.name, slo_s=d.slo_s, rate_per_s=d.rate_per_s)
            for d in ask.demands
        ],
        options=[option_part(plan, o) for o in plan.options],
        rejected=[
            RejectedPart(chip=r.chip, reason=r.reason, certain=r.certain) for r in plan.rejected
        ],
        differences=differences(plan),
        region=real(ask.region),
        left_out_of_the_file=real(list(ask.left_out)),
        headroom=real(
            {
                n: GrowthPart(memory_years=g.memory_years, latency_years=g.latency_years)
                for n, g in grown.items()
            }
        ),
        mixes=real(
            [
                MixPart(year=m.year, shares=dict(m.shares), speed=dict(m.speed), source=m.source)
                for m in mixed
            ]
        ),
        left_out=real(
            [
                LeftOutPart(demand=x.demand, chosen=x.chosen, best=x.best_for_it, loss=x.loss)
                for x in left
            ]
        ),
        closest=(
            ClosestPart(chip=closest.chip, slos_for_one_item=some(closest.short_by))
            if closest
            else UNSET
        ),
        sources=source_lines(plan) if sources else UNSET,
    )


def plan_page(plan: Plan, headroom: Sequence[str]) -> str:
    """The plan as one HTML page without scripts. Dollars are drawn of those that can be bought, of
    rented chips only where none can.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    asked = "; ".join(
        f"{d.name}: {_short(d.rate_per_s)}/s within {show(d.slo_s, 's')} ({d.tenant})"
        for d in plan.ask.demands
    )
    environment = Environment(loader=PackageLoader("tenfold.report"), autoescape=True)
    drawn = (
        (True, f"p99 and dollars for a million items, {_dollars(plan)}", "$"),
        (False, "p99 and grams of CO2e for a million items", "gCO2e"),
    )
    charts = [pareto_svg(_points(plan, money=m), title, unit) for m, title, unit in drawn]
    entries = [
        (o.chip.name, [(e.what, _number(e.amount * o.count.value)) for e in o.tco.account])
        for o in plan.options
        if o.tco
    ]
    return environment.get_template("plan.html").render(
        title="Plan: " + ", ".join(dict.fromkeys(d.name for d in plan.ask.demands)),
        subtitle=", ".join(x for x in (asked, plan.ask.region) if x),
        columns=COLUMNS,
        rows=plan_rows(plan),
        charts=[Markup(c) for c in charts if c],
        headroom=headroom,
        differences=[*demand_lines(plan), *differences(plan)],
        rejected=rejected_lines(plan),
        notes=notes(plan),
        entries=entries,
    )


def _dollars(plan: Plan) -> str:
    return "owned" if any(o.tco for o in plan.options) else "rented"


def _points(plan: Plan, *, money: bool) -> list[tuple[str, Estimate, Estimate]]:
    found = []
    for o in plan.options:
        dollars = o.usd_per_million_owned if _dollars(plan) == "owned" else o.usd_per_million_rented
        y = dollars if money else (o.kgco2e * 1e3 if o.kgco2e else None)
        if y is not None:
            found.append((o.chip.name, o.p99_s, y))
    return found
