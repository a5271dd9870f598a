"""The profile as one HTML page that needs nothing else: no scripts, no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenfold.evaluate.profiling import Profile
from tenfold.report.svg import TIME, energy_colour, memory_svg, roofline_svg, shares_svg
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
            f"{program.flops / program.items / 1e9:.3g} GFLOP an"
            f" item{', ' + sizes if sizes else ''}"
        ),
        columns=_COLUMNS[:shown],
        rows=[_row(p)[:shown] for p in done],
        notes=notes,
        runs=[_run(p, advice if i == 0 else ()) for i, p in enumerate(done)],
    )


def _row(p: Profile) -> list[str]:
    run = p.run
    grams = p.footprint.kgco2e.value * 1e3 if p.footprint else None
    return [
        run.program.chip,
        run.program.precision.value,
        str(p.batch),
        (
            f"{show(run.time_s.value, 's')} ({show(run.time_s.low, 's')} to "
            f"{show(run.time_s.high, 's')})"
        ),
        f"{run.mfu:.1%}",
        show(run.energy_j.value / p.batch, "J"),
        f"{run.power_w:.0f} W",
        f"{p.rent.usd.value:.2f}" if p.rent else "not rented out",
        f"{grams:.3g}" if grams is not None else "",
    ]


def _run(p: Profile, advice: Sequence[str]) -> dict[str, Any]:
    from markupsafe import Markup

    run, record = p.run, p.chip
    c = run.counters
    time = [(label, getattr(c, name), colour) for label, name, colour in TIME]
    energy = [(e.what, e.amount.value, energy_colour(e.what)) for e in run.energy]
    groups = run.program.groups
    kernels = [
        {
            "name": k.kernel.name,
            "ops": (
                "+".join(k.kernel.ops) + (f" x {k.kernel.repeat}" if k.kernel.repeat > 1 else "")
            ),
            "time": show(k.time_s * k.kernel.repeat, "s"),
            "bound": k.bound,
            "flops": show(k.kernel.flops * k.kernel.repeat, ""),
            "bytes": show(k.kernel.traffic.total * k.kernel.repeat, "B"),
            "why": "; ".join(
                dict.fromkeys(w for w in groups[k.kernel.group].reasons if w != "a view")
            ),
        }
        for k in run.kernels
    ]
    return {
        "title": (
            f"{record.name}, batch {p.batch}, {run.program.precision.value}:"
            f" {show(run.time_s.value, 's')}, bound by {run.bound}"
        ),
        "advice": advice,
        "time": Markup(shares_svg(time, "where the cycles go")),
        "energy": Markup(shares_svg(energy, "where the joules go")),
        "roofline": Markup(roofline_svg(run, record)),
        "memory": Markup(memory_svg(run.program)),
        "kernels": kernels,
    }


def advice_lines(held: Held) -> list[str]:
    """What holds the run back and what to do, as the terminal says it."""
    from tenfold.report.tables import advice_text

    return advice_text(held).plain.splitlines()
