"""Training steps: Megatron on A100 (as Calculon compares itself), and forward and backward passes
as eager PyTorch runs them on one card and on four (NeuSight). Nothing was fitted to any of them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tenfold.chips import chip
from tenfold.cluster import Layout
from tenfold.cluster.training import Recompute, Step, Training, training_step
from tenfold.compiler import Options
from tenfold.machine import Stack
from tenfold.model import Sizes, load, prepare
from tenfold.validation.record import Row

# names of the file, and of the zoo
_MEGATRON = {
    "megatron-22B": "megatron-22b",
    "gpt3-175B": "megatron-175b",
    "turing-530B": "megatron-530b",
    "megatron-1T": "megatron-1t",
}
_LAYOUTS = {
    "": Layout(),
    "dp4": Layout(data=4),
    "tp4": Layout(tensor=4),
    "pp4_1": Layout(pipeline=4),
}
OPTIMISER = "optimiser"


def megatron(folder: Path) -> Iterator[Row]:
    """Batch times of 2022, with attention in parts and dropout."""
    path = folder / "calculon" / "megatron_selene_a100.csv"
    if not path.is_file():
        return
    a100 = chip("a100-sxm-80")
    with (path.parent / "megatron_configs.csv").open(newline="", encoding="utf-8") as file:
        layouts = {(r["model"], r["recompute"]): r for r in csv.DictReader(file)}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for r in rows:
        c = layouts[r["model"], r["recompute"]]
        again = Recompute.FULL if r["recompute"] == "full" else Recompute.ATTENTION
        training = Training(
            Layout(int(c["tensor_par"]), int(c["pipeline_par"]), int(c["data_par"])),
            micro=int(c["microbatch_size"]),
            interleave=int(c["pipeline_interleaving"]),
            recompute=again,
            sequence=c["tensor_par_comm_type"] == "rs_ag",
            flash=False,
            dropout=True,
        )
        sizes = Sizes(training.micro, int(c["arch_seq_size"]))
        graph = prepare(load(_MEGATRON[r["model"]]), sizes).graph
        step = training_step(graph, a100, a100.storage("bf16"), training, int(c["batch_size"]))
        case = f"{r['model']} {training.layout}, {again} recomputation"
        measured_s = float(r["measured_batch_time_s"])
        yield _row("training steps of Megatron on A100", case, step, measured_s, "calculon")


def eager(folder: Path) -> Iterator[Row]:
    """Forward and backward passes in fp32, attention in parts, without the optimiser."""
    path = folder / "neusight" / "models.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["mode"] == "train" and r["layout"] in _LAYOUTS]
    for r in rows:
        c, layout = chip(r["chip"]), _LAYOUTS[r["layout"]]
        batch, seq = int(r["batch"]), int(r["seq"])
        training = Training(
            layout, micro=batch // layout.data, flash=False, overlap=False, dropout=True
        )
        config = path.parent / "configs" / f"{r['model']}.json"
        graph = prepare(load(config), Sizes(training.micro, seq)).graph
        step = training_step(
            graph, c, c.storage("fp32"), training, batch, options=Options(stack=Stack.EAGER)
        )
        cards = "four " if layout.chips > 1 else ""
        area = f"forward and backward, eager fp32, {cards}{c.name}"
        case = f"{r['model']} batch {batch} seq {seq}" + (f" {layout}" if cards else "")
        yield _row(area, case, step, float(r["total_ms"]) * 1e-3, "neusight", but=OPTIMISER)


def _row(area: str, case: str, step: Step, measured_s: float, source: str, *, but: str = "") -> Row:
    """A step, but for one of its entries."""
    share = 1 - step.entries.get(but, 0.0) / step.time.value
    time = step.time * share
    return Row(
        area=area,
        case=case,
        predicted=time.value,
        reference=measured_s,
        unit="s",
        source=source,
        inside=time.low <= measured_s <= time.high,
    )
