"""The policy that holds a p99 with no knob but the SLO."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from tenfold.errors import InputError
from tenfold.serving.batching import SHORTER, Batching
from tenfold.serving.latency import Latency
from tenfold.serving.queue import LIVE_GAPS, Key, Queue, key_of
from tenfold.serving.record import NEVER, Decision, Refusal, Request, Start, Why
from tenfold.serving.residency import Residency, Weights
from tenfold.serving.shares import Shares

_MOST_DISPLACED = 64  # at a time
_MOST_LOOKED = 256  # of a queue, for some that yield
_LOOKS = 32  # at those behind a newcomer
LEAST_MARGIN = 0.1  # of the mean, between it and the high quantile that admission counts with
EARLY_SHARE = 0.25  # of the SLO, at most
EARLY_BATCHES = 1.0  # of the largest
# times what a chip can do in such batches: the rate over the last arrivals is known to a twentieth
KEEPS_UP = 1.1
LEAST_LEFT = 0.1  # of the chip, for the choice of a batch


@dataclass(frozen=True, slots=True)
class Served:
    """A model as the policy sees it."""

    latency: Latency
    weights: Weights = field(default_factory=Weights)


def _turn(key: Key, queue: Queue) -> Key:
    """The order between models: by the latest start of a batch."""
    return key[0], key[1] - queue.lead_s


def _for(key: Key, queue: Queue, other: Queue) -> Key:
    """The key in ``other`` that has the same turn as ``key`` has in ``queue``."""
    return key if other is queue else (key[0], key[1] - queue.lead_s + other.lead_s)


@final
class SloPolicy:
    """Earliest deadline first, in the batch with the best throughput that meets every deadline in
    it.

    A request is admitted if, with all that is ahead of it and as many companions as the present
    rate brings, it would be answered in time, and nobody behind it would become late: in the mean,
    or as much nearer to the high quantile as answers come late, so that one in five hundred does.
    Where it would not, it takes the places of those that have less right to them
    (``Shares.yielding``); else it is refused at once. A batch is no longer than others, waiting or
    about to come, can wait for.
    """

    def __init__(
        self,
        models: Mapping[str, Served],
        tenants: Mapping[str, float],
        *,
        workers: int = 1,
        budget_bytes: float = NEVER,
    ) -> None:
        """``tenants`` to weights. Raises InputError for none of either, a weight that is not above
        0, or a model that never fits.
        """
        if not models or not tenants:
            raise InputError("a policy needs at least one model and one tenant")
        self._queues = {n: Queue(n, m.latency) for n, m in models.items()}
        self._many = len(models) > 1
        self._shares = Shares(tenants, self._queues, workers)
        self._residency = Residency({n: m.weights for n, m in models.items()}, budget_bytes)
        self._batching = Batching(self._queues, self._shares, self._residency)
        self._workers = workers
        self._running: list[tuple[float, str]] = []  # expected end, model
        self._promised_s = 0.0  # when the last one that ``_fits`` looked at would be answered

    # -- arrivals

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        queue = self._queues[request.model]
        if queue.arrived(request, now_s):
            queue.suit(self._left(queue, now_s))
        self._shares.arrived(request, now_s)
        key = self._key(queue, request)
        if self._fits(queue, request, key, now_s):
            self._push(queue, request, key)
            refused: Sequence[Refusal] = ()
        elif request.shadow:
            return (Refusal(request, Why.SHADOW, 0.0),)
        else:
            refused = self._contend(queue, request, key, now_s)
        self._shares.turned_away(len(refused))
        return refused

    def _key(self, queue: Queue, request: Request) -> Key:
        """The order of service: earliest deadline first; where others ask for too much, who does
        not goes a little before its turn, so that whatever comes late is theirs.
        """
        rank, deadline = key_of(request)
        slo = deadline - request.arrival_s
        # goes first as it is, in short batches
        short = queue.most < queue.latency.max_batch and slo < SHORTER * queue.longest_slo_s
        if self._shares.overloaded and not short and not self._shares.over(request.tenant):
            deadline -= min(EARLY_SHARE * slo, EARLY_BATCHES * queue.latency.mean_s(queue.widest))
        return rank, deadline

    def _left(self, queue: Queue, now_s: float) -> float:
        """Of a worker, for ``queue``: what other models leave, and no less than its tenants'
        weights are worth.
        """
        others = sum(
            q.load
            for q in self._queues.values()
            if q is not queue and now_s - q.last_s < LIVE_GAPS * q.gap_s
        )
        return max(1.0 - others / self._workers, self._shares.worth(queue.model, now_s), LEAST_LEFT)

    def _push(self, queue: Queue, request: Request, key: Key) -> None:
        queue.push(request, key)
        self._shares.queued(request, queue.cost_s)

    def _leave(self, queue: Queue, requests: Sequence[Request]) -> None:
        """Take what left ``queue`` off its tenants' accounts."""
        self._shares.left(requests, queue.cost_s)

    def _likely_s(self, latency: Latency, batch: int, tenant: str) -> float:
        """The time that admission counts on for a batch with a request of ``tenant`` in it."""
        return latency.mean_s(batch) + min(self._shares.caution(tenant), 1.0) * self._margin_s(
            latency, batch
        )

    def _soonest_s(self, queue: Queue) -> float:
        """What the first in a queue counts on: the likely time, or the mean where nothing else
        would run in its place.
        """
        alone = (
            len(queue) == 1
            and not self._running
            and sum(len(q) for q in self._queues.values()) == 1
        )
        return (
            queue.latency.mean_s(1) if alone else self._likely_s(queue.latency, 1, queue[0].tenant)
        )

    @staticmethod
    def _margin_s(latency: Latency, batch: int) -> float:
        """From the mean to the high quantile, a tenth of the mean at least: what is ahead is never
        known exactly.
        """
        mean = latency.mean_s(batch)
        return max(latency.high_s(batch) - mean, LEAST_MARGIN * mean)

    def _free_at(self, now_s: float) -> float:
        if len(self._running) < self._workers:
            return now_s
        return max(now_s, min(end for end, _ in self._running))

    def _fits(self, queue: Queue, request: Request, key: Key, now_s: float) -> bool:
        # nothing to lose: it may be in time
        if not self._running and not any(len(q) for q in self._queues.values()):
            self._promised_s = (
                now_s + self._residency.load_s(queue.model, now_s) + queue.latency.mean_s(1)
            )
            return self._promised_s <= request.deadline_s
        start, place = self._free_at(now_s), queue.place(key)
        between = 0.0
        if self._many:
            whole = self._ahead_s(queue, key, now_s)
            ahead = self._ahead_s(queue, queue.key(0), now_s) if place else whole
            start, between = start + ahead, whole - ahead
        self._promised_s = self._finish(queue, place, request, start, now_s, between)
        if self._promised_s > request.deadline_s:
            return False
        if place < len(queue) and not self._own_stay_in_time(queue, place, start, request):
            return False
        return not self._many or self._others_stay_in_time(queue, key, now_s)

    def _own_stay_in_time(
        self, queue: Queue, place: int, start_s: float, newcomer: Request
    ) -> bool:
        """Whether those of the same model that would be served after ``place`` stay in time with
        one more: some of them looked at.

        One that seems late already is let be, unless the newcomer's place would be its: then nobody
        goes before it.
        """
        latency, cruise = queue.latency, queue.widest
        extra = latency.mean_s(cruise) / cruise / self._workers
        for at in range(place, len(queue), max(1, (len(queue) - place) // _LOOKS)):
            whole, rest = divmod(at, cruise)
            behind = queue[at]
            done = (
                start_s
                + whole * latency.mean_s(cruise) / self._workers
                + self._likely_s(latency, rest + 1, behind.tenant)
            )
            if behind.shadow:
                return True
            if behind.deadline_s < done + extra and (
                done <= behind.deadline_s or self._shares.before(behind, newcomer)
            ):
                return False
        return True

    def _ahead_s(self, queue: Queue, key: Key, now_s: float) -> float:
        """Work for other models that goes before ``key``, over the workers, and the loading of
        ``queue``'s own.
        """
        work = self._residency.load_s(queue.model, now_s)
        for other in self._queues.values():
            if other is not queue and len(other):
                # whoever is ahead brings companions along
                place = other.place(_for(key, queue, other))
                work += self._clear_s(
                    other, min(len(other), -(-place // other.cruise) * other.cruise), now_s
                )
        return work / self._workers

    def _clear_s(self, queue: Queue, count: int, now_s: float) -> float:
        """Mean time for the first ``count``, at the batch that suits the present rate."""
        if not count:
            return 0.0
        whole, rest = divmod(count, queue.cruise)
        mean = queue.latency.mean_s
        return (
            self._residency.load_s(queue.model, now_s)
            + whole * mean(queue.cruise)
            + (mean(rest) if rest else 0.0)
        )

    def _finish(
        self,
        queue: Queue,
        place: int,
        request: Request,
        start_s: float,
        now_s: float,
        between_s: float,
    ) -> float:
        """When ``request``, at ``place``, is likely answered, if the model's turn comes at
        ``start_s``, and after its first batch others take ``between_s`` before this one's.

        Where the present rate fills the batch by then, the batch is taken as full and all times by
        their high quantile: a backlog whose head has no slack for a full batch is worked off in
        small ones, which costs throughput. Not while nobody is turned away and the chip keeps up in
        batches as small as this request would need.
        """
        latency, caution = queue.latency, self._shares.caution(request.tenant)
        count, spread, ahead = place + 1, 0.0, 1.0
        if place:
            slack = queue[0].deadline_s - start_s
            first = latency.best(latency.largest(slack, count) or 1)
            if first < count:
                count -= first
                whole, rest = divmod(count - 1, queue.widest)
                widest = latency.mean_s(queue.widest)
                start_s += (latency.mean_s(first) + whole * widest) / self._workers + between_s
                # the high quantile of a sum of independent times: its spread grows as the root of
                # their number
                ahead += whole + 1 + (start_s - now_s) / max(widest, 1e-9) * self._many
                spread = self._margin_s(latency, queue.widest) * (math.sqrt(ahead) - 1)
                count = rest + 1
        likely = (
            start_s
            + min(caution, 1.0) * spread
            + self._likely_s(latency, min(count, latency.max_batch), request.tenant)
        )
        full = min(count + int((start_s - now_s) / queue.gap_s), queue.cruise)
        if full <= count or (
            self._shares.all_served
            and self._keeps_up(queue, latency.largest(request.deadline_s - start_s, full))
        ):
            return likely
        more = (
            max(caution - 1.0, 0.0) * LEAST_MARGIN * latency.mean_s(queue.widest) * math.sqrt(ahead)
        )
        return max(
            likely, start_s + latency.mean_s(full) + spread + self._margin_s(latency, full) + more
        )

    def _keeps_up(self, queue: Queue, batch: int) -> bool:
        return (
            batch > 0
            and queue.latency.mean_s(batch) < KEEPS_UP * batch * self._workers * queue.steady_gap_s
        )

    def _others_stay_in_time(self, queue: Queue, key: Key, now_s: float) -> bool:
        """Whether the first of each other model that would be served after ``key`` stays in time
        with it.
        """
        extra = (
            queue.cost_s
            if len(queue)
            else queue.latency.mean_s(1) + self._residency.load_s(queue.model, now_s)
        )
        free = self._free_at(now_s)
        for other in self._queues.values():
            if other is queue or not len(other):
                continue
            place = other.place(_for(key, queue, other))
            if place == len(other):
                continue
            behind = other[place]
            if behind.shadow:
                continue
            start = (
                free
                + self._ahead_s(other, other.key(place), now_s)
                + self._clear_s(other, place, now_s) / self._workers
            )
            late = start + self._likely_s(other.latency, 1, behind.tenant) - behind.deadline_s
            if late <= 0 < late + extra / self._workers:
                return False
        return True

    def _contend(self, queue: Queue, request: Request, key: Key, now_s: float) -> Sequence[Refusal]:
        """Refuse the newcomer, or those in its way that have less right to their places, the
        nearest first, where that lets it in.
        """
        if queue.latency.mean_s(1) > request.deadline_s - now_s:
            return (Refusal(request, Why.ALONE, NEVER),)
        displaced: list[tuple[Queue, Request, Key]] = []
        late_s = self._promised_s - request.deadline_s
        step = 1
        while step <= _MOST_DISPLACED:
            found = self._displace(queue, request, key, step)
            displaced += found
            if not found:
                break
            if self._fits(queue, request, key, now_s):
                self._push(queue, request, key)
                kept = [d for d in reversed(displaced[:-1]) if not self._taken_back(*d, now_s)]
                retry = max(self._free_at(now_s) - now_s, 0.0)
                return [Refusal(r, Why.SHARE, retry) for _, r, _ in (*kept, displaced[-1])]
            step = max(1, len(displaced))
        for other, r, old in displaced:
            self._push(other, r, old)
        why = (
            Why.SHARE
            if self._shares.over(request.tenant) and self._shares.others_wait(request.tenant)
            else Why.QUEUE
        )
        return (Refusal(request, why, max(late_s, 0.0)),)

    def _displace(
        self, queue: Queue, request: Request, key: Key, count: int
    ) -> list[tuple[Queue, Request, Key]]:
        """Take up to ``count`` requests that yield to ``request``: those before it, the nearest
        first, its own model's first; then those after it.
        """
        found: list[tuple[Queue, Request, Key]] = []
        yielding = self._shares.yielding(request, queue)
        if not yielding:
            return found
        queues = [queue, *(q for q in self._queues.values() if q is not queue)]
        for before in (True, False):
            for q in queues:
                place = q.place(_for(key, queue, q))
                span = (
                    range(place - 1, max(place - _MOST_LOOKED, 0) - 1, -1)
                    if before
                    else range(place, min(place + _MOST_LOOKED, len(q)))
                )
                willing = (at for at in span if (q[at].tenant, q[at].priority) in yielding)
                chosen = list(itertools.islice(willing, count - len(found)))
                for at in sorted(chosen, reverse=True):
                    old = q.key(at)
                    gone = q.take(1, at)
                    self._leave(q, gone)
                    found.append((q, gone[0], old))
                if len(found) == count:
                    return found
        return found

    def _taken_back(self, queue: Queue, request: Request, key: Key, now_s: float) -> bool:
        """One displaced that was not in the way after all keeps its place."""
        if self._fits(queue, request, key, now_s):
            self._push(queue, request, key)
            return True
        return False

    # -- a free worker

    def decide(self, now_s: float) -> Decision:
        refused: list[Refusal] = []
        while True:
            queue = self._next(now_s)
            if queue is None:
                return Decision(None, NEVER, tuple(refused))
            load = self._residency.load_s(queue.model, now_s)
            head = queue[0]
            if now_s + load + self._soonest_s(queue) > head.deadline_s:
                gone = queue.take(1)
                self._leave(queue, gone)
                refused.append(Refusal(head, Why.LATE, 0.0))
                self._shares.learn(head, late=True)
                continue
            evicted = self._residency.use(
                queue.model, now_s, frozenset(m for _, m in self._running)
            )
            if evicted is None:
                return Decision(None, NEVER, tuple(refused))
            drop, size, why = self._batching.choose(queue, now_s + load)
            gone = queue.take(drop) if drop else ()
            self._leave(queue, gone)
            for r in gone:
                refused.append(Refusal(r, Why.SACRIFICE, 0.0))
                self._shares.learn(r, late=True)
            waiting = len(queue)
            taken = queue.take(size)
            self._shares.begin(taken)
            self._leave(queue, taken)
            mean, high = queue.latency.mean_s(size), queue.latency.high_s(size)
            self._shares.charge(taken, load + mean)
            self._running.append((now_s + load + mean, queue.model))
            return Decision(
                Start(
                    model=queue.model,
                    requests=taken,
                    load_s=load,
                    expected_s=load + mean,
                    promised_s=load + high,
                    why=why,
                    waiting=waiting,
                    evicted=evicted,
                ),
                NEVER,
                tuple(refused),
            )

    def _next(self, now_s: float) -> Queue | None:
        """The model of the first in the order of service; one whose weights are away waits as long
        as it can while others have work.
        """
        if not self._many:
            queue = next(iter(self._queues.values()))
            return queue if len(queue) else None
        waiting = sorted(
            (q for q in self._queues.values() if len(q)), key=lambda q: _turn(q.key(0), q)
        )
        if not waiting:
            return None
        for queue in waiting:
            load = self._residency.load_s(queue.model, now_s)
            if not load:
                return queue
            resident = [q for q in waiting if not self._residency.load_s(q.model, now_s)]
            longest = max((q.latency.mean_s(min(len(q), q.cruise)) for q in resident), default=0.0)
            latest = (
                queue[0].deadline_s
                - queue.latency.high_s(min(len(queue), queue.latency.max_batch))
                - load
            )
            if not resident or now_s + longest >= latest:
                return queue
        return waiting[0]

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        for i, (_, model) in enumerate(self._running):
            if model == start.model:
                del self._running[i]
                break
        queue = self._queues[start.model]
        queue.latency.observe(len(start.requests), max(service_s - start.load_s, 1e-9))
        self._shares.ended(start, queue, now_s)
        self._shares.charge(start.requests, service_s - start.expected_s)
        for r in start.requests:
            self._shares.learn(r, late=now_s > r.deadline_s)
        return start.requests

    def drain(self) -> None:
        """Nothing waits for more to come."""
