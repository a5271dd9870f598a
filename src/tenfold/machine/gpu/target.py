"""GPUs: hardware schedules blocks of threads, libraries bring attention as one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from tenfold.chips import Chip, SramRole
from tenfold.machine.attention import all_scores, in_parts, scores_passed
from tenfold.machine.gpu.cache import through_cache
from tenfold.machine.gpu.framework import rules_of
from tenfold.machine.gpu.products import kernel_time
from tenfold.machine.kernel import Group, Kernel, Level, Program
from tenfold.machine.roofline import Parts, timed
from tenfold.machine.run import Counters, Timed, each_alone
from tenfold.machine.stack import Stack, attention_pace, stack_facts
from tenfold.machine.target import Cut, FusionRules, NearMemory

# A thread block sees one tile of columns.
RULES = FusionRules(row_elements=128, vector_prologue=False)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A hardware-scheduled chip."""

    chip: Chip
    stack: Stack = Stack.ENGINE
    flash: bool = False

    levels: ClassVar[frozenset[Level]] = frozenset({Level.OFF_CHIP, Level.NEAR})
    single_ops: ClassVar[bool] = False
    serves: ClassVar[bool] = True
    own_host: ClassVar[bool] = False

    @property
    def rules(self) -> FusionRules:
        return rules_of(stack_facts(self.stack).fusing, RULES)

    def parts(self, kernel: Kernel, group: Group, root: Mapping[str, str]) -> Iterable[Kernel]:
        """An attention is one kernel, or three where those are quicker; a softmax over few keys
        stays in the kernel that makes the scores. Frameworks run it as three, and more where they
        scale and mask on their own.
        """
        if self.flash:
            return (self._by_own_kernel(kernel),)
        if kernel.attention is None or not kernel.operands:
            return (kernel,)
        facts = stack_facts(self.stack)
        if not facts.attention_whole:
            whole = all_scores(kernel, kernel.attention)
            return scores_passed(in_parts(whole, group, root, passes=1), facts.score_passes)
        passes = 0 if kernel.attention.kv_len <= RULES.row_elements else 1
        parts = in_parts(kernel, group, root, passes=passes)
        quicker = _quicker(self.chip, kernel.shape, tuple(p.shape for p in parts))
        return parts if quicker else (kernel,)

    def _by_own_kernel(self, kernel: Kernel) -> Kernel:
        """An attention, forward or backward, by the kernel that the stack has for it."""
        pace = attention_pace(self.stack, self.chip.sold_as)
        if kernel.attention is not None:
            return replace(kernel, slower=pace.forward)
        backward = kernel.backward_of is not None
        return replace(kernel, slower=pace.backward) if backward else kernel

    def laid_out(self, kernels: Iterable[Kernel], cut: Cut) -> Iterator[Kernel]:
        yield from kernels

    def cached(self, kernels: Iterable[Kernel]) -> Iterator[Kernel]:
        return through_cache(kernels, self.chip.level_bytes(SramRole.L2))

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


@lru_cache(maxsize=4096)
def _quicker(chip: Chip, whole: Kernel, parts: tuple[Kernel, ...]) -> bool:
    """Whether a kernel takes longer than its parts one after the other."""
    return sum(kernel_time(chip, p).total for p in parts) < kernel_time(chip, whole).total
