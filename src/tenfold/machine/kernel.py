"""What a machine runs: kernels, each with what it computes and what it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum, StrEnum, unique

from tenfold.chips import KernelFamily, MatrixPrecision
from tenfold.ir.graph import Graph, Op
from tenfold.ir.sharding import Collective
from tenfold.ir.space import Space
from tenfold.ir.table import Lowering, Rate
from tenfold.machine.stack import Stack


@dataclass(frozen=True, slots=True)
class Product:
    """``batch`` independent products [m, k] x [k, n], done ``repeat`` times one after the other;
    ``threes``: items, rows and columns of the result of windows of 3 x 3 that move by one.
    """

    batch: int
    m: int
    n: int
    k: int
    repeat: int = 1
    threes: tuple[int, ...] = ()

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k * self.repeat


_FAMILY_OF: Mapping[Rate, KernelFamily] = {
    Rate.PRODUCT: KernelFamily.MATMUL,
    Rate.CONVOLUTION: KernelFamily.MATMUL,
    Rate.SOFTMAX: KernelFamily.SOFTMAX,
    Rate.NORM: KernelFamily.NORM,
    Rate.POWER: KernelFamily.STREAM,
    Rate.REORDER: KernelFamily.STREAM,
    Rate.STREAM: KernelFamily.STREAM,
}


REORDERED = "/reordered"  # ends the name of a copy of a buffer in another layout
QUERY_BLOCK = 128  # queries that are handled together


@dataclass(frozen=True, slots=True)
class Attention:
    """One fused attention: ``q_len`` queries against ``kv_len`` keys in each of ``batch``
    sequences.

    ``writes_cache``: queries, keys and values are turned and stored before, as serving kernels do.
    ``cache_read``: share of the keys and values that is streamed. ``window``: keys that one query
    sees at most, itself included; 0: no bound. ``spread``: the queries are some of all, taken so
    that they see as many keys in the mean.
    """

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    causal: bool
    writes_cache: bool = False
    cache_read: float = 1.0
    window: int = 0
    spread: bool = False

    @property
    def decodes(self) -> bool:
        """One query a sequence, against a cache that is there."""
        return self.q_len == 1 and not self.writes_cache

    @property
    def seen(self) -> int:
        """Keys that the last query sees."""
        return min(self.kv_len, self.window) if self.window else self.kv_len

    @property
    def computed(self) -> float:
        """Share of the scores that are computed: blocks above the diagonal of a causal attention
        are left out.

        The last query sees every key; those of a past before the first query are seen by all. With
        a window the blocks before it are left out too.
        """
        if self.spread:
            return replace(self, q_len=self.kv_len, spread=False).computed
        block, past = min(self.q_len, QUERY_BLOCK), max(0, self.kv_len - self.q_len)
        keys = past + (self.q_len + block) / 2 if self.causal and self.q_len > 1 else self.kv_len
        if self.window and not self.causal:
            keys = min(keys, self.window + block - 1)
        elif self.window:
            # what each block need not see
            starts = range(past - self.window + 1, self.kv_len - self.window + 1, block)
            keys -= (
                sum(min(block, self.kv_len - self.window + 1 - s) * max(0, s) for s in starts)
                / self.q_len
            )
        return min(1.0, keys / self.kv_len)


@dataclass(frozen=True, slots=True)
class Experts:
    """One layer of experts of width ``inner`` on ``tokens`` of width ``hidden``; ``counts`` are the
    tokens of each expert held here.

    ``experts`` is the number of all, held here or not.
    """

    tokens: int
    hidden: int
    inner: int
    experts: int
    counts: tuple[int, ...]
    gated: bool


@dataclass(frozen=True, slots=True)
class Exchanged:
    """``tokens`` of this chip of so many bytes that go to the chips of their ``choices`` of
    experts, or come ``back``; the busiest chip gets ``skew`` times as many as the mean.
    """

    tokens: int
    token_bytes: float
    choices: int
    skew: float
    back: bool


@dataclass(frozen=True, slots=True)
class Together:
    """What ``ways`` chips do at once: ``bytes`` are those of the whole buffer on each chip, for
    gathers of the result (as nccl-tests count them). Each chip is ``stride`` places after the one
    before. ``exchanged`` is there where it is tokens that go to experts, for which there are
    kernels of their own.
    """

    collective: Collective
    bytes: int
    ways: int
    stride: int = 1
    exchanged: Exchanged | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """Vector work whose ``steps`` run one after the other, ``beside`` points in each; ``chained``
    operations of a point wait for the step before. ``associative``: pairs may go first.
    """

    steps: int
    beside: int
    chained: int
    associative: bool


class BytePrice(Enum):
    """What the energy of a byte at a level follows from."""

    MEMORY = "the technology of the chip's memory"
    SRAM = "an SRAM of 1 MiB in the chip's process"
    NOT_PUBLISHED = "nothing: beyond what it takes beside the units, where it is counted too"


@dataclass(frozen=True, slots=True)
class LevelRow:
    """A level as reports call it, and what the energy of its bytes follows from."""

    shown: str
    byte_price: BytePrice


@unique
class Level(Enum):
    """Where bytes move, nearest to the model's storage first.

    A level more is a row here and a field of its name in ``Traffic``; counters, energy, documents
    and pages follow. Machines that do not price it in time refuse kernels that use it.
    """

    # the interface to off-chip memory
    OFF_CHIP = LevelRow("off-chip memory", BytePrice.MEMORY)
    # the large on-chip memory or the caches, where buffers wait between kernels
    NEAR = LevelRow("large on-chip memory or caches", BytePrice.NOT_PUBLISHED)
    # the memory beside the units: what crosses it is for machines to say
    ON_CHIP = LevelRow("on-chip memory", BytePrice.SRAM)

    @property
    def key(self) -> str:
        """Its name as a field of ``Traffic`` and a key of documents."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes that a kernel moves at one level, by what they are."""

    weights: int = 0
    inputs: int = 0
    outputs: int = 0

    @property
    def reads(self) -> int:
        return self.weights + self.inputs

    @property
    def total(self) -> int:
        return self.reads + self.outputs


