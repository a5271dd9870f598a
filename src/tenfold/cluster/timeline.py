"""When each chip of a pipeline does what in a training step: one forward, one backward (Narayanan
et al. 2019), in turns where chips have several stages (Narayanan et al. 2021, section 2.2; the
order is that of NVIDIA/Megatron-LM, core/pipeline_parallel/schedules.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tenfold.cluster.chunk import Chunk


class Doing(StrEnum):
    """What a chip does."""

    FORWARD = "forward"
    BACKWARD = "backward"
    HANDING = "handing on"
    GRADIENTS = "sums of gradients"
    OPTIMISER = "optimiser"


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start_s`` for ``length_s`` seconds the chip at a ``place`` of the pipeline works on a
    microbatch of one of its stages (``turn``); -1 where it works on none.
    """

    place: int
    doing: Doing
    start_s: float
    length_s: float
    microbatch: int = -1
    turn: int = 0

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s


@dataclass(frozen=True, slots=True)
class _Task:
    forward: bool
    turn: int
    microbatch: int


def forward_s(c: Chunk) -> float:
    """Seconds of the forward pass of a microbatch, with its share of the links between parts of a
    layer.
    """
    computed = c.time.value - c.again_s - c.links_s
    return c.forward_s * (1 + c.links_s / computed) if computed else 0.0


def timeline(chunks: Sequence[Chunk], pipeline: int, rounds: int) -> list[Span]:
    """The spans of ``rounds`` microbatches over stages in their order, which go round ``pipeline``
    chips: what a chip hands on it waits for.
    """
    turns = len(chunks) // pipeline
    left = [list(_order(p, pipeline, rounds, turns)) for p in range(pipeline)]
    free = [0.0] * pipeline
    done: dict[tuple[bool, int, int], float] = {}
    found: list[Span] = []
    while any(left):
        before = len(found)
        for place, tasks in enumerate(left):
            while tasks and (ready := _ready(tasks[0], place, pipeline, len(chunks), done)) >= 0:
                task = tasks.pop(0)
                c = chunks[task.turn * pipeline + place]
                spans = list(_spans(task, place, max(free[place], ready), c))
                found += spans
                free[place] = spans[-1].end_s
                stage = task.turn * pipeline + place
                done[task.forward, stage, task.microbatch] = free[place]
        assert len(found) > before, "a schedule whose tasks wait for each other"
    return found


def _order(place: int, pipeline: int, rounds: int, turns: int) -> Iterator[_Task]:
    """The tasks of a chip in their order."""
    total, block = rounds * turns, pipeline * turns
    ahead = pipeline - place - 1
    if turns > 1:
        ahead = min(total, 2 * ahead + (turns - 1) * pipeline)

    def task(i: int, *, forward: bool) -> _Task:
        if turns == 1:
            return _Task(forward, 0, i)
        turn = i % block // pipeline
        microbatch = i // block * pipeline + i % pipeline
        return _Task(forward, turn if forward else turns - 1 - turn, microbatch)

    ahead = min(total, ahead)
    yield from (task(i, forward=True) for i in range(ahead))
    for i in range(total - ahead):
        yield task(ahead + i, forward=True)
        yield task(i, forward=False)
    yield from (task(i, forward=False) for i in range(total - ahead, total))


def _ready(
    task: _Task,
    place: int,
    pipeline: int,
    stages: int,
    done: dict[tuple[bool, int, int], float],
) -> float:
    """When what a task needs is there; below 0 while it is not."""
    stage = task.turn * pipeline + place
    if task.forward:
        return 0.0 if stage == 0 else done.get((True, stage - 1, task.microbatch), -1.0)
    own = done.get((True, stage, task.microbatch), -1.0)
    if stage == stages - 1 or own < 0:
        return own
    return done.get((False, stage + 1, task.microbatch), -1.0)


def _spans(task: _Task, place: int, start: float, c: Chunk) -> Iterator[Span]:
    forward = forward_s(c)
    length = forward if task.forward else c.time.value - forward
    doing = Doing.FORWARD if task.forward else Doing.BACKWARD
    yield Span(place, doing, start, length, task.microbatch, task.turn)
    half = c.handed.value / 2
    if half:
        yield Span(place, Doing.HANDING, start + length, half, task.microbatch, task.turn)
