"""Charts as SVG, without a browser: roofline, shares, memory map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from tenfold.chips import Chip
from tenfold.estimate import Estimate
from tenfold.machine import Buffer, Program, Role, Run
from tenfold.report.numbers import with_unit
from tenfold.units import show

# told apart without red against green (Okabe, Ito 2002, Colour universal design)
COLOURS = {
    "matrix": "#0072b2",
    "vector": "#e69f00",
    "memory": "#d55e00",
    "near": "#cc79a7",
    "launch": "#8a8f98",
    "l2": "#009e73",
    "weight": "#0072b2",
    "input": "#e69f00",
    "output": "#e69f00",
}
TIME = (
    ("multiplying", "active", COLOURS["matrix"]),
    ("waiting for weights", "weight_stall", COLOURS["memory"]),
    ("shifting weights in", "weight_shift", "#56b4e9"),
    ("waiting for activations", "memory_stall", "#f2b28c"),
    ("vector unit", "vector", COLOURS["vector"]),
    ("launch and idle", "idle", COLOURS["launch"]),
)
ENERGY = {
    "matrix": COLOURS["matrix"],
    "vector": COLOURS["vector"],
    "on-chip memory": COLOURS["near"],
    "off-chip memory": COLOURS["memory"],
    "static": COLOURS["launch"],
}
# of entries that have no colour of their own
_OTHERS = ("#56b4e9", "#009e73", "#b8a200", "#5f7f8f")


def energy_colour(what: str) -> str:
    """The colour of an entry of energy: its own, or always the same other one."""
    return ENERGY.get(what) or _OTHERS[sum(map(ord, what)) % len(_OTHERS)]


# the page decides, light or dark
_INK = "currentColor"


def svg(width: int, height: int, body: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12"'
        f' fill="{_INK}">{"".join(body)}</svg>'
    )


def text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{_INK}" stroke-opacity="0.18"/>'
    )


def rect(x: float, y: float, width: float, height: float, more: str, title: str = "") -> str:
    inner = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}"'
        f' height="{max(height, 0.5):.1f}" {more}>{inner}</rect>'
    )


class _Log:
    """A logarithmic axis from ``low`` to ``high`` over ``start`` to ``end`` pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = (
            math.floor(math.log10(low)),
            math.ceil(math.log10(high)),
            start,
            end,
        )

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / max(self.high - self.low, 1)
        return self.start + (self.end - self.start) * share

    def ticks(self) -> range:
        return range(self.low, self.high + 1)


def _tick(power: int) -> str:
    return f"{10.0**power:g}" if power < 3 else show(10.0**power, "", 1)


def roofline_svg(run: Run, chip: Chip) -> str:
    """Every kernel by arithmetic intensity and speed under the chip's roof (Williams, Waterman,
    Patterson 2009).
    """
    bandwidth, peak = chip.memory_bytes_per_s or 1.0, run.peak_flops
    points = []
    for k in run.kernels:
        work = k.kernel.flops + k.kernel.vector_ops
        if work and k.time_s:
            points.append((work / max(k.kernel.traffic.total, 1), work / k.time_s, k))
    if not points:
        return ""
    ridge = peak / bandwidth
    x = _Log(
        min(ridge, min(p[0] for p in points)) / 2,
        min(max(ridge * 10, max(p[0] for p in points)), ridge * 1e4),
        60,
        620,
    )
    y = _Log(min(p[1] for p in points) / 2, peak * 1.5, 320, 20)
    body = []
    for t in x.ticks():
        body += [
            line(x.at(10.0**t), 20, x.at(10.0**t), 320),
            text(x.at(10.0**t), 336, _tick(t), "middle"),
        ]
    for t in y.ticks():
        body += [
            line(60, y.at(10.0**t), 620, y.at(10.0**t)),
            text(54, y.at(10.0**t) + 4, _tick(t), "end"),
        ]
    start = max(10.0**x.low, 10.0**y.low / bandwidth)
    body.append(
        f'<polyline fill="none" stroke="{_INK}" stroke-width="2"'
        f' points="{x.at(start):.1f},{y.at(start * bandwidth):.1f}'
        f' {x.at(ridge):.1f},{y.at(peak):.1f} {x.at(10.0**x.high):.1f},{y.at(peak):.1f}"/>'
    )
    longest = max(p[2].time_s * p[2].kernel.repeat for p in points)
    for intensity, speed, k in points:
        radius = 3 + 9 * math.sqrt(k.time_s * k.kernel.repeat / longest)
        shown = min(intensity, 10.0**x.high)
        title = (
            f"{k.kernel.name}: {'+'.join(k.kernel.ops)}, {show(k.time_s, 's')}, bound by {k.bound}"
        )
        body.append(
            f'<circle cx="{x.at(shown):.1f}" cy="{y.at(speed):.1f}" r="{radius:.1f}"'
            f' fill="{COLOURS.get(k.bound, _INK)}"'
            f' fill-opacity="0.55"><title>{escape(title)}</title></circle>'
        )
    body += [
        text(
            340,
            356,
            "operations per byte off chip; what moves nothing stands at the right",
            "middle",
        ),
        text(64, 14, "operations a second; a dot a kernel, as large as its time"),
    ]
    return svg(640, 362, body, "roofline")


