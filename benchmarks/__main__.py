"""Speed, measured in one run and printed as seconds and as ratios: ``make bench``.

Nothing here is asserted: machines differ. SCALE-Sim runs two layers in its own environment, and is
left out by name where it cannot.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

import tenfold
from benchmarks.scale_sim import beside
from tenfold.chips import MatrixPrecision
from tenfold.cluster import Layout
from tenfold.cluster.search import MICRO, layouts
from tenfold.cluster.training import Training
from tenfold.compiler import STEPS, Options, build
from tenfold.ir.table import Lowering
from tenfold.ir.text import parse_text
from tenfold.machine import Kernel, Moved, Product, Traffic, simulate, time_kernel
from tenfold.machine.systolic.maxplus import Repeat, closed_form, event_loop
from tenfold.machine.systolic.step import Tile
from tenfold.model import Sizes, load, prepare
from tenfold.serving import Known, Open, Poisson, Served, SloPolicy, Spread, Stream, curve
from tenfold.serving import simulate as simulate_queue

TILE = Tile(
    weight_dma=30,
    weight_load=128,
    act_dma=50,
    matrix=128,
    vector=20,
    fill=254,
    out_dma=10,
    new_weights=True,
)
SIDE = 128 * 1024
PLAN = (
    "plan",
    "bert-large",
    "--slo",
    "100ms",
    "--rate",
    "1000",
    "--seq",
    "384",
    "--region",
    "us-central1",
)


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Least of ``repeats`` runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def whole_process(*words: str) -> tuple[float, float]:
    """Seconds and peak resident megabytes of a `tenfold` command."""
    code = "from tenfold.cli import main; main()"
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--json"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def compiled(model: str, phase: str | None, sizes: dict[str, int]) -> float:
    """Seconds to compile and simulate a bound model on TPU v4, its memory made large enough."""
    graph = tenfold.load(model, phase).bind(sizes)
    v4 = replace(tenfold.chip("tpu-v4"), memory_bytes=1e13)
    return seconds(lambda: simulate(build(graph, v4, MatrixPrecision.BF16, sizes["batch"]), v4))


def depth_growth(layers: int) -> float:
    """How much longer a network of four times as many equal layers takes to compile (4 is
    linear).
    """

    def took(count: int) -> float:
        lines = ["graph 'deep' {", "input %x0: fp32[8,64]", "const %w: fp32[64,64] = elided"]
        for i in range(count):
            lines += [
                f"%m{i}: fp32[8,64] = matmul(%x{i}, %w)",
                f"%r{i}: fp32[8,64] = relu(%m{i})",
                f"%x{i + 1}: fp32[8,64] = add(%r{i}, %x{i})",
            ]
        graph = parse_text("\n".join([*lines, f"output %x{count}", "}"]))
        l4 = tenfold.chip("l4")
        return seconds(lambda: build(graph, l4, MatrixPrecision.FP16, 8), 1)

    return took(4 * layers) / took(layers)


def largest_product() -> float:
    """Seconds for the exact time of a product of 1e9 tiles of 128 x 128, the choice of its tiling
    included.
    """
    traffic = Traffic(Moved(SIDE * SIDE * 2, 8 * SIDE * SIDE * 2, 8 * SIDE * SIDE * 2))
    kernel = Kernel(
        name="large",
        ops=("matmul",),
        kind=Lowering.MATRIX,
        precision=MatrixPrecision.BF16,
        products=(Product(1, 8 * SIDE, SIDE, SIDE),),
        flops=2,
        traffic=traffic,
    )
    v4 = tenfold.chip("tpu-v4")
    return seconds(lambda: time_kernel(v4, kernel))


def fusion_speed_up(model: str, sizes: dict[str, int]) -> float:
    """How much slower the model runs on the modelled TPU v4 with every step of the compiler off."""
    graph, v4 = tenfold.load(model).bind(sizes), tenfold.chip("tpu-v4")
    off, on = (
        build(graph, v4, MatrixPrecision.BF16, sizes["batch"], Options(w))
        for w in (tuple(STEPS), ())
    )
    return simulate(off).time_s.value / simulate(on).time_s.value


def a_million_requests() -> tuple[float, float]:
    """Seconds for 1e6 requests through one simulated chip under the policy, and how that grew from
    1e5 (10 is linear).
    """
    times = {1: 0.001, 64: 0.004}

    def run(count: int) -> None:
        policy = SloPolicy({"m": Served(Known(times, 1.1))}, {"t": 1.0})
        arrivals = Poisson(10_000.0).times_s(count / 10_000.0, np.random.default_rng(1))
        simulate_queue(
            policy,
            Open([(Stream("t", "m", 0.02), arrivals)]),
            Spread({"m": curve(times)}, {"m": 0.05}, 1),
        )

    few, many = (seconds(lambda n=n: run(n), 1) for n in (100_000, 1_000_000))  # type: ignore[misc]
    return many, many / few


def layouts_priced() -> tuple[float, int]:
    """Seconds to price 10,000 layouts of GPT-3 on 1,024 A100 once its blocks are compiled, from one
    whole search less a search of blocks alone, and how many layouts that one has.
    """
    a100 = tenfold.chip("a100-sxm-80")
    graphs = {m: prepare(load("gpt3-175b"), Sizes(m, 2048)).graph for m in MICRO[:5]}

    def search(batch: int) -> int:
        wanted = Training(Layout())
        bf16 = a100.storage("bf16")
        return len(layouts(graphs.__getitem__, a100, bf16, wanted, 1024, batch))

    start = time.perf_counter()
    many = search(3 * 2**13)
    whole = time.perf_counter() - start
    # so few sequences have the same blocks, and next to no layouts
    start = time.perf_counter()
    few = search(16)
    blocks = time.perf_counter() - start
    return (whole - blocks) / (many - few) * 1e4, many


def scale_sim_rows() -> list[tuple[str, str]]:
    """How much longer SCALE-Sim takes for the same cycles of two convolutions of AlexNet."""
    found = beside()
    if isinstance(found, str):
        return [("SCALE-Sim's time over ours, two layers of AlexNet", found)]
    same = "the same" if found.theirs == found.ours else f"{found.theirs} against {found.ours}"
    return [
        (
            "SCALE-Sim's time over ours, two layers of AlexNet",
            f"{found.theirs_s / found.ours_s:,.0f}x ({found.theirs_s:.1f} s)",
        ),
        ("their cycles without stalls", same),
    ]


def main() -> None:
    rows: list[tuple[str, str]] = []
    for words in (
        ["profile", "resnet50", "-c", "tpu-v4"],
        ["profile", "bert-large", "-c", "tpu-v4", "-b", "8", "--seq", "384"],
    ):
        took, megabytes = min(whole_process(*words) for _ in range(3))
        rows.append((f"{' '.join(words)}, whole process", f"{took:.2f} s, {megabytes:.0f} MB"))
    rows += [
        (
            "resnet50 b1, compile and simulate on tpu-v4",
            f"{compiled('resnet50', None, {'batch': 1}) * 1e3:.0f} ms",
        ),
        ("resnet50 b8, the same", f"{compiled('resnet50', None, {'batch': 8}) * 1e3:.0f} ms"),
        (
            "bert-large b8 s384, the same",
            f"{compiled('bert-large', None, {'batch': 8, 'seq': 384}) * 1e3:.0f} ms",
        ),
        (
            "llama-3.1-405b prefill b1 s2048, the same",
            f"{compiled('llama-3.1-405b', 'prefill', {'batch': 1, 'seq': 2048}) * 1e3:.0f} ms",
        ),
    ]
    rows += scale_sim_rows()
    tiles = 100_000
    loop = seconds(lambda: event_loop(Repeat((TILE,), tiles)), 3)
    closed = seconds(lambda: closed_form(Repeat((TILE,), tiles)))
    rows += [
        (f"event loop over closed form, {tiles:,} tiles", f"{loop / closed:,.0f}x"),
        (
            "closed form, 1e9 tiles",
            f"{seconds(lambda: closed_form(Repeat((TILE,), 10**9))) * 1e3:.2f} ms",
        ),
        ("a product of 1e9 tiles, with the choice of tiling", f"{largest_product() * 1e3:.1f} ms"),
        (
            "what the compiler's steps are worth, resnet50 b8",
            f"{fusion_speed_up('resnet50', {'batch': 8}):.2f}x",
        ),
        (
            "the same, bert-large b8 s384",
            f"{fusion_speed_up('bert-large', {'batch': 8, 'seq': 384}):.2f}x",
        ),
    ]
    rows.append(("compiling 4,000 layers over 1,000 (4 is linear)", f"{depth_growth(1000):.1f}x"))
    million, growth = a_million_requests()
    rows += [
        ("1e6 requests through one simulated chip", f"{million:.1f} s"),
        ("the same over 1e5 requests (10 is linear)", f"{growth:.1f}x"),
        ("plan bert-large over the catalogue, whole process", f"{whole_process(*PLAN)[0]:.1f} s"),
    ]
    priced, many = layouts_priced()
    run = ["train", "llama-3.1-405b", "-c", "h100-sxm", "--count", "16384", "--tokens", "15e12"]
    rows += [
        (f"10,000 layouts of GPT-3 on 1,024 chips ({many:,} priced)", f"{priced:.1f} s"),
        (f"{' '.join(run)}, whole process", f"{whole_process(*run)[0]:.1f} s"),
    ]
    for name, value in rows:
        print(f"{name:<68} {value}")


if __name__ == "__main__":
    main()
