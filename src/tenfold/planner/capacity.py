"""How much of a demand one chip holds within the SLOs: the queue, simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from tenfold.chips import Chip
from tenfold.economics import dispatch
from tenfold.estimate import Estimate
from tenfold.machine import target_of
from tenfold.planner.record import Ask
from tenfold.scenario import Service
from tenfold.serving import (
    Known,
    Open,
    Poisson,
    Result,
    Served,
    SloPolicy,
    Spread,
    Stream,
    curve,
    high_factor,
    result_of,
    simulate,
)

REQUESTS = 5000  # of a run that is reported
SEARCH_REQUESTS = 2500  # of one on the way there
WARM_UP = 0.1  # of the run
NEGLIGIBLE = 0.001  # gain of throughput that a larger batch is not worth
IN_TIME = 0.99
STEPS = 4
WIDE = 1.2  # times what holds: what does not hold is too far for a count
SLOS = 10  # a run lasts so many of the longest SLO, within reason
FEWEST = 100  # requests of each demand in a run, if they take
EXTRA = 0.02  # of the chip at most more than was asked for
LEAST_BUSY = 0.02  # what is tried down to, and what was asked for if that is less
End = Literal["low", "value", "high"]


@dataclass(frozen=True, slots=True)
class Load:
    """One chip with a share of the demand: what it came to, and joules and seconds while batches
    ran.
    """

    share: float
    result: Result
    busy_j: float
    busy_s: float

    @property
    def in_time(self) -> float:
        """Of the demand that fares worst; of less than a hundred requests one may be late."""
        shares = (
            (t.in_time + (t.offered < FEWEST)) / t.offered for t in self.result.tenants if t.offered
        )
        return min(1.0, min(shares, default=1.0))


def times_at(service: Service, end: End) -> dict[int, float]:
    return {b: getattr(t, end) for b, t in service.times_s.items()}


def largest_useful(service: Service, slo_s: float, spread: float) -> int:
    """The compiled batch with the best throughput of those that can wait for one like them and
    still be answered in time; 0 where not even one item is answered in time.
    """
    times, factor = times_at(service, "value"), high_factor(spread)
    if times[1] * factor > slo_s:
        return 0
    return max(
        (b for b, t in times.items() if b == 1 or 2 * t * factor <= slo_s),
        key=lambda b: b / times[b] * (1 - NEGLIGIBLE * (b > 1)),
    )


def seconds_an_item(service: Service, slo_s: float, spread: float) -> float:
    batch = max(largest_useful(service, slo_s, spread), 1)
    return service.times_s[batch].value / batch


def labels(ask: Ask) -> list[str]:
    """A name for each demand: its tenant's, with the model's where the tenant has several."""
    tenants = [d.tenant for d in ask.demands]
    return [
        d.tenant if tenants.count(d.tenant) == 1 else f"{d.tenant}: {d.name}" for d in ask.demands
    ]


def load(
    ask: Ask,
    services: Sequence[Service],
    share: float,
    end: End = "value",
    requests: int = REQUESTS,
) -> Load:
    """One chip that gets ``share`` of every demand, as Poisson arrivals, for so many requests, and
    no less than several SLOs long.

    A demand with few requests is asked for a little more, so that its p99 means something, while
    that takes next to nothing of the chip. Demands of one model share its batches.
    """
    names = {
        id(s): f"{i}:{d.name}" for i, (d, s) in enumerate(zip(ask.demands, services, strict=True))
    }
    each = {names[id(s)]: s for s in services}
    times = {n: times_at(s, end) for n, s in each.items()}
    factor, called = high_factor(ask.spread), labels(ask)
    weights = {
        n: d.weight / ask.demands_of(d.tenant) for n, d in zip(called, ask.demands, strict=True)
    }
    policy = SloPolicy({n: Served(Known(t, factor)) for n, t in times.items()}, weights)
    rate = ask.rate_per_s * share
    duration = (
        max(requests, min(SLOS * max(d.slo_s for d in ask.demands) * rate, 4 * requests)) / rate
    )
    streams = []
    for i, (label, d, s) in enumerate(zip(called, ask.demands, services, strict=True)):
        most = EXTRA / seconds_an_item(s, d.slo_s, ask.spread)
        arrivals = Poisson(max(d.rate_per_s * share, min(FEWEST / duration, most))).times_s(
            duration, np.random.default_rng([ask.seed, i])
        )
        streams.append((Stream(label, names[id(s)], d.slo_s), arrivals))
    spread = Spread(
        {n: curve(t) for n, t in times.items()}, dict.fromkeys(times, ask.spread), ask.seed
    )
    log = simulate(policy, Open(streams), spread)
    joules = {
        n: curve({b: getattr(e, end) for b, e in s.energy_j.items()}) for n, s in each.items()
    }
    begin = WARM_UP * duration
    ran = [b for b in log.batches if b.began_s >= begin and b.ended_s <= duration]
    busy_j = sum(joules[b.start.model][len(b.start.requests)] for b in ran)
    busy_s = sum(b.ended_s - b.began_s for b in ran)
    return Load(share, result_of(log, duration, begin), busy_j, busy_s)


def limit(ask: Ask, services: Sequence[Service]) -> Load | None:
    """The largest share of the demand that one chip answers with 99 of 100 in time for every
    tenant; None where there is none.
    """
    busy = sum(
        d.rate_per_s * seconds_an_item(s, d.slo_s, ask.spread)
        for d, s in zip(ask.demands, services, strict=True)
    )
    low, high = 0.0, 1.0 / busy
    best: Load | None = None
    share = 0.9 / busy
    for _ in range(STEPS):
        tried = load(ask, services, share, requests=SEARCH_REQUESTS)
        if tried.in_time >= IN_TIME:
            best, low = tried, share
        else:
            high = share
        share = (low + high) / 2
    if best is not None and high > WIDE * best.share:
        return _refined(ask, services, best, high)
    while best is None and share * busy > LEAST_BUSY and share > 1e-12:
        tried = load(ask, services, share, requests=SEARCH_REQUESTS)
        if tried.in_time >= IN_TIME:
            return _refined(ask, services, tried, high)
        high, share = share, share / 2
    # little is asked: then all of it, which one chip may idle for
    if best is None and busy <= LEAST_BUSY:
        tried = load(ask, services, 1.0, requests=SEARCH_REQUESTS)
        best = tried if tried.in_time >= IN_TIME else None
    return best


class Beside(StrEnum):
    """What beside the chip can be what limits it."""

    INTAKE = "requests that a host takes in for one accelerator"
    LINK = "bytes over the link to the host"


@dataclass(frozen=True, slots=True)
class Bounded:
    """The largest share of the demand that what is beside one chip lets through."""

    share: float
    by: Beside
    amount: Estimate


def beside(ask: Ask, chip: Chip, services: Sequence[Service]) -> Bounded | None:
    """What a host takes in and its link carries; None for a processor, which is its own host.

    Of results nothing is counted: a chip sends what is left of them (the best of a vocabulary's
    scores), which a graph does not say.
    """
    if target_of(chip).own_host:
        return None
    bytes_per_s = 0.0
    for d, s in zip(ask.demands, services, strict=True):
        program = s.runs[1].run.program
        bytes_per_s += d.rate_per_s * program.input_bytes / program.items
    own = chip.figures.get("host.bandwidth")
    link = own.estimate if own is not None else dispatch("link")
    intake = dispatch("intake")
    bounds = (
        Bounded(intake.value / ask.rate_per_s, Beside.INTAKE, intake),
        Bounded(link.value / max(bytes_per_s, 1e-30), Beside.LINK, link),
    )
    return min(bounds, key=lambda b: b.share)


def _refined(ask: Ask, services: Sequence[Service], best: Load, too_much: float) -> Load:
    """Between a share that holds and one that does not, the largest found to hold."""
    for _ in range(STEPS - 1):
        tried = load(ask, services, (best.share + too_much) / 2, requests=SEARCH_REQUESTS)
        if tried.in_time >= IN_TIME:
            best = tried
        else:
            too_much = tried.share
    return best


def p99s(result: Result) -> Mapping[str, float]:
    return {t.name: t.p99_s for t in result.tenants}


def p99_of(ask: Ask, result: Result, at: int) -> float:
    """The 99th percentile of one demand; NaN where nothing of it was answered."""
    label = labels(ask)[at]
    return next((t.p99_s for t in result.tenants if t.name == label), float("nan"))
