"""The machine that Tenfold runs on, as a chip."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from tenfold.chips.figures import PEAK
from tenfold.chips.kinds import Kind, MatrixPrecision, MemoryTechnology, SramRole
from tenfold.chips.record import Chip
from tenfold.facts import Figure, Status

# fp32 operations a cycle and core: two fused multiply-add units of the vector width (assumed)
_LANES = {"avx512f": 64, "avx2": 32, "avx": 16}
_VECTORS = {"avx512f": 512, "avx": 256}  # bits of a register; 128 without
_NARROW = {
    "avx512_vnni": (MatrixPrecision.INT8, 4.0),
    "avx_vnni": (MatrixPrecision.INT8, 4.0),
    "avx512_bf16": (MatrixPrecision.BF16, 2.0),
}
# bytes a second that one core can draw (assumed; `calibrate host` measures it)
_MEMORY_PER_CORE = 10e9


def host_chip() -> Chip:
    """This machine: cores, vector width and clock from /proc/cpuinfo, memory bandwidth assumed."""
    info = _read("/proc/cpuinfo")
    flags = set((re.search(r"^flags\s*:\s*(.*)$", info, re.M) or ["", ""])[1].split())
    model = (
        re.search(r"^model name\s*:\s*(.*)$", info, re.M)
        or ["", platform.processor() or "unknown processor"]
    )[1]
    mhz = float((re.search(r"^cpu MHz\s*:\s*([\d.]+)$", info, re.M) or ["", "2500"])[1])
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    memory_kib = float(
        (re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.M) or ["", "8388608"])[1]
    )
    lanes = next((n for flag, n in _LANES.items() if flag in flags), 8)
    clock = mhz * 1e6
    peak = {MatrixPrecision.FP32: lanes * cores * clock}
    peak |= {p: lanes * f * cores * clock for flag, (p, f) in _NARROW.items() if flag in flags}
    caches = _caches(cores)
    registers = next((b for flag, b in _VECTORS.items() if flag in flags), 128)
    figures = {
        "clock": Figure.exact(clock, Status.VERIFIED, "cpuinfo"),
        "units": Figure.exact(cores, Status.VERIFIED, "cpuinfo"),
        "vector_ops_per_cycle": Figure.exact(lanes * cores, Status.DERIVED, "cpuinfo"),
        "vector_bits": Figure.exact(registers, Status.DERIVED, "cpuinfo"),
        "memory.capacity": Figure.exact(memory_kib * 1024, Status.VERIFIED, "meminfo"),
        "memory.bandwidth": Figure.exact(cores * _MEMORY_PER_CORE, Status.ASSUMED, "tenfold"),
        "tdp": Figure(
            cores * 4.0, cores * 1.0, cores * 10.0, Status.ASSUMED, "tenfold", _WATTS_NOTE
        ),
    }
    for role, size in caches.items():
        figures[f"sram.{role.value}.capacity"] = Figure.exact(size, Status.VERIFIED, "sysfs")
    for precision, rate in peak.items():
        figures[f"{PEAK}{precision.value}"] = Figure.exact(rate, Status.DERIVED, "cpuinfo")
    return Chip(
        name="host",
        organisation=model,
        year=0,
        kind=Kind.HOST,
        figures=figures,
        sources={
            "cpuinfo": "/proc/cpuinfo",
            "meminfo": "/proc/meminfo",
            "sysfs": "/sys/devices/system/cpu/cpu0/cache",
            "tenfold": "assumption of this project",
        },
        memory=MemoryTechnology.DDR4,
        levels=tuple(caches),
        note="this machine",
        calibration_from="epyc-9654",
    )


_WATTS_NOTE = "watts per core, a share of a server"


def _caches(cores: int) -> dict[SramRole, float]:
    """Bytes of the data caches of level 2 and up: a level that one core has to itself counts once a
    core.
    """
    found: dict[SramRole, float] = {}
    roles = {"2": SramRole.L2, "3": SramRole.L3}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, shared = (
            _read(str(folder / n)).strip() for n in ("level", "type", "size", "shared_cpu_list")
        )
        if kind in ("Data", "Unified") and level in roles and size.endswith("K"):
            alone = not any(c in shared for c in ",-")
            found[roles[level]] = float(size[:-1]) * 1024 * (cores if alone else 1)
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
