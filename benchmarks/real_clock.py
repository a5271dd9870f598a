"""The policy and its baselines on the real clock, at the same rates in turn:
``python -m benchmarks.real_clock MODEL.onnx SLO_MS [SEQ]``.

Highest rate that LoadGen calls valid, by policy, two tries each; and at the policy's own rates the
simulated beside the measured p99. Takes some minutes for each model; docs/serving.md has what came
out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from tenfold.loadtest import (
    Measured,
    Session,
    capacity,
    delay_policy,
    loadgen_server,
    profile_batches,
    served_ratios,
    simulated,
    slo_policy,
    spare_threads,
    valid,
)
from tenfold.serving import Policy

SECONDS, FIRST, STEP, TRIES = 2.0, 0.4, 1.15, 2


def main(path: str, slo_s: float, seq: int | None) -> None:
    session = Session(path, threads=spare_threads(), seq=seq)
    times = profile_batches(session, slo_s, 64)
    slo_s = max(slo_s, 3 * float(np.median(times[1])))
    makers: dict[str, Callable[[], Policy]] = {"policy": lambda: slo_policy(session.name, times)}
    for b in [b for b, t in times.items() if np.median(t) <= slo_s][-3:]:
        for share in (0.0, 0.2):
            name, delay_s = f"largest batch {b}, delay {share * slo_s * 1e3:g} ms", share * slo_s
            makers[name] = lambda b=b, d=delay_s: delay_policy(session.name, times, b, d)  # type: ignore[misc]
    best = dict.fromkeys(makers, 0.0)
    alive, rate = list(makers), FIRST * capacity(times, slo_s)
    while alive:
        for name in list(alive):
            held = _held(session, makers[name], slo_s, rate)
            if held is None:
                alive.remove(name)
                continue
            best[name] = rate
            if name == "policy":
                told = simulated(
                    session.name,
                    times,
                    served_ratios(session, times, slo_s, rate, 1.5),
                    slo_s,
                    rate,
                    max(SECONDS, 2000 / rate),
                )
                print(
                    f"{rate:8.0f}/s  p99 {held.result.total.p99_s * 1e3:.2f} ms, simulated"
                    f" {told.total.p99_s * 1e3:.2f} ms",
                    flush=True,
                )
        rate *= STEP
    for name, found in sorted(best.items(), key=lambda x: -x[1]):
        print(f"{found:8.0f}/s  {name}")


def _held(
    session: Session, maker: Callable[[], Policy], slo_s: float, rate: float
) -> Measured | None:
    """A valid run at the rate, or None where no try was."""
    for _ in range(TRIES):
        measured = loadgen_server(session, maker(), slo_s, rate, SECONDS)
        if valid(measured):
            return measured
    return None


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) * 1e-3, int(sys.argv[3]) if len(sys.argv) > 3 else None)
