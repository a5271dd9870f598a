"""Chips: the record and the catalogue of data files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tenfold.chips.constants import (
    Constant,
    GpuConstant,
    HostConstant,
    KernelFamily,
    Predicted,
    SystolicConstant,
    Whole,
)
from tenfold.chips.figures import spec
from tenfold.chips.kinds import Kind, MatrixPrecision, MemoryTechnology, SramRole
from tenfold.chips.library import Library, library_named
from tenfold.chips.library import with_library as _with_library
from tenfold.chips.read import read_chip
from tenfold.chips.record import Change, Chip, Matrix, Sram
from tenfold.chips.what_if import capped, variants, what_if
from tenfold.errors import DataFileError, UnknownName

CATALOGUE = Path(__file__).parent / "catalogue"
HOST = "host"


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Names of all chips in the catalogue, ``host`` (this machine) last."""
    return (*sorted(p.stem for p in CATALOGUE.glob("*.toml")), HOST)


@lru_cache(maxsize=64)
def chip(name: str) -> Chip:
    """The chip called ``name`` in the catalogue, a path to a chip file, or ``host`` for this
    machine, with the constants of the relative that its file names, where it has none of its own.

    Raises UnknownName with the nearest names, DataFileError for a faulty file and for relatives
    that take their constants from each other in a circle.
    """
    chain = [_own(name)]
    asked = [name]
    while relative := chain[-1].calibration_from:
        if relative in asked or relative in (r.name for r in chain):
            circle = " -> ".join((*(r.name for r in chain), relative))
            raise DataFileError(f"{chain[0].name}: calibration_from goes in a circle: {circle}")
        asked.append(relative)
        chain.append(_own(relative))
    record = chain.pop()
    while chain:
        record = chain.pop().with_calibration_of(record)
    return record


def with_library(record: Chip, library: Library) -> Chip:
    """``record`` with the constants of a library of kernels (``chips/library.py``)."""
    return _with_library(record, library, chip)


def _own(name: str) -> Chip:
    """The chip with what its own file says."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UnknownName("chip file", name, names())
        return read_chip(path)
    if name == HOST:
        from tenfold.chips.host import host_chip

        return host_chip()
    if name not in names():
        raise UnknownName("chip", name, names())
    return read_chip(CATALOGUE / f"{name}.toml")


__all__ = [
    "CATALOGUE",
    "Change",
    "Chip",
    "Constant",
    "GpuConstant",
    "HostConstant",
    "KernelFamily",
    "Kind",
    "Library",
    "Matrix",
    "MatrixPrecision",
    "MemoryTechnology",
    "Predicted",
    "Sram",
    "SramRole",
    "SystolicConstant",
    "Whole",
    "capped",
    "chip",
    "library_named",
    "names",
    "read_chip",
    "spec",
    "variants",
    "what_if",
    "with_library",
]
