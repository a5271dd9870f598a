"""The driver with the simulated clock: one chip, any policy."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import InputError
from tenfold.serving.record import NEVER, Decision, Policy, Refusal, Request, Start

LEAST_RETRY_S, MOST_RETRY_S = 1e-3, 1.0  # of a closed loop that was refused


class Source(Protocol):
    """Where requests come from, in the order of time."""

    def peek_s(self) -> float:
        """When the next one comes; infinite where none does (yet)."""

    def pop(self) -> Request:
        """The next one."""

    def answered(self, request: Request, now_s: float, retry_s: float = 0.0) -> None:
        """One was answered, or refused and best tried again after ``retry_s``; a closed loop may
        send another.
        """

    def exhausted(self) -> bool:
        """Whether nothing more will come, whatever is answered."""


class ServiceTime(Protocol):
    """What a batch really takes."""

    def seconds(self, model: str, batch: int) -> float: ...


HIGH_SIGMAS = 2.326  # of a normal distribution: the 99th percentile


def sigma_of(variation: float) -> float:
    """Of the log-normal factor with that coefficient of variation."""
    return math.sqrt(math.log1p(variation * variation))


def high_factor(variation: float) -> float:
    """99th percentile over mean of a log-normal factor with that coefficient of variation."""
    sigma = sigma_of(variation)
    return max(1.0, math.exp(HIGH_SIGMAS * sigma - sigma * sigma / 2))


@final
class Spread:
    """Service times by model and batch, times a log-normal factor of mean 1 with a coefficient of
    variation, from a seed.
    """

    _BLOCK = 4096

    def __init__(
        self,
        times_s: Mapping[str, Sequence[float]],
        variation: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self._times = dict(times_s)
        self._sigma = {m: sigma_of(v) for m, v in (variation or {}).items() if v > 0}
        self._rng = np.random.default_rng(seed)
        self._normal: list[float] = []

    def seconds(self, model: str, batch: int) -> float:
        time = self._times[model][batch]
        sigma = self._sigma.get(model)
        if sigma is None:
            return time
        if not self._normal:
            self._normal = self._rng.standard_normal(self._BLOCK).tolist()
        return time * float(np.exp(sigma * self._normal.pop() - sigma * sigma / 2))


class Outcome(IntEnum):
    """What became of a request."""

    WAITING = 0
    ANSWERED = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that ran."""

    start: Start
    began_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Log:
    """A whole run. ``requests`` in the order they came; ``finish_s`` is when each was answered or
    refused, NaN while it waits.

    Shadow copies are in ``batches`` only: nobody asked for them.
    """

    requests: tuple[Request, ...]
    outcome: NDArray[np.int8]
    finish_s: NDArray[np.float64]
    batches: tuple[Batch, ...]
    refusals: tuple[Refusal, ...]
    ended_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class Instant:
    """For an observer: how many came, were answered, were refused, wait or are served at
    ``now_s``.
    """

    now_s: float
    arrived: int
    answered: int
    refused: int
    waiting: int
    serving: int


Observer = Callable[[Instant], None]
Listener = Callable[[float, Decision], None]


def simulate(
    policy: Policy,
    source: Source,
    service: ServiceTime,
    *,
    workers: int = 1,
    until_s: float = NEVER,
    observer: Observer | None = None,
    listener: Listener | None = None,
) -> Log:
    """Run ``policy`` against ``source`` until nothing more happens or comes before ``until_s``.

    ``observer`` sees the counts after each event, ``listener`` each decision. Raises InputError for
    requests out of order or fewer than one worker.
    """
    if workers < 1:
        raise InputError(f"a chip needs at least one worker, got {workers}")
    return _Loop(policy, source, service, workers, observer, listener).run(until_s)


