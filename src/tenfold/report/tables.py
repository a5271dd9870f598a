"""Tables and charts for people, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from tenfold import units
from tenfold.carbon import Envelope
from tenfold.chips import Chip, Kind, Whole, spec
from tenfold.estimate import Estimate
from tenfold.evaluate.agreement import Quality
from tenfold.evaluate.profiling import Profile
from tenfold.facts import Figure, Status
from tenfold.machine import Kernel, KernelRun, Program, Run
from tenfold.report.documents.chips import ModelPart
from tenfold.report.fit import Fitted
from tenfold.report.numbers import ranged, short, with_unit
from tenfold.study import Held
from tenfold.units import Dimension, show

if TYPE_CHECKING:
    from tenfold.claims import Lesson


def _table(*columns: str, right: Sequence[str] = ()) -> Fitted:
    return Fitted(list(columns), right=right)


def chips_table(chips: Sequence[Chip]) -> Fitted:
    table = _table(
        "name",
        "organisation",
        "year",
        "best peak",
        "memory",
        "bandwidth",
        "on chip",
        "TDP",
        "model",
    )
    for c in chips:
        best = max(c.peak_flops.items(), key=lambda kv: kv[1]) if c.peak_flops else None
        table.add_row(
            c.name,
            c.organisation,
            str(c.year or ""),
            (
                f"{show(best[1], 'FLOP/s' if not best[0].value.startswith('int') else 'OP/s')}"
                f" {best[0].value}"
                if best
                else ""
            ),
            show(c.memory_bytes, "B") if c.memory_bytes else "",
            show(c.memory_bytes_per_s, "B/s") if c.memory_bytes_per_s else "",
            show(c.sram_bytes, "B") if c.sram_bytes else "",
            f"{c.tdp_w:g} W" if c.tdp_w else "",
            {
                "systolic": "systolic array",
                "gpu": "tiles and waves",
                "host": "processor",
                "roofline": "roofline",
                "listed": "listed only",
            }[c.kind],
        )
    return table


def chip_table(chip: Chip) -> Fitted:
    """Every figure of one chip in its unit, with its status and source."""
    table = Fitted(["figure", "value", "status", "source", "note"], keep=("figure", "status"))
    for path, q in chip.figures.items():
        table.add_row(path, _figure(q, spec(chip.kind, path).dimension), q.status, q.source, q.note)
    return table


def _figure(q: Figure, dimension: Dimension) -> str:
    """A figure as people write it; shares, factors and counts below a thousand have no prefix."""
    if dimension is Dimension.AREA_M2:
        return f"{ranged(q.estimate, 1e6)} mm2"
    unit = units.SI_UNITS[dimension]
    if not unit and q.high < 1e6:
        return ranged(q.estimate)
    return with_unit(q.estimate, unit)


def changed_lines(chips: Iterable[Chip]) -> list[str]:
    """What was set by hand, each figure before and after."""
    found: dict[str, dict[str, None]] = {}
    for chip in chips:
        for c in chip.changes:
            dimension = spec(chip.kind, c.path).dimension
            before, after = (
                _figure(Figure.exact(x, Status.ASSUMED, "set"), dimension)
                for x in (c.before, c.after)
            )
            what = f"Set by hand: {c.path} of {chip.sold_as}, which is {before}, to"
            found.setdefault(what, {})[after] = None
    return [f"{what} {', '.join(values)}." for what, values in found.items()]


def group_lines(runs: Iterable[Profile]) -> list[str]:
    """What several chips come to: how they share the model, what links take, what each holds."""
    found: list[str] = []
    for p in runs:
        g = p.group
        if g is None:
            continue
        waits = g.together_s / max(g.time_s.value, 1e-30)
        said = (
            f"{p.name}, {g.layout} on {g.topology.name}: {waits:.0%} of the time waiting for links,"
            f" up to {show(g.memory_bytes, 'B')} on a chip"
        )
        if g.layout.pipeline > 1:
            said += f", a pass every {show(g.every_s.value, 's')}"
        if g.repeated_flops:
            said += f"; {g.repeated_flops / max(g.flops, 1):.1%} of the arithmetic done again"
        found.append(f"{said}. Below is one chip of the slowest stage." if len(found) < 1 else said)
    return found


def power_lines(runs: Iterable[Profile]) -> list[str]:
    """Where a chip's power holds its clock back: how much of the time, and how far."""
    found: dict[str, None] = {}
    for p in runs:
        held = [k for k in p.run.kernels if k.clock < 1]
        if not held:
            continue
        seconds = sum(k.time_s * k.kernel.repeat for k in held)
        limit = p.chip.number("power_cap") or p.chip.tdp_w or 0.0
        own = p.chip.clock("power") / 1e9
        slow = min(k.clock for k in held) * own
        found[
            f"{p.name}, batch {p.batch}: for"
            f" {seconds / max(p.run.time_s.value, 1e-30):.0%} of the time {limit:g} W hold it below"
            f" its {own:.3g} GHz, down to {slow:.3g} GHz."
        ] = None
    return list(found)


