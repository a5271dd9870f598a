"""The shape of a row of the op table, and the vocabulary of its columns.

A row says everything there is to know about one op kind:

    arity     how many inputs it takes, least and most
    attrs     its attributes and their types        (verifier and text form)
    dtypes    element types of the outputs          (inference)
    shapes    shapes of the outputs                 (inference)
    space     loops, and which index which axis     (batching, fusion, tiling, rows)
    splits    ways to do it in equal parts          (partition)
    gradient  its operands' gradients, as ops       (training)
    work      arithmetic it does, bytes it moves    (cost)
    evaluate  what it means, in NumPy               (interpreter: this defines truth)
    lowering  what kind of hardware runs it         (compiler)
    rate      what sort of loop it is               (machine)
    converts  whether it only changes types         (fusion)
    grows     whether it makes much out of little   (inference)
    measures  whether only shapes are looked at     (inference, views)
    loose     whether items of a batch share things (batching)
    target    which input is the result's shape     (batching)
    control   what it does with its bodies          (inference, binding)
    trips     how often its body runs               (lowering)
    attention, experts  what it computes, kept whole  (lowering)
    backward_of  the attention of which it is the gradient  (lowering)
    exchange  tokens that go to experts on other chips  (lowering)
    gathering  operands that chips gather for it    (lowering)
    additive  whether it adds its operands up       (partition)
    together  what it means to all chips, in NumPy  (the cluster's interpreter)
    collective  what chips do together in it        (lowering)
    factors   which inputs are multiplied           (lowering)
    scaled_axis  which axis of weights int8 scales  (numerics)
    symbolic  whether ``evaluate`` also holds on arrays of symbolic ints (shape arithmetic)

``tenfold.ir.ops.TABLE`` holds the rows; a test asserts that every column is filled for every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np

from tenfold.ir.derivatives import GradientRule, NoGradient
from tenfold.ir.dims import Dim, Shape, add, prod
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Attr, Op, UnknownShape, Value
from tenfold.ir.sharding import Collective, SplitRule, by_loops
from tenfold.ir.space import Access, Space


class Lowering(StrEnum):
    """What kind of hardware an op needs."""

    VIEW = "view"  # a new name for the same bytes
    MATRIX = "matrix"  # the matrix unit: contractions
    VECTOR = "vector"  # the vector unit, element by element
    REDUCE = "reduce"  # the vector unit, with a reduction along axes
    MOVE = "move"  # copies, layout changes
    GATHER = "gather"  # data-dependent addresses
    CONTROL = "control"  # bodies
    TOGETHER = "together"  # links to other chips
    OPAQUE = "opaque"  # not native: priced by its bytes


class Rate(StrEnum):
    """What sort of loop an op is, where machines run such loops at rates of their own."""

    PRODUCT = "product"
    CONVOLUTION = "convolution"  # over windows, which a processor does in blocks of channels
    SOFTMAX = "softmax"  # goes over each row twice, for its maximum and its sum
    NORM = "norm"  # reduces each row and scales it
    POWER = "power"  # a power function for each element
    REORDER = "reorder"  # a change of layout that a runtime puts between ops; no op is one
    STREAM = "stream"  # element by element, and whatever else


class Control(StrEnum):
    """What an op with bodies does with them."""

    BRANCH = "branch"
    LOOP = "loop"
    SCAN = "scan"


@dataclass(frozen=True, slots=True)
class Matmul:
    """``batch`` independent products [m, k] x [k, n], done ``repeat`` times one after the other.

    ``threes`` are items, rows and columns of the result where it is one of windows of 3 x 3 that
    move by one, which a transform can save multiplications of; else empty.
    """

    batch: Dim
    m: Dim
    n: Dim
    k: Dim
    repeat: Dim = 1
    threes: tuple[Dim, ...] = ()

    @property
    def macs(self) -> Dim:
        return prod((self.batch, self.m, self.n, self.k, self.repeat))


@dataclass(frozen=True, slots=True)
class Work:
    """Arithmetic and traffic of one op.

    ``contraction_flops`` counts a multiply-add as two and, for convolutions, only taps that fall
    inside the input (the rule of XLA's HloCostAnalysis). ``matmuls`` is what a matrix unit executes
    for them. ``vector_flops`` are other operations on elements, ``transcendentals`` exp, log, tanh,
    …. ``reads`` are bytes by input, ``writes`` bytes by output.
    """

    contraction_flops: Dim = 0
    vector_flops: Dim = 0
    transcendentals: Dim = 0
    matmuls: tuple[Matmul, ...] = ()
    reads: tuple[Dim, ...] = ()
    writes: tuple[Dim, ...] = ()

    @property
    def flops(self) -> Dim:
        return add(self.contraction_flops, self.vector_flops)


@dataclass(frozen=True, slots=True)
class AttentionDims:
    """Extents of an attention: ``keys`` with those of the past; ``window`` is how many of them one
    query sees at most, itself included, None without a bound. ``spread``: the queries are some of
    all, taken so that they see as many keys in the mean.
    """

    batch: Dim
    heads: Dim
    kv_heads: Dim
    queries: Dim
    keys: Dim
    key_width: Dim
    value_width: Dim
    causal: bool
    window: int | None
    spread: bool = False


@dataclass(frozen=True, slots=True)
class ExpertDims:
    """Extents of a layer of experts: of those ``held`` here ``active`` are sent some token,
    ``routed`` are the visits of tokens to them; ``experts`` is the number of all.
    """

    tokens: Dim
    hidden: Dim
    inner: Dim
    experts: Dim
    held: Dim
    active: Dim
    routed: Dim
    gated: bool


@dataclass(frozen=True, slots=True)
class Gathering:
    """Operands of which ``ways`` chips, each ``stride`` after the one before, gather all parts
    ahead of the op, and results that they add up and scatter behind it.
    """

    gathered: tuple[int, ...]
    scattered: tuple[int, ...]
    ways: int
    stride: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """Tokens of this chip that go to the chips of their experts, each to ``choices`` of them, which
    are on ``ways`` chips, each ``stride`` after the one before: ``before`` so many times ahead of
    the op, and once back behind it. The busiest chip gets ``skew`` times as many as the mean.
    """

    tokens: Dim
    hidden: Dim
    choices: int
    ways: int
    stride: int
    before: int
    skew: float


@dataclass(frozen=True, slots=True)
class Call:
    """One op with what is known about its operands: the argument of every rule."""

    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...] = ()
    known: Mapping[int, Array] = field(default_factory=dict)
    fresh: Callable[[str, Dim | None], Dim] | None = None

    def attr(self, name: str, default: Any = None) -> Any:
        return self.op.attrs.get(name, default)

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def input(self, i: int) -> Value:
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise ValueError(f"{self.op.kind} needs input {i}")
        return value

    def shape(self, i: int) -> Shape:
        return self.input(i).dims

    def out(self, i: int = 0) -> Shape:
        value = self.outputs[i]
        if value is None:
            raise ValueError(f"{self.op.kind} needs output {i}")
        return value.dims

    def numbers(self, i: int) -> list[Any] | None:
        """The content of input ``i`` as a flat list where it is known, else None."""
        return list(self.known[i].reshape(-1)) if i in self.known else None

    def need(self, i: int) -> list[Any]:
        numbers = self.numbers(i)
        if numbers is None:
            raise UnknownShape(f"{self.op.kind}: content of {self.input(i).name}")
        return numbers

    def target_rank(self, i: int) -> int:
        """The length of input ``i``, a vector that holds a shape: the rank of the result.

        Raises UnknownShape where it is not known, ValueError where it is beyond any tensor.
        """
        rank = self.shape(i)[0]
        if not isinstance(rank, int):
            raise UnknownShape(f"{self.op.kind} to an unknown rank")
        if rank > MAX_RANK:
            raise ValueError(f"a result of rank {rank} is above the limit of {MAX_RANK}")
        return rank

    def unknown_dim(self, what: str, at_most: Dim | None = None) -> Dim:
        """A new symbol for an extent that depends on data, with an upper bound where there is
        one.
        """
        if self.fresh is None:
            raise UnknownShape(what)
        return self.fresh(what, at_most)


MAX_RANK = 64

DTypeRule: TypeAlias = Callable[[Call], Sequence[DType]]
ShapeRule: TypeAlias = Callable[[Call], Sequence[Shape | None]]
SpaceRule: TypeAlias = Callable[[Call], Space]
WorkRule: TypeAlias = Callable[[Call], Work]


@dataclass(frozen=True, slots=True)
class Context:
    """What an evaluate function gets beside the arrays.

    ``bodies`` run the sub-graphs of control flow; ``outputs`` says how many outputs are asked for;
    ``rng`` serves the random ops, seeded by the interpreter's caller; ``declared`` are the outputs'
    types.
    """

    attrs: Mapping[str, Attr]
    outputs: int = 1
    bodies: tuple[Callable[[Sequence[Array | None]], list[Array]], ...] = ()
    rng: np.random.Generator | None = None
    declared: tuple[Value | None, ...] = ()

    def get(self, name: str, default: Any = None) -> Any:
        return self.attrs.get(name, default)


Evaluate: TypeAlias = Callable[..., "Sequence[Array | None] | Array"]
Together: TypeAlias = Callable[
    [Context, "Sequence[Sequence[Array | None]]"], "Sequence[Sequence[Array]]"
]


@dataclass(frozen=True, slots=True)
class OpRow:
    """One row of the op table; the module's docstring says what the columns are."""

    kind: str
    arity: tuple[int, int]
    attrs: Mapping[str, type]
    dtypes: DTypeRule
    shapes: ShapeRule
    space: SpaceRule
    work: WorkRule
    evaluate: Evaluate
    lowering: Lowering
    splits: SplitRule = by_loops
    symbolic: bool = False
    pure: bool = True  # False: random, never folded
    rate: Rate = Rate.STREAM
    converts: bool = False  # True: changes the type of elements, which whoever reads them may do
    grows: bool = False  # True: results of a size that operands only name
    measures: bool = False  # True: of its operand only the shape matters
    loose: bool = False  # True: items of a batch share a scale or a list of results, by design
    target: int | None = None  # the input that is the shape of the result
    control: Control | None = None
    trips: Callable[[Call], Dim | None] | None = None  # None: its body runs once
    attention: Callable[[Call], AttentionDims] | None = None
    backward_of: Callable[[Call], AttentionDims] | None = None
    experts: Callable[[Call], ExpertDims] | None = None
    exchange: Callable[[Call], Exchange] | None = None
    gathering: Callable[[Call], Gathering] | None = None
    additive: bool = False
    gradient: GradientRule | NoGradient = NoGradient.NOT_YET  # filled in from ``ir.derivatives``
    together: Together | None = None  # the results of each chip from the operands of all of them
    collective: Collective | None = None
    factors: tuple[int, int] = (0, 1)
    scaled_axis: int | None = None  # of the second operand, which int8 weights have scales along

    @property
    def views(self) -> bool:
        """Whether its result is its operand in the same order."""
        return self.lowering is Lowering.VIEW

    def check(self, op: Op) -> str:
        """Why ``op`` is not a valid use of this row, or ""."""
        least, most = self.arity
        if not least <= len(op.inputs) <= most:
            return f"{op.kind} takes {least} to {most} inputs, got {len(op.inputs)}"
        for name, value in op.attrs.items():
            if name not in self.attrs:
                return (
                    f"{op.kind} has no attribute '{name}' (it has"
                    f" {', '.join(self.attrs) or 'none'})"
                )
            wanted = self.attrs[name]
            if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
                return f"{op.kind}: attribute '{name}' must be {wanted.__name__}, got {value!r}"
            steps = value if name in _STEPS and isinstance(value, tuple) else ()
            if any(isinstance(s, int) and s < 1 for s in steps):
                return f"{op.kind}: attribute '{name}' must be 1 or more each, got {list(steps)}"
        return ""


# extents and steps of windows, which go forward
_STEPS = ("strides", "dilations", "kernel_shape")


def attributes(**types: type) -> Mapping[str, type]:
    return types


MANY = 1 << 30


__all__ = [
    "MANY",
    "Access",
    "Array",
    "AttentionDims",
    "Attr",
    "Call",
    "Context",
    "Control",
    "DType",
    "Exchange",
    "ExpertDims",
    "Gathering",
    "Lowering",
    "Matmul",
    "OpRow",
    "Rate",
    "Space",
    "Work",
    "attributes",
]
