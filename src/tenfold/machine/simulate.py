"""One interface over the machine models: a program on its chip gives a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tenfold.chips import Chip, MatrixPrecision
from tenfold.chips import chip as chip_named
from tenfold.errors import DoesNotFit, InputError
from tenfold.estimate import Estimate
from tenfold.machine import gpu, host, systolic
from tenfold.machine.energy import EnergyModel, energy_model
from tenfold.machine.kernel import Kernel, Program
from tenfold.machine.maxplus import Repeat
from tenfold.machine.run import Counters, EnergyEntry, KernelRun, Run
from tenfold.machine.step import Tile


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds and counters of one launch, and the unit that bounds it."""

    time_s: float
    bound: str
    counters: Counters


def simulate(program: Program, chip: Chip | None = None) -> Run:
    """Time, counters and energy of ``program``.

    Raises DoesNotFit if it needs more memory than the chip has, MissingFigure for a figure nobody
    published, InputError for a chip that is only listed.
    """
    chip = chip or chip_named(program.chip)
    require_model(chip)
    if chip.memory_bytes is not None and program.memory_bytes > chip.memory_bytes:
        raise DoesNotFit(program.model, program.memory_bytes, chip.name, chip.memory_bytes)
    model = energy_model(chip, program.precision)
    seen: dict[tuple[object, ...], Timed] = {}
    runs: list[KernelRun] = []
    total, seconds = Counters(), 0.0
    for kernel in program.kernels:
        if kernel.shape not in seen:
            seen[kernel.shape] = time_kernel(chip, kernel)
        timed = seen[kernel.shape]
        runs.append(KernelRun(kernel, timed.time_s, timed.bound, timed.counters, _dynamic(model, timed.counters)))
        total = total + timed.counters.times(kernel.repeat)
        seconds += timed.time_s * kernel.repeat
    launch = chip.constant("launch_s") if chip.kind == "systolic" else 0.0
    clock = chip.clock("time")
    total = total + Counters(cycles=launch * clock, idle=launch * clock)
    time = Estimate.within(seconds + launch, chip.constant("time_error"))
    time = replace(time, low=min(time.low, roofline(program, chip)))
    entries = (*_sum_entries(runs), EnergyEntry("static", model.static_w * time))
    return Run(program, time, launch, tuple(runs), total, entries, chip.peak_flops[program.precision], model.basis)


def roofline(program: Program, chip: Chip) -> float:
    """Seconds that no schedule can beat: peak arithmetic, or weights, inputs and outputs moved once.

    Williams, Waterman, Patterson 2009. Until fusion and residency are modelled the truth lies between this and
    the sum of the kernels, so it is the lower end of a program's interval.
    """
    arithmetic = sum(k.flops * k.repeat / chip.peak_flops[k.precision] for k in program.kernels)
    moved = (program.weight_bytes + program.io_bytes) / (chip.memory_bytes_per_s or float("inf"))
    return max(arithmetic, moved)


def require_model(chip: Chip) -> None:
    if chip.kind == "listed":
        raise InputError(f"{chip.name} is listed for its figures only: there is no machine model of it")


def time_kernel(chip: Chip, kernel: Kernel) -> Timed:
    """Seconds and counters of one launch of ``kernel`` on ``chip``, by the model of its kind."""
    if chip.kind == "systolic":
        return _systolic(chip, kernel)
    parts = gpu.kernel_time(chip, kernel) if chip.kind == "gpu" else host.kernel_time(chip, kernel)
    return from_parts(chip, kernel, parts)


def from_parts(chip: Chip, kernel: Kernel, parts: gpu.Parts) -> Timed:
    """Counters of a roofline kernel: cycles not spent multiplying go to what held it up."""
    clock = chip.clock("time")
    names = {"matrix": parts.matrix, "memory": parts.memory, "vector": parts.vector, "l2": parts.l2, "launch": parts.overhead}
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
        vector_ops=kernel.vector_ops + kernel.transcendentals * gpu.TRANSCENDENTAL_OPS,
    )
    return Timed(parts.total, bound, counters)


# --- systolic ------------------------------------------------------------------------------------------


