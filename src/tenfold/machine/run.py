"""What a simulation gives: time, counters and energy, by kernel and in total."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tenfold.estimate import Estimate
from tenfold.machine.kernel import Kernel, Program


@dataclass(frozen=True, slots=True)
class Counters:
    """Exact sums over the kernels. The six kinds of cycles add up to ``cycles``.

    ``active`` the matrix unit multiplies; ``weight_stall`` it waits for weights from memory;
    ``weight_shift`` for weights to be shifted in; ``memory_stall`` for activations or results to
    move; ``vector`` for the vector unit; ``idle`` launch and the rest.
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
    memory_read_bytes: float = 0.0
    memory_write_bytes: float = 0.0
    near_bytes: float = 0.0
    sram_bytes: float = 0.0
    vector_ops: float = 0.0

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counters)))

    def times(self, n: int) -> Counters:
        return Counters(*(getattr(self, f.name) * n for f in fields(Counters)))


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds and counters of one launch, and the unit that bounds it."""

    time_s: float
    bound: str
    counters: Counters


@dataclass(frozen=True, slots=True)
class EnergyEntry:
    """One line of the energy account, in joules."""

    what: str
    energy_j: Estimate


@dataclass(frozen=True, slots=True)
class KernelRun:
    """One kernel: seconds of a single launch, which unit bounds it, counters and energy of that
    launch.
    """

    kernel: Kernel
    time_s: float
    bound: str
    counters: Counters
    energy: tuple[EnergyEntry, ...]


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
    energy: tuple[EnergyEntry, ...]
    peak_flops: float
    energy_basis: str

    @property
    def energy_j(self) -> Estimate:
        return Estimate.total(e.energy_j for e in self.energy)

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
