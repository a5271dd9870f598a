"""The document of `tenfold train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.report.documents.part import Interval, Maybe, Part


class LayoutPart(Part, frozen=True, kw_only=True):
    """How a step is laid out: sides of the layout, sequences of a microbatch, stages a chip, what
    is computed again, what copies hold a share of, how many times the mean the busiest chip of
    experts gets, whether sums are cut along sequences, attention is one kernel, and blocks drop
    out.
    """

    sides: Mapping[str, int]
    micro_batch: int
    interleave: int
    recompute: str
    sequence_parallel: bool
    shard: str
    skew: float
    flash_attention: bool
    dropout: bool


class TriedPart(Part, frozen=True, kw_only=True):
    """A layout that was priced: its step and bytes on the fullest chip, and why it cannot be.
    ``pareto``: it fits, and no other is both quicker and smaller.
    """

    layout: LayoutPart
    step_s: Maybe[float] = UNSET
    memory_bytes: Maybe[float] = UNSET
    step_entries_s: Maybe[Mapping[str, float]] = UNSET
    pareto: bool = False
    why_not: Maybe[str] = UNSET


class TrainDocument(Part, frozen=True, kw_only=True):
    """`tenfold train`: a step, and the run of ``tokens`` or ``items`` that it makes;
    ``step_entries_s`` sum to ``step_s``, and ``memory_entries_bytes`` to ``memory_bytes`` of the
    fullest chip. Energy is at the chips. Days, hours and energy are without interruptions, of which
    ``goodput`` is the share of the time that they leave. ``tried`` are the layouts that were priced
    from single blocks, the quickest first.
    """

    model: str
    chip: str
    count: int
    cluster: str
    dtype: str
    stack: str
    parameters: int
    tokens: Maybe[float] = UNSET
    items: Maybe[float] = UNSET
    batch: int
    seq: Maybe[int] = UNSET
    layout: LayoutPart
    step_s: float
    interval_step_s: Interval
    interval_status: str
    step_entries_s: Mapping[str, float]
    tokens_per_s: Maybe[float] = UNSET
    items_per_s: float
    flops_per_step: float
    mfu: float
    memory_bytes: float
    memory_entries_bytes: Mapping[str, float]
    steps: float
    days: float
    interval_days: Interval
    goodput: float
    interval_goodput: Interval
    days_with_interruptions: float
    interval_days_with_interruptions: Interval
    chip_hours: float
    interval_chip_hours: Interval
    energy_kwh: float
    interval_energy_kwh: Interval
    assumed: Sequence[str]
    tried: Maybe[Sequence[TriedPart]] = UNSET
