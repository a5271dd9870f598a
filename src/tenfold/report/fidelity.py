"""How far predictions are from what was measured: tables, and the page docs/fidelity.md with its
charts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tenfold.errors import InputError
from tenfold.files import write_text
from tenfold.report.fit import Fitted
from tenfold.report.svg import scatter_svg
from tenfold.validation import Bar, Row, Summary, bars, summaries

_SHARES = "points"
_HEADER = (
    "area",
    "rows",
    "mean",
    "median",
    "90 % below",
    "worst",
    "inside interval",
    "aim",
    "source",
)


def summary_table(rows: Sequence[Row]) -> Fitted:
    """Errors by area."""
    table = Fitted(list(_HEADER), keep=("area",))
    for line in _lines(rows):
        table.add_row(*line)
    return table


def _lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    aims = bars()
    sources: dict[str, str] = {}
    for r in rows:
        sources.setdefault(r.area, r.source)
    units = {r.area: r.unit for r in rows}
    return [_line(s, aims.get(a), units[a], sources[a]) for a, s in summaries(rows).items()]


def _line(s: Summary, aim: Bar | None, unit: str, source: str) -> tuple[str, ...]:
    def share(x: float) -> str:
        return f"{x * 100:.1f} pt" if unit == _SHARES else f"{x:.1%}"

    inside = f"{s.inside:.0%}" if s.inside is not None else "-"
    wanted = "-"
    if aim is not None:
        bounds = (
            share(aim.mean) if aim.worst is None else f"{share(aim.mean)}, worst {share(aim.worst)}"
        )
        wanted = f"{bounds}: {'met' if aim.met(s) else 'missed'}"
    worst = f"{'+' if s.worst > 0 else ''}{share(s.worst)}"
    return (
        s.area,
        f"{s.n:,}",
        share(s.mape),
        share(s.median),
        share(s.p90),
        worst,
        inside,
        wanted,
        source,
    )


def worst_table(rows: Sequence[Row], count: int) -> Fitted:
    """The ``count`` rows of each area that are furthest off."""
    table = Fitted(["area", "case", "predicted", "reference", "error"])
    for area in dict.fromkeys(r.area for r in rows):
        own = sorted((r for r in rows if r.area == area), key=lambda r: -abs(r.error))[:count]
        for r in own:
            table.add_row(
                r.area,
                r.case,
                f"{r.predicted:.4g} {r.unit}",
                f"{r.reference:.4g} {r.unit}",
                f"{r.error:+.1%}",
            )
    return table


_INTRODUCTION = """# Fidelity

Predictions beside what was published or measured, written by `tenfold validate --data DIR --write
docs/fidelity.md`. Only rows that no constant was fitted to, but where the area says so: shapes,
models or whole chips are held out, not neighbouring rows. Without `--data` the comparisons that
need measured sets are skipped. *Inside interval* is the share of rows that lie in the interval
which the prediction carries; nine of ten should. *Never calibrated* means with a relative's
constants; what a call costs on the host beside the kernel, which the chip does not decide, is
known.

"""
_CHARTS = (
    (
        "gpu-matmul",
        "Matrix products on GPUs",
        ("matmul, wide range", "matmul in models", "fp8 matmul"),
    ),
    ("gpu-attention", "Attention and experts on GPUs", ("attention", "mixture of experts")),
    (
        "gpu-never-calibrated",
        "GPUs never measured, with a relative's constants",
        ("matmul, a100", "matmul, h100", "matmul, mi210"),
    ),
    ("isolated", "Isolated calls of a framework", ("isolated calls",)),
    ("tpu", "TPUs: products and whole models", ("matmul (tpu", "whole models", "TPU v1 device")),
)


def fidelity_page(path: Path, rows: Sequence[Row]) -> None:
    """Write the page and, in a folder beside it named like it, one chart a group. Raises InputError
    where that cannot be.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    folder = path.with_suffix("")
    lines = [_INTRODUCTION, f"| {' | '.join(_HEADER)} |\n|{'---|' * len(_HEADER)}\n"]
    lines += [
        f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in _lines(rows)
    ]
    lines.append("\n## Where it is weak, and why\n\n")
    present = {r.area for r in rows}
    lines += [
        f"* **{b.area}**: {b.note}\n" for b in bars().values() if b.note and b.area in present
    ]
    lines.append(_LIMITS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, title, starts in _CHARTS:
            own = [r for r in rows if r.area.startswith(starts) and r.unit == "s"]
            if own:
                series = {
                    a: [(r.reference, r.predicted) for r in own if r.area == a]
                    for a in dict.fromkeys(r.area for r in own)
                }
                write_text(folder / f"{name}.svg", scatter_svg(series, title))
                lines.append(
                    f"\n## {title}\n\n![{title}: predicted against"
                    f" measured]({folder.name}/{name}.svg)\n"
                )
        write_text(path, re.sub(r"\n{3,}", "\n\n", "".join(lines)))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


_LIMITS = """
What no row above tests: collectives on other chips than A100 and H100, networks over several
chips, sparsity, dynamic shapes, operators other than those named on GPUs, whole language models on
GPUs (only MLPerf's), TPU v5e, v5p and v7, the Neuron chips, and money. Decode in whole models
counts every byte of the cache. Power was measured on H200 alone; other GPUs take its shares.
"""
