"""Which chip, which batch, how many: the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tenfold.carbon import J_PER_KWH, assumption, footprint, region_named, system_share
from tenfold.chips import Chip, MatrixPrecision
from tenfold.economics import Rented, idle_power, ownership, tco
from tenfold.errors import (
    InputError,
    MissingFigure,
    ModelError,
    UnknownName,
    UnsupportedDType,
)
from tenfold.estimate import Estimate
from tenfold.facts import Account
from tenfold.planner.capacity import (
    IN_TIME,
    SEARCH_REQUESTS,
    Bounded,
    Load,
    beside,
    largest_useful,
    limit,
    load,
    p99_of,
    p99s,
)
from tenfold.planner.record import Ask, Count, Measure, Option, Plan, Rejected
from tenfold.planner.screen import ItemWork, held_bytes, one_item, screen, work_of
from tenfold.planner.together import groups
from tenfold.scenario import LARGEST_BATCH, Service, batches, service
from tenfold.serving import high_factor

Advance = Callable[[str], None]
NEARLY_IDLE = (
    "cannot meet 99 of 100 in time unless it is idle nearly always: one item takes too much of"
    " the SLO"
)
NEAREST = 5  # of the chips that cannot, compiled for one item to say what they really take
FASTEST_PER_S = 1e12  # a hundred items a second for everyone on Earth
MORE = 4  # chips at most beyond what a short run took for enough
# of the SLO: batches that take longer are hardly ever in time, having waited for one like them
ENOUGH = 0.75


def answer(
    ask: Ask, chips: Sequence[Chip], *, named: bool, advance: Advance = lambda _what: None
) -> Plan:
    """The options for ``ask`` among ``chips``, ranked; every chip that is none with its reason.

    ``named`` chips are all compiled for; of a whole catalogue only a few finalists are. Raises
    InputError for an SLO or rate that is not above 0, tenants with one name and two weights, and
    UnknownName for a region.
    """
    _check(ask)
    works: list[ItemWork] = [work_of(d) for d in ask.demands]
    finalists, rejected = screen(ask, chips, works, named=named)
    options: list[Option] = []

    def compile_for(chosen: Sequence[Chip]) -> None:
        for chip in chosen:
            found = _option(ask, chip, works)
            if isinstance(found, Option):
                options.append(found)
            else:
                rejected.append(found)
            advance(chip.name)

    compile_for(finalists)
    if not options:  # no chip may be called unable by a guess
        behind = {r.chip for r in rejected if not r.certain}
        rejected = [r for r in rejected if r.certain]
        compile_for([c for c in chips if c.name in behind])
    if not options:
        rejected = _really(ask, chips, works, rejected)
    ranks = _ranks(options)
    options.sort(key=lambda o: _order(o, ask.conditions.by))
    return Plan(ask, tuple(options), tuple(rejected), ranks)


def _really(
    ask: Ask, chips: Sequence[Chip], works: Sequence[ItemWork], rejected: Sequence[Rejected]
) -> list[Rejected]:
    """The nearest of those that cannot even at their peak, with what one item really takes: the
    least possible is asked for next.
    """
    records = {c.name: c for c in chips}
    near = sorted((r for r in rejected if r.at_peak), key=lambda r: r.short_by or math.inf)[
        :NEAREST
    ]
    found = {r.chip: one_item(ask, records[r.chip], works) for r in near}
    tried = ((r, found.get(r.chip)) for r in rejected)
    return [late if isinstance(late, Rejected) else r for r, late in tried]


def _check(ask: Ask) -> None:
    known = [p.value for p in MatrixPrecision]
    for dtype in (ask.dtype, *(d.dtype for d in ask.demands)):
        if dtype is not None and dtype not in known:
            raise UnknownName("dtype", dtype, known)
    weights: dict[str, float] = {}
    for d in ask.demands:
        if weights.setdefault(d.tenant, d.weight) != d.weight:
            raise InputError(
                f"tenant '{d.tenant}' has two weights, {weights[d.tenant]:g} and {d.weight:g}: give"
                " it one"
            )
        if not (d.slo_s > 0 and math.isfinite(d.slo_s)):
            raise InputError(f"an SLO must be above 0, got {d.slo_s * 1e3:g} ms for {d.name}")
        if not (d.rate_per_s > 0 and math.isfinite(d.rate_per_s)):
            raise InputError(f"a rate must be above 0, got {d.rate_per_s:g} a second for {d.name}")
        if d.rate_per_s > FASTEST_PER_S:
            raise InputError(
                f"a rate of {d.rate_per_s:g} a second for {d.name} is beyond any service (at most"
                f" {FASTEST_PER_S:g})"
            )
    if ask.region is not None:
        region_named(ask.region)


def _order(option: Option, by: Measure | None) -> tuple[float, ...]:
    """What options are sorted by: what was asked for; those that lack it follow by the money of the
    cheapest way to get them, those that nobody can get by carbon, or by energy.
    """
    asked, money = option.amount(by), option.usd_per_month
    rest = option.kgco2e or option.energy_j
    return (
        asked.value if asked else math.inf,
        money.value if money else math.inf,
        rest.value,
    )


def _ranks(options: Sequence[Option]) -> dict[Measure, dict[str, int]]:
    """Places by each measure, from 1; a chip without a price has none by money."""
    found: dict[Measure, dict[str, int]] = {}
    for by in Measure:
        amounts = {o.chip.name: o.amount(by) for o in options}
        known = {n: a.value for n, a in amounts.items() if a is not None}
        found[by] = {n: i + 1 for i, n in enumerate(sorted(known, key=lambda n: known[n]))}
    return found


def _option(ask: Ask, chip: Chip, works: Sequence[ItemWork]) -> Option | Rejected:
    """With the fewest chips that hold the models and answer the demands in time."""
    fewest = one_item(ask, chip, works)
    if isinstance(fewest, Rejected):
        return fewest
    tried = [n for n in groups(chip, held_bytes(ask, chip, works)) if n >= fewest]
    for together in tried:
        found = _with(ask, chip, together)
        if isinstance(found, Option) or together == 1:
            break
    return found


def _with(ask: Ask, chip: Chip, together: int) -> Option | Rejected:
    """With so many chips that share every layer."""
    found: dict[tuple[int, str | None], Service] = {}
    for d in ask.demands:
        key = id(d.models), d.dtype or ask.dtype
        slo_s = max(x.slo_s for x in ask.demands if x.models is d.models)
        if key in found:
            continue
        try:
            within = slo_s / high_factor(ask.spread) * ENOUGH
            found[key] = service(
                d.models,
                chip,
                key[1],
                within_s=within,
                sizes=batches(LARGEST_BATCH),
                together=together,
            )
        except (UnsupportedDType, MissingFigure, ModelError, InputError) as error:
            return Rejected(chip.name, str(error))
    services = [found[id(d.models), d.dtype or ask.dtype] for d in ask.demands]
    for d, s in zip(ask.demands, services, strict=True):
        if not largest_useful(s, d.slo_s, ask.spread):
            least = s.times_s[1].value * high_factor(ask.spread)
            why = (
                f"cannot meet {d.slo_s * 1e3:.4g} ms: one item of {d.name} alone takes"
                f" {least * 1e3:.4g} ms at p99"
            )
            return Rejected(chip.name, why, short_by=least / d.slo_s)
    need = needed_bytes(ask, services)
    if chip.memory_bytes and need > chip.memory_bytes:
        return Rejected(
            chip.name,
            f"does not fit: all models take {need / 1e9:.3g} GB, memory"
            f" {chip.memory_bytes / 1e9:.3g} GB",
        )
    most = limit(ask, services)
    if most is None:
        return Rejected(chip.name, NEARLY_IDLE, short_by=1.0)
    return _sized(ask, chip, services, most)


def needed_bytes(ask: Ask, services: Sequence[Service]) -> float:
    """Memory for all models, each once, at the largest batch that is useful to any of its
    demands.
    """
    found: dict[int, float] = {}
    for d, s in zip(ask.demands, services, strict=True):
        need = s.runs[largest_useful(s, d.slo_s, ask.spread)].memory_bytes
        found[id(s)] = max(found.get(id(s), 0.0), need)
    return sum(found.values())


def _sized(ask: Ask, chip: Chip, services: Sequence[Service], most: Load) -> Option:
    bound = beside(ask, chip, services)
    limited = bound if bound is not None and bound.share < most.share else None
    share_held = limited.share if limited else most.share
    working = max(1, math.ceil(1 / (share_held * ask.conditions.prices.utilisation) - 1e-9))
    failed = load(ask, services, 1 / working)
    for _ in range(MORE):  # the limit comes from a short run: the count must hold in a longer one
        if failed.in_time >= IN_TIME:
            break
        working += 1
        failed = load(ask, services, 1 / working)
    spare = ask.conditions.spare.of(working)
    total = working + spare
    usual = load(ask, services, 1 / total) if spare else failed
    low = load(ask, services, 1 / total, "low", SEARCH_REQUESTS)
    high = load(ask, services, 1 / total, "high", SEARCH_REQUESTS)
    first = ask.demands[0]
    batch = largest_useful(services[0], first.slo_s, ask.spread)
    p99 = p99_of(ask, usual.result, 0)
    time = services[0].times_s[1]
    high_p99 = p99_of(ask, high.result, 0)
    # where the count would not do at the upper end, the policy refuses some: what is refused is
    # over the SLO
    upper = high_p99 if high.in_time >= IN_TIME else max(p99 * time.high / time.value, first.slo_s)
    p99_s = Estimate(p99, min(p99_of(ask, low.result, 0), p99), max(upper, p99))
    together = services[0].together
    energy_j, mean_w, peak_w = _power(chip, services, usual, batch)
    share = system_share(chip)
    bought = ask.conditions.prices.purchase(chip.sold_as)
    count = _count(ask, services, working, limited)
    published = chip.figures.get("system_power")
    provisioned = Estimate.exact(published.value) if published else peak_w * share
    owned = (
        tco(bought, provisioned, mean_w * share, _pue(ask), ask.conditions.prices.figures)
        if bought
        else None
    )
    held = total * together
    prices, terms = ask.conditions.prices, ask.conditions.terms
    rented = prices.rented(chip.sold_as, held, ask.region, terms, together)
    return Option(
        chip=chip,
        services=tuple(services),
        dtype=services[0].dtype,
        batch=batch,
        mean_batch=usual.result.total.mean_batch,
        count=count,
        p99_s=p99_s,
        p99_failed_s=p99_of(ask, failed.result, 0),
        p99s_s=p99s(usual.result),
        p99s_failed_s=p99s(failed.result),
        in_time=usual.in_time,
        in_time_failed=failed.in_time,
        goodput_per_s=usual.result.total.goodput_per_s * total,
        limit_per_s=share_held * ask.rate_per_s,
        limited_by=f"{limited.by}: {limited.amount.value:,.0f} a second" if limited else "",
        utilisation=usual.result.utilisation,
        energy_j=energy_j,
        mean_w=mean_w,
        provisioned_w=provisioned,
        bought=bought,
        tco=owned,
        rented=rented,
        rented_usd_per_s=_rent(ask, chip, count, rented, together) if rented else None,
        kwh=_kwh(ask, chip, mean_w, held),
        carbon=_carbon(ask, chip, mean_w, held),
        rate_per_s=ask.rate_per_s,
        together=together,
    )


def _count(ask: Ask, services: Sequence[Service], working: int, limited: Bounded | None) -> Count:
    """Chips at both ends of the times' intervals: what a chip can answer goes as one over its time;
    at the upper end one item must still be in time. Where something beside the chip limits it, the
    ends are those of that.
    """
    ratios = [
        s.times_s[largest_useful(s, d.slo_s, ask.spread)]
        for s, d in zip(services, ask.demands, strict=True)
    ]
    down = min(t.low / t.value for t in ratios)
    up = max(t.high / t.value for t in ratios)
    if limited is not None:
        down = limited.amount.value / limited.amount.high
        up = limited.amount.value / limited.amount.low
    factor = high_factor(ask.spread)
    possible = all(
        s.times_s[1].high * factor <= d.slo_s for s, d in zip(services, ask.demands, strict=True)
    )
    low = max(1, math.floor(working * down + 1e-9))
    high = math.ceil(working * up - 1e-9)
    each = services[0].together
    return Count(
        value=(working + ask.conditions.spare.of(working)) * each,
        low=(low + ask.conditions.spare.of(low)) * each,
        high=(high + ask.conditions.spare.of(high)) * each if possible else None,
        spare=ask.conditions.spare.of(working) * each,
    )


def _rent(ask: Ask, chip: Chip, count: Count, rented: Rented, box: int) -> Estimate:
    """Dollars a second for the count, and for the counts at its ends."""

    def usd_per_s(n: float) -> float:
        prices, terms = ask.conditions.prices, ask.conditions.terms
        found = prices.rented(chip.sold_as, int(n), ask.region, terms, box)
        assert found is not None, "what is let once is let again"
        return found.usd_per_s

    ends = count.estimate
    return Estimate(
        rented.usd_per_s,
        min(usd_per_s(ends.low), rented.usd_per_s),
        max(usd_per_s(ends.high), rented.usd_per_s),
    )


def _pue(ask: Ask) -> Estimate:
    return ask.conditions.prices.pue or assumption("pue")


def _power(
    chip: Chip, services: Sequence[Service], usual: Load, batch: int
) -> tuple[Estimate, Estimate, Estimate]:
    """Joules an item of all chips that answer it; watts in the mean, idle time at idle power, and
    to provide for, of one. All at the chip.
    """
    run, each = services[0].runs[batch], services[0].together
    low, high = (
        e / run.energy_j.value if run.energy_j.value else 1.0
        for e in (run.energy_j.low, run.energy_j.high)
    )
    span = usual.result.duration_s
    answered = max(usual.result.total.answered, 1)
    busy_w = usual.busy_j / usual.busy_s / each if usual.busy_s else 0.0
    top = max(busy_w, chip.tdp_w or 0.0)
    idle_j = idle_power(chip, top) * (max(span - usual.busy_s, 0.0) * each)
    busy = Estimate(usual.busy_j, usual.busy_j * low, usual.busy_j * high)
    total = busy + idle_j
    peak = (
        Estimate.exact(chip.tdp_w)
        if chip.tdp_w
        else Estimate(busy_w, busy_w * low, busy_w * high) * ownership("tdp_over_busy")
    )
    return total / answered, total / (span * each), peak


def _kwh(ask: Ask, chip: Chip, mean_w: Estimate, total: int) -> Estimate:
    """For a million items, with the host's share and PUE, all chips on."""
    return mean_w * system_share(chip) * _pue(ask) * (total * 1e6 / ask.rate_per_s / J_PER_KWH)


def _carbon(ask: Ask, chip: Chip, mean_w: Estimate, total: int) -> Account | None:
    """kgCO2e for a million items of the whole demand, all chips on."""
    if ask.region is None:
        return None
    joules = mean_w * (total * 1e6 / ask.rate_per_s)
    found = footprint(chip, joules, ask.region, _pue(ask))
    return found.energy.times(found.region.kgco2e_per_j)
