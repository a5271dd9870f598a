"""Every baseline with its knobs tuned by grid search, scenario by scenario: what the policy without
knobs must beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import UnknownName
from tenfold.scenario.read import Scenario, read_scenario
from tenfold.scenario.run import Ready, run
from tenfold.serving import POLICIES, Choice, Result, Tried

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

    choice: Choice
    result: Result
    goodput_per_s: float
    holds: bool
    worst_share: float


def score_of(given: Ready, choice: Choice) -> Score:
    """A policy on a scenario."""
    _, result = run(given, choice)
    greedy = {t.name for t in given.scenario.tenants if t.greedy}
    shares = [t.in_time / t.offered for t in result.tenants if t.name not in greedy and t.offered]
    return Score(
        choice,
        result,
        result.total.goodput_per_s,
        all(t.holds for t in result.tenants),
        min(shares, default=1.0),
    )


def grid(given: Ready, policy: str) -> list[Choice]:
    """All settings of a policy's knobs that are tried: batches by powers of two, delays by shares
    of the strictest SLO.
    """
    largest = max(max(t) for t in given.times_s.values())
    slo_s = min(s.slo_s for t in given.scenario.tenants for s in t.streams)
    batches = tuple(b for b in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if b <= largest)
    return POLICIES[policy].choices(Tried(batches, slo_s))


def tuned(
    given: Ready, policy: str, advance: Callable[[], None] = lambda: None
) -> tuple[Score, Sequence[Score]]:
    """The setting with the most goodput of a baseline, and all that were tried."""
    scores = []
    for choice in grid(given, policy):
        scores.append(score_of(given, choice))
        advance()
    return max(scores, key=lambda s: s.goodput_per_s), scores
