"""Queues against what was published and measured: p99 of TPU v1, and Server over Offline throughput
of MLPerf.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from tenfold.chips import chip
from tenfold.claims.serving import p99_of_mlp0
from tenfold.economics import dispatch
from tenfold.evaluate.profiling import profile_bound
from tenfold.model import Sizes, load, prepare
from tenfold.serving import (
    Known,
    Open,
    Poisson,
    Served,
    SloPolicy,
    Spread,
    Stream,
    curve,
    high_factor,
    result_of,
    simulate,
)
from tenfold.validation.published import papers
from tenfold.validation.record import Row

SPREAD = 0.05


def p99_of_tpu_v1() -> Iterator[Row]:
    """Table 4 of the TPU v1 paper: MLP0 at the published rates, service times from the machine
    alone.

    p99 is many batch times, so queueing; single items that arrive as a Poisson process queue far
    too little for it below full load, whole batches (the applications send them) do.
    """
    table = papers().v1
    for row in table.p99:
        found = p99_of_mlp0(row.batch, row.per_s)
        yield Row(
            "TPU v1, p99 of MLP0 at the published rate",
            f"batch {row.batch}",
            found,
            row.p99_s,
            "s",
            table.source,
        )


# name in the results to ours; two cores a chip on TPU v3
_CHIPS: Mapping[str, tuple[str, int]] = {
    "NVIDIA Tesla T4": ("t4", 1), "NVIDIA T4": ("t4", 1), "NVIDIA A100-PCIe": ("a100-pcie-40", 1),
    "NVIDIA A100-PCIe-40GB": ("a100-pcie-40", 1), "NVIDIA A100-SXM4": ("a100-sxm-40", 1),
    "NVIDIA A100-SXM-80GB": ("a100-sxm-80", 1), "NVIDIA A10": ("a10", 1), "NVIDIA A30": ("a30", 1),
    "tpu-v3.8": ("tpu-v3", 2),
}  # fmt: skip
# benchmark to model, dtype on GPUs, sequence (SQuAD's questions fill 176 of 384 tokens on average,
# padding skipped)
_BENCHMARKS: Mapping[str, tuple[str, str, int | None]] = {
    "resnet": ("resnet50", "int8", None), "resnet50": ("resnet50", "int8", None),
    "ssd-large": ("ssd-resnet34", "int8", None), "ssd-resnet34": ("ssd-resnet34", "int8", None),
    "bert-99": ("bert-large", "int8", 176), "bert-99.9": ("bert-large", "fp16", 176),
}  # fmt: skip
_OTHER_MODES = ("MaxQ", "MIG")  # power-tuned, or parts of a chip
_BATCHES = (1, 2, 8, 32, 128)
_MOST_WORKERS = 8
_REQUESTS = 5000
_STEPS = 4
_LEAST, _FIRST = 0.7, 0.9  # where the search ends and begins


def server_over_offline(folder: Path) -> Iterator[Row]:
    """For each system of known chips with a valid Server and Offline run: the share of Offline's
    throughput that the p99 leaves.
    """
    path = folder / "mlperf" / "inference_results.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = [
            r
            for r in csv.DictReader(file)
            if r["valid"] == "True" and r["accelerator"] in _CHIPS and r["benchmark"] in _BENCHMARKS
        ]
    offline = {
        (r["round"], r["system"], r["benchmark"]): r
        for r in lines
        if r["scenario"].lower() == "offline"
    }
    for r in lines:
        other = offline.get((r["round"], r["system"], r["benchmark"]))
        if (
            r["scenario"].lower() != "server"
            or other is None
            or any(m in r["system"] for m in _OTHER_MODES)
        ):
            continue
        name, cores = _CHIPS[r["accelerator"]]
        model, dtype, seq = _BENCHMARKS[r["benchmark"]]
        workers = min(_MOST_WORKERS, int(float(r["accelerators_per_node"]) / cores))
        item = "item_through_server" if "Triton" in r["system"] else "item"
        found = _ratio(
            name,
            model,
            None if name == "tpu-v3" else dtype,
            seq,
            float(r["target_latency_ns"]) * 1e-9,
            workers,
            item,
        )
        measured = float(r["server_qps"]) / float(other["offline_samples_per_s"])
        yield Row(
            "MLPerf, Server over Offline",
            f"{r['benchmark']} on {r['system']}",
            found,
            measured,
            "points",
            f"MLPerf Inference {r['round']}",
        )


def _ratio(
    name: str, model: str, dtype: str | None, seq: int | None, slo_s: float, workers: int, item: str
) -> float:
    """What the queue leaves, of which the host takes its part; sentences that come one by one
    cannot be sorted by length.
    """
    passes = _passes(name, model, dtype, seq)
    share = _queue_share(name, model, dtype, seq, slo_s, workers)
    rate = share * max(b / t for b, t in passes.items())
    mixed = dispatch("mixed_lengths").value if seq is not None else 1.0
    return share * mixed * dispatch("busy").value / (1 + rate * dispatch(item).value)


@lru_cache(maxsize=128)
def _queue_share(
    name: str, model: str, dtype: str | None, seq: int | None, slo_s: float, workers: int
) -> float:
    """Of the throughput of the best batch, the share that single requests reach with 99 of 100 in
    time.
    """
    times = _passes(name, model, dtype, seq)
    best = workers * max(b / t for b, t in times.items())
    low, high = _LEAST, 1.0
    share = _FIRST
    for _ in range(_STEPS):
        low, high = (share, high) if _holds(times, slo_s, workers, share * best) else (low, share)
        share = (low + high) / 2
    return low


@lru_cache(maxsize=128)
def _passes(name: str, model: str, dtype: str | None, seq: int | None) -> Mapping[int, float]:
    graph = load(model)
    return {
        b: profile_bound(prepare(graph, Sizes(b, seq)), chip(name), dtype=dtype).run.time_s.value
        for b in _BATCHES
    }


def _holds(times: Mapping[int, float], slo_s: float, workers: int, rate: float) -> bool:
    """Whether one queue before so many chips answers 99 of 100 in time."""
    policy = SloPolicy(
        {"m": Served(Known(times, high_factor(SPREAD)))}, {"t": 1.0}, workers=workers
    )
    duration = max(_REQUESTS / rate, 10 * slo_s)
    arrivals = Poisson(rate).times_s(duration, np.random.default_rng(1))
    log = simulate(
        policy,
        Open([(Stream("t", "m", slo_s), arrivals)]),
        Spread({"m": curve(times)}, {"m": SPREAD}, 1),
        workers=workers,
    )
    total = result_of(log, duration, duration * 0.1).total
    return total.in_time >= 0.99 * total.offered
