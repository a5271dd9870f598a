"""Programs as text: kernels with the buffers they touch and, for software-scheduled chips, their
instructions.
"""

from __future__ import annotations

from collections.abc import Iterator

from tenfold.chips import Chip
from tenfold.machine.kernel import Program
from tenfold.machine.systolic.maxplus import DURATIONS, Repeat
from tenfold.machine.systolic.step import Drain, Instruction, Launch
from tenfold.machine.targets import target_of


def program_text(program: Program, chip: Chip) -> str:
    """The program, stable from run to run and made to be compared."""
    return "\n".join(_lines(program, chip)) + "\n"


def _lines(program: Program, chip: Chip) -> Iterator[str]:
    memory = program.memory
    yield (
        f"program {program.model} on {program.chip}, {program.precision.value}, {program.items}"
        " items"
    )
    yield (
        f"  {len(program.kernels)} kernels, {program.weight_bytes:,} bytes of weights,"
        f" {memory.far_bytes:,} of activations off chip"
    )
    if memory.near:
        near = sum(b.bytes for b in memory.near)
        yield (
            f"  {len(memory.near)} buffers, {near:,} bytes, take turns in {memory.capacity:,} bytes"
            f" of {memory.level}"
        )
    places = {b.name for b in program.memory.near}
    for number, kernel in enumerate(program.kernels):
        yield (
            f"kernel {number} '{kernel.name}' ="
            f" {' '.join(kernel.ops)}{f' x {kernel.repeat}' if kernel.repeat > 1 else ''}"
        )
        for p in kernel.products:
            yield (
                f"  product {p.batch} x [{p.m}, {p.k}] x [{p.k},"
                f" {p.n}]{f' x {p.repeat}' if p.repeat > 1 else ''}"
            )
        for o in kernel.operands:
            yield (
                f"  {o.role.value} '{o.name}' {o.bytes:,} bytes"
                f" {program.memory.level if o.name in places else 'off chip'}"
            )
        if kernel.traffic.near.total and not memory.near:
            yield f"  of what it reads {kernel.traffic.near.reads:,} bytes are still in L2"
        if kernel.traffic.prefetched or kernel.traffic.prefetch:
            yield (
                f"  fetched before {kernel.traffic.prefetched:,} bytes, fetches for later"
                f" {kernel.traffic.prefetch:,}"
            )
        activity = target_of(chip).activity(kernel)
        if isinstance(activity, Repeat):
            yield from _nest(activity, "  ")
        else:
            yield (
                f"  vector {kernel.vector_ops:,} operations, {kernel.transcendentals:,}"
                " transcendental"
            )


def _nest(program: Repeat, pad: str) -> Iterator[str]:
    if program.count == 1:
        for p in program.parts:
            yield from _nest(p, pad) if isinstance(p, Repeat) else (pad + _instruction(p),)
        return
    yield f"{pad}repeat {program.count} {{"
    for p in program.parts:
        yield from (
            _nest(p, pad + "  ") if isinstance(p, Repeat) else (pad + "  " + _instruction(p),)
        )
    yield pad + "}"


def _instruction(i: Instruction) -> str:
    if isinstance(i, Launch):
        return f"launch {i.cycles}"
    if isinstance(i, Drain):
        return f"drain {i.weights + i.rest}"
    durations = [f"{n} {getattr(i, n)}" for n in DURATIONS if getattr(i, n)]
    where = {
        (True, False): ["first k"],
        (False, False): ["mid k"],
        (False, True): ["last k"],
        (True, True): [],
    }
    ends = where[i.first_k, i.last_k]
    return "tile " + ", ".join([*durations, *ends])
