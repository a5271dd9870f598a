"""A program on its chip gives a run: the machine of its kind, and energy from what it counted."""

from __future__ import annotations

from collections.abc import Sequence

from tenfold.chips import Chip, Whole
from tenfold.chips import chip as chip_named
from tenfold.errors import DoesNotFit
from tenfold.estimate import Estimate
from tenfold.facts import Account, Entry
from tenfold.machine.energy import dynamic_energy, energy_model
from tenfold.machine.kernel import Kernel, Program
from tenfold.machine.run import Counters, KernelRun, Run, Timed
from tenfold.machine.targets import target_of


def simulate(program: Program, chip: Chip | None = None) -> Run:
    """Time, counters and energy of ``program``.

    Raises DoesNotFit if it needs more memory than the chip has, MissingFigure for a figure nobody
    published, InputError for a chip that is only listed.
    """
    chip = chip or chip_named(program.chip)
    target = target_of(chip)
    if chip.memory_bytes is not None and program.memory_bytes > chip.memory_bytes:
        raise DoesNotFit(program.model, program.memory_bytes, chip.name, chip.memory_bytes)
    timed, total = target.time_kernels(target.warm(program))
    model = energy_model(chip, program.precision)
    runs = tuple(
        KernelRun(k, t.time_s, t.bound, t.counters, dynamic_energy(model, t.counters))
        for k, t in zip(program.kernels, timed, strict=True)
    )
    link_s = program.io_bytes / chip.host_bytes_per_s if chip.host_bytes_per_s else 0.0
    launch_s = target.entry_s(program) + link_s
    launch_cycles = launch_s * chip.clock("time")
    seconds = sum(r.time_s * r.kernel.repeat for r in runs)
    time = Estimate.within(seconds + launch_s, chip.error(Whole.MODEL))
    static = Account((Entry("static", model.static_w * time),))
    return Run(
        program=program,
        time_s=time,
        launch_s=launch_s,
        kernels=runs,
        counters=total + Counters(cycles=launch_cycles, idle=launch_cycles),
        energy=Account.sum((*(r.energy.times(r.kernel.repeat) for r in runs), static)),
        peak_flops=chip.peak_flops[program.precision],
        energy_basis=model.basis,
    )


def time_kernels(chip: Chip, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
    """Each kernel as it runs after the ones before it, and the counters of them all."""
    return target_of(chip).time_kernels(kernels)


def time_kernel(chip: Chip, kernel: Kernel) -> Timed:
    """Seconds and counters of one launch of ``kernel`` on its own."""
    return time_kernels(chip, (kernel,))[0][0]
