"""`tenfold validate` and `scalesim`: how far to trust the numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli.common import Json, app, emit, progress, terminal
from tenfold.errors import InputError
from tenfold.files import write_text


@app.command()
def validate(
    area: Annotated[
        str | None,
        typer.Argument(help="One comparison (default: all): see the table's first column."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of measured sets; without it only what is published is compared."
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Write the page docs/fidelity.md with its charts to this path."),
    ] = None,
    cases: Annotated[int, typer.Option(min=0, help="Worst cases to list for each area.")] = 0,
    as_json: Json = False,
) -> None:
    """Predictions against published tables and measured data: errors by area, on rows that nothing
    was fitted to.
    """
    from tenfold.report.fidelity import fidelity_page, summary_table, worst_table
    from tenfold.validation import MEASURED, NAMES, compare_all, data_folder

    folder = data_folder(data)
    names = NAMES if area is None else (area,)
    with progress("comparing", len(names)) as advance:
        rows = compare_all(names, folder, advance)
    skipped = [n for n in names if n in MEASURED and folder is None]
    if skipped:
        sys.stderr.write(
            f"tenfold: skipped for want of measured data (--data DIR): {', '.join(skipped)}\n"
        )
    if not rows:
        where = f"'{folder}' holds none of the sets of '{area}'" if folder else "give --data DIR"
        raise InputError(f"there is nothing to compare: {where}")
    if write is not None:
        fidelity_page(write, rows)
    if as_json:
        from tenfold.report.trust import validate_document

        emit(validate_document(rows))
        return
    terminal().print(summary_table(rows))
    if cases:
        terminal().print(worst_table(rows, cases))


@app.command()
def scalesim(
    config: Annotated[Path, typer.Argument(help="SCALE-Sim's configuration (.cfg).")],
    topology: Annotated[
        Path,
        typer.Argument(
            help="SCALE-Sim's topology (.csv): convolutions, or products with M, N and K."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for COMPUTE_REPORT.csv; made if it is not there."
        ),
    ] = Path(),
    as_json: Json = False,
) -> None:
    """SCALE-Sim's cycles from its own files, exactly, in no time; stalls are left out."""
    from tenfold.scalesim import compute_report, run

    rows = run(config, topology)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {output}: {error.strerror}") from error
    path = output / "COMPUTE_REPORT.csv"
    write_text(path, compute_report(rows))
    if as_json:
        from tenfold.report.trust import scalesim_document

        emit(scalesim_document(path, rows))
        return
    terminal().print(
        f"{len(rows)} layers, {sum(r.total_cycles for r in rows):,} cycles, written to {path}",
        soft_wrap=True,
    )
