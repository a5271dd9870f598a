"""Writes docs/policy.md: what the serving policy does with its constants at half and double.

python docs/policy.py docs/policy.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tenfold.scenario import SHIPPED, Ready, ready, score_of, shipped
from tenfold.serving import Choice, batching, latency, policy, queue, shares

MODULES = (batching, latency, policy, queue, shares)


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the policy, and what it is."""

    home: ModuleType
    name: str
    meaning: str


CONSTANTS = (
    Constant(batching, "_FEW", "requests waiting for another model that a batch makes room for"),
    Constant(batching, "SHORTER", "share of a batch's SLO below which a newcomer's is waited for"),
    Constant(latency, "NEGLIGIBLE", "least gain in throughput that makes a batch larger"),
    Constant(policy, "_MOST_DISPLACED", "requests given up for one of more priority, at most"),
    Constant(policy, "_MOST_LOOKED", "requests of a queue looked at for some that yield"),
    Constant(policy, "_LOOKS", "requests looked at behind a newcomer"),
    Constant(policy, "LEAST_MARGIN", "least margin over the mean time, a share of it"),
    Constant(policy, "EARLY_SHARE", "share of the SLO by which who is owed goes earlier, at most"),
    Constant(policy, "EARLY_BATCHES", "the same, in times of the largest batch"),
    Constant(policy, "KEEPS_UP", "rate over what a chip can do, up to which it keeps up"),
    Constant(policy, "LEAST_LEFT", "share of the chip that a batch is chosen for, at least"),
    Constant(queue, "LIVE_GAPS", "mean gaps without an arrival, after which none is expected"),
    Constant(queue, "_AHEAD", "rate that a batch is for, over the rate seen"),
    Constant(shares, "LATE_BUDGET", "share of late answers above which caution grows"),
    Constant(shares, "UNEQUAL_BATCHES", "batches over its share that a tenant may be ahead"),
    Constant(shares, "OVERLOAD", "share turned away from which tenants are held to their shares"),
    Constant(shares, "ASKED", "requests that this looks back on"),
    Constant(shares, "NEARLY", "share of its fair share below which a tenant asks for less"),
    Constant(shares, "SHARE_EVERY", "arrivals between two looks at the shares"),
    Constant(shares, "CAUTION_STEP", "caution that a late answer adds"),
    Constant(shares, "MOST_CAUTION", "most caution"),
    Constant(shares, "_SHARE_MEMORY", "arrivals that a tenant's rate looks back on"),
    Constant(shares, "_BATCHES", "batches that the pace of work looks back on"),
)
INTRODUCTION = """# The constants of the serving policy

Written by `python docs/policy.py docs/policy.md`. The policy has one knob, the SLO. Its constants
come from no fit: each is a round number, and this is what the six scenarios that ship come to with
it halved and doubled. *Goodput* is the change in the share of all requests that are answered in
time, in percentage points, where it falls most and where it gains most; *worst tenant* is the same
of the tenant, not a greedy one, that fares worst. A constant with zeros acts on what these
scenarios do not have, or only on a tie.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one scenario: shares of requests in time, of all and of the worst tenant's, and of the
    answers that came late, of the tenant with the most.
    """

    in_time: float
    worst: float
    late: float


@contextmanager
def changed(constant: Constant, value: float) -> Iterator[None]:
    """The constant, wherever it was imported, for a while."""
    before = getattr(constant.home, constant.name)
    homes = [m for m in MODULES if getattr(m, constant.name, None) is before]
    for module in homes:
        setattr(module, constant.name, value)
    try:
        yield
    finally:
        for module in homes:
            setattr(module, constant.name, before)


def outcomes(scenarios: Mapping[str, Ready]) -> dict[str, Outcome]:
    found = {}
    for name, given in scenarios.items():
        score = score_of(given, Choice())
        total = score.result.total
        late = max(1 - t.in_time / t.answered for t in score.result.tenants if t.answered)
        found[name] = Outcome(total.in_time / total.offered, score.worst_share, late)
    return found


def change(base: Mapping[str, float], found: Mapping[str, float]) -> str:
    """``-0.31 (bursty) … +0.02``, in percentage points."""
    points = {n: 100 * (found[n] - x) for n, x in base.items()}
    if max(map(abs, points.values())) < 0.005:
        return "0"
    least = min(points, key=lambda n: points[n])
    where = f" ({least})" if points[least] < -0.005 else ""
    return f"{points[least]:+.2f}{where} … {max(points.values()):+.2f}"


def cells(base: Mapping[str, Outcome], found: Mapping[str, Outcome]) -> str:
    goodput = change(
        {n: o.in_time for n, o in base.items()}, {n: o.in_time for n, o in found.items()}
    )
    worst = change({n: o.worst for n, o in base.items()}, {n: o.worst for n, o in found.items()})
    return f"{goodput} | {worst}"


def page() -> str:
    scenarios = {name: ready(shipped(name)) for name in SHIPPED}
    base = outcomes(scenarios)
    late = max(o.late for o in base.values())
    rows = []
    for constant in CONSTANTS:
        value = getattr(constant.home, constant.name)
        parts = []
        for factor in (0.5, 2.0):
            scaled = max(1, int(value * factor)) if isinstance(value, int) else value * factor
            with changed(constant, scaled):
                found = outcomes(scenarios)
            parts.append(cells(base, found))
            late = max(late, *(o.late for o in found.values()))
        name = constant.name.strip("_")
        rows.append(f"| `{name}` {constant.meaning} | {value:g} | {' | '.join(parts)} |")
    goodput = ", ".join(f"{n} {100 * o.in_time:.2f}" for n, o in base.items())
    worst = ", ".join(f"{n} {100 * o.worst:.2f}" for n, o in base.items())
    lines = [
        INTRODUCTION,
        f"As they are, in time: {goodput} %; worst tenant: {worst} %. Over all of these runs at",
        f"most {100 * late:.2f} % of a tenant's answers came late, where the SLO allows 1 %.",
        "",
        "| constant | value | half: goodput | worst tenant | double: goodput | worst tenant |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
