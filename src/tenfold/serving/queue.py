"""What waits for one model, and the batches that suit it."""

from __future__ import annotations

from bisect import bisect_right
from typing import final

from tenfold.serving.latency import Latency
from tenfold.serving.record import Request

Key = tuple[int, float]  # whether a copy, deadline

_COMPACT = 512  # served entries to drop from the front at a time
_MEMORY, _LONG_MEMORY = 50.0, 400.0  # arrivals that the estimated rates look back on
LIVE_GAPS = 20.0  # mean gaps without an arrival, after which none is expected
_AHEAD = 1.15  # the batch is for a rate that much higher: the estimate is noisy, and bursts come


def key_of(r: Request) -> Key:
    """The order of service: the earlier deadline, copies last. Priorities decide who is served, not
    when.
    """
    return int(r.shadow), r.deadline_s


@final
class Queue:
    """Requests for one model in the order of service, with what its arrivals looked like."""

    __slots__ = (
        "_free",
        "_head",
        "_keys",
        "_requests",
        "_wide",
        "cruise",
        "gap_s",
        "last_s",
        "latency",
        "lead_s",
        "longest_slo_s",
        "looked",
        "model",
        "most",
        "ranked",
        "slo_s",
        "steady_gap_s",
        "widest",
    )

    def __init__(self, model: str, latency: Latency) -> None:
        self.model = model
        self.latency = latency
        self.slo_s = float("inf")  # of the strictest request seen
        self.longest_slo_s = 0.0
        # moving mean between arrivals, of the last few and of many
        self.gap_s = self.steady_gap_s = float("inf")
        self.last_s = float("-inf")
        self.cruise = 1  # the batch that suits the present rate
        self.widest = 1  # the batch that works off a backlog
        self.looked = 0
        self.ranked = False  # whether the order was ever another than that of the deadlines
        self.lead_s = latency.high_s(1)  # what a batch is begun before its deadline
        self.most = latency.max_batch  # of a batch, for the sake of those that may come
        self._free = self._wide = 1  # cruise and widest before that
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
        self.ranked = self.ranked or key[1] != request.deadline_s
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
        return bisect_right(self._keys, (0, float("inf")), self._head) - self._head

    @property
    def cost_s(self) -> float:
        """Of a worker, for one request at the present batch."""
        return self.latency.mean_s(self.cruise) / self.cruise

    @property
    def load(self) -> float:
        """Share of a worker that its arrivals would take at the present batch."""
        return self.cost_s / self.gap_s

    @property
    def together(self) -> int:
        """As large a batch as comes together in half of its SLO."""
        within = self.slo_s / 2 / self.gap_s if self.gap_s < float("inf") else 1.0
        return max(1, int(min(within, self.widest)))

    @property
    def least_cost_s(self) -> float:
        """Of a worker, for one request in such a batch."""
        batch = self.together
        return self.latency.mean_s(batch) / batch

    def arrived(self, request: Request, now_s: float) -> bool:
        """Note an arrival: the rate and the strictest SLO; whether it is time to ask again which
        batch suits them.
        """
        gap = max(now_s - self.last_s, 1e-9)
        if gap < float("inf"):
            first = self.gap_s == float("inf")
            self.gap_s = gap if first else self.gap_s + (gap - self.gap_s) / _MEMORY
            self.steady_gap_s = (
                gap if first else self.steady_gap_s + (gap - self.steady_gap_s) / _LONG_MEMORY
            )
        self.last_s = now_s
        slo = request.deadline_s - request.arrival_s
        self.slo_s, self.longest_slo_s = min(self.slo_s, slo), max(self.longest_slo_s, slo)
        self.looked -= 1
        return self.looked <= 0

    def suit(self, left: float) -> None:
        """Choose the batches for the present rate, ``left`` of a worker being left by other
        models.
        """
        self.looked = 32
        half = self.latency.largest(self.slo_s / 2, self.latency.max_batch)
        self._free = self._suiting(left)
        self._wide = max(self._free, self.latency.best(half) if half else 1)
        self._bounded()

    def bound(self, slo_s: float) -> None:
        """No batch takes longer than half of that SLO, so that whoever comes as one begins is in
        time with the next.
        """
        self.most = max(1, self.latency.largest(slo_s / 2, self.latency.max_batch))
        self._bounded()

    def _bounded(self) -> None:
        self.cruise, self.widest = min(self._free, self.most), min(self._wide, self.most)

    def lead(self, batch: int) -> None:
        """Against other models, its turn comes when a batch of so many must begin."""
        self.lead_s = self.latency.high_s(batch)

    def _suiting(self, left: float) -> int:
        """The smallest batch that answers most of the present rate in time.

        With batches of b back to back, those can be answered that come at most slo - t(b) before a
        start: rate x (slo - t(b)) of them, and no more than b, every t(b).
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
