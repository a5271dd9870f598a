"""The machine that Tenfold runs on, as a chip."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from tenfold.chips.record import Chip, MatrixPrecision, Quantity, Sram

# fp32 operations a cycle and core: two fused multiply-add units of the vector width (assumed)
_LANES = {"avx512f": 64, "avx2": 32, "avx": 16}
_VECTORS = {"avx512f": 512, "avx": 256}  # bits of a register; 128 without
_NARROW = {
    "avx512_vnni": (MatrixPrecision.INT8, 4.0),
    "avx_vnni": (MatrixPrecision.INT8, 4.0),
    "avx512_bf16": (MatrixPrecision.BF16, 2.0),
}
_MEMORY_PER_CORE = (
    10e9  # bytes a second that one core can draw (assumed; `calibrate host` measures it)
)


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
    sram = _caches(cores)
    figures = (
        {
            "clock": _figure(clock, "verified", "cpuinfo"),
            "units": _figure(cores, "verified", "cpuinfo"),
            "vector_ops_per_cycle": _figure(lanes * cores, "derived", "cpuinfo"),
            "vector_bits": _figure(
                next((b for flag, b in _VECTORS.items() if flag in flags), 128),
                "derived",
                "cpuinfo",
            ),
            "memory.capacity": _figure(memory_kib * 1024, "verified", "meminfo"),
            "memory.bandwidth": _figure(cores * _MEMORY_PER_CORE, "assumed", "tenfold"),
            "tdp": Quantity(
                cores * 4.0,
                cores * 1.0,
                cores * 10.0,
                "assumed",
                "tenfold",
                "watts per core, a share of a server",
            ),
        }
        | {f"sram.{s.name}.capacity": _figure(s.bytes, "verified", "sysfs") for s in sram}
        | {f"peak.{p.value}": _figure(v, "derived", "cpuinfo") for p, v in peak.items()}
    )
    sources = {
        "cpuinfo": "/proc/cpuinfo",
        "meminfo": "/proc/meminfo",
        "sysfs": "/sys/devices/system/cpu/cpu0/cache",
        "tenfold": "assumption of this project",
    }
    return Chip(
        name="host",
        organisation=model,
        year=0,
        kind="host",
        cooling="",
        note="this machine",
        clock_hz=clock,
        units=cores,
        vector_ops_per_cycle=float(lanes * cores),
        peak_flops=peak,
        matrix=None,
        memory_kind="DDR4",
        memory_bytes=memory_kib * 1024,
        memory_bytes_per_s=cores * _MEMORY_PER_CORE,
        sram=sram,
        tdp_w=None,
        relatives=(),
        figures=figures,
        calibration_from="epyc-9654",
        activation_level="",
        whole_weight_tiles=False,
        sources=sources,
    )


def _caches(cores: int) -> tuple[Sram, ...]:
    """Data caches of level 2 and up: a level that one core has to itself counts once a core."""
    found: dict[str, float] = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, shared = (
            _read(str(folder / n)).strip() for n in ("level", "type", "size", "shared_cpu_list")
        )
        if (
            kind in ("Data", "Unified")
            and level.isdecimal()
            and int(level) >= 2
            and size.endswith("K")
        ):
            alone = not any(c in shared for c in ",-")
            found[f"L{level}"] = float(size[:-1]) * 1024 * (cores if alone else 1)
    return tuple(Sram(n, b, None, None) for n, b in found.items())


def _figure(value: float, status: str, source: str) -> Quantity:
    return Quantity(value, value, value, status, source)  # type: ignore[arg-type]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
