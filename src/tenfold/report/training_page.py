"""A training run as one HTML page that needs nothing else: no scripts, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from tenfold.cluster.search import best_of
from tenfold.evaluate.training import Scaled, TrainRun, Unit, shown
from tenfold.report.numbers import with_unit
from tenfold.report.schedule import schedule_svg
from tenfold.report.svg import compared_svg, shares_svg
from tenfold.report.training import answer_line, lines
from tenfold.units import show

ENTRY = {
    "forward": "#0072b2",
    "backward": "#e69f00",
    "computed again": "#f0d58c",
    "links between parts of a layer": "#d55e00",
    "links between stages": "#f2b28c",
    "waiting for other stages": "#8a8f98",
    "weights from other copies": "#56b4e9",
    "sums of gradients": "#cc79a7",
    "optimiser": "#009e73",
}
KIND = {
    "weights": "#0072b2",
    "gradients": "#cc79a7",
    "optimiser": "#009e73",
    "activations": "#e69f00",
    "workspace": "#d55e00",
}
COLUMNS = ("layout", "a step", "bytes of the fullest chip", "why")
SHOWN = 30


def training_page(r: TrainRun, scaled: Sequence[Scaled]) -> str:
    """The page of a run; ``scaled`` is the same step on fewer and on more chips."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("tenfold.report"), autoescape=True)
    memory = [(f.name, getattr(r.step.memory, f.name), KIND[f.name]) for f in fields(r.step.memory)]
    room = r.ask.chip.memory_bytes
    if room is not None:
        memory.append(("free", max(0.0, room - r.step.memory.total), "#d6d9de"))
    time = [(n, s, ENTRY[n]) for n, s in r.step.entries.items()]
    charts = [
        shares_svg(time, f"where {show(r.step.time.value, 's')} of a step go"),
        shares_svg(memory, f"{show(r.step.memory.total, 'B')} on the fullest chip"),
        schedule_svg(r),
        _scaling_svg(scaled, r.unit),
    ]
    return environment.get_template("training.html").render(
        model=r.name,
        subtitle=f"{r.parameters / 1e9:.3g} G parameters, {r.amount:.3g} {r.unit}",
        answer=answer_line(r),
        charts=[Markup(c) for c in charts if c],
        lines=list(lines(r)),
        columns=COLUMNS,
        rows=_rows(r),
        count=f"{len(r.tried):,}",
    )


def _scaling_svg(scaled: Sequence[Scaled], unit: Unit) -> str:
    if len(scaled) < 2:
        return ""
    rows = [(f"{s.count:,} chips, {s.mfu:.1%} of the peak", s.per_s) for s in scaled]
    return compared_svg(rows, "the same batch with fewer and more copies", f"{unit}/s")


def _rows(r: TrainRun) -> list[list[Any]]:
    """The layouts that no other beats, then the quickest, then the nearest misses."""
    front = best_of(r.tried)
    chosen = {id(t): t for t in (*front, *r.tried)}
    best = {id(t) for t in front}
    return [
        [
            shown(t.training),
            with_unit(t.time, "s") if t.time is not None else "",
            show(t.memory.total, "B") if t.memory is not None else "",
            t.why or ("best for its memory" if id(t) in best else ""),
        ]
        for t in list(chosen.values())[:SHOWN]
    ]
