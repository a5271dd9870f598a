"""`tenfold plan`: which chip, which batch, how many, at what cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold import units
from tenfold.cli.common import (
    DTypeName,
    FreeSizes,
    Height,
    Json,
    PhaseName,
    Seq,
    StackName,
    Width,
    app,
    complete_chip,
    complete_model,
    complete_region,
    emit,
    heading,
    named_sizes,
    one_of,
    progress,
    terminal,
    words,
)
from tenfold.errors import InputError
from tenfold.files import check_apart, write_text
from tenfold.report.numbers import short
from tenfold.units import Dimension

if TYPE_CHECKING:
    from tenfold.machine import Stack
    from tenfold.model import Sizes
    from tenfold.planner import Ask, Conditions, Growth, LeftOut, Mixed, Plan, Spare


@app.command()
def plan(
    model: Annotated[
        str | None,
        typer.Argument(
            help="An .onnx file, a config.json, or a name from `tenfold models`; not with --mix.",
            autocompletion=complete_model,
        ),
    ] = None,
    slo: Annotated[
        str | None, typer.Option(help="99 of 100 answers within this, such as 10ms.")
    ] = None,
    rate: Annotated[str | None, typer.Option(help="Items a second, such as 1000.")] = None,
    region: Annotated[
        str | None, typer.Option(help="Adds carbon.", autocompletion=complete_region)
    ] = None,
    chip: Annotated[
        list[str] | None,
        typer.Option(
            "--chip",
            "-c",
            help="Only these chips (default: the whole catalogue).",
            autocompletion=complete_chip,
        ),
    ] = None,
    mix: Annotated[
        Path | None,
        typer.Option(help="Many models and tenants: a scenario file, as for `tenfold simulate`."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help=(
                "Rank by rent, tco, carbon, energy or capex (default: the money that the cheapest"
                " way to get a chip takes)."
            )
        ),
    ] = None,
    spare: Annotated[
        str, typer.Option(help="Chips that may fail: a number, or a share such as 10%.")
    ] = "1",
    terms: Annotated[
        str, typer.Option(help="How chips are rented: on-demand, spot or committed.")
    ] = "on-demand",
    prices: Annotated[
        Path | None,
        typer.Option(help="Your own prices, PUE, electricity, lifetime: see docs/money-carbon.md."),
    ] = None,
    cooling: Annotated[
        str | None, typer.Option(help="air: only chips that an air-cooled site can hold.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A figure of the chips named with --chip changed: see `tenfold profile --help`.",
        ),
    ] = None,
    dtype: DTypeName = None,
    stack: StackName = "engine",
    seq: Seq = None,
    height: Height = None,
    width: Width = None,
    phase: PhaseName = None,
    size: FreeSizes = None,
    headroom: Annotated[
        bool,
        typer.Option(
            "--headroom", help="How long the choice lasts: growth, workloads of other years."
        ),
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the plan as a page with a chart and the headroom.")
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="List where prices, ownership and the grid come from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What to get for a model, a latency target and a rate: which chip, how many, p99, money and
    carbon; and why not the others.
    """
    from tenfold.chips import Kind, variants
    from tenfold.chips import chip as chip_named
    from tenfold.machine import Stack, stack_named
    from tenfold.model import Sizes
    from tenfold.planner import FINALISTS, planned
    from tenfold.report.plan import headroom_lines, source_lines
    from tenfold.report.plan_document import plan_document, plan_page

    given = {"MODEL": Path(model) if model else None, "--mix": mix, "--prices": prices}
    check_apart(given, {"--html": html})
    sizes = Sizes(1, seq, height, width, *named_sizes(size or ()))
    conditions = _conditions(by, spare, terms, prices, cooling)
    common = region, dtype, stack_named(stack)
    ask = _ask((model, slo, rate), mix, common, conditions, sizes, phase)
    names = words(chip or ())
    if chip is not None and not names:
        raise InputError("--chip names no chip: leave it out for the whole catalogue")
    if settings and not names:
        raise InputError("--set changes a figure of the chips named with --chip: name them")
    chosen = [v for n in names for v in variants(chip_named(n), settings or ())]
    if common[2] is not Stack.ENGINE and chosen and all(c.kind is not Kind.GPU for c in chosen):
        raise InputError(f"--stack {stack} is of GPUs, and no chip named is one: leave it out")
    with progress("planning", len(chosen) or FINALISTS) as advance:
        found = planned(ask, chosen, lambda _: advance())
    wanted = headroom or as_json or html is not None
    grown, mixed, left = _headroom(found) if wanted else ({}, (), ())
    lines = headroom_lines(grown, mixed, left)
    if html is not None:
        write_text(html, plan_page(found, lines))
    if as_json:
        emit(plan_document(found, grown, mixed, left, sources=sources))
    else:
        shown = lines if headroom else []
        _print(found, [*shown, *source_lines(found)] if sources else shown)
    if not found.options:
        near = found.closest
        closest = f"; the closest is {near.chip}: {near.reason}" if near else ""
        sys.stderr.write(f"tenfold: no chip meets it{closest}\n")
        raise typer.Exit(1)


