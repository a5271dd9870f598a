"""The batch that the SLO policy runs: how many of a queue, and what set that number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold.serving.queue import Queue
from tenfold.serving.record import NEVER, Request, Why
from tenfold.serving.residency import Residency
from tenfold.serving.shares import Shares

_FEW = 16  # of those waiting for another model, that a batch makes room for
SHORTER = 0.75  # of the SLO of those in a batch: less is waited for


@dataclass(frozen=True, slots=True)
class Batching:
    """Chooses batches: those with the best throughput that keep every deadline, of their own and of
    what waits, or is about to come, for other models.
    """

    queues: Mapping[str, Queue]
    shares: Shares
    residency: Residency

    def choose(self, queue: Queue, start_s: float) -> tuple[int, int, Why]:
        """How many of the first to give up, how many then to run, and what set that number."""
        latency = queue.latency
        real = queue.real()
        count = real or len(queue)
        limit = max(latency.largest(queue[0].deadline_s - start_s, min(count, queue.most)), 1)
        if queue.ranked:
            limit = self._within_all(queue, start_s, limit)
        drop = 0
        if limit < count and limit < queue.cruise:
            drop, limit = self._sacrifice(queue, start_s, count, limit)
        why = (
            Why.ALL
            if limit == count - drop
            else Why.LARGEST
            if limit == latency.max_batch
            else Why.DEADLINE
        )
        strict, loose = self._room_s(queue, start_s)
        within = min(
            latency.largest(strict, limit),
            max(latency.largest(loose, limit), min(queue.cruise, limit)),
        )
        if within < limit:
            limit, why = max(within, 1), Why.OTHERS
        size = latency.best(limit)
        return drop, size, why if size == limit else Why.THROUGHPUT

    def _within_all(self, queue: Queue, start_s: float, limit: int) -> int:
        """Where the first deadline is not the earliest: the largest batch that meets all in it, but
        for those that are late already.
        """
        earliest, best = NEVER, 1
        soonest = start_s + queue.latency.high_s(1)
        for i in range(limit):
            if queue[i].deadline_s >= soonest:
                earliest = min(earliest, queue[i].deadline_s)
            if start_s + queue.latency.high_s(i + 1) <= earliest:
                best = i + 1
        return best

    def _sacrifice(self, queue: Queue, start_s: float, count: int, limit: int) -> tuple[int, int]:
        """Give up the first few where the larger batch without them answers more: items less the
        time they take at the best rate.
        """
        latency = queue.latency
        rate = queue.cruise / latency.mean_s(queue.cruise)
        best, top = (0, limit), limit - rate * latency.mean_s(limit)
        over = self.shares.over_waits()
        for drop in range(1, min(count, 2 * queue.cruise)):
            if over and not self.shares.over(queue[drop - 1].tenant):
                break  # others ask for more than their share: theirs to give up
            size = latency.largest(queue[drop].deadline_s - start_s, count - drop)
            value = size - drop - rate * latency.mean_s(max(size, 1))
            if size and value > top + 1e-9:
                best, top = (drop, size), value
            if size >= queue.cruise:
                break
        return best

    def _room_s(self, queue: Queue, start_s: float) -> tuple[float, float]:
        """How long a batch may take so that what waits for other models, or is about to come with
        less time, is still in time.

        Strictly, for tenants with a better right than this batch's; loosely, where all are alike
        and a small batch would make all of them wait longer.
        """
        strict = loose = NEVER
        head = queue[0]
        for other in self.queues.values():
            if other is queue or not len(other) or other[0].shadow:
                continue
            first = other[0]
            slack = (
                first.deadline_s
                - start_s
                - other.latency.high_s(1)
                - self.residency.load_s(other.model, start_s)
            )
            if slack <= 0:
                continue
            mine, theirs = self.shares.over(head.tenant), self.shares.over(first.tenant)
            if mine and not theirs:
                strict = min(strict, self._slack_s(other, start_s, slack))
            elif theirs <= mine:
                loose = min(loose, slack)
        return min(strict, self._room_for_newcomers_s(queue, head, start_s)), loose

    def _slack_s(self, queue: Queue, start_s: float, least_s: float) -> float:
        """How long the first few in ``queue``, all in one batch, can wait; those that cannot
        whatever happens do not count.
        """
        load = self.residency.load_s(queue.model, start_s)
        for at in range(1, min(len(queue), queue.widest, _FEW)):
            slack = queue[at].deadline_s - start_s - queue.latency.high_s(at + 1) - load
            if slack <= 0:
                break
            least_s = min(least_s, slack)
        return least_s

    def _room_for_newcomers_s(self, queue: Queue, head: Request, start_s: float) -> float:
        """The same for tenants that may ask at any moment, unless they ask for too much and this
        batch's tenant does not.
        """
        room = NEVER
        for flow in self.shares.flows(None if self.shares.over(head.tenant) else head.tenant):
            other = self.queues[flow.model]
            if not flow.live(start_s) or (len(other) and other is not queue):
                continue
            if other is queue and flow.slo_s > SHORTER * (head.deadline_s - head.arrival_s):
                continue
            slack = (
                flow.slo_s
                - other.latency.high_s(other.cruise)
                - self.residency.load_s(other.model, start_s)
            )
            if slack > 0:
                room = min(room, slack)
        return room
