"""The highest rate that a server holds, by LoadGen's verdict or our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tenfold.loadtest.trial import TrialTimes

STEPS = 5
Try = Callable[[float], TrialTimes]


def valid(m: TrialTimes) -> bool:
    """LoadGen's verdict where it was there, else ours."""
    return m.verdict.valid if m.loadgen is None else m.loadgen.valid


def highest(
    attempt: Try, guess_per_s: float, advance: Callable[[], None] = lambda: None
) -> tuple[TrialTimes | None, list[TrialTimes]]:
    """By trial, from a guess: down by a third until one is valid, up by a quarter until one is not,
    then the middle; all trials too.
    """
    tried: list[TrialTimes] = []
    best: TrialTimes | None = None
    low, high, rate = 0.0, 0.0, guess_per_s
    for _ in range(STEPS):
        m = attempt(rate)
        tried.append(m)
        advance()
        if valid(m):
            best, low = m, rate
        else:
            high = rate
        rate = (low + high) / 2 if low and high else rate * 1.25 if low else rate / 1.5
    return best, tried


def capacity(times: Mapping[int, Sequence[float]], slo_s: float) -> float:
    """Items a second at the best batch that can wait for one like it and be in time."""
    import numpy as np

    medians = {b: float(np.median(t)) for b, t in times.items()}
    within = {b: t for b, t in medians.items() if 2 * t <= slo_s} or {1: medians[1]}
    return max(b / t for b, t in within.items())
