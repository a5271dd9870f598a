"""Work in steps: who is done comes from the policy, on the simulated and on the real clock, and the
real one hands in what was given and hands out what came of it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import final

import numpy as np
import pytest

from tenfold.errors import InputError
from tenfold.serving import (
    Decision,
    Known,
    Open,
    Poisson,
    Policy,
    Refusal,
    Request,
    Served,
    SloPolicy,
    Spread,
    Start,
    Stream,
    Why,
    simulate,
)
from tenfold.serving.real import Recorder, Server
from tenfold.serving.record import NEVER
from tenfold.serving.simulated import Outcome

STEP_S = 0.01
STEPS = {"short": 1, "long": 3}


@final
class Stepwise:
    """Every request takes the steps of its tenant; all that are there take each step together, as
    the tokens of a language model do.
    """

    def __init__(self) -> None:
        self._left: dict[Request, int] = {}

    def offer(self, request: Request, now_s: float) -> Sequence[Refusal]:
        self._left[request] = STEPS[request.tenant]
        return ()

    def decide(self, now_s: float) -> Decision:
        if not self._left:
            return Decision(None, NEVER)
        everyone = tuple(self._left)
        return Decision(Start("m", everyone, 0.0, STEP_S, STEP_S, Why.ALL, len(everyone)), NEVER)

    def finished(self, start: Start, now_s: float, service_s: float) -> Sequence[Request]:
        for request in start.requests:
            self._left[request] -= 1
        done = [r for r in start.requests if not self._left[r]]
        for request in done:
            del self._left[request]
        return done

    def drain(self) -> None:
        """Nothing waits for more to come."""


def test_a_request_is_answered_after_its_last_step() -> None:
    source = Open(
        [
            (Stream("short", "m", 1.0), np.array([0.0])),
            (Stream("long", "m", 1.0), np.array([0.0, 0.015])),
        ]
    )
    log = simulate(Stepwise(), source, Spread({"m": [0.0, *[STEP_S] * 8]}))
    took = {(r.tenant, r.arrival_s): t for r, t in zip(log.requests, log.finish_s, strict=True)}
    # one starts at once; the next begins after it; who comes during its step goes along from there
    assert took == pytest.approx({("short", 0.0): 0.01, ("long", 0.0): 0.04, ("long", 0.015): 0.05})
    assert [len(b.start.requests) for b in log.batches] == [1, 1, 2, 2, 1]


def test_counts_hold_while_requests_take_steps() -> None:
    streams = [
        (Stream(t, "m", 1.0), Poisson(40.0).times_s(3.0, np.random.default_rng(n)))
        for n, t in enumerate(STEPS)
    ]
    seen = []
    log = simulate(
        Stepwise(),
        Open(streams),
        Spread({"m": [0.0, *[STEP_S] * 300]}),
        observer=lambda at: seen.append((at.waiting, at.serving, at.answered, at.arrived)),
    )
    assert min(min(row) for row in seen) >= 0
    assert all(w + s + a == n for w, s, a, n in seen)
    assert len(log.requests) == seen[-1][2]


@pytest.mark.parametrize("stepwise", [True, False])
def test_what_is_given_comes_back_as_its_own_answer(stepwise: bool) -> None:
    times = {1: 0.001, 8: 0.002}
    policy: Policy = (
        Stepwise()
        if stepwise
        else SloPolicy({"m": Served(Known(times))}, dict.fromkeys(STEPS, 1.0))
    )
    answers: dict[object, object] = {}
    calls: list[object] = []
    lock = threading.Lock()

    def run(start: Start) -> Sequence[object]:
        with lock:
            calls.extend(r.payload for r in start.requests)
        return [f"answer to {r.payload}" for r in start.requests]

    def done(requests: Sequence[Request], found: Sequence[object] | None) -> None:
        assert found is not None, "nothing is refused: each SLO is a minute"
        with lock:
            answers.update({r.payload: a for r, a in zip(requests, found, strict=True)})

    server = Server(policy, run, done)
    given = [(t, f"{t} {n}") for n in range(20) for t in STEPS]
    for tenant, payload in given:
        server.arrive(tenant, "m", 60.0, payload=payload)
    server.close()
    assert answers == {p: f"answer to {p}" for _, p in given}
    for tenant, payload in given:
        assert calls.count(payload) == (STEPS[tenant] if stepwise else 1)
    assert all(r.payload is None for r in server.recording().requests)


@pytest.mark.parametrize("most", [1, 7])
def test_a_bounded_recorder_keeps_the_last_and_every_request_is_still_answered(most: int) -> None:
    told: list[int] = []
    server = Server(
        Stepwise(),
        lambda start: [None] * len(start.requests),
        lambda requests, _answers: told.extend(r.id for r in requests),
        recorder=Recorder(most),
    )
    for _ in range(50):
        server.arrive("short", "m", 60.0)
    server.close()
    log = server.log()
    assert sorted(told) == list(range(50))
    assert [r.id for r in log.requests] == list(range(50 - most, 50))
    assert set(log.outcome) == {Outcome.ANSWERED}
    assert len(log.batches) <= most
    with pytest.raises(InputError, match=f"the last {most} has no beginning"):
        server.recording()


def test_a_recorder_keeps_something() -> None:
    with pytest.raises(InputError, match="at least 1 of each, or all"):
        Recorder(0)
