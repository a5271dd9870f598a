"""The policy on the real clock: ONNX Runtime, threads, LoadGen; and the recording that replays to
the same decisions.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from tenfold.cli import app
from tenfold.errors import InputError
from tenfold.loadtest import (
    Replay,
    Session,
    TrialTimes,
    delay_policy,
    drive,
    loadgen_offline,
    loadgen_server,
    profile_batches,
    served_ratios,
    simulated,
    slo_policy,
)
from tenfold.loadtest.trial import told
from tenfold.measure.runtime import measure
from tenfold.serving import Decision, Policy, Why, simulate
from tenfold.serving.loadgen import server_verdict

runner = CliRunner(env={"COLUMNS": "160"})
SLO_S = 0.5  # far away: these tests are of the machinery, not of this machine's speed


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((256, 256)).astype(np.float32) / 16, f"w{i}")
        for i in range(3)
    ]
    nodes, x = [], "x"
    for i in range(3):
        nodes += [
            helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        x = f"r{i}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 256]) for n in ("x", x)]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    file = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file
    )
    return file


@pytest.fixture(scope="module")
def session(path: Path) -> Session:
    return Session(path, threads=1)


@pytest.fixture(scope="module")
def times(session: Session) -> dict[int, list[float]]:
    return profile_batches(session, SLO_S, 8)


def decided(
    decisions: list[tuple[float, Decision]],
) -> list[tuple[float, tuple[int, ...], str, tuple[tuple[int, str], ...]]]:
    return [
        (
            now,
            tuple(r.id for r in d.start.requests) if d.start else (),
            str(d.start.why) if d.start else "",
            tuple((r.request.id, str(r.why)) for r in d.refused),
        )
        for now, d in decisions
        if d.start or d.refused
    ]


def replayed(measured: TrialTimes, policy: Policy) -> None:
    decisions: list[tuple[float, Decision]] = []
    replay = Replay(measured.recording)
    log = simulate(policy, replay, replay, listener=lambda now, d: decisions.append((now, d)))
    end = measured.recording.drained_s
    mine, theirs = (
        [x for x in decided(list(d)) if x[0] < end and x[2] != Why.DRAIN]
        for d in (decisions, measured.recording.decisions)
    )
    assert mine == theirs
    assert len(mine) > 20
    early = measured.log.finish_s < measured.recording.requests[-1].arrival_s
    assert log.finish_s[early].tolist() == measured.log.finish_s[early].tolist()


@pytest.mark.parametrize("slo_s", [SLO_S, 0.0015])
def test_a_recorded_run_gives_the_same_decisions_on_the_simulated_clock(
    session: Session, times: dict[int, list[float]], slo_s: float
) -> None:
    measured = drive(session, slo_policy(session.name, times), slo_s, 800.0, 0.6)
    assert len(measured.log.requests) > 200
    assert measured.log.batches
    replayed(measured, slo_policy(session.name, times))


def test_a_policy_that_waits_replays_too(session: Session, times: dict[int, list[float]]) -> None:
    measured = drive(session, delay_policy(session.name, times, 4, 0.004), SLO_S, 500.0, 0.5)
    assert max(len(b.start.requests) for b in measured.log.batches) <= 4
    replayed(measured, delay_policy(session.name, times, 4, 0.004))


def test_loadgen_is_answered_in_full(session: Session, times: dict[int, list[float]]) -> None:
    measured = loadgen_server(session, slo_policy(session.name, times), SLO_S, 1500.0, 0.2)
    assert len(measured.log.requests) >= 662
    assert measured.loadgen is not None
    assert measured.loadgen.valid == measured.verdict.valid
    ran: list[int] = []

    class Counting:
        name = session.name

        def run(self, items: int) -> None:
            ran.append(items)
            session.run(items)

    assert loadgen_offline(Counting(), slo_policy(session.name, times), 200) > 0  # type: ignore[arg-type]
    assert sum(ran) >= 200


def test_a_model_that_fails_leaves_nobody_waiting(
    session: Session, times: dict[int, list[float]]
) -> None:
    class Broken:
        name = session.name

        def run(self, items: int) -> None:
            raise InputError("no such kernel")

    with pytest.raises(InputError, match="no such kernel"):
        loadgen_server(Broken(), slo_policy(session.name, times), 0.05, 3000.0, 0.1)  # type: ignore[arg-type]


def test_refused_queries_count_as_late_for_loadgen(
    session: Session, times: dict[int, list[float]]
) -> None:
    """An SLO that nothing can hold: everything is refused, and LoadGen must say so."""
    measured = loadgen_server(session, slo_policy(session.name, times), 1e-6, 2000.0, 0.1)
    assert measured.result.total.in_time == 0
    assert measured.loadgen is not None
    assert not measured.loadgen.valid
    assert "performance constraints not satisfied" in measured.loadgen.reasons


def test_the_simulation_knows_the_same_host(
    session: Session, times: dict[int, list[float]]
) -> None:
    ratios = served_ratios(session, times, SLO_S, 300.0, 0.3)
    assert min(ratios) > 0
    found = simulated(session.name, times, ratios, SLO_S, 300.0, 5.0)
    assert found.total.in_time == found.total.offered
    assert found.total.p50_s >= min(times[1]) * min(ratios)


def test_items_are_stacked_on_the_axis_of_the_batch(session: Session) -> None:
    assert not session.one_by_one
    for items in (1, 3, 40):
        session.run(items)


def test_the_verb(path: Path) -> None:
    for arrivals in ("--own", "--loadgen"):
        done = runner.invoke(
            app,
            [
                "loadtest",
                str(path),
                "--slo",
                "2s",
                "--rate",
                "700",
                "--seconds",
                "0.5",
                "--largest",
                "4",
                arrivals,
                "--json",
            ],
        )
        document = json.loads(done.stdout)
        assert {"p50_s", "p99_s", "goodput_per_s", "valid", "simulated", "service_s"} <= set(
            document
        )
        assert {"p50_s", "p99_s", "goodput_per_s"} <= set(document["simulated"])
        assert done.exit_code == (0 if document["valid"] else 1)
        assert document["arrivals"] == ("poisson" if arrivals == "--own" else "loadgen")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resnet50", "--slo", "20ms"), "is none: a network without weights cannot run"),
        (("MODEL", "--slo", "0ms"), "--slo must be above 0"),
        (("MODEL", "--slo", "20"), "has no unit"),
        (("MODEL", "--slo", "20ms", "--rate", "0"), "--rate must be above 0"),
        (("MODEL", "--slo", "1ns"), "the least possible"),
        (("nothing.onnx", "--slo", "20ms"), "there is no file"),
    ],
)
def test_what_cannot_be(path: Path, words: tuple[str, ...], message: str) -> None:
    done = runner.invoke(app, ["loadtest", *(str(path) if w == "MODEL" else w for w in words)])
    assert isinstance(done.exception, InputError), done.output
    assert message in str(done.exception)


SUMMARY = """================================================
MLPerf Results Summary
================================================
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Reduce target QPS to improve latency.
Early Stopping Result:
 * Run unsuccessful.