class _Loop:
    def __init__(
        self,
        policy: Policy,
        source: Source,
        service: ServiceTime,
        workers: int,
        observer: Observer | None,
        listener: Listener | None,
    ) -> None:
        self.policy, self.source, self.service = policy, source, service
        self.workers, self.observer, self.listener = workers, observer, listener
        self.requests: list[Request] = []
        self.index: dict[int, int] = {}
        self.outcome: list[int] = []
        self.finish: list[float] = []
        self.batches: list[Batch] = []
        self.refusals: list[Refusal] = []
        self.running: list[tuple[float, int, float, Start]] = []  # end, number, began
        self.wake = NEVER
        self.drained = False
        self.now = 0.0
        self.serving = 0
        self.refused = 0

    def run(self, until_s: float) -> Log:
        peek = self.source.peek_s
        while True:
            arrival = peek()
            end = self.running[0][0] if self.running else NEVER
            now = min(arrival, end, self.wake)
            if arrival == NEVER and not self.drained and self.source.exhausted():
                self.drained = True
                self.policy.drain()
                self._ask()
                continue
            if now == NEVER or now > until_s:
                break
            if now < self.now:
                raise InputError(
                    f"requests must come in the order of time: one at {now:g} s came after"
                    f" {self.now:g} s"
                )
            self.now = now
            if end <= now:
                self._end()
            elif arrival <= now:
                self._arrive()
            else:
                self.wake = NEVER
            if len(self.running) < self.workers:
                self._ask()
            if self.observer is not None:
                self._observe(self.observer)
        return self._log(until_s)

    def _arrive(self) -> None:
        request = self.source.pop()
        if not request.shadow:
            self.index[request.id] = len(self.requests)
            self.requests.append(request)
            self.outcome.append(0)
            self.finish.append(NEVER)
        for refusal in self.policy.offer(request, self.now):
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)
        request = refusal.request
        if request.shadow:
            return
        at = self.index.pop(request.id)
        self.outcome[at] = 2
        self.finish[at] = self.now
        self.refused += 1
        self.source.answered(
            request, self.now, min(max(refusal.retry_after_s, LEAST_RETRY_S), MOST_RETRY_S)
        )

    def _end(self) -> None:
        end, _, began, start = heapq.heappop(self.running)
        done = self.policy.finished(start, end, end - began)
        self.batches.append(Batch(start, began, end))
        self.serving -= sum(not r.shadow for r in start.requests)
        for request in done:
            if request.shadow:
                continue
            at = self.index.pop(request.id)
            self.outcome[at] = 1
            self.finish[at] = end
            self.source.answered(request, end)

    def _ask(self) -> None:
        while len(self.running) < self.workers:
            decision = self.policy.decide(self.now)
            if self.listener is not None:
                self.listener(self.now, decision)
            for refusal in decision.refused:
                self._refuse(refusal)
            start = decision.start
            if start is None:
                self.wake = decision.wait_until_s
                return
            seconds = start.load_s + self.service.seconds(start.model, len(start.requests))
            heapq.heappush(
                self.running,
                (self.now + seconds, len(self.batches) + len(self.running), self.now, start),
            )
            self.serving += sum(not r.shadow for r in start.requests)
            self.wake = NEVER

    def _observe(self, observer: Observer) -> None:
        arrived = len(self.requests)
        waiting = len(self.index) - self.serving
        observer(
            Instant(
                self.now,
                arrived,
                arrived - len(self.index) - self.refused,
                self.refused,
                waiting,
                self.serving,
            )
        )

    def _log(self, until_s: float) -> Log:
        finish = np.array(self.finish, dtype=float)
        finish[finish == NEVER] = np.nan
        ended = self.now if until_s == NEVER else until_s
        outcome = np.array(self.outcome, dtype=np.int8)
        return Log(
            requests=tuple(self.requests),
            outcome=outcome,
            finish_s=finish,
            batches=tuple(self.batches),
            refusals=tuple(self.refusals),
            ended_s=ended,
            workers=self.workers,
        )
