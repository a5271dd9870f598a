"""What the verbs share: the application, output, progress, completion."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tenfold.errors import InputError

if TYPE_CHECKING:
    from tenfold.report.documents.part import Part

E = TypeVar("E", bound=Enum)

app = typer.Typer(
    name="tenfold",
    help=(
        "What running a neural network will take - milliseconds, joules, dollars, grams of CO2 - on"
        " any accelerator."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Seq = Annotated[
    int | None,
    typer.Option(
        help=(
            "Sequence length, where the model leaves it open (default 128); in decode the tokens in"
            " the cache."
        )
    ),
]
Height = Annotated[
    int | None, typer.Option(help="Image height, where the model leaves it open (default 224).")
]
Width = Annotated[
    int | None, typer.Option(help="Image width, where the model leaves it open (default 224).")
]
FreeSizes = Annotated[
    list[str] | None, typer.Option(help="Any other free dimension, as NAME=NUMBER.")
]
PhaseName = Annotated[
    str | None,
    typer.Option(help="forward, prefill or decode, for networks that generate token by token."),
]
DTypeName = Annotated[
    str | None,
    typer.Option(help="int8, fp8, bf16, fp16, tf32 or fp32 (default: each chip's best precision)."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]


def emit(document: Part) -> None:
    from tenfold.report.documents import plain

    sys.stdout.write(json.dumps(plain(document), indent=1, allow_nan=False) + "\n")


def terminal() -> Any:
    """A console as wide as the terminal; 150 columns where there is none, so that tables are not
    cut.
    """
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150
    return Console(width=wide, highlight=False, markup=False)


@contextmanager
def progress(what: str, total: int) -> Iterator[Any]:
    """A bar on stderr while something long runs; silent where stderr is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def words(values: Sequence[str]) -> list[str]:
    """Words given one by one or separated by commas."""
    return [w.strip() for v in values for w in v.split(",") if w.strip()]


def whole(values: Sequence[str], what: str) -> list[int]:
    numbers = []
    for w in words(values):
        if not (w.isdecimal() and w.isascii()) or int(w) < 1:
            raise InputError(f"{what} must be a whole number of at least 1, got '{w}'")
        numbers.append(int(w))
    return numbers


def one_of(kind: type[E], text: str, option: str) -> E:
    """The member of an enum that ``text`` names. Raises InputError with what is allowed."""
    try:
        return kind(text)
    except ValueError as error:
        allowed = ", ".join(str(m.value) for m in kind)
        raise InputError(f"{option} is one of {allowed}, got '{text}'") from error


def complete_chip(incomplete: str) -> list[str]:
    from tenfold.chips import names

    return [n for n in names() if n.startswith(incomplete)]


def complete_region(incomplete: str) -> list[str]:
    from tenfold.carbon import regions

    return [n for n in regions() if n.startswith(incomplete)]


def complete_step(incomplete: str) -> list[str]:
    from tenfold.compiler import STEPS

    return [n for n in STEPS if n.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    from tenfold.zoo import NAMES

    return [n for n in NAMES if n.startswith(incomplete)] + [
        str(p) for p in Path().glob(f"{incomplete}*.onnx")
    ]


def named_sizes(pairs: Sequence[str]) -> tuple[tuple[str, int], ...]:
    sizes = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not (value.isdecimal() and value.isascii()) or int(value) < 1:
            raise InputError(f"--size takes NAME=NUMBER with a number of at least 1, got '{pair}'")
        sizes.append((name, int(value)))
    return tuple(sizes)


def heading(name: str, rest: str) -> Any:
    """A name in bold with what follows; names come from files and are never read as markup."""
    from rich.text import Text

    return Text.assemble((name, "bold"), f"  {rest}")


def write_text(path: Path, text: str) -> None:
    """Write a file, or say in one line why not."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
