"""How long a batch takes, as a distribution: from a machine model, or learned while serving."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping
from typing import Protocol, final

from tenfold.errors import InputError

NEGLIGIBLE = 0.001  # a larger batch must raise the throughput by more than this


class Latency(Protocol):
    """Mean and a high quantile of a batch's service time, in seconds, for 1 … ``max_batch``
    items.
    """

    max_batch: int

    def mean_s(self, batch: int) -> float:
        """Mean service time."""

    def high_s(self, batch: int) -> float:
        """The time that deadlines are held against; does not fall with the batch."""

    def best(self, limit: int) -> int:
        """The smallest batch up to ``limit`` whose throughput no batch up to ``limit`` beats by
        more than 0.1 %.
        """

    def largest(self, within_s: float, limit: int) -> int:
        """The largest batch up to ``limit`` whose ``high_s`` is within the time; 0 where none
        is.
        """

    def observe(self, batch: int, service_s: float) -> None:
        """A batch took this long."""


def curve(times_s: Mapping[int, float]) -> list[float]:
    """Seconds for 0 … the largest batch, linear between the given ones, never falling; a batch
    below the first takes as long as it.

    Raises InputError for no batch, a batch below 1 or a time that is not positive.
    """
    if not times_s:
        raise InputError("service times need at least one batch size")
    for b, t in times_s.items():
        if b < 1 or not (t > 0 and math.isfinite(t)):
            raise InputError(
                f"service times need batches of at least 1 and times above 0, got {t:g} s at"
                f" batch {b}"
            )
    known = sorted(times_s)
    seconds = [times_s[known[0]]] * (known[0] + 1)
    for a, b in itertools.pairwise(known):
        rise = (times_s[b] - times_s[a]) / (b - a)
        seconds += [times_s[a] + rise * i for i in range(1, b - a + 1)]
    highest = 0.0
    for i, s in enumerate(seconds):
        highest = max(highest, s)
        seconds[i] = highest
    return seconds


def _best_up_to(seconds: list[float]) -> list[int]:
    chosen, best, top = [0], 0, 0.0
    for b in range(1, len(seconds)):
        rate = b / seconds[b]
        if rate > top * (1 + NEGLIGIBLE):
            best, top = b, rate
        chosen.append(best)
    return chosen


def _largest(high: list[float], within_s: float, limit: int) -> int:
    low, top = 0, min(limit, len(high) - 1)
    if top > 0 and high[top] <= within_s:
        return top
    while low < top:  # high[1:] never falls: bisect for the last that is within
        middle = (low + top + 1) // 2
        low, top = (middle, top) if high[middle] <= within_s else (low, middle - 1)
    return low


@final
class Known:
    """Service times that are given: means by batch, and a factor to the quantile that deadlines are
    held against.
    """

    __slots__ = ("_best", "_high", "_mean", "max_batch")

    def __init__(self, times_s: Mapping[int, float], high_factor: float = 1.0) -> None:
        if not high_factor >= 1:
            raise InputError(
                "the high quantile must be at least the mean: a factor of 1 or more, got"
                f" {high_factor:g}"
            )
        self._mean = curve(times_s)
        self._high = [t * high_factor for t in self._mean]
        self._best = _best_up_to(self._mean)
        self.max_batch = len(self._mean) - 1

    def mean_s(self, batch: int) -> float:
        return self._mean[batch]

    def high_s(self, batch: int) -> float:
        return self._high[batch]

    def best(self, limit: int) -> int:
        return self._best[min(limit, self.max_batch)]

    def largest(self, within_s: float, limit: int) -> int:
        return _largest(self._high, within_s, limit)

    def observe(self, batch: int, service_s: float) -> None:
        """What is given stays."""


@final
class Learned:
    """Service times learned while serving, from a first guess.

    Each known batch size keeps a moving mean; the ratios of what came to what was expected make one
    distribution for all sizes, of which the ``quantile`` over the last ``WINDOW`` batches is held
    against deadlines.
    """

    WINDOW = 400
    RATE = 0.1  # weight of a new time in its size's mean
    REFRESH = 20  # batches between two looks at the quantile

    def __init__(
        self, times_s: Mapping[int, float], high_factor: float, quantile: float = 0.99
    ) -> None:
        if not 0 < quantile < 1:
            raise InputError(f"a quantile lies between 0 and 1, got {quantile:g}")
        curve(times_s)  # checks
        self._knots = dict(times_s)
        self._quantile = quantile
        self._factor = high_factor
        self._ratios: deque[float] = deque(maxlen=self.WINDOW)
        self._since = 0
        self.max_batch = max(times_s)
        self._refresh()

    def _refresh(self) -> None:
        self._mean = curve(self._knots)
        self._best = _best_up_to(self._mean)
        if len(self._ratios) >= self.REFRESH:
            ordered = sorted(self._ratios)
            self._factor = max(
                1.0, ordered[min(len(ordered) - 1, math.ceil(self._quantile * len(ordered)) - 1)]
            )
        self._high = [t * self._factor for t in self._mean]
        self._since = 0

    def mean_s(self, batch: int) -> float:
        return self._mean[batch]

    def high_s(self, batch: int) -> float:
        return self._high[batch]

    def best(self, limit: int) -> int:
        return self._best[min(limit, self.max_batch)]

    def largest(self, within_s: float, limit: int) -> int:
        return _largest(self._high, within_s, limit)

    def observe(self, batch: int, service_s: float) -> None:
        expected = self._mean[batch]
        ratio = service_s / expected
        self._ratios.append(ratio)
        lower = max((k for k in self._knots if k <= batch), default=min(self._knots))
        upper = min((k for k in self._knots if k >= batch), default=self.max_batch)
        share = (batch - lower) / (upper - lower) if upper > lower else 0.0
        for knot, weight in ((lower, 1 - share), (upper, share)):
            # one stall must not shift the mean
            self._knots[knot] *= 1 + self.RATE * weight * (min(ratio, 3.0) - 1)
        self._since += 1
        if self._since >= self.REFRESH or len(self._ratios) < self.REFRESH:
            self._refresh()
