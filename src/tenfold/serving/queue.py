"""What waits for one model, and how much of the chip each tenant had."""

from __future__ import annotations

from bisect import bisect_right
from typing import final

from tenfold.errors import InputError
from tenfold.serving.latency import Latency
from tenfold.serving.record import Request

Key = tuple[int, float]

_COMPACT = 512  # served entries to drop from the front at a time
_MEMORY = 50.0  # arrivals that the estimated rate looks back on
_AHEAD = 1.15  # the batch is for a rate that much higher: the estimate is noisy, and bursts come


def key_of(r: Request) -> Key:
    """The order of service: copies last, then larger priority, then the earlier deadline."""
    return (1 << 30 if r.shadow else -r.priority, r.deadline_s)


@final
class Queue:
    """Requests for one model in the order of service, with what its arrivals looked like."""

    __slots__ = ("_head", "_keys", "_requests", "cruise", "gap_s", "last_s", "latency", "looked", "model", "ranked", "slo_s", "widest")

    def __init__(self, model: str, latency: Latency) -> None:
        self.model = model
        self.latency = latency
        self.slo_s = float("inf")  # of the strictest request seen
        self.gap_s = float("inf")  # moving mean between arrivals
        self.last_s = float("-inf")
        self.cruise = 1  # the batch that suits the present rate
        self.widest = 1  # the batch that works off a backlog
        self.looked = 0
        self.ranked = False  # whether the order was ever another than that of the deadlines
        self._requests: list[Request] = []
        self._keys: list[Key] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._requests) - self._head

    def __getitem__(self, place: int) -> Request:
        return self._requests[self._head + place]

    def key(self, place: int) -> Key:
        return self._keys[self._head + place]

    def place(self, key: Key) -> int:
        """How many would be served before a newcomer with ``key``."""
        if not self._keys or key >= self._keys[-1]:
            return len(self._keys) - self._head
        return bisect_right(self._keys, key, self._head) - self._head

    def push(self, request: Request, key: Key) -> None:
        at = self.place(key) + self._head
        self.ranked = self.ranked or bool(self._keys and self._keys[-1][0] != key[0]) or key[1] != request.deadline_s
        self._requests.insert(at, request)
        self._keys.insert(at, key)

    def take(self, count: int, first: int = 0) -> tuple[Request, ...]:
        """Remove ``count`` requests, from ``first`` on."""
        begin = self._head + first
        taken = tuple(self._requests[begin : begin + count])
        if first:
            del self._requests[begin : begin + count], self._keys[begin : begin + count]
            return taken
        self._head += count
        if self._head >= _COMPACT or self._head == len(self._requests):
            del self._requests[: self._head], self._keys[: self._head]
            self._head = 0
        return taken

    def real(self) -> int:
        """How many are no copies; those come first."""
        if not self._requests or not self._requests[-1].shadow:
            return len(self)
        return bisect_right(self._keys, (1 << 29, 0.0), self._head) - self._head

    @property
    def load(self) -> float:
        """Share of a worker that its arrivals would take at the present batch."""
        return self.latency.mean_s(self.cruise) / self.cruise / self.gap_s

    def arrived(self, request: Request, now_s: float) -> bool:
        """Note an arrival: the rate and the strictest SLO; whether it is time to ask again which batch suits them."""
        gap = max(now_s - self.last_s, 1e-9)
        if gap < float("inf"):
            self.gap_s = gap if self.gap_s == float("inf") else self.gap_s + (gap - self.gap_s) / _MEMORY
        self.last_s = now_s
        self.slo_s = min(self.slo_s, request.deadline_s - request.arrival_s)
        self.looked -= 1
        return self.looked <= 0

    def suit(self, left: float) -> None:
        """Choose the batches for the present rate, ``left`` of a worker being left by other models."""
        self.looked = 32
        self.cruise = self._suiting(left)
        half = self.latency.largest(self.slo_s / 2, self.latency.max_batch)
        self.widest = max(self.cruise, self.latency.best(half) if half else 1)

    def _suiting(self, left: float) -> int:
        """The smallest batch that answers most of the present rate in time.

        With batches of b back to back, those can be answered that come at most slo - t(b) before a start: rate x (slo - t(b)) of
        them, and no more than b, every t(b).
        """
        rate = _AHEAD / self.gap_s / left
        best, top = 1, 0.0
        b = 1
        while b <= self.latency.max_batch:
            t = self.latency.mean_s(b)
            room = self.slo_s - self.latency.high_s(b)
            if room < 0:
                break
            answered = min(rate, min(b, rate * room) / t)
            if answered > top * 1.005:
                best, top = b, answered
            b = max(b + 1, int(b * 1.2))
        return best


@final
class Account:
    """What one tenant had of the chip, in seconds over its weight, and what of its waits."""

    __slots__ = ("name", "queued_s", "served_s", "waiting", "weight")

    def __init__(self, name: str, weight: float) -> None:
        if not 0 < weight < float("inf"):
            raise InputError(f"tenant '{name}' needs a weight above 0 and finite, got {weight:g}")
        self.name = name
        self.weight = weight
        self.served_s = 0.0
        self.queued_s = 0.0
        self.waiting = 0

    @property
    def tag_s(self) -> float:
        """Start-time fair queueing: what it will have had when all of its queue is served (Goyal, Vin, Cheng 1996)."""
        return self.served_s + self.queued_s
