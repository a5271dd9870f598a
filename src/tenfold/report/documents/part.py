"""What the documents of ``--json`` are made of.

Times are in seconds, energy in joules, sizes in bytes, shares from 0 to 1; ``interval_X`` is the
interval of X, from low to high. A key is absent until its value is real."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from msgspec import UNSET, Struct, UnsetType

T = TypeVar("T")
Maybe: TypeAlias = T | UnsetType
Interval: TypeAlias = tuple[float, float]


def some(value: T | None) -> T | UnsetType:
    """``value``, or no key where there is none."""
    return UNSET if value is None else value


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record of a document; those in ``VERBS`` are whole ones."""
