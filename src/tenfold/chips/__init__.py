"""Chips: the record and the catalogue of data files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tenfold.chips.record import Chip, Matrix, MatrixPrecision, Quantity, Sram, read_chip
from tenfold.chips.what_if import what_if
from tenfold.errors import UnknownName

CATALOGUE = Path(__file__).parent / "catalogue"


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Names of all chips in the catalogue, ``host`` (this machine) last."""
    return (*sorted(p.stem for p in CATALOGUE.glob("*.toml")), "host")


@lru_cache(maxsize=64)
def chip(name: str) -> Chip:
    """The chip called ``name`` in the catalogue, a path to a chip file, or ``host`` for this
    machine.

    Raises UnknownName with the nearest names, DataFileError for a faulty file.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UnknownName("chip file", name, names())
        return _calibrated(read_chip(path))
    if name == "host":
        from tenfold.chips.host import host_chip

        return _calibrated(host_chip())
    path = CATALOGUE / f"{name}.toml"
    if name not in names():
        raise UnknownName("chip", name, names())
    return _calibrated(read_chip(path))


def _calibrated(record: Chip) -> Chip:
    """The chip with the constants of the relative that its file names, where it has none of its
    own.
    """
    return (
        record.with_calibration_of(chip(record.calibration_from))
        if record.calibration_from
        else record
    )


__all__ = [
    "CATALOGUE",
    "Chip",
    "Matrix",
    "MatrixPrecision",
    "Quantity",
    "Sram",
    "chip",
    "names",
    "read_chip",
    "what_if",
]
