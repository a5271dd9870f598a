"""A program on its chip gives a run: the machine of its kind, and energy from what it counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from tenfold.chips import Chip, MatrixPrecision, Whole
from tenfold.chips import chip as chip_named
from tenfold.errors import DoesNotFit
from tenfold.estimate import Estimate
from tenfold.facts import Account, Entry
from tenfold.machine.energy import clocked, dynamic_energy, energy_model, power_limit
from tenfold.machine.gpu.products import parts_of
from tenfold.machine.kernel import BUFFER_LEVELS, Kernel, Level, Program
from tenfold.machine.network import Network
from tenfold.machine.power import Drawn, PowerLimit
from tenfold.machine.roofline import TRANSCENDENTAL_OPS, spent
from tenfold.machine.run import Counters, KernelRun, Run, Timed, crossing
from tenfold.machine.stack import stack_facts
from tenfold.machine.targets import target_of

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


NO_TIME = Estimate.exact(0.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a program's kernels take, in their order, and its call beside them; ``together`` are
    those of its kernels that wait for links to other chips.
    """

    program: Program
    kernels: tuple[Timed, ...]
    counters: Counters
    launch_s: float
    together: Estimate = NO_TIME

    @property
    def kernels_s(self) -> float:
        pairs = zip(self.kernels, self.program.kernels, strict=True)
        return sum(t.time_s * k.repeat for t, k in pairs)

    @property
    def pass_s(self) -> float:
        return self.kernels_s + self.launch_s


def pace(program: Program, chip: Chip, network: Network | None = None) -> Pace:
    """The times of ``program``, for whoever asks often and for nothing else; raises as ``simulate``
    does.
    """
    if chip.memory_bytes is not None and program.memory_bytes > chip.memory_bytes:
        raise DoesNotFit(program.model, program.memory_bytes, chip.name, chip.memory_bytes)
    target = target_of(chip)
    timed, total = time_kernels(chip, target.warm(program), network)
    link_s = program.io_bytes / chip.host_bytes_per_s if chip.host_bytes_per_s else 0.0
    beside_s = target.entry_s(program) + link_s + _late_s(program, timed)
    shared = _together(program.kernels, network)
    return Pace(program, tuple(timed), total, beside_s, shared)


def _together(kernels: Sequence[Kernel], network: Network | None) -> Estimate:
    """Seconds of the kernels that wait for other chips."""
    if network is None:
        return NO_TIME
    shared = ((k.together, k.repeat) for k in kernels if k.together is not None)
    return Estimate.total(network.seconds(what) * repeat for what, repeat in shared)


def _late_s(program: Program, timed: Sequence[Timed]) -> float:
    """Seconds by which a host that launches every kernel is slower than the chip."""
    launch_s = stack_facts(program.stack).host_launch_s.value
    if not launch_s:
        return 0.0
    pairs = zip(program.kernels, timed, strict=True)
    launches, busy = (sum(n) for n in zip(*((k.repeat, t.time_s * k.repeat) for k, t in pairs)))
    return float(max(0.0, launches * launch_s - busy))


def simulate(program: Program, chip: Chip | None = None, network: Network | None = None) -> Run:
    """Time, counters and energy of ``program``; ``network`` joins the chip to those that run the
    other parts of it.

    Raises DoesNotFit if it needs more memory than the chip has, MissingFigure for a figure nobody
    published, InputError for a chip that is only listed.
    """
    chip = chip or chip_named(program.chip)
    found = pace(program, chip, network)
    model = energy_model(chip, program.precision)
    runs = tuple(
        KernelRun(
            kernel=k,
            time_s=t.time_s,
            bound=t.bound,
            counters=t.counters,
            energy=dynamic_energy(energy_model(chip, k.precision), t.counters, t.clocked),
            clock=t.clock,
        )
        for k, t in zip(program.kernels, found.kernels, strict=True)
    )
    launch_cycles = found.launch_s * chip.clock("time")
    alone = found.pass_s - found.together.value
    time = Estimate.within(max(0.0, alone), chip.error(Whole.MODEL)) + found.together
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


def time_kernels(
    chip: Chip, kernels: Sequence[Kernel], network: Network | None = None
) -> tuple[list[Timed], Counters]:
    """Each kernel as it runs after the ones before it, and the counters of them all.

    Raises ValueError for bytes at a level of which the machine does not know what they take, and
    for kernels that wait for other chips where no ``network`` joins any.
    """
    own = [k for k in kernels if k.together is None]
    timed, counters = _own_kernels(chip, own)
    if len(own) == len(kernels):
        return timed, counters
    if network is None:
        raise ValueError(f"{chip.name} is joined to no other chips")
    found, left = [], iter(timed)
    for kernel in kernels:
        t = next(left) if kernel.together is None else _waits(chip, kernel, network)
        found.append(t)
        if kernel.together is not None:
            counters = counters + t.counters.times(kernel.repeat)
    return found, counters


