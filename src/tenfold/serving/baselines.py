"""What others do, behind the same interface: first come first served over models, in batches by one
rule each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import final

from tenfold.errors import InputError
from tenfold.serving.policy import Served
from tenfold.serving.record import NEVER, Decision, Refusal, Request, Start, Why
from tenfold.serving.residency import Residency

Rule = Callable[["Line", float, bool], tuple[int, Why, float]]


@final
class Line:
    """Requests for one model in the order they came."""

    __slots__ = ("model", "requests", "served", "slo_s")

    def __init__(self, model: str, served: Served) -> None:
        self.model = model
        self.served = served
        self.requests: deque[Request] = deque()
        self.slo_s = NEVER


@final
class _Lines:
    """The part that all baselines share: a line for each model, and the weights in memory by last
    use.
    """

    def __init__(self, models: Mapping[str, Served], budget_bytes: float) -> None:
        self.lines = {n: Line(n, s) for n, s in models.items()}
        self.residency = Residency({n: s.weights for n, s in models.items()}, budget_bytes)
        self.running: list[str] = []
        self.draining = False

    def offer(self, request: Request) -> None:
        line = self.lines[request.model]
        line.slo_s = min(line.slo_s, request.deadline_s - request.arrival_s)
        line.requests.append(request)

    def waiting(self) -> list[Line]:
        return sorted(
            (x for x in self.lines.values() if x.requests), key=lambda x: x.requests[0].arrival_s
        )

    def start(self, line: Line, size: int, why: Why, now_s: float) -> Start | None:
        load = self.residency.load_s(line.model, now_s)
        evicted = self.residency.use(line.model, now_s, frozenset(self.running))
        if evicted is None:
            return None
        waiting = len(line.requests)
        taken = tuple(line.requests.popleft() for _ in range(size))
        self.running.append(line.model)
        latency = line.served.latency
        return Start(
            model=line.model,
            requests=taken,
            load_s=load,
            expected_s=load + latency.mean_s(size),
            promised_s=load + latency.high_s(size),
            why=why,
            waiting=waiting,
            evicted=evicted,
        )

    def decide(self, now_s: float, rule: Rule) -> Decision:
        """The first line, by its oldest, that the rule lets go; else when to look again."""
        until = NEVER
        for line in self.waiting():
            size, why, again = rule(line, now_s, self.draining)
            if size:
                return Decision(self.start(line, size, why, now_s), NEVER)
            until = min(until, again)
        return Decision(None, until)

    def finished(self, start: Start, service_s: float) -> None:
        self.running.remove(start.model)
        self.lines[start.model].served.latency.observe(
            len(start.requests), max(service_s - start.load_s, 1e-9)
        )


@final
class FixedBatch:
    """Always ``batch`` at a time, as many as the model takes; the last ones go when no more will
    come.
    """

    def __init__(
        self, models: Mapping[str, Served], batch: int, budget_bytes: float = NEVER
    ) -> None:
        if batch < 1:
            raise InputError(f"a batch has at least one item, got {batch}")
        self._lines = _Lines(models, budget_bytes)
        self._batch = batch

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        self._lines.offer(request)
        return ()

    def decide(self, now_s: float) -> Decision:
        return self._lines.decide(now_s, self._rule)

    def _rule(self, line: Line, now_s: float, draining: bool) -> tuple[int, Why, float]:
        size = min(self._batch, line.served.latency.max_batch)
        if len(line.requests) >= size:
            return size, Why.FULL, NEVER
        return (len(line.requests), Why.DRAIN, NEVER) if draining else (0, Why.FULL, NEVER)

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        self._lines.finished(start, service_s)
        return start.requests

    def drain(self) -> None:
        self._lines.draining = True


@final
class MaxDelay:
    """Triton's dynamic batcher: ``batch`` at most, sooner when the oldest has waited ``delay_s``;
    may refuse above ``queue`` waiting.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        batch: int,
        delay_s: float,
        *,
        queue: int | None = None,
        budget_bytes: float = NEVER,
    ) -> None:
        if batch < 1 or delay_s < 0:
            raise InputError(
                f"a batch has at least one item and a delay is not negative, got {batch} and"
                f" {delay_s:g} s"
            )
        self._lines = _Lines(models, budget_bytes)
        self._batch, self._delay_s, self._queue = batch, delay_s, queue

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        if (
            self._queue is not None
            and len(self._lines.lines[request.model].requests) >= self._queue
        ):
            return (Refusal(request, Why.QUEUE, 0.0),)
        self._lines.offer(request)
        return ()

    def decide(self, now_s: float) -> Decision:
        return self._lines.decide(now_s, self._rule)

    def _rule(self, line: Line, now_s: float, draining: bool) -> tuple[int, Why, float]:
        most = min(self._batch, line.served.latency.max_batch)
        size = min(most, len(line.requests))
        if size == most:
            return size, Why.FULL, NEVER
        due = line.requests[0].arrival_s + self._delay_s
        return (
            (size, Why.DRAIN if draining else Why.DELAY, NEVER)
            if draining or now_s >= due
            else (0, Why.DELAY, due)
        )

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        self._lines.finished(start, service_s)
        return start.requests

    def drain(self) -> None:
        self._lines.draining = True


