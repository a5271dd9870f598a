"""Power sets the clock: a chip runs as fast as its watts stay within its limit.

    watts = static + (clocked joules x (voltage / voltage at its own clock)^2 + other joules) / time

Dynamic energy goes with the square of the voltage (Chandrakasan et al., IEEE JSSC 1992, equation
1), and the voltage falls with the clock, down to a floor. What the clock does not drive - off-chip
memory, launches - takes the time that it takes. The sustained clock is the highest at which the
watts of a kernel are within the limit: its TDP, or the cap that its user sets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np

from tenfold.chips import MatrixPrecision
from tenfold.facts import Figure, FigureText, Spec, check_sources, read_file
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data" / "power.toml"
Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
LOWEST = 0.3  # of the clock: below it a chip is braked as a whole (assumed)
HALVINGS = 24  # of the search for the clock: to a ten-millionth


class _Process(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    nm: float
    top_clock: FigureText
    lane_flop: FigureText | None = None
    matrix_flop: FigureText | None = None
    over_7nm: FigureText | None = None


class _Voltage(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    floor: FigureText
    at_rest: FigureText


class _Width(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    tf32: FigureText
    fp8: FigureText
    int8: FigureText
    fp4: FigureText


class _Way(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    byte: FigureText


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    voltage: _Voltage
    width: _Width
    way: _Way
    process: list[_Process]


_SHARE = Spec(Dimension.FRACTION)
_JOULES = Spec(Dimension.ENERGY_J)
_HZ = Spec(Dimension.FREQUENCY_HZ)


@dataclass(frozen=True, slots=True)
class Process:
    """A process: the highest clock of chips made in it, and there the joules of a flop on vector
    lanes and of 16 bits on matrix units, where known; ``over_7nm``: over those of 7 nm.
    """

    nm: float
    top_clock: Figure
    lane_flop: Figure | None
    matrix_flop: Figure | None
    over_7nm: Figure | None


@dataclass(frozen=True, slots=True)
class PowerFacts:
    """What ``data/power.toml`` says."""

    floor: Figure
    at_rest: Figure
    width: Mapping[MatrixPrecision, float]
    byte_way: Figure
    processes: tuple[Process, ...]


@lru_cache(maxsize=1)
def power_facts() -> PowerFacts:
    file = read_file(DATA, _File)
    check_sources(DATA, {n: f.source for n, f in _figures(file)}, file.sources)

    def maybe(text: FigureText | None, spec: Spec) -> Figure | None:
        return text.read(spec) if text is not None else None

    return PowerFacts(
        floor=file.voltage.floor.read(_SHARE),
        at_rest=file.voltage.at_rest.read(_SHARE),
        width={
            MatrixPrecision.FP32: file.width.tf32.read(_SHARE).value,
            MatrixPrecision.TF32: file.width.tf32.read(_SHARE).value,
            MatrixPrecision.BF16: 1.0,
            MatrixPrecision.FP16: 1.0,
            MatrixPrecision.FP8: file.width.fp8.read(_SHARE).value,
            MatrixPrecision.INT8: file.width.int8.read(_SHARE).value,
            MatrixPrecision.FP4: file.width.fp4.read(_SHARE).value,
        },
        byte_way=file.way.byte.read(_JOULES),
        processes=tuple(
            Process(
                p.nm,
                p.top_clock.read(_HZ),
                maybe(p.lane_flop, _JOULES),
                maybe(p.matrix_flop, _JOULES),
                maybe(p.over_7nm, _SHARE),
            )
            for p in file.process
        ),
    )


def _figures(file: _File) -> Iterator[tuple[str, FigureText]]:
    """Every figure of the file by its path."""
    tables: dict[str, msgspec.Struct] = {
        "voltage": file.voltage,
        "width": file.width,
        "way": file.way,
        **{f"process {p.nm:g}": p for p in file.process},
    }
    for path, table in tables.items():
        for name in table.__struct_fields__:
            figure = getattr(table, name)
            if isinstance(figure, FigureText):
                yield f"{path}.{name}", figure


def process_of(nm: float) -> Process:
    """The process nearest to ``nm``, in ratio."""
    return min(power_facts().processes, key=lambda p: abs(math.log(p.nm / nm)))


def voltage(share_of_top: Any) -> Any:
    """Voltage over that at the highest clock of the process, for a clock as a share of it."""
    facts = power_facts()
    rest = facts.at_rest.value
    return np.maximum(rest + (1 - rest) * np.asarray(share_of_top), facts.floor.value)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What kernels draw at the chip's own clock, numbers or arrays: joules that go with the clock
    and others, seconds that the clock drives and others.
    """

    clocked_j: Any
    other_j: Any
    clocked_s: Any
    other_s: Any


@dataclass(frozen=True, slots=True)
class Sustained:
    """Share of the chip's own clock, seconds, and what joules that go with the clock are over those
    at it.
    """

    share: Any
    time_s: Any
    joules: Any


@dataclass(frozen=True, slots=True)
class PowerLimit:
    """A chip's static watts and limit; ``top_share`` is its own clock over the highest of its
    process.
    """

    static_w: float
    limit_w: float
    top_share: float

    def joules(self, share: Any) -> Any:
        """Clocked energy at a share of the own clock, over that at the own clock."""
        own = voltage(self.top_share)
        return (voltage(np.asarray(share) * self.top_share) / own) ** 2

    def within(self, drawn: Drawn) -> bool:
        """Whether one kernel is within the limit at the chip's own clock."""
        seconds = drawn.clocked_s + drawn.other_s
        joules = drawn.clocked_j + drawn.other_j
        return bool(joules <= (self.limit_w - self.static_w) * seconds)

    def sustained(self, drawn: Drawn) -> Sustained:
        """The highest clock within the limit, by halving; below ``LOWEST`` the whole kernel is
        braked.
        """
        columns = (drawn.clocked_j, drawn.other_j, drawn.clocked_s, drawn.other_s)
        clocked_j, other_j, clocked_s, other_s = (np.asarray(c, dtype=float) for c in columns)
        free_w = self.limit_w - self.static_w

        def over(share: Floats) -> Any:
            joules = clocked_j * self.joules(share) + other_j
            return joules > free_w * (other_s + clocked_s / share)

        one = np.ones(np.broadcast(clocked_j, clocked_s).shape)
        low, high = one * LOWEST, one
        held = over(one)
        if held.any():
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                above = over(middle)
                low, high = np.where(above, low, middle), np.where(above, middle, high)
        share = np.where(held, low, one)
        factor = self.joules(share)
        seconds = other_s + clocked_s / share
        least = (clocked_j * factor + other_j) / free_w
        return Sustained(share, np.maximum(seconds, np.where(held, least, 0.0)), factor)
