"""How a network is laid out over chips: ``tp=8,pp=2``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from tenfold.errors import InputError, UnknownName


class Side(StrEnum):
    """Along what chips lie beside each other."""

    TENSOR = "tp"  # parts of every layer
    PIPELINE = "pp"  # layers, stage after stage
    DATA = "dp"  # items of a batch
    EXPERT = "ep"  # experts, among copies
    CONTEXT = "cp"  # stretches of each sequence


@dataclass(frozen=True, slots=True)
class Layout:
    """``tensor`` chips share every layer, ``pipeline`` such groups follow each other, and ``data``
    copies of it all take parts of a batch. ``context`` chips have a stretch of each sequence. Of
    those that hold the same weights ``experts`` each, beside each other, share
    the experts of the network; the others hold them again.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    experts: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        if self.holders % self.experts:
            raise InputError(
                f"{Side.EXPERT}={self.experts}: experts lie apart on chips that hold the same"
                f" weights otherwise ({Side.DATA} x {Side.CONTEXT} = {self.holders}): give a"
                f" divisor of that, as in {Side.DATA}=8,{Side.EXPERT}=8"
            )

    @property
    def holders(self) -> int:
        """Chips that hold the same weights: of copies, and of stretches of sequences."""
        return self.data * self.context

    @property
    def chips(self) -> int:
        return self.tensor * self.pipeline * self.holders

    @property
    def ways(self) -> Mapping[Side, int]:
        return {
            Side.TENSOR: self.tensor,
            Side.PIPELINE: self.pipeline,
            Side.DATA: self.data,
            Side.EXPERT: self.experts,
            Side.CONTEXT: self.context,
        }

    def __str__(self) -> str:
        return ",".join(f"{side}={n}" for side, n in self.ways.items() if n > 1) or "tp=1"


def layout_named(text: str) -> Layout:
    """``text`` as a layout. Raises InputError for what is none."""
    found: dict[Side, int] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if not equals or not number.isascii() or not number.isdigit() or int(number) < 1:
            raise InputError(
                f"layout '{text}': found '{part.strip()}', a layout is like tp=8 or tp=4,pp=2, with"
                f" whole numbers from 1 for {', '.join(Side)}"
            )
        try:
            side = Side(name)
        except ValueError:
            raise UnknownName("side of a layout", name, list(Side)) from None
        if side in found:
            raise InputError(f"layout '{text}': {side} is given twice")
        found[side] = int(number)
    names = {s: f.name for s, f in zip(Side, fields(Layout), strict=True)}
    return Layout(**{names[s]: n for s, n in found.items()})


def layout_of(count: int | None, text: str | None) -> Layout:
    """The layout that ``count`` chips and ``text`` ask for, of which either may be missing: chips
    alone share every layer. Raises InputError where they contradict each other.
    """
    if count is not None and count < 1:
        raise InputError(f"the count of chips must be at least 1, got {count}")
    layout = layout_named(text) if text is not None else Layout(tensor=count or 1)
    if count is not None and layout.chips != count:
        raise InputError(
            f"layout {layout} takes {layout.chips} chips, and the count is {count}: leave one of"
            " them out, or make them agree"
        )
    return layout
