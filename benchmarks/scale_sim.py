"""SCALE-Sim itself beside our cycles of the same layers, in its own environment: `.cache/scalesim`,
made on the first run with the package from PyPI and a NumPy that it works with.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tenfold.scalesim import read_config, read_topology, report

HOME = Path(".cache/scalesim")
PACKAGES = ("scalesim==3.0.0", "numpy==1.26.4", "pandas<3", "numba<0.62")
INSTALL_S, RUN_S = 300, 300
CONFIG = """[general]
run_name = small
[architecture_presets]
ArrayHeight: 128
ArrayWidth: 128
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: os
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
TOPOLOGY = """Layer name, IFMAP H, IFMAP W, Filter H, Filter W, Channels, Num Filter, Strides, N:M,
Conv2, 27, 27, 5, 5, 96, 256, 1, 1:1,
Conv3, 13, 13, 3, 3, 256, 384, 1, 1:1,
"""  # the second and third convolutions of AlexNet
RUN = """import sys, time
from scalesim.scale_sim import scalesim
config, topology, layout, out = sys.argv[1:]
start = time.perf_counter()
scalesim(
    save_disk_space=True, verbose=False, config=config, topology=topology, layout=layout
).run_scale(top_path=out)
print("seconds", time.perf_counter() - start)
"""


@dataclass(frozen=True, slots=True)
class Beside:
    """Seconds of both, and their cycles by layer."""

    theirs_s: float
    ours_s: float
    theirs: tuple[int, ...]
    ours: tuple[int, ...]


def beside() -> Beside | str:
    """Both on the same layers, or why it could not be done here."""
    python = HOME / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True, capture_output=True, timeout=INSTALL_S)
        return _run(python)
    except (OSError, subprocess.SubprocessError) as error:
        return f"skipped: SCALE-Sim cannot be installed or run here ({type(error).__name__})"


def _run(python: Path) -> Beside:
    folder = HOME / "small"
    folder.mkdir(exist_ok=True)
    layers = [line.split(",")[0] for line in TOPOLOGY.splitlines()[1:]]
    layout = ["Layer name" + ",factor" * 20 + ",", *(n + ",1" * 20 + "," for n in layers)]
    files = {"a.cfg": CONFIG, "t.csv": TOPOLOGY, "l.csv": "\n".join(layout) + "\n", "run.py": RUN}
    for name, text in files.items():
        (folder / name).write_text(text)
    words = [python.absolute(), "run.py", "a.cfg", "t.csv", "l.csv", "out"]
    done = subprocess.run(
        words, cwd=folder, check=True, capture_output=True, text=True, timeout=RUN_S
    )
    lines = (folder / "out" / "small" / "COMPUTE_REPORT.csv").read_text().splitlines()[1:]
    start = time.perf_counter()
    ours = report(read_config(CONFIG), read_topology(TOPOLOGY))
    took = time.perf_counter() - start
    return Beside(
        theirs_s=float(done.stdout.split()[-1]),
        ours_s=took,
        theirs=tuple(int(float(line.split(",")[2])) for line in lines),
        ours=tuple(r.total_cycles for r in ours),
    )
