"""Links between chips, and the library that drives them: facts in ``data/links.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold.errors import DataFileError
from tenfold.facts import ABOVE_0, FROM_0, SHARE, Figure, FigureText, Spec, check_sources, read_file
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data"
PATH = DATA / "links.toml"


class Link(StrEnum):
    """What joins the chips of a level."""

    NVLINK2 = "nvlink2"
    NVLINK3 = "nvlink3"
    NVLINK4 = "nvlink4"
    NVLINK5 = "nvlink5"
    XGMI = "xgmi"
    INFINIBAND = "infiniband"
    PCIE = "pcie"
    ICI = "ici"


class _Link(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    does: str
    like: Link | None = None
    launch: FigureText | None = None
    step: FigureText | None = None
    short_fraction: FigureText | None = None
    long_launch: FigureText | None = None
    long_fraction: FigureText | None = None
    copy: FigureText | None = None
    fill: FigureText | None = None
    fill_bytes: FigureText | None = None
    switch_launch: FigureText | None = None
    switch_fraction: FigureText | None = None
    engine_launch: FigureText | None = None
    engine_long_launch: FigureText | None = None
    engine_fraction: FigureText | None = None
    error: FigureText | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    link: dict[Link, _Link]


_SECONDS, _PART = Spec(Dimension.TIME_S, FROM_0), Spec(Dimension.FRACTION, SHARE)
_SPECS: Mapping[str, Spec] = {
    "launch": _SECONDS,
    "step": _SECONDS,
    "short_fraction": _PART,
    "long_launch": _SECONDS,
    "long_fraction": _PART,
    "copy": Spec(Dimension.BYTES_PER_S, ABOVE_0),
    "fill": _SECONDS,
    "fill_bytes": Spec(Dimension.BYTES, ABOVE_0),
    "switch_launch": _SECONDS,
    "switch_fraction": _PART,
    "engine_launch": _SECONDS,
    "engine_long_launch": _SECONDS,
    "engine_fraction": _PART,
    "error": Spec(Dimension.FRACTION, FROM_0),
}
# what a link has or has not: a relative lends none of it
_ITS_OWN = ("switch_", "engine_")
RELATIVE_ERROR_FACTOR = 2.0  # of a link that was not measured, as of chips


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """``figures`` by name, those of a relative where its own are missing; ``error`` is the factor
    less 1 within which nine of ten times are expected.
    """

    link: Link
    does: str
    figures: Mapping[str, Figure]
    error: float

    def value(self, name: str) -> float:
        """Raises KeyError for what the link does not have."""
        return self.figures[name].value

    def has(self, name: str) -> bool:
        return name in self.figures


@lru_cache(maxsize=1)
def _file() -> _File:
    file = read_file(PATH, _File)
    if missing := [x for x in Link if x not in file.link]:
        raise DataFileError(f"{PATH}: there is no table link.{missing[0]}")
    given = {
        f"link.{n}.{f}": figure.source
        for n, x in file.link.items()
        for f in _SPECS
        if (figure := getattr(x, f)) is not None
    }
    check_sources(PATH, given, file.sources)
    return file


@lru_cache(maxsize=16)
def link_facts(link: Link) -> LinkFacts:
    """Raises DataFileError for a faulty file."""
    own = _file().link[link]
    lent = link_facts(own.like).figures if own.like is not None else {}
    found = {n: f for n, f in lent.items() if not n.startswith(_ITS_OWN)}
    given = {n: getattr(own, n) for n in _SPECS}
    mine = {n: figure.read(_SPECS[n]) for n, figure in given.items() if figure is not None}
    figures = {**found, **mine}
    wider = RELATIVE_ERROR_FACTOR if own.like is not None and "error" not in mine else 1.0
    return LinkFacts(link, own.does, figures, figures["error"].value * wider)
