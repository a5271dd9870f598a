"""What a comparison gives: rows, and a summary of each area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from tenfold.facts import read_file


@dataclass(frozen=True, slots=True)
class Row:
    """One prediction beside what it is compared with, in one unit; ``inside`` says whether it lies
    in the predicted interval.

    ``seen`` marks rows that constants were fitted to.
    """

    area: str
    case: str
    predicted: float
    reference: float
    unit: str
    source: str
    inside: bool | None = None
    seen: bool = False

    @property
    def error(self) -> float:
        """As a fraction of the reference; where both are fractions, their difference."""
        if self.unit == "points":
            return self.predicted - self.reference
        return (
            self.predicted / self.reference - 1
            if self.reference
            else float(self.predicted != self.reference)
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """Absolute errors of the rows of one area that nothing was fitted to: how many, mean, median,
    nine of ten, the worst and where.
    """

    area: str
    n: int
    mape: float
    median: float
    p90: float
    worst: float
    worst_case: str
    bias: float
    inside: float | None
    seen: bool

    @staticmethod
    def of(rows: Sequence[Row]) -> Summary:
        errors = np.array([r.error for r in rows])
        size = np.abs(errors)
        known = [r.inside for r in rows if r.inside is not None]
        worst = int(np.argmax(size))
        return Summary(
            area=rows[0].area,
            n=len(rows),
            mape=float(size.mean()),
            median=float(np.median(size)),
            p90=float(np.quantile(size, 0.9)),
            worst=float(errors[worst]),
            worst_case=rows[worst].case,
            bias=float(errors.mean()),
            inside=sum(known) / len(known) if known else None,
            seen=all(r.seen for r in rows),
        )


def summaries(rows: Sequence[Row]) -> dict[str, Summary]:
    """By area, in the order in which they come; an area of rows all seen in fitting says so."""
    areas: dict[str, list[Row]] = {}
    for r in rows:
        areas.setdefault(r.area, []).append(r)
    return {name: Summary.of([r for r in own if not r.seen] or own) for name, own in areas.items()}


class Bar(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What one area is held to in the mean, and in its worst case where that is bounded too; why it
    is missed or weak.
    """

    area: str
    mean: float
    worst: float | None = None
    note: str = ""

    def met(self, s: Summary) -> bool:
        return s.mape <= self.mean + 1e-12 and (self.worst is None or abs(s.worst) <= self.worst)


class _Bars(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    bar: list[Bar]


@lru_cache(maxsize=1)
def bars() -> Mapping[str, Bar]:
    """The aims by area. Raises DataFileError for a faulty file."""
    path = Path(__file__).parent / "data" / "bars.toml"
    return {b.area: b for b in read_file(path, _Bars).bar}
