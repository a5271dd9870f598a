"""Traces: what each unit does when, in the Trace Event Format that Perfetto and chrome://tracing
read.

A kernel of few tiles shows every one of them, from the same step that times it; a longer one shows
its first tiles and then how long each unit is busy until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tenfold.chips import Chip
from tenfold.machine.run import Run
from tenfold.machine.systolic.maxplus import Clock, Repeat, closed_form, walk
from tenfold.machine.systolic.step import STATES, Drain, Instruction, Launch, Tile, step
from tenfold.machine.targets import target_of

TILES_SHOWN = 64  # of each kernel
EVENTS_SHOWN = 100_000  # in all; kernels after that are spans only
UNITS = ("kernels", "DMA in", "near memory", "weight load", "matrix unit", "vector unit", "DMA out")


@dataclass(frozen=True, slots=True)
class Event:
    """``unit`` works on ``what`` from ``start`` for ``length`` seconds."""

    unit: str
    what: str
    start_s: float
    length_s: float


class _Recorder(Clock):
    """Integer time that remembers every duration it adds."""

    def __init__(self, start: list[int]) -> None:
        super().__init__(start)
        self.added: list[tuple[int, int]] = []

    def after(self, time: int, cycles: int) -> int:
        self.added.append((time, cycles))
        return time + cycles


def trace(run: Run, chip: Chip) -> list[Event]:
    """The events of a run, in order of kernels."""
    events = list(_spans(run))
    events += islice(_tiles(run, chip), EVENTS_SHOWN)
    return events


def _spans(run: Run) -> Iterator[Event]:
    at = run.launch_s
    if run.launch_s:
        yield Event("kernels", "launch", 0.0, run.launch_s)
    for k in run.kernels:
        length = k.time_s * k.kernel.repeat
        yield Event("kernels", f"{k.kernel.name} ({' '.join(k.kernel.ops)})", at, length)
        at += length


def _tiles(run: Run, chip: Chip) -> Iterator[Event]:
    cycle = 1 / chip.clock("time")
    state = [0] * STATES
    target = target_of(chip)
    for k in run.kernels:
        tiles = target.tile_program(k.kernel)
        if tiles is None:
            return
        program = Repeat((tiles,), k.kernel.repeat)
        recorder = _Recorder(list(state))
        for instruction in islice(walk(program), TILES_SHOWN):
            step(recorder, instruction)
            for unit, (start, length) in zip(_units(instruction), recorder.added, strict=True):
                if length and unit:
                    yield Event(unit, k.kernel.name, run.launch_s + start * cycle, length * cycle)
            recorder.added.clear()
        state = recorder.v if program.tiles <= TILES_SHOWN else closed_form(program, state)


def _units(instruction: Instruction) -> Sequence[str]:
    """The unit behind each duration that ``step`` adds for this instruction, in its order; "" where
    none works.
    """
    if isinstance(instruction, Launch):
        return ("DMA in", "")
    if isinstance(instruction, Drain):
        return ("",)
    assert isinstance(instruction, Tile)
    weights = ("DMA in", *(("near memory",) if instruction.weights_near else ()), "weight load")
    drain = ("vector unit", "", "DMA out")
    return (
        *(weights if instruction.new_weights else ()),
        "DMA in",
        "DMA in",
        "near memory",
        "matrix unit",
        *(drain if instruction.last_k else ()),
    )


def trace_document(run: Run, chip: Chip) -> dict[str, object]:
    """The trace as a JSON document of the Trace Event Format; times in microseconds."""
    threads = {u: i for i, u in enumerate(UNITS)}
    events = trace(run, chip)
    used = {e.unit for e in events}
    shown = UNITS if used - {UNITS[0]} else UNITS[:1]
    named = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": threads[u], "args": {"name": u}}
        for u in shown
    ]
    spans = [
        {
            "name": e.what,
            "cat": e.unit,
            "ph": "X",
            "pid": 0,
            "tid": threads[e.unit],
            "ts": e.start_s * 1e6,
            "dur": e.length_s * 1e6,
        }
        for e in events
    ]
    return {
        "traceEvents": [*named, *spans],
        "displayTimeUnit": "ns",
        "otherData": {"chip": chip.name, "model": run.program.model},
    }
