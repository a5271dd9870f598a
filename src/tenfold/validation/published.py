"""Predictions against tables of papers and results of MLPerf."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from tenfold.chips import Chip, chip, what_if
from tenfold.claims.checks import lstm_tiles_256, lstm_tiles_512
from tenfold.compiler import Options, build
from tenfold.evaluate.operators import OperatorCall, kernel_of
from tenfold.evaluate.profiling import profile_bound
from tenfold.facts import read_file
from tenfold.machine import Run, simulate, time_kernel
from tenfold.model import Sizes, load, prepare
from tenfold.validation.record import Row

DATA = Path(__file__).parent / "data"


class _App(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    model: str
    batch: int
    share: float
    counters: dict[str, float]
    clock_4x: float
    seq: int | None = None
    useful_fraction: float | None = None
    tera_ops: float | None = None


class _P99(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    batch: int
    p99_s: float
    per_s: float


class _V1(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    source: str
    status: str
    clock_hz: float
    macs_per_cycle: int
    app: list[_App]
    sweeps: dict[str, float]
    p99: list[_P99]


class _Cmem(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    model: str
    server_batch: int
    server: float
    offline: float
    seq: int | None = None


class _V4i(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    source: str
    status: str
    cmem: list[_Cmem]
    sizes_mb: list[float]
    share_percent: list[float]


class _Power(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    source: str
    status: str
    tpu_v1_busy_w: float


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    v1: _V1
    v4i: _V4i
    power: _Power


@lru_cache(maxsize=1)
def papers() -> _File:
    """The published tables. Raises DataFileError for a faulty file."""
    path = DATA / "tpu-papers.toml"
    return read_file(path, _File)


def run_on(
    record: Chip,
    model: str,
    batch: int,
    seq: int | None = None,
    dtype: str | None = None,
    without: tuple[str, ...] = (),
) -> Run:
    graph = prepare(load(model), Sizes(batch, seq)).graph
    return simulate(build(graph, record, record.storage(dtype), batch, Options(without)), record)


# --- TPU v1 -----------------------------------------------------------------------------


def tpu_v1() -> Iterator[Row]:
    """Device time and counters of the applications whose shapes are known, and the design
    sweeps.
    """
    table, v1 = papers().v1, chip("tpu-v1")
    runs = {a.model: run_on(v1, a.model, a.batch, a.seq) for a in table.app}
    for a in table.app:
        run = runs[a.model]
        peak = table.clock_hz * table.macs_per_cycle
        macs = run.counters.macs_useful
        device = (
            macs / (peak * a.useful_fraction)
            if a.useful_fraction
            else 2 * macs / ((a.tera_ops or 0.0) * 1e12)
        )
        yield Row(
            area="TPU v1 device time",
            case=a.model,
            predicted=run.time_s.value,
            reference=device,
            unit="s",
            source=table.source,
            inside=run.time_s.low <= device <= run.time_s.high,
        )
    for a in table.app:
        c = runs[a.model].counters
        ours = {"active": c.active, "weight_stall": c.weight_stall, "weight_shift": c.weight_shift}
        ours["non_matrix"] = c.cycles - sum(ours.values())
        known = a.useful_fraction is not None
        for name, published in a.counters.items():
            area = (
                "TPU v1 counters, MLP0 and CNN0"
                if known
                else "TPU v1 counters, LSTMs (rows exceed 34 GB/s)"
            )
            yield Row(
                area,
                f"{a.model} {name}",
                ours[name] / c.cycles,
                published / 100,
                "points",
                table.source,
            )
    yield from _sweeps(table, v1, runs)


def _sweeps(table: _V1, v1: Chip, runs: dict[str, Run]) -> Iterator[Row]:
    def gain(settings: tuple[str, ...], a: _App) -> float:
        return (
            runs[a.model].time_s.value
            / run_on(what_if(v1, settings), a.model, a.batch, a.seq).time_s.value
        )

    wide = ("memory.bytes_per_s=4x",)
    weighted = sum(a.share * gain(wide, a) for a in table.app) / sum(a.share for a in table.app)
    area = "TPU v1 design sweeps"
    yield Row(
        area,
        "4x memory bandwidth, weighted mean gain",
        weighted,
        table.sweeps["bandwidth_4x"],
        "x",
        table.source,
    )
    for a in table.app:
        yield Row(
            area,
            f"4x clock, {a.model}, gain",
            gain(("clock=4x",), a),
            a.clock_4x,
            "x",
            table.source,
        )
    yield Row(
        area,
        "LSTM1 600 x 600 on a 256 array",
        lstm_tiles_256() * 1e-6,
        table.sweeps["array_256_us"] * 1e-6,
        "s",
        table.source,
    )
    yield Row(
        area,
        "LSTM1 600 x 600 on a 512 array",
        lstm_tiles_512() * 1e-6,
        table.sweeps["array_512_us"] * 1e-6,
        "s",
        table.source,
    )


# --- TPU v4i ----------------------------------------------------------------------------

OFFLINE_BATCH = 64


def tpu_v4i() -> Iterator[Row]:
    """What the large on-chip memory is worth, on MLPerf's models."""
    table, v4i = papers().v4i, chip("tpu-v4i")
    for c in table.cmem:
        for what, batch, published in (
            ("server", c.server_batch, c.server),
            ("offline", OFFLINE_BATCH, c.offline),
        ):
            with_it, without = (_speed(v4i, c, batch, steps) for steps in ((), ("residency",)))
            yield Row(
                "TPU v4i, CMEM on over off",
                f"{c.model} {what}",
                with_it / without,
                published,
                "x",
                table.source,
            )
    full = [_speed(v4i, c, c.server_batch, ()) for c in table.cmem]
    for size, share in zip(table.sizes_mb, table.share_percent, strict=True):
        record = what_if(v4i, (f"sram.CMEM.capacity={size}MB",)) if size else v4i
        steps = () if size else ("residency",)
        ours = float(
            np.mean(
                [
                    _speed(record, c, c.server_batch, steps) / f
                    for c, f in zip(table.cmem, full, strict=True)
                ]
            )
        )
        yield Row(
            "TPU v4i, speed by CMEM size",
            f"{size:g} MB, mean of {len(full)} models",
            ours,
            share / 100,
            "points",
            table.source,
        )


