"""A program on its chip gives a run: the machine of its kind, and energy from what it counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.chips import Chip, Whole
from tenfold.chips import chip as chip_named
from tenfold.errors import DoesNotFit
from tenfold.estimate import Estimate
from tenfold.facts import Account, Entry
from tenfold.machine.energy import dynamic_energy, energy_model
from tenfold.machine.kernel import BUFFER_LEVELS, Kernel, Program
from tenfold.machine.run import Counters, KernelRun, Run, Timed
from tenfold.machine.targets import target_of


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a program's kernels take, in their order, and its call beside them."""

    program: Program
    kernels: tuple[Timed, ...]
    counters: Counters
    launch_s: float

    @property
    def kernels_s(self) -> float:
        pairs = zip(self.kernels, self.program.kernels, strict=True)
        return sum(t.time_s * k.repeat for t, k in pairs)

    @property
    def pass_s(self) -> float:
        return self.kernels_s + self.launch_s


def pace(program: Program, chip: Chip) -> Pace:
    """The times of ``program``, for whoever asks often and for nothing else; raises as ``simulate``
    does.
    """
    if chip.memory_bytes is not None and program.memory_bytes > chip.memory_bytes:
        raise DoesNotFit(program.model, program.memory_bytes, chip.name, chip.memory_bytes)
    target = target_of(chip)
    timed, total = time_kernels(chip, target.warm(program))
    link_s = program.io_bytes / chip.host_bytes_per_s if chip.host_bytes_per_s else 0.0
    return Pace(program, tuple(timed), total, target.entry_s(program) + link_s)


def simulate(program: Program, chip: Chip | None = None) -> Run:
    """Time, counters and energy of ``program``.

    Raises DoesNotFit if it needs more memory than the chip has, MissingFigure for a figure nobody
    published, InputError for a chip that is only listed.
    """
    chip = chip or chip_named(program.chip)
    found = pace(program, chip)
    model = energy_model(chip, program.precision)
    runs = tuple(
        KernelRun(k, t.time_s, t.bound, t.counters, dynamic_energy(model, t.counters))
        for k, t in zip(program.kernels, found.kernels, strict=True)
    )
    launch_cycles = found.launch_s * chip.clock("time")
    time = Estimate.within(found.pass_s, chip.error(Whole.MODEL))
    static = Account((Entry("static", model.static_w * time),))
    return Run(
        program=program,
        time_s=time,
        launch_s=found.launch_s,
        kernels=runs,
        counters=found.counters + Counters(cycles=launch_cycles, idle=launch_cycles),
        energy=Account.sum((*(r.energy.times(r.kernel.repeat) for r in runs), static)),
        peak_flops=chip.peak_flops[program.precision],
        energy_basis=model.basis,
    )


def time_kernels(chip: Chip, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
    """Each kernel as it runs after the ones before it, and the counters of them all.

    Raises ValueError for bytes at a level of which the machine does not know what they take.
    """
    target = target_of(chip)
    for level in BUFFER_LEVELS:
        moved = (k for k in kernels if k.traffic.at(level).total)
        if level not in target.levels and (kernel := next(moved, None)):
            raise ValueError(f"{chip.name} has no time for bytes at {level.key} ({kernel.name})")
    return target.time_kernels(kernels)


def time_kernel(chip: Chip, kernel: Kernel) -> Timed:
    """Seconds and counters of one launch of ``kernel`` on its own."""
    return time_kernels(chip, (kernel,))[0][0]
