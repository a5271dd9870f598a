"""How chips are joined: levels from the innermost on, a file each in ``data/topologies``.

A level is a switch that joins all of its chips or groups, a mesh of links between each two, or a
torus of neighbours. What leaves a
chip at the innermost level is its own links (``links`` of the chip's file) unless the file says
otherwise; every further level has a bandwidth a chip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold.chips import Chip, names
from tenfold.cluster.link import DATA, Link
from tenfold.errors import InputError, UnknownName
from tenfold.facts import ABOVE_0, Figure, FigureText, Spec, check_sources, read_file
from tenfold.units import Dimension

FOLDER = DATA / "topologies"
_BANDWIDTH = Spec(Dimension.BYTES_PER_S, ABOVE_0)


class Shape(StrEnum):
    """How the members of a level reach each other."""

    SWITCH = "switch"
    MESH = "mesh"  # a link to each other one
    TORUS = "torus"


class _Level(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    shape: Shape
    link: Link
    largest: list[int]
    wraps_from: int = 1
    wraps_together: bool = False
    bandwidth: FigureText | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    does: str
    chips: list[str]
    sources: dict[str, str]
    level: list[_Level]


@dataclass(frozen=True, slots=True)
class Level:
    """``largest`` are the most members of a switch, or the longest sides of a torus, of which a
    side wraps around where it is a multiple of ``wraps_from``; where ``wraps_together``, only if
    all sides are. ``bandwidth`` is bytes a second one way out of a chip; None where the chip's own
    links are meant.
    """

    shape: Shape
    link: Link
    largest: tuple[int, ...]
    wraps_from: int
    wraps_together: bool
    bandwidth: Figure | None

    @property
    def members(self) -> int:
        return math.prod(self.largest)


@dataclass(frozen=True, slots=True)
class Topology:
    """Chips joined in levels, the innermost first."""

    name: str
    does: str
    chips: tuple[str, ...]
    levels: tuple[Level, ...]
    sources: Mapping[str, str]

    @property
    def most(self) -> int:
        """Chips that it joins at most."""
        return math.prod(level.members for level in self.levels)

    def parts(self, count: int, stride: int = 1) -> tuple[tuple[Level, tuple[int, ...]], ...]:
        """The levels that ``count`` chips take, each ``stride`` places after the one before, with
        the sides at each level: whole inner levels first.

        Raises InputError for more than there are, or for a count that is not made of whole levels.
        """
        if not 1 <= count * stride <= self.most:
            raise InputError(f"{self.name} joins 1 to {self.most:,} chips, got {count * stride:,}")
        found: list[tuple[Level, tuple[int, ...]]] = []
        left = count
        for level in self.levels:
            # one of them at most is inside
            if count > 1 and (stride >= level.members or level.members // stride < 2):
                stride = -(-stride // level.members)
                continue
            here = min(left, level.members // stride)
            stride = 1
            if left % here:
                raise InputError(
                    f"{count:,} chips on {self.name} are not whole groups of {here}: give a"
                    f" multiple of {here}, or at most {here}"
                )
            found.append((level, _sides(level, here, self.name)))
            left //= here
            if left == 1:
                break
        return tuple(found)


def _sides(level: Level, count: int, name: str) -> tuple[int, ...]:
    """The sides of a sub-torus of ``count`` chips, as near to equal as there are."""
    match level.shape:
        case Shape.SWITCH | Shape.MESH:
            return (count,)
        case Shape.TORUS:
            found = _boxes(count, level.largest)
            if not found:
                sides = " x ".join(map(str, level.largest))
                raise InputError(
                    f"{count:,} chips make no box in the torus of {name} ({sides}): give a count"
                    " whose factors fit its sides"
                )
            return min(found, key=lambda s: (max(s), sum(s)))


def _boxes(count: int, largest: tuple[int, ...]) -> list[tuple[int, ...]]:
    if not largest:
        return [()] if count == 1 else []
    return [
        (side, *rest)
        for side in range(1, min(count, largest[0]) + 1)
        if count % side == 0
        for rest in _boxes(count // side, largest[1:])
    ]


@lru_cache(maxsize=1)
def topology_names() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in FOLDER.glob("*.toml")))


@lru_cache(maxsize=64)
def topology_named(name: str) -> Topology:
    """Raises UnknownName with the nearest, DataFileError for a faulty file."""
    if name not in topology_names():
        raise UnknownName("cluster", name, topology_names())
    path: Path = FOLDER / f"{name}.toml"
    file = read_file(path, _File)
    given = {
        f"level {i}.bandwidth": x.bandwidth.source for i, x in enumerate(file.level) if x.bandwidth
    }
    check_sources(path, given, file.sources)
    levels = tuple(
        Level(
            shape=x.shape,
            link=x.link,
            largest=tuple(x.largest),
            wraps_from=x.wraps_from,
            wraps_together=x.wraps_together,
            bandwidth=x.bandwidth.read(_BANDWIDTH) if x.bandwidth is not None else None,
        )
        for x in file.level
    )
    return Topology(name, file.does, tuple(file.chips), levels, file.sources)


ALONE = Topology("alone", "one chip", (), (), {})


def joining(chip: Chip, topology: Topology | None, count: int) -> Topology:
    """``topology``, or that in which ``chip`` is sold; one chip needs none. Raises InputError for
    one that joins other chips (a chip of the user's own may be joined in any) or fewer.
    """
    if topology is None and count == 1:
        return ALONE
    found = topology or topology_of(chip)
    if chip.sold_as in names() and chip.sold_as not in found.chips:
        raise InputError(
            f"{found.name} joins {', '.join(found.chips)}: {chip.name} is none of them"
        )
    if count > found.most:
        raise InputError(f"{found.name} joins 1 to {found.most:,} chips, got {count:,}")
    return found


def topology_of(chip: Chip) -> Topology:
    """The topology in which ``chip`` is sold. Raises InputError where none is known."""
    for name in topology_names():
        found = topology_named(name)
        if chip.sold_as in found.chips:
            return found
    raise InputError(
        f"nothing is known of how {chip.name} is joined to others: known are"
        f" {', '.join(topology_names())}"
    )


def bandwidth(level: Level, chip: Chip) -> float:
    """Bytes a second one way out of ``chip`` at ``level``. Raises MissingFigure for a chip whose
    links nobody published.
    """
    if level.bandwidth is not None:
        return level.bandwidth.value
    what = "a collective"
    count, each = (chip.figure(f"links.{n}", what) for n in ("count", "bandwidth_one_way"))
    return count.value * each.value
