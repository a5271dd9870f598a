"""Speed, measured in one run and printed as seconds and as ratios: ``make bench``.

Nothing here is asserted: machines differ. SCALE-Sim's time is ours to quote, not to run: 613 s for ResNet-50,
batch 1, 54 layers on a 128 x 128 array (one process, no traces kept, a two-core machine of the same kind).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import tenfold
from tenfold.machine.maxplus import Repeat, closed_form, event_loop
from tenfold.machine.step import Tile

SCALE_SIM_RESNET50_S = 613.0
TILE = Tile(weight_dma=30, weight_load=128, act_dma=50, matrix=128, vector=20, fill=254, out_dma=10, new_weights=True)


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Least of ``repeats`` runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def whole_process() -> tuple[float, float]:
    """Seconds and peak resident megabytes of `tenfold profile resnet50` on one chip."""
    code = "from tenfold.cli import main; main()"
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, "profile", "resnet50", "-c", "tpu-v4", "--json"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    rows: list[tuple[str, str]] = []
    took, megabytes = min(whole_process() for _ in range(3))
    rows.append(("profile resnet50 on one chip, whole process", f"{took:.2f} s, {megabytes:.0f} MB"))
    graph = tenfold.load("resnet50").bind({"batch": 1})
    v4 = tenfold.chip("tpu-v4")
    ours = seconds(lambda: tenfold.simulate(tenfold.compile(graph, v4)))
    rows.append(("resnet50, compile and simulate on tpu-v4", f"{ours * 1e3:.0f} ms"))
    rows.append(("SCALE-Sim's ResNet-50 time over ours", f"{SCALE_SIM_RESNET50_S / ours:,.0f}x"))
    tiles = 100_000
    loop = seconds(lambda: event_loop(Repeat((TILE,), tiles)), 3)
    closed = seconds(lambda: closed_form(Repeat((TILE,), tiles)))
    rows.append((f"event loop over closed form, {tiles:,} tiles", f"{loop / closed:,.0f}x"))
    rows.append(("closed form, 1e9 tiles", f"{seconds(lambda: closed_form(Repeat((TILE,), 10**9))) * 1e3:.2f} ms"))
    for name, value in rows:
        print(f"{name:<48} {value}")


if __name__ == "__main__":
    main()
