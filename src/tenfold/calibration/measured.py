"""Measured times: rows of a CSV, checked at the border so that nothing is fitted to a faulty
file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenfold import units
from tenfold.errors import InputError, UnitError, UnknownName
from tenfold.evaluate.operators import COLUMNS, CONV, DTYPES, POINTWISE, OperatorCall
from tenfold.evaluate.predicting import (
    LONGEST_NUMBER,
    check_unread,
    each,
    request_of,
    rows_of,
    warm_of,
)
from tenfold.machine import Stack, stack_named
from tenfold.units import Dimension

TIME_COLUMNS: Mapping[str, float] = {"time_s": 1.0, "time_ms": 1e-3, "time_us": 1e-6}
FORWARD = "forward"  # a whole model
FORWARD_COLUMNS = ("model", "batch", "seq", "stack")
ENOUGH_TO_HOLD_OUT = 6
LONGEST_SOURCE = 100
DEFAULT_SOURCE = "measured"


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass of a whole model, as ``stack`` runs it where that differs."""

    model: str
    batch: int
    seq: int | None
    dtype: str = "bf16"
    stack: Stack = Stack.ENGINE


@dataclass(frozen=True, slots=True)
class Measured:
    """What was run, how long it took, who measured it, and the group with which it is fitted on or
    held out.

    ``power_w`` is the mean power while it ran in a loop, where that was measured.
    """

    what: OperatorCall | Forward
    time_s: float
    source: str
    group: str
    power_w: float | None = None


MOST_ROWS = 50_000


def read_measured(text: str) -> list[Measured]:
    """The rows of a CSV with the columns of ``tenfold predict`` and a time.

    The time is in one of ``time_s``, ``time_ms``, ``time_us``, or in ``time`` with a unit. Optional
    columns: ``source`` says who measured, ``power_w`` the mean power while the row ran in a loop,
    ``warm`` whether operands were in a GPU's L2 from the call before (yes or no), ``stack`` what
    ran a whole model, ``kernels`` whose an operator's are (engine, as ``predict`` has them, or
    framework). Lines at the head that start with # are comments.

    Raises InputError with line and column for whatever is missing, unknown, not positive, or in
    mixed units.
    """
    reader = rows_of(text)
    names = list(reader.fieldnames or ())
    for needed in ("op", "dtype"):
        if needed not in names:
            raise InputError(
                f"line 1: there is no column '{needed}': needed are op, dtype, the extents and a"
                " time"
            )
    timed = [n for n in names if n in TIME_COLUMNS or n == "time"]
    if len(timed) != 1:
        found = (
            f"found {', '.join(timed)} (mixed units)"
            if timed
            else f"found none among {', '.join(names)}"
        )
        raise InputError(
            f"line 1: needs exactly one column of time - {', '.join(TIME_COLUMNS)}, or time with a"
            f" unit in each row - {found}"
        )
    rows: list[Measured] = []
    seen_unit = ""
    for row in each(reader):
        line = reader.line_num
        if None in row or any(v is None for v in row.values()):
            raise InputError(
                f"line {line} has {'more' if None in row else 'fewer'} fields than the first line"
                " names"
            )
        seconds, unit = _time(line, timed[0], row[timed[0]].strip())
        if seen_unit and unit != seen_unit:
            raise InputError(
                f"line {line}, column 'time': found the unit '{unit}' after '{seen_unit}': one unit"
                " for all rows"
            )
        seen_unit = unit
        if len(rows) == MOST_ROWS:
            raise InputError(
                f"line {line}: more than {MOST_ROWS:,} rows are not fitted: constants are few, and"
                " a sample of them serves"
            )
        rows.append(_row(line, row, seconds))
    if not rows:
        raise InputError("the file has no rows after its first line")
    return rows


def _time(line: int, column: str, text: str) -> tuple[float, str]:
    """Seconds, and the unit they were given in."""
    if column == "time":
        try:
            seconds, unit = (
                units.parse(text, Dimension.TIME_S),
                text.lstrip("+-0123456789.eE ").strip(),
            )
        except UnitError as error:
            raise InputError(f"line {line}, column 'time': {error}") from error
    else:
        try:
            seconds, unit = float(text) * TIME_COLUMNS[column], column
        except ValueError:
            raise InputError(
                f"line {line}, column '{column}': needs a number above 0, found '{text}'"
            ) from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"line {line}, column '{column}': a time must be above 0, found '{text}'")
    return seconds, unit