def shares_svg(parts: Sequence[tuple[str, float, str]], title: str) -> str:
    """A bar cut into shares: label, amount, colour."""
    total = sum(a for _, a, _ in parts) or 1.0
    body, at = [text(0, 14, title, more='font-weight="600"')], 0.0
    for label, amount, colour in parts:
        width = 620 * amount / total
        if amount > 0:
            body.append(rect(at, 22, width, 26, f'fill="{colour}"', label))
        at += width
    x, row = 0.0, 66.0
    for label, amount, colour in parts:
        words = f"{label} {amount / total:.1%}"
        length = 18 + 6.6 * len(words)
        if x + length > 620:
            x, row = 0.0, row + 18
        body += [rect(x, row - 10, 11, 11, f'fill="{colour}"'), text(x + 15, row, words)]
        x += length + 8
    return svg(620, int(row) + 8, body, title)


def compared_svg(rows: Sequence[tuple[str, Estimate]], title: str, unit: str) -> str:
    """A bar for each run, from 0, with its interval as a line across its end."""
    most = max((e.high for _, e in rows), default=0.0)
    if not most:
        return ""
    body = [text(0, 14, title, more='font-weight="600"')]
    for i, (name, e) in enumerate(rows):
        y = 30 + 34 * i
        ends = [620 * x / most for x in (e.low, e.high)]
        at = f'stroke="{_INK}" stroke-width="1.5"'
        body += [
            text(0, y + 10, name),
            text(620, y + 10, with_unit(e, unit), "end"),
            rect(0, y + 14, 620 * e.value / most, 10, f'fill="{COLOURS["matrix"]}"'),
            f'<path d="M{ends[0]:.1f} {y + 19}H{ends[1]:.1f}" {at}/>',
            *(f'<path d="M{x:.1f} {y + 15}v8" {at}/>' for x in ends),
        ]
    return svg(624, 38 + 34 * len(rows), body, title)


def memory_svg(program: Program) -> str:
    """The on-chip memory (else the activations off chip) over the kernels: every buffer a box, from
    its first kernel to its last.
    """
    near = program.memory.near
    buffers, height = (
        (near, program.memory.capacity) if near else (program.memory.far, program.memory.far_bytes)
    )
    top = max((b.offset + b.bytes for b in buffers), default=0)
    if not buffers or not height:
        return ""
    steps = max(len(program.kernels), 1) + 1
    scale = 280 / top
    body = [_box(b, steps, scale) for b in sorted(buffers, key=lambda b: -b.bytes)]
    used = f"{show(top, 'B')} of {show(height, 'B')}" if near else show(top, "B")
    body += [
        rect(60, 20, 560, 280, f'fill="none" stroke="{_INK}"'),
        text(60, 14, f"{program.memory.level if near else 'activations off chip'}: {used}"),
        text(54, 304, "0", "end"),
        text(54, 28, show(top, "B"), "end"),
        text(340, 318, f"kernels 0 to {len(program.kernels) - 1}", "middle"),
    ]
    return svg(640, 324, body, "memory map")


def _box(b: Buffer, steps: int, scale: float) -> str:
    x, width = 60 + 560 * b.first / steps, 560 * (b.last - b.first + 1) / steps
    y, height = 300 - (b.offset + b.bytes) * scale, b.bytes * scale
    colour = COLOURS["weight" if b.role is Role.WEIGHT else "output"]
    title = (
        f"{b.name}: {b.bytes:,} bytes at {b.offset:,}, kernels {b.first} to"
        f" {b.last}{', ' + b.why if b.why else ''}"
    )
    return rect(
        x,
        y,
        width,
        height,
        f'fill="{colour}" fill-opacity="0.5" stroke="white" stroke-width="0.4"',
        title,
    )


