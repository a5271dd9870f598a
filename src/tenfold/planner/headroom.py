"""How long a choice lasts: growth (lesson 1), the workloads of other years (lesson 2), families it
was not chosen for (lesson 7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold.chips import Chip
from tenfold.errors import DataFileError, TenfoldError
from tenfold.evaluate.profiling import profile_bound
from tenfold.facts import read_file
from tenfold.model import Bound, Sizes, load, prepare
from tenfold.planner.capacity import seconds_an_item
from tenfold.planner.plan import needed_bytes
from tenfold.planner.record import Option, Plan
from tenfold.serving import high_factor

DATA = Path(__file__).parent / "data" / "mixes.toml"
GROWTH = 1.5  # a year, in memory and in compute (Jouppi et al., ISCA 2021, lesson 8)


class _Network(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    model: str
    batch: int
    seq: int | None = None


class _Mix(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    year: int
    source: str
    status: str
    share: dict[str, float]


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    network: dict[str, _Network]
    mix: list[_Mix]


@lru_cache(maxsize=1)
def _file() -> _File:
    file = read_file(DATA, _File)
    for mix in file.mix:
        unknown = sorted(set(mix.share) - set(file.network))
        if unknown or mix.source not in file.sources:
            raise DataFileError(
                f"{DATA.name}: the mix of {mix.year} names '{(unknown or [mix.source])[0]}', which"
                " the file has not"
            )
    return file


@dataclass(frozen=True, slots=True)
class Growth:
    """Years until a model that grows 1.5x a year outgrows the choice: its memory, and the SLO with
    one item alone (0: at once).
    """

    memory_years: float
    latency_years: float


def growth(option: Option, plan: Plan) -> Growth:
    """``option``'s headroom. Weights and largest activations grow against the chip's memory, the
    p99 of one item against the SLO.
    """
    need = needed_bytes(plan.ask, option.services)
    memory = math.log((option.chip.memory_bytes or need) / need) / math.log(GROWTH)
    factor = high_factor(plan.ask.spread)
    latency = min(
        math.log(d.slo_s / (s.times_s[1].value * factor)) / math.log(GROWTH)
        for d, s in zip(plan.ask.demands, option.services, strict=True)
    )
    return Growth(max(memory, 0.0), max(latency, 0.0))


@lru_cache(maxsize=8)
def _bound(family: str) -> Bound:
    network = _file().network[family]
    return prepare(load(network.model), Sizes(network.batch, network.seq))


@dataclass(frozen=True, slots=True)
class Mixed:
    """One year's mix: how many times faster or slower than the choice other chips would do it; None
    where one cannot do all of it.
    """

    year: int
    shares: Mapping[str, float]
    speed: Mapping[str, float | None]
    source: str


def mixes(chips: Sequence[Chip]) -> tuple[Mixed, ...]:
    """The mixes of 2016 to 2026 on ``chips``, relative to the first.

    A mix gives the shares of time that families take on the first chip; another needs sum(share x
    its time / the first's) of it.
    """
    file = _file()
    times: dict[tuple[str, str], float | None] = {}
    for chip in chips:
        for family in file.network:
            times[chip.name, family] = _time(chip, family)
    found = []
    for mix in file.mix:
        whole = sum(mix.share.values())
        speed: dict[str, float | None] = {}
        for chip in chips:
            parts = [
                (s / whole, times[chip.name, f], times[chips[0].name, f])
                for f, s in mix.share.items()
            ]
            if any(a is None or b is None for _, a, b in parts):
                speed[chip.name] = None
            else:
                speed[chip.name] = 1 / sum(s * a / b for s, a, b in parts if a and b)
        found.append(Mixed(mix.year, mix.share, speed, file.sources[mix.source]))
    return tuple(found)


def _time(chip: Chip, family: str) -> float | None:
    try:
        return profile_bound(_bound(family), chip).run.time_s.value
    except TenfoldError:
        return None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A chip chosen by all demands but one, and what it loses on that one: cost an item over the
    least, less 1.
    """

    demand: str
    chosen: str
    best_for_it: str
    loss: float


def overfit(plan: Plan) -> tuple[LeftOut, ...]:
    """Lesson 7: for each demand of a mix, the chip that the others would choose, and its loss on
    the one left out.

    The cost of an item is its seconds at the largest useful batch times what a second of the chip
    costs: owned, else rented, else watts.
    """
    options = (
        [o for o in plan.options if o.tco]
        or [o for o in plan.options if o.rented]
        or list(plan.options)
    )
    if len(plan.ask.demands) < 2 or len(options) < 2:
        return ()
    costs = {
        o.chip.name: [_cost(o, plan, i) for i in range(len(plan.ask.demands))] for o in options
    }
    found = []
    for i, d in enumerate(plan.ask.demands):
        others = [j for j in range(len(plan.ask.demands)) if j != i]
        chosen = min(
            costs, key=lambda c: sum(costs[c][j] * plan.ask.demands[j].rate_per_s for j in others)
        )
        best = min(costs, key=lambda c: costs[c][i])
        found.append(LeftOut(d.name, chosen, best, costs[chosen][i] / costs[best][i] - 1))
    return tuple(found)


def _cost(option: Option, plan: Plan, at: int) -> float:
    d, s = plan.ask.demands[at], option.services[at]
    rate = (
        option.tco.usd_per_year.value
        if option.tco
        else option.rented.usd_per_s / option.rented.chips
        if option.rented
        else option.mean_w.value
    )
    return seconds_an_item(s, d.slo_s, plan.ask.spread) * rate
