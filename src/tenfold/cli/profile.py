"""`tenfold profile`: the main job, and what the run says about itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.common import (
    DTypeName,
    FreeSizes,
    Height,
    Json,
    LibraryName,
    PhaseName,
    PowerCap,
    Seq,
    StackName,
    Width,
    app,
    complete_chip,
    complete_model,
    complete_region,
    complete_step,
    emit,
    heading,
    named_sizes,
    progress,
    terminal,
    whole,
    words,
)
from tenfold.errors import InputError
from tenfold.files import check_apart, write_text

if TYPE_CHECKING:
    from tenfold.chips import Chip
    from tenfold.evaluate.profiling import Several
    from tenfold.study import StudyResult


@app.command()
def profile(
    model: Annotated[
        str,
        typer.Argument(
            help="An .onnx file, a Hugging Face config.json, or a name from `tenfold models`.",
            autocompletion=complete_model,
        ),
    ],
    chip: Annotated[
        list[str],
        typer.Option(
            "--chip",
            "-c",
            help="Chips, repeated or separated by commas.",
            autocompletion=complete_chip,
        ),
    ],
    batch: Annotated[
        list[str] | None,
        typer.Option(
            "--batch", "-b", help="Batch sizes, repeated or separated by commas (default 1)."
        ),
    ] = None,
    seq: Seq = None,
    phase: PhaseName = None,
    height: Height = None,
    width: Width = None,
    size: FreeSizes = None,
    dtype: DTypeName = None,
    region: Annotated[
        str | None,
        typer.Option(help="Adds $ and gCO2e per million items.", autocompletion=complete_region),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help=(
                "A figure of the chips changed: memory.bytes_per_s=2x, matrix.rows=256,"
                " clock=1.2GHz; several values sweep: memory.bytes_per_s=1x,2x,4x."
            ),
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Compiler steps to leave out (see `tenfold compile --steps`).",
            autocompletion=complete_step,
        ),
    ] = None,
    stack: StackName = "engine",
    library: LibraryName = None,
    power_cap: PowerCap = None,
    count: Annotated[
        int | None,
        typer.Option(help="Chips that run the model together (default: one, or the layout's)."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help=(
                "How they share it: tp=8 (every layer), pp=2 (stages), dp=4 (copies, each with its"
                " part of the batch), or tp=4,pp=2. Default: every layer."
            )
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="How they are joined (see docs/cluster.md); default: as the chip is sold."
        ),
    ] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality",
            help=(
                "Run the model in the chosen dtype and compare with its own (ONNX files, which have"
                " weights)."
            ),
        ),
    ] = False,
    inputs: Annotated[
        Path | None,
        typer.Option(help="An .npz file with the inputs for --quality (default: seeded ones)."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help=(
                "Run an ONNX file with ONNX Runtime on this machine beside the prediction, node by"
                " node."
            ),
        ),
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write what each unit does when, for Perfetto (one chip and batch)."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with roofline, time, energy and memory map.")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Write the charts of the first run as a picture (needs the extra: tenfold[charts])."
            )
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Kernels to list for a single run.")] = 10,
    sources: Annotated[
        bool, typer.Option("--sources", help="List the figures and papers that the result used.")
    ] = False,
    as_json: Json = False,
) -> None:
    """A model on chips: time, what bounds it, energy, money and carbon."""
    from tenfold.chips import capped, variants
    from tenfold.chips import chip as chip_named
    from tenfold.compiler import Options
    from tenfold.machine import stack_named
    from tenfold.model import Sizes
    from tenfold.report.document import study_document
    from tenfold.study import Study, studied

    check_apart(
        {"MODEL": Path(model), "--inputs": inputs},
        {"--html": html, "--trace": trace, "--png": png},
    )
    study = Study(
        model=model,
        chips=tuple(
            capped(v, power_cap)
            for n in words(chip)
            for v in variants(_driven(chip_named(n), library, stack), settings or ())
        ),
        batches=tuple(whole(batch or ["1"], "batch")),
        sizes=Sizes(1, seq, height, width, *named_sizes(size or ())),
        phase=phase,
        dtype=dtype,
        region=region,
        options=Options(tuple(dict.fromkeys(words(without or ()))), stack=stack_named(stack)),
        quality=quality,
        inputs=inputs,
        measure=measure,
        on=_several(count, layout, cluster),
    )
    runs = len(study.chips) * len(study.batches)
    if trace is not None and runs != 1:
        raise InputError(f"--trace takes one chip and one batch, got {runs} runs")
    with progress("profiling", runs) as advance:
        result = studied(study, advance)
    if as_json:
        emit(study_document(result, sources=sources))
    else:
        _print(result, top, sources=sources)
    # files last: one that cannot be written takes no answer away
    if trace is not None:
        _write_trace(result, trace)
    if html is not None:
        _write_page(result, html)
    if png is not None:
        from tenfold.report.png import write_png

        write_png(result.runs[0], png)


def _several(count: int | None, layout: str | None, cluster: str | None) -> Several | None:
    """Raises InputError for a topology without chips to join."""
    from tenfold.cluster import layout_of, topology_named
    from tenfold.evaluate.profiling import Several

    topology = topology_named(cluster) if cluster is not None else None
    if count is None and layout is None:
        if cluster is not None:
            raise InputError(f"--cluster {cluster} joins several chips: give --count or --layout")
        return None
    return Several(layout_of(count, layout), topology)


def _driven(record: Chip, library: str | None, stack: str) -> Chip:
    """Raises InputError for a library whose kernels the stack does not run."""
    from tenfold.chips import library_named, with_library
    from tenfold.machine import Stack, stack_named

    if library is None:
        return record
    if stack_named(stack) is not Stack.ENGINE:
        raise InputError(
            f"--library {library} is an engine's: --stack {stack} runs the kernels of PyTorch, so"
            " leave one out"
        )
    return with_library(record, library_named(library))


def _write_trace(result: StudyResult, path: Path) -> None:
    from tenfold.machine.trace import trace_document

    p = result.runs[0]
    write_text(path, json.dumps(trace_document(p.run, p.chip), allow_nan=False))


def _write_page(result: StudyResult, path: Path) -> None:
    from tenfold.report.html import advice_lines, profile_page

    advice = advice_lines(result.held) if result.held else []
    write_text(path, profile_page(result.runs, list(_notes(result)), advice))


def _print(result: StudyResult, top: int, *, sources: bool) -> None:
    from tenfold.report.comparison import comparison_table
    from tenfold.report.document import source_list
    from tenfold.report.tables import (
        advice_text,
        bars,
        kernel_table,
        profile_table,
        quality_table,
        where_table,
    )

    done = result.runs
    console = terminal()
    program = done[0].run.program
    sizes = ", ".join(f"{k}={v}" for k, v in done[0].sizes.items() if k != "batch")
    console.print(
        heading(
            program.model,
            f"{done[0].flops / done[0].batch / 1e9:.3g} GFLOP an"
            f" item{', ' + sizes if sizes else ''}",
        )
    )
    console.print(profile_table(done, money=result.study.region is not None))
    if len(done) == 1:
        console.print(where_table(done[0]))
        console.print(kernel_table(done[0], top))
        if result.held:
            console.print(advice_text(result.held), soft_wrap=True)
    else:
        labels = [f"{p.name} b{p.batch}" for p in done]
        console.print(
            bars(
                "time per item",
                [(n, p.every_s / p.batch) for n, p in zip(labels, done, strict=True)],
                "s",
            )
        )
        console.print(
            bars(
                "energy per item",
                [(n, p.energy_j / p.batch) for n, p in zip(labels, done, strict=True)],
                "J",
            )
        )
    if result.quality:
        console.print(quality_table(result.quality))
    for note in _notes(result):
        console.print(note, style="dim", soft_wrap=True)
    if sources:
        for p in done:
            console.print(f"\nsources of {p.run.program.chip}:")
            for line in source_list(p):
                console.print(f"  {line}", soft_wrap=True)
    for p, c in result.measured:
        console.print(comparison_table(p.batch, c, top))
    for r in result.refused:
        sys.stderr.write(f"tenfold: {r.chip}, batch {r.batch}: {r.reason}\n")


def _notes(result: StudyResult) -> Iterable[str]:
    from tenfold.machine import Stack, stack_facts
    from tenfold.report.tables import changed_lines, group_lines, power_lines, roofline_lines

    done = result.runs
    left_out = done[0].run.program.without
    stack = done[0].run.program.stack
    if stack is not Stack.ENGINE:
        yield f"Stack {stack}: {stack_facts(stack).does}."
    yield from group_lines(done)
    yield from power_lines(done)
    if left_out:
        yield f"Left out: {', '.join(left_out)}."
    yield (
        "Intervals: measured errors of kernels or whole models where there are any, provisional"
        " elsewhere (docs/fidelity.md)."
    )
    yield from changed_lines(p.chip for p in done)
    yield from roofline_lines(p.chip for p in done)
    narrow = sorted({p.run.program.precision.value for p in done} - {"fp32"})
    if narrow and not result.quality:
        yield f"Quality not checked in {', '.join(narrow)}."
    for p in done[:1]:
        if p.run.program.native_fraction < 1:
            yield (
                f"{1 - p.run.program.native_fraction:.2%} of the arithmetic is in ops priced by"
                " their bytes only."
            )
        if p.run.program.assumed:
            yield "Assumed where data decide: " + ", ".join(
                f"{n} = {v}" for n, v in p.run.program.assumed
            )
    if result.study.region is not None:
        f = next((p.footprint for p in done if p.footprint), None)
        prices = {
            f"{p.run.program.chip} {p.rent.price.provider} {p.rent.price.date}"
            for p in done
            if p.rent
        }
        if prices:
            yield (
                f"Rent at list price, on demand, one busy chip: {', '.join(sorted(prices))}; the"
                " interval spans providers."
            )
        if f:
            yield (
                f"Carbon is operational, location-based, {f.region.name} ({f.region.source}), host"
                " share and PUE included."
            )
