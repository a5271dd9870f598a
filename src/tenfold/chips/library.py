"""Libraries of kernels: constants of attention, decode and experts that are one engine's, not the
chip's.

The catalogue's constants are those of TensorRT-LLM, in its intervals lie nine of ten
rows of all that are known; a
file in ``libraries`` gives what another, or what it alone, was measured to do. A chip that it has
no rows of takes the constants of the relative that its own file names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold.chips.constants import ERROR, OF_KIND, PREDICTED, spec_of
from tenfold.chips.figures import CALIBRATION
from tenfold.chips.kinds import Kind
from tenfold.chips.record import Chip
from tenfold.errors import DataFileError, InputError, UnknownName
from tenfold.facts import Figure, FigureText, Spec, check_sources, read_file

FOLDER = Path(__file__).parent / "libraries"


class Library(StrEnum):
    """Whose kernels run."""

    TENSORRT_LLM = "tensorrt-llm"
    VLLM = "vllm"
    SGLANG = "sglang"


def library_named(name: str) -> Library:
    """The library of this name. Raises UnknownName with the nearest."""
    try:
        return Library(name)
    except ValueError:
        raise UnknownName("library", name, list(Library)) from None


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    does: str
    sources: dict[str, str]
    chips: dict[str, dict[str, FigureText]]


_SPECS: Mapping[str, Spec] = {
    **{c.value: spec_of(c) for c in OF_KIND[Kind.GPU]},
    **{f"{of.value}_error": ERROR for of in PREDICTED},
}


@lru_cache(maxsize=8)
def library_figures(library: Library) -> Mapping[str, Mapping[str, Figure]]:
    """Its figures by chip, at the paths that they have in a chip.

    Raises DataFileError for a name that no GPU has, or a source that is not there.
    """
    path = FOLDER / f"{library.value}.toml"
    file = read_file(path, _File)
    found: dict[str, dict[str, Figure]] = {}
    for chip, given in file.chips.items():
        if unknown := [n for n in given if n not in _SPECS]:
            raise DataFileError(f"{path}: chips.{chip}.{unknown[0]} is no constant of a GPU")
        check_sources(path, {f"chips.{chip}.{n}": f.source for n, f in given.items()}, file.sources)
        found[chip] = {f"{CALIBRATION}{n}": f.read(_SPECS[n]) for n, f in given.items()}
    return found


def library_sources(library: Library) -> Mapping[str, str]:
    return read_file(FOLDER / f"{library.value}.toml", _File).sources


def with_library(chip: Chip, library: Library, find: Callable[[str], Chip]) -> Chip:
    """``chip`` as ``library`` drives it: its constants, or those of the nearest relative that was
    measured with it, which ``find`` finds by its name. The library is in its name.

    Raises InputError for a chip that is no GPU, or without a measured relative.
    """
    if chip.kind is not Kind.GPU:
        raise InputError(
            f"{library.value} drives GPUs: {chip.name} is of kind '{chip.kind}', so leave --library"
            " out"
        )
    known = library_figures(library)
    named, at = [chip.name], chip
    while at.name not in known:
        if not at.calibration_from:
            raise InputError(
                f"nothing is known of {library.value} on {' or '.join(named)}: known are"
                f" {', '.join(known)}"
            )
        at = find(at.calibration_from)
        named.append(at.name)
    own = known[at.name]
    driven = replace(
        chip,
        name=f"{chip.name} ({library.value})",
        called=chip.sold_as,
        sources={**library_sources(library), **chip.sources},
    )
    if at is chip:
        return replace(driven, figures={**chip.figures, **own})
    bare = replace(driven, figures={p: f for p, f in chip.figures.items() if p not in own})
    return bare.with_calibration_of(replace(at, figures={**at.figures, **own}))
