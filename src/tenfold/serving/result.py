"""What a run came to, by tenant: percentiles, goodput, batches, utilisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.serving.loadgen import PERCENTILE, percentile_of
from tenfold.serving.record import Why
from tenfold.serving.simulated import Log, Outcome


@dataclass(frozen=True, slots=True)
class TenantResult:
    """One tenant, or all together. Latencies are of what was answered; ``goodput_per_s`` counts
    answers within the SLO.
    """

    name: str
    offered: int
    answered: int
    refused: int
    in_time: int
    offered_per_s: float
    goodput_per_s: float
    p50_s: float
    p99_s: float
    mean_batch: float
    worst_over_slo: float  # p99 of latency over SLO: 1 is just met
    latencies_s: NDArray[np.float64]

    @property
    def holds(self) -> bool:
        """The 99th percentile of what was answered is within the SLO."""
        return self.answered == 0 or self.worst_over_slo <= 1 + 1e-9


@dataclass(frozen=True, slots=True)
class Result:
    """All tenants, the whole, and the chip."""

    tenants: tuple[TenantResult, ...]
    total: TenantResult
    utilisation: float
    loading: float
    batches: int
    reasons: tuple[tuple[Why, int], ...]
    refusals: tuple[tuple[Why, int], ...]
    duration_s: float


def result_of(log: Log, duration_s: float | None = None, from_s: float = 0.0) -> Result:
    """Sum up a run. Requests that came before ``from_s`` warm it up and are left out; rates are
    over the time from then to ``duration_s`` (default: the end of the log).
    """
    span = max((duration_s if duration_s is not None else log.ended_s) - from_s, 1e-12)
    kept = [i for i, r in enumerate(log.requests) if r.arrival_s >= from_s]
    size: dict[int, int] = {}
    busy = loading = 0.0
    reasons: dict[Why, int] = {}
    for b in log.batches:
        for r in b.start.requests:
            if not r.shadow:
                size[r.id] = len(b.start.requests)
        begin, end = max(b.began_s, from_s), min(b.ended_s, from_s + span)
        busy += max(end - begin, 0.0)
        if begin < end:
            loading += min(b.start.load_s, end - begin)
        reasons[b.start.why] = reasons.get(b.start.why, 0) + 1
    refusals: dict[Why, int] = {}
    for refusal in log.refusals:
        refusals[refusal.why] = refusals.get(refusal.why, 0) + 1
    names = sorted({log.requests[i].tenant for i in kept})
    by_tenant: dict[str, list[int]] = {n: [] for n in names}
    for i in kept:
        by_tenant[log.requests[i].tenant].append(i)
    tenants = tuple(_tenant(n, log, by_tenant[n], size, span) for n in names)
    return Result(
        tenants=tenants,
        total=_tenant("all", log, kept, size, span),
        utilisation=busy / span / log.workers,
        loading=loading / span / log.workers,
        batches=len(log.batches),
        reasons=tuple(sorted(reasons.items(), key=lambda x: -x[1])),
        refusals=tuple(sorted(refusals.items(), key=lambda x: -x[1])),
        duration_s=span,
    )


def _tenant(
    name: str, log: Log, at: list[int], size: dict[int, int], span_s: float
) -> TenantResult:
    index = np.array(at, dtype=int)
    arrival = np.array([log.requests[i].arrival_s for i in at])
    slo = np.array([log.requests[i].deadline_s for i in at]) - arrival
    outcome, latency = log.outcome[index], log.finish_s[index] - arrival
    done = outcome == Outcome.ANSWERED
    latency, slo = latency[done], slo[done]
    in_time = int(np.sum(latency <= slo * (1 + 1e-12)))
    batches = [size[log.requests[i].id] for i, d in zip(at, done.tolist()) if d]
    return TenantResult(
        name=name,
        offered=len(at),
        answered=int(done.sum()),
        refused=int(np.sum(outcome == Outcome.REFUSED)),
        in_time=in_time,
        offered_per_s=len(at) / span_s,
        goodput_per_s=in_time / span_s,
        p50_s=float(np.median(latency)) if len(latency) else float("nan"),
        p99_s=percentile_of(latency, PERCENTILE),
        # over batches, a tenant's share of each: not over requests, most of which see large ones
        mean_batch=len(batches) / sum(1 / b for b in batches) if batches else 0.0,
        worst_over_slo=percentile_of(latency / slo, PERCENTILE),
        latencies_s=latency,
    )
