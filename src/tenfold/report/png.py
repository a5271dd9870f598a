"""The charts of one run as a PNG, by matplotlib (the ``charts`` extra)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenfold.errors import InputError
from tenfold.evaluate.profiling import Profile
from tenfold.files import write_whole
from tenfold.machine import Role
from tenfold.report.svg import COLOURS, TIME, energy_colour
from tenfold.units import show


def write_png(p: Profile, path: Path) -> None:
    """Time, energy, roofline and memory map of a run. Raises InputError without matplotlib, or
    where the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "--png needs matplotlib: pip install 'tenfold[charts]', or use --html, which needs"
            " nothing"
        ) from error
    figure = Figure(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(1, 3))
    run, counters = p.run, p.run.counters
    figure.suptitle(
        f"{run.program.model} on {p.name}, batch {p.batch},"
        f" {run.program.precision.value}: {show(p.time_s.value, 's')}"
    )
    _shares(
        axes[0][0],
        "cycles",
        [(label, getattr(counters, name), colour) for label, name, colour in TIME],
    )
    _shares(
        axes[0][1], "joules", [(e.what, e.amount.value, energy_colour(e.what)) for e in p.energy]
    )
    _roofline(axes[1][0], p)
    _memory(axes[1][1], p)
    write_whole(path, lambda to: figure.savefig(to, dpi=120, format="png"))


def _shares(axis: Any, title: str, parts: list[tuple[str, float, str]]) -> None:
    total, at = sum(a for _, a, _ in parts) or 1.0, 0.0
    for label, amount, colour in parts:
        axis.barh(0, amount / total, left=at, color=colour, label=f"{label} {amount / total:.1%}")
        at += amount / total
    axis.set_title(f"where the {title} go", loc="left", fontsize=10)
    axis.axis("off")
    axis.legend(ncols=2, fontsize=7, loc="upper left", bbox_to_anchor=(0, 0), frameon=False)


def _roofline(axis: Any, p: Profile) -> None:
    """Williams, Waterman, Patterson 2009."""
    record, peak = p.chip, p.run.peak_flops
    bandwidth = record.memory_bytes_per_s or 1.0
    ridge = peak / bandwidth
    for k in p.run.kernels:
        work = k.kernel.flops + k.kernel.vector_ops
        if work and k.time_s:
            intensity = min(work / max(k.kernel.traffic.total, 1), ridge * 1e4)
            axis.scatter(
                intensity,
                work / k.time_s,
                color=COLOURS.get(k.bound, COLOURS["launch"]),
                alpha=0.55,
                s=30,
            )
    axis.plot([ridge / 1e3, ridge, ridge * 1e4], [peak / 1e3, peak, peak], color="black")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="operations per byte off chip",
        ylabel="operations a second",
    )
    axis.grid(alpha=0.3)


def _memory(axis: Any, p: Profile) -> None:
    plan = p.run.program.memory
    for b in plan.near or plan.far:
        colour = COLOURS["weight" if b.role is Role.WEIGHT else "output"]
        axis.broken_barh(
            [(b.first, b.last - b.first + 1)],
            (b.offset / 1e6, b.bytes / 1e6),
            color=colour,
            alpha=0.5,
            edgecolor="white",
            lw=0.3,
        )
    axis.set(
        xlabel="kernels", ylabel="MB", title=plan.level if plan.near else "activations off chip"
    )
