"""Every baseline with its knobs tuned by grid search, scenario by scenario: what the policy without
knobs must beat.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import UnknownName
from tenfold.scenario.read import PolicySpec, Scenario, read_scenario
from tenfold.scenario.run import Ready, run
from tenfold.serving import Result

DATA = Path(__file__).parent / "data"
SHIPPED: tuple[str, ...] = tuple(sorted(p.stem for p in DATA.glob("*.toml")))


def shipped(name: str) -> Scenario:
    """A scenario that comes with Tenfold. Raises UnknownName."""
    if name not in SHIPPED:
        raise UnknownName("scenario", name, SHIPPED)
    return read_scenario(DATA / f"{name}.toml")


@dataclass(frozen=True, slots=True)
class Score:
    """What a policy came to: answers within their SLO a second, whether every tenant's p99 held,
    and the worst share in time of a tenant that is not greedy.
    """

    spec: PolicySpec
    result: Result
    goodput_per_s: float
    holds: bool
    worst_share: float


def score_of(given: Ready, spec: PolicySpec) -> Score:
    """``spec`` on a scenario."""
    _, result = run(given, spec)
    greedy = {t.name for t in given.scenario.tenants if t.greedy}
    shares = [t.in_time / t.offered for t in result.tenants if t.name not in greedy and t.offered]
    return Score(
        spec,
        result,
        result.total.goodput_per_s,
        all(t.holds for t in result.tenants),
        min(shares, default=1.0),
    )


def grid(given: Ready, kind: str) -> list[PolicySpec]:
    """All settings of a baseline's knobs that are tried: batches by powers of two, delays by shares
    of the strictest SLO.
    """
    largest = max(max(t) for t in given.times_s.values())
    slo = min(s.slo_s for t in given.scenario.tenants for s in t.streams)
    sizes = [b for b in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if b <= largest]
    if kind == "fixed":
        return [PolicySpec(kind, batch=b) for b in sizes]
    if kind == "delay":
        delays = [slo * s for s in (0.0, 0.05, 0.2)]
        return [
            PolicySpec(kind, batch=b, delay_s=d, queue=q)
            for b, d in itertools.product(sizes, delays)
            for q in (None, 2 * b)
        ]
    if kind == "aimd":
        return [
            PolicySpec(kind, step=s, backoff=b) for s, b in itertools.product((1, 2, 4), (0.5, 0.9))
        ]
    return [
        PolicySpec(kind, batch=b, margin=m) for b, m in itertools.product(sizes, (1.0, 1.25, 2.0))
    ]


def tuned(
    given: Ready, kind: str, advance: Callable[[], None] = lambda: None
) -> tuple[Score, Sequence[Score]]:
    """The setting with the most goodput of a baseline, and all that were tried."""
    scores = []
    for spec in grid(given, kind):
        scores.append(score_of(given, spec))
        advance()
    return max(scores, key=lambda s: s.goodput_per_s), scores