@final
class Aimd:
    """Clipper's adaptive batching (Crankshaw et al., NSDI 2017): the largest batch of each model
    grows by ``step`` while batches take less than the SLO, and shrinks by ``backoff`` when one
    takes longer; what waits goes at once.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        step: int = 1,
        backoff: float = 0.9,
        budget_bytes: float = NEVER,
    ) -> None:
        if step < 1 or not 0 < backoff < 1:
            raise InputError(
                f"a step is at least 1 and a backoff between 0 and 1, got {step} and {backoff:g}"
            )
        self._lines = _Lines(models, budget_bytes)
        self._step, self._backoff = step, backoff
        self._largest = dict.fromkeys(models, 1.0)

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        self._lines.offer(request)
        return ()

    def decide(self, now_s: float) -> Decision:
        return self._lines.decide(now_s, self._rule)

    def _rule(self, line: Line, now_s: float, draining: bool) -> tuple[int, Why, float]:
        most = min(int(self._largest[line.model]), line.served.latency.max_batch)
        return (
            min(len(line.requests), most),
            Why.ALL if len(line.requests) <= most else Why.FULL,
            NEVER,
        )

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        self._lines.finished(start, service_s)
        model, size = start.model, len(start.requests)
        if service_s > self._lines.lines[model].slo_s:
            self._largest[model] = max(1.0, self._largest[model] * self._backoff)
        elif size >= int(self._largest[model]):
            self._largest[model] = min(
                self._largest[model] + self._step, self._lines.lines[model].served.latency.max_batch
            )
        return start.requests

    def drain(self) -> None:
        """Nothing waits for more to come."""


@final
class Clockwork:
    """After Clockwork (Gujarati et al., OSDI 2020): of the batches that still meet their earliest
    deadline, the one that must start first, as large as it can be; what can no longer be met is
    dropped. ``margin`` is how far times are overstated.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        margin: float = 1.0,
        batch: int | None = None,
        budget_bytes: float = NEVER,
    ) -> None:
        if margin <= 0 or (batch is not None and batch < 1):
            raise InputError(
                f"a margin is above 0 and a batch at least 1, got {margin:g} and {batch}"
            )
        self._lines = _Lines(models, budget_bytes)
        self._margin, self._batch = margin, batch

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        self._lines.offer(request)
        waiting = self._lines.lines[request.model].requests
        if len(waiting) > 1 and waiting[-2].deadline_s > request.deadline_s:
            ordered = sorted(waiting, key=lambda r: r.deadline_s)
            waiting.clear()
            waiting.extend(ordered)
        return ()

    def decide(self, now_s: float) -> Decision:
        refused: list[Refusal] = []
        found: tuple[float, int, Line] | None = None
        for line in self._lines.waiting():
            latency = line.served.latency
            begin = now_s + self._lines.residency.load_s(line.model, now_s)
            while (
                line.requests
                and begin + latency.high_s(1) * self._margin > line.requests[0].deadline_s
            ):
                refused.append(Refusal(line.requests.popleft(), Why.LATE, 0.0))
            if not line.requests:
                continue
            slack = (line.requests[0].deadline_s - begin) / self._margin
            size = max(
                1, latency.largest(slack, min(len(line.requests), self._batch or latency.max_batch))
            )
            latest = (
                line.requests[0].deadline_s - (begin - now_s) - latency.high_s(size) * self._margin
            )
            if found is None or latest < found[0]:
                found = latest, size, line
        if found is None:
            return Decision(None, NEVER, tuple(refused))
        return Decision(
            self._lines.start(found[2], found[1], Why.DEADLINE, now_s), NEVER, tuple(refused)
        )

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        self._lines.finished(start, service_s)
        return start.requests

    def drain(self) -> None:
        """Nothing waits for more to come."""
