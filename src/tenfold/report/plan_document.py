"""The document and the page of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.economics import Rented
from tenfold.estimate import Estimate
from tenfold.planner import Growth, LeftOut, Measure, Mixed, Option, Plan, differences
from tenfold.report.document import interval, real
from tenfold.report.documents.part import Interval, Maybe, some
from tenfold.report.documents.plan import (
    ClosestPart,
    DemandPart,
    GrowthPart,
    LeftOutPart,
    LetPart,
    MixPart,
    OptionPart,
    PlanDocument,
    RejectedPart,
)
from tenfold.report.numbers import ranged, short
from tenfold.report.plan import (
    SPEED,
    answer_line,
    assumed_lines,
    demand_lines,
    how_lines,
    money_rows,
    notes,
    oldest_price,
    plan_rows,
    rejected_lines,
    source_lines,
    speed_rows,
)
from tenfold.report.svg import Point, pareto_svg
from tenfold.units import show


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
        together=o.together,
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
        rank={
            by.value: ranks[o.chip.name] for by, ranks in plan.ranks.items() if o.chip.name in ranks
        },
        way=some(o.way.value if o.way else None),
        limited_by=real(o.limited_by),
        usd_per_month=_value(o.usd_per_month),
        interval_usd_per_month=_interval(o.usd_per_month),
        rent_usd_per_month=_value(o.rent_usd_per_month),
        interval_rent_usd_per_month=_interval(o.rent_usd_per_month),
        kgco2e_per_month=_value(o.kgco2e_per_month),
        interval_kgco2e_per_month=_interval(o.kgco2e_per_month),
        rented=_lets(o.rented) if o.rented else UNSET,
    )


def _lets(rented: Rented) -> Sequence[LetPart]:
    return [
        LetPart(
            provider=x.offer.provider,
            instance=real(x.offer.instance),
            region=x.offer.region,
            terms=x.offer.terms.value,
            count=x.count,
            chips=x.offer.chips,
            usd_per_hour=x.offer.usd_per_s * 3600,
            date=x.offer.date,
        )
        for x in rented.lets
    ]


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
        answer=answer_line(plan),
        ranked_by=ask.conditions.by.value if ask.conditions.by else "money",
        not_told_apart=[o.chip.name for o in plan.as_good],
        assumed=[*how_lines(plan), *assumed_lines(plan)],
        oldest_price=real(oldest_price(plan)),
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
    """The plan as one HTML page without scripts: the answer, one chart of what it is ranked by, the
    options, and why not the others.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    asked = "; ".join(
        f"{d.name}: {short(d.rate_per_s)}/s within {show(d.slo_s, 's')} ({d.tenant})"
        for d in plan.ask.demands
    )
    environment = Environment(loader=PackageLoader("tenfold.report"), autoescape=True)
    chart = chart_of(plan)
    entries = [
        (o.chip.name, [(e.what, ranged(e.amount * o.count.value)) for e in o.tco.account])
        for o in plan.options
        if o.tco
    ]
    tables = [plan_rows(plan), (SPEED, speed_rows(plan)), money_rows(plan)]
    return environment.get_template("plan.html").render(
        title="Plan: " + ", ".join(dict.fromkeys(d.name for d in plan.ask.demands)),
        subtitle=", ".join(x for x in (asked, plan.ask.region) if x),
        answer=answer_line(plan),
        how=how_lines(plan),
        assumed=assumed_lines(plan),
        tables=[t for t in tables if len(t[0]) > 1] if plan.options else [],
        charts=[Markup(chart)] if chart else [],
        headroom=headroom,
        differences=[*demand_lines(plan), *differences(plan)],
        rejected=rejected_lines(plan),
        notes=notes(plan),
        entries=entries,
    )


_UNIT = {
    None: ("$ a month", "$"),
    Measure.RENT: ("rent, $ a month", "$"),
    Measure.TCO: ("total cost of ownership, $ a year", "$"),
    Measure.CAPEX: ("purchase price, $", "$"),
    Measure.CARBON: ("kgCO2e a month", "kgCO2e"),
    Measure.ENERGY: ("kWh a month", "kWh"),
}


def chart_of(plan: Plan) -> str:
    """p99 against what the plan is ranked by, every option that has it; "" where none has."""
    by = plan.ask.conditions.by
    points = [
        Point(o.chip.name, o.p99_s, amount)
        for o in plan.options
        if (amount := o.amount(by)) is not None
    ]
    title, unit = _UNIT[by]
    slos = {d.slo_s for d in plan.ask.demands[:1]}
    return pareto_svg(points, f"p99 and {title}", unit, min(slos))
