"""The driver with the real clock: the same policy object, threads that run the batches, and a
record of all that happened.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import TypeVar, final

import numpy as np

from tenfold.errors import InputError
from tenfold.serving.record import NEVER, Decision, Policy, Refusal, Request, Start, Why
from tenfold.serving.simulated import Batch, Log, Outcome

# the clock is read in these, so that sums of times are exact and a recording replays to the bit
TICK = 2.0**-30
LATE = 1.1  # a refused query is answered this many SLOs late where its sender cannot be refused

T = TypeVar("T")
Run = Callable[[Start], Sequence[object]]  # an answer for each of its requests
Done = Callable[[Sequence[Request], Sequence[object] | None], None]  # None: refused


@dataclass(frozen=True, slots=True)
class Recording:
    """What came when, how long each batch took in the order they began, what was decided, and when
    it was known that no more would come.
    """

    requests: tuple[Request, ...]
    service_s: tuple[float, ...]
    decisions: tuple[tuple[float, Decision], ...]
    drained_s: float


@final
class Recorder:
    """What happened, to look at or to replay: the last ``most`` requests, batches, refusals and
    decisions, all of them where it is None. A server that runs for ever is given a number.
    """

    def __init__(self, most: int | None = None) -> None:
        if most is not None and most < 1:
            raise InputError(f"a recorder keeps at least 1 of each, or all (None), got {most}")
        self._most = most
        self._requests: deque[Request] = deque(maxlen=most)
        self._finish: dict[int, tuple[Outcome, float]] = {}
        self._service: dict[int, float] = {}
        self._decisions: deque[tuple[float, Decision]] = deque(maxlen=most)
        self._batches: deque[Batch] = deque(maxlen=most)
        self._refusals: deque[Refusal] = deque(maxlen=most)
        self._drained_s = NEVER
        self._lost = False  # whether anything was dropped

    def _keep(self, kept: deque[T], item: T) -> None:
        self._lost |= len(kept) == self._most
        kept.append(item)

    def came(self, request: Request) -> None:
        if len(self._requests) == self._most:
            self._finish.pop(self._requests[0].id, None)
        self._keep(self._requests, request)

    def decided(self, now_s: float, decision: Decision) -> None:
        self._keep(self._decisions, (now_s, decision))

    def began(self, number: int) -> None:
        """The batch of that number, counted from 0; how long it took comes with its end."""
        if len(self._service) == self._most:
            self._lost = True
            del self._service[next(iter(self._service))]
        self._service[number] = 0.0

    def ended(self, number: int, batch: Batch) -> None:
        if number in self._service:
            self._service[number] = batch.ended_s - batch.began_s
        self._keep(self._batches, batch)

    def refused(self, refusal: Refusal, now_s: float) -> None:
        self._keep(self._refusals, refusal)
        self._left(refusal.request, Outcome.REFUSED, now_s)

    def answered(self, request: Request, now_s: float) -> None:
        self._left(request, Outcome.ANSWERED, now_s)

    def _left(self, request: Request, outcome: Outcome, now_s: float) -> None:
        kept = self._requests and request.id >= self._requests[0].id
        if kept and not request.shadow:
            self._finish[request.id] = (outcome, now_s)

    def drained(self, now_s: float) -> None:
        self._drained_s = min(self._drained_s, now_s)

    def recording(self) -> Recording:
        """To replay; raises InputError where the beginning is no longer there."""
        if self._lost:
            raise InputError(
                f"a recorder of the last {self._most} has no beginning to replay from: give it"
                " more, or None to keep all"
            )
        return Recording(
            tuple(self._requests),
            tuple(self._service.values()),
            tuple(self._decisions),
            self._drained_s,
        )

    def log(self, workers: int) -> Log:
        """The run in the form of a simulated one."""
        waiting = (Outcome.WAITING, float("nan"))
        states = [self._finish.get(r.id, waiting) for r in self._requests]
        return Log(
            requests=tuple(self._requests),
            outcome=np.array([s for s, _ in states], dtype=np.int8),
            finish_s=np.array([t for _, t in states], dtype=float),
            batches=tuple(self._batches),
            refusals=tuple(self._refusals),
            ended_s=max((b.ended_s for b in self._batches), default=0.0),
            workers=workers,
        )


@final
class Server:
    """Drives a policy in real time. ``arrive`` may be called from any thread, with what the model
    is given; ``run`` works off a batch or a step and returns an answer for each of its requests;
    ``done`` is called outside of the lock, from a worker's thread with the answers of those that
    the policy says are done, and from whichever thread learned of it for what was refused.
    ``recorder`` keeps what happened, everything by default.
    """

    def __init__(
        self,
        policy: Policy,
        run: Run,
        done: Done,
        workers: int = 1,
        recorder: Recorder | None = None,
    ) -> None:
        self._policy, self._run, self._done = policy, run, done
        self._recorder = recorder or Recorder()
        self._lock = threading.Condition()
        self._work: SimpleQueue[tuple[Start, float, int] | None] = SimpleQueue()
        self._free = workers
        self._workers = workers
        self._wake = NEVER
        self._closed = False
        self._zero = time.perf_counter()
        self._open: dict[int, Request] = {}  # those that wait or are served
        self._came = self._began = 0
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work_off, daemon=True) for _ in range(workers)
        ]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))
        for thread in self._threads:
            thread.start()

    def now_s(self) -> float:
        return int((time.perf_counter() - self._zero) / TICK) * TICK

    def arrive(
        self, tenant: str, model: str, slo_s: float, priority: int = 0, payload: object = None
    ) -> Request:
        """One request comes, now."""
        with self._lock:
            now = self.now_s()
            refused = self._overdue(now)
            record = Request(self._came, tenant, model, now, now + slo_s, priority)
            self._came += 1
            self._recorder.came(record)
            request = replace(record, payload=payload)
            self._open[request.id] = request
            failed = self._failure is not None
            mine = (
                [Refusal(request, Why.FAILED, NEVER)]
                if failed
                else self._policy.offer(request, now)
            )
            self._note(mine, now)
            refused += mine
            if not failed:
                refused += self._ask(now)
        self._tell(refused)
        return request

    def _overdue(self, now: float) -> list[Refusal]:
        """What the policy wanted to be asked at a time that has passed comes first, as on the
        simulated clock. Holds the lock.
        """
        if self._wake > now or self._failure is not None:
            return []
        at, self._wake = self._wake, NEVER
        return self._ask(at)

    def _note(self, refused: Sequence[Refusal], now: float) -> None:
        for r in refused:
            self._recorder.refused(r, now)
            if not r.request.shadow:
                self._open.pop(r.request.id, None)

    def _tell(self, refused: Sequence[Refusal]) -> None:
        gone = [r.request for r in refused if not r.request.shadow]
        if gone:
            self._done(gone, None)

    def _ask(self, now: float) -> list[Refusal]:
        """Ask the policy as long as a worker is free and it starts something. Holds the lock."""
        refused: list[Refusal] = []
        while self._free:
            decision = self._policy.decide(now)
            self._recorder.decided(now, decision)
            self._note(decision.refused, now)
            refused += decision.refused
            if decision.start is None:
                self._wake = decision.wait_until_s
                self._lock.notify_all()
                break
            self._free -= 1
            self._wake = NEVER
            self._recorder.began(self._began)
            self._work.put((decision.start, now, self._began))
            self._began += 1
        return refused

    def _work_off(self) -> None:
        while (item := self._work.get()) is not None:
            try:
                self._work_one(*item)
            except BaseException as error:  # told to whoever waits for the end
                self._fail(error)
                return

    def _work_one(self, start: Start, began: float, number: int) -> None:
        answers = dict(zip(start.requests, self._run(start), strict=True))
        with self._lock:
            end = self.now_s()
            early = self._overdue(end)
            done = self._policy.finished(start, end, end - began)
            self._recorder.ended(number, Batch(start, began, end))
            # one that a failure elsewhere has refused meanwhile is not answered too
            answered = [r for r in done if not r.shadow and r.id in self._open]
            for r in answered:
                self._recorder.answered(r, end)
                del self._open[r.id]
            self._free += 1
            refused = early + self._ask(end)
            self._lock.notify_all()
        if answered:
            self._done(answered, [answers[r] for r in answered])
        self._tell(refused)

    def _fail(self, error: BaseException) -> None:
        """Nobody is left waiting: what is open is refused, and what comes later too."""
        with self._lock:
            now = self.now_s()
            self._failure = error
            left = [Refusal(r, Why.FAILED, NEVER) for r in self._open.values()]
            self._note(left, now)
            self._closed = True
            self._lock.notify_all()
        self._tell(left)

    def _watch(self) -> None:
        """Asks again when the policy wanted to be asked again."""
        while True:
            with self._lock:
                while not self._closed and self.now_s() < self._wake:
                    left = self._wake - self.now_s()
                    self._lock.wait(None if left == NEVER else max(left, 0.0))
                if self._closed:
                    return
                refused = self._overdue(self.now_s())
            self._tell(refused)

    def drain(self) -> None:
        """Nothing more will come: what waits for company goes."""
        with self._lock:
            now = self.now_s()
            refused = self._overdue(now)
            if self._failure is None:
                self._policy.drain()
                self._recorder.drained(now)
                refused += self._ask(now)
        self._tell(refused)

    def close(self) -> None:
        """Finish what waits, stop the threads. Raises what a worker died of."""
        self.drain()
        with self._lock:
            while self._open and self._failure is None:
                self._lock.wait(0.2)
            self._closed = True
            self._lock.notify_all()
        for _ in range(self._workers):
            self._work.put(None)
        for thread in self._threads:
            thread.join(timeout=30)
        if self._failure is not None:
            raise self._failure

    def recording(self) -> Recording:
        """After ``close``. Raises InputError where the recorder has not kept the beginning."""
        return self._recorder.recording()

    def log(self) -> Log:
        """The run in the form of a simulated one, as far as the recorder kept it. After
        ``close``.
        """
        return self._recorder.log(self._workers)


@final
class Replay:
    """A recording as source and service times for the simulated clock: requests at the same
    moments, batches as long as they were.
    """

    def __init__(self, recording: Recording) -> None:
        self._requests = recording.requests
        self._service = iter(recording.service_s)
        self._next = 0

    def peek_s(self) -> float:
        return self._requests[self._next].arrival_s if self._next < len(self._requests) else NEVER

    def pop(self) -> Request:
        self._next += 1
        return self._requests[self._next - 1]

    def answered(self, request: Request, now_s: float, retry_s: float = 0.0) -> None:
        """What was recorded does not listen."""

    def exhausted(self) -> bool:
        return self._next >= len(self._requests)

    def seconds(self, model: str, batch: int) -> float:
        return next(self._service)


@final
class Later:
    """Calls functions when their time has come, from one thread; what is left is called at the
    end.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def call(self, delay_s: float, what: Callable[[], None]) -> None:
        with self._lock:
            self._count += 1
            heapq.heappush(self._due, (time.perf_counter() + delay_s, self._count, what))
            self._lock.notify()

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._closed and (not self._due or self._due[0][0] > time.perf_counter()):
                    self._lock.wait(self._due[0][0] - time.perf_counter() if self._due else None)
                if not self._due:
                    return
                what = heapq.heappop(self._due)[2]
            what()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify()
        self._thread.join(timeout=30)
