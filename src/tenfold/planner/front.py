"""The front door: a model, an SLO, a rate, a region."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tenfold.chips import Chip, names
from tenfold.chips import chip as chip_named
from tenfold.compiler import Options
from tenfold.errors import InputError
from tenfold.machine import Stack, stack_facts
from tenfold.model import Sizes, generates, load, roles
from tenfold.planner.plan import answer
from tenfold.planner.record import Ask, Conditions, Demand, Plan
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
    chips: Sequence[str | Chip] = (),
    sizes: Sizes = ANY,
    dtype: str | None = None,
    conditions: Conditions | None = None,
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
        conditions=conditions,
    )
    return planned(ask, chips)


def planned(
    ask: Ask, chips: Sequence[str | Chip], advance: Callable[[str], None] = lambda _what: None
) -> Plan:
    """The plan for ``ask`` over ``chips``, by name or as records, or over the whole catalogue where
    none is named.
    """
    wanted = dict.fromkeys(chips) or [n for n in names() if n != "host"]
    records = [chip_named(c) if isinstance(c, str) else c for c in wanted]
    return answer(ask, records, named=bool(chips), advance=advance)


def ask_one(
    model: str | Path,
    *,
    slo_s: float,
    rate_per_s: float,
    region: str | None = None,
    sizes: Sizes = ANY,
    dtype: str | None = None,
    phase: str | None = None,
    conditions: Conditions | None = None,
    stack: Stack = Stack.ENGINE,
) -> Ask:  # one parameter more than usual: each is a word of the question
    """The question for one model of one tenant. Raises InputError for the phase decode: a token is
    no request, and an SLO for each is for the serving of language models.
    """
    if phase == "decode":
        raise InputError(
            "a plan is for items that are answered whole, and a token of --phase decode is none:"
            f" plan the prompt (--phase prefill), or see what one chip does with `tenfold profile"
            f" {model} --phase decode --batch 1,8,64`, tokens a second and chip"
        )
    graph = load(model, phase)
    batch = next((n for n, _ in sizes.named if roles(graph).get(n) == "batch"), None)
    if batch is not None:
        raise InputError(f"'{batch}' is the batch, which the plan itself chooses: leave it out")
    name = Path(model).stem if Path(model).suffix == ".onnx" else graph.name
    models = Models(graph, sizes, Options(stack=stack))
    return Ask(
        demands=(Demand("all", name, models, slo_s, rate_per_s),),
        region=region,
        dtype=dtype,
        conditions=conditions or Conditions(),
        assumed=(
            *_assumed(name, models, sizes, phase, generates=generates(model)),
            *_driven(stack),
        ),
    )


def _driven(stack: Stack) -> tuple[str, ...]:
    """What drives GPUs, where it is not what is usual in serving."""
    return () if stack is Stack.ENGINE else (f"On GPUs, {stack}: {stack_facts(stack).does}.",)


def _assumed(
    name: str, models: Models, sizes: Sizes, phase: str | None, *, generates: bool
) -> tuple[str, ...]:
    """What an item is, and which sizes it has; those that the user left open are said to be."""
    bound = models.at(1)
    kinds = roles(models.graph)
    given = {n for n, _ in (*sizes.named, *sizes.values)}
    given |= {n for n, kind in kinds.items() if kind != "batch" and getattr(sizes, kind, None)}
    parts = [
        f"{n} = {size}{'' if n in given else ' (assumed)'}"
        for n, size in bound.sizes.items()
        if kinds.get(n) != "batch"
    ]
    shapes = ", ".join(
        f"{n} [{' x '.join(map(str, bound.graph.values[n].shape or ()))}]"
        for n in bound.graph.inputs[:SHOWN_INPUTS]
    )
    more = len(bound.graph.inputs) - SHOWN_INPUTS
    inputs = shapes + (f" and {more} more" if more > 0 else "")
    item = "one prompt" if phase == "prefill" else "one forward pass"
    said = f"An item of {name} is {item}: {inputs}{'; ' + ', '.join(parts) if parts else ''}."
    if models.fixed > 1:
        said += f" The file fixes the batch at {models.fixed}: fewer items take as long."
    if generates:
        said += " It generates token by token: an item is not an answer of many tokens."
    return (said,)


SHOWN_INPUTS = 3


def ask_mix(
    scenario: Scenario,
    *,
    region: str | None = None,
    dtype: str | None = None,
    conditions: Conditions | None = None,
    stack: Stack = Stack.ENGINE,
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
    assumed: list[str] = []
    for t in scenario.tenants:
        for s in t.streams:
            if isinstance(s.arrivals, Closed):
                raise InputError(
                    f"a plan needs rates, and tenant '{t.name}' is a closed loop: give it arrivals"
                    " with a rate"
                )
            if not math.isfinite(s.arrivals.rate_per_s):
                raise InputError(
                    f"a plan needs rates, and the trace of tenant '{t.name}' comes all at 0 s"
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
                    sizes = Sizes(1, spec.seq)
                    models[name] = Models(load(spec.network), sizes, Options(stack=stack))
                    writes = generates(spec.network)
                    assumed += _assumed(name, models[name], sizes, None, generates=writes)
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
    return Ask(
        demands=tuple(demands),
        region=region,
        dtype=dtype,
        conditions=conditions or Conditions(),
        left_out=_left_out(scenario),
        assumed=(*assumed, *_driven(stack)),
    )


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
