"""What the verbs share: the application, output, progress, completion."""

from __future__ import annotations

import json
import math
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

HELP = (
    "What running a neural network will take - milliseconds, joules, dollars, grams of CO2 - on any"
    " accelerator."
)
app = typer.Typer(
    name="tenfold",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import tenfold

        sys.stdout.write(f"tenfold {tenfold.__version__}\n")
        raise typer.Exit


@app.callback(help=HELP)
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which version this is.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What holds for every verb."""


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
    list[str] | None,
    typer.Option(
        help=(
            "Any other free dimension, a bound for an extent that depends on data, or the content"
            " of an input that decides sizes, as NAME=NUMBER or NAME=NUMBER,NUMBER."
        )
    ),
]
PhaseName = Annotated[
    str | None,
    typer.Option(help="forward, prefill or decode, for networks that generate token by token."),
]
DTypeName = Annotated[
    str | None,
    typer.Option(help="int8, fp8, bf16, fp16, tf32 or fp32 (default: each chip's best precision)."),
]
StackName = Annotated[
    str,
    typer.Option(
        "--stack",
        help="What drives a GPU: engine (fused kernels, default), compiled (torch.compile), eager.",
    ),
]
LibraryName = Annotated[
    str | None,
    typer.Option(
        "--library",
        help=(
            "Whose kernels of attention and experts run on a GPU: tensorrt-llm, vllm or sglang"
            " (default: not known; TensorRT-LLM's, and where intervals are by kernel, those that"
            " span all three)."
        ),
    ),
]
PowerCap = Annotated[
    str | None,
    typer.Option("--power-cap", help="Watts to hold each chip to, such as 300W (default: TDP)."),
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
    from tenfold.ir.binding import LARGEST_SIZE

    numbers = []
    for w in words(values):
        if not (w.isdecimal() and w.isascii()) or int(w) < 1:
            raise InputError(f"{what} must be a whole number of at least 1, got '{w}'")
        if int(w) > LARGEST_SIZE:
            raise InputError(f"{what} must be at most {LARGEST_SIZE:,}, got {w}")
        numbers.append(int(w))
    return numbers


def one_of(kind: type[E], text: str, option: str) -> E:
    """The member of an enum that ``text`` names. Raises InputError with what is allowed."""
    try:
        return kind(text)
    except ValueError as error:
        allowed = ", ".join(str(m.value) for m in kind)
        raise InputError(f"{option} is one of {allowed}, got '{text}'") from error


def finite(option: str, value: float) -> float:
    """A number above 0 that can be computed with. Raises InputError for any other."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{option} must be a finite number above 0, got {value:g}")
    return value


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


Named = tuple[tuple[str, int], ...]
Values = tuple[tuple[str, tuple[float, ...]], ...]


def named_sizes(pairs: Sequence[str]) -> tuple[Named, Values]:
    """Sizes as NAME=NUMBER, and contents of inputs as NAME=NUMBER,NUMBER…"""
    sizes: list[tuple[str, int]] = []
    values: list[tuple[str, tuple[float, ...]]] = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        numbers = [_number(v) for v in value.split(",")]
        if not equals or not name or None in numbers:
            raise InputError(
                f"--size takes NAME=NUMBER with a number of at least 1, or the numbers of an input"
                f" as NAME=NUMBER,NUMBER, got '{pair}'"
            )
        if len(numbers) == 1:
            sizes.append((name, int(value)))
        else:
            values.append((name, tuple(float(v) for v in value.split(","))))
    return tuple(sizes), tuple(values)


LONGEST_NUMBER = 18  # digits


def _number(text: str) -> int | None:
    """A whole number of at least 1."""
    text = text.strip()
    if not (text.isdecimal() and text.isascii()) or len(text) > LONGEST_NUMBER or int(text) < 1:
        return None
    return int(text)


def heading(name: str, rest: str) -> Any:
    """A name in bold with what follows; names come from files and are never read as markup."""
    from rich.text import Text

    return Text.assemble((name, "bold"), f"  {rest}")
