"""A training run: for people, and as a document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields

from msgspec import UNSET

from tenfold.cluster.search import Tried, best_of
from tenfold.cluster.training import Recompute, Shard, Training
from tenfold.evaluate.training import TrainRun, Unit, shown
from tenfold.machine import Stack
from tenfold.report.document import interval, real
from tenfold.report.documents.part import some
from tenfold.report.documents.training import LayoutPart, TrainDocument, TriedPart
from tenfold.report.fit import Fitted
from tenfold.report.numbers import ranged, with_unit
from tenfold.units import show

DAY_S, HOUR_S = 86400.0, 3600.0
LARGE_KWH = 1e4  # from which on MWh are shown
SHOWN = 5  # layouts beside the best


def train_document(r: TrainRun) -> TrainDocument:
    step = r.step
    memory = {f.name: getattr(step.memory, f.name) for f in fields(step.memory)}
    days = r.seconds / DAY_S
    return TrainDocument(
        model=r.name,
        chip=r.ask.chip.name,
        count=step.training.layout.chips,
        cluster=step.topology.name,
        dtype=r.ask.chip.storage(r.ask.dtype).value,
        stack=r.ask.options.stack.value,
        parameters=r.parameters,
        tokens=some(r.ask.tokens),
        items=some(r.ask.items),
        batch=r.batch,
        seq=some(r.seq),
        layout=_layout(step.training),
        step_s=step.time.value,
        interval_step_s=interval(step.time),
        interval_status="provisional",
        step_entries_s=dict(step.entries),
        tokens_per_s=r.per_s if r.unit is Unit.TOKENS else UNSET,
        items_per_s=r.batch / step.time.value,
        flops_per_step=step.flops,
        mfu=step.mfu,
        memory_bytes=step.memory.total,
        memory_entries_bytes=memory,
        steps=r.steps,
        days=days.value,
        interval_days=interval(days),
        goodput=r.interrupted.goodput.value,
        interval_goodput=interval(r.interrupted.goodput),
        days_with_interruptions=r.with_interruptions_s.value / DAY_S,
        interval_days_with_interruptions=interval(r.with_interruptions_s / DAY_S),
        chip_hours=r.chip_hours.value,
        interval_chip_hours=interval(r.chip_hours),
        energy_kwh=r.kwh.value,
        interval_energy_kwh=interval(r.kwh),
        assumed=list(r.assumed),
        tried=_all_tried(r.tried) if r.tried else UNSET,
    )


def _layout(t: Training) -> LayoutPart:
    return LayoutPart(
        sides={side.value: n for side, n in t.layout.ways.items()},
        micro_batch=t.micro,
        interleave=t.interleave,
        recompute=t.recompute.value,
        sequence_parallel=t.sequence,
        shard=t.shard.value,
        skew=t.skew,
        flash_attention=t.flash,
        dropout=t.dropout,
    )


def _all_tried(tried: Sequence[Tried]) -> list[TriedPart]:
    best = {id(t) for t in best_of(tried)}
    return [_tried(t, pareto=id(t) in best) for t in tried]


def _tried(t: Tried, *, pareto: bool) -> TriedPart:
    return TriedPart(
        layout=_layout(t.training),
        step_s=t.time.value if t.time else UNSET,
        memory_bytes=t.memory.total if t.memory else UNSET,
        step_entries_s=dict(t.entries) if t.entries else UNSET,
        pareto=pareto,
        why_not=real(t.why),
    )


def answer_line(r: TrainRun) -> str:
    """How long, on what, how well, and at which energy."""
    days = r.seconds / DAY_S
    long = f"{ranged(days)} days" if days.value >= 1 else with_unit(r.seconds, "s")
    large = r.kwh.value >= LARGE_KWH
    energy = f"{ranged(r.kwh / 1e3)} MWh" if large else f"{ranged(r.kwh)} kWh"
    return (
        f"{long} on {r.step.training.layout.chips:,} x {r.ask.chip.name}"
        f" ({shown(r.step.training)}), {ranged(r.chip_hours)} chip-hours,"
        f" {energy} at the chips"
    )


def step_table(r: TrainRun) -> Fitted:
    """A step and its bytes, by what they are."""
    table = Fitted(["a step", "time", "share", "on the fullest chip", "bytes "])
    step = r.step
    times = [*step.entries.items()]
    bytes_ = [(f.name, getattr(step.memory, f.name)) for f in fields(step.memory)]
    for i in range(max(len(times), len(bytes_))):
        left = ("", "", "")
        if i < len(times):
            what, seconds = times[i]
            left = what, show(seconds, "s"), f"{seconds / step.time.value:.1%}"
        right = (bytes_[i][0], show(bytes_[i][1], "B")) if i < len(bytes_) else ("", "")
        table.add_row(*left, *right)
    return table


def lines(r: TrainRun) -> Iterator[str]:
    step = r.step
    size = f"{r.batch:,} x {r.seq:,} tokens" if r.seq else f"{r.batch:,} items"
    yield (
        f"A step of {size} takes {with_unit(step.time, 's')}:"
        f" {r.per_s:,.0f} {r.unit} a second, {step.mfu:.1%} of the peak (all scores of"
        f" attention counted, nothing that is computed again), {show(step.memory.total, 'B')} on"
        " the fullest chip."
    )
    if r.assumed:
        yield f"Assumed: {', '.join(r.assumed)}."
    t = step.training
    how = [
        "Adam with its state in fp32",
        f"gradients of {t.gradient_bytes} bytes",
        "sums cut along sequences" if t.sequence else "",
        "" if t.shard is Shard.NONE else f"{t.shard} shared by the copies",
        _attention(r),
        "" if t.recompute is Recompute.NONE else f"recomputation: {t.recompute}",
        "gradients summed beside the last backward pass"
        if t.overlap and t.layout.holders > 1
        else "",
        "dropout" if t.dropout else "no dropout",
        "" if r.seq else "the loss a cross-entropy along the last axis of the first result",
        _experts(t),
        _driven(r),
        ""
        if t.products is None
        else f"products of layers in {t.products.value}, tensors in 16 bits",
    ]
    yield f"How: {', '.join(h for h in how if h)}."
    yield from _search_lines(r)
    stops = r.interrupted
    yield (
        f"Interrupted every {ranged(stops.between_s / HOUR_S)} hours, as often as Llama 3 was for"
        f" each chip, it gets on for {ranged(stops.goodput * 100)} % of the time, and takes"
        f" {ranged(r.with_interruptions_s / DAY_S)} days; a checkpoint every"
        f" {stops.checkpoint_every_s / HOUR_S:.2g} hours."
    )
    yield "Intervals: provisional (docs/training.md). No data loading, no evaluation."


def _attention(r: TrainRun) -> str:
    if not r.seq:
        return ""
    return "attention in one kernel" if r.step.training.flash else "attention in parts"


def _driven(r: TrainRun) -> str:
    stack = r.ask.options.stack
    return "" if stack is Stack.ENGINE else f"driven by --stack {stack}"


def _experts(t: Training) -> str:
    if t.layout.experts == 1:
        return ""
    if t.skew == 1:
        return "tokens spread evenly over experts"
    return f"the busiest chip of experts with {t.skew:g} times the mean of tokens"


def _search_lines(r: TrainRun) -> Iterator[str]:
    """What the search found beside the best, by how much and at what that loses, and why the rest
    dropped out.
    """
    best = next((x for x in r.tried if x.training == r.step.training), None)
    if best is None or best.time is None:
        return
    others = [x for x in r.tried if x.fits and x is not best][:SHOWN]
    if others:
        said = "; ".join(_against(best, x) for x in others)
        yield f"Of {len(r.tried):,} layouts priced from single blocks, next: {said}."
    assert best.memory is not None
    most = best.memory.total
    front = [
        x
        for x in best_of(r.tried)
        if x.time is not None and x.memory is not None and x.memory.total < most
    ][:SHOWN]
    if front:
        less = "; ".join(
            f"{shown(x.training)} {show(x.time.value, 's')}, {show(x.memory.total, 'B')}"
            for x in front
            if x.time is not None and x.memory is not None
        )
        yield f"Slower with less memory: {less}."
    why = Counter(_dropped(x) for x in r.tried if not x.fits)
    if why:
        told = ", ".join(f"{n:,} {reason}" for reason, n in why.most_common())
        yield f"Dropped: {told} (--json lists them all)."


def _against(best: Tried, other: Tried) -> str:
    """Another layout, how much longer it takes, and at what it loses most."""
    assert best.time is not None
    assert other.time is not None
    more = {
        n: other.entries.get(n, 0.0) - best.entries.get(n, 0.0)
        for n in {*best.entries, *other.entries}
    }
    what = max(sorted(more), key=more.__getitem__)
    longer = other.time.value / best.time.value - 1
    lost = f", {show(more[what], 's')} more {what}"
    if longer <= 0:
        lost = " by its blocks, and not compiled whole"
    return f"{shown(other.training)} {longer:+.1%}{lost}"


def _dropped(t: Tried) -> str:
    return "take more memory than there is" if t.memory is not None else t.why
