"""A chip with some figures changed: ``memory.bytes_per_s=2x``, ``matrix.rows=256``,
``clock=1.2 GHz``.

What follows from a changed figure follows: peaks scale with arrays, multiprocessors and clock
unless they are set themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tenfold import units
from tenfold.chips.record import Chip, Matrix, Quantity, dimension_of
from tenfold.errors import InputError, UnitError, UnknownName

_ALIASES = {
    "memory.bytes_per_s": "memory.bandwidth",
    "memory.bytes": "memory.capacity",
    "clock_hz": "clock",
    "tdp_w": "tdp",
}
_FACTOR = re.compile(r"^\s*(\d+\.?\d*|\.\d+)\s*[xX]\s*$")
_BARE = re.compile(r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
SOURCE = "set"
FURTHEST = 1e6
_NEED_UNITS = {"length_m": "7 nm", "area_m2": "600 mm2"}
_POWER = (
    "process",
    "tdp",
    "busy_power",
    "idle_power",
    "calibration.busy_fraction",
    "calibration.mac_energy_factor",
)


def what_if(chip: Chip, settings: Sequence[str]) -> Chip:
    """``chip`` with each of ``settings``, ``FIELD=VALUE``: a value with its unit, a bare number in
    SI, or a factor such as ``2x``.

    Raises InputError for what is no setting or no value, UnknownName with the nearest fields of
    this chip.
    """
    changed: dict[str, float] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        path = _ALIASES.get(name.strip(), name.strip())
        if not equals or not value.strip():
            raise InputError(
                f"--set takes FIELD=VALUE, such as memory.bytes_per_s=2x, found '{text}'"
            )
        if path not in chip.figures:
            raise UnknownName(
                f"field of {chip.name}",
                name.strip(),
                [*chip.figures, *(a for a, p in _ALIASES.items() if p in chip.figures)],
            )
        changed[path] = _value(chip, path, value)
    return _changed(chip, changed) if changed else chip


def _value(chip: Chip, path: str, text: str) -> float:
    if factor := _FACTOR.match(text):
        value = chip.figures[path].value * float(factor.group(1))
    elif _BARE.match(text):
        value = float(text)
    else:
        try:
            value = units.parse(text, dimension_of(path))
        except UnitError as error:
            raise InputError(f"--set {path}: {error}, or give a factor such as 2x") from error
    if _BARE.match(text) and dimension_of(path) in _NEED_UNITS:
        example = _NEED_UNITS[dimension_of(path)]
        raise InputError(
            f"--set {path}: needs a unit, such as {example}, or a factor such as 2x, found"
            f" '{text.strip()}'"
        )
    old = chip.figures[path].value
    if old > 0 and value > 0 and not 1 / FURTHEST <= value / old <= FURTHEST:
        raise InputError(
            f"--set {path}: {text.strip()} is more than {FURTHEST:g} times from {old:g}, which no"
            " machine is"
        )
    whole = path in (
        "units",
        "matrix.arrays",
        "matrix.rows",
        "matrix.columns",
        "calibration.minimum_rows",
    )
    may_be_none = path.startswith("calibration.") and path.endswith("_s")
    if not math.isfinite(value) or value < 0 or (value == 0 and not may_be_none):
        raise InputError(f"--set {path}: needs a number above 0, found '{text.strip()}'")
    if whole and value != round(value):
        raise InputError(f"--set {path}: needs a whole number, found '{text.strip()}'")
    return value


def _changed(chip: Chip, changed: Mapping[str, float]) -> Chip:
    values = {p: q.value for p, q in chip.figures.items()} | dict(changed)
    scale = _natural(values, chip.kind) / _natural(
        {p: q.value for p, q in chip.figures.items()}, chip.kind
    )
    follow = (
        {f"peak.{p}": v * scale for p, v in chip.peak_flops.items() if f"peak.{p}" not in changed}
        if scale != 1
        else {}
    )
    if "clock" in changed and "sustained_clock" in values and "sustained_clock" not in changed:
        follow["sustained_clock"] = (
            values["sustained_clock"] * changed["clock"] / chip.figures["clock"].value
        )
    values |= follow
    figures = dict(chip.figures)
    for path in (*changed, *follow):
        figures[path] = Quantity(values[path], values[path], values[path], "assumed", SOURCE)
    number = values.get
    sram = tuple(
        replace(
            s,
            bytes=values[f"sram.{s.name}.capacity"],
            read_bytes_per_s=number(f"sram.{s.name}.read_bandwidth"),
            write_bytes_per_s=number(f"sram.{s.name}.write_bandwidth"),
        )
        for s in chip.sram
    )
    size = (
        tuple(round(values[f"matrix.{n}"]) for n in ("arrays", "rows", "columns"))
        if chip.matrix
        else ()
    )
    return replace(
        chip,
        clock_hz=number("clock"),
        units=round(values["units"]) if "units" in values else None,
        vector_ops_per_cycle=number("vector_ops_per_cycle"),
        peak_flops={p: values[f"peak.{p}"] for p in chip.peak_flops},
        matrix=Matrix(*size) if size else None,
        memory_bytes=number("memory.capacity"),
        memory_bytes_per_s=number("memory.bandwidth"),
        sram=sram,
        tdp_w=number("tdp"),
        figures=figures,
        base=None if any(p in changed for p in _POWER) else chip.base or chip,
        sources={
            **chip.sources,
            SOURCE: f"set by hand: {', '.join(f'{p} = {v:.6g}' for p, v in changed.items())}",
        },
    )


def _natural(values: Mapping[str, float], kind: str) -> float:
    """What the peak is proportional to."""
    size = [values[f"matrix.{n}"] for n in ("arrays", "rows", "columns") if f"matrix.{n}" in values]
    cells = math.prod(size) if kind == "systolic" and size else values.get("units", 1.0)
    return cells * values.get("clock", 1.0)
