"""A scenario on the simulated clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tenfold.chips import Chip
from tenfold.chips import chip as chip_named
from tenfold.economics import idle_power
from tenfold.errors import InputError
from tenfold.model import Sizes, load
from tenfold.scenario.arrivals import Closed
from tenfold.scenario.read import ModelSpec, Scenario
from tenfold.scenario.service import Models, batches, service
from tenfold.serving import (
    Choice,
    ClosedLoop,
    Known,
    Log,
    Merged,
    Open,
    Policy,
    Result,
    Served,
    Spread,
    Stream,
    Versioned,
    Weights,
    World,
    curve,
    high_factor,
    result_of,
    simulate,
)
from tenfold.serving.record import NEVER
from tenfold.serving.simulated import Listener, Observer, Source

# PCIe 3 x16 after 128b/130b coding: 8 GT/s x 16 lanes / 8 bits x 128 / 130
PCIE3_X16_BYTES_PER_S = 8e9 * 16 / 8 * 128 / 130
ENDLESS = 10_000_000  # requests of a closed loop that only the clock ends


@dataclass(frozen=True, slots=True)
class Ready:
    """A scenario with the times, and for networks the joules, of its models by batch: what every
    policy is given alike.
    """

    scenario: Scenario
    chip: Chip | None
    times_s: Mapping[str, Mapping[int, float]]
    weights: Mapping[str, Weights]
    memory_bytes: float
    energy_j: Mapping[str, Mapping[int, float]]

    def served(self) -> dict[str, Served]:
        """The models as a policy sees them: mean times, and the 99th percentile of their spread."""
        high = {m.name: high_factor(m.spread) for m in self.scenario.models}
        return {n: Served(Known(t, high[n]), self.weights[n]) for n, t in self.times_s.items()}


def ready(scenario: Scenario) -> Ready:
    """``scenario`` with the times of its networks on its chip.

    Raises UnknownName for a chip or network, DoesNotFit, and InputError where an SLO is below what
    one item takes.
    """
    record = chip_named(scenario.chip) if scenario.chip else None
    times: dict[str, Mapping[int, float]] = {}
    weights: dict[str, Weights] = {}
    energy: dict[str, Mapping[int, float]] = {}
    for m in scenario.models:
        size = m.weight_bytes
        if m.times_s:
            times[m.name] = m.times_s
        else:
            if record is None:
                raise InputError(
                    f"{scenario.name}: model '{m.name}' names a network, which needs a chip = '…'"
                    " to run on"
                )
            found = service(
                Models(load(m.network), Sizes(1, m.seq)),
                record,
                m.dtype,
                within_s=NEVER,
                sizes=batches(m.largest),
            )
            times[m.name] = {b: t.value for b, t in found.times_s.items()}
            energy[m.name] = {b: e.value for b, e in found.energy_j.items()}
            size = found.weight_bytes if size is None else size
        weights[m.name] = _weights(m, size or 0.0, record)
    memory = scenario.memory_bytes or (
        record.memory_bytes if record and record.memory_bytes else NEVER
    )
    _check_slos(scenario, times)
    return Ready(scenario, record, times, weights, memory, energy)


def _weights(m: ModelSpec, size: float, record: Chip | None) -> Weights:
    """Bringing weights in takes the link to the host: the chip's where published, else PCIe 3
    x16.
    """
    link = record.figures.get("host.bandwidth") if record else None
    rate = link.value if link else PCIE3_X16_BYTES_PER_S
    return Weights(size, m.load_s if m.load_s is not None else size / rate)


def _check_slos(scenario: Scenario, times: Mapping[str, Mapping[int, float]]) -> None:
    for t in scenario.tenants:
        for s in t.streams:
            for name in [v.model for v in scenario.routes.get(s.model, ()) if not v.shadow] or [
                s.model
            ]:
                least = min(times[name].values())
                if least > s.slo_s:
                    raise InputError(
                        f"tenant '{t.name}' asks for {s.slo_s * 1e3:.4g} ms of '{name}', whose"
                        f" smallest batch takes {least * 1e3:.4g} ms: the least possible SLO is"
                        f" {least * 1e3:.4g} ms"
                    )


def policy_of(given: Ready, choice: Choice) -> Policy:
    """The policy with its knobs, over the scenario's models and versions."""
    scenario = given.scenario
    world = World(
        models=given.served(),
        tenants={t.name: t.weight for t in scenario.tenants},
        workers=scenario.workers,
        budget_bytes=given.memory_bytes,
    )
    inner = choice.spec.build(world, choice)
    return Versioned(inner, scenario.routes) if scenario.routes else inner


def source_of(scenario: Scenario) -> Source:
    """All streams merged, each with its own seed."""
    open_streams, closed = [], []
    number = 0
    for t in scenario.tenants:
        for s in t.streams:
            rng = np.random.default_rng([scenario.seed, number])
            number += 1
            stream = Stream(t.name, s.model, s.slo_s, s.priority)
            if isinstance(s.arrivals, Closed):
                closed.append(
                    ClosedLoop(stream, s.arrivals.clients, s.arrivals.think_s, ENDLESS, rng)
                )
            else:
                open_streams.append((stream, s.arrivals.times_s(scenario.duration_s, rng)))
    return Merged([Open(open_streams), *closed]) if closed else Open(open_streams)


def run(
    given: Ready,
    choice: Choice | None = None,
    *,
    observer: Observer | None = None,
    listener: Listener | None = None,
) -> tuple[Log, Result]:
    """The scenario under a policy (default: its own): everything that happened, and what it came
    to.
    """
    scenario = given.scenario
    policy = policy_of(given, choice or scenario.policy)
    variation = {m.name: m.spread for m in scenario.models}
    service_time = Spread({n: curve(t) for n, t in given.times_s.items()}, variation, scenario.seed)
    closed = any(isinstance(s.arrivals, Closed) for t in scenario.tenants for s in t.streams)
    until = scenario.duration_s if closed else NEVER
    log = simulate(
        policy,
        source_of(scenario),
        service_time,
        workers=scenario.workers,
        until_s=until,
        observer=observer,
        listener=listener,
    )
    return log, result_of(log, scenario.duration_s, scenario.warm_up_s)


def energy_j(given: Ready, log: Log, span_s: float) -> float | None:
    """Joules of the chip over a run: its batches, and idle power between them; None where a model's
    times were given without a chip.
    """
    if given.chip is None or set(given.energy_j) != set(given.times_s):
        return None
    joules = {n: curve(e) for n, e in given.energy_j.items()}
    busy_j = sum(joules[b.start.model][len(b.start.requests)] for b in log.batches)
    busy_s = sum(b.ended_s - b.began_s - b.start.load_s for b in log.batches) / log.workers
    top = max(given.chip.tdp_w or 0.0, busy_j / busy_s if busy_s else 0.0)
    return busy_j + idle_power(given.chip, top).value * max(span_s - busy_s, 0.0)
