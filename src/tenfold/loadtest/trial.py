"""One run of a load test: arrivals or MLPerf LoadGen on one side, the policy and ONNX Runtime on
the other.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tenfold.errors import InputError
from tenfold.loadtest.session import Session
from tenfold.serving import (
    Known,
    Learned,
    Log,
    MaxDelay,
    Open,
    Poisson,
    Policy,
    Request,
    Result,
    Served,
    ServerSchedule,
    SloPolicy,
    Start,
    Stream,
    Verdict,
    curve,
    result_of,
    server_verdict,
    simulate,
)
from tenfold.serving.arrivals import Times
from tenfold.serving.real import LATE, Later, Recording, Run, Server

TENANT = "loadtest"
QUANTILE = 0.99
SEED = 1
LEAST_QUERIES = 662  # LoadGen's early stopping with one query over the latency


@dataclass(frozen=True, slots=True)
class Told:
    """LoadGen's verdict, and in its words what was not satisfied and what it recommends."""

    valid: bool
    reasons: tuple[str, ...]


_UNMET = re.compile(r"(.+?) satisfied ?: NO")


def told(summary: str) -> Told:
    """LoadGen's verdict from its summary."""
    lines = [line.strip() for line in summary.splitlines()]
    unmet = [m[1] for line in lines if (m := _UNMET.fullmatch(line))]
    after = lines[lines.index("Recommendations:") + 1 :] if "Recommendations:" in lines else []
    advice = [line.removeprefix("* ").rstrip(".") for line in after[:1] if line.startswith("* ")]
    words = (f"{u[0].lower()}{u[1:]} not satisfied" for u in unmet)
    return Told("Result is : VALID" in lines, (*words, *advice))


@dataclass(frozen=True, slots=True)
class TrialTimes:
    """A run on the real clock. ``verdict`` is ours; ``loadgen`` is LoadGen's own, None where our
    arrivals were used.
    """

    rate_per_s: float
    result: Result
    verdict: Verdict
    loadgen: Told | None
    log: Log
    recording: Recording


def latencies(log: Log) -> list[float]:
    """Of every request; infinite where it was refused."""
    arrival = np.array([r.arrival_s for r in log.requests])
    return [
        float(f - a) if o == 1 else math.inf
        for f, a, o in zip(log.finish_s, arrival, log.outcome, strict=True)
    ]


def learned(times: Mapping[int, Sequence[float]]) -> Learned:
    """What the policy starts from: medians by batch, and the high quantile of all runs over their
    medians.
    """
    medians = {b: float(np.median(t)) for b, t in times.items()}
    ratios = np.concatenate([np.asarray(t) / medians[b] for b, t in times.items()])
    return Learned(medians, max(1.0, float(np.quantile(ratios, QUANTILE))), QUANTILE)


def slo_policy(model: str, times: Mapping[int, Sequence[float]]) -> Policy:
    return SloPolicy({model: Served(learned(times))}, {TENANT: 1.0})


def delay_policy(
    model: str, times: Mapping[int, Sequence[float]], batch: int, delay_s: float
) -> Policy:
    return MaxDelay(
        {model: Served(Known({b: float(np.median(t)) for b, t in times.items()}))}, batch, delay_s
    )


def _runs(session: Session) -> Run:
    """Batches of the session's own inputs: how long they take is asked, not what comes out."""

    def run(start: Start) -> Sequence[object]:
        session.run(len(start.requests))
        return [None] * len(start.requests)

    return run


def _nobody_waits(_requests: Sequence[Request], _answers: Sequence[object] | None) -> None:
    """Nobody waits for the answers."""


def drive(
    session: Session,
    policy: Policy,
    slo_s: float,
    rate_per_s: float,
    duration_s: float,
    seed: int = 0,
) -> TrialTimes:
    """Our own Poisson arrivals at ``rate_per_s``, as many at least as early stopping asks for; a
    sender behind its schedule sends at once, and latency counts from then.
    """
    times = Poisson(rate_per_s).times_s(
        max(duration_s, LEAST_QUERIES / rate_per_s), np.random.default_rng(seed)
    )
    server = Server(policy, _runs(session), _nobody_waits)
    _send(server, session.name, slo_s, times)
    return _measured(server, slo_s, rate_per_s, None)


def _measured(server: Server, slo_s: float, rate_per_s: float, loadgen: Told | None) -> TrialTimes:
    log = server.log()
    span = max(r.arrival_s for r in log.requests) if log.requests else 0.0
    return TrialTimes(
        rate_per_s,
        result_of(log, max(span, 1e-9)),
        server_verdict(latencies(log), slo_s),
        loadgen,
        log,
        server.recording(),
    )


