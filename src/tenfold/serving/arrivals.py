"""When requests come: open arrivals as arrays of times, closed loops as sources that listen to the
answers.
"""

from __future__ import annotations

import csv
import heapq
import io
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import InputError
from tenfold.serving.record import NEVER, Request
from tenfold.serving.simulated import Source

Times = NDArray[np.float64]


class Arrivals(Protocol):
    """A pattern of arrivals, before any seed."""

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        """Times in [0, ``duration_s``), in order."""

    @property
    def rate_per_s(self) -> float:
        """Mean arrivals a second."""


def _positive(what: str, value: float) -> None:
    if not (value > 0 and np.isfinite(value)):
        raise InputError(f"{what} must be above 0, got {value:g}")


LEAST_CV, MOST_CV = 1e-3, 100.0


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals."""

    rate_per_s: float

    def __post_init__(self) -> None:
        _positive("rate", self.rate_per_s)

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        return _renewal(
            lambda n: rng.exponential(1 / self.rate_per_s, n), self.rate_per_s, duration_s
        )


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps of a Gamma distribution with coefficient of variation ``cv``: 1 is Poisson, above it
    bursts, below it regular.
    """

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        _positive("rate", self.rate_per_s)
        if not LEAST_CV <= self.cv <= MOST_CV:
            raise InputError(f"cv is {LEAST_CV:g} to {MOST_CV:g}, got {self.cv:g}")

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        shape = 1 / self.cv**2
        return _renewal(
            lambda n: rng.gamma(shape, 1 / (self.rate_per_s * shape), n),
            self.rate_per_s,
            duration_s,
        )


def _renewal(gaps: Callable[[int], Times], rate_per_s: float, duration_s: float) -> Times:
    """Sums of gaps up to the duration, drawn in blocks."""
    blocks: list[Times] = []
    last = 0.0
    while last < duration_s:
        block = last + np.cumsum(gaps(max(64, int((duration_s - last) * rate_per_s * 1.05))))
        blocks.append(block)
        last = float(block[-1])
    times = np.concatenate(blocks) if blocks else np.empty(0)
    return times[times < duration_s]


@dataclass(frozen=True, slots=True)
class OnOff:
    """Poisson at ``on_rate_per_s`` for exponential times of mean ``on_s``, then at
    ``off_rate_per_s`` for ``off_s``, and again.
    """

    on_rate_per_s: float
    off_rate_per_s: float
    on_s: float
    off_s: float

    def __post_init__(self) -> None:
        for what in ("on_rate_per_s", "on_s", "off_s"):
            _positive(what, getattr(self, what))
        if self.off_rate_per_s < 0:
            raise InputError(f"a rate is not negative, got {self.off_rate_per_s:g}")

    @property
    def rate_per_s(self) -> float:
        return (self.on_rate_per_s * self.on_s + self.off_rate_per_s * self.off_s) / (
            self.on_s + self.off_s
        )

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        parts, now, on = [], 0.0, True
        while now < duration_s:
            length = rng.exponential(self.on_s if on else self.off_s)
            rate = self.on_rate_per_s if on else self.off_rate_per_s
            end = min(now + length, duration_s)
            parts.append(np.sort(rng.uniform(now, end, rng.poisson(rate * (end - now)))))
            now, on = now + length, not on
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Diurnal:
    """Poisson whose rate swings as a cosine around its mean, by ``swing`` of it, with a period:
    lowest at the start.
    """

    rate_per_s: float
    swing: float = 0.6
    period_s: float = 86400.0

    def __post_init__(self) -> None:
        _positive("rate", self.rate_per_s)
        _positive("period", self.period_s)
        if not 0 <= self.swing <= 1:
            raise InputError(f"swing is a share of the mean, 0 to 1, got {self.swing:g}")

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        """Thinned from the highest rate (Lewis and Shedler 1979)."""
        top = self.rate_per_s * (1 + self.swing)
        times = Poisson(top).times_s(duration_s, rng)
        rate = self.rate_per_s * (1 - self.swing * np.cos(2 * np.pi * times / self.period_s))
        return times[rng.uniform(0, top, len(times)) < rate]


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded times, repeated never."""

    recorded_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.recorded_s:
            raise InputError("a trace needs at least one arrival")
        for i, (a, b) in enumerate(zip(self.recorded_s, self.recorded_s[1:])):
            if b < a:
                raise InputError(
                    f"a trace must be in the order of time: row {i + 2} is at {b:g} s, after"
                    f" {a:g} s"
                )
        if self.recorded_s[0] < 0:
            raise InputError(f"a trace begins at 0 s or later, got {self.recorded_s[0]:g} s")

    @property
    def rate_per_s(self) -> float:
        """In the mean, up to the last; infinite where all come at once, at 0."""
        return len(self.recorded_s) / self.recorded_s[-1] if self.recorded_s[-1] else math.inf

    def within(self, duration_s: float) -> int:
        """How many come before the end."""
        return bisect_left(self.recorded_s, duration_s)

    def times_s(self, duration_s: float, rng: np.random.Generator) -> Times:
        times = np.array(self.recorded_s)
        return times[times < duration_s]


def read_trace(text: str) -> Trace:
    """A trace from CSV with a column ``arrival_s``. Raises InputError naming the row."""
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise InputError(f"not a trace: {error}") from error
    if not rows or "arrival_s" not in rows[0]:
        raise InputError("a trace is CSV with a column 'arrival_s' and at least one row")
    times = []
    for i, row in enumerate(rows):
        try:
            times.append(float(row["arrival_s"]))
        except (TypeError, ValueError):
            raise InputError(
                f"trace, row {i + 1}: 'arrival_s' must be a number of seconds, got"
                f" '{row['arrival_s']}'"
            ) from None
        if not np.isfinite(times[-1]):
            raise InputError(f"trace, row {i + 1}: 'arrival_s' must be finite")
    return Trace(tuple(times))


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests of one tenant for one model with an SLO."""

    tenant: str
    model: str
    slo_s: float
    priority: int = 0