def _waits(chip: Chip, kernel: Kernel, network: Network) -> Timed:
    """A kernel that the links hold up: nothing computes, what is sent passes the memory."""
    assert kernel.together is not None
    seconds = network.seconds(kernel.together).value
    passing = float(kernel.traffic.all_reads + kernel.traffic.all_writes)
    crossed = crossing(kernel.traffic, {Level.ON_CHIP: (passing, passing)})
    cycles = seconds * chip.clock("time")
    counters = Counters(cycles=cycles, idle=cycles, read=crossed.read, written=crossed.written)
    return Timed(seconds, "network", counters)


def _own_kernels(chip: Chip, kernels: Sequence[Kernel]) -> tuple[list[Timed], Counters]:
    target = target_of(chip)
    for level in BUFFER_LEVELS:
        moved = (k for k in kernels if k.traffic.at(level).total)
        if level not in target.levels and (kernel := next(moved, None)):
            raise ValueError(f"{chip.name} has no time for bytes at {level.key} ({kernel.name})")
    timed, counters = target.time_kernels(kernels)
    return within_power(chip, kernels, timed, counters)


def within_power(
    chip: Chip, kernels: Sequence[Kernel], timed: list[Timed], counters: Counters
) -> tuple[list[Timed], Counters]:
    """Kernels that would draw more than the chip's limit at its own clock run at a lower one."""
    limit = power_limit(chip)
    if limit is None:
        return timed, counters
    found: list[Timed] = []
    seen: dict[tuple[int, MatrixPrecision], Timed] = {}  # equal kernels have one ``Timed``
    for kernel, t in zip(kernels, timed, strict=True):
        key = (id(t), kernel.precision)
        if key not in seen:
            seen[key] = _held(chip, limit, kernel, t)
        found.append(seen[key])
        if seen[key] is not t:
            more = seen[key].counters + t.counters.times(-1)
            counters = counters + more.times(kernel.repeat)
    return found, counters


def _held(chip: Chip, limit: PowerLimit, kernel: Kernel, t: Timed) -> Timed:
    c, clock = t.counters, chip.clock("time")
    with_clock, own = _joules_of(chip, kernel.precision)
    joules = with_clock[0] * c.macs_useful + with_clock[1] * c.vector_ops
    joules += sum(j * c.bytes(level) for level, j in with_clock[2].items())
    memory = sum(j * c.bytes(level) for level, j in own.items())
    driven = (c.active + c.weight_shift + c.vector) / clock
    drawn = Drawn(joules, memory, driven, t.time_s - driven)
    if limit.within(drawn):
        return t
    s = limit.sustained(drawn)
    slower, seconds = 1 / float(s.share), float(s.time_s)
    more = replace(
        c,
        active=c.active * slower,
        weight_shift=c.weight_shift * slower,
        vector=c.vector * slower,
        cycles=seconds * clock,
    )
    braked = more.cycles - (c.cycles + driven * clock * (slower - 1))
    more = replace(more, idle=c.idle + braked)
    return Timed(seconds, t.bound, more, float(s.share), float(s.joules))


_ByLevel: TypeAlias = Mapping[Level, float]


@lru_cache(maxsize=512)
def _joules_of(
    chip: Chip, precision: MatrixPrecision
) -> tuple[tuple[float, float, _ByLevel], _ByLevel]:
    """Joules of a multiply-add, a vector operation and bytes by level that go with the clock, and
    of bytes that do not.
    """
    model = energy_model(chip, precision)
    bytes_j = {level: j.value for level, j in model.byte_j.items() if j.value}
    mine = {level: j for level, j in bytes_j.items() if clocked(level)}
    own = {level: j for level, j in bytes_j.items() if not clocked(level)}
    return (model.mac_j.value, model.vector_op_j.value, mine), own


def time_kernel(chip: Chip, kernel: Kernel) -> Timed:
    """Seconds and counters of one launch of ``kernel`` on its own."""
    return time_kernels(chip, (kernel,))[0][0]


def gpu_times(chip: Chip, kernels: Sequence[Kernel]) -> Floats:
    """Seconds of many kernels of one family and precision on a GPU at once, as ``time_kernel``
    gives them one by one.
    """
    parts = parts_of(chip, kernels)
    limit = power_limit(chip)
    if limit is None:
        return np.asarray(parts.total)
    s = spent(parts)
    slots = s.active * chip.peak_flops[kernels[0].precision] / 2
    (mac_j, vector_j, byte_j), own = _joules_of(chip, kernels[0].precision)
    clocked_j, memory_j = (np.empty(len(kernels)) for _ in range(2))
    for i, k in enumerate(kernels):
        vector = k.vector_ops + k.transcendentals * TRANSCENDENTAL_OPS
        macs = min(sum(p.macs for p in k.products), slots[i])
        passing = 2 * (k.traffic.all_reads + k.traffic.all_writes)
        clocked_j[i] = mac_j * macs + vector_j * vector + byte_j[Level.ON_CHIP] * passing
        memory_j[i] = sum(
            j * (k.traffic.reads(level) + k.traffic.at(level).outputs) for level, j in own.items()
        )
    driven = s.active + s.vector
    drawn = Drawn(clocked_j, memory_j, driven, parts.total - driven)
    return np.asarray(limit.sustained(drawn).time_s)
