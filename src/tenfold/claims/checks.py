"""Our number for each lesson that can be computed today, from the product's own functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

from tenfold.carbon import assumption, envelope
from tenfold.chips import MatrixPrecision, MemoryTechnology, chip, what_if
from tenfold.claims.serving import mix_of_2020, p99_at_200, p99_at_250, per_system_watt
from tenfold.compiler import Options, build
from tenfold.ir import graph_totals
from tenfold.ir.table import Lowering
from tenfold.machine import Kernel, Moved, Product, Traffic, simulate, time_kernel
from tenfold.machine.energy import energy_table
from tenfold.model import Sizes, load, prepare
from tenfold.scenario import PCIE3_X16_BYTES_PER_S

Check: TypeAlias = Callable[[], float]

# Jouppi et al., ISCA 2021, table 4: growth a year of memory and of FLOPS
_GROWTH = {"CNN1": (0.97, 1.46), "MLP1": (1.26, 1.26), "CNN0": (1.63, 1.63), "MLP0": (2.16, 2.16)}
_RNN1_BYTES = 254e6  # Jouppi et al., ISCA 2021, figure 11


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def growth() -> float:
    """Geometric mean of the eight published rates."""
    return _geometric_mean([g for pair in _GROWTH.values() for g in pair])


def reload() -> float:
    """Milliseconds to move RNN1's weights over PCIe."""
    return _RNN1_BYTES / PCIE3_X16_BYTES_PER_S * 1e3


def process_gain() -> float:
    """Geometric mean of 45 nm over 7 nm for the entries that the table gives at both nodes."""
    table = energy_table()
    published = (
        "int8_add",
        "int32_add",
        "fp16_add",
        "fp32_add",
        "int8_mul",
        "int32_mul",
        "fp16_mul",
        "fp32_mul",
    )
    entries = [table.operation[n] for n in published] + list(table.sram.values())
    off_chip = table.memory[MemoryTechnology.DDR3].pj / table.memory[MemoryTechnology.DDR4].pj
    return _geometric_mean([*(e.nm45 / e.nm7 for e in entries), off_chip])


def _lstm_layer(side: int) -> float:
    """Microseconds of one 600 x 600 layer, batch 96, on TPU v1 with a ``side`` x ``side`` array at
    full memory rate.
    """
    # the paper's own sum leaves launches out
    variant = what_if(
        chip("tpu-v1"), [f"matrix.rows={side}", f"matrix.columns={side}", "calibration.kernel_s=0"]
    )
    kernel = Kernel(
        name="lstm1",
        ops=("matmul",),
        kind=Lowering.MATRIX,
        precision=MatrixPrecision.INT8,
        products=(Product(1, 96, 600, 600),),
        flops=2 * 96 * 600 * 600,
        traffic=Traffic(Moved(weights=600 * 600)),
        operand_bits=8,
    )
    return time_kernel(variant, kernel).time_s * 1e6


def lstm_tiles_256() -> float:
    return _lstm_layer(256)


def lstm_tiles_512() -> float:
    return _lstm_layer(512)


@lru_cache(maxsize=1)
def clock_of_t4() -> float:
    """GHz, the mean of three networks, in each weighted by the time of its kernels."""
    models = (("resnet50", 32, None), ("ssd-resnet34", 1, None), ("bert-large", 16, 384))
    t4, shares = chip("t4"), []
    for name, batch, seq in models:
        bound = prepare(load(name), Sizes(batch, seq))
        run = simulate(build(bound.graph, t4, t4.storage("int8"), bound.batch), t4)
        spent = [(k.time_s * k.kernel.repeat, k.clock) for k in run.kernels]
        shares.append(sum(s * share for s, share in spent) / sum(s for s, _ in spent))
    return sum(shares) / len(shares) * t4.clock("the clock under load") / 1e9


def training_energy_j(chips: float, hours: float, system_w: float, pue: float) -> float:
    """Patterson et al. 2021, section 2.5: hours x chips x average system watts x PUE."""
    return chips * hours * 3600 * system_w * pue


def _gpt3_j() -> float:
    return training_energy_j(10_000, 355.2, 330, 1.10)


