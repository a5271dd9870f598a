"""Software-scheduled chips: the compiler places buffers and cuts kernels into tile programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from tenfold.chips import Chip, SystolicConstant
from tenfold.ir.table import Rate
from tenfold.machine.attention import all_scores, in_parts, softmax_in_two
from tenfold.machine.kernel import Group, Kernel, Level, Program
from tenfold.machine.run import Counters, Timed
from tenfold.machine.systolic import chain
from tenfold.machine.systolic.array import near_bytes, near_memory
from tenfold.machine.systolic.maxplus import Repeat
from tenfold.machine.systolic.tiles import balance
from tenfold.machine.target import Cut, FusionRules, NearMemory

# Accumulators hold whole rows.
RULES = FusionRules(row_elements=8192, vector_prologue=True, rows_once=True)
# Of the off-chip memory: beyond it the scores of one attention must stay inside a kernel (assumed).
LARGEST_SCORES = 0.25


@dataclass(frozen=True, slots=True)
class Systolic:
    """A software-scheduled chip of systolic arrays."""

    chip: Chip

    rules: ClassVar[FusionRules] = RULES
    levels: ClassVar[frozenset[Level]] = frozenset({Level.OFF_CHIP, Level.NEAR})
    single_ops: ClassVar[bool] = False
    serves: ClassVar[bool] = False
    own_host: ClassVar[bool] = False

    def parts(self, kernel: Kernel, group: Group, root: Mapping[str, str]) -> Iterable[Kernel]:
        """XLA has no kernel for an attention: scores, softmax and values run one after the other,
        all scores are computed, causal or not, and they stay on the chip while they fit; the
        softmax reads them twice, once for each row's maximum and sum.
        """
        if not kernel.operands:
            return (kernel,)
        if not kernel.products and kernel.rate is Rate.SOFTMAX:
            return softmax_in_two(kernel)
        if kernel.attention is None:
            return (kernel,)
        whole = all_scores(kernel, kernel.attention)
        first = whole.products[0]
        scores = first.batch * first.m * first.n * kernel.operand_bits / 8
        if scores > LARGEST_SCORES * (self.chip.memory_bytes or 0):
            return (kernel,)
        return in_parts(whole, group, root, passes=2)

    def laid_out(self, kernels: Iterable[Kernel], cut: Cut) -> Iterator[Kernel]:
        yield from kernels

    def cached(self, kernels: Iterable[Kernel]) -> Iterator[Kernel]:
        yield from kernels

    def near(self) -> NearMemory | None:
        level = near_memory(self.chip)
        return NearMemory(
            name=level.name,
            bytes=near_bytes(self.chip),
            holds_all=self.chip.activation_level is not None,
            keeps_weights=self.chip.weight_level is level.role,
            balance=partial(balance, self.chip),
        )

    def time_kernels(self, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
        return chain.time_kernels(self.chip, tuple(kernels))

    def warm(self, program: Program) -> tuple[Kernel, ...]:
        return program.kernels

    def entry_s(self, program: Program) -> float:
        return self.chip.constant(SystolicConstant.LAUNCH_S)

    def activity(self, kernel: Kernel) -> Repeat:
        return chain.kernel_program(self.chip, kernel)
