"""The verbs. Each parses its words, calls one function of the product, and prints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tenfold import units
from tenfold.cli.common import (
    Json,
    LibraryName,
    app,
    complete_chip,
    complete_model,
    complete_region,
    emit,
    finite,
    heading,
    progress,
    terminal,
)
from tenfold.errors import InputError
from tenfold.files import check_apart, read_text, write_text
from tenfold.units import Dimension


@app.command()
def chips(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One chip: all its figures with status and source (default, or all: the list).",
            autocompletion=complete_chip,
        ),
    ] = None,
    new: Annotated[
        str | None,
        typer.Option("--new", help="Write NAME.toml, a commented file for a chip of your own."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="The chip that --new begins with.", autocompletion=complete_chip),
    ] = None,
    as_json: Json = False,
) -> None:
    """The catalogue of chips, with sources; and the file of a new one."""
    from tenfold.chips import chip, names
    from tenfold.report.document import chip_document, chips_document
    from tenfold.report.tables import chip_table, chips_table

    if new is not None or like is not None:
        _new_chip(name, new, like)
        return
    if name not in (None, "all"):
        record = chip(str(name))
        if as_json:
            emit(chip_document(record))
            return
        console = terminal()
        console.print(heading(record.name, f"{record.organisation}, {record.year}  {record.note}"))
        console.print(chip_table(record))
        for key, source in record.sources.items():
            console.print(f"  {key}: {source}")
        return
    records = [chip(n) for n in names()]
    if as_json:
        emit(chips_document(records))
        return
    terminal().print(chips_table(records))


def _new_chip(name: str | None, new: str | None, like: str | None) -> None:
    from tenfold.chips import chip
    from tenfold.chips.write import new_file

    if name is not None or new is None or like is None:
        raise InputError("a new chip takes two names: tenfold chips --new mine --like l4")
    if not _CHIP_NAME.fullmatch(new):
        raise InputError(
            f"--new takes a name of letters, digits, '-', '_' and '.', up to 60, got '{new[:60]}'"
        )
    path = Path(f"{new}.toml")
    if path.exists():
        raise InputError(f"{path} is there already: take another name, or move it away")
    write_text(path, new_file(new, chip(like)))
    terminal().print(f"Written: {path}. Use it as --chip {path}.", soft_wrap=True)


_CHIP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="One model.", autocompletion=complete_model)
    ] = None,
    as_json: Json = False,
) -> None:
    """The models that can be named instead of a file, with their sizes as counted and as
    published.
    """
    from tenfold.report.document import model_document, model_part, models_document
    from tenfold.report.tables import models_table
    from tenfold.zoo import NAMES, model

    found = []
    with progress("reading models", 1 if name else len(NAMES)) as advance:
        for n in [name] if name else NAMES:
            found.append(model_part(model(n)))
            advance()
    if as_json:
        emit(models_document(found) if name is None else model_document(found[0]))
        return
    terminal().print(models_table(found))


@app.command()
def predict(
    ops: Annotated[Path, typer.Argument(help="CSV with columns op, dtype and the op's extents.")],
    chip: Annotated[
        str, typer.Option("--chip", "-c", help="The chip.", autocompletion=complete_chip)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a CSV instead of printing a table.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help=(
                "Whose way of measuring is meant, where the chip's file tells (default: kernels in"
                " a graph)."
            )
        ),
    ] = None,
    in_graph: Annotated[
        bool,
        typer.Option(
            "--graph",
            help="Operators as in a compiled graph, not as serving engines' kernels do them.",
        ),
    ] = False,
    library: LibraryName = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="How chips are joined, for collectives (default: as the chip is sold)."),
    ] = None,
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Operands in a GPU's L2 from the call before, as in a loop (default: in memory).",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Times for a list of operators: matmul, batched_matmul, attention_prefill, attention_decode,
    moe, conv2d, softmax, layernorm, element-wise ones, and collectives over several chips.
    """
    from tenfold.chips import chip as chip_named
    from tenfold.chips import library_named, with_library
    from tenfold.cluster import topology_named
    from tenfold.evaluate.operators import OF_LIBRARY
    from tenfold.evaluate.predicting import RESULT_COLUMNS, predict_all, read_requests
    from tenfold.evaluate.together import TOGETHER
    from tenfold.report.documents.part import some
    from tenfold.report.documents.trust import PredictDocument
    from tenfold.report.trust import predicted_rows

    record = chip_named(chip)
    if as_json and output is not None:
        raise InputError("--json writes to stdout and --output a CSV: leave one out")
    if library is not None and in_graph:
        raise InputError(f"--graph means no engine's kernels: leave --library {library} out")
    if library is not None:
        record = with_library(record, library_named(library))
    topology = topology_named(cluster) if cluster is not None else None
    check_apart({"OPS": ops}, {"--output": output})
    raw, requests = read_requests(read_text(ops), engine=not in_graph, warm=warm)
    kinds = {r.op for r in requests}
    if library is not None and not kinds & OF_LIBRARY:
        raise InputError(
            f"--library {library} is of {', '.join(sorted(OF_LIBRARY))}, of which {ops} has none"
        )
    if cluster is not None and not kinds & TOGETHER.keys():
        raise InputError(f"--cluster {cluster} is of collectives, of which {ops} has none")
    found = []
    with progress("predicting", len(requests)) as advance:
        for p in predict_all(requests, record, source, topology):
            found.append(p)
            advance()
    rows = predicted_rows(raw, found)
    if as_json:
        emit(PredictDocument(chip=record.name, library=some(library), rows=rows))
    elif output is not None:
        _write_csv(output, [*raw[0], *RESULT_COLUMNS], rows)
    else:
        _print_rows(rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(columns)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    from tenfold.estimate import Estimate
    from tenfold.evaluate.predicting import RESULT_COLUMNS
    from tenfold.report.fit import Fitted
    from tenfold.report.numbers import with_unit

    table = Fitted(["op", "dtype", "extents", "time", "bound", "energy"])
    skip = {"op", "dtype", *RESULT_COLUMNS}
    for r in rows:
        extents = " ".join(f"{k}={v}" for k, v in r.items() if k not in skip and v)
        time = Estimate(r["time_s"], r["time_low_s"], r["time_high_s"])
        energy = "-"
        if "energy_j" in r:
            ends = r["energy_low_j"], r["energy_high_j"]
            energy = with_unit(Estimate(r["energy_j"], *ends), "J")
        table.add_row(r["op"], r["dtype"], extents, with_unit(time, "s"), r["bound"], energy)
    terminal().print(table)


@app.command()
def estimate(
    power: Annotated[str, typer.Option(help="Power with a unit, such as 1.2kW.")],
    hours: Annotated[float, typer.Option(help="Hours at that power.")],
    region: Annotated[
        str | None,
        typer.Option(
            help="Region of the grid (default: US average of 2020).", autocompletion=complete_region
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """The envelope's back: a power for some hours, in kWh, kgCO2e and electric miles."""
    from tenfold.carbon import envelope
    from tenfold.report.tables import envelope_table
    from tenfold.report.trust import envelope_document

    result = envelope(
        units.parse(power, Dimension.POWER_W), finite("--hours", hours) * 3600, region
    )
    if as_json:
        emit(envelope_document(result))
    else:
        terminal().print(envelope_table(result))


@app.command()
def lessons(
    number: Annotated[
        str | None, typer.Argument(help="One lesson: 1 to 10, carbon, moe or envelope.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the page docs/lessons.md to this path.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The ten lessons, carbon, mixture of experts and the envelope: claim, published number, ours,
    error.
    """
    from tenfold.claims import lessons as rows_of
    from tenfold.claims import markdown
    from tenfold.report.tables import lessons_table
    from tenfold.report.trust import lessons_document

    rows = rows_of(number)
    if write is not None:
        write_text(write, markdown(rows))
    if as_json:
        emit(lessons_document(rows))
    else:
        terminal().print(lessons_table(rows))