def megatron_step() -> float:
    """Seconds of a step of GPT-3 on 64 A100."""
    from tenfold.cluster import Layout
    from tenfold.cluster.training import Recompute, Training, training_step

    a100 = chip("a100-sxm-80")
    training = Training(
        Layout(tensor=8, pipeline=8),
        interleave=3,
        recompute=Recompute.FULL,
        flash=False,
        dropout=True,
    )
    graph = prepare(load("megatron-175b"), Sizes(1, 2048)).graph
    return training_step(graph, a100, a100.storage("bf16"), training, 64).time.value


def gpt3_carbon() -> float:
    """Tonnes of CO2e."""
    return _gpt3_j() / 3.6e6 * assumption("us_grid_kg_per_kwh").value / 1e3


@lru_cache(maxsize=1)
def moe_energy() -> float:
    """GPT-3 for 300 B tokens on 10,000 V100 over GLaM for 600 B on 1,024 TPU v4, joules at the
    chips of steps in the layouts that the search finds quickest.
    """
    from tenfold.cluster import Layout
    from tenfold.cluster.training import Recompute, Shard, Training, training_step

    plain = Training(Layout(), sequence=True, shard=Shard.OPTIMISER)
    dense = replace(plain, layout=Layout(tensor=8, pipeline=50, data=25))
    sparse = replace(
        plain,
        layout=Layout(tensor=4, data=256, experts=64),
        recompute=Recompute.FULL,
        shard=Shard.WEIGHTS,
    )

    def joules(model: str, name: str, training: Training, batch: int, seq: int) -> float:
        own = chip(name)
        graph = prepare(load(model), Sizes(1, seq)).graph
        step = training_step(graph, own, own.storage(None), training, batch)
        return step.energy_j.value / (batch * seq)

    gpt3 = joules("gpt3-175b", "v100-sxm2", dense, 1500, 2048) * 300e9
    return gpt3 / (joules("glam-64b-64e", "tpu-v4", sparse, 1024, 1024) * 600e9)


@lru_cache(maxsize=1)
def moe_flops() -> float:
    """Arithmetic of one token in a sequence of 128, GPT-3 175B over GLaM 64B/64E."""
    dense, sparse = (
        graph_totals(load(n).bind({"batch": 1, "seq": 128})).contraction_flops
        for n in ("gpt3-175b", "glam-64b-64e")
    )
    return float(dense) / float(sparse)


def _without(models: Sequence[tuple[str, int, int | None]], steps: tuple[str, ...]) -> float:
    """Geometric mean over (model, batch, seq) of the time without some steps of the compiler over
    the time with all, TPU v4i.
    """
    v4i = chip("tpu-v4i")
    ratios = []
    for name, batch, seq in models:
        graph = prepare(load(name), Sizes(batch, seq)).graph
        off, on = (
            simulate(build(graph, v4i, v4i.storage(None), batch, Options(w))).time_s.value
            for w in (steps, ())
        )
        ratios.append(off / on)
    return _geometric_mean(ratios)


@lru_cache(maxsize=1)
def fusion_gain() -> float:
    """What runs as one kernel, or stays on the chip, against everything through memory."""
    models = (
        ("resnet50", 8, None),
        ("ssd-resnet34", 1, None),
        ("bert-large", 8, 384),
        ("gnmt", 16, 32),
        ("transformer-big", 8, 64),
        ("tpu-v1-cnn0", 8, None),
    )
    return _without(models, ("fuse", "residency"))


@lru_cache(maxsize=1)
def cmem_gain() -> float:
    """The same kernels with and without what stays in CMEM."""
    models = (
        ("resnet50", 8, None),
        ("inception-v2", 8, None),
        ("bert-base", 8, 128),
        ("tpu-v1-mlp0", 200, None),
        ("tpu-v1-lstm0", 64, 16),
        ("tpu-v1-cnn0", 8, None),
    )
    return _without(models, ("residency",))


def envelope_miles() -> float:
    """The careful end of the interval."""
    return envelope(1200.0, 24 * 3600.0, None).ev_miles.low


_ALL = (
    growth, reload, process_gain, lstm_tiles_256, lstm_tiles_512, megatron_step, gpt3_carbon,
    moe_energy, moe_flops, fusion_gain, cmem_gain, clock_of_t4, envelope_miles, mix_of_2020,
    p99_at_200, p99_at_250, per_system_watt,
)  # fmt: skip
CHECKS: Mapping[str, Check] = {f.__name__: f for f in _ALL}
