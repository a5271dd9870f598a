"""Processors, as ONNX Runtime drives them: one operator after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tenfold.chips import Chip
from tenfold.machine.attention import in_parts, mask_apart
from tenfold.machine.host import operators
from tenfold.machine.host.layout import lay_out
from tenfold.machine.host.runtime import feeds, refuses
from tenfold.machine.kernel import Group, Kernel, Level, Program
from tenfold.machine.roofline import Parts, timed
from tenfold.machine.run import Counters, Timed, each_alone
from tenfold.machine.target import Cut, FusionRules, NearMemory

RULES = FusionRules(row_elements=0, vector_prologue=False, refuses=refuses, feeds=feeds)


@dataclass(frozen=True, slots=True)
class Host:
    """A processor under a runtime of single operators."""

    chip: Chip

    rules: ClassVar[FusionRules] = RULES
    levels: ClassVar[frozenset[Level]] = frozenset({Level.OFF_CHIP, Level.NEAR})
    single_ops: ClassVar[bool] = True
    serves: ClassVar[bool] = False
    own_host: ClassVar[bool] = True

    def parts(self, kernel: Kernel, group: Group, root: Mapping[str, str]) -> Iterable[Kernel]:
        """The runtime has no kernel for an attention; the mask is added on its own too."""
        if kernel.attention is None or not kernel.operands:
            return (kernel,)
        return mask_apart(in_parts(kernel, group, root, passes=1), group, root)

    def laid_out(self, kernels: Iterable[Kernel], cut: Cut) -> Iterator[Kernel]:
        return lay_out(kernels, cut, self.chip.vector_lanes)

    def cached(self, kernels: Iterable[Kernel]) -> Iterator[Kernel]:
        yield from kernels

    def near(self) -> NearMemory | None:
        return None

    def time_kernels(self, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
        return each_alone(kernels, self._time)

    def _time(self, kernel: Kernel) -> Timed:
        return timed(self.chip, kernel, operators.kernel_time(self.chip, kernel))

    def warm(self, program: Program) -> tuple[Kernel, ...]:
        """With what the caches hold marked near."""
        return operators.cached(self.chip, program)

    def entry_s(self, program: Program) -> float:
        return operators.entry_s(self.chip, program)

    def activity(self, kernel: Kernel) -> Parts:
        return operators.kernel_time(self.chip, kernel)
