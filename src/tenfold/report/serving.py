"""A simulated or measured run of a server: tables, document, page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import UNSET

from tenfold.report.documents.part import some
from tenfold.report.documents.serving import (
    ScorePart,
    SimulateDocument,
    TenantPart,
)
from tenfold.report.fit import Fitted
from tenfold.report.svg import cdf_svg, timeline_svg
from tenfold.scenario import Scenario, Score, left_out
from tenfold.serving import Log, Result, TenantResult, explain
from tenfold.units import show

BINS = 240


def tenant_table(result: Result) -> Fitted:
    """A line a tenant and one for all."""
    table = Fitted(
        [
            "tenant",
            "offered",
            "goodput",
            "in time",
            "refused",
            "p50",
            "p99",
            "p99 over SLO",
            "mean batch",
        ]
    )
    rows = [*result.tenants, *((result.total,) if len(result.tenants) > 1 else ())]
    for t in rows:
        table.add_row(
            t.name,
            f"{t.offered_per_s:,.0f}/s",
            f"{t.goodput_per_s:,.0f}/s",
            f"{t.in_time / max(t.offered, 1):.2%}",
            f"{t.refused / max(t.offered, 1):.2%}",
            _time(t.p50_s),
            _time(t.p99_s),
            f"{t.worst_over_slo:.2f}" if t.answered else "-",
            f"{t.mean_batch:.1f}",
        )
    return table


def _time(seconds: float) -> str:
    return show(seconds, "s") if seconds == seconds else "-"


def reason_lines(result: Result) -> list[str]:
    """What set the batches, and what refused requests."""
    whole = max(result.batches, 1)
    lines = (
        ["Batches: " + ", ".join(f"{n / whole:.0%} {why}" for why, n in result.reasons) + "."]
        if result.reasons
        else []
    )
    if result.refusals:
        lines.append(
            "Refused: " + ", ".join(f"{n:,} because {why}" for why, n in result.refusals) + "."
        )
    return lines


def release_lines(log: Log, most: int) -> list[str]:
    """The first ``most`` batches and why each went when it did."""
    return [f"{b.began_s:.6f} s: {explain(b.start, b.began_s)}" for b in log.batches[:most]]


def compare_table(scores: Sequence[Score]) -> Fitted:
    """Policies by goodput, knobs tuned for this scenario."""
    table = Fitted(
        [
            "policy",
            "knobs",
            "goodput",
            "every p99 held",
            "worst tenant in time",
        ]
    )
    for s in scores:
        table.add_row(
            s.choice.policy,
            s.choice.words,
            f"{s.goodput_per_s:,.1f}/s",
            "yes" if s.holds else "no",
            f"{s.worst_share:.2%}",
        )
    return table


def _tenant(t: TenantResult) -> TenantPart:
    return TenantPart(
        name=t.name,
        offered=t.offered,
        answered=t.answered,
        rejected=t.refused,
        in_time=t.in_time,
        offered_per_s=t.offered_per_s,
        goodput_per_s=t.goodput_per_s,
        mean_batch=t.mean_batch,
        p50_s=t.p50_s if t.answered else UNSET,
        p99_s=t.p99_s if t.answered else UNSET,
        p99_over_slo=t.worst_over_slo if t.answered else UNSET,
    )


def serving_document(
    scenario: Scenario,
    policy: str,
    result: Result,
    *,
    energy_j: float | None,
    scores: Sequence[Score],
    releases: Sequence[str],
) -> SimulateDocument:
    """A run; ``scores`` of the baselines and ``releases`` explained where they were asked for."""
    return SimulateDocument(
        scenario=scenario.name,
        policy=policy,
        tenants=[_tenant(t) for t in result.tenants],
        total=_tenant(result.total),
        utilisation=result.utilisation,
        loading=result.loading,
        batches=result.batches,
        duration_s=result.duration_s,
        batch_reasons={str(w): n for w, n in result.reasons},
        refusals={str(w): n for w, n in result.refusals},
        energy_j=some(energy_j),
        compared=[_score(s) for s in scores] or UNSET,
        releases=list(releases) or UNSET,
        left_out=left_out(scenario) or UNSET,
    )


def _score(s: Score) -> ScorePart:
    return ScorePart(
        policy=s.choice.policy,
        knobs=s.choice.words,
        goodput_per_s=s.goodput_per_s,
        p99_held=s.holds,
        worst_share=s.worst_share,
    )


def serving_page(scenario: Scenario, policy: str, log: Log, result: Result) -> str:
    """Latencies against SLOs, queue and batch over time, why batches went: one HTML page without
    scripts.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    slos = {t.name: max(s.slo_s for s in t.streams) for t in scenario.tenants}
    end = max(result.duration_s + scenario.warm_up_s, 1e-9)
    edges = np.linspace(0.0, end, BINS + 1)
    charts = [
        cdf_svg(
            {
                t.name: (np.sort(t.latencies_s).tolist(), slos.get(t.name))
                for t in result.tenants
                if t.answered
            },
            "share answered within a time",
        ),
        timeline_svg(_queues(log, edges), end, "waiting, the most in each step"),
        timeline_svg({"mean batch": _batches(log, edges)}, end, "batch"),
        timeline_svg({"busy": _busy(log, edges)}, end, "share of the chip's time in use"),
    ]
    environment = Environment(loader=PackageLoader("tenfold.report"), autoescape=True)
    rows = [
        [
            t.name,
            f"{t.offered_per_s:,.0f}/s",
            f"{t.goodput_per_s:,.0f}/s",
            f"{t.in_time / max(t.offered, 1):.2%}",
            f"{t.refused:,}",
            _time(t.p50_s),
            _time(t.p99_s),
            show(slos[t.name], "s") if t.name in slos else "",
            f"{t.mean_batch:.1f}",
        ]
        for t in (*result.tenants, result.total)
    ]
    return environment.get_template("serving.html").render(
        title=f"{scenario.name}, policy {policy}",
        subtitle=scenario.note,
        rows=rows,
        reasons=reason_lines(result),
        charts=[Markup(c) for c in charts if c],
        releases=release_lines(log, 60),
        utilisation=f"{result.utilisation:.1%}",
        loading=f"{result.loading:.1%}",
    )


