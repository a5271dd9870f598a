"""The policy: what it promises, whom it serves first, what it refuses; and that it decides and does
nothing else.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tenfold.serving
from tenfold.errors import InputError
from tenfold.scenario import SHIPPED, grid, ready, run, score_of, shipped, tuned
from tenfold.serving import (
    BASELINES,
    Choice,
    Diurnal,
    Gamma,
    Known,
    Learned,
    MaxDelay,
    OnOff,
    Open,
    Poisson,
    Policy,
    Request,
    Residency,
    Result,
    Served,
    SloPolicy,
    Spread,
    Stream,
    Version,
    Versioned,
    Weights,
    Why,
    curve,
    explain,
    high_factor,
    read_trace,
    result_of,
    simulate,
)

PURE = ("record", "queue", "policy", "latency", "residency", "baselines", "versions")
FORBIDDEN = {
    "time",
    "random",
    "numpy",
    "threading",
    "asyncio",
    "os",
    "io",
    "datetime",
    "socket",
    "logging",
}


@pytest.mark.parametrize("name", PURE)
def test_policies_have_no_clock_no_io_and_no_chance(name: str) -> None:
    tree = ast.parse((Path(tenfold.serving.__file__).parent / f"{name}.py").read_text())
    imported = {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    imported |= {
        (n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }
    called = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not imported & FORBIDDEN
    assert not called & {"open", "print", "input"}


def test_service_times_between_and_below_what_is_given() -> None:
    seconds = curve({4: 0.004, 8: 0.006})
    assert seconds[1] == seconds[4] == 0.004
    assert seconds[6] == pytest.approx(0.005)
    assert curve({1: 2.0, 2: 1.0})[2] == 2.0  # never falls


@pytest.mark.parametrize("times", [{}, {0: 1.0}, {1: 0.0}, {1: -1.0}, {1: float("nan")}])
def test_service_times_that_cannot_be(times: dict[int, float]) -> None:
    with pytest.raises(InputError):
        curve(times)


def test_a_network_that_gains_nothing_from_batches_runs_one_by_one() -> None:
    """CNNs on a processor: throughput is what counts, not the largest batch within the SLO."""
    flat = Known({1: 0.003, 8: 0.0241, 32: 0.0965})
    assert flat.best(32) == 1
    paying = Known({1: 0.003, 32: 0.006})
    assert paying.best(32) == 32
    assert paying.largest(0.0045, 32) == 16


def test_learned_times_follow_what_is_observed() -> None:
    learned = Learned({1: 0.001, 8: 0.002}, 1.0)
    for _ in range(200):
        learned.observe(1, 0.002)
        learned.observe(8, 0.004)
    assert learned.mean_s(1) == pytest.approx(0.002, rel=0.02)
    assert learned.mean_s(8) == pytest.approx(0.004, rel=0.02)
    for i in range(400):
        learned.observe(1, 0.002 if i % 20 else 0.006)
    # one in twenty took three times as long: the 99th percentile knows
    assert learned.high_s(1) > 1.8 * learned.mean_s(1)


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0.001, 1.0)), max_size=60),
    st.floats(50.0, 200.0),
)
def test_memory_is_never_over_its_budget(uses: list[tuple[str, float]], budget: float) -> None:
    weights = {n: Weights(10.0 * (i + 1), 0.01 * (i + 1)) for i, n in enumerate("abcde")}
    memory, now = Residency(weights, budget), 0.0
    for name, gap in uses:
        now += gap
        before = set(memory.resident)
        load = memory.load_s(name, now)
        left = memory.use(name, now)
        assert left is not None
        assert load <= weights[name].load_s
        assert name in before or load == weights[name].load_s
        assert set(memory.resident) == (before | {name}) - set(left)
        assert memory.used_bytes == pytest.approx(sum(weights[n].bytes for n in memory.resident))
        assert memory.used_bytes <= budget * (1 + 1e-9)


def test_a_model_that_never_fits_is_refused_at_the_border() -> None:
    with pytest.raises(
        InputError, match=r"takes 0.0002 MB, more than the memory budget of 0.0001 MB"
    ):
        Residency({"a": Weights(200.0)}, 100.0)


def policy(**tenants: float) -> SloPolicy:
    return SloPolicy({"m": Served(Known({1: 0.010, 8: 0.020}))}, tenants or {"t": 1.0})


def request(number: int, now: float, slo: float, tenant: str = "t", priority: int = 0) -> Request:
    return Request(number, tenant, "m", now, now + slo, priority)


def test_what_cannot_be_met_is_refused_at_once_with_the_reason() -> None:
    p = policy()
    (refusal,) = p.offer(request(0, 0.0, 0.009), 0.0)
    assert refusal.why is Why.ALONE
    assert p.offer(request(1, 0.0, 0.012), 0.0) == ()
    assert p.decide(0.0).start is not None
    # free at 10 ms, done at 20 ms, due at 13 ms
    (refusal,) = p.offer(request(2, 0.001, 0.012), 0.001)
    assert refusal.why is Why.QUEUE
    assert refusal.retry_after_s == pytest.approx(0.007)


def test_the_earliest_deadline_goes_first() -> None:
    p = policy()
    for number, slo, priority in ((0, 0.5, 0), (1, 0.1, 0), (2, 0.9, 1)):
        assert p.offer(request(number, 0.0, slo, priority=priority), 0.0) == ()
    start = p.decide(0.0).start
    assert start is not None
    assert [r.id for r in start.requests] == [1, 0, 2]
    assert "3 of 3 waiting for m (of t): all that were waiting" in explain(start, 0.0)


def test_a_larger_priority_takes_the_place_of_a_smaller_one() -> None:
    """Where both do not fit: the one that waits with less goes, whatever came first; the other way
    round the newcomer does.
    """
    p = policy()
    assert p.decide(0.0).start is None
    waiting = [request(n, 0.0, 0.035, priority=1) for n in range(40)]
    kept = [r for r in waiting if not p.offer(r, 0.0)]
    assert 8 <= len(kept) < 40
    (refusal,) = p.offer(request(50, 0.0, 0.035, priority=0), 0.0)
    assert refusal.request.id == 50
    refused = p.offer(request(51, 0.0, 0.035, priority=2), 0.0)
    assert refused
    assert {(r.request.priority, r.why) for r in refused} == {(1, Why.SHARE)}


def test_the_batch_meets_the_earliest_deadline_in_it() -> None:
    p = policy()
    for number in range(8):
        p.offer(request(number, 0.0, 0.016 if number == 0 else 0.2), 0.0)
    start = p.decide(0.0).start
    assert start is not None
    assert start.promised_s <= 0.016
    assert start.why is Why.DEADLINE


def serve(streams: list[tuple[Stream, float]], weights: dict[str, float], duration: float = 8.0):  # type: ignore[no-untyped-def]
    times = {"m": {1: 0.001, 8: 0.004}, "n": {1: 0.002, 8: 0.006}}
    p = SloPolicy({n: Served(Known(t, 1.1)) for n, t in times.items()}, weights)
    source = Open(
        [
            (s, Poisson(rate).times_s(duration, np.random.default_rng(i)))
            for i, (s, rate) in enumerate(streams)
        ]
    )
    service = Spread({n: curve(t) for n, t in times.items()}, dict.fromkeys(times, 0.04), seed=1)
    return result_of(simulate(p, source, service), duration, 0.5)


@pytest.mark.parametrize("greed", [2000, 8000, 30000])
@pytest.mark.parametrize("model", ["m", "n"])
@pytest.mark.parametrize(
    ("mine", "theirs"), [(0.025, 0.02), (0.025, 0.025), (0.025, 0.1), (0.1, 0.015), (0.03, 0.05)]
)
def test_whatever_others_do_a_well_behaved_tenant_is_served(
    greed: int, model: str, mine: float, theirs: float
) -> None:
    result = serve(
        [(Stream("good", "m", mine), 300), (Stream("greedy", model, theirs), greed)],
        {"good": 1.0, "greedy": 1.0},
        2.0,
    )
    good = next(t for t in result.tenants if t.name == "good")
    assert good.in_time >= 0.99 * good.offered
    assert good.p99_s <= mine


FAST, SLOW = {1: 0.0005, 8: 0.0012, 32: 0.0032}, {1: 0.006, 8: 0.016, 32: 0.048}


def crowd(
    good: Stream,
    rate: float,
    greedy: Stream,
    greed: float,
    weights: tuple[float, float] = (1.0, 1.0),
):  # type: ignore[no-untyped-def]
    """Two tenants on the two models above, batch times scattered by a twentieth."""
    times = {"fast": FAST, "slow": SLOW}
    p = SloPolicy(
        {n: Served(Known(t, 1.12)) for n, t in times.items()},
        dict(zip(("good", "greedy"), weights, strict=True)),
    )
    source = Open(
        [
            (good, Poisson(rate).times_s(3.0, np.random.default_rng(0))),
            (greedy, Poisson(greed).times_s(3.0, np.random.default_rng(1))),
        ]
    )
    result = result_of(
        simulate(
            p,
            source,
            Spread({n: curve(t) for n, t in times.items()}, dict.fromkeys(times, 0.05), 2),
        ),
        3.0,
        0.5,
    )
    return {t.name: t for t in result.tenants}


@pytest.mark.parametrize(
    ("mine", "rate", "theirs", "greed"),
    [
        (("fast", 0.02), 4000, ("fast", 0.02), 9000),  # one model, one SLO, 40 % of the chip
        (
            ("fast", 0.004),
            3000,
            ("fast", 0.08),
            12000,
        ),  # one model, an SLO of little more than the largest batch
        (
            ("slow", 0.06),
            100,
            ("fast", 0.008),
            20000,
        ),  # large batches among many small ones that are always more urgent
        (("slow", 0.06), 50, ("fast", 0.008), 40000),
        (
            ("fast", 0.012),
            1500,
            ("slow", 0.2),
            1500,
        ),  # small ones among batches four times as long as they may wait
    ],
)
def test_who_asks_for_less_than_a_share_is_served_among_greed(
    mine: tuple[str, float], rate: float, theirs: tuple[str, float], greed: float
) -> None:
    tenants = crowd(Stream("good", *mine), rate, Stream("greedy", *theirs), greed)
    assert tenants["good"].in_time >= 0.99 * tenants["good"].offered
    assert tenants["good"].holds
    assert tenants["greedy"].in_time > 0  # and the rest of the chip is theirs


def test_priorities_and_weights_cost_no_throughput() -> None:
    """One model that does 10,000 a second, asked for 13,000 or 18,000: who is served changes, how
    many are does not.
    """
    urgent = crowd(
        Stream("good", "fast", 0.02, priority=5), 4000, Stream("greedy", "fast", 0.02), 9000
    )
    assert urgent["good"].in_time >= 0.99 * urgent["good"].offered
    weighted = crowd(
        Stream("good", "fast", 0.02), 9000, Stream("greedy", "fast", 0.02), 9000, (3.0, 1.0)
    )
    assert 2.5 < weighted["good"].in_time / weighted["greedy"].in_time < 3.5
    for tenants in (urgent, weighted):
        assert sum(t.in_time for t in tenants.values()) / 2.5 > 0.97 * 10000
        assert all(t.holds for t in tenants.values())


def test_a_newcomer_has_no_credit_for_the_past() -> None:
    """One that was away does not starve who was there all along."""
    times = {1: 0.001}
    p = SloPolicy({"m": Served(Known(times, 1.1))}, {"old": 1.0, "new": 1.0})
    old = Poisson(400).times_s(8.0, np.random.default_rng(1))
    new = 6.0 + Poisson(2500).times_s(2.0, np.random.default_rng(2))
    log = simulate(
        p,
        Open([(Stream("old", "m", 0.03), old), (Stream("new", "m", 0.03), new)]),
        Spread({"m": curve(times)}),
    )
    there = next(t for t in result_of(log, 8.0, 6.0).tenants if t.name == "old")
    assert there.in_time >= 0.99 * there.offered


def test_exact_service_times_do_not_make_it_promise_too_much() -> None:
    times = {1: 0.001, 64: 0.004}
    arrivals = Poisson(20000).times_s(2.0, np.random.default_rng(3))
    p = SloPolicy({"m": Served(Known(times))}, {"t": 1.0})
    result = result_of(
        simulate(p, Open([(Stream("t", "m", 0.05), arrivals)]), Spread({"m": curve(times)})),
        2.0,
        0.2,
    )
    assert result.total.goodput_per_s > 0.99 * 64 / 0.004
    assert dict(result.refusals).get(Why.LATE, 0) < 0.01 * result.total.offered


@pytest.mark.parametrize("rate", [3800, 4500, 6000])
def test_two_models_alike_in_overload_share_the_chip_without_small_batches(rate: int) -> None:
    times, span = {1: 0.0011, 32: 0.0042}, 10_000 / (2 * rate)

    def served(p: Policy) -> Result:
        streams = [
            (Stream(f"t{m}", m, 0.02), Poisson(rate).times_s(span, np.random.default_rng(i)))
            for i, m in enumerate("ab")
        ]
        return result_of(
            simulate(
                p,
                Open(streams),
                Spread(dict.fromkeys("ab", curve(times)), dict.fromkeys("ab", 0.05), 1),
            ),
            span,
            span / 10,
        )

    models = {m: Served(Known(times, 1.12)) for m in "ab"}
    ours = served(SloPolicy(models, {"ta": 1.0, "tb": 1.0}))
    others = [
        served(MaxDelay(models, b, 0.0, queue=q)) for b in (8, 16, 32) for q in (b, 2 * b, 4 * b)
    ]
    assert all(t.holds for t in ours.tenants)
    assert ours.total.in_time >= 0.97 * max(
        r.total.in_time for r in others if all(t.holds for t in r.tenants)
    )


def test_an_idle_chip_refuses_only_what_it_cannot_do() -> None:
    """However uncertain its times are: else it would never learn better."""
    p = SloPolicy({"m": Served(Known({1: 0.001}, 30.0))}, {"t": 1.0})
    arrivals = Poisson(50).times_s(4.0, np.random.default_rng(1))
    log = simulate(
        p, Open([(Stream("t", "m", 0.005), arrivals)]), Spread({"m": [0.001, 0.001]}, {"m": 1.0}, 1)
    )
    assert np.sum(log.outcome == 1) > 0.9 * len(arrivals)


def test_the_mean_batch_is_over_batches() -> None:
    """One request alone and nine together are two batches of five."""
    times = {1: 0.010, 9: 0.018}
    p = SloPolicy({"m": Served(Known(times, 1.0))}, {"t": 1.0})
    arrivals = np.array([0.0, *(0.001 + 0.0001 * i for i in range(9))])
    log = simulate(
        p, Open([(Stream("t", "m", 0.1), arrivals)]), Spread({"m": curve(times)}, {"m": 0.0}, 1)
    )
    result = result_of(log)
    assert [len(b.start.requests) for b in log.batches] == [1, 9]
    assert result.total.answered / result.batches == 5
    assert [t.mean_batch for t in (result.total, *result.tenants)] == pytest.approx([5, 5])


def test_shadows_do_not_take_from_who_is_answered() -> None:
    times = {"live": {1: 0.001}, "trial": {1: 0.001}}
    arrivals = Poisson(850).times_s(4.0, np.random.default_rng(5))

    def refused(routes: dict[str, list[Version]]) -> int:
        inner = SloPolicy({n: Served(Known(t, 1.1)) for n, t in times.items()}, {"t": 1.0})
        log = simulate(
            Versioned(inner, routes),
            Open([(Stream("t", "m", 0.03), arrivals)]),
            Spread({n: curve(t) for n, t in times.items()}),
        )
        return int(np.sum(log.outcome == 2))

    alone = refused({"m": [Version("live", 1.0)]})
    beside = refused({"m": [Version("live", 1.0), Version("trial", 1.0, shadow=True)]})
    assert beside <= alone + 0.02 * len(arrivals)


@pytest.mark.parametrize("share", [1.0, 3.0])
def test_two_greedy_tenants_get_their_weighted_shares(share: float) -> None:
    result = serve(
        [(Stream("a", "m", 0.03), 9000), (Stream("b", "m", 0.03), 9000)],
        {"a": share, "b": 1.0},
        4.0,
    )
    a, b = result.tenants
    assert a.in_time / b.in_time == pytest.approx(share, rel=0.15)
    assert a.holds
    assert b.holds


def test_versions_share_exactly_and_shadows_are_never_answered() -> None:
    times = {
        "old": {1: 0.001, 8: 0.002},
        "new": {1: 0.001, 8: 0.002},
        "trial": {1: 0.001, 8: 0.002},
    }
    inner = SloPolicy({n: Served(Known(t)) for n, t in times.items()}, {"t": 1.0})
    routes = {"m": [Version("old", 0.9), Version("new", 0.1), Version("trial", 0.5, shadow=True)]}
    source = Open([(Stream("t", "m", 0.05), Poisson(400).times_s(5.0, np.random.default_rng(2)))])
    log = simulate(
        Versioned(inner, routes), source, Spread({n: curve(t) for n, t in times.items()})
    )
    count = Counter(r.model for b in log.batches for r in b.start.requests)
    whole = len(log.requests)
    assert abs(count["new"] - 0.1 * whole) <= 1
    assert abs(count["old"] - 0.9 * whole) <= 1
    assert count["trial"] > 0.4 * whole
    assert int(np.sum(log.outcome == 1)) == whole
    assert all(r.shadow == (r.model == "trial") for b in log.batches for r in b.start.requests)


@pytest.mark.parametrize(
    "versions",
    [
        [Version("a", 0.0)],
        [Version("a", 1.0), Version("b", -0.1)],
        [Version("a", 1.0, shadow=True)],
    ],
)
def test_shares_that_sum_to_nothing(versions: list[Version]) -> None:
    with pytest.raises(InputError, match="shares of 0 or more with a sum above 0"):
        Versioned(policy(), {"m": versions})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_is_above_nothing(weight: float) -> None:
    with pytest.raises(InputError, match="needs a weight above 0"):
        policy(t=weight)


ARRIVALS = {
    "poisson": (Poisson(200), 1.0),
    "regular": (Gamma(200, 0.3), 0.3),
    "bursty": (Gamma(200, 3.0), 3.0),
    "on-off": (OnOff(800, 0, 0.5, 1.5), None),
    "diurnal": (Diurnal(200, 0.8, 50.0), None),
}


@pytest.mark.parametrize("name", ARRIVALS)
def test_arrivals_have_the_rate_and_spread_they_say(name: str) -> None:
    arrivals, cv = ARRIVALS[name]
    times = arrivals.times_s(1000.0, np.random.default_rng(4))
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0
    assert times[-1] < 1000.0
    assert len(times) / 1000 == pytest.approx(
        arrivals.rate_per_s, rel=0.12 if name == "on-off" else 0.03
    )
    if cv is not None:
        gaps = np.diff(times)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_diurnal_arrivals_swing() -> None:
    times = Diurnal(200, 0.8, 50.0).times_s(1000.0, np.random.default_rng(4)) % 50
    trough, peak = (int(np.sum((times >= a) & (times < a + 10))) for a in (0, 20))
    # means of the cosine over both stretches
    assert trough / peak == pytest.approx((1 - 0.8 * 0.7568) / (1 + 0.8 * 0.9355), rel=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival_s\n0.1\n0.3\n0.2\n", "row 3 is at 0.2 s, after 0.3 s"),
        ("when\n0.1\n", "a column 'arrival_s'"),
        ("arrival_s\n0.1\nsoon\n", "row 2: 'arrival_s' must be a number of seconds, got 'soon'"),
        ("arrival_s\n-1\n", "begins at 0 s or later"),
        ("arrival_s\ninf\n", "must be finite"),
    ],
)
def test_traces_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_trace(text)


def test_the_same_seed_gives_the_same_run() -> None:
    scenario = replace(shipped("greedy"), duration_s=1.5)
    a, b = (run(ready(scenario))[0] for _ in range(2))
    assert a.finish_s.tolist() == b.finish_s.tolist()
    assert [x.start.requests for x in a.batches] == [x.start.requests for x in b.batches]


SECONDS = {"diurnal": 10.0, "memory": 20.0, "bursty": 8.0, "steady": 10.0}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_policy_wins_over_every_baseline_tuned_for_the_scenario(name: str) -> None:
    """Goodput at p99 at least that of each with the knobs that suit it best here (0.1 % is a tie),
    and well above the untuned ones.
    """
    given = ready(replace(shipped(name), duration_s=SECONDS.get(name, 4.0)))
    ours = score_of(given, Choice())
    assert ours.holds
    # there one tenant asks for more than there is
    assert ours.worst_share > 0.99 or name in (
        "bursty",
        "diurnal",
    )
    for name in BASELINES:
        best, tried = tuned(given, name)
        held = [s.goodput_per_s for s in tried if s.holds]
        assert ours.goodput_per_s >= 0.999 * max(held, default=0.0), best.choice.words
        assert ours.goodput_per_s >= 0.999 * np.median([s.goodput_per_s for s in tried])


def test_grids_try_what_they_say() -> None:
    given = ready(replace(shipped("greedy"), duration_s=1.5))
    assert len(grid(given, "delay")) == 6 * 3 * 2
    assert {c.value("batch") for c in grid(given, "fixed")} == {1, 2, 4, 8, 16, 32}


def test_near_the_limit_nobody_is_refused_for_want_of_a_full_batch() -> None:
    """At 94 % of what batches of 32 can do, with an SLO of 2.6 of them, smaller batches now and
    then do no harm.
    """
    times = {1: 0.6e-3, 8: 2.4e-3, 32: 7.7e-3, 64: 14.8e-3}
    arrivals = Poisson(0.94 * 32 / times[32]).times_s(4.0, np.random.default_rng(3))
    policy = SloPolicy({"m": Served(Known(times, high_factor(0.05)))}, {"t": 1.0})
    spread = Spread({"m": curve(times)}, {"m": 0.05}, 3)
    log = simulate(policy, Open([(Stream("t", "m", 0.020), arrivals)]), spread)
    total = result_of(log, 4.0, 0.4).total
    assert total.in_time >= 0.998 * total.offered
