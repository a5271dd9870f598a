"""When the chips of a pipeline do what: as a chart, and as a trace for Perfetto."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tenfold.cluster.timeline import Doing, Span, timeline
from tenfold.estimate import Estimate
from tenfold.evaluate.training import TrainRun
from tenfold.report.svg import line, rect, svg, text
from tenfold.units import show

COLOUR: Mapping[Doing, str] = {
    Doing.FORWARD: "#0072b2",
    Doing.BACKWARD: "#e69f00",
    Doing.HANDING: "#d55e00",
    Doing.GRADIENTS: "#cc79a7",
    Doing.OPTIMISER: "#009e73",
}
MOST_ROWS = 32  # chips of a pipeline that the chart shows
MOST_TASKS = 32  # forward passes of a chip that the chart shows, and what fills the pipeline
NARROWEST = 0.6  # pixels of a box that can be seen


def shown_rounds(r: TrainRun) -> int:
    """Microbatches that are drawn: all, or as many as show the pipeline fill and drain."""
    pipeline = r.step.training.layout.pipeline
    most = max(MOST_TASKS // r.step.training.interleave, 2 * pipeline)
    # interleaved stages take whole turns of them
    return min(r.rounds, most // pipeline * pipeline)


def spans_of(r: TrainRun, rounds: int) -> list[Span]:
    """What the chips of one pipeline do, then the sums of gradients and the optimiser."""
    pipeline = r.step.training.layout.pipeline
    # each microbatch waits for shared weights
    waited = r.step.entries.get("weights from other copies", 0.0) / r.rounds
    each = Estimate.exact(waited / r.step.training.interleave)
    chunks = [replace(c, time=c.time + each) for c in r.step.chunks]
    found = timeline(chunks, pipeline, rounds)
    end = max(s.end_s for s in found)
    after = ((Doing.GRADIENTS, "sums of gradients"), (Doing.OPTIMISER, "optimiser"))
    for doing, entry in after:
        seconds = r.step.entries.get(entry, 0.0)
        if seconds:
            found += [Span(p, doing, end, seconds) for p in range(pipeline)]
            end += seconds
    return found


def schedule_svg(r: TrainRun) -> str:
    """A row a chip of the pipeline, a box a microbatch forward or backward."""
    rounds = shown_rounds(r)
    spans = [s for s in spans_of(r, rounds) if s.place < MOST_ROWS]
    rows = 1 + max(s.place for s in spans)
    end = max(s.end_s for s in spans)
    height = max(10, min(26, 320 // rows))
    layout = r.step.training.layout
    said = f"{rounds} of {r.rounds:,} microbatches" if rounds < r.rounds else "a step"
    title = f"{said} on {layout.pipeline} chips, stage after stage"
    if layout.pipeline == 1:
        title = f"{said} on a chip"
    body = [text(0, 14, title, more='font-weight="600"')]
    for place in range(rows):
        body.append(text(34, 24 + height * place + height * 0.75, str(place), "end"))
    for s in spans:
        if 580 * s.length_s / end < NARROWEST:
            continue
        what = f" of microbatch {s.microbatch}" if s.microbatch >= 0 else ""
        turn = f", turn {s.turn}" if r.step.training.interleave > 1 and what else ""
        body.append(
            rect(
                40 + 580 * s.start_s / end,
                24 + height * s.place,
                580 * s.length_s / end,
                height - 2,
                f'fill="{COLOUR[s.doing]}" fill-opacity="{0.6 if s.turn % 2 else 0.95}"',
                f"chip {s.place}: {s.doing}{what}{turn}, {show(s.length_s, 's')}",
            )
        )
    bottom = 24 + height * rows
    for share in (0.0, 0.5, 1.0):
        body.append(line(40 + 580 * share, bottom, 40 + 580 * share, bottom + 5))
        anchor = "middle" if share < 1 else "end"
        body.append(text(40 + 580 * share, bottom + 18, show(end * share, "s", 3), anchor))
    x = 40.0
    for doing in dict.fromkeys(s.doing for s in spans):
        body.append(rect(x, bottom + 28, 11, 11, f'fill="{COLOUR[doing]}"'))
        body.append(text(x + 15, bottom + 38, doing))
        x += 30 + 6.6 * len(doing)
    return svg(640, bottom + 46, body, "what the chips of a pipeline do when")


def step_trace(r: TrainRun) -> dict[str, object]:
    """A step in the Trace Event Format: a lane a chip of one pipeline, and one for its links; times
    in microseconds.
    """
    spans = spans_of(r, r.rounds)
    pipeline = r.step.training.layout.pipeline
    lanes = [name for p in range(pipeline) for name in (f"chip {p}", f"links of chip {p}")]
    named = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": i, "args": {"name": n}}
        for i, n in enumerate(lanes)
    ]
    return {
        "traceEvents": [*named, *_events(spans)],
        "displayTimeUnit": "ms",
        "otherData": {
            "chip": r.ask.chip.name,
            "model": r.name,
            "layout": str(r.step.training.layout),
        },
    }


def _events(spans: Sequence[Span]) -> Iterator[dict[str, object]]:
    for s in spans:
        linked = s.doing in (Doing.HANDING, Doing.GRADIENTS)
        about = {"microbatch": s.microbatch, "turn": s.turn} if s.microbatch >= 0 else {}
        yield {
            "name": s.doing.value + (f" {s.microbatch}" if s.microbatch >= 0 else ""),
            "cat": s.doing.value,
            "ph": "X",
            "pid": 0,
            "tid": 2 * s.place + linked,
            "ts": s.start_s * 1e6,
            "dur": s.length_s * 1e6,
            "args": about,
        }
