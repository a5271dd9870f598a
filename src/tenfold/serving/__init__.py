"""Serving under a p99: policies that decide, arrivals, and the driver with the simulated clock
(lessons 4 and 5).
"""

from tenfold.serving.arrivals import (
    ClosedLoop,
    Diurnal,
    Gamma,
    Merged,
    OnOff,
    Open,
    Poisson,
    Stream,
    Trace,
    read_trace,
)
from tenfold.serving.baselines import Aimd, Clockwork, FixedBatch, MaxDelay
from tenfold.serving.latency import Known, Latency, Learned, curve
from tenfold.serving.loadgen import (
    OneByOne,
    ServerSchedule,
    Verdict,
    queries_needed,
    server_verdict,
)
from tenfold.serving.policy import Served, SloPolicy
from tenfold.serving.record import Decision, Policy, Refusal, Request, Start, Why, explain
from tenfold.serving.residency import Residency, Weights
from tenfold.serving.result import Result, TenantResult, result_of
from tenfold.serving.simulated import Batch, Instant, Log, Outcome, Spread, high_factor, simulate
from tenfold.serving.specs import BASELINES, POLICIES, Choice, Knob, PolicySpec, Tried, World
from tenfold.serving.versions import Version, Versioned

__all__ = [
    "BASELINES",
    "POLICIES",
    "Aimd",
    "Batch",
    "Choice",
    "Clockwork",
    "ClosedLoop",
    "Decision",
    "Diurnal",
    "FixedBatch",
    "Gamma",
    "Instant",
    "Knob",
    "Known",
    "Latency",
    "Learned",
    "Log",
    "MaxDelay",
    "Merged",
    "OnOff",
    "OneByOne",
    "Open",
    "Outcome",
    "Poisson",
    "Policy",
    "PolicySpec",
    "Refusal",
    "Request",
    "Residency",
    "Result",
    "Served",
    "ServerSchedule",
    "SloPolicy",
    "Spread",
    "Start",
    "Stream",
    "TenantResult",
    "Trace",
    "Tried",
    "Verdict",
    "Version",
    "Versioned",
    "Weights",
    "Why",
    "World",
    "curve",
    "explain",
    "high_factor",
    "queries_needed",
    "read_trace",
    "result_of",
    "server_verdict",
    "simulate",
]
