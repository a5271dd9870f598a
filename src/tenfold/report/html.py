"""The profile as one HTML page that needs nothing else: no scripts, no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenfold.evaluate.profiling import Profile
from tenfold.report.numbers import ranged, with_unit
from tenfold.report.svg import (
    TIME,
    compared_svg,
    energy_colour,
    memory_svg,
    roofline_svg,
    shares_svg,
)
from tenfold.report.tables import alike
from tenfold.study import Held
from tenfold.units import show

_COLUMNS = [
    "chip",
    "dtype",
    "batch",
    "time",
    "of peak",
    "energy an item",
    "power",
    "$ a million",
    "gCO2e a million",
]


def profile_page(done: Sequence[Profile], notes: Sequence[str], advice: Sequence[str]) -> str:
    """The page for some runs of one model; ``advice`` are lines about the first."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("tenfold.report"), autoescape=True)
    program = done[0].run.program
    shown = len(_COLUMNS) if any(p.footprint for p in done) else -2
    sizes = ", ".join(f"{k} = {v}" for k, v in done[0].sizes.items())
    return environment.get_template("profile.html").render(
        model=program.model,
        subtitle=(
            f"{done[0].flops / done[0].batch / 1e9:.3g} GFLOP an"
            f" item{', ' + sizes if sizes else ''}"
        ),
        columns=_COLUMNS[:shown],
        rows=[_row(p)[:shown] for p in done],
        compared=_compared(done) if len(done) > 1 else (),
        notes=notes,
        runs=[_run(p, advice if i == 0 else ()) for i, p in enumerate(done)],
    )


def _row(p: Profile) -> list[str]:
    run = p.run
    return [
        p.name,
        run.program.precision.value,
        str(p.batch),
        with_unit(p.time_s, "s"),
        f"{p.mfu:.1%}",
        with_unit(p.energy_j / p.batch, "J"),
        f"{p.power_w:.0f} W",
        ranged(p.rent.usd) if p.rent else "not rented out",
        ranged(p.footprint.kgco2e, 1e3) if p.footprint else "",
    ]


def _compared(done: Sequence[Profile]) -> list[Any]:
    """The runs beside each other, an item each: bars with their intervals."""
    from markupsafe import Markup

    names = [f"{p.name}, batch {p.batch}" for p in done]
    times = [p.every_s / p.batch for p in done]
    joules = [p.energy_j / p.batch for p in done]
    return [
        Markup(compared_svg(list(zip(names, figures, strict=True)), title, unit))
        for figures, title, unit in ((times, "time an item", "s"), (joules, "energy an item", "J"))
    ]


def _run(p: Profile, advice: Sequence[str]) -> dict[str, Any]:
    from markupsafe import Markup

    run, record = p.run, p.chip
    c = run.counters
    time = [(label, getattr(c, name), colour) for label, name, colour in TIME]
    energy = [(e.what, e.amount.value, energy_colour(e.what)) for e in p.energy]
    groups = run.program.groups
    kernels = [
        {
            "name": a.shown,
            "ops": "+".join(a.first.kernel.ops),
            "time": show(a.seconds, "s"),
            "bound": a.first.bound,
            "flops": show(a.flops, ""),
            "bytes": show(a.bytes, "B"),
            "why": "; ".join(
                dict.fromkeys(w for w in groups[a.first.kernel.group].reasons if w != "a view")
            ),
        }
        for a in alike(run)
    ]
    return {
        "title": (
            f"{p.name}, batch {p.batch}, {run.program.precision.value}:"
            f" {show(p.time_s.value, 's')}, bound by {run.bound}"
        ),
        "advice": advice,
        "time": Markup(shares_svg(time, "where the cycles go")),
        "energy": Markup(shares_svg(energy, "where the joules go")),
        "roofline": Markup(roofline_svg(run, record)),
        "memory": Markup(memory_svg(run.program)),
        "count": sum(k.kernel.repeat for k in run.kernels),
        "kernels": kernels,
    }


def advice_lines(held: Held) -> list[str]:
    """What holds the run back and what to do, as the terminal says it."""
    from tenfold.report.tables import advice_text

    return advice_text(held).plain.splitlines()
