"""Arrivals and verdicts against MLPerf LoadGen itself."""

from __future__ import annotations

import math
import re
import threading
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np
import pytest

from tenfold.errors import InputError
from tenfold.serving import (
    Known,
    MaxDelay,
    OneByOne,
    Served,
    ServerSchedule,
    Spread,
    Stream,
    queries_needed,
    server_verdict,
    simulate,
)

TARGET_S = 2.0  # so far away that only what is held back on purpose is late


def server_run(
    folder: Path, queries: int, late: int, qps: float = 4000.0, seed: int = 7
) -> tuple[str, list[float]]:
    """LoadGen's summary, and when it scheduled its queries, of a run in which ``late`` of
    ``queries`` are over the latency.
    """
    held: list[int] = []
    release = threading.Timer(
        TARGET_S * 1.2,
        lambda: lg.QuerySamplesComplete([lg.QuerySampleResponse(i, 0, 0) for i in held]),
    )

    def issue(samples: list[Any]) -> None:
        for s in samples:
            if len(held) < late:
                held.append(s.id)
                if len(held) == late:
                    release.start()
            else:
                lg.QuerySamplesComplete([lg.QuerySampleResponse(s.id, 0, 0)])

    sut, qsl = (
        lg.ConstructSUT(issue, lambda: None),
        lg.ConstructQSL(64, 64, lambda _x: None, lambda _x: None),
    )
    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.Server, lg.TestMode.PerformanceOnly
    settings.server_target_qps, settings.server_target_latency_ns = qps, int(TARGET_S * 1e9)
    settings.server_target_latency_percentile = 0.99
    settings.min_duration_ms, settings.min_query_count, settings.max_query_count = (
        0,
        queries,
        queries,
    )
    settings.schedule_rng_seed = seed
    output, log = lg.LogOutputSettings(), lg.LogSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    log.log_output, log.enable_trace = output, True
    lg.StartTestWithLogSettings(sut, qsl, settings, log)
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)
    trace = (folder / "mlperf_log_trace.json").read_text()  # not quite JSON
    scheduled = [
        float(t) * 1e-6
        for t in re.findall(r'"name":"Sample","cat":"default","ph":"b".*?"ts":([0-9.]+)', trace)
    ]
    return (folder / "mlperf_log_summary.txt").read_text(), scheduled


@pytest.mark.parametrize(
    ("queries", "late"), [(458, 0), (459, 0), (661, 1), (662, 1), (837, 2), (838, 2)]
)
def test_verdicts_are_loadgens_own(tmp_path: Path, queries: int, late: int) -> None:
    summary, _ = server_run(tmp_path, queries, late)
    latencies = [TARGET_S * 2] * late + [0.0] * (queries - late)
    ours = server_verdict(latencies, TARGET_S)
    assert ("Result is : VALID" in summary) == ours.valid == (queries >= queries_needed(late))


@pytest.mark.parametrize("seed", [7, 123456789])
def test_the_schedule_is_loadgens_own_to_the_nanosecond(tmp_path: Path, seed: int) -> None:
    _, scheduled = server_run(tmp_path, 300, 0, qps=2500.0, seed=seed)
    ours = ServerSchedule(2500.0, seed).first(300)
    theirs = np.sort(np.array(scheduled)) - min(scheduled)
    assert np.max(np.abs(theirs - ours)) < 3e-9 * 300  # it adds whole nanoseconds


def test_early_stopping_asks_for_the_published_numbers() -> None:
    assert [queries_needed(t) for t in range(6)] == [459, 662, 838, 1001, 1157, 1307]


@pytest.mark.parametrize("arguments", [(-1,), (0, 1.0), (0, 0.99, 0.0)])
def test_early_stopping_that_cannot_be(arguments: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        queries_needed(*arguments)  # type: ignore[arg-type]


def test_a_verdict_says_what_is_missing() -> None:
    verdict = server_verdict(
        [0.001] * 100 + [math.inf] * 5,
        0.01,
        duration_s=1.0,
        least_duration_s=2.0,
        least_queries=662,
    )
    assert not verdict.valid
    assert verdict.misses == 5
    assert [r.split()[0] for r in verdict.reasons] == ["more", "it", "105", "105"]


@pytest.mark.parametrize("samples", [1, 8])
def test_one_query_after_the_other(samples: int) -> None:
    """SingleStream and MultiStream: a query goes out when the last one is answered, whole."""
    source = OneByOne(Stream("t", "m", math.inf), 50, samples)
    times = {1: 0.004, 8: 0.01}
    policy = MaxDelay({"m": Served(Known(times))}, 8, 0.0)
    log = simulate(policy, source, Spread({"m": [0.0, *[0.01] * 8]}))
    assert len(log.requests) == 50 * samples
    sent = sorted({r.arrival_s for r in log.requests})
    assert len(sent) == 50
    done = [
        max(f for r, f in zip(log.requests, log.finish_s.tolist(), strict=True) if r.arrival_s == t)
        for t in sent
    ]
    assert sent[1:] == done[:-1]
