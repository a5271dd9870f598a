"""Facts: figures with unit, status and source; one reader for data files; entries that sum.

Every number that Tenfold did not compute comes from a data file, as ``{ value = "175 W", status =
"verified", source = "key" }``. It is parsed once into a ``Figure`` in SI, checked against the range
that it can have. Whatever has a total is an ``Account``: a list of entries that can be shown, and
the total is their sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from tenfold import units
from tenfold.errors import DataFileError, UnitError
from tenfold.estimate import Estimate
from tenfold.files import BOM, check_printable
from tenfold.units import Dimension

LARGEST_FILE = 1 << 24  # bytes; the largest that ships has a few thousand lines


class Status(StrEnum):
    """How well a figure is known."""

    VERIFIED = "verified"  # read in a copy of the source
    SECOND_HAND = "second-hand"  # read in another publication that cites it
    RECALLED = "recalled"  # from memory of the source
    DERIVED = "derived"  # computed from other figures
    ASSUMED = "assumed"
    FITTED = "fitted"  # to measurements


@dataclass(frozen=True, slots=True)
class Range:
    """What a figure can be: from ``low`` (above it, where ``open_low``) to ``high``; perhaps
    whole.
    """

    low: float
    high: float
    open_low: bool = False
    whole: bool = False

    def fault(self, value: float) -> str:
        """What ``value`` must be and is not, or ""."""
        if not math.isfinite(value):
            return "must be finite"
        if value < self.low or (self.open_low and value == self.low):
            return f"must be {'above' if self.open_low else 'at least'} {self.low:g}"
        if value > self.high:
            return f"must be at most {self.high:g}"
        return "must be a whole number" if self.whole and value != round(value) else ""


FURTHEST = 1e30  # beyond any figure in SI
ABOVE_0 = Range(0.0, FURTHEST, open_low=True)
FROM_0 = Range(0.0, FURTHEST)
SHARE = Range(0.0, 1.0, open_low=True)
SHARE_FROM_0 = Range(0.0, 1.0)
WHOLE = Range(1.0, 1e15, whole=True)


@dataclass(frozen=True, slots=True)
class Spec:
    """What a figure is: its dimension and what it can be."""

    dimension: Dimension
    range: Range = ABOVE_0


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in SI with where it comes from; ``low`` and ``high`` where sources disagree."""

    value: float
    low: float
    high: float
    status: Status
    source: str
    note: str = ""

    @staticmethod
    def exact(value: float, status: Status, source: str, note: str = "") -> Figure:
        return Figure(value, value, value, status, source, note)

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.low, self.high)


