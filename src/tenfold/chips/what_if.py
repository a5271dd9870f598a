"""A chip with some figures changed: ``memory.bytes_per_s=2x``, ``matrix.rows=256``,
``clock=1.2 GHz``.

What follows from a changed figure follows: peaks scale with arrays, multiprocessors and clock
unless they are set themselves.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tenfold import units
from tenfold.chips.constants import GpuConstant
from tenfold.chips.figures import CALIBRATION, PEAK, spec
from tenfold.chips.record import Change, Chip
from tenfold.errors import InputError, UnitError, UnknownName
from tenfold.facts import Status
from tenfold.units import Dimension

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
_NEED_UNITS = {Dimension.LENGTH_M: "7 nm", Dimension.AREA_M2: "600 mm2"}
_POWER = frozenset(
    {
        "process",
        "tdp",
        "busy_power",
        "idle_power",
        f"{CALIBRATION}{GpuConstant.BUSY_FRACTION.value}",
        f"{CALIBRATION}{GpuConstant.MAC_ENERGY_FACTOR.value}",
    }
)


def what_if(chip: Chip, settings: Sequence[str]) -> Chip:
    """``chip`` with each of ``settings``, ``FIELD=VALUE``: a value with its unit, a bare number in
    SI, or a factor such as ``2x``.

    Raises InputError for what is no setting or no value, UnknownName with the nearest fields of
    this chip.
    """
    found: dict[str, Change] = {}
    for text in settings:
        path, value = _split(chip, text)
        if path == CAP:
            chip = capped(chip, value)
            continue
        before = chip.figures[path].value
        found[path] = Change(path, value.strip(), before, _value(chip, path, value))
    return _changed(chip, tuple(found.values())) if found else chip


MOST_VARIANTS = 64


def variants(chip: Chip, settings: Sequence[str]) -> list[Chip]:
    """``chip`` with each of ``settings``, of which one may have several values, separated by
    commas: a chip for each, and for several such settings each of one with each of the others.

    Raises as ``what_if``, and InputError for more than can be looked at.
    """
    choices = []
    for text in settings:
        name, equals, values = text.partition("=")
        choices.append([f"{name}{equals}{v}" for v in values.split(",")])
    count = math.prod(len(c) for c in choices)
    if count > MOST_VARIANTS:
        raise InputError(f"--set asks for {count:,} chips of one: at most {MOST_VARIANTS}")
    return [what_if(chip, chosen) for chosen in itertools.product(*choices)]


def _split(chip: Chip, text: str) -> tuple[str, str]:
    """The path that a setting means, and its value."""
    name, equals, value = text.partition("=")
    path = _ALIASES.get(name.strip(), name.strip())
    if not equals or not value.strip():
        raise InputError(f"--set takes FIELD=VALUE, such as memory.bytes_per_s=2x, found '{text}'")
    if path == CAP:
        return path, value
    if path not in chip.figures:
        aliases = (a for a, p in _ALIASES.items() if p in chip.figures)
        raise UnknownName(f"field of {chip.name}", name.strip(), [*chip.figures, *aliases])
    return path, value


def _value(chip: Chip, path: str, text: str) -> float:
    wanted = spec(chip.kind, path)
    old = chip.figures[path].value
    if factor := _FACTOR.match(text):
        value = old * float(factor.group(1))
    elif _BARE.match(text):
        value = float(text)
        if wanted.dimension in _NEED_UNITS:
            raise InputError(
                f"--set {path}: needs a unit, such as {_NEED_UNITS[wanted.dimension]}, or a factor"
                f" such as 2x, found '{text.strip()}'"
            )
    else:
        try:
            value = units.parse(text, wanted.dimension)
        except UnitError as error:
            raise InputError(f"--set {path}: {error}, or give a factor such as 2x") from error
    if old > 0 and value > 0 and not 1 / FURTHEST <= value / old <= FURTHEST:
        raise InputError(
            f"--set {path}: {text.strip()} is more than {FURTHEST:g} times from {old:g}, which no"
            " machine is"
        )
    if fault := wanted.range.fault(value):
        raise InputError(f"--set {path}: {fault}, found '{text.strip()}'")
    return value


CAP = "power_cap"


def capped(chip: Chip, text: str | None) -> Chip:
    """``chip`` held to fewer watts than its TDP, as ``nvidia-smi --power-limit`` does; itself where
    no cap is given.

    Raises InputError for what is no cap of it, MissingFigure for a chip without TDP or clock.
    """
    if text is None:
        return chip
    tdp = chip.figure("tdp", "a power cap").value
    chip.clock("a power cap")
    watts = units.parse(text, Dimension.POWER_W)
    if not 0 < watts <= tdp:
        raise InputError(
            f"a power cap of {chip.name} is above 0 and at most its TDP of {tdp:g} W, got '{text}'"
        )
    change = Change(CAP, text.strip(), tdp, watts)
    what = f"power capped by hand at {watts:g} W (TDP {tdp:g} W)"
    record = chip.with_figures({CAP: watts}, Status.ASSUMED, SOURCE, {SOURCE: what})
    return replace(
        record,
        name=_named(chip, (change,)),
        called=chip.sold_as,
        changes=(*chip.changes, change),
        base=chip.base or chip,
    )


SHOWN = 3  # settings in a name


def _named(chip: Chip, changes: Sequence[Change]) -> str:
    """A name that says what was changed, such as ``t4 (clock 2x)``."""
    words = [f"{c.path} {c.given}" for c in changes[:SHOWN]]
    if len(changes) > SHOWN:
        words.append(f"{len(changes) - SHOWN} more")
    return f"{chip.name} ({', '.join(words)})"


def _changed(chip: Chip, changes: tuple[Change, ...]) -> Chip:
    changed = {c.path: c.after for c in changes}
    before = {p: f.value for p, f in chip.figures.items()}
    after = before | dict(changed)
    scale = _natural(after) / _natural(before)
    follow: dict[str, float] = {}
    if scale != 1:
        follow = {p: v * scale for p, v in before.items() if p.startswith(PEAK)}
    what = ", ".join(f"{c.path} = {c.after:.6g} (was {c.before:.6g})" for c in changes)
    record = chip.with_figures(
        follow | changed, Status.ASSUMED, SOURCE, {SOURCE: f"set by hand: {what}"}
    )
    return replace(
        record,
        name=_named(chip, changes),
        called=chip.sold_as,
        changes=(*chip.changes, *changes),
        base=None if _POWER & changed.keys() else chip.base or chip,
    )


def _natural(values: Mapping[str, float]) -> float:
    """What the peak is proportional to."""
    size = [values[p] for p in ("matrix.arrays", "matrix.rows", "matrix.columns") if p in values]
    cells = math.prod(size) if size else values.get("units", 1.0)
    return cells * values.get("clock", 1.0)
