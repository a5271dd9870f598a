"""`tenfold compile`: the program, why it is cut as it is, and where its buffers live."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

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
    complete_step,
    emit,
    named_sizes,
    terminal,
    words,
)
from tenfold.errors import InputError
from tenfold.files import check_apart, write_text


@app.command()
def compile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="An .onnx file, a config.json, or a name from `tenfold models`.",
            autocompletion=complete_model,
        ),
    ] = None,
    chip: Annotated[
        str | None, typer.Option("--chip", "-c", help="The chip.", autocompletion=complete_chip)
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Batch size.")] = 1,
    seq: Seq = None,
    height: Height = None,
    width: Width = None,
    size: FreeSizes = None,
    phase: PhaseName = None,
    dtype: DTypeName = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Steps to leave out.", autocompletion=complete_step)
    ] = None,
    stack: StackName = "engine",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the program as text to a file.")
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", help="List the compiler's steps and end.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The program as text, the ops that run as one kernel and why, and the memory plan."""
    from tenfold.chips import chip as chip_named
    from tenfold.compiler import STEPS, Options, build
    from tenfold.machine import stack_named, target_of
    from tenfold.machine.text import program_text
    from tenfold.model import Sizes, load, prepare
    from tenfold.report.document import program_document
    from tenfold.report.tables import group_table, memory_table, steps_table

    if steps:
        if as_json:
            from tenfold.report.documents.profile import StepsDocument

            emit(StepsDocument(steps=dict(STEPS)))
        else:
            terminal().print(steps_table(STEPS))
        return
    if model is None or chip is None:
        raise InputError(
            "compile takes a model and a chip: tenfold compile resnet50 --chip tpu-v4i"
        )
    check_apart({"MODEL": Path(model)}, {"--output": output})
    record = chip_named(chip)
    target_of(record)
    options = Options(tuple(dict.fromkeys(words(without or ()))), stack=stack_named(stack))
    sizes = Sizes(batch, seq, height, width, *named_sizes(size or ()))
    program = build(
        prepare(load(model, phase), sizes).graph, record, record.storage(dtype), batch, options
    )
    text = program_text(program, record)
    if output is not None:
        write_text(output, text)
    if as_json:
        emit(program_document(program, text))
        return
    if output is None:
        sys.stdout.write(text)
    console = terminal()
    console.print(group_table(program))
    console.print(memory_table(program))
