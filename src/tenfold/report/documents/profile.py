"""Documents of runs and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from tenfold.report.documents.part import Interval, Maybe, Part


class KernelPart(Part, frozen=True, kw_only=True):
    """One kernel of a run, ``repeat`` times. Of its ``bytes`` the weights, inputs and outputs are
    from and to memory off the chip, the prefetched ones read there for later kernels, and the
    others at the level that the key names. ``clock`` is the share of the chip's own clock that its
    power limit lets the kernel hold.
    """

    name: str
    ops: Sequence[str]
    time_s: float
    repeat: int
    bound: str
    clock: float
    flops: float
    bytes: Mapping[str, float]


class CountersPart(Part, frozen=True, kw_only=True):
    """Cycles by what the matrix unit did, and multiply-adds."""

    cycles: float
    active: float
    weight_stall: float
    weight_shift: float
    memory_stall: float
    vector: float
    idle: float
    macs_useful: float
    macs_wasted: float


class PricePart(Part, frozen=True, kw_only=True):
    """A list price."""

    usd_per_hour: float
    provider: str
    date: str


class RelaxedPart(Part, frozen=True, kw_only=True):
    """The share of the time that goes if ``unit`` took none."""

    unit: str
    gain: float


class AdvicePart(Part, frozen=True, kw_only=True):
    """What to do, the share of an item's time that it saves, and what else it does."""

    do: str
    gain_per_item: float
    mind: Maybe[str] = UNSET


class ChangePart(Part, frozen=True, kw_only=True):
    """A figure that was set by hand, in SI."""

    before: float
    after: float


class StagePart(Part, frozen=True, kw_only=True):
    """A stage of a layout: seconds of one pass and until the next stage has its results, and what
    each of its chips holds.
    """

    time_s: float
    handed_s: float
    memory_bytes: float


class ChipsTogetherPart(Part, frozen=True, kw_only=True):
    """Several chips that run the model: a pass can start ``every_s``, ``links_s`` of its time are
    spent waiting for links, ``repeated_flops`` are those that more than one chip does.
    """

    count: int
    layout: Mapping[str, int]
    cluster: str
    every_s: float
    interval_every_s: Interval
    links_s: float
    repeated_flops: float
    stages: Sequence[StagePart]


class RunPart(Part, frozen=True, kw_only=True):
    """A model on a chip at a batch; times and energy of one pass over ``batch`` items. Bytes are
    keyed by level of memory: ``LEVEL_read``, ``LEVEL_write`` and, of both, ``LEVEL``. Of a
    ``group`` of chips, time, energy, power and arithmetic are of all, ``memory_bytes`` of the one
    that holds most, and kernels, counters and bytes of one chip of the slowest stage.
    """

    chip: str
    batch: int
    dtype: str
    stack: str
    sizes: Mapping[str, int]
    time_s: float
    interval_s: Interval
    interval_status: str
    bound: str
    energy_j: float
    interval_j: Interval
    energy_entries_j: Mapping[str, float]
    energy_basis: str
    power_w: float
    flops: float
    mfu: float
    memory_bytes: float
    bytes: Mapping[str, float]
    counters: CountersPart
    coverage: float
    launch_s: float
    kernels: Sequence[KernelPart]
    assumed: Maybe[Mapping[str, int]] = UNSET
    set_by_hand: Maybe[Mapping[str, ChangePart]] = UNSET
    quality: Maybe[str] = UNSET
    usd_per_million: Maybe[float] = UNSET
    interval_usd_per_million: Maybe[Interval] = UNSET
    price: Maybe[PricePart] = UNSET
    gco2e_per_million: Maybe[float] = UNSET
    interval_gco2e_per_million: Maybe[Interval] = UNSET
    energy_at_meter_j_per_million: Maybe[Mapping[str, float]] = UNSET
    region: Maybe[str] = UNSET
    sources: Maybe[Sequence[str]] = UNSET
    bottleneck: Maybe[Sequence[RelaxedPart]] = UNSET
    group: Maybe[ChipsTogetherPart] = UNSET
    advice: Maybe[Sequence[AdvicePart]] = UNSET


class NodePart(Part, frozen=True, kw_only=True):
    """A kernel as predicted beside the nodes that were measured for it."""

    name: str
    ops: str
    time_s: float
    predicted_s: float


class ComparisonPart(Part, frozen=True, kw_only=True):
    """A measured run beside its prediction; what only one of them has is apart."""

    batch: int
    time_s: float
    predicted_s: float
    error: float
    nodes: Sequence[NodePart]
    only_measured_s: float
    only_predicted_s: float


class QualityPart(Part, frozen=True, kw_only=True):
    """A dtype's results beside the file's own; no signal over noise where nothing differs."""

    dtype: str
    scheme: str
    cosine: float
    top1_agreement: float
    worst_op: str
    covered: float
    inputs: str
    sqnr_db: Maybe[float] = UNSET
    worst_sqnr_db: Maybe[float] = UNSET


class RefusedPart(Part, frozen=True, kw_only=True):
    """A chip and batch that cannot be, and why."""

    chip: str
    batch: int
    reason: str


class ProfileDocument(Part, frozen=True, kw_only=True):
    """`tenfold profile`."""

    model: str
    runs: Sequence[RunPart]
    measured: Maybe[Sequence[ComparisonPart]] = UNSET
    quality: Maybe[Sequence[QualityPart]] = UNSET
    rejected: Maybe[Sequence[RefusedPart]] = UNSET


class GroupedOpPart(Part, frozen=True, kw_only=True):
    """An op and why it is in its group."""

    kind: str
    name: str
    why: str


class GroupPart(Part, frozen=True, kw_only=True):
    """Ops that run as one kernel."""

    name: str
    ops: Sequence[GroupedOpPart]
    inputs: Sequence[str]
    outputs: Sequence[str]


class BufferPart(Part, frozen=True, kw_only=True):
    """Where a buffer lies, and from which kernel to which it lives."""

    name: str
    role: str
    where: str
    offset: int
    bytes: int
    first: int
    last: int
    why: Maybe[str] = UNSET


class PlannedBytesPart(Part, frozen=True, kw_only=True):
    """What the program moves and holds."""

    moved: float
    weights: float
    activations: float
    activations_lower_bound: float
    near_capacity: float


class CompileDocument(Part, frozen=True, kw_only=True):
    """`tenfold compile`."""

    model: str
    chip: str
    dtype: str
    groups: Sequence[GroupPart]
    program: str
    memory: Sequence[BufferPart]
    bytes: PlannedBytesPart


class StepsDocument(Part, frozen=True, kw_only=True):
    """`tenfold compile --steps`."""

    steps: Mapping[str, str]