_SERIES = ("#0072b2", "#e69f00", "#56b4e9", "#cc79a7", "#d55e00", "#009e73", "#8a8f98")


def scatter_svg(series: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """Predicted over measured seconds, log-log, one point a case, with the lines of equality and of
    25 % to either side.
    """
    values = [v for points in series.values() for pair in points for v in pair]
    low, high, size, left, bottom = min(values), max(values), 460, 70, 430
    x, y = _Log(low, high, left, left + size - 80), _Log(low, high, bottom, 40)
    body = [text(left, 22, title, more='font-weight="600"')]
    for t in x.ticks():
        value = 10.0**t
        body += [
            line(x.at(value), y.start, x.at(value), y.end),
            line(x.start, y.at(value), x.end, y.at(value)),
        ]
        body += [
            text(x.at(value), bottom + 18, show(value, "s", 1), "middle"),
            text(left - 8, y.at(value) + 4, show(value, "s", 1), "end"),
        ]
    ends = 10.0**x.low, 10.0**x.high
    for factor, dash in ((1.0, ""), (1.25, "4 3"), (0.8, "4 3")):
        a, b = max(ends[0], ends[0] / factor), min(ends[1], ends[1] / factor)
        body.append(
            f'<line x1="{x.at(a):.1f}" y1="{y.at(a * factor):.1f}" x2="{x.at(b):.1f}"'
            f' y2="{y.at(b * factor):.1f}" stroke="{_INK}" stroke-dasharray="{dash}"/>'
        )
    for i, (name, points) in enumerate(series.items()):
        colour = _SERIES[i % len(_SERIES)]
        dots = "".join(f"M{x.at(m):.1f} {y.at(p):.1f}h0" for m, p in points)
        body.append(
            f'<path d="{dots}" stroke="{colour}" stroke-width="3" stroke-linecap="round"'
            ' stroke-opacity=".55" fill="none"/>'
        )
        body += [
            rect(left + size - 60, 44 + 20 * i, 10, 10, f'fill="{colour}"'),
            text(left + size - 44, 53 + 20 * i, f"{name} ({len(points):,})"),
        ]
    body += [
        text((x.start + x.end) / 2, bottom + 40, "measured", "middle"),
        text(left, 36, "predicted"),
    ]
    return svg(left + size + 260, bottom + 56, body, title)


@dataclass(frozen=True, slots=True)
class Point:
    """An option: its p99 and what it costs."""

    name: str
    p99_s: Estimate
    cost: Estimate


def pareto_svg(points: Sequence[Point], title: str, unit: str, slo_s: float) -> str:
    """Options by p99 and cost, log-log, with their intervals as crosses, their names beside them,
    and the SLO as a dashed line; those that none beats in both are filled.
    """
    if not points:
        return ""
    lows, highs = [p.p99_s.low for p in points], [p.p99_s.high for p in points]
    x = _Log(min(lows) * 0.9, max(*highs, slo_s) * 1.1, 70, 640)
    y = _Log(min(p.cost.low for p in points) * 0.9, max(p.cost.high for p in points) * 1.1, 330, 40)
    body = [text(70, 20, title, more='font-weight="600"')]
    for t in x.ticks():
        body += [
            line(x.at(10.0**t), 40, x.at(10.0**t), 330),
            text(x.at(10.0**t), 346, show(10.0**t, "s", 1), "middle"),
        ]
    for t in y.ticks():
        body += [
            line(70, y.at(10.0**t), 640, y.at(10.0**t)),
            text(64, y.at(10.0**t) + 4, f"{10.0**t:,g}", "end"),
        ]
    at = x.at(slo_s)
    body += [
        f'<line x1="{at:.1f}" y1="40" x2="{at:.1f}" y2="330" stroke="{_INK}" {_DASHED}/>',
        text(at - 4, 52, f"SLO {show(slo_s, 's')}", "end"),
    ]
    taken: list[tuple[float, float]] = []
    for i, point in enumerate(points):
        beaten = any(
            q.p99_s.value < point.p99_s.value and q.cost.value < point.cost.value for q in points
        )
        body += _crossed(point, x, y, _SERIES[i % len(_SERIES)], unit, beaten=beaten)
        px, py = x.at(point.p99_s.value) + 8, y.at(point.cost.value) - 6
        while any(abs(py - b) < 13 and abs(px - a) < 110 for a, b in taken):
            py -= 13
        taken.append((px, py))
        body.append(text(px, py, point.name))
    body.append(
        text(355, 364, "p99; filled: no other is better in both; lines: intervals", "middle")
    )
    return svg(720, 372, body, title)


_DASHED = 'stroke-dasharray="5 4"'


def _crossed(point: Point, x: _Log, y: _Log, colour: str, unit: str, *, beaten: bool) -> list[str]:
    """A point with its intervals."""
    p, c = point.p99_s, point.cost
    px, py = x.at(p.value), y.at(c.value)
    dot = f'stroke="{colour}" fill="{"none" if beaten else colour}" stroke-width="2"'
    spread = f'stroke="{colour}" stroke-opacity="0.6"'
    words = f"{point.name}: p99 {show(p.value, 's')}, {c.value:,.3g} {unit}"
    return [
        f'<line x1="{x.at(p.low):.1f}" y1="{py:.1f}" x2="{x.at(p.high):.1f}" y2="{py:.1f}"'
        f" {spread}/>",
        f'<line x1="{px:.1f}" y1="{y.at(c.low):.1f}" x2="{px:.1f}" y2="{y.at(c.high):.1f}"'
        f" {spread}/>",
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" {dot}><title>{escape(words)}</title></circle>',
    ]


def cdf_svg(series: Mapping[str, tuple[Sequence[float], float | None]], title: str) -> str:
    """Share of answers within a time, on a log axis; a dashed line at each SLO."""
    values = [t for times, slo in series.values() for t in (times[0], times[-1], slo) if t]
    if not values:
        return ""
    x = _Log(min(values), max(values), 60, 600)
    body = [text(60, 20, title, more='font-weight="600"')]
    for t in x.ticks():
        body += [
            line(x.at(10.0**t), 40, x.at(10.0**t), 300),
            text(x.at(10.0**t), 316, show(10.0**t, "s", 1), "middle"),
        ]
    for share in (0.0, 0.25, 0.5, 0.75, 0.99):
        y = 300 - 260 * share
        body += [line(60, y, 600, y), text(54, y + 4, f"{share:.0%}", "end")]
    for i, (name, (times, slo)) in enumerate(series.items()):
        colour = _SERIES[i % len(_SERIES)]
        at = [min(len(times) - 1, round(k / 200 * (len(times) - 1))) for k in range(201)]
        path = " ".join(
            f"{x.at(max(times[k], 10.0**x.low)):.1f},{300 - 260 * (k + 1) / len(times):.1f}"
            for k in dict.fromkeys(at)
        )
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if slo:
            body.append(
                f'<line x1="{x.at(slo):.1f}" y1="40" x2="{x.at(slo):.1f}" y2="300"'
                f' stroke="{colour}" stroke-dasharray="4 3"/>'
            )
        body += [rect(615, 44 + 20 * i, 10, 10, f'fill="{colour}"'), text(631, 53 + 20 * i, name)]
    return svg(760, 324, body, title)


def timeline_svg(series: Mapping[str, Sequence[float]], end_s: float, title: str) -> str:
    """Lines over time from 0."""
    top = max((v for values in series.values() for v in values), default=0.0) or 1.0
    body = [text(60, 20, title, more='font-weight="600"')]
    for part in (0.0, 0.5, 1.0):
        body += [
            line(60, 240 - 200 * part, 600, 240 - 200 * part),
            text(54, 244 - 200 * part, f"{top * part:.3g}", "end"),
        ]
        body.append(text(60 + 540 * part, 256, show(end_s * part, "s", 2), "middle"))
    for i, (name, values) in enumerate(series.items()):
        colour = _SERIES[i % len(_SERIES)]
        path = " ".join(
            f"{60 + 540 * (k + 0.5) / len(values):.1f},{240 - 200 * v / top:.1f}"
            for k, v in enumerate(values)
        )
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        body += [rect(615, 44 + 20 * i, 10, 10, f'fill="{colour}"'), text(631, 53 + 20 * i, name)]
    return svg(760, 264, body, title)