"""


def test_what_loadgen_says_is_kept_in_its_words() -> None:
    found = told(SUMMARY)
    assert not found.valid
    assert found.reasons == (
        "performance constraints not satisfied",
        "early stopping not satisfied",
        "Reduce target QPS to improve latency",
    )
    assert told("Result is : VALID\n").valid


def test_refused_queries_are_no_infinite_latency() -> None:
    verdict = server_verdict([0.001] * 90 + [math.inf] * 10, 0.01)
    assert not verdict.valid
    assert "inf" not in verdict.reasons[0]
    assert "more than 1 % were refused" in verdict.reasons[0]


def endless() -> onnx.ModelProto:
    """A loop whose condition stays true."""
    flag, number = TensorProto.BOOL, TensorProto.FLOAT
    steps = [
        helper.make_node("Identity", ["c"], ["c1"]),
        helper.make_node("Sin", ["s"], ["s1"]),
    ]
    body = helper.make_graph(
        steps,
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", flag, []),
            helper.make_tensor_value_info("s", number, ["batch", 2]),
        ],
        [
            helper.make_tensor_value_info("c1", flag, []),
            helper.make_tensor_value_info("s1", number, ["batch", 2]),
        ],
    )
    node = helper.make_node("Loop", ["", "go", "x"], ["y"], body=body)
    x, y = (helper.make_tensor_value_info(n, number, ["batch", 2]) for n in "xy")
    go = numpy_helper.from_array(np.asarray(True), "go")
    graph = helper.make_graph([node], "endless", [x], [y], [go])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_model_without_end_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "endless.onnx"
    onnx.save(endless(), path)
    with pytest.raises(InputError, match=r"batch of 1 did not come to an end within 0\.2 s"):
        Session(path, threads=1, longest_run_s=0.2).time(1)
    with pytest.raises(InputError, match=r"the model did not come to an end within 0\.2 s"):
        measure(str(path), {"x": np.zeros((1, 2), np.float32)}, longest_run_s=0.2)
