"""The strict reader of a chip's data file: every fault that it has is named in one go.

A chip file gives each figure as ``{ value = "175 W", status = "verified", source = "key" }``;
sources are spelled out once in ``[sources]``. Reading converts to SI and checks: names are in the
closed lists of ``figures``, values in their ranges, peaks agree with the arrays and each other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tenfold.chips.figures import OFFSETS, OWN, PEAK, SECTIONS, SRAM, constants_of
from tenfold.chips.figures import spec as spec_of_path
from tenfold.chips.kinds import NEEDED, ROLES, Kind, MatrixPrecision, MemoryTechnology, SramRole
from tenfold.chips.record import Chip
from tenfold.errors import DataFileError, UnitError
from tenfold.facts import Figure, FigureText, Spec, convert, read_table

PEAK_TOLERANCE = 0.02
YEARS = (1970, 2100)
_ORDER = (  # each is at least as fast as what is wider
    (MatrixPrecision.FP32, MatrixPrecision.TF32),
    (MatrixPrecision.FP32, MatrixPrecision.BF16),
    (MatrixPrecision.FP32, MatrixPrecision.FP16),
    (MatrixPrecision.TF32, MatrixPrecision.BF16),
    (MatrixPrecision.TF32, MatrixPrecision.FP16),
    (MatrixPrecision.BF16, MatrixPrecision.FP8),
    (MatrixPrecision.FP16, MatrixPrecision.FP8),
    (MatrixPrecision.FP8, MatrixPrecision.FP4),
    (MatrixPrecision.FP32, MatrixPrecision.INT8),  # V100 multiplies it beside the tensor cores
)


_NOT_ABOVE = (("idle_power", "tdp"), ("idle_power", "busy_power"))


class _Head(msgspec.Struct, frozen=True):
    """What a file says beside figures."""

    name: str
    organisation: str
    year: int
    kind: Kind
    sources: dict[str, str]
    cooling: Literal["air", "liquid", ""] = ""
    note: str = ""
    peak_reason: str = ""
    relatives: list[str] = []
    calibration_from: str = ""
    activation_level: SramRole | None = None
    weight_level: SramRole | None = None
    whole_weight_tiles: bool = False


_TEXTS: Mapping[str, str] = {"memory": "kind", "links": "topology"}
_TOP = (
    frozenset(_Head.__struct_fields__)
    | OWN.keys()
    | SECTIONS.keys()
    | {"sram", "calibration", "offsets"}
)


class _Faults:
    """What is wrong with a file, as it is found."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, where: str, what: str) -> None:
        self.found.append(f"{where}: {what}")

    def name(self, where: str, what: str, name: str, known: Iterable[str]) -> None:
        """A name that is not among those known, with the nearest."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
        meant = f"did you mean {' or '.join(near)}?" if near else f"allowed are {', '.join(names)}"
        self.add(where, f"unknown {what} `{name}`: {meant}")


def read_chip(path: Path) -> Chip:
    """The chip that the TOML file at ``path`` describes.

    Raises DataFileError with all that is wrong: unknown fields, wrong types and units, figures
    outside their range, missing sources, peaks that contradict the arrays.
    """
    table = read_table(path)
    faults = _Faults()
    head = _head(table, faults)
    figures = _figures(table, head.kind if head else Kind.GPU, faults)
    if head is None:
        raise DataFileError(f"{path.name}: {'; '.join(faults.found)}")
    record = _assemble(head, table, figures, faults)
    _check_sources(record, faults)
    _check_levels(record, faults)
    _check_numbers(record, faults)
    _check_peaks(record, faults)
    if path.stem != record.name:
        faults.add(
            "name", f"the chip is named '{record.name}', the file must be '{record.name}.toml'"
        )
    if faults.found:
        raise DataFileError(f"{path.name}: {'; '.join(faults.found)}")
    return record


def _head(table: Mapping[str, Any], faults: _Faults) -> _Head | None:
    for key in table:
        if key not in _TOP:
            faults.name("file", "field", key, _TOP)
    try:
        return convert(table, _Head)
    except ValueError as error:
        faults.add("file", str(error))
        return None


def _figures(table: Mapping[str, Any], kind: Kind, faults: _Faults) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for path, given, spec in _given(table, kind, faults):
        try:
            found[path] = convert(given, FigureText).read(spec)
        except (ValueError, UnitError) as error:
            faults.add(path, str(error))
    return found


def _given(
    table: Mapping[str, Any], kind: Kind, faults: _Faults
) -> Iterator[tuple[str, Any, Spec]]:
    """Every figure of the file with its path and what it is to be."""
    yield from ((name, table[name], spec) for name, spec in OWN.items() if name in table)
    for section, known in (*SECTIONS.items(), ("calibration", constants_of(kind))):
        entries = _section(table, section, faults)
        for name, given in entries.items():
            if name == _TEXTS.get(section):
                continue
            if name in known:
                yield f"{section}.{name}", given, known[name]
            else:
                what = "constant" if section == "calibration" else "field"
                faults.name(section, f"{what} of a chip of kind {kind}", name, known)
        if section == "memory":
            yield from _of_levels(table, faults)
    for name, given in _section(table, "offsets", faults).items():
        path = f"{OFFSETS}{name}"
        yield path, given, spec_of_path(kind, path)


def _of_levels(table: Mapping[str, Any], faults: _Faults) -> Iterator[tuple[str, Any, Spec]]:
    """The figures of the on-chip memories."""
    for level in _levels(table, faults):
        for name, given in level.items():
            if name in SRAM:
                yield f"sram.{level.get('name')}.{name}", given, SRAM[name]
            elif name != "name":
                faults.name("sram", "field", name, (*SRAM, "name"))


def _section(table: Mapping[str, Any], name: str, faults: _Faults) -> Mapping[str, Any]:
    found = table.get(name, {})
    if isinstance(found, dict):
        return found
    faults.add(name, f"must be a section [{name}], found {found!r}")
    return {}


def _levels(table: Mapping[str, Any], faults: _Faults) -> list[Mapping[str, Any]]:
    found = table.get("sram", [])
    if isinstance(found, list) and all(isinstance(level, dict) for level in found):
        return found
    faults.add("sram", "must be sections [[sram]], one a memory")
    return []


def _assemble(
    head: _Head, table: Mapping[str, Any], figures: Mapping[str, Figure], faults: _Faults
) -> Chip:
    memory = _section(table, "memory", faults).get("kind")
    technology: MemoryTechnology | None = None
    if memory is not None:
        by_name = {t.value.upper(): t for t in MemoryTechnology}
        technology = by_name.get(str(memory).upper())
        if technology is None and (head.kind is not Kind.LISTED or memory):
            faults.name("memory", "kind of memory", str(memory), list(MemoryTechnology))
    roles: list[SramRole] = []
    for level in _levels(table, faults):
        name = str(level.get("name"))
        if name not in {r.value for r in ROLES[head.kind]}:
            faults.name(
                "sram", f"on-chip memory of a chip of kind {head.kind}", name, ROLES[head.kind]
            )
        elif SramRole(name) in roles:
            faults.add("sram", f"there are two named '{name}'")
        elif f"sram.{name}.capacity" not in figures:
            faults.add(f"sram.{name}", "needs a capacity")
        else:
            roles.append(SramRole(name))
    return Chip(
        name=head.name,
        organisation=head.organisation,
        year=head.year,
        kind=head.kind,
        figures=figures,
        sources=head.sources,
        memory=technology,
        levels=tuple(roles),
        cooling=head.cooling,
        note=head.note,
        topology=str(_section(table, "links", faults).get("topology", "")),
        peak_reason=head.peak_reason,
        relatives=tuple(head.relatives),
        calibration_from=head.calibration_from,
        activation_level=head.activation_level,
        weight_level=head.weight_level,
        whole_weight_tiles=head.whole_weight_tiles,
    )


def _check_sources(chip: Chip, faults: _Faults) -> None:
    for source in sorted({f.source for f in chip.figures.values()} - set(chip.sources)):
        faults.add("sources", f"source '{source}' is not in [sources]")


def _check_levels(chip: Chip, faults: _Faults) -> None:
    for role in sorted(NEEDED[chip.kind] - set(chip.levels)):
        faults.add("sram", f"a chip of kind {chip.kind} needs an on-chip memory named {role}")
    named = {"activation_level": chip.activation_level, "weight_level": chip.weight_level}
    for field, level in named.items():
        if level is not None and level not in chip.levels:
            faults.add(field, f"names {level}, which the chip has not")
    if len({p for p in chip.figures if p.startswith("matrix.")}) not in (0, 3):
        faults.add("matrix", "needs arrays, rows and columns")
    elif chip.kind is Kind.SYSTOLIC and chip.matrix is None:
        faults.add("matrix", "a chip of kind systolic needs arrays, rows and columns")


def _check_numbers(chip: Chip, faults: _Faults) -> None:
    """What a machine model cannot do without, and figures that contradict each other."""
    needed = ("memory.capacity", "memory.bandwidth")
    if chip.kind is not Kind.LISTED:
        for path in (p for p in needed if p not in chip.figures):
            faults.add(path, "a modelled chip needs it")
        if chip.memory is None and chip.kind is not Kind.ROOFLINE:
            faults.add("memory.kind", f"a modelled chip needs it: {', '.join(MemoryTechnology)}")
        if not chip.peak_flops:
            faults.add("peak", "a modelled chip needs one at least")
    if chip.year and not YEARS[0] <= chip.year <= YEARS[1]:
        faults.add("year", f"must be from {YEARS[0]} to {YEARS[1]}, found {chip.year}")
    for less, more in _NOT_ABOVE:
        low, high = chip.number(less), chip.number(more)
        if low is not None and high is not None and low > high:
            faults.add(less, f"is above '{more}': {low:g} over {high:g}")


_TIMES = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)  # the rate of a dtype over that of the base


def _check_peaks(chip: Chip, faults: _Faults) -> None:
    """Narrower operands are not slower; the peak of the widest-used dtype is arrays x rows x
    columns x clock x 2, and others a power of two times that, or, where the vector unit runs
    them, less.
    """
    peaks = chip.peak_flops
    for wide, narrow in _ORDER:
        if wide in peaks and narrow in peaks and peaks[wide] > peaks[narrow] * (1 + PEAK_TOLERANCE):
            faults.add(f"{PEAK}{wide}", f"is above '{PEAK}{narrow}', whose operands are narrower")
    if chip.matrix is None or chip.clock_hz is None or chip.peak_reason:
        return
    made = chip.matrix.macs_per_cycle * chip.clock_hz * 2
    base = MatrixPrecision.BF16 if MatrixPrecision.BF16 in peaks else MatrixPrecision.INT8
    for precision, peak in peaks.items():
        times = (1.0,) if precision is base else _TIMES
        on_vectors = precision in (MatrixPrecision.FP32, MatrixPrecision.TF32) and peak <= made
        if on_vectors or any(abs(peak / (made * t) - 1) <= PEAK_TOLERANCE for t in times):
            continue
        faults.add(
            f"{PEAK}{precision}",
            f"peak {peak / 1e12:.1f} T differs from arrays x rows x columns x clock x 2 ="
            f" {made / 1e12:.1f} T{'' if precision is base else ', times a power of two,'} by more"
            f" than {PEAK_TOLERANCE:.0%}: correct a figure or state peak_reason",
        )
