"""Writing constants into the text of a chip file, everything else in it left as it is."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tenfold.calibration.record import Calibration
from tenfold.chips import CATALOGUE, names, read_chip
from tenfold.chips.write import text_of
from tenfold.errors import InputError, UnknownName
from tenfold.files import read_text, write_text

_SECTION = re.compile(r"^\s*\[\[?\s*([\w.]+)\s*\]?\]\s*(#.*)?$")
_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


def chip_text(name: str) -> str:
    """The text of the file of a chip, by the name of the chip or the path of the file."""
    path = Path(name) if name.endswith(".toml") else CATALOGUE / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise UnknownName("chip", name, names())
    return read_text(path)


def with_constants(text: str, c: Calibration, key: str, source: str) -> str:
    """``text`` of a chip file with the constants and errors of ``c``, whose provenance is
    ``source`` under the name ``key``.

    Where the file has another source of that name, the name is numbered.
    """
    known = text
    key = next(
        k
        for k in (key, *(f"{key}_{i}" for i in range(2, 10_000)))
        if not re.search(rf"^\s*{k}\s*=", known, re.M)
    )
    constants, offsets = entries(c)
    lines = text.rstrip("\n").split("\n")
    lines = _put(lines, "sources", {key: text_of(source)})
    lines = _put(
        lines, "calibration", {n: _figure(v, key, note) for n, (v, note) in constants.items()}
    )
    return (
        "\n".join(
            _put(lines, "offsets", {n: _figure(v, key, note) for n, (v, note) in offsets.items()})
        )
        + "\n"
    )


def entries(c: Calibration) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    """Constants and offsets by name, each as a value with its unit and a note of how it came
    out.
    """
    constants: dict[str, tuple[str, str]] = {}
    offsets: dict[str, tuple[str, str]] = {}
    for f in c.families:
        note = _score(f.fitted_on, f.held_out)
        for name, value in f.constants.items():
            constants[name] = (_valued(name, value), "")
        for name, value in f.offsets.items():
            offsets[name] = (_valued("_s", value), "")
        for name in f.covers:
            constants[f"{name.value}_error"] = (
                f"{f.interval:.3f}",
                f"nine of ten of the rows fitted on; {note}",
            )
    return constants, offsets


def _score(fitted_on: tuple[float, ...], held_out: tuple[float, ...]) -> str:
    def mean(errors: tuple[float, ...]) -> str:
        return (
            f"{sum(map(abs, errors)) / len(errors):.1%} on {len(errors)} rows"
            if errors
            else "no rows"
        )

    return f"mean error {mean(fitted_on)} fitted on, {mean(held_out)} held out"


def _valued(name: str, value: float) -> str:
    if not math.isfinite(value):
        raise InputError(f"the constant {name} came out as {value}: nothing is written")
    return f"{value * 1e6:.4g} us" if name.endswith("_s") else f"{value:.4g}"


def _figure(value: str, key: str, note: str) -> str:
    return (
        f'{{ value = "{value}", status = "fitted", source = "{key}"'
        + (f", note = {text_of(note)}" if note else "")
        + " }"
    )


def _key(name: str) -> str:
    return name if _BARE.match(name) else text_of(name)


def _put(lines: list[str], section: str, values: Mapping[str, str]) -> list[str]:
    """Lines in which ``section`` has these keys, those that were there replaced."""
    if not values:
        return lines
    starts = [
        i for i, line in enumerate(lines) if (m := _SECTION.match(line)) and m.group(1) == section
    ]
    if not starts:
        return [*lines, "", f"[{section}]", *(f"{_key(k)} = {v}" for k, v in values.items())]
    first = starts[0] + 1
    last = next((i for i in range(first, len(lines)) if _SECTION.match(lines[i])), len(lines))
    while last > first and not lines[last - 1].strip():
        last -= 1
    left = {_key(k): v for k, v in values.items()}
    body = []
    for line in lines[first:last]:
        name = line.split("=", 1)[0].strip()
        body.append(f"{name} = {left.pop(name)}" if name in left else line)
    return [*lines[:first], *body, *(f"{k} = {v}" for k, v in left.items()), *lines[last:]]


def writable(path: Path, *, force: bool, stem: str | None = None) -> None:
    """Raises InputError, before anything is measured or fitted, where a chip file cannot be written
    to ``path``.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not force:
        raise InputError(
            f"{path} is there already: give --force to replace it, or another --output"
        )
    if stem is not None and path.name != f"{stem}.toml":
        raise InputError(
            f"the file of a chip is named after it: --output must end in {stem}.toml, found"
            f" {path.name}"
        )


def write_chip(path: Path, text: str, *, force: bool) -> None:
    """Write a chip file beside its place, read it back, and put it there: a fault leaves what was
    there. Raises InputError where it is there already and ``force`` is not given.
    """
    writable(path, force=force)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tenfold.") as beside:
            whole = Path(beside) / path.name
            write_text(whole, text)
            read_chip(whole)
            whole.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