@final
class Open:
    """A source of given times, several streams merged."""

    def __init__(self, streams: Sequence[tuple[Stream, Sequence[float] | Times]]) -> None:
        times = (
            np.concatenate([np.asarray(t, dtype=float) for _, t in streams])
            if streams
            else np.empty(0)
        )
        owner = np.repeat(np.arange(len(streams)), [len(t) for _, t in streams])
        order = np.argsort(times, kind="stable")
        self._times: list[float] = [*times[order].tolist(), NEVER]
        self._owners: list[int] = owner[order].tolist()
        self._streams = [s for s, _ in streams]
        self._next = 0

    def peek_s(self) -> float:
        return self._times[self._next]

    def pop(self) -> Request:
        i = self._next
        self._next = i + 1
        s = self._streams[self._owners[i]]
        at = self._times[i]
        return Request(i, s.tenant, s.model, at, at + s.slo_s, s.priority)

    def answered(self, request: Request, now_s: float, retry_s: float = 0.0) -> None:
        """Open arrivals do not listen."""

    def exhausted(self) -> bool:
        return self._times[self._next] == NEVER


@final
class Merged:
    """Several sources as one, numbered anew; each hears of the answers to its own."""

    def __init__(self, parts: Sequence[Source]) -> None:
        self._parts = tuple(parts)
        self._owner: list[tuple[int, int]] = []  # by new number: the part, and the number there

    def peek_s(self) -> float:
        return min(p.peek_s() for p in self._parts)

    def pop(self) -> Request:
        at = min(range(len(self._parts)), key=lambda i: self._parts[i].peek_s())
        request = self._parts[at].pop()
        self._owner.append((at, request.id))
        return replace(request, id=len(self._owner) - 1)

    def answered(self, request: Request, now_s: float, retry_s: float = 0.0) -> None:
        at, number = self._owner[request.id]
        self._parts[at].answered(replace(request, id=number), now_s, retry_s)

    def exhausted(self) -> bool:
        return all(p.exhausted() for p in self._parts)


@final
class ClosedLoop:
    """``clients`` that each send, wait for the answer, think for an exponential time of mean
    ``think_s``, and send again.
    """

    def __init__(
        self, stream: Stream, clients: int, think_s: float, requests: int, rng: np.random.Generator
    ) -> None:
        if clients < 1 or requests < 1 or think_s < 0:
            raise InputError(
                f"a closed loop needs clients, requests and a think time, got {clients},"
                f" {requests}, {think_s:g} s"
            )
        self._stream, self._think_s, self._left, self._rng = stream, think_s, requests, rng
        self._due: list[float] = []
        self._sent = 0
        for _ in range(min(clients, requests)):
            self._send(0.0)

    def _send(self, now_s: float) -> None:
        if self._left:
            self._left -= 1
            heapq.heappush(
                self._due, now_s + (self._rng.exponential(self._think_s) if self._think_s else 0.0)
            )

    def peek_s(self) -> float:
        return self._due[0] if self._due else NEVER

    def pop(self) -> Request:
        at = heapq.heappop(self._due)
        self._sent += 1
        s = self._stream
        return Request(self._sent, s.tenant, s.model, at, at + s.slo_s, s.priority)

    def answered(self, request: Request, now_s: float, retry_s: float = 0.0) -> None:
        self._send(now_s + retry_s)

    def exhausted(self) -> bool:
        return not self._left and not self._due
