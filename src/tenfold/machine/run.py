"""What a simulation gives: time, counters and energy, by kernel and in total."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import add
from typing import TypeAlias

from tenfold.estimate import Estimate
from tenfold.facts import Account
from tenfold.machine.kernel import BUFFER_LEVELS, Kernel, Level, Program, Traffic

ByLevel: TypeAlias = tuple[float, ...]
NOWHERE: ByLevel = (0.0,) * len(Level)
_PLACE = {level: place for place, level in enumerate(Level)}


@dataclass(frozen=True, slots=True)
class Crossing:
    """Bytes read and written by level."""

    read: ByLevel
    written: ByLevel


def crossing(traffic: Traffic, passed: Mapping[Level, tuple[float, float]]) -> Crossing:
    """What crosses each level: the kernel's own ``traffic``, and where no buffers lie what the
    machine says is ``passed``, read and written.
    """

    def counted(level: Level) -> tuple[float, float]:
        if level in BUFFER_LEVELS:
            return float(traffic.reads(level)), float(traffic.at(level).outputs)
        return passed[level]

    read, written = zip(*map(counted, Level), strict=True)
    return Crossing(read, written)


@dataclass(frozen=True, slots=True)
class Counters:
    """Exact sums over the kernels. The six kinds of cycles add up to ``cycles``.

    ``active`` the matrix unit multiplies; ``weight_stall`` it waits for weights from memory;
    ``weight_shift`` for weights to be shifted in; ``memory_stall`` for activations or results to
    move; ``vector`` for the vector unit; ``idle`` launch and the rest. ``read`` and ``written`` are
    bytes by level.
    """

    cycles: float = 0.0
    active: float = 0.0
    weight_stall: float = 0.0
    weight_shift: float = 0.0
    memory_stall: float = 0.0
    vector: float = 0.0
    idle: float = 0.0
    macs_useful: float = 0.0
    macs_wasted: float = 0.0
    vector_ops: float = 0.0
    read: ByLevel = NOWHERE
    written: ByLevel = NOWHERE

    def bytes(self, level: Level) -> float:
        """Bytes read and written at a level."""
        return self.read_at(level) + self.written_at(level)

    def read_at(self, level: Level) -> float:
        return self.read[_PLACE[level]]

    def written_at(self, level: Level) -> float:
        return self.written[_PLACE[level]]

    def __add__(self, other: Counters) -> Counters:
        numbers = {n: getattr(self, n) + getattr(other, n) for n in _NUMBERS}
        read = tuple(map(add, self.read, other.read))
        return Counters(**numbers, read=read, written=tuple(map(add, self.written, other.written)))

    def times(self, n: int) -> Counters:
        numbers = {name: getattr(self, name) * n for name in _NUMBERS}
        read = tuple(b * n for b in self.read)
        return Counters(**numbers, read=read, written=tuple(b * n for b in self.written))


_NUMBERS = tuple(f.name for f in fields(Counters) if f.name not in ("read", "written"))


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds and counters of one launch, and the unit that bounds it; ``clock``: the share of the
    chip's own clock that its power lets it hold, and ``clocked`` what energy that goes with the
    clock is over that at its own.
    """

    time_s: float
    bound: str
    counters: Counters
    clock: float = 1.0
    clocked: float = 1.0


@dataclass(frozen=True, slots=True)
class KernelRun:
    """One kernel: seconds of a single launch, which unit bounds it, counters and energy of that
    launch, and at which share of the chip's own clock.
    """

    kernel: Kernel
    time_s: float
    bound: str
    counters: Counters
    energy: Account
    clock: float = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """A program on its chip: ``time_s`` of one pass over ``program.items`` items.

    Totals are sums over ``kernels`` (times their repeats) plus ``launch_s`` once: what a pass takes
    beside its kernels, inputs and results over the host link included where the chip's own memory
    holds weights only.
    """

    program: Program
    time_s: Estimate
    launch_s: float
    kernels: tuple[KernelRun, ...]
    counters: Counters
    energy: Account
    peak_flops: float
    energy_basis: str

    @property
    def energy_j(self) -> Estimate:
        return self.energy.total

    @property
    def power_w(self) -> float:
        return self.energy_j.value / self.time_s.value if self.time_s.value else 0.0

    @property
    def mfu(self) -> float:
        """Contraction arithmetic over what the chip could do in that time (a fraction, at most 1).

        Scores that a causal attention leaves out do not count, though ``program.flops`` has them,
        as papers do; neither does what is computed without being asked for.
        """
        done = sum(
            min(k.kernel.flops, 2 * k.counters.macs_useful) * k.kernel.repeat for k in self.kernels
        )
        return done / (self.time_s.value * self.peak_flops) if self.time_s.value else 0.0

    @property
    def bound(self) -> str:
        """The bound under which most of the time is spent."""
        spent: dict[str, float] = {}
        for k in self.kernels:
            spent[k.bound] = spent.get(k.bound, 0.0) + k.time_s * k.kernel.repeat
        return max(spent, key=lambda b: spent[b]) if spent else "launch"


def each_alone(
    kernels: Sequence[Kernel], time: Callable[[Kernel], Timed]
) -> tuple[list[Timed], Counters]:
    """Kernels that do not overlap: each as on its own, equal ones timed once, and all counters."""
    seen: dict[Kernel, Timed] = {}
    found, total = [], Counters()
    for k in kernels:
        shape = k.shape
        if shape not in seen:
            seen[shape] = time(k)
        found.append(seen[shape])
        total = total + seen[shape].counters.times(k.repeat)
    return found, total