class FigureText(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A figure as a data file has it: numbers are text with their unit."""

    value: str
    status: Status
    source: str
    low: str = ""
    high: str = ""
    note: str = ""

    def read(self, spec: Spec) -> Figure:
        """The figure in SI. Raises UnitError for a wrong unit, a value outside the range, or an
        interval that does not hold the value.
        """
        value = units.parse(self.value, spec.dimension)
        low = units.parse(self.low, spec.dimension) if self.low else value
        high = units.parse(self.high, spec.dimension) if self.high else value
        for number, text in ((value, self.value), (low, self.low), (high, self.high)):
            if fault := spec.range.fault(number):
                raise UnitError(f"{fault}, found '{text or self.value}'")
        if not low <= value <= high:
            raise UnitError(
                "needs low <= value <= high, got"
                f" {self.low or self.value}, {self.value}, {self.high or self.value}"
            )
        return Figure(value, low, high, self.status, self.source, self.note)


def check_sources(file: Path, given: Mapping[str, str], sources: Container[str]) -> None:
    """Raises DataFileError for a source, by what it is given for, that ``file`` does not spell
    out.
    """
    for name, source in given.items():
        if source not in sources:
            raise DataFileError(f"{file.name}: {name}: source '{source}' is not in [sources]")


T = TypeVar("T")


def read_file(path: Path, kind: type[T]) -> T:
    """The TOML file at ``path`` as a struct. Raises DataFileError, which names the file, for
    anything that it is not: unknown fields, wrong types, a value of a closed set misspelt.
    """
    return decode(path, lambda raw: _decoded(raw, kind))


def _decoded(raw: bytes, kind: type[T]) -> T:
    try:
        if b"\\" in raw:  # only an escape brings control characters into TOML
            check_printable(msgspec.toml.decode(raw))
        return msgspec.toml.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(explained(error, kind)) from error


def convert(given: object, kind: type[T]) -> T:
    """Plain data as ``kind``. Raises ValueError with what is allowed."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ValueError(explained(error, kind)) from error


_PLACE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.(\w+)|\[")


def explained(error: msgspec.ValidationError, kind: Any) -> str:
    """The fault in words, with what is allowed where a field or a value of a closed set is not
    known; ``kind`` is what the whole should have been.
    """
    text = str(error)
    found = _PLACE.search(text)
    place = _at(kind, found.group(1) if found else "")
    if "unknown field" in text and isinstance(place, type) and issubclass(place, msgspec.Struct):
        return f"{text}: it may have {', '.join(place.__struct_fields__)}"
    if "enum value" in text and isinstance(place, type) and issubclass(place, Enum):
        return f"{text}: allowed are {', '.join(str(x.value) for x in place)}"
    return text


def _at(kind: Any, path: str) -> Any:
    """The type at a path such as ``.rent[0].status``."""
    for step in _STEP.finditer(path):
        if step.group(1):
            kind = get_type_hints(kind).get(step.group(1))
        else:
            kind = get_args(kind)[-1] if get_args(kind) else None
        if type(None) in get_args(kind):
            kind = next(a for a in get_args(kind) if a is not type(None))
    return kind


def read_folder(folder: Path, kind: type[T]) -> Iterator[tuple[Path, T]]:
    """Every TOML file of a folder, in the order of their names, as a struct: a source more is a
    file more.
    """
    for path in sorted(folder.glob("*.toml")):
        yield path, read_file(path, kind)


def read_table(path: Path) -> dict[str, object]:
    """The TOML file at ``path`` as it is. Raises DataFileError for what is no TOML."""
    return decode(path, lambda raw: _decoded(raw, dict[str, object]))


def decode(path: Path, reader: Callable[[bytes], T]) -> T:
    """What ``reader`` makes of the file; every fault is a DataFileError of one form."""
    try:
        if not path.is_file():
            raise DataFileError(f"{path.name}: there is no such file")
        if path.stat().st_size > LARGEST_FILE:
            raise DataFileError(f"{path.name}: has more than {LARGEST_FILE:,} bytes")
        return reader(path.read_bytes().removeprefix(BOM))
    except OSError as error:
        raise DataFileError(f"{path.name}: {error.strerror or 'cannot be read'}") from error
    except RecursionError as error:
        raise DataFileError(f"{path.name}: is nested too deep to be read") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataFileError(f"{path.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account: what it is for, and how much, in the unit of the account."""

    what: str
    amount: Estimate


@dataclass(frozen=True, slots=True)
class Account:
    """Entries that sum. The total is of whatever entries there are: nothing is listed and left
    out.
    """

    entries: tuple[Entry, ...] = ()

    @property
    def total(self) -> Estimate:
        return Estimate.total(e.amount for e in self.entries)

    def times(self, factor: Estimate | float) -> Account:
        return Account(tuple(Entry(e.what, e.amount * factor) for e in self.entries))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __add__(self, other: Account) -> Account:
        return Account.sum((self, other))

    @staticmethod
    def sum(accounts: Iterable[Account]) -> Account:
        """Entries of the same name added, in the order in which names first appear."""
        found: dict[str, Estimate] = {}
        for account in accounts:
            for e in account.entries:
                found[e.what] = found[e.what] + e.amount if e.what in found else e.amount
        return Account(tuple(Entry(what, amount) for what, amount in found.items()))