def loadgen_module() -> Any:
    """MLPerf LoadGen. Raises InputError that says which extra to install."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise InputError(
            "MLPerf LoadGen is not installed: pip install 'tenfold[loadgen]', or leave"
            " --loadgen out"
        ) from error
    return mlperf_loadgen


def loadgen_server(
    session: Session,
    policy: Policy,
    slo_s: float,
    rate_per_s: float,
    duration_s: float,
    seed: int = 1,
) -> TrialTimes:
    """LoadGen's Server scenario at a rate. It knows no refusals: a refused query is answered after
    its SLO, so that it counts as late.
    """
    lg = loadgen_module()
    settings = _settings(lg, duration_s, seed)
    settings.scenario = lg.TestScenario.Server
    settings.server_target_qps = rate_per_s
    settings.server_target_latency_ns = int(slo_s * 1e9)
    settings.server_target_latency_percentile = QUANTILE
    settings.min_query_count = LEAST_QUERIES
    server, said = _under_loadgen(lg, session, policy, slo_s, settings)
    return _measured(server, slo_s, rate_per_s, said)


def loadgen_offline(session: Session, policy: Policy, samples: int) -> float:
    """Samples a second in LoadGen's Offline scenario, where all come at once and none is late."""
    lg = loadgen_module()
    settings = _settings(lg, 0.0, 1)
    settings.scenario = lg.TestScenario.Offline
    settings.offline_expected_qps = samples
    settings.min_query_count = samples
    server, _ = _under_loadgen(lg, session, policy, math.inf, settings)
    log = server.log()
    return len(log.requests) / (log.ended_s - log.requests[0].arrival_s)


def _settings(lg: Any, duration_s: float, seed: int) -> Any:
    settings = lg.TestSettings()
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(duration_s * 1e3)
    settings.schedule_rng_seed = settings.qsl_rng_seed = settings.sample_index_rng_seed = seed
    return settings


def _under_loadgen(
    lg: Any, session: Session, policy: Policy, slo_s: float, settings: Any
) -> tuple[Server, Told]:
    later = Later()

    def answer(requests: Sequence[Request]) -> None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(r.payload, 0, 0) for r in requests])

    def done(requests: Sequence[Request], answers: Sequence[object] | None) -> None:
        if answers is not None or math.isinf(slo_s):
            answer(requests)
        else:
            later.call(slo_s * LATE, lambda: answer(requests))

    server = Server(policy, _runs(session), done)

    def issue(samples: Sequence[Any]) -> None:
        for sample in samples:
            server.arrive(TENANT, session.name, slo_s, payload=sample.id)

    sut = lg.ConstructSUT(issue, server.drain)
    library = lg.ConstructQSL(1024, 1024, lambda _indices: None, lambda _indices: None)
    with TemporaryDirectory() as folder:
        output, logging = lg.LogOutputSettings(), lg.LogSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        logging.log_output, logging.enable_trace = output, False
        lg.StartTestWithLogSettings(sut, library, settings, logging)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8")
    server.close()
    later.close()
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)
    return server, told(summary)


class Empirical:
    """Service times as measured: medians by batch, linear between sizes, times a ratio drawn from
    all that came to their median.
    """

    def __init__(
        self, times: Mapping[int, Sequence[float]], ratios: Sequence[float], seed: int
    ) -> None:
        self._medians = curve({b: float(np.median(t)) for b, t in times.items()})
        self._ratios = np.asarray(ratios, dtype=float)
        self._rng = np.random.default_rng(seed)

    def seconds(self, model: str, batch: int) -> float:
        return self._medians[batch] * float(self._rng.choice(self._ratios))


def served_ratios(
    session: Session,
    times: Mapping[int, Sequence[float]],
    slo_s: float,
    rate_per_s: float,
    duration_s: float,
) -> list[float]:
    """Served times over the profile's medians, from a short run of its own at the rate: caches are
    colder and cores busier than when a batch follows a batch.
    """
    medians = curve({b: float(np.median(t)) for b, t in times.items()})
    arrivals = Poisson(rate_per_s).times_s(duration_s, np.random.default_rng(9))
    server = Server(slo_policy(session.name, times), _runs(session), _nobody_waits)
    _send(server, session.name, slo_s, arrivals)
    return [
        (b.ended_s - b.began_s) / medians[len(b.start.requests)] for b in server.log().batches
    ] or [1.0]


def _send(server: Server, model: str, slo_s: float, times: Times) -> None:
    began = time.perf_counter()
    for at in times.tolist():
        left = at - (time.perf_counter() - began)
        if left > 0:
            time.sleep(left)
        server.arrive(TENANT, model, slo_s)
    server.close()


def simulated(
    model: str,
    times: Mapping[int, Sequence[float]],
    ratios: Sequence[float],
    slo_s: float,
    rate_per_s: float,
    duration_s: float,
) -> Result:
    """What the simulated clock says of the same policy on the same host: LoadGen's schedule,
    service times as profiled and served.
    """
    arrivals = ServerSchedule(rate_per_s, SEED).times_s(duration_s, np.random.default_rng(SEED))
    log = simulate(
        slo_policy(model, times),
        Open([(Stream(TENANT, model, slo_s), arrivals)]),
        Empirical(times, ratios, SEED),
    )
    return result_of(log, duration_s)