def systolic_programs(chip: Chip, kernel: Kernel) -> list[tuple[Repeat, int]]:
    """The tile programs of a kernel with how often each runs in a row."""
    array = systolic.array_of(chip, kernel.precision, kernel.operand_bits)
    if not kernel.products:
        return [(systolic.vector_program(kernel, array, array.buffer_bytes / 8), 1)]
    macs = sum(p.macs for p in kernel.products)
    results = max(sum(p.batch * p.m * p.n * p.repeat for p in kernel.products), 1)
    drain = 1 + (kernel.vector_ops + kernel.transcendentals * systolic.TRANSCENDENTAL_OPS) / results
    programs = []
    for p in kernel.products:
        share = p.macs / max(macs, 1) / p.repeat
        t = kernel.traffic
        weights = systolic.whole_tiles(p, array) if chip.whole_weight_tiles and t.weights else t.weights * share
        moved = systolic.Bytes(t.inputs * share, weights, t.outputs * share)
        programs.append((systolic.best_program(replace(p, repeat=1), array, moved, drain), p.repeat))
    return programs


def _systolic(chip: Chip, kernel: Kernel) -> Timed:
    clock = chip.clock("time")
    matrix = chip.matrix
    assert matrix is not None
    overhead = chip.constant("kernel_s") * clock
    total = Counters(cycles=overhead, idle=overhead)
    busy = {"memory": 0.0, "matrix": 0.0, "vector": 0.0}
    for program, repeat in systolic_programs(chip, kernel):
        total = total + _attributed(program).times(repeat)
        for tile, times in program.kinds(repeat):
            busy["memory"] += (tile.weight_dma + tile.act_dma + tile.out_dma) * times
            busy["matrix"] += tile.matrix * times
            busy["vector"] += tile.vector * times
    useful = sum(p.macs for p in kernel.products)
    array = systolic.array_of(chip, kernel.precision, kernel.operand_bits)
    slots = total.active * matrix.macs_per_cycle / array.cycles_per_row
    bound = max(busy, key=lambda b: busy[b])
    if total.cycles > 2 * busy[bound]:
        bound = "latency"
    total = replace(
        total,
        macs_useful=useful,
        macs_wasted=max(0.0, slots - useful),
        memory_read_bytes=kernel.traffic.reads,
        memory_write_bytes=kernel.traffic.outputs,
        sram_bytes=2.0 * kernel.traffic.total + _streamed_bytes(kernel, matrix.columns, matrix.rows),
        vector_ops=kernel.vector_ops + kernel.transcendentals * systolic.TRANSCENDENTAL_OPS,
    )
    return Timed(total.cycles / clock, bound, total)


def _streamed_bytes(kernel: Kernel, columns: int, rows: int) -> float:
    """Vector memory to array: activations once per column tile; results once per k tile."""
    width = kernel.operand_bits / 8
    return sum(p.batch * p.repeat * p.m * (p.k * -(-p.n // columns) * width + p.n * -(-p.k // rows) * 4) for p in kernel.products)


_RELAX = (
    ("weight_stall", ("weight_dma",)),
    ("weight_shift", ("weight_load",)),
    ("memory_stall", ("act_dma", "out_dma")),
    ("vector", ("vector",)),
)


def _attributed(program: Repeat) -> Counters:
    """Cycles by cause: what each unit, made infinitely fast after the ones before it, takes off the time."""
    before = systolic.exact_cycles(program)
    total = before
    found: dict[str, float] = {}
    for name, relaxed in _RELAX:
        program = _without(program, relaxed)
        after = systolic.exact_cycles(program)
        found[name] = float(before - after)
        before = after
    active = float(sum(t.matrix * n for t, n in program.kinds()))
    return Counters(cycles=float(total), active=active, idle=before - active, **found)


def _without(program: Repeat, names: tuple[str, ...]) -> Repeat:
    gone: dict[str, Any] = dict.fromkeys(names, 0)
    parts = tuple(replace(p, **gone) if isinstance(p, Tile) else _without(p, names) for p in program.parts)
    return Repeat(parts, program.count)


# --- energy ----------------------------------------------------------------------------------------------


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
        EnergyEntry("off-chip memory", model.memory_byte_j * (c.memory_read_bytes + c.memory_write_bytes)),
    )


def _sum_entries(runs: list[KernelRun]) -> list[EnergyEntry]:
    names = ("matrix", "vector", "on-chip memory", "off-chip memory")
    return [EnergyEntry(n, Estimate.total(e.energy_j * r.kernel.repeat for r in runs for e in r.energy if e.what == n)) for n in names]
