"""A roofline (Williams, Waterman, Patterson 2009): peak, bandwidth, and what kernels reach of them.

The shares are assumed: what GPUs and TPUs of the catalogue reach over whole networks, in the
middle. How far such a time is from the chip's own model, where it has one, is the interval
(``ERROR``, tested on the catalogue).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tenfold.chips import Chip, MatrixPrecision
from tenfold.machine.kernel import Group, Kernel, Level, Program
from tenfold.machine.roofline import TRANSCENDENTAL_OPS, Parts, norm, timed, vector_cycles
from tenfold.machine.run import Counters, Timed, each_alone
from tenfold.machine.target import Cut, FusionRules, NearMemory

RULES = FusionRules(row_elements=128, vector_prologue=False)
MATRIX_SHARE = 0.5  # of the peak, that products reach in whole networks
MEMORY_SHARE = 0.75  # of the bandwidth
LAUNCH_S = 4e-6
VECTOR_SHARE = 1 / 16  # of the best peak, where no peak of fp32 says what vectors do


@dataclass(frozen=True, slots=True)
class Plain:
    """A chip as its roofline."""

    chip: Chip

    rules: ClassVar[FusionRules] = RULES
    levels: ClassVar[frozenset[Level]] = frozenset({Level.OFF_CHIP})
    single_ops: ClassVar[bool] = False
    serves: ClassVar[bool] = False
    own_host: ClassVar[bool] = False

    def parts(self, kernel: Kernel, group: Group, root: Mapping[str, str]) -> Iterable[Kernel]:
        return (kernel,)

    def laid_out(self, kernels: Iterable[Kernel], cut: Cut) -> Iterator[Kernel]:
        yield from kernels

    def cached(self, kernels: Iterable[Kernel]) -> Iterator[Kernel]:
        yield from kernels

    def near(self) -> NearMemory | None:
        return None

    def time_kernels(self, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
        return each_alone(kernels, self._time)

    def _time(self, kernel: Kernel) -> Timed:
        return timed(self.chip, kernel, kernel_time(self.chip, kernel))

    def warm(self, program: Program) -> tuple[Kernel, ...]:
        return program.kernels

    def entry_s(self, program: Program) -> float:
        return 0.0

    def activity(self, kernel: Kernel) -> Parts:
        return kernel_time(self.chip, kernel)


def kernel_time(chip: Chip, kernel: Kernel) -> Parts:
    """Time of one launch; every part a number."""
    peak, bandwidth = chip.peak_flops[kernel.precision], chip.memory_bytes_per_s
    assert bandwidth is not None
    clock = chip.clock("time")
    macs = sum(p.macs for p in kernel.products)
    matrix = 2 * macs / (peak * MATRIX_SHARE)
    own = chip.peak_flops.get(MatrixPrecision.FP32)
    vector_rate = own or max(chip.peak_flops.values()) * VECTOR_SHARE
    ops = kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS
    vector = vector_cycles(ops, vector_rate / clock, kernel.chain, pairs=True) / clock
    memory = kernel.traffic.total / (bandwidth * MEMORY_SHARE)
    total = float(norm(matrix, memory, vector)) + LAUNCH_S
    return Parts(total, matrix, vector, memory, 0.0, LAUNCH_S)
