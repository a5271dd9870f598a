"""`tenfold profile`: the main job, and what the run says about itself."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenfold.cli.common import (
    Json,
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
    write_text,
)
from tenfold.errors import InputError, TenfoldError

if TYPE_CHECKING:
    from tenfold.chips import Chip
    from tenfold.compiler import Options
    from tenfold.evaluate.advice import Advice, Relaxed
    from tenfold.evaluate.agreement import Quality
    from tenfold.evaluate.profiling import Profile
    from tenfold.ir import Graph
    from tenfold.measure import Comparison
    from tenfold.model import Bound, Sizes


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
    seq: Annotated[
        int | None,
        typer.Option(
            help=(
                "Sequence length, where the model leaves it open (default 128); in decode the"
                " tokens in the cache."
            )
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(help="forward, prefill or decode, for networks that generate token by token."),
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Image height, where the model leaves it open (default 224).")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Image width, where the model leaves it open (default 224).")
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(help="Any other free dimension, as NAME=NUMBER.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="int8, fp8, bf16, fp16, tf32 or fp32 (default: each chip's best precision)."
        ),
    ] = None,
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
                " clock=1.2GHz."
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
    from tenfold.carbon import region_named
    from tenfold.chips import chip as chip_named
    from tenfold.chips import what_if
    from tenfold.compiler import Options
    from tenfold.evaluate.agreement import checkable
    from tenfold.evaluate.profiling import profile_bound
    from tenfold.model import Sizes, load, prepare
    from tenfold.report.comparison import comparison_document, comparison_table
    from tenfold.report.document import advice_document, profile_document, quality_document

    options = Options(tuple(dict.fromkeys(words(without or ()))))
    if inputs is not None and not quality:
        raise InputError("--inputs are for --quality: give both, or neither")
    names, batches = words(chip), whole(batch or ["1"], "batch")
    if not names:
        raise InputError("--chip needs the name of at least one chip: see `tenfold chips`")
    records = [what_if(chip_named(n), settings or ()) for n in names]
    if quality:
        for record in records:
            checkable(record.storage(dtype))
    if region is not None:
        region_named(region)
    if measure:
        _measurable(model, records)
    graph = load(model, phase)
    others = named_sizes(size or ())
    bound = [prepare(graph, Sizes(b, seq, height, width, others)) for b in batches]
    done: list[Profile] = []
    refused: list[dict[str, Any]] = []
    with progress("profiling", len(names) * len(bound)) as advance:
        for record, g in itertools.product(records, bound):
            try:
                done.append(profile_bound(g, record, dtype=dtype, region=region, options=options))
            except TenfoldError as error:
                if len(names) * len(bound) == 1:
                    raise
                refused.append({"chip": record.name, "batch": g.batch, "reason": str(error)})
            advance()
    if trace is not None:
        _write_trace(done, trace)
    if not done:
        raise InputError("; ".join(r["reason"] for r in refused))
    checked = _check_quality(done, bound, inputs) if quality else []
    held = (
        _held_back(graph, done[0], Sizes(batches[0], seq, height, width, others), options)
        if len(names) * len(bound) == 1
        else None
    )
    if html is not None:
        from tenfold.report.html import advice_lines, profile_page

        notes = list(_notes(done, region is not None, checked=bool(checked)))
        write_text(html, profile_page(done, notes, advice_lines(*held) if held else []))
    if png is not None:
        from tenfold.report.png import write_png

        write_png(done[0], png)
    compared = (
        [(p, _measured(model, g, p)) for p in done for g in bound if g.batch == p.batch]
        if measure
        else []
    )
    if as_json:
        document: dict[str, Any] = {
            "model": graph.name,
            "runs": [profile_document(p, sources=sources) for p in done],
        }
        document["runs"][0] |= advice_document(*held) if held else {}
        if measure:
            document["measured"] = [comparison_document(p.batch, c) for p, c in compared]
        if quality:
            document["quality"] = [quality_document(p, q) for p, q in checked]
            for run in document["runs"]:
                run.pop("quality", None)
        emit(document | ({"rejected": refused} if refused else {}))
        return
    _print_profiles(done, region is not None, top, sources=sources, checked=checked, held=held)
    for p, c in compared:
        terminal().print(comparison_table(p.batch, c, top))
    for r in refused:
        sys.stderr.write(f"tenfold: {r['chip']}, batch {r['batch']}: {r['reason']}\n")


def _measurable(model: str, records: Sequence[Chip]) -> None:
    """Raises InputError where there is nothing to run, or nothing to run it on."""
    if not model.endswith(".onnx"):
        raise InputError(
            f"--measure runs ONNX files, and '{model}' is none: a network without weights"
            " cannot run"
        )
    if len(records) != 1 or records[0].name != "host":
        raise InputError(
            "--measure runs on this machine: give --chip host, or the file that `tenfold calibrate"
            " host` writes, and no other"
        )


def _measured(model: str, bound: Bound, p: Profile) -> Comparison:
    from tenfold.evaluate.agreement import SEED, seeded_inputs
    from tenfold.measure import compare_nodes, measure

    return compare_nodes(
        p.run, measure(model, seeded_inputs(bound.graph, SEED)), p.chip, bound.graph
    )


def _held_back(
    graph: Graph, p: Profile, sizes: Sizes, options: Options
) -> tuple[list[Relaxed], list[Advice]]:
    """What bounds the one run, and what would make it quicker."""
    from tenfold.evaluate.advice import advise, bottleneck

    return bottleneck(p.run.program, p.chip), advise(
        graph, sizes, p.chip, p.run.program.precision, options
    )


def _check_quality(
    done: Sequence[Profile], bound: Sequence[Bound], path: Path | None
) -> list[tuple[Profile, Quality]]:
    """The quality of each dtype among the runs, once each, on the first of the batches."""
    from tenfold.evaluate.agreement import inputs_from, quality

    graph = bound[0].graph
    given = inputs_from(path, graph) if path is not None else None
    found: list[tuple[Profile, Quality]] = []
    seen: set[str] = set()
    for p in done:
        precision = p.run.program.precision.value
        if precision not in seen:
            seen.add(precision)
            found += [(p, q) for q in quality(graph, p.chip, precision, given)]
    return found


def _write_trace(done: Sequence[Profile], path: Path) -> None:
    from tenfold.machine.trace import trace_document

    if len(done) != 1:
        raise InputError(f"--trace takes one chip and one batch, got {len(done)} runs")
    run = done[0].run
    write_text(path, json.dumps(trace_document(run, done[0].chip), allow_nan=False))


def _print_profiles(
    done: Sequence[Any],
    money: bool,
    top: int,
    *,
    sources: bool,
    checked: Sequence[Any],
    held: tuple[Sequence[Any], Sequence[Any]] | None,
) -> None:
    from tenfold.report.document import source_list
    from tenfold.report.tables import (
        advice_text,
        bars,
        kernel_table,
        profile_table,
        quality_table,
        where_table,
    )

    console = terminal()
    program = done[0].run.program
    sizes = ", ".join(f"{k}={v}" for k, v in done[0].sizes.items() if k != "batch")
    console.print(
        heading(
            program.model,
            f"{program.flops / program.items / 1e9:.3g} GFLOP an"
            f" item{', ' + sizes if sizes else ''}",
        )
    )
    console.print(profile_table(done, money=money))
    if len(done) == 1:
        console.print(where_table(done[0]))
        console.print(kernel_table(done[0], top))
        if held:
            console.print(advice_text(*held), soft_wrap=True)
    else:
        labels = [f"{p.run.program.chip} b{p.batch}" for p in done]
        console.print(
            bars(
                "time per item",
                [(n, p.run.time_s / p.batch) for n, p in zip(labels, done, strict=True)],
                "s",
            )
        )
        console.print(
            bars(
                "energy per item",
                [(n, p.run.energy_j / p.batch) for n, p in zip(labels, done, strict=True)],
                "J",
            )
        )
    if checked:
        console.print(quality_table(checked))
    for note in _notes(done, money, checked=bool(checked)):
        console.print(note, style="dim", soft_wrap=True)
    if sources:
        for p in done:
            console.print(f"\nsources of {p.run.program.chip}:")
            for line in source_list(p):
                console.print(f"  {line}", soft_wrap=True)


def _notes(done: Sequence[Any], money: bool, *, checked: bool) -> Iterable[str]:
    left_out = done[0].run.program.without
    if left_out:
        yield f"Left out: {', '.join(left_out)}."
    yield (
        "Intervals: measured errors of kernels or whole models where there are any, provisional"
        " elsewhere (docs/fidelity.md)."
    )
    narrow = sorted({p.run.program.precision.value for p in done} - {"fp32"})
    if narrow and not checked:
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
    if money:
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
