"""The analytic guess: which chips cannot do it, and which are worth compiling for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tenfold.carbon import assumption, system_share
from tenfold.chips import Chip, MatrixPrecision
from tenfold.errors import InputError, MissingFigure, ModelError, UnsupportedDType
from tenfold.estimate import Estimate
from tenfold.ir import active_parameters, graph_totals
from tenfold.ir.cost import lookup_axis
from tenfold.ir.dims import prod
from tenfold.planner.record import Ask, Demand, Rejected
from tenfold.planner.together import groups, most_together
from tenfold.scenario import served
from tenfold.serving import high_factor

SHORTLIST = 8  # compiled for at one item
FINALISTS = 5  # of those, at all batches
EFFICIENCY = 0.5  # of the roof, for the guess only
# TPU v3 at 450 W needed liquid; 75, 280 and 175 W did not (Jouppi et al., ISCA 2021, lesson 5)
LIQUID_W = 450.0
LAUNCH_S = 100e-6
BEHIND = (
    "not compiled for: a guess at half of its roofs puts others before it (name it with --chip to"
    " see)"
)
BEHIND_AT_ONE = (
    "not compiled for in full: at one item others come before it (name it with --chip to see)"
)
UNKNOWN_W = 300.0  # a chip whose power nobody published, for the guess only


@dataclass(frozen=True, slots=True)
class ItemWork:
    """What one item of a demand asks of any chip: arithmetic, parameters to keep, and those that
    multiply (no looked-up tables).
    """

    flops: float
    parameters: float
    multiplied: float


def work_of(demand: Demand) -> ItemWork:
    graph = demand.models.at(1).graph
    users = Counter(n for op in graph.walk() for n in op.inputs)
    looked_up = {
        op.inputs[0]
        for op in graph.ops
        if lookup_axis(graph, op) is not None and users[op.inputs[0]] == 1
    }
    tables = sum(int(prod(graph.values[n].dims)) for n in looked_up if n in graph.constants)
    return ItemWork(
        graph_totals(graph).flops, graph.parameters, max(active_parameters(graph) - tables, 0)
    )


@dataclass(frozen=True, slots=True)
class Guess:
    """A chip by its roofs: dollars and watts for as many as are needed (dollars infinite where
    there is no price); ``together`` of them hold the models.
    """

    chip: Chip
    owned: float
    rented: float
    watts: float
    together: int = 1


def refuse_cooling(chip: Chip) -> str | None:
    """Why an air-cooled site cannot hold ``chip``; None where it can."""
    if chip.cooling == "air":
        return None
    if chip.cooling == "liquid":
        return "needs liquid cooling, and the site has air only"
    if chip.tdp_w is None:
        return "nobody published its power, so that an air-cooled site cannot be shown to hold it"
    if chip.tdp_w >= LIQUID_W:
        return (
            f"{chip.tdp_w:g} W are more than an air-cooled site holds: TPU v3 needed liquid at"
            f" {LIQUID_W:g} W"
        )
    return None


def screen(
    ask: Ask, chips: Sequence[Chip], works: Sequence[ItemWork], *, named: bool
) -> tuple[list[Chip], list[Rejected]]:
    """The chips to compile for, and the others with their reasons.

    Certain reasons come first: cooling, dtype, memory, a roofline above the SLO. Of the rest, if
    they were not ``named`` by the user, those that a guess at half of the roofs puts among the
    first by cost of owning, rent or power are compiled for one item, and with what that takes the
    best of them go on.
    """
    rejected: list[Rejected] = []
    guesses: list[Guess] = []
    for chip in chips:
        found = _judge(ask, chip, works)
        if isinstance(found, Rejected):
            rejected.append(found)
        else:
            guesses.append(found)
    if named or len(guesses) <= FINALISTS:
        return [g.chip for g in guesses], rejected
    kept = _first(guesses, SHORTLIST)
    rejected += [
        Rejected(g.chip.name, BEHIND, certain=False) for g in guesses if g.chip.name not in kept
    ]
    refined: list[Guess] = []
    for guess in guesses:
        if guess.chip.name in kept:
            again = _refined(ask, guess, works)
            if isinstance(again, Rejected):
                rejected.append(again)
            else:
                refined.append(again)
    last = _first(refined, FINALISTS)
    rejected += [
        Rejected(g.chip.name, BEHIND_AT_ONE, certain=False)
        for g in refined
        if g.chip.name not in last
    ]
    return [g.chip for g in refined if g.chip.name in last], rejected


def held_bytes(ask: Ask, chip: Chip, works: Sequence[ItemWork]) -> float:
    """Weights of all models, each once. Raises UnsupportedDType."""
    held = {
        id(d.models): w.parameters * chip.storage(d.dtype or ask.dtype).bits / 8
        for d, w in zip(ask.demands, works, strict=True)
    }
    return sum(held.values())


def one_item(ask: Ask, chip: Chip, works: Sequence[ItemWork]) -> int | Rejected:
    """The fewest chips that hold the models and answer one item of each demand in time, compiled;
    or why there are none. Where one chip holds them, it is one.
    """
    found: int | Rejected = Rejected(chip.name, "does not fit")
    try:
        tried = tuple(groups(chip, held_bytes(ask, chip, works)))
    except UnsupportedDType as error:
        return Rejected(chip.name, str(error))
    for together in tried:
        late = _late(ask, chip, together)
        if late is None:
            return together
        found = late
        if together == 1 and late.short_by is not None:
            break
    return found


def _late(ask: Ask, chip: Chip, together: int) -> Rejected | None:
    """Why one item of some demand, compiled, takes longer than its SLO; None where none does."""
    worst: Rejected | None = None
    for d in ask.demands:
        try:
            real = served(
                chip, 1, d.models.run(chip, d.dtype or ask.dtype, 1, together).time_s
            ).value * high_factor(ask.spread)
        except (UnsupportedDType, MissingFigure, ModelError, InputError) as error:
            return Rejected(chip.name, str(error))
        if real > d.slo_s and (worst is None or real / d.slo_s > (worst.short_by or 0.0)):
            why = (
                f"cannot meet {d.slo_s * 1e3:.4g} ms: one item of {d.name} alone takes"
                f" {real * 1e3:.4g} ms at p99{f' on {together} together' if together > 1 else ''}"
            )
            worst = Rejected(chip.name, why, short_by=real / d.slo_s)
    return worst


def _refined(ask: Ask, guess: Guess, works: Sequence[ItemWork]) -> Guess | Rejected:
    """The guess corrected by how much longer than its guess one item really takes, compiled."""
    chip, busy = guess.chip, 0.0
    together = one_item(ask, chip, works)
    if isinstance(together, Rejected):
        return together
    for d, work in zip(ask.demands, works, strict=True):
        dtype = d.dtype or ask.dtype
        real = d.models.run(chip, dtype, 1, together).time_s.value
        precision = chip.storage(dtype)
        roof = roof_s(chip, precision, work, 1) / together
        slower = real / (roof / EFFICIENCY + LAUNCH_S)
        guessed = _seconds_an_item(chip, precision, work, d.slo_s, together)
        each = Estimate.exact(guessed * max(slower, 1.0))
        busy += d.rate_per_s * served(chip, 1, each).value
    return _priced(ask, chip, busy, together)


def _first(guesses: Sequence[Guess], most: int) -> set[str]:
    """In turn the next best by each measure, until there are enough."""
    measures: tuple[Callable[[Guess], float], ...] = (
        lambda g: g.owned,
        lambda g: g.rented,
        lambda g: g.watts,
    )
    orders = [
        iter(sorted((g for g in guesses if math.isfinite(key(g))), key=key)) for key in measures
    ]
    kept: dict[str, None] = {}
    while orders and len(kept) < most:
        for order in list(orders):
            found = next((g for g in order if g.chip.name not in kept), None)
            if found is None:
                orders.remove(order)
            elif len(kept) < most:
                kept[found.chip.name] = None
    return set(kept)


def _judge(ask: Ask, chip: Chip, works: Sequence[ItemWork]) -> Guess | Rejected:
    if not chip.modelled:
        return Rejected(chip.name, "listed without a machine model")
    if ask.conditions.air_only and (why := refuse_cooling(chip)):
        return Rejected(chip.name, why)
    try:
        precisions = [chip.storage(d.dtype or ask.dtype) for d in ask.demands]
    except UnsupportedDType as error:
        return Rejected(chip.name, f"lacks the dtype: {error}")
    weights = held_bytes(ask, chip, works)
    able = tuple(groups(chip, weights))
    if not able:
        # more than a box, or beyond a part of a torus, is not tried
        return Rejected(chip.name, _too_large(chip, weights), certain=most_together(chip) == 1)
    together, most, busy = able[0], able[-1], 0.0
    for demand, work, precision in zip(ask.demands, works, precisions, strict=True):
        least = work.flops / chip.peak_flops[precision] / most
        if least > demand.slo_s:
            why = (
                f"cannot meet {demand.slo_s * 1e3:.4g} ms: one item of {demand.name} takes"
                f" {least * 1e3:.4g} ms even at its peak"
            )
            return Rejected(chip.name, why, short_by=least / demand.slo_s, at_peak=True)
        each = _seconds_an_item(chip, precision, work, demand.slo_s, together)
        busy += demand.rate_per_s * each
    return _priced(ask, chip, busy, together)


def _too_large(chip: Chip, weights: float) -> str:
    assert chip.memory_bytes is not None
    said = (
        f"does not fit: weights take {weights / 1e9:.3g} GB, memory"
        f" {chip.memory_bytes / 1e9:.3g} GB"
    )
    most = most_together(chip)
    if most == 1:
        return f"{said}, and nothing is known of how it is joined to others"
    return (
        f"{said}, of {most} together {most * chip.memory_bytes / 1e9:.3g} GB; more than"
        f" {most} are not tried (tenfold profile --layout)"
    )


def roof_s(chip: Chip, precision: MatrixPrecision, work: ItemWork, batch: int) -> float:
    """About the least time of a batch: its arithmetic at the peak, or its weights at the bandwidth
    (Williams, Waterman, Patterson 2009).
    """
    compute = batch * work.flops / chip.peak_flops[precision]
    held = work.multiplied * precision.bits / 8
    return max(
        compute,
        (
            held / chip.memory_bytes_per_s
            if chip.memory_bytes_per_s and held > chip.sram_bytes
            else 0.0
        ),
    )


def _seconds_an_item(
    chip: Chip, precision: MatrixPrecision, work: ItemWork, slo_s: float, together: int
) -> float:
    best = math.inf
    batch = 1
    while batch <= 1024:
        time = roof_s(chip, precision, work, batch) / together / EFFICIENCY + LAUNCH_S
        if batch > 1 and 2 * time > slo_s:
            break
        best = min(best, time / batch)
        batch *= 2
    return best


def _priced(ask: Ask, chip: Chip, busy: float, together: int) -> Guess:
    """Money for whole chips, watts for the busy ones and a third for the idle."""
    working = max(1, math.ceil(busy))
    count = (working + ask.conditions.spare.of(working)) * together
    busy *= together
    bought = ask.conditions.prices.purchase(chip.sold_as)
    rented = ask.conditions.prices.rented(
        chip.sold_as, count, ask.region, ask.conditions.terms, together
    )
    watts = (
        (busy + (count - busy) / 3)
        * (chip.tdp_w or UNKNOWN_W)
        * system_share(chip).value
        * assumption("pue").value
    )
    # about 3 dollars a watt over three years
    owned = count * bought.usd.value + watts * 3 if bought else math.inf
    return Guess(chip, owned, rented.usd_per_s if rented else math.inf, watts, together)
