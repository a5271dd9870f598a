"""What each tenant asks for, had of the chip, and is owed: max-min fair shares by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from tenfold.errors import InputError
from tenfold.serving.queue import LIVE_GAPS, Queue
from tenfold.serving.record import NEVER, Request, Start

# of the answers: a fifth of what a p99 allows, for they need not be spread evenly over tenants
LATE_BUDGET = 0.002
UNEQUAL_BATCHES = 2.0
# of those that ask are turned away: then it matters who asks for more than a share
OVERLOAD = 0.005
ASKED = 500.0  # requests that this looks back on
FEW = 1 / ASKED  # one of them
# of its share: rates are known to a tenth or so, and like tenants must not seem unlike
NEARLY = 0.9
SHARE_EVERY = 16  # arrivals between two looks at the shares
CAUTION_STEP = 0.1  # more caution for an answer that came late
MOST_CAUTION = 5.0
_SHARE_MEMORY = 200.0  # arrivals that a tenant's rate looks back on
_BATCHES = 64.0  # that the pace of useful work looks back on


@final
class Pace:
    """Work done a second, over the last few dozen batches."""

    __slots__ = ("_last_s", "_time_s", "_work_s")

    def __init__(self) -> None:
        self._last_s = 0.0
        self._time_s = self._work_s = 0.0

    def note(self, work_s: float, now_s: float) -> None:
        self._time_s += (now_s - self._last_s - self._time_s) / _BATCHES
        self._work_s += (work_s - self._work_s) / _BATCHES
        self._last_s = now_s

    @property
    def rate(self) -> float:
        """Infinite before anything was done."""
        return self._work_s / self._time_s if self._time_s > 0 else float("inf")


@final
class Flow:
    """What one tenant asks of one model: the strictest SLO and how often."""

    __slots__ = ("_seen", "gap_s", "last_s", "model", "slo_s")

    def __init__(self, model: str) -> None:
        self.model = model
        self.slo_s = float("inf")
        self.gap_s = float("inf")
        self.last_s = float("-inf")
        self._seen = 0

    def arrived(self, request: Request, now_s: float) -> None:
        gap, self.last_s = max(now_s - self.last_s, 1e-9), now_s
        self.slo_s = min(self.slo_s, request.deadline_s - request.arrival_s)
        if gap < float("inf"):
            self._seen += 1
            self.gap_s = (
                gap
                if self._seen == 1
                else self.gap_s + (gap - self.gap_s) / min(self._seen, _SHARE_MEMORY)
            )

    def live(self, now_s: float) -> bool:
        """Whether more is to be expected; arrivals may come in bursts an SLO apart."""
        return now_s - self.last_s < max(LIVE_GAPS * self.gap_s, self.slo_s)


@final
class TenantAccount:
    """What one tenant asks for, and had, of the chip: in seconds over its weight what it had and
    what of its waits.
    """

    __slots__ = (
        "caution",
        "demand_s",
        "flows",
        "name",
        "queued_s",
        "served_s",
        "waiting",
        "weight",
    )

    def __init__(self, name: str, weight: float) -> None:
        if not 0 < weight < float("inf"):
            raise InputError(f"tenant '{name}' needs a weight above 0 and finite, got {weight:g}")
        self.name = name
        self.weight = weight
        self.served_s = 0.0
        self.queued_s = 0.0
        self.waiting = 0
        self.caution = 0.0  # 0: promises go by the mean, 1: by the high quantile
        self.demand_s = 0.0  # seconds of a worker that it asks for a second
        self.flows: dict[str, Flow] = {}

    def arrived(self, request: Request, now_s: float) -> None:
        if not request.shadow:
            if request.model not in self.flows:
                self.flows[request.model] = Flow(request.model)
            self.flows[request.model].arrived(request, now_s)

    def live(self, now_s: float, model: str | None = None) -> bool:
        """Whether it still asks, of one model or of any."""
        if model is not None:
            flow = self.flows.get(model)
            return flow is not None and flow.live(now_s)
        return any(f.live(now_s) for f in self.flows.values())

    def rates(self, now_s: float) -> Iterator[tuple[str, float]]:
        """Requests a second by model, of those that still come."""
        return (
            (f.model, 1 / f.gap_s)
            for f in self.flows.values()
            if f.live(now_s) and f.gap_s < float("inf")
        )

    @property
    def tag_s(self) -> float:
        """Start-time fair queueing: what it will have had when all of its queue is served (Goyal,
        Vin, Cheng 1996).
        """
        return self.served_s + self.queued_s


@final
class Shares:
    """The accounts of all tenants, and who has the better right to a place.

    While hardly anybody is turned away nobody asks for too much. Else the level is sought up to
    which everybody's demand can be met, weight for weight (water-filling), with what is got out of
    the chip; whoever asks for more is ``over``, and yields to the others.
    """

    def __init__(
        self, tenants: Mapping[str, float], queues: Mapping[str, Queue], workers: int
    ) -> None:
        self._accounts = {n: TenantAccount(n, w) for n, w in tenants.items()}
        self._queues = queues
        self._workers = workers
        self._followed = len(tenants) > 1 or len(queues) > 1
        self._level_s = NEVER  # seconds of a worker a second that a tenant of weight 1 may ask for
        self._until_look = 0
        self._turned_away = 0.0  # share of those that asked lately
        self._useful = Pace()  # what is got out of the chip, in the same seconds as the demands
        self._virtual_s = 0.0  # what those had who were served last: newcomers start from there
        self._kinds: set[tuple[str, int]] = set()  # tenants and priorities that ever asked
        self._wary = 0.0  # the most caution of any tenant

    # -- what tenants ask for

    def arrived(self, request: Request, now_s: float) -> None:
        account = self._accounts[request.tenant]
        self._kinds.add((request.tenant, request.priority))
        if self._followed:
            account.arrived(request, now_s)
            self._until_look -= 1
            if self._until_look <= 0:
                self._share_out(now_s)
        if not account.waiting:
            account.served_s = max(account.served_s, self._virtual_s)

    def turned_away(self, refused: int) -> None:
        """So many were refused for the last that asked."""
        self._turned_away += (refused - self._turned_away) / ASKED

    def _share_out(self, now_s: float) -> None:
        self._until_look = SHARE_EVERY
        for a in self._accounts.values():
            a.demand_s = sum(self._queues[m].least_cost_s * rate for m, rate in a.rates(now_s))
        self._level_s = self._level() if self._turned_away >= OVERLOAD else NEVER
        # by what they ask for, so that the work is in how much is asked, not in tenants x models
        by_model: dict[str, list[TenantAccount]] = {}
        for a in self._accounts.values():
            for flow in a.flows.values():
                if flow.live(now_s):
                    by_model.setdefault(flow.model, []).append(a)
        for queue in self._queues.values():
            asking = by_model.get(queue.model, [])
            over = any(self.over(a.name) for a in asking)
            strictest = min(
                (a.flows[queue.model].slo_s for a in asking if not self.over(a.name)), default=NEVER
            )
            queue.bound(strictest if over else NEVER)
            queue.lead(1 if over or not self.overloaded else queue.together)

    def _level(self) -> float:
        asked = sorted(self._accounts.values(), key=lambda a: a.demand_s / a.weight)
        left, weights = min(float(self._workers), self._useful.rate), sum(a.weight for a in asked)
        for a in asked:
            if a.demand_s * weights > left * a.weight:
                return left / weights
            left, weights = left - a.demand_s, weights - a.weight
        return NEVER

    @property
    def overloaded(self) -> bool:
        """Whether somebody asks for too much."""
        return self._level_s < NEVER

    def over(self, tenant: str) -> bool:
        """Whether it asks for more (or nearly) than is left to it when those that ask for less have
        theirs.
        """
        account = self._accounts[tenant]
        return account.demand_s > NEARLY * self._level_s * account.weight

    def worth(self, model: str, now_s: float) -> float:
        """What the weights of a model's tenants are of all that ask (a fraction)."""
        live = [a for a in self._accounts.values() if a.live(now_s)]
        mine = sum(a.weight for a in live if a.live(now_s, model))
        return mine / sum(a.weight for a in live) if live else 0.0

    def flows(self, owed: str | None) -> Iterator[Flow]:
        """What tenants ask of models; with ``owed`` not of those that are over, unless they are
        it.
        """
        for account in self._accounts.values():
            if owed is None or not self.over(account.name):
                yield from account.flows.values()

    # -- who goes first

    def yielding(self, to: Request, queue: Queue) -> set[tuple[str, int]]:
        """Tenants and priorities whose places go to ``to`` of ``queue``.

        Those of smaller priority; of the same, those of other tenants that ask for more than their
        share where its own does not, or, where it does too, of those that had more.
        """
        mine, over = self._accounts[to.tenant], self.over(to.tenant)
        found = set()
        for tenant, priority in self._kinds:
            account = self._accounts[tenant]
            if not account.waiting or priority > to.priority:
                continue
            owing = (
                tenant != to.tenant
                and self.over(tenant)
                and (not over or self._has_used_more(account, mine, queue))
            )
            if priority < to.priority or owing:
                found.add((tenant, priority))
        return found

    @staticmethod
    def _has_used_more(account: TenantAccount, than: TenantAccount, queue: Queue) -> bool:
        """With one more served, by more than a few batches, which is how far equals differ by
        chance.
        """
        tag_s = than.tag_s + queue.cost_s / than.weight
        return (
            account.tag_s
            > tag_s + UNEQUAL_BATCHES * queue.latency.mean_s(queue.widest) / account.weight
        )

    def before(self, one: Request, other: Request) -> bool:
        """Whether ``one`` has the better right to be served: by priority, by asking for no more
        than its share, by having had less.
        """
        mine, theirs = self._accounts[one.tenant], self._accounts[other.tenant]
        return (-one.priority, self.over(one.tenant), mine.tag_s) < (
            -other.priority,
            self.over(other.tenant),
            theirs.tag_s,
        )

    def others_wait(self, tenant: str) -> bool:
        return any(a.waiting and a.name != tenant for a in self._accounts.values())

    def over_waits(self) -> bool:
        """Whether somebody that is over has requests waiting."""
        return any(a.waiting and self.over(a.name) for a in self._accounts.values())

    # -- what tenants had

    def queued(self, request: Request, cost_s: float) -> None:
        if not request.shadow:
            account = self._accounts[request.tenant]
            account.waiting += 1
            account.queued_s += cost_s / account.weight

    def left(self, requests: Sequence[Request], cost_s: float) -> None:
        for r in requests:
            if r.shadow:
                continue
            account = self._accounts[r.tenant]
            account.waiting -= 1
            account.queued_s = (
                max(account.queued_s - cost_s / account.weight, 0.0) if account.waiting else 0.0
            )

    def begin(self, requests: Sequence[Request]) -> None:
        """A batch of these begins."""
        self._virtual_s = max(
            self._virtual_s, min(self._accounts[r.tenant].served_s for r in requests)
        )

    def ended(self, start: Start, queue: Queue, now_s: float) -> None:
        self._useful.note(queue.least_cost_s * len(start.requests), now_s)

    def charge(self, requests: Sequence[Request], seconds: float) -> None:
        """To the accounts of those whose requests are in a batch: what is expected when it begins,
        the difference when it ended.
        """
        for r in requests:
            if not r.shadow:
                account = self._accounts[r.tenant]
                account.served_s += seconds / len(requests) / account.weight

    # -- promises

    def caution(self, tenant: str) -> float:
        """0: promises go by the mean, 1: by the high quantile. One that asks for too much makes
        others late: it takes the most of any.
        """
        return self._wary if self.over(tenant) else self._accounts[tenant].caution

    @property
    def all_served(self) -> bool:
        """Whether next to none of those that asked lately was turned away."""
        return self._turned_away < FEW

    def learn(self, request: Request, *, late: bool) -> None:
        """A promise was kept or broken; what was admitted and given up later is a broken one.
        Nobody waits for a copy.
        """
        if request.shadow:
            return
        account = self._accounts[request.tenant]
        account.caution += CAUTION_STEP * ((1 - LATE_BUDGET) if late else -LATE_BUDGET)
        account.caution = min(max(account.caution, 0.0), MOST_CAUTION)
        self._wary = max(a.caution for a in self._accounts.values())
