"""MLPerf LoadGen's scenarios and its early-stopping rule, as it has them itself
(mlcommons/inference, loadgen).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import InputError
from tenfold.serving.arrivals import Stream, Times
from tenfold.serving.record import NEVER, Request

CONFIDENCE = 0.99
PERCENTILE = 0.99


@dataclass(frozen=True, slots=True)
class ServerSchedule:
    """LoadGen's own Poisson schedule for a rate and a ``schedule_rng_seed``: the first query at 0,
    gaps from a Mersenne twister.

    ``std::exponential_distribution`` over ``std::mt19937`` takes two 32-bit words a gap, as
    libstdc++ does.
    """

    rate_per_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.rate_per_s > 0 and np.isfinite(self.rate_per_s)):
            raise InputError(f"rate must be above 0, got {self.rate_per_s:g}")

    def first(self, count: int) -> Times:
        """The first ``count`` times in seconds."""
        twister = np.random.MT19937()
        # that of std::mt19937, which NumPy keeps under this name
        twister._legacy_seeding(self.seed)
        words = np.asarray(twister.random_raw(2 * max(count - 1, 0)), dtype=np.float64)
        uniform = (words[0::2] + words[1::2] * 2.0**32) / 2.0**64
        times = np.concatenate([[0.0], np.cumsum(-np.log1p(-uniform) / self.rate_per_s)])
        return times[:count]

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        """The schedule up to the duration; it has its own seed and leaves ``rng`` alone."""
        count = 64 + int(self.rate_per_s * duration_s * 1.1)
        times = self.first(count)
        while times[-1] < duration_s:
            count *= 2
            times = self.first(count)
        return times[times < duration_s]


@final
class OneByOne:
    """SingleStream (``samples`` 1) and MultiStream (8): the next query goes out when the last one
    is answered, whole.
    """

    def __init__(self, stream: Stream, queries: int, samples: int = 1) -> None:
        if queries < 1 or samples < 1:
            raise InputError(f"a scenario needs queries and samples, got {queries} and {samples}")
        self._stream, self._queries, self._samples = stream, queries, samples
        self._left, self._open, self._due, self._sent = samples, samples, 0.0, 0

    def peek_s(self) -> float:
        return self._due if self._left and self._queries else NEVER

    def pop(self) -> Request:
        self._left -= 1
        self._sent += 1
        s = self._stream
        return Request(self._sent, s.tenant, s.model, self._due, self._due + s.slo_s, s.priority)

    def answered(self, request: Request, now_s: float, retry_s: float = 0.0) -> None:
        self._open -= 1
        if not self._open:
            self._queries -= 1
            self._left = self._open = self._samples
            self._due = now_s

    def exhausted(self) -> bool:
        return not self._queries


@lru_cache(maxsize=4096)
def queries_needed(
    misses: int, percentile: float = PERCENTILE, confidence: float = CONFIDENCE
) -> int:
    """The fewest queries that, with so many over the latency, show the percentile to be within it
    at the confidence.

    The smallest n with P(Binomial(n, 1 - percentile) <= misses) <= 1 - confidence (MLPerf inference
    rules, early stopping).
    """
    from scipy.stats import binom

    if misses < 0 or not 0 < percentile < 1 or not 0 < confidence < 1:
        raise InputError(
            f"needs misses of 0 or more and shares between 0 and 1, got {misses}, {percentile:g},"
            f" {confidence:g}"
        )
    low, high = misses, misses + 1
    while binom.cdf(misses, high, 1 - percentile) > 1 - confidence:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if binom.cdf(misses, middle, 1 - percentile) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run shows what it was to show, and if not, why."""

    valid: bool
    misses: int
    queries: int
    reasons: tuple[str, ...]


def percentile_of(latencies_s: NDArray[np.float64], percentile: float) -> float:
    """The latency at ``floor(percentile x n)`` of the ordered ones, as LoadGen takes it; NaN of
    none.
    """
    if not len(latencies_s):
        return float("nan")
    return float(
        np.sort(latencies_s)[min(int(percentile * len(latencies_s)), len(latencies_s) - 1)]
    )


def server_verdict(
    latencies_s: Sequence[float] | NDArray[np.float64],
    target_s: float,
    *,
    percentile: float = PERCENTILE,
    duration_s: float = NEVER,
    least_duration_s: float = 0.0,
    least_queries: int = 0,
) -> Verdict:
    """LoadGen's verdict on a Server run: the percentile within the target, long enough, enough
    queries, and early stopping.

    A refused query counts as a miss: give its latency as infinite.
    """
    latencies = np.asarray(latencies_s, dtype=float)
    misses = int(np.sum(latencies > target_s))
    at = percentile_of(latencies, percentile)
    reasons = []
    if not at <= target_s:
        found = f"p{percentile * 100:g} of {at * 1e3:.4g} ms is over"
        if not np.isfinite(at):
            most = f"{(1 - percentile) * 100:.3g} %"
            found = f"more than {most} were refused, so that p{percentile * 100:g} misses"
        reasons.append(f"{found} the target of {target_s * 1e3:.4g} ms")
    if duration_s < least_duration_s:
        reasons.append(f"it ran {duration_s:.4g} s of at least {least_duration_s:.4g} s")
    if len(latencies) < least_queries:
        reasons.append(f"{len(latencies)} queries of at least {least_queries}")
    if len(latencies) < queries_needed(misses, percentile):
        reasons.append(
            f"{len(latencies)} queries with {misses} over the target show nothing:"
            f" {queries_needed(misses, percentile)} would"
        )
    return Verdict(not reasons, misses, len(latencies), tuple(reasons))