def _queues(log: Log, edges: Any) -> Mapping[str, list[float]]:
    """The most that wait in each step, by tenant; refused ones never waited."""
    began = {r.id: b.began_s for b in log.batches for r in b.start.requests if not r.shadow}
    found: dict[str, list[float]] = {}
    for name in sorted({r.tenant for r in log.requests}):
        mine = [r for r in log.requests if r.tenant == name and r.id in began]
        steps = sorted([(r.arrival_s, 1) for r in mine] + [(began[r.id], -1) for r in mine])
        times = np.array([t for t, _ in steps])
        level = np.cumsum([d for _, d in steps])
        most = np.zeros(len(edges) - 1)
        if len(steps):
            np.maximum.at(
                most, np.clip(np.searchsorted(edges, times, "right") - 1, 0, len(most) - 1), level
            )
        found[name] = most.tolist()
    return found


def _batches(log: Log, edges: Any) -> list[float]:
    times = np.array([b.began_s for b in log.batches])
    sizes = np.array([len(b.start.requests) for b in log.batches], dtype=float)
    count, _ = np.histogram(times, edges)
    total, _ = np.histogram(times, edges, weights=sizes)
    return (total / np.maximum(count, 1)).tolist()


def _busy(log: Log, edges: Any) -> list[float]:
    began, ended = (np.array([getattr(b, n) for b in log.batches]) for n in ("began_s", "ended_s"))
    done = [float(np.sum(np.clip(e, began, ended) - began)) for e in edges]
    return (np.diff(done) / np.diff(edges) / log.workers).tolist()
