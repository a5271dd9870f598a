"""Traces: what each unit does when, in the Trace Event Format that Perfetto and chrome://tracing
read.

Where software schedules the units, a kernel of few tiles shows every one of them, from the same
step that times it, and a longer one its first tiles. Where hardware does, each unit is shown for as
long as the kernel keeps it at work, from the end of the launch on: when in between, nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tenfold.chips import Chip
from tenfold.machine.roofline import Parts
from tenfold.machine.run import KernelRun, Run
from tenfold.machine.systolic.maxplus import Clock, Repeat, closed_form, walk
from tenfold.machine.systolic.step import STATES, Drain, Instruction, Launch, Tile, step
from tenfold.machine.targets import target_of

TILES_SHOWN = 64  # of each kernel
EVENTS_SHOWN = 100_000  # in all; kernels after that are spans only
UNITS = (
    "kernels",
    "DMA in",
    "near memory",
    "weight load",
    "matrix unit",
    "vector unit",
    "off-chip memory",
    "L2",
    "DMA out",
    "links",
)


@dataclass(frozen=True, slots=True)
class Event:
    """``unit`` works on ``what`` from ``start`` for ``length`` seconds; ``about`` says more."""

    unit: str
    what: str
    start_s: float
    length_s: float
    about: Mapping[str, float | str] = field(default_factory=dict)


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
    events += islice(_work(run, chip), EVENTS_SHOWN)
    return events


def _spans(run: Run) -> Iterator[Event]:
    at = run.launch_s
    if run.launch_s:
        yield Event("kernels", "launch", 0.0, run.launch_s)
    for k in run.kernels:
        length = k.time_s * k.kernel.repeat
        name = f"{k.kernel.name} ({' '.join(k.kernel.ops)})"
        about: dict[str, float | str] = {
            "bound": k.bound,
            "launches": k.kernel.repeat,
            "FLOP": k.kernel.flops * k.kernel.repeat,
            "bytes read": k.kernel.traffic.all_reads * k.kernel.repeat,
            "bytes written": k.kernel.traffic.all_writes * k.kernel.repeat,
        }
        yield Event("kernels", name, at, length, about)
        at += length


def _work(run: Run, chip: Chip) -> Iterator[Event]:
    """What the units do in each kernel."""
    cycle = 1 / chip.clock("time")
    state = [0] * STATES
    target = target_of(chip)
    at = run.launch_s
    for k in run.kernels:
        if k.kernel.together is not None:
            yield Event("links", k.kernel.name, at, k.time_s * k.kernel.repeat)
            at += k.time_s * k.kernel.repeat
            continue
        activity = target.activity(k.kernel)
        if isinstance(activity, Parts):
            yield from _busy(k, activity, at)
        else:
            program = Repeat((activity,), k.kernel.repeat)
            recorder = _Recorder(list(state))
            for start, length, unit in _tiles(program, recorder):
                yield Event(unit, k.kernel.name, run.launch_s + start * cycle, length * cycle)
            state = recorder.v if program.tiles <= TILES_SHOWN else closed_form(program, state)
        at += k.time_s * k.kernel.repeat


def _tiles(program: Repeat, recorder: _Recorder) -> Iterator[tuple[int, int, str]]:
    for instruction in islice(walk(program), TILES_SHOWN):
        step(recorder, instruction)
        for unit, (start, length) in zip(_units(instruction), recorder.added, strict=True):
            if length and unit:
                yield start, length, unit
        recorder.added.clear()


def _busy(k: KernelRun, parts: Parts, at: float) -> Iterator[Event]:
    """The units beside each other, after what launching takes; where power holds the clock back,
    what goes with it takes longer.
    """
    busy = {
        "matrix unit": parts.matrix / k.clock,
        "vector unit": parts.vector / k.clock,
        "off-chip memory": parts.memory,
        "L2": parts.l2 / k.clock,
    }
    longest = max(busy.values())
    start = at + max(0.0, k.time_s - longest) * k.kernel.repeat
    for unit, seconds in busy.items():
        if seconds > 0:
            length = float(min(seconds, k.time_s)) * k.kernel.repeat
            share = {"of the kernel's time": float(min(1.0, seconds / k.time_s))}
            yield Event(unit, k.kernel.name, start, length, share)


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
    shown = [u for u in UNITS if u in used]
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
            "args": dict(e.about),
        }
        for e in events
    ]
    return {
        "traceEvents": [*named, *spans],
        "displayTimeUnit": "ns",
        "otherData": {"chip": chip.name, "model": run.program.model},
    }
