"""The policy that holds a p99 with no knob but the SLO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from tenfold.errors import InputError
from tenfold.serving.latency import Latency
from tenfold.serving.queue import Account, Key, Queue, key_of
from tenfold.serving.record import Decision, Refusal, Request, Start, Why
from tenfold.serving.residency import Residency, Weights

NEVER = float("inf")
_MOST_DISPLACED = 64
LATE_BUDGET = 0.005  # of the answers: half of what a p99 allows
CAUTION_STEP = 0.1  # more caution for an answer that came late
MOST_CAUTION = 1.5


@dataclass(frozen=True, slots=True)
class Served:
    """A model as the policy sees it."""

    latency: Latency
    weights: Weights = field(default_factory=Weights)


@final
class SloPolicy:
    """Earliest deadline first, in the batch with the best throughput that meets every deadline in it.

    A request is admitted if, with all that is ahead of it and as many companions as the present rate brings, it would be answered in
    time, and nobody behind it would become late: in the mean, or as much nearer to the high quantile as answers come late, so that one in
    two hundred does. Where it would not, a tenant that had less than its weighted share takes the place of
    one that had more; else it is refused at once. Between models a batch is no longer than the others can wait for.
    """

    def __init__(
        self, models: Mapping[str, Served], tenants: Mapping[str, float], *, workers: int = 1, budget_bytes: float = NEVER
    ) -> None:
        """``tenants`` to weights. Raises InputError for none of either, a weight that is not above 0, or a model that never fits."""
        if not models or not tenants:
            raise InputError("a policy needs at least one model and one tenant")
        self._queues = {n: Queue(n, m.latency) for n, m in models.items()}
        self._many = len(models) > 1
        self._accounts = {n: Account(n, w) for n, w in tenants.items()}
        self._residency = Residency({n: m.weights for n, m in models.items()}, budget_bytes)
        self._workers = workers
        self._running: list[tuple[float, str]] = []  # expected end, model
        self._caution = 0.0  # 0: by the mean, 1: by the high quantile

    # -- arrivals

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        queue = self._queues[request.model]
        queue.arrived(request, now_s)
        account = self._accounts[request.tenant]
        if not account.waiting:
            account.served_s = max(account.served_s, self._least_tag())
        key = key_of(request)
        if self._fits(queue, request, key, now_s):
            self._push(queue, request, key)
            return ()
        if request.shadow:
            return (Refusal(request, Why.SHADOW, 0.0),)
        return self._contend(queue, request, key, now_s)

    def _push(self, queue: Queue, request: Request, key: Key) -> None:
        queue.push(request, key)
        account = self._accounts[request.tenant]
        account.waiting += 1
        account.queued_s += self._cost_s(queue) / account.weight

    def _leave(self, queue: Queue, requests: Sequence[Request]) -> None:
        """Take what left ``queue`` off its tenants' accounts."""
        cost = self._cost_s(queue)
        for r in requests:
            account = self._accounts[r.tenant]
            account.waiting -= 1
            account.queued_s = max(account.queued_s - cost / account.weight, 0.0) if account.waiting else 0.0

    def _likely_s(self, latency: Latency, batch: int) -> float:
        """The time that admission counts on for a batch."""
        mean = latency.mean_s(batch)
        return mean + self._caution * (latency.high_s(batch) - mean)

    @staticmethod
    def _cost_s(queue: Queue) -> float:
        return queue.latency.mean_s(queue.cruise) / queue.cruise

    def _least_tag(self) -> float:
        return min((a.served_s for a in self._accounts.values() if a.waiting), default=0.0)

    def _free_at(self, now_s: float) -> float:
        if len(self._running) < self._workers:
            return now_s
        return max(now_s, min(end for end, _ in self._running))

    def _fits(self, queue: Queue, request: Request, key: Key, now_s: float) -> bool:
        start = self._free_at(now_s)
        if not self._many:
            return self._finish(queue, queue.place(key), request.deadline_s, start, now_s) <= request.deadline_s
        start += self._ahead_s(queue, key)
        if self._finish(queue, queue.place(key), request.deadline_s, start, now_s) > request.deadline_s:
            return False
        return self._spares_those_behind(queue, key, now_s)

    def _ahead_s(self, queue: Queue, key: Key) -> float:
        """Work for other models that goes before ``key``, over the workers, and the loading of ``queue``'s own."""
        work = self._residency.load_s(queue.model)
        for other in self._queues.values():
            if other is not queue and len(other):
                work += self._clear_s(other, other.place(key))
        return work / self._workers

    def _clear_s(self, queue: Queue, count: int) -> float:
        """Mean time for the first ``count``, at the batch that suits the present rate."""
        if not count:
            return 0.0
        whole, rest = divmod(count, queue.cruise)
        mean = queue.latency.mean_s
        return self._residency.load_s(queue.model) + whole * mean(queue.cruise) + (mean(rest) if rest else 0.0)

    def _finish(self, queue: Queue, place: int, deadline_s: float, start_s: float, now_s: float) -> float:
        """When the request at ``place`` is likely answered, if the model's turn comes at ``start_s``.

        Where the present rate fills the batch by then, the batch is taken as full and all times by their high quantile: a backlog whose
        head has no slack for a full batch is worked off in small ones, which costs throughput.
        """
        latency = queue.latency
        count, spread = place + 1, 0.0
        if place:
            slack = queue[0].deadline_s - start_s
            first = latency.best(latency.largest(slack, count) or 1)
            if first < count:
                count -= first
                whole, rest = divmod(count - 1, queue.widest)
                widest = latency.mean_s(queue.widest)
                start_s += (latency.mean_s(first) + whole * widest) / self._workers
                # the high quantile of a sum of independent times: its spread grows as the root of their number
                spread = (latency.high_s(queue.widest) - widest) * (math.sqrt(whole + 2) - 1)
                count = rest + 1
        likely = start_s + self._caution * spread + self._likely_s(latency, min(count, latency.max_batch))
        full = min(count + int((start_s - now_s) / queue.gap_s), queue.cruise)
        return likely if full <= count else max(likely, start_s + spread + latency.high_s(full))

    def _spares_those_behind(self, queue: Queue, key: Key, now_s: float) -> bool:
        """Whether the first of each other model that would be served after ``key`` stays in time with it."""
        extra = self._cost_s(queue) if len(queue) else queue.latency.mean_s(1) + self._residency.load_s(queue.model)
        free = self._free_at(now_s)
        for other in self._queues.values():
            if other is queue or not len(other):
                continue
            place = other.place(key)
            if place == len(other):
                continue
            behind = other[place]
            start = free + self._ahead_s(other, key_of(behind)) + self._clear_s(other, place) / self._workers
            late = start + self._likely_s(other.latency, 1) - behind.deadline_s
            if late <= 0 < late + extra / self._workers:
                return False
        return True

    def _contend(self, queue: Queue, request: Request, key: Key, now_s: float) -> Sequence[Refusal]:
        """Refuse the newcomer, or those of the tenant that had most of its share, newest first, where that helps the newcomer."""
        if self._likely_s(queue.latency, 1) > request.deadline_s - now_s:
            return (Refusal(request, Why.ALONE, NEVER),)
        mine = self._accounts[request.tenant]
        tag = mine.tag_s + self._cost_s(queue) / mine.weight
        over = [a for a in self._accounts.values() if a.waiting and a is not mine and a.tag_s > tag]
        displaced: list[tuple[Queue, Request]] = []
        while over and len(displaced) < _MOST_DISPLACED:
            victim = max(over, key=lambda a: a.tag_s)
            found = self._newest(victim.name)
            if found is None or victim.tag_s <= tag:
                break
            other, at = found
            gone = other.take(1, at)
            self._leave(other, gone)
            displaced.append((other, gone[0]))
            if self._fits(queue, request, key, now_s):
                self._push(queue, request, key)
                retry = max(self._free_at(now_s) - now_s, 0.0)
                return [Refusal(r, Why.SHARE, retry) for _, r in displaced]
            over = [a for a in over if a.waiting]
        for other, r in displaced:
            self._push(other, r, key_of(r))
        others = any(a.waiting and a is not mine for a in self._accounts.values())
        why = Why.SHARE if others and all(a.tag_s <= tag for a in self._accounts.values() if a.waiting and a is not mine) else Why.QUEUE
        late = self._finish(queue, queue.place(key), request.deadline_s, self._free_at(now_s) + self._ahead_s(queue, key), now_s)
        return (Refusal(request, why, max(late - request.deadline_s, 0.0)),)

    def _newest(self, tenant: str) -> tuple[Queue, int] | None:
        """The tenant's request that would be served last, among the last few of each queue."""
        found: tuple[Key, Queue, int] | None = None
        for queue in self._queues.values():
            for place in range(len(queue) - 1, max(len(queue) - _MOST_DISPLACED, 0) - 1, -1):
                r = queue[place]
                if r.tenant == tenant:
                    if found is None or key_of(r) > found[0]:
                        found = (key_of(r), queue, place)
                    break
        return found[1:] if found else None

    # -- a free worker

    def decide(self, now_s: float) -> Decision:
        refused: list[Refusal] = []
        while True:
            queue = self._next(now_s)
            if queue is None:
                return Decision(None, NEVER, tuple(refused))
            load = self._residency.load_s(queue.model)
            head = queue[0]
            if now_s + load + self._likely_s(queue.latency, 1) > head.deadline_s:
                gone = queue.take(1)
                self._leave(queue, gone)
                refused.append(Refusal(head, Why.LATE, NEVER if head.shadow else 0.0))
                self._learn(late=True)
                continue
            drop, size, why = self._batch(queue, now_s + load)
            if drop:
                gone = queue.take(drop)
                self._leave(queue, gone)
                refused += [Refusal(r, Why.SACRIFICE, 0.0) for r in gone]
                for _ in gone:
                    self._learn(late=True)
            pinned = frozenset(m for _, m in self._running)
            evicted = self._residency.use(queue.model, now_s, pinned)
            if evicted is None:
                return Decision(None, NEVER, tuple(refused))
            waiting = len(queue)
            taken = queue.take(size)
            self._leave(queue, taken)
            mean, high = queue.latency.mean_s(size), queue.latency.high_s(size)
            self._running.append((now_s + load + mean, queue.model))
            return Decision(Start(queue.model, taken, load, load + mean, load + high, why, waiting, evicted), NEVER, tuple(refused))

    def _next(self, now_s: float) -> Queue | None:
        """The model of the first in the order of service; one whose weights are away waits as long as it can while others have work."""
        if not self._many:
            queue = next(iter(self._queues.values()))
            return queue if len(queue) else None
        waiting = sorted((q for q in self._queues.values() if len(q)), key=lambda q: key_of(q[0]))
        if not waiting:
            return None
        for queue in waiting:
            load = self._residency.load_s(queue.model)
            if not load:
                return queue
            resident = [q for q in waiting if not self._residency.load_s(q.model)]
            longest = max((q.latency.mean_s(min(len(q), q.cruise)) for q in resident), default=0.0)
            latest = queue[0].deadline_s - queue.latency.high_s(min(len(queue), queue.latency.max_batch)) - load
            if not resident or now_s + longest >= latest:
                return queue
        return waiting[0]

    def _batch(self, queue: Queue, start_s: float) -> tuple[int, int, Why]:
        """How many of the first to give up, how many then to run, and what set that number."""
        latency = queue.latency
        real = queue.real()
        count = real or len(queue)
        limit = max(latency.largest(queue[0].deadline_s - start_s, count), 1)
        drop = 0
        if limit < count and limit < queue.cruise:
            drop, limit = self._sacrifice(queue, start_s, count, limit)
        why = Why.ALL if limit == count - drop else Why.LARGEST if limit == latency.max_batch else Why.DEADLINE
        if self._many:
            room = self._room_s(queue, start_s)
            if room < latency.high_s(limit):
                limit, why = max(latency.largest(room, limit), 1), Why.OTHERS
        size = latency.best(limit)
        return drop, size, why if size == limit else Why.THROUGHPUT

    def _sacrifice(self, queue: Queue, start_s: float, count: int, limit: int) -> tuple[int, int]:
        """Give up the first few where the larger batch without them answers more: items less the time they take at the best rate."""
        latency = queue.latency
        rate = queue.cruise / latency.mean_s(queue.cruise)
        best, top = (0, limit), limit - rate * latency.mean_s(limit)
        for drop in range(1, min(count, 2 * queue.cruise)):
            size = latency.largest(queue[drop].deadline_s - start_s, count - drop)
            value = size - drop - rate * latency.mean_s(max(size, 1))
            if size and value > top + 1e-9:
                best, top = (drop, size), value
            if size >= queue.cruise:
                break
        return best

    def _room_s(self, queue: Queue, start_s: float) -> float:
        """How long a batch may take so that what waits for other models, or is about to come, is still in time."""
        room = NEVER
        for other in self._queues.values():
            if other is queue:
                continue
            alone = other.latency.high_s(other.cruise) + self._residency.load_s(other.model)
            if len(other):
                slack = other[0].deadline_s - start_s - other.latency.high_s(1) - self._residency.load_s(other.model)
                room = min(room, slack if slack > 0 else NEVER)
            elif start_s - other.last_s < 20 * other.gap_s:
                room = min(room, max(other.slo_s - alone, 0.0) or NEVER)
        return room

    def finished(self, start: Start, now_s: float, service_s: float) -> None:
        for i, (_, model) in enumerate(self._running):
            if model == start.model:
                del self._running[i]
                break
        queue = self._queues[start.model]
        queue.latency.observe(len(start.requests), max(service_s - start.load_s, 1e-9))
        part = service_s / len(start.requests)
        for r in start.requests:
            account = self._accounts[r.tenant]
            account.served_s += part / account.weight
            self._learn(late=now_s > r.deadline_s)

    def _learn(self, *, late: bool) -> None:
        """A promise was kept or broken; what was admitted and given up later is a broken one."""
        self._caution += CAUTION_STEP * ((1 - LATE_BUDGET) if late else -LATE_BUDGET)
        self._caution = min(max(self._caution, 0.0), MOST_CAUTION)

    def drain(self) -> None:
        """Nothing waits for more to come."""
