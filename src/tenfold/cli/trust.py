"""`tenfold validate`, `calibrate` and `scalesim`: how far to trust the numbers, and what they rest
on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.common import Json, app, complete_chip, emit, progress, terminal
from tenfold.errors import InputError
from tenfold.files import check_apart, read_text, write_text

if TYPE_CHECKING:
    from tenfold.calibration import Calibration
    from tenfold.validation import Row


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
    from tenfold.validation import MEASURED, NAMES, compare, data_folder

    folder = data_folder(data)
    names = NAMES if area is None else (area,)
    rows: list[Row] = []
    with progress("comparing", len(names)) as advance:
        for name in names:
            rows += compare(name, folder)
            advance()
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
def calibrate(
    chip: Annotated[
        str,
        typer.Argument(
            help="A chip of the catalogue, a chip file, or host.", autocompletion=complete_chip
        ),
    ],
    measured: Annotated[
        Path | None,
        typer.Argument(
            help=(
                "CSV with the columns of `predict` and a time (time_s, time_ms or time_us); not for"
                " host."
            )
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The chip file to write (default: CHIP.toml here)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fit a chip's constants to measured times, score them on rows held out, and write a chip
    file.
    """
    from tenfold.calibration import calibrate as fit
    from tenfold.calibration import (
        chip_text,
        read_measured,
        split,
        with_constants,
        writable,
        write_chip,
    )
    from tenfold.chips import chip as chip_named

    if chip == "host":
        if measured is not None:
            raise InputError("`calibrate host` measures this machine itself: leave the CSV out")
        _host(output or Path("host.toml"), force=force, as_json=as_json)
        return
    if measured is None:
        raise InputError(
            "calibrate needs a CSV of measured times: tenfold calibrate CHIP MEASURED.csv"
        )
    record = chip_named(chip)
    target = output or Path(f"{record.name}.toml")
    writable(target, force=force, stem=record.name)
    check_apart({"MEASURED": measured, "CHIP": Path(chip)}, {"--output": target})
    rows = read_measured(read_text(measured))
    fitted_on, held_out = split(rows)
    with progress(f"fitting {len(rows)} rows", 1) as advance:
        result = fit(record, fitted_on, held_out)
        advance()
    source = (
        f"fitted on {measured.name}: {len(fitted_on)} rows fitted on, {len(held_out)} held out by"
        " shape (tenfold calibrate)"
    )
    write_chip(target, with_constants(chip_text(chip), result, "fit_own", source), force=force)
    if result.too_few:
        sys.stderr.write(
            f"tenfold: too few rows to fit, constants kept: {', '.join(result.too_few)}\n"
        )
    if as_json:
        from tenfold.report.trust import calibration_document

        emit(calibration_document(result, target))
    else:
        _print_calibration(result, target)


def _print_calibration(c: Calibration, target: Path) -> None:
    from tenfold import units
    from tenfold.report.fit import Fitted

    table = Fitted(
        ["kernels", "constants", "rows", "error fitted on", "error held out", "90 % within"]
    )
    for f in c.families:
        shown = [
            f"{n} {units.show(v, 's') if n.endswith('_s') else f'{v:.4g}'}"
            for n, v in f.constants.items()
        ]
        shown += [f"beside ({s}) {units.show(v, 's')}" for s, v in f.offsets.items()]
        errors = [
            f"{sum(map(abs, e)) / len(e):.1%}" if e else "-" for e in (f.fitted_on, f.held_out)
        ]
        table.add_row(
            f.family,
            "\n".join(shown),
            f"{len(f.fitted_on)} + {len(f.held_out)}",
            *errors,
            f"{f.interval:.1%}",
        )
    terminal().print(table)
    terminal().print(f"Written to {target}: use it as --chip {target}", soft_wrap=True)


def _host(target: Path, *, force: bool, as_json: bool) -> None:
    from tenfold.calibration import writable
    from tenfold.measure import calibrate_host, probes

    writable(target, force=force, stem="host")
    with progress("measuring this machine", sum(1 for _ in probes())) as advance:
        result, text = calibrate_host(advance)
    write_text(target, text)
    if as_json:
        from tenfold.report.trust import calibration_document

        emit(calibration_document(result, target))
    else:
        _print_calibration(result, target)


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