NOTHING = Moved()


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a kernel moves, by level: a field for each that buffers can lie at.

    ``prefetched`` are those of its weights that came near while an earlier kernel ran;
    ``prefetch`` weights of later kernels, fetched from off chip while this one runs.
    """

    off_chip: Moved = NOTHING
    _: KW_ONLY
    near: Moved = NOTHING
    prefetched: int = 0
    prefetch: int = 0

    def at(self, level: Level) -> Moved:
        """What is moved of buffers that lie at ``level``."""
        return getattr(self, level.key) if level in BUFFER_LEVELS else NOTHING

    def reads(self, level: Level) -> int:
        """Bytes read at ``level``, those fetched for later kernels included."""
        return self.at(level).reads + (self.prefetch if level is Level.OFF_CHIP else 0)

    @property
    def total(self) -> int:
        """Bytes that cross the off-chip interface."""
        return self.off_chip.total + self.prefetch

    @property
    def all_reads(self) -> int:
        """Bytes read at whatever level."""
        return sum(self.reads(level) for level in BUFFER_LEVELS)

    @property
    def all_writes(self) -> int:
        """Bytes written at whatever level."""
        return sum(self.at(level).outputs for level in BUFFER_LEVELS)


_FIELDS = frozenset(Traffic.__dataclass_fields__)
# where buffers can lie between kernels
BUFFER_LEVELS = tuple(level for level in Level if level.key in _FIELDS)


class Role(StrEnum):
    """What a buffer is to a kernel."""

    WEIGHT = "weight"
    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Operand:
    """A buffer that a kernel reads or writes: its name, what it is, and how many bytes of it are
    moved.
    """

    name: str
    role: Role
    bytes: int


def moved(operands: Sequence[Operand]) -> Moved:
    """What is moved of ``operands``, by role."""
    weights, inputs, outputs = (
        sum(o.bytes for o in operands if o.role is role)
        for role in (Role.WEIGHT, Role.INPUT, Role.OUTPUT)
    )
    return Moved(weights, inputs, outputs)


def off_chip(operands: Sequence[Operand]) -> Traffic:
    """The traffic of a kernel all of whose buffers live off chip."""
    return Traffic(moved(operands))


@dataclass(frozen=True, slots=True)
class Group:
    """The ops of one kernel in order, the buffers it reads and writes, its contraction, why each
    op is in it, and the loops of each.
    """

    ops: tuple[Op, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    anchor: Op | None
    reasons: tuple[str, ...]
    spaces: tuple[Space, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return (self.anchor or self.ops[0]).name


@dataclass(frozen=True, slots=True)
class RuntimeWork:
    """What a runtime of single operators moves in a processor's caches beside operands.

    ``cached_bytes`` are windows copied together and weights that are read again. ``passes`` is how
    often each result of the products is taken from the caches and put back, where k is summed in
    parts; 0 where results stay in registers.
    """

    cached_bytes: int = 0
    passes: int = 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch on the chip.

    ``flops`` is useful contraction arithmetic (a multiply-add is two), ``products`` what the matrix
    unit executes for it. ``vector_ops`` and ``transcendentals`` run on the vector unit; ``rate`` is
    the sort of loop. ``operand_bits`` is the width of matrix operands. ``operands`` are the buffers
    it touches; ``group`` is the number of the group in the program that it runs. ``attention`` and
    ``experts`` are there where the products are those of one. ``rows`` of ``row_elements`` is what
    it reduces along. ``quantizes`` are the elements that are scaled and narrowed before, in a
    kernel of their own, with a scale for each block where it is ``blocked``. ``chain`` is there
    where vector work cannot all be done at once. ``runtime`` is what only a runtime of single
    operators adds. ``together`` is there where the chip does it with others. It takes ``slower``
    times as long as the best there is, where who runs it has an older one. ``backward_of`` is the
    attention of which it is the gradient, in one kernel.
    """

    name: str
    ops: tuple[str, ...]
    kind: Lowering
    precision: MatrixPrecision
    rate: Rate = Rate.STREAM
    products: tuple[Product, ...] = ()
    flops: int = 0
    vector_ops: int = 0
    transcendentals: int = 0
    traffic: Traffic = Traffic()
    operand_bits: int = 16
    repeat: int = 1
    operands: tuple[Operand, ...] = ()
    group: int = 0
    attention: Attention | None = None
    experts: Experts | None = None
    rows: int = 0
    row_elements: int = 0
    quantizes: int = 0
    blocked: bool = False
    chain: Chain | None = None
    runtime: RuntimeWork | None = None
    together: Together | None = None
    slower: float = 1.0
    backward_of: Attention | None = None

    @property
    def arithmetic(self) -> int:
        return self.flops + self.vector_ops + self.transcendentals

    @property
    def shape(self) -> Kernel:
        """All that its time depends on: kernels of equal shape are simulated once."""
        return replace(self, name="", ops=(), repeat=1, operands=(), group=0)

    @property
    def family(self) -> KernelFamily:
        """The family of kernels that it belongs to, whose constants and errors are its own."""
        if self.backward_of is not None:
            return KernelFamily.ATTENTION
        if self.attention is not None:
            return KernelFamily.DECODE if self.attention.decodes else KernelFamily.ATTENTION
        if self.experts is not None:
            return KernelFamily.EXPERTS
        if self.quantizes:
            return KernelFamily.BLOCKED if self.blocked else KernelFamily.QUANTIZED
        if self.products and self.precision is MatrixPrecision.FP32:
            windows = self.rate is Rate.CONVOLUTION
            return KernelFamily.FP32_WINDOWS if windows else KernelFamily.FP32
        return KernelFamily.MATMUL if self.products else _FAMILY_OF[self.rate]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A buffer in one memory: where it lies and from which kernel to which it lives (both
    included).
    """

    name: str
    role: Role
    bytes: int
    first: int
    last: int
    offset: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where every buffer lives.

    ``near`` are the buffers of the on-chip level called ``level``, ``far`` the activations in
    off-chip memory. ``lower_bound`` is the most that is alive at once off chip: no plan of offsets
    needs less.
    """

    level: str = ""
    capacity: int = 0
    near: tuple[Buffer, ...] = ()
    far: tuple[Buffer, ...] = ()
    far_bytes: int = 0
    lower_bound: int = 0


