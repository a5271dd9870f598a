"""What every policy must do, whatever it decides: one suite over the table of policies."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

from tenfold.errors import DataFileError, InputError, UnknownName
from tenfold.scenario import grid, read_scenario, ready, run, shipped
from tenfold.scenario.tune import DATA
from tenfold.serving import (
    POLICIES,
    Choice,
    Gamma,
    Instant,
    Known,
    Open,
    Policy,
    Served,
    Spread,
    Stream,
    Tried,
    World,
    curve,
    simulate,
)

TIMES = {1: 0.004, 8: 0.009}


def built(name: str, workers: int = 1) -> Policy:
    world = World({"model": Served(Known(TIMES))}, {"tenant": 1.0}, workers)
    return POLICIES[name].build(world, Choice(name))


def arrivals(per_s: float, seconds: float = 4.0) -> Open:
    times = Gamma(per_s, 2.0).times_s(seconds, np.random.default_rng(3))
    return Open([(Stream("tenant", "model", 0.02), times)])


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_request_is_somewhere_at_every_instant_and_little_holds(
    name: str, workers: int
) -> None:
    area = 0.0
    last = 0.0
    inside = 0

    def observe(at: Instant) -> None:
        nonlocal area, last, inside
        assert at.arrived == at.answered + at.refused + at.waiting + at.serving
        assert min(at.answered, at.refused, at.waiting, at.serving) >= 0
        area += inside * (at.now_s - last)
        last, inside = at.now_s, at.waiting + at.serving

    service = Spread({"model": curve(TIMES)}, {"model": 0.3}, seed=4)
    log = simulate(
        built(name, workers), arrivals(900.0 * workers), service, workers=workers, observer=observe
    )
    stays = float(np.sum(log.finish_s - np.array([r.arrival_s for r in log.requests])))
    assert not np.isnan(log.finish_s).any()
    # Little: what was inside over time is the sum of the stays
    assert area == pytest.approx(stays, rel=1e-9)
    served = [r.id for b in log.batches for r in b.start.requests]
    refused = [r.request.id for r in log.refusals]
    assert sorted(served + refused) == [r.id for r in log.requests]


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_arrivals_give_the_same_decisions(name: str) -> None:
    logs = [
        simulate(built(name), arrivals(700.0, 1.0), Spread({"model": curve(TIMES)}))
        for _ in range(2)
    ]
    assert logs[0].batches == logs[1].batches
    assert logs[0].refusals == logs[1].refusals


@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_is_never_larger_than_the_model_takes(name: str) -> None:
    log = simulate(built(name), arrivals(2000.0, 1.0), Spread({"model": curve(TIMES)}))
    assert all(1 <= len(b.start.requests) <= max(TIMES) for b in log.batches)
    assert all(r.model == "model" for b in log.batches for r in b.start.requests)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_has_no_clock_no_io_and_no_randomness(name: str) -> None:
    module = inspect.getmodule(type(built(name)))
    assert module is not None
    tree = ast.parse(inspect.getsource(module))
    used = {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    used |= {
        (n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
    }
    assert not used & {"time", "datetime", "random", "os", "io", "socket", "threading", "asyncio"}


@pytest.mark.parametrize("name", POLICIES)
def test_a_row_is_whole(name: str) -> None:
    spec = POLICIES[name]
    assert spec.name == name
    assert spec.says
    choices = spec.choices(Tried((1, 4), 0.02))
    assert choices
    assert len({c.words for c in choices}) == len(choices)
    for choice in choices:
        for knob in spec.knobs:
            value = choice.value(knob.name)
            assert value is None or knob.spec.range.fault(value) == ""


def test_the_policy_that_is_registered_is_the_one_that_runs() -> None:
    """Each shipped baseline decides in its own way on the same scenario."""
    given = ready(shipped("greedy"))
    short = {c.policy: c for name in POLICIES for c in grid(given, name)[:1]}
    assert set(short) == set(POLICIES)
    found = {name: type(built(name)).__name__ for name in POLICIES}
    assert len(set(found.values())) == len(POLICIES)


@pytest.mark.parametrize(
    ("policy", "error", "said"),
    [
        ('kind = "clokwork"', UnknownName, "did you mean clockwork"),
        ('kind = "fixed"\nmargin = 2.0', DataFileError, "no knob 'margin': it has batch"),
        ('kind = "fixed"\nbatch = 0', DataFileError, "batch must be at least 1, got 0"),
        ('kind = "fixed"\nbatch = 2.5', DataFileError, "batch must be a whole number"),
        ('kind = "aimd"\nbackoff = 1.0', DataFileError, "backoff must be at most 1"),
        ('kind = "delay"\ndelay = "-1 ms"', DataFileError, "delay must be at least 0"),
        ('kind = "delay"\ndelay = 5', DataFileError, "delay: '5' has no unit"),
        ('kind = "clockwork"\nmargin = 0', DataFileError, "margin must be above 0"),
        ("batch = 4", DataFileError, "policy 'slo' has no knob 'batch': it has none"),
    ],
)
def test_faulty_policies_are_named(
    policy: str, error: type[InputError], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((DATA / "greedy.toml").read_text() + f"\n[policy]\n{policy}\n")
    with pytest.raises(error, match=said):
        read_scenario(path)


def test_the_knobs_of_a_scenario_are_used(tmp_path: Path) -> None:
    text = (DATA / "greedy.toml").read_text().replace("duration", "duration", 1)
    path = tmp_path / "mine.toml"
    path.write_text(text + '\n[policy]\nkind = "fixed"\nbatch = 3\n')
    log, _ = run(ready(read_scenario(path)))
    assert max(len(b.start.requests) for b in log.batches) == 3
