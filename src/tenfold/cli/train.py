"""`tenfold train`: a training run on several chips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.common import (
    DTypeName,
    Json,
    PowerCap,
    StackName,
    app,
    complete_chip,
    complete_model,
    emit,
    finite,
    heading,
    one_of,
    progress,
    terminal,
)
from tenfold.errors import InputError
from tenfold.files import check_apart, write_text

if TYPE_CHECKING:
    from tenfold.cluster.training import Training
    from tenfold.evaluate.training import TrainRun


@app.command()
def train(
    model: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face config.json, or a name from `tenfold models`.",
            autocompletion=complete_model,
        ),
    ],
    chip: Annotated[
        str, typer.Option("--chip", "-c", help="The chip.", autocompletion=complete_chip)
    ],
    count: Annotated[int, typer.Option(min=1, help="How many of them.")],
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on, such as 15e12.")] = None,
    items: Annotated[
        float | None,
        typer.Option(help="Items to train on, for networks without a sequence (or sequences)."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            "-b",
            min=1,
            help="Items a step (default: of 4 Mi tokens together; 32 a chip where there are none).",
        ),
    ] = None,
    seq: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a sequence (default: 2048 at most).")
    ] = None,
    dtype: DTypeName = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help=(
                "tp=8,pp=8,dp=4: chips that share every layer, stages, copies; cp=2: stretches of"
                " sequences; ep=4: experts apart among copies (default: the quickest that fits is"
                " sought)."
            )
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Sequences of a microbatch (with --layout; default 1)."),
    ] = None,
    interleave: Annotated[
        int | None, typer.Option(min=1, help="Stages a chip (with --layout; default 1).")
    ] = None,
    recompute: Annotated[
        str | None,
        typer.Option(
            help=(
                "none, attention, ops or full: what is computed again in the backward pass (with"
                " --layout; default none)."
            )
        ),
    ] = None,
    sequence_parallel: Annotated[
        bool | None,
        typer.Option(
            "--sequence-parallel/--no-sequence-parallel",
            help="Sums stay cut along sequences (with --layout; default with tp).",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help=(
                "none, optimiser or weights (FSDP): what copies hold a share of (with --layout;"
                " default with dp: optimiser)."
            )
        ),
    ] = None,
    skew: Annotated[
        float | None,
        typer.Option(
            help=(
                "How many times the mean of tokens the busiest chip of experts gets (with --layout"
                " and ep; default 1)."
            )
        ),
    ] = None,
    flash: Annotated[
        bool,
        typer.Option("--flash/--no-flash", help="Attention in one kernel, or in parts."),
    ] = True,
    dropout: Annotated[
        bool, typer.Option("--dropout/--no-dropout", help="Blocks drop out a tenth.")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(help="How the chips are joined (default: as they are sold).")
    ] = None,
    stack: StackName = "engine",
    power_cap: PowerCap = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write what the chips of a pipeline do when, for Perfetto."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page: step, memory, schedule, scaling, layouts."),
    ] = None,
    as_json: Json = False,
) -> None:
    """A training run: layout, step, days, chip-hours and energy on any number of chips."""
    from tenfold.chips import capped
    from tenfold.chips import chip as chip_named
    from tenfold.cluster import Layout, topology_named
    from tenfold.cluster.training import Training
    from tenfold.compiler import Options
    from tenfold.evaluate.training import NoLayout, TrainAsk, scaled
    from tenfold.evaluate.training import train as trained
    from tenfold.machine import stack_named
    from tenfold.report.training import train_document

    check_apart({"MODEL": Path(model)}, {"--html": html, "--trace": trace})
    chosen = (micro_batch, interleave, recompute, sequence_parallel, shard, skew)
    given = _given(count, layout, *chosen, flash=flash, dropout=dropout)
    ask = TrainAsk(
        model=model,
        chip=capped(chip_named(chip), power_cap),
        count=count,
        tokens=finite("--tokens", tokens) if tokens is not None else None,
        items=finite("--items", items) if items is not None else None,
        batch=batch,
        seq=seq,
        dtype=dtype,
        training=given,
        wanted=Training(layout=Layout(), flash=flash, dropout=dropout),
        topology=topology_named(cluster) if cluster is not None else None,
        options=Options(stack=stack_named(stack)),
    )
    try:
        with progress("laying out", 2) as advance:
            found = trained(ask, advance)
    except NoLayout as no:
        sys.stderr.write(f"tenfold: {no}\n")
        raise typer.Exit(1) from no
    if as_json:
        emit(train_document(found))
    else:
        _print(found)
    # files last: one that cannot be written takes no answer away
    if trace is not None:
        from tenfold.report.schedule import step_trace

        write_text(trace, json.dumps(step_trace(found), allow_nan=False))
    if html is not None:
        from tenfold.report.training_page import training_page

        write_text(html, training_page(found, tuple(scaled(found))))


def _print(found: TrainRun) -> None:
    from tenfold.report.training import answer_line, lines, step_table

    console = terminal()
    console.print(answer_line(found), soft_wrap=True)
    said = f"{found.parameters / 1e9:.3g} G parameters, {found.amount:.3g} {found.unit}"
    console.print(heading(found.name, said))
    console.print(step_table(found))
    for line in lines(found):
        console.print(line, style="dim", soft_wrap=True)


def _given(
    count: int,
    layout: str | None,
    micro: int | None,
    interleave: int | None,
    recompute: str | None,
    sequence: bool | None,
    shard: str | None,
    skew: float | None,
    *,
    flash: bool,
    dropout: bool,
) -> Training | None:
    """The step as the user lays it out; None where it is sought. Raises InputError for parts of a
    layout without one.
    """
    from tenfold.cluster import layout_of
    from tenfold.cluster.training import Recompute, Shard, Training

    options = {
        "--micro-batch": micro,
        "--interleave": interleave,
        "--recompute": recompute,
        "--sequence-parallel": sequence,
        "--shard": shard,
        "--skew": skew,
    }
    if layout is None:
        said = next((name for name, value in options.items() if value is not None), None)
        if said is not None:
            raise InputError(f"{said} is of a layout, and none is given: add --layout, or leave it")
        return None
    sides = layout_of(count, layout)
    if sequence and sides.tensor == 1:
        raise InputError("--sequence-parallel is for chips that share every layer: give tp, too")
    if shard not in (None, Shard.NONE.value) and sides.holders == 1:
        raise InputError("--shard is for copies, and there is one: give dp or cp, too")
    if skew is not None and not (sides.experts > 1 and 1 <= skew <= sides.experts):
        raise InputError(
            f"--skew is at least 1, at most the chips that experts lie apart on (ep"
            f" {sides.experts}), got {skew:g}: give ep in --layout, or leave it"
        )
    shared = Shard.OPTIMISER.value if sides.holders > 1 else Shard.NONE.value
    return Training(
        layout=sides,
        micro=micro or 1,
        interleave=interleave or 1,
        recompute=one_of(Recompute, recompute or "none", "--recompute"),
        sequence=sides.tensor > 1 if sequence is None else sequence,
        shard=one_of(Shard, shard or shared, "--shard"),
        flash=flash,
        dropout=dropout,
        skew=skew or 1.0,
    )
