"""The front door: a model, an SLO, a rate, a region."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tenfold.chips import chip as chip_named
from tenfold.chips import names
from tenfold.errors import InputError
from tenfold.model import Sizes, load, roles
from tenfold.planner.plan import answer
from tenfold.planner.record import Ask, Demand, Plan
from tenfold.scenario import Closed, Models, Scenario
from tenfold.scenario.read import DEFAULT_SPREAD
from tenfold.serving import Poisson, ServerSchedule

ANY = Sizes()


def plan(
    model: str | Path,
    *,
    slo_s: float,
    rate_per_s: float,
    region: str | None = None,
    chips: Sequence[str] = (),
    sizes: Sizes = ANY,
    dtype: str | None = None,
    air_only: bool = False,
) -> Plan:
    """Which chip, which batch, how many, at what cost, for ``rate_per_s`` items of ``model``, 99 of
    100 within ``slo_s``.

    Without ``chips`` the whole catalogue is looked at, and the most promising compiled for. Raises
    InputError for what cannot be; a plan without options is an answer.
    """
    ask = ask_one(
        model,
        slo_s=slo_s,
        rate_per_s=rate_per_s,
        region=region,
        sizes=sizes,
        dtype=dtype,
        air_only=air_only,
    )
    return planned(ask, chips)


def planned(
    ask: Ask, chips: Sequence[str], advance: Callable[[str], None] = lambda _what: None
) -> Plan:
    """The plan for ``ask`` over ``chips`` by name, or over the whole catalogue where none is
    named.
    """
    records = [chip_named(n) for n in dict.fromkeys(chips) or [n for n in names() if n != "host"]]
    return answer(ask, records, named=bool(chips), advance=advance)


def ask_one(
    model: str | Path,
    *,
    slo_s: float,
    rate_per_s: float,
    region: str | None = None,
    sizes: Sizes = ANY,
    dtype: str | None = None,
    air_only: bool = False,
    phase: str | None = None,
) -> Ask:
    """The question for one model of one tenant."""
    graph = load(model, phase)
    batch = next((n for n, _ in sizes.named if roles(graph).get(n) == "batch"), None)
    if batch is not None:
        raise InputError(f"'{batch}' is the batch, which the plan itself chooses: leave it out")
    name = Path(model).stem if Path(model).suffix == ".onnx" else graph.name
    return Ask(
        (Demand("all", name, Models(graph, sizes), slo_s, rate_per_s),), region, air_only, dtype
    )


def ask_mix(
    scenario: Scenario,
    *,
    region: str | None = None,
    dtype: str | None = None,
    air_only: bool = False,
) -> Ask:
    """The question for all streams of a scenario, by their mean rates, versions by their shares,
    dtypes as given.

    Its chip, workers and policy are not asked about; what else of it is left out is in the answer.
    Raises InputError for a model with given times instead of a network, or a closed loop, which has
    no rate.
    """
    specs = {m.name: m for m in scenario.models}
    models: dict[str, Models] = {}
    demands: list[Demand] = []
    for t in scenario.tenants:
        for s in t.streams:
            if isinstance(s.arrivals, Closed):
                raise InputError(
                    f"a plan needs rates, and tenant '{t.name}' is a closed loop: give it arrivals"
                    " with a rate"
                )
            live = [v for v in scenario.routes.get(s.model, ()) if not v.shadow and v.share > 0]
            whole = sum(v.share for v in live) or 1.0
            for name, share in [(v.model, v.share / whole) for v in live] or [(s.model, 1.0)]:
                spec = specs[name]
                if not spec.network:
                    raise InputError(
                        f"a plan compiles networks, and model '{name}' has given times instead:"
                        " name a network"
                    )
                if name not in models:
                    models[name] = Models(load(spec.network), Sizes(1, spec.seq))
                rate = s.arrivals.rate_per_s * share
                demands.append(
                    Demand(
                        tenant=t.name,
                        name=name,
                        models=models[name],
                        slo_s=s.slo_s,
                        rate_per_s=rate,
                        weight=t.weight,
                        dtype=spec.dtype,
                    )
                )
    return Ask(tuple(demands), region, air_only, dtype, left_out=_left_out(scenario))


def _left_out(scenario: Scenario) -> tuple[str, ...]:
    streams = [s for t in scenario.tenants for s in t.streams]
    uneven = any(not isinstance(s.arrivals, Poisson | ServerSchedule) for s in streams)
    shadows = any(v.shadow for versions in scenario.routes.values() for v in versions)
    found = {
        "bursts, days and traces (mean rates are taken)": uneven,
        "priorities": any(s.priority for s in streams),
        "the memory budget": scenario.memory_bytes is not None,
        "spreads": any(m.spread != DEFAULT_SPREAD for m in scenario.models),
        "shadow copies": shadows,
    }
    return tuple(what for what, there in found.items() if there)
