"""Quantities with units, parsed once at the border into SI floats.

``parse("28 MiB", Dimension.BYTES)`` is 29360128.0.  Decimal and binary prefixes are never confused:
GB is 1e9 bytes, GiB is 2**30.  Inside Tenfold a quantity is a plain float whose name carries the
unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from enum import StrEnum

from tenfold.errors import UnitError


class Dimension(StrEnum):
    """What a quantity measures; the name is that of the SI unit inside."""

    TIME_S = "time_s"
    BYTES = "bytes"
    BYTES_PER_S = "bytes_per_s"
    FREQUENCY_HZ = "frequency_hz"
    FLOPS_PER_S = "flops_per_s"
    POWER_W = "power_w"
    ENERGY_J = "energy_j"
    AREA_M2 = "area_m2"
    LENGTH_M = "length_m"
    USD = "usd"
    USD_PER_S = "usd_per_s"
    USD_PER_W = "usd_per_w"
    USD_PER_W_S = "usd_per_w_s"
    USD_PER_J = "usd_per_j"
    KGCO2E_PER_J = "kgco2e_per_j"
    RATE_PER_S = "rate_per_s"
    FRACTION = "fraction"
    COUNT = "count"


_SI = {
    "": 1.0,
    "n": 1e-9,
    "u": 1e-6,
    "µ": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _prefixed(symbol: str, prefixes: str, *, binary: bool = False) -> dict[str, float]:
    table = {symbol: 1.0} | {p + symbol: _SI[p] for p in prefixes}
    if binary:
        table |= {p + symbol: f for p, f in _BINARY.items()}
    return table


_TABLES: dict[Dimension, dict[str, float]] = {
    Dimension.TIME_S: (
        _prefixed("s", "nuµm")
        | {
            "min": 60.0,
            "h": 3600.0,
            "hours": 3600.0,
            "d": 86400.0,
            "days": 86400.0,
            "years": 31557600.0,
        }
    ),
    Dimension.BYTES: _prefixed("B", "kMGTPE", binary=True) | {"bytes": 1.0},
    Dimension.BYTES_PER_S: (
        {f"{u}/s": f for u, f in _prefixed("B", "kMGTPE", binary=True).items()}
        | {f"{p}bit/s": f / 8 for p, f in _SI.items() if p and p in "kMGTPE"}
    ),
    Dimension.FREQUENCY_HZ: _prefixed("Hz", "kMGT"),
    Dimension.FLOPS_PER_S: {
        f"{p}{u}": f
        for p, f in _SI.items()
        if p and p in "GTPE"
        for u in ("FLOPS", "OPS", "FLOP/s", "OP/s")
    },
    Dimension.POWER_W: _prefixed("W", "mkMG"),
    Dimension.ENERGY_J: (
        _prefixed("J", "numkMG")
        | {"pJ": 1e-12}
        | {f"{p}Wh": f * 3600 for p, f in _SI.items() if p in "kMGT"}
    ),
    Dimension.AREA_M2: {"mm2": 1e-6, "cm2": 1e-4},
    Dimension.LENGTH_M: {"nm": 1e-9},
    Dimension.USD: {"USD": 1.0, "$": 1.0},
    Dimension.USD_PER_S: {"USD/h": 1 / 3600, "USD/hour": 1 / 3600, "USD/chip-hour": 1 / 3600},
    Dimension.USD_PER_W: {"USD/W": 1.0},
    Dimension.USD_PER_W_S: {"USD/W/year": 1 / 31557600.0, "USD/W/month": 12 / 31557600.0},
    Dimension.USD_PER_J: {"USD/kWh": 1 / 3.6e6},
    Dimension.KGCO2E_PER_J: {
        "kg/kWh": 1 / 3.6e6,
        "g/kWh": 1e-3 / 3.6e6,
        "gCO2e/kWh": 1e-3 / 3.6e6,
        "kgCO2e/kWh": 1 / 3.6e6,
    },
    Dimension.RATE_PER_S: {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600},
    Dimension.FRACTION: {"": 1.0, "%": 0.01},
    Dimension.COUNT: {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
}

# what a value inside is in, for those that people read with a prefix
SI_UNITS: Mapping[Dimension, str] = {
    Dimension.TIME_S: "s",
    Dimension.BYTES: "B",
    Dimension.BYTES_PER_S: "B/s",
    Dimension.FREQUENCY_HZ: "Hz",
    Dimension.FLOPS_PER_S: "FLOP/s",
    Dimension.POWER_W: "W",
    Dimension.ENERGY_J: "J",
    Dimension.AREA_M2: "m2",
    Dimension.LENGTH_M: "m",
    Dimension.USD: "$",
    Dimension.USD_PER_S: "$/s",
    Dimension.USD_PER_W: "$/W",
    Dimension.USD_PER_W_S: "$/W/s",
    Dimension.USD_PER_J: "$/J",
    Dimension.KGCO2E_PER_J: "kgCO2e/J",
    Dimension.RATE_PER_S: "/s",
    Dimension.FRACTION: "",
    Dimension.COUNT: "",
}

# units as people spell them, that are one of ours
_SPELT = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "millisecond": "ms",
    "milliseconds": "ms", "usec": "us", "microseconds": "us", "minutes": "min", "mins": "min",
    "hour": "h", "hr": "h", "hrs": "h", "day": "days", "year": "years", "watt": "W", "watts": "W",
    "kilowatt": "kW", "kilowatts": "kW", "byte": "B", "gigabytes": "GB", "usd": "USD",
    "dollars": "USD", "per second": "/s", "/sec": "/s", "/second": "/s", "rps": "/s", "qps": "/s",
    "percent": "%", "gbps": "Gbit/s", "gbytes/s": "GB/s", "gb/sec": "GB/s", "tflop": "TFLOPS",
    "tflops/s": "TFLOPS",
}  # fmt: skip

_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def parse(text: str, dimension: Dimension) -> float:
    """SI value of ``text``, which must be a number with a unit of ``dimension``.

    Raises UnitError naming what was found and which units are allowed.
    """
    table = _TABLES[dimension]
    match = _QUANTITY.match(text)
    allowed = ", ".join(sorted(u for u in table if u))
    if not match:
        raise UnitError(
            f"'{text}' is not a number with a unit: write for example '10 {next(iter(table))}'"
            f" (units: {allowed})"
        )
    number, unit = match.groups()
    if unit not in table:
        found = f"has the unknown unit '{unit}'" if unit else "has no unit"
        meant = [u for u in table if u and unit and u.lower() == unit.lower()]
        meant = meant or ([_SPELT[unit.lower()]] if _SPELT.get(unit.lower()) in table else [])
        hint = f"did you mean '{number}{meant[0]}'? (" if len(meant) == 1 else "("
        raise UnitError(f"'{text}' {found} for {dimension}: {hint}allowed are {allowed})")
    value = float(number) * table[unit]
    if not math.isfinite(value):
        raise UnitError(f"'{text}' is beyond what can be computed with")
    return value


_STEPS = (
    (1e-12, "p"),
    (1e-9, "n"),
    (1e-6, "µ"),
    (1e-3, "m"),
    (1.0, ""),
    (1e3, "k"),
    (1e6, "M"),
    (1e9, "G"),
    (1e12, "T"),
    (1e15, "P"),
    (1e18, "E"),
)


def scale_of(value: float, digits: int = 3) -> tuple[float, str]:
    """The decimal prefix that ``value`` is shown with, rounded to ``digits``, and its factor."""
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0:
        return 1.0, ""
    return max((s for s in _STEPS if abs(rounded) >= s[0] * (1 - 1e-9)), default=_STEPS[0])


def show(value: float, unit: str, digits: int = 3) -> str:
    """``value`` in SI with a decimal prefix and ``digits`` significant digits:
    ``show(0.0123, 's')`` is '12.3 ms'.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    rounded = float(f"{value:.{digits - 1}e}")
    scale, prefix = scale_of(value, digits)
    scaled = rounded / scale
    decimals = max(0, digits - len(str(int(abs(scaled) + 1e-9))))
    return f"{scaled:.{decimals}f} {prefix}{unit}"
