"""What interruptions cost a run: facts in ``data/failures.toml``.

A run of n chips is interrupted n times as often as one chip. It checkpoints every sqrt(2 d M) with
a stop of d and a mean time M between interruptions (Young 1974, A first order approximation to the
optimum checkpoint interval), loses half of an interval each time, and the restart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from tenfold.cluster.link import DATA
from tenfold.estimate import Estimate
from tenfold.facts import ABOVE_0, FigureText, Spec, check_sources, read_file
from tenfold.units import Dimension

PATH = DATA / "failures.toml"


class _Figures(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    between: FigureText
    restart: FigureText
    checkpoint: FigureText


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    figure: _Figures


@dataclass(frozen=True, slots=True)
class Interruptions:
    """Seconds between two of them, between two checkpoints, and the share of the time in which a
    run gets on (``goodput``).
    """

    between_s: Estimate
    checkpoint_every_s: float
    goodput: Estimate


@lru_cache(maxsize=1)
def _facts() -> tuple[Estimate, Estimate, Estimate]:
    """Seconds between interruptions of one chip, of a restart, and of a stop for a checkpoint."""
    file = read_file(PATH, _File)
    found = {n: getattr(file.figure, n) for n in _Figures.__struct_fields__}
    check_sources(PATH, {n: f.source for n, f in found.items()}, file.sources)
    spec = Spec(Dimension.TIME_S, ABOVE_0)
    between, restart, checkpoint = (f.read(spec).estimate for f in found.values())
    return between, restart, checkpoint


def interruptions(chips: int) -> Interruptions:
    """Of a run on so many chips."""
    between, restart, stop = _facts()
    value = _goodput(between.value / chips, restart.value, stop.value)
    low = _goodput(between.low / chips, restart.high, stop.high)
    high = _goodput(between.high / chips, restart.low, stop.low)
    every = math.sqrt(2 * stop.value * between.value / chips)
    return Interruptions(between / chips, every, Estimate(value, low, high))


def _goodput(between_s: float, restart_s: float, stop_s: float) -> float:
    every = math.sqrt(2 * stop_s * between_s)
    lost = stop_s / every + (every / 2 + restart_s) / between_s
    return 1 / (1 + lost)
