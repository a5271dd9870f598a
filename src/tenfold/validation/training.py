"""Training steps: Megatron on A100 (as Calculon compares itself), and forward and backward passes
as eager PyTorch runs them on one card and on four (NeuSight). Nothing was fitted to any of them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tenfold.chips import Chip, MatrixPrecision, capped, chip
from tenfold.cluster import Layout, topology_of
from tenfold.cluster.search import RESERVED_BYTES
from tenfold.cluster.training import Recompute, Shard, Step, Training, training_step
from tenfold.compiler import Options
from tenfold.errors import InputError
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


_TITAN = {"Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b"}
_TITAN_AGAIN = {
    "selective": Recompute.OPS,
    "per-op selective": Recompute.OPS,
    "full": Recompute.FULL,
}
_BRIDGE = {
    "LLAMA3.1_405B": "llama-3.1-405b",
    "LLAMA3_8B": "llama-3-8b",
    "LLAMA3_70B": "llama-3-70b",
    "Qwen3_30B_a3B": "qwen3-30b-a3b",
}
GIB = 2**30


def torchtitan(folder: Path) -> Iterator[Row]:
    """Fully sharded Llama on H100 cards of 2.4 TB/s and 500 W, compiled; rows with one scale a
    tensor. Bytes of the fullest chip with what is left for contexts and gaps.
    """
    path = folder / "training" / "torchtitan.csv"
    if not path.is_file():
        return
    card = capped(chip("h100-sxm").with_figures({"memory.bandwidth": 2.4e12}), "500 W")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for r in rows:
        ways = dict(side.split("=") for side in r["layout"].split())
        able = r["model"] in _TITAN and "500 W" in r["chip"]
        # a scale for each row takes other kernels, of which nothing is known here
        if not able or "rowwise" in r["precision"]:
            continue
        tensor, context = (int(ways.get(n, 1)) for n in ("TP", "CP"))
        training = Training(
            Layout(tensor=tensor, data=int(ways["FSDP"]), context=context),
            micro=int(float(r["micro_batch"])),
            recompute=_TITAN_AGAIN[r["activation_checkpoint"]],
            sequence=tensor > 1,
            shard=Shard.WEIGHTS,
            products=MatrixPrecision.FP8 if r["precision"].startswith("fp8") else None,
        )
        seq, batch = int(r["seq_len"]), int(r["global_batch"])
        sizes = Sizes(training.micro, seq // context)
        graph = prepare(load(_TITAN[r["model"]]), sizes).graph
        options = Options(stack=Stack.COMPILED)
        step = training_step(graph, card, card.storage("bf16"), training, batch, options=options)
        case = f"{r['model']} {r['precision']} {r['layout']} seq {seq} {r['technique']}"
        area = "training steps of torchtitan on H100"
        area += ", sequences apart" if context > 1 else ""
        yield _row(area, case, step, float(r["step_s"]), "titan")
        if r["memory_gib"]:
            yield Row(
                area="memory of torchtitan on H100",
                case=case,
                predicted=(step.memory.total + RESERVED_BYTES) / GIB,
                reference=float(r["memory_gib"]),
                unit="GiB",
                source="titan",
            )


def bridge(folder: Path) -> Iterator[Row]:
    """Megatron-Bridge, products in fp8; rows of the networks that there are here. Weights are
    shared where it says so, else the optimiser. Of the eight stages a chip of Llama-3.1-405B seven
    are left: it has 126 blocks.
    """
    path = folder / "training" / "megatron_bridge.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for r in rows:
        narrow = r["precision"] in ("FP8", "FP8-CS", "MXFP8", "FP8-MX")
        if r["model"] not in _BRIDGE or not narrow or r["task"] == "lora":
            continue
        tensor, pipeline = int(r["tp"]), int(r["pp"])
        experts = int(float(r["ep"] or 1))
        context = int(r["cp"] or 1)
        data = int(r["gpus"]) // tensor // pipeline // context
        training = Training(
            Layout(tensor, pipeline, data, experts, context),
            micro=int(r["mbs"]),
            interleave=_turns(r["model"], int(r["vp"] or 1)) if pipeline > 1 else 1,
            sequence=tensor > 1,
            shard=Shard.WEIGHTS if int(r["fsdp"] or 0) > 1 else Shard.OPTIMISER,
            products=MatrixPrecision.FP8,
        )
        card = chip({"h100": "h100-sxm", "b200": "b200"}[r["chip"]])
        seq, batch = int(r["seq_len"]), int(r["gbs"])
        sizes = Sizes(training.micro, seq // context)
        graph = prepare(load(_BRIDGE[r["model"]]), sizes).graph
        step = training_step(graph, card, card.storage("bf16"), training, batch)
        measured_s = batch * seq / training.layout.chips / float(r["tokens_per_s_per_gpu"])
        kind = "experts" if experts > 1 else "dense"
        area = f"training steps of Megatron-Bridge in fp8, {kind}"
        case = f"{r['model']} on {r['gpus']} {card.name} {training.layout}, {r['container']}"
        yield _row(area, case, step, measured_s, "bridge")


def _turns(model: str, given: int) -> int:
    return min(given, 7) if model == "LLAMA3.1_405B" else given


_PODS = {"resnet": "resnet50", "bert": "bert-large"}
IMAGES = 1_281_167


def pods(folder: Path) -> Iterator[Row]:
    """Steps of MLPerf on TPU pods: the median block but for the first and the last of each system's
    first run, evaluation included. Each chip has its part of the batch, and copies share the update
    of weights (Kumar et al. 2019, Scale MLPerf-0.6 models on Google TPU-v3 pods, section 4.4).
    """
    path = folder / "mlperf" / "training_blocks.csv"
    if not path.is_file():
        return
    with (path.parent / "training_runs.csv").open(newline="", encoding="utf-8") as file:
        runs = [r for r in csv.DictReader(file) if r["run"] == "0" and "tpu-v" in r["system"]]
    blocks: dict[tuple[str, ...], list[dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for b in csv.DictReader(file):
            if b["run"] == "0":
                blocks.setdefault((b["round"], b["system"], b["benchmark"]), []).append(b)
    for r in runs:
        own = blocks.get((r["round"], r["system"], r["benchmark"]), [])[1:-1]
        chips = int(float(r["accelerators_per_node"])) * int(r["nodes"])
        card = chip("tpu-v4" if "tpu-v4" in r["system"] else "tpu-v3")
        batch = int(float(r["global_batch_size"] or 0))
        able = r["benchmark"] in _PODS and batch % chips == 0 and "Shampoo" not in r["system"]
        if not own or not able or not _one_pod(card, chips):
            continue
        seq = int(float(r["max_sequence_length"])) if r["max_sequence_length"] else None
        training = Training(Layout(data=chips), micro=batch // chips, shard=Shard.OPTIMISER)
        graph = prepare(load(_PODS[r["benchmark"]]), Sizes(training.micro, seq)).graph
        step = training_step(graph, card, card.storage("bf16"), training, batch)
        each = float(own[0]["epoch_count"])
        steps = each * IMAGES / batch if r["benchmark"] == "resnet" else each
        median_s = median(float(b["duration_s"]) for b in own)
        area = f"training steps of MLPerf on TPU pods, {_PODS[r['benchmark']]}"
        case = f"{r['round']} {r['system']}: {chips:,} {card.name}, batch {batch:,}"
        yield _row(area, case, step, median_s / steps, "mlperf")


def _one_pod(card: Chip, chips: int) -> bool:
    """Whether so many make a box in one torus: 3,456 do not, nor do the four pods of 4,096 v3."""
    try:
        return bool(topology_of(card).parts(chips))
    except InputError:
        return False


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
