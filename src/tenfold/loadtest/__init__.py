"""The policy on the real clock: ONNX Runtime on this machine, under MLPerf LoadGen or our own
arrivals.
"""

from tenfold.loadtest.search import capacity, highest, valid
from tenfold.loadtest.session import Session, profile_batches, spare_threads
from tenfold.loadtest.study import LoadResult, LoadStudy, Sender, load_tested
from tenfold.loadtest.trial import (
    Empirical,
    TrialTimes,
    delay_policy,
    drive,
    latencies,
    learned,
    loadgen_module,
    loadgen_offline,
    loadgen_server,
    served_ratios,
    simulated,
    slo_policy,
)
from tenfold.serving.real import Recording, Replay, Server

__all__ = [
    "Empirical",
    "LoadResult",
    "LoadStudy",
    "Recording",
    "Replay",
    "Sender",
    "Server",
    "Session",
    "TrialTimes",
    "capacity",
    "delay_policy",
    "drive",
    "highest",
    "latencies",
    "learned",
    "load_tested",
    "loadgen_module",
    "loadgen_offline",
    "loadgen_server",
    "profile_batches",
    "served_ratios",
    "simulated",
    "slo_policy",
    "spare_threads",
    "valid",
]