def _conditions(
    by: str | None, spare: str, terms: str, prices: Path | None, cooling: str | None
) -> Conditions:
    from tenfold.economics import Terms, list_prices, own_prices
    from tenfold.planner import Conditions, Measure

    if cooling not in (None, "air", "liquid"):
        raise InputError(f"--cooling is air or liquid, got '{cooling}'")
    return Conditions(
        spare=_spare(spare),
        by=one_of(Measure, by, "--by") if by is not None else None,
        terms=one_of(Terms, terms, "--terms"),
        prices=own_prices(prices) if prices is not None else list_prices(),
        air_only=cooling == "air",
    )


MOST_SPARE = 10_000


def _spare(text: str) -> Spare:
    from tenfold.planner import Spare

    if text.endswith("%"):
        share = units.parse(text, Dimension.FRACTION)
        if not 0 < share <= 1:
            raise InputError(f"--spare as a share is above 0 % and at most 100 %, got '{text}'")
        return Spare(0, share)
    if not (text.isdecimal() and text.isascii()) or int(text) > MOST_SPARE:
        raise InputError(
            f"--spare is a number of chips up to {MOST_SPARE:,}, or a share such as 10%, got"
            f" '{text}'"
        )
    return Spare(int(text))


def _ask(
    wanted: tuple[str | None, str | None, str | None],
    mix: Path | None,
    common: tuple[str | None, str | None, Stack],
    conditions: Conditions,
    sizes: Sizes,
    phase: str | None,
) -> Ask:
    from tenfold.model import Sizes as Free
    from tenfold.planner import ask_mix, ask_one
    from tenfold.scenario import read_scenario

    model, slo, rate = wanted
    region, dtype, stack = common
    if mix is not None:
        if any(x is not None for x in wanted):
            raise InputError(
                "--mix has the models, SLOs and rates in its file: leave MODEL, --slo and"
                " --rate out"
            )
        if phase is not None or sizes != Free(1):
            raise InputError("--mix has the sizes in its file: leave sizes and --phase out")
        return ask_mix(
            read_scenario(mix), region=region, dtype=dtype, conditions=conditions, stack=stack
        )
    if model is None or slo is None or rate is None:
        raise InputError(
            "a plan needs MODEL, --slo and --rate (such as: tenfold plan resnet50 --slo 15ms --rate"
            " 1000), or --mix FILE"
        )
    slo_s = units.parse(slo, Dimension.TIME_S)
    per_s = units.parse(f"{rate} /s" if _bare(rate) else rate, Dimension.RATE_PER_S)
    if slo_s <= 0 or per_s <= 0:
        raise InputError(f"--slo and --rate must be above 0, got {slo} and {rate}")
    return ask_one(
        model,
        slo_s=slo_s,
        rate_per_s=per_s,
        region=region,
        sizes=sizes,
        dtype=dtype,
        phase=phase,
        conditions=conditions,
        stack=stack,
    )


def _bare(text: str) -> bool:
    """Whether it is a number without a unit."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _headroom(found: Plan) -> tuple[dict[str, Growth], tuple[Mixed, ...], tuple[LeftOut, ...]]:
    from tenfold.planner import growth, mixes, overfit

    if not found.options:
        return {}, (), ()
    first = found.options[:2]
    return (
        {o.chip.name: growth(o, found) for o in first[:1]},
        mixes([o.chip for o in first]),
        overfit(found),
    )


def _print(found: Plan, headroom: list[str]) -> None:
    from tenfold.planner import differences
    from tenfold.report.plan import (
        answer_line,
        assumed_lines,
        demand_lines,
        how_lines,
        notes,
        plan_tables,
        rejected_lines,
    )

    console = terminal()
    if found.options:
        console.print(answer_line(found), style="bold", soft_wrap=True)
        for line in how_lines(found):
            console.print(line, soft_wrap=True)
    for d in found.ask.demands:
        console.print(
            heading(
                d.name, f"{short(d.rate_per_s)}/s within {units.show(d.slo_s, 's')}, {d.tenant}"
            )
        )
    for line in assumed_lines(found):
        console.print(line, soft_wrap=True)
    if found.options:
        for table in plan_tables(found):
            console.print(table)
        for line in (*demand_lines(found), *differences(found), *headroom):
            console.print(line, soft_wrap=True)
    for line in rejected_lines(found):
        console.print(line, style="dim", soft_wrap=True)
    if found.options:
        for line in notes(found):
            console.print(line, style="dim", soft_wrap=True)


@app.command()
def prices(
    chip: Annotated[str, typer.Argument(help="The chip.", autocompletion=complete_chip)],
    own: Annotated[
        Path | None, typer.Option("--prices", help="Your own prices: see docs/money-carbon.md.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What is known of a chip's price, with dates: to rent, whole instances by provider and region,
    and to buy.
    """
    from tenfold.chips import chip as chip_named
    from tenfold.economics import list_prices, own_prices
    from tenfold.report.money import price_tables, prices_document

    known = own_prices(own) if own is not None else list_prices()
    record = chip_named(chip)
    if as_json:
        emit(prices_document(record.name, known))
        return
    console = terminal()
    for part in price_tables(record.name, known):
        console.print(part)