def roofline_lines(chips: Iterable[Chip]) -> list[str]:
    """What a chip of few figures is taken for, and what further ones would buy."""
    plain = {c.name: c for c in chips if c.kind is Kind.ROOFLINE}
    return [
        f"{c.name} is a roofline: times within a factor of {1 + c.error(Whole.TIME):g}. What would"
        ' narrow that: clock, units, vector_ops_per_cycle and L2 with kind = "gpu" and'
        " calibration_from a measured relative (a factor of 1.2 to 2 then), or matrix, clock and"
        ' VMEM with kind = "systolic" (1.1 to 2); process and memory.kind narrow the energy.'
        for c in plain.values()
    ]


def profile_table(profiles: Sequence[Profile], *, money: bool) -> Fitted:
    """One line a run: time, bound, utilisation, energy and, with ``money``, $ and gCO2e per million
    items.
    """
    table = _table("chip", "dtype", "batch", "time", "bound", "of peak", "energy/item", "power")
    if money:
        table.add_column("$ per million", right=True)
        table.add_column("gCO2e per million", right=True)
    for p in profiles:
        run = p.run
        row = [
            p.name,
            run.program.precision.value,
            str(p.batch),
            with_unit(p.time_s, "s"),
            run.bound,
            f"{p.mfu:.1%}",
            with_unit(p.energy_j / p.batch, "J"),
            f"{p.power_w:.0f} W",
        ]
        if money:
            row.append(ranged(p.rent.usd) if p.rent else "not rented out")
            row.append(ranged(p.footprint.kgco2e, 1e3) if p.footprint else "")
        table.add_row(*row)
    return table


@dataclass(frozen=True, slots=True)
class Alike:
    """Kernels of one shape, as repeated layers have them: the first of them, and what they come to
    together.
    """

    first: KernelRun
    names: tuple[str, ...]
    count: int
    seconds: float
    flops: float
    bytes: float

    @property
    def shown(self) -> str:
        """The name of the first, and how many there are."""
        name = self.names[0][-44:]
        return name if self.count == 1 else f"{self.count} x {name}"


def alike(run: Run) -> list[Alike]:
    """The kernels of a run by shape, those that take the most time first."""
    groups: dict[tuple[tuple[str, ...], str, Kernel], list[KernelRun]] = {}
    for k in run.kernels:
        groups.setdefault((k.kernel.ops, k.bound, k.kernel.shape), []).append(k)
    found = [
        Alike(
            first=ks[0],
            names=tuple(k.kernel.name for k in ks),
            count=sum(k.kernel.repeat for k in ks),
            seconds=sum(k.time_s * k.kernel.repeat for k in ks),
            flops=sum(k.kernel.flops * k.kernel.repeat for k in ks),
            bytes=sum(k.kernel.traffic.total * k.kernel.repeat for k in ks),
        )
        for ks in groups.values()
    ]
    return sorted(found, key=lambda a: -a.seconds)


def kernel_table(p: Profile, most: int) -> Fitted:
    """The kernels that take the most time; those of one shape together, as layers repeat."""
    table = _table("kernel", "op", "time", "share", "bound", "FLOP", "bytes")
    groups = alike(p.run)
    total = sum(a.seconds for a in groups)
    for a in groups[:most]:
        table.add_row(
            a.shown,
            "+".join(a.first.kernel.ops),
            show(a.seconds, "s"),
            f"{a.seconds / (total or 1):.1%}",
            a.first.bound,
            show(a.flops, ""),
            show(a.bytes, "B"),
        )
    return table


def where_table(p: Profile) -> Fitted:
    """Where the time and the joules go."""
    table = _table("time on the matrix unit", "share", "energy", "share ")
    c = p.run.counters
    times = [
        ("multiplying", c.active),
        ("waiting for weights", c.weight_stall),
        ("shifting weights in", c.weight_shift),
        ("waiting for activations", c.memory_stall),
        ("vector unit", c.vector),
        ("launch and idle", c.idle),
    ]
    joules = p.energy_j.value or 1.0
    energies = [(e.what, e.amount.value / joules) for e in p.energy]
    for i in range(max(len(times), len(energies))):
        left = (times[i][0], f"{times[i][1] / (c.cycles or 1):.1%}") if i < len(times) else ("", "")
        right = (energies[i][0], f"{energies[i][1]:.1%}") if i < len(energies) else ("", "")
        table.add_row(*left, *right)
    return table


