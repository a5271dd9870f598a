"""Documents of chips and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.report.documents.part import Interval, Maybe, Part


class FigurePart(Part, frozen=True, kw_only=True):
    """A figure of a chip's file in SI units; ``source`` is a key of the chip's ``sources``."""

    value: float
    interval: Interval
    status: str
    source: str
    note: Maybe[str] = UNSET


class ChipPart(Part, frozen=True, kw_only=True):
    """A chip of `tenfold chips`."""

    name: str
    year: Maybe[int] = UNSET
    organisation: Maybe[str] = UNSET
    kind: str
    peak_flops: Maybe[Mapping[str, float]] = UNSET
    memory_bytes: Maybe[float] = UNSET
    memory_bytes_per_s: Maybe[float] = UNSET
    sram_bytes: Maybe[float] = UNSET
    tdp_w: Maybe[float] = UNSET
    cooling: Maybe[str] = UNSET
    sources: Mapping[str, str]


class ChipDocument(ChipPart, frozen=True, kw_only=True):
    """`tenfold chips NAME`: every figure with its status and source."""

    figures: Mapping[str, FigurePart]


class ChipsDocument(Part, frozen=True, kw_only=True):
    """`tenfold chips`."""

    chips: Sequence[ChipPart]


class ModelPart(Part, frozen=True, kw_only=True):
    """Parameters of a model as counted and as published, FLOPs of one item."""

    name: str
    parameters: int
    active_parameters: Maybe[int] = UNSET
    published_parameters: Maybe[float] = UNSET
    published_active_parameters: Maybe[float] = UNSET
    flops_per_item: int
    family: str
    source: str
    status: str
    note: Maybe[str] = UNSET


class ModelDocument(ModelPart, frozen=True, kw_only=True):
    """`tenfold models NAME`."""


class ModelsDocument(Part, frozen=True, kw_only=True):
    """`tenfold models`."""

    models: Sequence[ModelPart]