def _speed(record: Chip, c: _Cmem, batch: int, without: tuple[str, ...]) -> float:
    return batch / run_on(record, c.model, batch, c.seq, None, without).time_s.value


# --- MLPerf -----------------------------------------------------------------------------

# benchmark of the results, our model, chip, dtype and sequence: SQuAD's questions fill 176 of 384
# tokens on average and the submissions skip padding (recalled); int8 but for BERT at 99.9 % of the
# accuracy
_OFFLINE = (
    ("v0.7", "T4x1_TRT", "resnet50", "resnet50", "t4", "int8", None),
    ("v0.7", "T4x1_TRT", "ssd-resnet34", "ssd-resnet34", "t4", "int8", None),
    ("v0.7", "T4x1_TRT", "bert-99", "bert-large", "t4", "int8", 176),
    ("v0.7", "T4x8_TRT", "bert-99.9", "bert-large", "t4", "fp16", 176),
    (
        "v1.0",
        "DGX-A100_A100-SXM-80GBx1_TRT_datacenter",
        "resnet50",
        "resnet50",
        "a100-sxm-80",
        "int8",
        None,
    ),
    (
        "v1.0",
        "DGX-A100_A100-SXM-80GBx1_TRT_datacenter",
        "ssd-resnet34",
        "ssd-resnet34",
        "a100-sxm-80",
        "int8",
        None,
    ),
    (
        "v1.0",
        "DGX-A100_A100-SXM-80GBx1_TRT_datacenter",
        "bert-99",
        "bert-large",
        "a100-sxm-80",
        "int8",
        176,
    ),
    (
        "v1.0",
        "DGX-A100_A100-SXM-80GBx1_TRT_datacenter",
        "bert-99.9",
        "bert-large",
        "a100-sxm-80",
        "fp16",
        176,
    ),
    ("v0.5", "tpu-v3.8x1", "resnet", "resnet50", "tpu-v3", None, None),
    ("v0.5", "tpu-v3.8x1", "ssd-large", "ssd-resnet34", "tpu-v3", None, None),
)
_BATCHES = (16, 64, 128)
_CORES_PER_CHIP = {"tpu-v3": 2}


def mlperf(folder: Path) -> Iterator[Row]:
    """Offline samples per second and chip, at the batch that suits the chip best."""
    path = folder / "mlperf" / "inference_results.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = [
            r
            for r in csv.DictReader(file)
            if r["scenario"].lower() == "offline" and r["valid"] == "True"
        ]
    found = {(r["round"], r["system"], r["benchmark"]): r for r in lines}
    for round_, system, benchmark, model, name, dtype, seq in _OFFLINE:
        r = found.get((round_, system, benchmark))
        if r is None:
            continue
        chips = (
            float(r["accelerators_per_node"])
            * float(r["nodes"] or 1)
            / _CORES_PER_CHIP.get(name, 1)
        )
        measured = float(r["offline_samples_per_s"]) / chips
        record = chip(name)
        runs = [
            (b, profile_bound(prepare(load(model), Sizes(b, seq)), record, dtype=dtype).run.time_s)
            for b in _BATCHES
        ]
        batch, time = max(runs, key=lambda x: x[0] / x[1].value)
        inside = batch / time.high <= measured <= batch / time.low
        yield Row(
            area="MLPerf offline",
            case=f"{model} {dtype or 'bf16'} on {name}",
            predicted=batch / time.value,
            reference=measured,
            unit="/s",
            source=f"MLPerf Inference {round_}, {system}",
            inside=inside,
        )


def sustained() -> Iterator[Row]:
    """Large square products on cards at their power limit, measured by others; the catalogue's
    constants saw none of these rows.
    """
    text = (DATA / "sustained.csv").read_text(encoding="utf-8")
    for r in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        card, side = chip(r["chip"]), int(r["side"])
        extents = dict.fromkeys("mnk", side)
        call = OperatorCall(1, "matmul", r["dtype"], extents, engine=False)
        kernel = kernel_of(call, card, card.storage(r["dtype"]))
        predicted = 2 * side**3 / time_kernel(card, kernel).time_s / 1e12
        measured = float(r["tflops"])
        error = card.error(kernel.family)
        yield Row(
            area="rate of large products, cards at their power limit",
            case=f"{card.name} {r['dtype']} {side}",
            predicted=predicted,
            reference=measured,
            unit="TFLOP/s",
            source=r["source"],
            inside=bool(abs(np.log(predicted / measured)) <= np.log1p(error)),
        )
