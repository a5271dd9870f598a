"""One interface over the machine models: a program on its chip gives a run."""

from __future__ import annotations

from tenfold.chips import Chip, MatrixPrecision
from tenfold.chips import chip as chip_named
from tenfold.errors import DoesNotFit, InputError
from tenfold.estimate import Estimate
from tenfold.machine import chain, gpu, host
from tenfold.machine.energy import EnergyModel, energy_model
from tenfold.machine.gpu_rates import TRANSCENDENTAL_OPS, Parts
from tenfold.machine.kernel import Kernel, Program
from tenfold.machine.run import Counters, EnergyEntry, KernelRun, Run, Timed


def simulate(program: Program, chip: Chip | None = None) -> Run:
    """Time, counters and energy of ``program``.

    Raises DoesNotFit if it needs more memory than the chip has, MissingFigure for a figure nobody
    published, InputError for a chip that is only listed.
    """
    chip = chip or chip_named(program.chip)
    require_model(chip)
    if chip.memory_bytes is not None and program.memory_bytes > chip.memory_bytes:
        raise DoesNotFit(program.model, program.memory_bytes, chip.name, chip.memory_bytes)
    kernels = host.cached(chip, program) if chip.kind == "host" else program.kernels
    timed, total = time_kernels(chip, kernels)
    model = energy_model(chip, program.precision)
    runs = [
        KernelRun(k, t.time_s, t.bound, t.counters, _dynamic(model, t.counters))
        for k, t in zip(program.kernels, timed, strict=True)
    ]
    launch = _entry_s(chip, program)
    clock = chip.clock("time")
    seconds = sum(t.time_s * k.repeat for k, t in zip(program.kernels, timed, strict=True))
    total = total + Counters(cycles=launch * clock, idle=launch * clock)
    time = Estimate.within(seconds + launch, chip.error("model"))
    entries = (*_sum_entries(runs), EnergyEntry("static", model.static_w * time))
    return Run(
        program,
        time,
        launch,
        tuple(runs),
        total,
        entries,
        chip.peak_flops[program.precision],
        model.basis,
    )


def time_kernels(chip: Chip, kernels: tuple[Kernel, ...]) -> tuple[list[Timed], Counters]:
    """Each kernel as it runs after the ones before it, and the counters of them all."""
    if chip.kind == "systolic":
        return chain.time_kernels(chip, kernels)
    seen: dict[tuple[object, ...], Timed] = {}
    timed, total = [], Counters()
    for k in kernels:
        if k.shape not in seen:
            seen[k.shape] = time_kernel(chip, k)
        timed.append(seen[k.shape])
        total = total + seen[k.shape].counters.times(k.repeat)
    return timed, total


def _entry_s(chip: Chip, program: Program) -> float:
    """What a pass takes beside its kernels: its start, and inputs and results over the link to the
    host.
    """
    link_s = program.io_bytes / chip.host_bytes_per_s if chip.host_bytes_per_s else 0.0
    if chip.kind == "host":
        return host.entry_s(chip, program) + link_s
    return (chip.constant("launch_s") if chip.kind == "systolic" else 0.0) + link_s


def require_model(chip: Chip) -> None:
    if chip.kind == "listed":
        raise InputError(
            f"{chip.name} is listed for its figures only: there is no machine model of it"
        )


def time_kernel(chip: Chip, kernel: Kernel) -> Timed:
    """Seconds and counters of one launch of ``kernel`` on ``chip``, by the model of its kind."""
    if chip.kind == "systolic":
        return chain.time_kernels(chip, (kernel,))[0][0]
    parts = gpu.kernel_time(chip, kernel) if chip.kind == "gpu" else host.kernel_time(chip, kernel)
    return from_parts(chip, kernel, parts)


def from_parts(chip: Chip, kernel: Kernel, parts: Parts) -> Timed:
    """Counters of a roofline kernel: cycles not spent multiplying go to what held it up."""
    clock = chip.clock("time")
    names = {
        "matrix": parts.matrix,
        "memory": parts.memory,
        "vector": parts.vector,
        "l2": parts.l2,
        "launch": parts.overhead,
    }
    bound = max(names, key=lambda n: names[n])
    useful = sum(p.macs for p in kernel.products)
    active = min(parts.total, parts.matrix)
    rest = parts.total - active
    idle = min(rest, parts.overhead)
    memory = min(rest - idle, max(0.0, max(parts.memory, parts.l2) - active))
    slots = active * chip.peak_flops[kernel.precision] / 2
    counters = Counters(
        cycles=parts.total * clock,
        active=active * clock,
        memory_stall=memory * clock,
        vector=(rest - idle - memory) * clock,
        idle=idle * clock,
        macs_useful=useful,
        macs_wasted=max(0.0, slots - useful),
        memory_read_bytes=kernel.traffic.reads,
        memory_write_bytes=kernel.traffic.outputs,
        sram_bytes=2.0 * kernel.traffic.total,
        vector_ops=kernel.vector_ops + kernel.transcendentals * TRANSCENDENTAL_OPS,
    )
    return Timed(parts.total, bound, counters)


# --- energy -----------------------------------------------------------------------------


def dynamic_energy(chip: Chip, precision: MatrixPrecision, c: Counters) -> tuple[EnergyEntry, ...]:
    """Dynamic energy of one launch on ``chip``, by operation and level."""
    return _dynamic(energy_model(chip, precision), c)


def static_power(chip: Chip, precision: MatrixPrecision) -> Estimate:
    """Watts that the chip draws whatever it does."""
    return energy_model(chip, precision).static_w


def _dynamic(model: EnergyModel, c: Counters) -> tuple[EnergyEntry, ...]:
    """Dynamic energy of one launch, by operation and level."""
    return (
        EnergyEntry("matrix", model.mac_j * c.macs_useful),
        EnergyEntry("vector", model.vector_op_j * c.vector_ops),
        EnergyEntry("on-chip memory", model.sram_byte_j * c.sram_bytes),
        EnergyEntry(
            "off-chip memory", model.memory_byte_j * (c.memory_read_bytes + c.memory_write_bytes)
        ),
    )


def _sum_entries(runs: list[KernelRun]) -> list[EnergyEntry]:
    names = ("matrix", "vector", "on-chip memory", "off-chip memory")
    return [
        EnergyEntry(
            n,
            Estimate.total(
                e.energy_j * r.kernel.repeat for r in runs for e in r.energy if e.what == n
            ),
        )
        for n in names
    ]
