"""The lessons: claim, published number, ours, error, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold.claims.checks import CHECKS
from tenfold.errors import DataFileError, UnknownName
from tenfold.facts import read_file

DATA = Path(__file__).parent / "table.toml"
NOT_YET = "not yet"


class _Row(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    id: str
    claim: str
    quantity: str
    source: str
    missing: str
    published: float | None = None
    unit: str = ""
    check: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    lesson: list[_Row]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One row. ``ours`` and ``error`` (a fraction of the published number) are None where it is not
    yet computed.
    """

    id: str
    claim: str
    quantity: str
    source: str
    published: float | None
    unit: str
    ours: float | None
    missing: str

    @property
    def error(self) -> float | None:
        if self.ours is None or not self.published:
            return None
        if self.unit.endswith("at least"):
            return max(0.0, 1 - self.ours / self.published)
        return self.ours / self.published - 1

    @property
    def command(self) -> str:
        return f"tenfold lessons {self.id}"


@lru_cache(maxsize=1)
def _rows() -> tuple[_Row, ...]:
    file = read_file(DATA, _File)
    unknown = [r.check for r in file.lesson if r.check and r.check not in CHECKS]
    if unknown:
        raise DataFileError(
            f"{DATA.name}: there is no check '{unknown[0]}': known are {', '.join(CHECKS)}"
        )
    return tuple(file.lesson)


def lessons(which: str | None = None) -> tuple[Lesson, ...]:
    """All rows, or those of one lesson (``8`` gives 8 and 8b), computed now. Raises UnknownName for
    another one.
    """
    rows = [r for r in _rows() if which is None or which == r.id or which == r.id.rstrip("b")]
    if not rows:
        raise UnknownName("lesson", which or "", [r.id for r in _rows()])
    return tuple(
        Lesson(
            id=r.id,
            claim=r.claim,
            quantity=r.quantity,
            source=r.source,
            published=r.published,
            unit=r.unit,
            ours=CHECKS[r.check]() if r.check else None,
            missing=r.missing,
        )
        for r in rows
    )


def markdown(rows: Sequence[Lesson]) -> str:
    """The page docs/lessons.md, written by ``tenfold lessons --write``."""
    lines = [
        "# The lessons, and what proves them",
        "",
        (
            "Written by `tenfold lessons --write docs/lessons.md`; a test keeps it current. Ours is"
            " computed by the installed"
        ),
        "product each time; a row without a number is not yet built.",
        "",
        "| lesson | claim | published | ours | error | repeat | still missing |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        published = f"{r.published:g} {r.unit}: {r.quantity}" if r.published is not None else "-"
        ours = f"{r.ours:.4g}" if r.ours is not None else NOT_YET
        error = f"{r.error:+.1%}" if r.error is not None else "-"
        lines.append(
            f"| {r.id} | {r.claim} ({r.source}) | {published} | {ours} | {error} | `{r.command}` |"
            f" {r.missing or '-'} |"
        )
    return "\n".join(lines) + "\n"