def _row(line: int, row: Mapping[str, str], seconds: float) -> Measured:
    source = (row.get("source") or "").strip() or DEFAULT_SOURCE
    if not source.isprintable() or len(source) > LONGEST_SOURCE:
        raise InputError(
            f"line {line}, column 'source': needs a name of at most {LONGEST_SOURCE} printable"
            " characters"
        )
    op = row["op"].strip()
    if op == FORWARD:
        dtype = row["dtype"].strip()
        if dtype not in DTYPES:
            raise InputError(
                f"line {line}, column 'dtype': unknown dtype '{dtype}': known are"
                f" {', '.join(DTYPES)}"
            )
        check_unread(line, FORWARD, row, FORWARD_COLUMNS)
        for name in ("warm", "power_w", "kernels"):
            if text := (row.get(name) or "").strip():
                raise InputError(
                    f"line {line}, column '{name}': {FORWARD} does not use it, found '{text[:20]}'"
                )
        what = Forward(
            model=_text(line, row, "model"),
            batch=_whole(line, row, "batch"),
            seq=_whole(line, row, "seq") if (row.get("seq") or "").strip() else None,
            dtype=dtype,
            stack=_stack(line, (row.get("stack") or "").strip()),
        )
        return Measured(what, seconds, source, f"{FORWARD} {what.model}")
    if op not in COLUMNS:
        raise InputError(
            f"line {line}, column 'op': unknown operator '{op}': known are"
            f" {', '.join((*COLUMNS, FORWARD))}"
        )
    for name in FORWARD_COLUMNS:
        if name not in COLUMNS[op] and (text := (row.get(name) or "").strip()):
            raise InputError(
                f"line {line}, column '{name}': {op} does not use it, found '{text[:20]}' (rows of"
                f" {FORWARD} do)"
            )
    engine = _of_engine(line, (row.get("kernels") or "").strip())
    request = replace(request_of(line, row), warm=warm_of(line, row), engine=engine)
    return Measured(
        request,
        seconds,
        source,
        group_of(request),
        _power(line, (row.get("power_w") or "").strip()),
    )


KERNELS = {"": True, "engine": True, "framework": False}


def _of_engine(line: int, text: str) -> bool:
    """Whether a serving engine's kernels were measured, which ``predict`` means too."""
    if text not in KERNELS:
        raise InputError(
            f"line {line}, column 'kernels': found '{text[:20]}', allowed are engine and framework"
        )
    return KERNELS[text]


def _stack(line: int, text: str) -> Stack:
    try:
        return stack_named(text) if text else Stack.ENGINE
    except UnknownName as error:
        raise InputError(f"line {line}, column 'stack': {error}") from error


def _power(line: int, text: str) -> float | None:
    if not text:
        return None
    try:
        power = float(text)
    except ValueError:
        power = math.nan
    if not (math.isfinite(power) and power > 0):
        raise InputError(
            f"line {line}, column 'power_w': needs a number of watts above 0, found '{text}'"
        )
    return power


def _text(line: int, row: Mapping[str, str], column: str) -> str:
    text = (row.get(column) or "").strip()
    if not text:
        raise InputError(f"line {line}, column '{column}': {FORWARD} needs it")
    return text


def _whole(line: int, row: Mapping[str, str], column: str) -> int:
    text = _text(line, row, column)
    if not (
        text.isdecimal()
        and text.isascii()
        and len(text) <= LONGEST_NUMBER
        and 0 < int(text) <= 2**30
    ):
        raise InputError(
            f"line {line}, column '{column}': {FORWARD} needs a whole number from 1 to 2**30, found"
            f" '{text[:20]}'"
        )
    return int(text)


_GROUPS: Mapping[str, tuple[str, ...]] = {
    "matmul": ("n", "k"),
    "batched_matmul": ("n", "k"),
    "attention_prefill": ("heads", "kv_heads"),
    "attention_decode": ("heads", "kv_heads"),
    "moe": ("hidden", "inter", "experts"),
    CONV: ("channels", "filters", "kernel"),
    "softmax": ("rows", "cols"),
    "layernorm": ("rows", "cols"),
    **dict.fromkeys(POINTWISE, ("rows", "cols")),
}


def group_of(r: OperatorCall) -> str:
    """Rows of one group are fitted on or held out together: neighbours of a row must not be fitted
    on when it is scored.
    """
    return " ".join((r.op, r.dtype, *(str(r.extents[n]) for n in _GROUPS[r.op])))


def split(rows: Sequence[Measured], every: int = 3) -> tuple[list[Measured], list[Measured]]:
    """Rows to fit on, and every ``every``-th group of each operator, in the order of its name's
    digest, to score.

    An operator of few rows keeps them all to fit on.
    """
    groups: dict[str, set[str]] = {}
    for m in rows:
        groups.setdefault(m.group.split()[0], set()).add(m.group)
    enough = {
        op for op in groups if sum(m.group.split()[0] == op for m in rows) >= ENOUGH_TO_HOLD_OUT
    }
    held = {
        g
        for op, names in groups.items()
        for g in sorted(names, key=_digest)[::every]
        if len(names) > 1 and op in enough
    }
    return [m for m in rows if m.group not in held], [m for m in rows if m.group in held]


def _digest(name: str) -> Any:
    import hashlib

    return hashlib.sha256(name.encode()).digest()