@dataclass(frozen=True, slots=True)
class Program:
    """Kernels in order for one chip, and the memory they need. ``io_bytes`` are the model's own
    inputs and outputs.

    ``native_fraction`` is the share of arithmetic in ops that Tenfold knows; ``assumed`` names
    extents that depend on data and were set to their upper bound. ``graph`` is what the compiler
    made of the model, ``groups`` cut it into kernels, ``stack`` drives it.
    """

    model: str
    chip: str
    precision: MatrixPrecision
    items: int
    kernels: tuple[Kernel, ...]
    weight_bytes: int
    io_bytes: int
    native_fraction: float
    graph: Graph = field(repr=False)
    groups: tuple[Group, ...] = field(repr=False)
    memory: MemoryPlan = field(default=MemoryPlan(), repr=False)
    assumed: tuple[tuple[str, int], ...] = ()
    without: tuple[str, ...] = ()
    stack: Stack = Stack.ENGINE

    @property
    def memory_bytes(self) -> int:
        return self.weight_bytes + self.memory.far_bytes

    @property
    def input_bytes(self) -> float:
        """Bytes of the model's own inputs, as the source stores them."""
        values = (self.graph.values[n] for n in self.graph.inputs)
        sizes = ((v.elements, v.dtype.bits) for v in values)
        return sum(n * bits / 8 for n, bits in sizes if isinstance(n, int))

    @property
    def flops(self) -> int:
        return sum(k.flops * k.repeat for k in self.kernels)

    @property
    def moved_bytes(self) -> int:
        """Bytes that cross the off-chip interface in one pass."""
        return sum(k.traffic.total * k.repeat for k in self.kernels)
