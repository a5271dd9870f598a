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
    Width,
    app,
    complete_chip,
    complete_model,
    complete_region,
    emit,
    heading,
    named_sizes,
    progress,
    terminal,
    words,
    write_text,
)
from tenfold.errors import InputError
from tenfold.units import Dimension

if TYPE_CHECKING:
    from tenfold.model import Sizes
    from tenfold.planner import Ask, Growth, LeftOut, Mixed, Plan


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
    cooling: Annotated[
        str | None, typer.Option(help="air: only chips that an air-cooled site can hold.")
    ] = None,
    dtype: DTypeName = None,
    seq: Seq = None,
    height: Height = None,
    width: Width = None,
    phase: PhaseName = None,
    size: FreeSizes = None,
    html: Annotated[
        Path | None, typer.Option(help="Write the plan as a page with a Pareto chart.")
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="List where prices, ownership and the grid come from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Which chip, which batch, how many, at which p99, for what money and carbon; and why not the
    others.
    """
    from tenfold.model import Sizes
    from tenfold.planner import FINALISTS, planned
    from tenfold.report.plan import headroom_lines, plan_document, plan_page, source_lines

    if cooling not in (None, "air", "liquid"):
        raise InputError(f"--cooling is air or liquid, got '{cooling}'")
    sizes = Sizes(1, seq, height, width, named_sizes(size or ()))
    ask = _ask(model, slo, rate, mix, (region, dtype, cooling == "air"), sizes, phase)
    names = words(chip or ())
    if chip is not None and not names:
        raise InputError("--chip names no chip: leave it out for the whole catalogue")
    with progress("planning", len(names) or FINALISTS) as advance:
        found = planned(ask, names, lambda _: advance())
    grown, mixed, left = _headroom(found)
    lines = headroom_lines(grown, mixed, left)
    if html is not None:
        write_text(html, plan_page(found, lines))
    if as_json:
        emit(plan_document(found, grown, mixed, left, sources=sources))
    else:
        _print(found, [*lines, *source_lines(found)] if sources else lines)
    if not found.options:
        near = found.closest
        closest = f"; the closest is {near.chip}: {near.reason}" if near else ""
        sys.stderr.write(f"tenfold: no chip meets it{closest}\n")
        raise typer.Exit(1)


def _ask(
    model: str | None,
    slo: str | None,
    rate: str | None,
    mix: Path | None,
    common: tuple[str | None, str | None, bool],
    sizes: Sizes,
    phase: str | None,
) -> Ask:
    from tenfold.planner import ask_mix, ask_one
    from tenfold.scenario import read_scenario

    region, dtype, air = common
    if mix is not None:
        if model is not None or slo is not None or rate is not None:
            raise InputError(
                "--mix has the models, SLOs and rates in its file: leave MODEL, --slo and"
                " --rate out"
            )
        return ask_mix(read_scenario(mix), region=region, dtype=dtype, air_only=air)
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
        air_only=air,
        phase=phase,
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
    from tenfold.report.plan import demand_lines, notes, plan_tables, rejected_lines

    console = terminal()
    for d in found.ask.demands:
        console.print(
            heading(d.name, f"{d.rate_per_s:,.6g}/s within {units.show(d.slo_s, 's')}, {d.tenant}")
        )
    if found.options:
        for table in plan_tables(found):
            console.print(table)
        for line in (*demand_lines(found), *differences(found)):
            console.print(line, soft_wrap=True)
        for line in headroom:
            console.print(line, soft_wrap=True)
    for line in rejected_lines(found):
        console.print(line, style="dim", soft_wrap=True)
    if found.options:
        for line in notes(found):
            console.print(line, style="dim", soft_wrap=True)
