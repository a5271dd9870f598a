"""`tenfold calibrate` and `measure`: a chip's constants from what was measured on it."""

from __future__ import annotations

import sys
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from tenfold.cli.common import Json, app, complete_chip, complete_model, emit, progress, terminal
from tenfold.errors import InputError
from tenfold.files import check_apart, read_text, write_text

if TYPE_CHECKING:
    from tenfold.calibration import Calibration, Given, ProfiledModel
    from tenfold.measure.torch import LeftOut, Taken


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
                "CSV with the columns of `predict` and a time (time_s, time_ms or time_us), or a"
                " profile of torch.profiler, trtexec, Nsight Systems or ONNX Runtime; not for host."
            )
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="The model whose passes a profile holds.", autocompletion=complete_model
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", "-b", min=1, help="Its batch size (default 1).")
    ] = None,
    seq: Annotated[int | None, typer.Option(min=1, help="Its sequence length.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="What it computes in (default: what the profile says, or fp16)."),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(help="What ran it: engine, compiled or eager (needed for PyTorch)."),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="How many passes a profile holds, where it does not say."),
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
    """Fit a chip's constants to measured times or a profile, score them on rows held out, and write
    a chip file.
    """
    from tenfold.calibration import calibrate as fit
    from tenfold.calibration import (
        chip_text,
        read_given,
        split,
        with_constants,
        writable,
        write_chip,
    )
    from tenfold.chips import chip as chip_named

    whole = _whole(model, batch, seq, dtype, stack, runs)
    if chip == "host":
        if measured is not None or whole is not None:
            raise InputError("`calibrate host` measures this machine itself: leave the rest out")
        _host(output or Path("host.toml"), force=force, as_json=as_json)
        return
    if measured is None:
        raise InputError(
            "calibrate needs a CSV of measured times or a profile: tenfold calibrate CHIP"
            " MEASURED.csv"
        )
    record = chip_named(chip)
    target = output or Path(f"{record.name}.toml")
    writable(target, force=force, stem=record.name)
    check_apart({"MEASURED": measured, "CHIP": Path(chip)}, {"--output": target})
    given = read_given(read_text(measured, most=LARGEST_PROFILE), record, whole)
    rows = given.rows
    fitted_on, held_out = split(rows)
    with progress(f"fitting {len(rows)} rows", 1) as advance:
        result = fit(record, fitted_on, held_out)
        advance()
    source = (
        f"fitted on {measured.name}: {len(fitted_on)} rows fitted on, {len(held_out)} held out by"
        " shape (tenfold calibrate)"
    )
    write_chip(target, with_constants(chip_text(chip), result, "fit_own", source), force=force)
    _say_what_was_read(given)
    if result.too_few:
        sys.stderr.write(
            f"tenfold: too few rows to fit, constants kept: {', '.join(result.too_few)}\n"
        )
    for name, factor in result.far.items():
        sys.stderr.write(
            f"tenfold: {name} moved by a factor of {factor:.2g}, more than a chip differs from"
            " another: are batch, dtype, stack and the number of runs those of the measurement?\n"
        )
    if as_json:
        from tenfold.report.trust import calibration_document

        emit(calibration_document(result, target))
    else:
        _print_calibration(result, target)


LARGEST_PROFILE = 1 << 30  # bytes


def _whole(
    model: str | None,
    batch: int | None,
    seq: int | None,
    dtype: str | None,
    stack: str | None,
    runs: int | None,
) -> ProfiledModel | None:
    """The model that a profile is of. Raises InputError for what says more of it than its name."""
    from tenfold.calibration import ProfiledModel
    from tenfold.evaluate.operators import DTYPES
    from tenfold.machine import stack_named

    if model is None:
        options = {"batch": batch, "seq": seq, "dtype": dtype, "stack": stack, "runs": runs}
        if given := [f"--{name}" for name, value in options.items() if value is not None]:
            raise InputError(f"{', '.join(given)}: of which model? --model says it")
        return None
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"unknown dtype '{dtype}': known are {', '.join(DTYPES)}")
    return ProfiledModel(
        model=model,
        batch=batch or 1,
        seq=seq,
        dtype=dtype,
        stack=stack_named(stack) if stack else None,
        runs=runs,
    )


def _say_what_was_read(given: Given) -> None:
    if given.left_out_s:
        sys.stderr.write(
            f"tenfold: read {given.read_as}: {len(given.rows)} rows; kernels that no row stands for"
            f" took {given.left_out_s * 1e3:.3g} ms\n"
        )


def _print_calibration(c: Calibration, target: Path) -> None:
    from tenfold.report.calibration import families_table, models_table

    terminal().print(families_table(c))
    if c.models:
        terminal().print(models_table(c.models))
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


class Measurable(StrEnum):
    """What is measured."""

    CUDA = "cuda"


@app.command("measure")
def measure_card(
    what: Annotated[
        Measurable, typer.Argument(help="cuda: the GPU of this machine, through PyTorch.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The CSV to write, as `calibrate` reads it.")
    ] = Path("measured.csv"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Measure the GPU of this machine: operators cold and warm, watts and clock of large products,
    and a few whole models, about ten minutes.
    """
    from tenfold.calibration import writable
    from tenfold.measure.torch import (
        MODELS,
        Place,
        bench,
        cases,
        measure_models,
        measure_operators,
        table,
    )

    writable(output, force=force)
    match what:
        case Measurable.CUDA:
            found = bench(Place.CUDA)
        case _:
            assert_never(what)
    asked, today = tuple(cases()), date.today().isoformat()
    rows: list[Taken] = []
    left: list[LeftOut] = []
    with progress(f"measuring {found.card}", 2 * len(asked) + len(MODELS)) as advance:
        for part in (measure_operators(found, asked), measure_models(found, MODELS)):
            for row in part:
                rows, left = _taken(rows, left, row)
                advance()
            write_text(output, table(found, rows, today))  # what is there, whatever comes
    for reason in left:
        sys.stderr.write(f"tenfold: left out: {reason.why}\n")
    sys.stdout.write(f"{len(rows)} rows of {found.card} written to {output}\n")
    sys.stdout.write(f"fit a chip to them: tenfold calibrate CHIP {output}\n")


def _taken(
    rows: list[Taken], left: list[LeftOut], row: Taken | LeftOut
) -> tuple[list[Taken], list[LeftOut]]:
    from tenfold.measure.torch import LeftOut

    return (rows, [*left, row]) if isinstance(row, LeftOut) else ([*rows, row], left)
