"""Patterns over the ops that make a value: how composites are recognised however they were
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tenfold.compiler.passes.sweep import Sweep
from tenfold.ir import TABLE

_COMMUTES = frozenset({"add", "mul", "max", "min"})


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value, remembered under ``name``; met again under the same name it must be the same
    value.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A constant of one element: near ``value``, or any number remembered under ``name``."""

    value: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Of:
    """An op of one of ``kinds`` over operands that match; add and mul also match the other way
    round.
    """

    kinds: tuple[str, ...]
    operands: tuple[Pattern, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Either:
    """The first of several patterns that matches."""

    patterns: tuple[Pattern, ...]


Pattern: TypeAlias = "Anything | Number | Of | Either"
Found: TypeAlias = "dict[str, str]"

TOLERANCE = 1e-4  # relative: constants in files are fp32 or fp16


def of(kinds: str, *operands: Pattern, name: str = "") -> Of:
    """``of("mul|div", a, b)``. Raises ValueError for a kind that the op table has not."""
    named = tuple(kinds.split("|"))
    if unknown := [k for k in named if k not in TABLE]:
        raise ValueError(f"no such kind of op: {', '.join(unknown)}")
    return Of(named, operands, name)


def matches(sweep: Sweep, pattern: Pattern, value: str, found: Found) -> Iterator[Found]:
    """Every way in which the ops that make ``value`` match, as the values found by name."""
    if isinstance(pattern, Anything):
        if found.get(pattern.name, value) == value:
            yield {**found, pattern.name: value}
    elif isinstance(pattern, Number):
        number = sweep.scalar(value)
        if number is not None and (
            pattern.value is None
            or abs(number - pattern.value) <= TOLERANCE * max(abs(pattern.value), 1e-6)
        ):
            yield {**found, pattern.name: value} if pattern.name else found
    elif isinstance(pattern, Either):
        for p in pattern.patterns:
            yield from matches(sweep, p, value, found)
    else:
        yield from _matches_op(sweep, pattern, value, found)


def _matches_op(sweep: Sweep, pattern: Of, value: str, found: Found) -> Iterator[Found]:
    op = sweep.producer.get(value)
    if (
        op is None
        or op.kind not in pattern.kinds
        or op.outputs[0] != value
        or len(op.inputs) < len(pattern.operands)
    ):
        return
    if pattern.name:
        found = {**found, pattern.name: value}
    orders = [op.inputs[: len(pattern.operands)]]
    if op.kind in _COMMUTES and len(pattern.operands) == 2:
        orders.append((op.inputs[1], op.inputs[0]))
    for operands in orders:
        partial = [found]
        for p, operand in zip(pattern.operands, operands, strict=True):
            partial = [m for f in partial for m in matches(sweep, p, operand, f)] if operand else []
        yield from partial
