"""What policies and drivers say to each other: requests, decisions, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

NEVER = float("inf")  # a time that does not come


@dataclass(frozen=True, slots=True)
class Request:
    """One item that ``tenant`` wants of ``model`` before ``deadline_s``, on the driver's clock.

    Larger ``priority`` goes first. A ``shadow`` is a copy for a model on trial: nobody waits for
    its answer. ``payload`` is what the model is given; no policy looks at it.
    """

    id: int
    tenant: str
    model: str
    arrival_s: float
    deadline_s: float
    priority: int = 0
    shadow: bool = False
    payload: object = field(default=None, compare=False, repr=False)


class Why(StrEnum):
    """What set the size of a batch, or refused a request."""

    ALL = "all that were waiting"
    THROUGHPUT = "more would not raise the throughput"
    DEADLINE = "more would miss the earliest deadline in it"
    OTHERS = "more would make another model's request late"
    LARGEST = "the largest batch of the model"
    FULL = "the batch is full"
    DELAY = "the oldest has waited its delay"
    DRAIN = "no more will come"
    QUEUE = "what is ahead of it takes too long"
    SHARE = "its tenant is over its share and others need the chip"
    LATE = "it can no longer be answered in time"
    SACRIFICE = "answering it would cost more answers than it is"
    ALONE = "not even alone on an idle chip would it be in time"
    FAILED = "the model failed"
    SHADOW = "a copy waits for idle time, and there was none"


@dataclass(frozen=True, slots=True)
class Refusal:
    """``request`` will not be answered; trying again makes sense after ``retry_after_s``."""

    request: Request
    why: Why
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Start:
    """Run ``requests`` as one batch of ``model`` now, after ``load_s`` to bring its weights in.

    ``expected_s`` is the mean time of the batch, ``promised_s`` the quantile that deadlines are
    held against, both with the loading; ``waiting`` is how many of the model were there.
    """

    model: str
    requests: tuple[Request, ...]
    load_s: float
    expected_s: float
    promised_s: float
    why: Why
    waiting: int
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """For a free worker: what to start, else when to ask again (infinite: at the next event); and
    what to give up.
    """

    start: Start | None
    wait_until_s: float
    refused: tuple[Refusal, ...] = ()


class Policy(Protocol):
    """Decides; has no clock, no I/O and no randomness. The driver brings events in the order of
    time.

    After ``offer`` and ``finished`` the driver asks ``decide`` as long as a worker is free and it
    starts something.
    """

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        """A request came: who is refused for it, itself or others; nobody where it is empty."""

    def decide(self, now_s: float) -> Decision:
        """A worker is free."""

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        """What was started ended ``service_s`` after it began, loading included: which of its
        requests are done with it. Those of a batch all are; one that takes further steps is not,
        and is in a later start.
        """

    def drain(self) -> None:
        """No more requests will come."""


def explain(start: Start, now_s: float) -> str:
    """Why this batch, now, in a line."""
    earliest = min(r.deadline_s for r in start.requests)
    tenants = sorted({r.tenant for r in start.requests})
    loading = f"; {start.load_s * 1e3:.3g} ms of it bring the weights in" if start.load_s else ""
    loading += f", for which {', '.join(start.evicted)} left" if start.evicted else ""
    return (
        f"{len(start.requests)} of {start.waiting} waiting for {start.model} (of"
        f" {', '.join(tenants)}): {start.why}; expected {start.expected_s * 1e3:.3g} ms, nearly"
        f" always within {start.promised_s * 1e3:.3g} ms, earliest deadline in"
        f" {(earliest - now_s) * 1e3:.3g} ms{loading}"
    )
