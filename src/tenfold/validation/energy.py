"""Energy and power against measurements."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tenfold.calibration import SETS
from tenfold.calibration.fit import energy_of
from tenfold.chips import Whole, chip
from tenfold.evaluate.profiling import profile_bound
from tenfold.machine.energy import energy_table
from tenfold.model import Sizes, load, prepare
from tenfold.validation.published import papers, run_on
from tenfold.validation.record import Row


def kernels(folder: Path) -> Iterator[Row]:
    """Joules of single kernels of 50 us and more, from mean power in a loop; the rows held out."""
    for s in SETS:
        _, held = s.parts(folder)
        for m in held:
            if m.power_w is not None:
                c = chip(s.chip)
                measured = m.power_w * m.time_s
                ours = energy_of(c, m)
                error = c.error(Whole.ENERGY)
                inside = measured / (1 + error) <= ours <= measured * (1 + error)
                yield Row(
                    area=f"energy of matmuls ({s.chip})",
                    case=m.group,
                    predicted=ours,
                    reference=measured,
                    unit="J",
                    source=s.source,
                    inside=inside,
                )


# Host, fans and power supplies of a system with eight cards (assumed: 20 % of supplies, fans and
# two processors)
SYSTEM_BASE_W, SUPPLY_LOSS = 450.0, 0.08
_SYSTEMS = (
    ("A100-PCIex8_TRT_MaxQ", "a100-pcie-40", 8),
    ("DGX-A100_A100-SXM-80GBx8_TRT_MaxQ", "a100-sxm-80", 8),
)
_MODELS = {
    "resnet50": ("resnet50", "int8", None),
    "ssd-resnet34": ("ssd-resnet34", "int8", None),
    "bert-99": ("bert-large", "int8", 176),
    "bert-99.9": ("bert-large", "fp16", 176),
}


def systems(folder: Path) -> Iterator[Row]:
    """Wall watts of whole systems in MLPerf, offline; the cards are power-tuned, which the model
    does not know.
    """
    path = folder / "mlperf" / "inference_power.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["scenario"].lower() == "offline"]
    for r in rows:
        known = next((s for s in _SYSTEMS if s[0] == r["system"]), None)
        if known is None or r["benchmark"] not in _MODELS:
            continue
        model, dtype, seq = _MODELS[r["benchmark"]]
        run = profile_bound(prepare(load(model), Sizes(64, seq)), chip(known[1]), dtype=dtype).run
        watts = (SYSTEM_BASE_W + known[2] * run.power_w) / (1 - SUPPLY_LOSS)
        yield Row(
            "power of A100 systems",
            f"{r['system']} {r['benchmark']}",
            watts,
            float(r["system_power_avg_w"]),
            "W",
            f"MLPerf Inference {r['round']}",
        )


def published() -> Iterator[Row]:
    """TPU v1's watts at work, and the table of energies per operation entry by entry."""
    p = papers().power
    run = run_on(chip("tpu-v1"), "tpu-v1-cnn0", 8)
    yield Row(
        area="power of TPU v1",
        case="CNN0 at full load",
        predicted=run.power_w,
        reference=p.tpu_v1_busy_w,
        unit="W",
        source=p.source,
        inside=run.energy_j.low / run.time_s.value
        <= p.tpu_v1_busy_w
        <= run.energy_j.high / run.time_s.value,
    )


_ROWS = {
    "int8 add": "int8_add", "int32 add": "int32_add", "bf16 add": "bf16_add",
    "fp16 add": "fp16_add", "fp32 add": "fp32_add", "int8 mul": "int8_mul",
    "int32 mul": "int32_mul", "bf16 mul": "bf16_mul", "fp16 mul": "fp16_mul",
    "fp32 mul": "fp32_mul",
}  # fmt: skip


def per_operation(path: Path) -> Iterator[Row]:
    """The energies that the product uses against the reference table, where that is at hand; they
    are equal.
    """
    if not path.is_file():
        return
    table = energy_table().operation
    with path.open(newline="", encoding="utf-8") as file:
        for r in csv.DictReader(file):
            name = _ROWS.get(r["operation"])
            node = {"45 nm": "nm45", "7 nm": "nm7"}.get(r["process"])
            if name and node and getattr(table[name], node) is not None:
                yield Row(
                    "energy per operation",
                    f"{r['operation']} {r['process']}",
                    getattr(table[name], node),
                    float(r["value_pj"]),
                    "pJ",
                    r["source"],
                )