def models_table(models: Sequence[ModelPart]) -> Fitted:
    """The zoo: what it counts beside what was published."""
    table = _table(
        "name",
        "family",
        "parameters",
        "published",
        "active",
        "FLOP per item",
        "source",
        right=("parameters", "published", "active"),
    )
    for m in models:
        published, active = m.published_parameters, m.active_parameters
        table.add_row(
            m.name,
            m.family,
            show(m.parameters, ""),
            show(published, "") if published else "",
            show(active, "") if active and active != m.parameters else "",
            show(m.flops_per_item, ""),
            m.source,
        )
    return table


def advice_text(held: Held) -> Text:
    """Two lines: what the time hangs on, and what would take some of it off."""
    units = (
        ", ".join(f"{r.unit} {r.gain:.0%}" for r in held.by if r.gain >= 0.005)
        or "nothing in particular"
    )
    text = Text(
        "If one unit took no time, or power were no limit, the run would be shorter by: ",
        style="bold",
    )
    text.append(units + ".\n", style="default")
    text.append("Advice: ", style="bold")
    tips = [
        f"{a.do} takes {a.gain:.0%} off the time of an item" + (f" ({a.mind})" if a.mind else "")
        for a in held.advice
    ]
    text.append(
        "; ".join(tips) + "." if tips else "nothing tried saves 3 % or more.", style="default"
    )
    return text


def quality_table(checked: Sequence[tuple[Profile, Quality]]) -> Fitted:
    """What each precision does to the results, on the same inputs."""
    table = _table(
        "quality",
        "cosine",
        "SQNR",
        "same top-1",
        "the op that hurts most",
        "its SQNR",
        "of the FLOP",
        "on",
    )
    for _, q in checked:
        table.add_row(
            q.scheme,
            f"{q.cosine:.6f}",
            f"{q.sqnr_db:.1f} dB",
            f"{q.top1:.1%}",
            q.worst[-44:],
            f"{q.worst_sqnr_db:.1f} dB",
            f"{q.covered:.0%}",
            q.inputs,
        )
    return table


def steps_table(steps: Mapping[str, str]) -> Fitted:
    """The compiler's steps by the names that ``--without`` takes."""
    table = _table("step", "does")
    for name, does in steps.items():
        table.add_row(name, does)
    return table


def group_table(program: Program) -> Fitted:
    """The kernels with the ops in each and why the last one joined."""
    table = _table("kernel", "ops", "why")
    for g in program.groups:
        shown = list(dict.fromkeys(w for w in g.reasons if w != "a view"))
        table.add_row(
            g.name[-44:],
            "+".join(op.kind for op, w in zip(g.ops, g.reasons, strict=True) if w != "a view"),
            "; ".join(shown),
        )
    return table


def memory_table(program: Program) -> Fitted:
    """What lives in the large on-chip memory, and what of activations goes off chip."""
    table = _table(
        "buffer", "where", "bytes", "offset", "kernels", "why", right=("bytes", "offset")
    )
    for level, buffers in (
        (program.memory.level, program.memory.near),
        ("off chip", program.memory.far),
    ):
        for b in sorted(buffers, key=lambda b: (b.first, b.offset)):
            table.add_row(
                b.name[-44:], level, f"{b.bytes:,}", f"{b.offset:,}", f"{b.first}-{b.last}", b.why
            )
    return table


_BAR = 36


def bars(title: str, rows: Sequence[tuple[str, Estimate]], unit: str) -> Text:
    """A bar chart; the light part reaches to the upper end of the interval."""
    widest = max((e.high for _, e in rows), default=0.0)
    label = max((len(n) for n, _ in rows), default=0)
    text = Text(f"{title}\n", style="bold")
    for name, e in rows:
        full = round(_BAR * e.value / widest) if widest else 0
        reach = round(_BAR * e.high / widest) if widest else 0
        text.append(f"  {name:<{label}} ", style="default")
        text.append("█" * max(full, 1), style="cyan")
        text.append("░" * max(reach - max(full, 1), 0), style="dim")
        text.append(f" {show(e.value, unit)}\n", style="default")
    return text


def envelope_table(e: Envelope) -> Fitted:
    table = _table("energy", "carbon", "grid", "electric car")
    table.add_row(
        show(e.energy_j / 3600, "Wh"),
        show(e.kgco2e * 1e3, "gCO2e"),
        f"{e.kgco2e_per_j * 3.6e6:.3f} kg/kWh, {e.grid}",
        f"{short(e.ev_miles.low)} to {short(e.ev_miles.high)} miles",
    )
    return table


def lessons_table(rows: Sequence[Lesson]) -> Fitted:
    table = _table(
        "lesson", "claim", "published", "ours", "error", "still missing", right=("ours", "error")
    )
    for r in rows:
        table.add_row(
            r.id,
            r.claim,
            f"{r.published:g} {r.unit}" if r.published is not None else "-",
            f"{r.ours:.4g}" if r.ours is not None else "not yet",
            f"{r.error:+.1%}" if r.error is not None else "-",
            r.missing or "-",
        )
    return table
