"""How requests arrive, as scenario files say it: each kind has its own fields, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from tenfold import units
from tenfold.errors import InputError, UnknownName
from tenfold.facts import convert
from tenfold.files import read_text
from tenfold.serving import Diurnal, Gamma, OnOff, Poisson, ServerSchedule, Trace, read_trace
from tenfold.serving.arrivals import Arrivals
from tenfold.units import Dimension


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each with one request under way, that think between."""

    clients: int
    think_s: float


Arriving: TypeAlias = Arrivals | Closed


class _Text(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The fields of one kind, units not yet read."""

    def read(self, folder: Path) -> Arriving:
        """Raises InputError for what cannot be; files are looked for in ``folder``."""
        raise NotImplementedError


class _Poisson(_Text, frozen=True):
    rate: str

    def read(self, folder: Path) -> Arriving:
        return Poisson(_rate(self.rate))


class _Gamma(_Text, frozen=True):
    rate: str
    cv: float = 1.0

    def read(self, folder: Path) -> Arriving:
        return Gamma(_rate(self.rate), self.cv)


class _OnOff(_Text, frozen=True):
    rate: str
    on: str
    off: str
    off_rate: str = "0 /s"

    def read(self, folder: Path) -> Arriving:
        return OnOff(_rate(self.rate), _rate(self.off_rate), _time(self.on), _time(self.off))


class _Diurnal(_Text, frozen=True):
    rate: str
    swing: float = 0.6
    period: str = "24 h"

    def read(self, folder: Path) -> Arriving:
        return Diurnal(_rate(self.rate), self.swing, _time(self.period))


class _Trace(_Text, frozen=True):
    file: str

    def read(self, folder: Path) -> Arriving:
        return _trace(folder / self.file)


class _LoadGen(_Text, frozen=True):
    rate: str
    seed: int = 0

    def read(self, folder: Path) -> Arriving:
        return ServerSchedule(_rate(self.rate), self.seed)


class _Closed(_Text, frozen=True):
    clients: int
    think: str = "0 s"

    def read(self, folder: Path) -> Arriving:
        if self.clients < 1:
            raise InputError(f"a closed loop needs at least one of clients, got {self.clients}")
        return Closed(self.clients, _time(self.think))


KINDS: Mapping[str, type[_Text]] = {
    "poisson": _Poisson,
    "gamma": _Gamma,
    "on-off": _OnOff,
    "diurnal": _Diurnal,
    "trace": _Trace,
    "loadgen-server": _LoadGen,
    "closed": _Closed,
}


def read_arrivals(given: Mapping[str, Any], folder: Path) -> Arriving:
    """Arrivals by their ``kind``. Raises InputError naming what is missing, unknown or wrong."""
    kind = str(given.get("kind", ""))
    if kind not in KINDS:
        raise UnknownName("kind of arrivals", kind, KINDS)
    fields = {name: value for name, value in given.items() if name != "kind"}
    try:
        text = convert(fields, KINDS[kind])
    except ValueError as error:
        has = ", ".join(KINDS[kind].__struct_fields__)
        allowed = "" if "it may have" in str(error) else f"; they have {has}"
        raise InputError(f"arrivals of kind {kind}: {error}{allowed}") from error
    return text.read(folder)


def _rate(text: str) -> float:
    return units.parse(text, Dimension.RATE_PER_S)


def _time(text: str) -> float:
    return units.parse(text, Dimension.TIME_S)


def _trace(path: Path) -> Trace:
    return read_trace(read_text(path))
