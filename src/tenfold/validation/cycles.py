"""Cycle counts of systolic arrays against SCALE-Sim's own."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tenfold.scalesim import Dataflow, ScaleSimConfig, read_topology, report
from tenfold.validation.record import Row

_TOPOLOGIES = {
    "alexnet": "alexnet",
    "bert": "bert_base_gemm",
    "bert_user128": "bert_base_gemm",
    "resnet50": "resnet50",
}


def scalesim(folder: Path) -> Iterator[Row]:
    """Every layer that SCALE-Sim v3.0.0 was run on; where it counts stalls, its cycles without
    them.
    """
    root = folder / "scalesim"
    path = root / "scalesim_v3_layers.csv"
    if not path.is_file():
        return
    layers = {
        name: read_topology((root / "topologies" / f"{file}.csv").read_text(encoding="utf-8"))
        for name, file in _TOPOLOGIES.items()
    }
    with path.open(newline="", encoding="utf-8") as file:
        for r in csv.DictReader(file):
            height, width = map(int, r["array"].split("x"))
            own = [x for x in layers[r["topology"]] if x.name == r["layer"].strip()]
            ours = report(ScaleSimConfig(height, width, Dataflow(r["dataflow"])), own[:1])[0]
            case = f"{r['topology']} {r['layer']} {r['array']} {r['dataflow']}"
            cycles = int(r["total_cycles"]) - int(r["stall_cycles"])
            yield Row(
                "systolic cycles", case, ours.total_cycles, cycles, "cycles", "SCALE-Sim v3.0.0"
            )
            yield Row(
                "mapping efficiency",
                case,
                ours.mapping_efficiency,
                float(r["mapping_eff_pct"]),
                "%",
                "SCALE-Sim v3.0.0",
            )
            if r["mode"] == "CALC":
                yield Row(
                    "array utilisation",
                    case,
                    ours.overall_util,
                    float(r["overall_util_pct"]),
                    "%",
                    "SCALE-Sim v3.0.0",
                )
