"""Regions: where clouds are and countries, and how much carbon their grids emit."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold import units
from tenfold.errors import DataFileError, InputError, UnitError, UnknownName
from tenfold.facts import FROM_0, SHARE_FROM_0, Status, read_folder
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data"


class _Region(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    location: str
    grid: str
    carbon_free_share: float | None = None
    iso2: str = ""
    year: int | None = None


class _Grid(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    year: int
    source: str
    status: Status
    region: dict[str, _Region]
    cloud: str = ""


class _Place(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    location: str
    grid: str


class _Cloud(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    cloud: str
    source: str
    region: dict[str, _Place]


@dataclass(frozen=True, slots=True)
class Region:
    """A place with its grid's annual mean intensity in kgCO2e a joule; ``source`` names the year.

    ``cloud`` is whose region it is, "" for a country. ``carbon_free_share`` is what the operator
    matches by the hour, where it says so.
    """

    name: str
    location: str
    kgco2e_per_j: float
    carbon_free_share: float | None
    source: str
    year: int
    cloud: str = ""
    iso2: str = ""

    @property
    def shown(self) -> str:
        return f"{self.name} ({', '.join(x for x in (self.cloud, self.location) if x)})"


@lru_cache(maxsize=1)
def regions() -> Mapping[str, Region]:
    """All regions by name, of all files of ``data/grids``, then those of other clouds with the grid
    of the same place. Raises DataFileError for an unknown field or unit, and for a region that two
    files have.
    """
    found: dict[str, Region] = {}
    for path, file in read_folder(DATA / "grids", _Grid):
        for name, r in file.region.items():
            if name in found:
                raise DataFileError(f"{path.name}: region '{name}' is in another file too")
            found[name] = _region(name, r, file, path)
    grids = dict(found)
    for path, cloud in read_folder(DATA / "clouds", _Cloud):
        for name, place in cloud.region.items():
            if name in found:
                raise DataFileError(f"{path.name}: region '{name}' is in another file too")
            if place.grid not in grids:
                known = UnknownName("grid", place.grid, grids)
                raise DataFileError(f"{path.name}: region.{name}: {known}")
            grid = grids[place.grid]
            found[name] = replace(
                grid,
                name=name,
                location=place.location,
                carbon_free_share=None,
                source=f"grid of {grid.shown}, {grid.source}",
                cloud=cloud.cloud,
                iso2="",
            )
    return found


def _region(name: str, r: _Region, file: _Grid, path: Path) -> Region:
    try:
        rate = units.parse(r.grid, Dimension.KGCO2E_PER_J)
    except UnitError as error:
        raise DataFileError(f"{path.name}: region.{name}: {error}") from error
    if fault := FROM_0.fault(rate):
        raise DataFileError(f"{path.name}: region.{name}: grid {fault}, found '{r.grid}'")
    share = r.carbon_free_share
    if share is not None and (fault := SHARE_FROM_0.fault(share)):
        raise DataFileError(
            f"{path.name}: region.{name}: carbon_free_share {fault}, found {share:g}"
        )
    year = r.year or file.year
    return Region(
        name=name,
        location=r.location,
        kgco2e_per_j=rate,
        carbon_free_share=share,
        source=f"{file.source}, {year}",
        year=year,
        cloud=file.cloud,
        iso2=r.iso2,
    )


def region_named(name: str) -> Region:
    """The region called ``name``: a cloud's name for it, or a country by its ISO 3166 code or its
    name.

    Raises UnknownName with the nearest names and whose they are, InputError for a place that
    several regions are in.
    """
    known = regions()
    if name in known:
        return known[name]
    wanted = _plain(name)
    same = [r for r in known.values() if wanted in (_plain(r.name), _plain(r.iso2))]
    if len(same) == 1:
        return same[0]
    there = [r for r in known.values() if _plain(r.location) == wanted]
    countries = [r for r in there if not r.cloud]
    if len(countries) == 1:
        return countries[0]
    if there:
        choice = ", ".join(r.shown for r in there)
        raise InputError(f"'{name}' is where several regions are: name one of {choice}")
    shown = {r.shown: r for r in known.values()}
    near = UnknownName("region", name, known).nearest
    meant = [known[n].shown for n in near] or list(shown)[:3]
    raise UnknownName(
        "region",
        name,
        known,
        f"(regions of Google Cloud, Amazon Web Services, Microsoft Azure, and countries: these are"
        f" {', '.join(meant)})",
    )


def _plain(text: str) -> str:
    """Without accents, case and spaces."""
    flat = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in flat if c.isalnum())
