"""What the compiler and the simulator ask of a kind of machine.

A kind is a ``Target``: which ops run as one kernel, how kernels are cut and laid out, where buffers
can wait between them, and what a sequence of them takes. Nobody else tells kinds apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenfold.ir.graph import Graph, Op
from tenfold.machine.kernel import Group, Kernel, Level, Program
from tenfold.machine.roofline import Parts
from tenfold.machine.run import Counters, Timed
from tenfold.machine.systolic.maxplus import Repeat


@dataclass(frozen=True, slots=True)
class Joining:
    """An op that would join a kernel: ``ended`` are the element-wise ops that are in it already,
    ``outside`` the operands of the op that the kernel does not make.
    """

    graph: Graph
    op: Op
    anchor: Op | None
    ended: tuple[Op, ...]
    outside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FusionRules:
    """What a kind of machine can run as one kernel.

    ``row_elements``: the longest row of a product's result that can be reduced before it leaves the
    chip. ``vector_prologue``: whether element-wise work can feed the matrix unit, or only layout
    changes can. ``rows_once``: whether what needs its rows twice is never joined to the contraction
    that makes them. ``refuses`` says why an op may not join ("" where it may), where that is
    more than holds for all; ``feeds`` whether a contraction does an op as it reads what the op
    makes, where that is not the rule for all.
    """

    row_elements: int
    vector_prologue: bool
    rows_once: bool = False
    refuses: Callable[[Joining], str] | None = None
    feeds: Callable[[Graph, Op, Op], bool] | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """Seconds that a kernel needs the off-chip interface and the slowest other unit, those of its
    start, and the interface's rate.
    """

    interface_s: float
    others_s: float
    start_s: float
    bytes_per_s: float

    @property
    def lack_bytes(self) -> float:
        """What the interface does not deliver while the other units work."""
        return max(0.0, self.interface_s - self.others_s) * self.bytes_per_s

    @property
    def start_bytes(self) -> float:
        """What it can deliver while the kernel starts."""
        return self.start_s * self.bytes_per_s

    @property
    def slack_bytes(self) -> float:
        """What it can deliver beside the kernel's own bytes, start included."""
        return self.start_bytes + max(0.0, self.others_s - self.interface_s) * self.bytes_per_s


@dataclass(frozen=True, slots=True)
class NearMemory:
    """The on-chip memory in which a compiler keeps buffers between kernels: its name and what of it
    is free for that.

    ``holds_all`` says that activations never leave it, the model's own inputs and results included;
    ``keeps_weights`` that some stay in it from call to call. ``balance`` is what a kernel leaves of
    the off-chip interface.
    """

    name: str
    bytes: float
    holds_all: bool
    keeps_weights: bool
    balance: Callable[[Kernel], Balance]


@dataclass(frozen=True, slots=True)
class Cut:
    """The groups that a program's kernels come from, with what laying them out needs: for each view
    the value that holds its bytes, and the bytes of a buffer.
    """

    graph: Graph
    groups: Sequence[Group]
    root: Mapping[str, str]
    size: Callable[[str], int]


class Target(Protocol):
    """A chip as its kind of machine."""

    @property
    def rules(self) -> FusionRules: ...

    @property
    def levels(self) -> frozenset[Level]:
        """The levels at which it knows what bytes take in time."""

    @property
    def single_ops(self) -> bool:
        """Whether a runtime of single operators drives it, which has no kernel for an attention."""

    @property
    def serves(self) -> bool:
        """Whether single calls are those of serving engines' kernels: keys and values are stored in
        a cache before an attention, products in 8 bits come and go in 16, and a measuring source
        adds what its calls cost.
        """

    @property
    def own_host(self) -> bool:
        """Whether its times hold what the host of an accelerator would add."""

    def parts(self, kernel: Kernel, group: Group, root: Mapping[str, str]) -> Iterable[Kernel]:
        """The kernels that one group runs as."""

    def laid_out(self, kernels: Iterable[Kernel], cut: Cut) -> Iterator[Kernel]:
        """The kernels, with changes of layout between them where the machine wants such."""

    def cached(self, kernels: Iterable[Kernel]) -> Iterator[Kernel]:
        """The kernels with what hardware keeps for the next ones, where it does so and what it
        keeps shows in time.
        """

    def near(self) -> NearMemory | None:
        """Where buffers can be kept between kernels; None where hardware decides (caches)."""

    def time_kernels(self, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
        """Each kernel as it runs after the ones before it, and the counters of them all."""

    def warm(self, program: Program) -> tuple[Kernel, ...]:
        """The kernels as they run once the program has run before."""

    def entry_s(self, program: Program) -> float:
        """Seconds of a pass beside its kernels and the link to the host."""

    def activity(self, kernel: Kernel) -> Repeat | Parts:
        """What the units do in one launch: the instructions, where software schedules them, else
        how long each of them works.
        """
