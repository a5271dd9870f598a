"""The Chip record and the strict reader of its data file.

A chip file gives each figure as ``{ value = "175 W", status = "verified", source = "key" }``;
sources are spelled out once in ``[sources]``. Reading converts to SI, and the record checks itself:
the peak must be arrays x rows x columns x clock x 2 within 2 % unless the file gives a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from tenfold import units
from tenfold.errors import DataFileError, MissingFigure, UnitError, UnknownName, UnsupportedDType

Status = Literal["verified", "second-hand", "recalled", "derived", "assumed", "fitted"]
Kind = Literal["systolic", "gpu", "host", "listed"]


RELATIVE_ERROR_FACTOR = (
    2.0  # how much wider the interval is where constants come from a relative (assumed)
)


class MatrixPrecision(StrEnum):
    """Dtypes that a chip may have a peak for."""

    INT8 = "int8"
    FP8 = "fp8"
    FP4 = "fp4"
    BF16 = "bf16"
    FP16 = "fp16"
    TF32 = "tf32"
    FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One figure in SI with where it comes from. ``low`` and ``high`` bound it where sources
    disagree.
    """

    value: float
    low: float
    high: float
    status: Status
    source: str
    note: str = ""


class _Figure(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    value: str
    status: Status
    source: str
    low: str = ""
    high: str = ""
    note: str = ""


class _Matrix(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    arrays: _Figure
    rows: _Figure
    columns: _Figure


class _Memory(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    kind: str
    capacity: _Figure
    bandwidth: _Figure | None = None


class _Sram(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    capacity: _Figure
    read_bandwidth: _Figure | None = None
    write_bandwidth: _Figure | None = None


class _Links(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    count: _Figure
    bandwidth_one_way: _Figure
    topology: str = ""


class _Host(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    bandwidth: _Figure


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    organisation: str
    year: int
    kind: Kind
    sources: dict[str, str]
    memory: _Memory | None = None
    cooling: Literal["air", "liquid", ""] = ""
    note: str = ""
    process: _Figure | None = None
    die_area: _Figure | None = None
    transistors: _Figure | None = None
    clock: _Figure | None = None
    sustained_clock: _Figure | None = None
    units: _Figure | None = None
    vector_ops_per_cycle: _Figure | None = None
    vector_bits: _Figure | None = None
    tdp: _Figure | None = None
    idle_power: _Figure | None = None
    busy_power: _Figure | None = None
    system_power: _Figure | None = None
    achieved_matmul: _Figure | None = None
    peak: dict[MatrixPrecision, _Figure] = {}
    matrix: _Matrix | None = None
    sram: list[_Sram] = []
    links: _Links | None = None
    host: _Host | None = None
    peak_reason: str = ""
    relatives: list[str] = []
    calibration: dict[str, _Figure] = {}
    offsets: dict[str, _Figure] = {}
    calibration_from: str = ""
    activation_level: str = ""
    whole_weight_tiles: bool = False


@dataclass(frozen=True, slots=True)
class Matrix:
    """``arrays`` systolic arrays of ``rows`` (the contracted dimension) x ``columns`` cells."""

    arrays: int
    rows: int
    columns: int

    @property
    def macs_per_cycle(self) -> int:
        return self.arrays * self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Sram:
    """One on-chip memory level; bandwidths in bytes a second where published."""

    name: str
    bytes: float
    read_bytes_per_s: float | None
    write_bytes_per_s: float | None


@dataclass(frozen=True, slots=True, eq=False)  # one record a chip: compared and hashed by identity
class Chip:
    """One accelerator die or package as rented or bought; every number in SI.

    ``activation_level`` names the on-chip memory that activations live in where they never go off
    chip. ``whole_weight_tiles`` says that weights are stored and fetched in tiles of the array,
    padding included. ``figures`` holds the Quantity (with status and source) behind each number by
    its path in the file, for example ``memory.bandwidth`` or ``peak.bf16``.
    """

    name: str
    organisation: str
    year: int
    kind: Kind
    cooling: str
    note: str
    clock_hz: float | None
    units: int | None
    vector_ops_per_cycle: float | None
    peak_flops: Mapping[MatrixPrecision, float]
    matrix: Matrix | None
    memory_kind: str
    memory_bytes: float | None
    memory_bytes_per_s: float | None
    sram: tuple[Sram, ...]
    tdp_w: float | None
    relatives: tuple[str, ...]
    figures: Mapping[str, Quantity]
    calibration_from: str
    activation_level: str
    whole_weight_tiles: bool
    sources: Mapping[str, str]
    base: Chip | None = (
        None  # the chip of which figures were changed: energies an event stay its own
    )

    @property
    def achieved_share(self) -> float | None:
        """What the best 16-bit matmul of many reached, over the peak; None where nobody has
        published it.
        """
        figure = self.figures.get("achieved_matmul")
        peak = self.peak_flops.get(MatrixPrecision.BF16)
        return figure.value / peak if figure is not None and peak else None

    @property
    def sram_bytes(self) -> float:
        return sum(s.bytes for s in self.sram)

    @property
    def vector_memory_bytes(self) -> float:
        """On-chip memory that the units of a systolic chip read and write directly."""
        return max((s.bytes for s in self.sram if s.name == "VMEM"), default=self.sram_bytes)

    @property
    def host_bytes_per_s(self) -> float | None:
        """Rate of the link to the host, where inputs and results of each pass cross it before and
        after.
        """
        link = self.figures.get("host.bandwidth")
        return link.value if link is not None and self.activation_level else None

    @property
    def near(self) -> Sram | None:
        """The on-chip memory in which a compiler can keep buffers between kernels; None where
        hardware decides (caches).
        """
        if self.kind != "systolic":
            return None
        named = {s.name: s for s in self.sram}
        return named.get("CMEM") or named.get(self.activation_level) or named.get("VMEM")

    @property
    def vector_lanes(self) -> int:
        """fp32 numbers in one vector register of a processor; 256 bits where its file does not
        say.
        """
        return (
            max(1, int(self.figures["vector_bits"].value) // 32)
            if "vector_bits" in self.figures
            else 8
        )

    @property
    def near_bytes(self) -> float:
        """How much of ``near`` is free for that: half where the working buffers of the kernel that
        runs are in it too.
        """
        near = self.near
        if near is None:
            return 0.0
        return near.bytes if near.name in ("CMEM", self.activation_level) else near.bytes / 2

    def figure(self, path: str, result: str) -> Quantity:
        """The figure at ``path``. Raises MissingFigure naming the ``result`` that needs it."""
        if path not in self.figures:
            raise MissingFigure(
                f"{result} on {self.name} needs '{path}', which nobody has published: give it in"
                " the chip file, or choose another chip"
            )
        return self.figures[path]

    def clock(self, result: str) -> float:
        return self.figure("clock", result).value

    def constant(self, name: str) -> float:
        """A fitted or assumed constant of the machine model. Raises MissingFigure where the file
        lacks it.
        """
        if self.kind == "host" and f"calibration.{name}" not in self.figures:
            raise MissingFigure(
                f"time on {self.name} needs 'calibration.{name}', which its file lacks, as those of"
                " earlier versions do: measure that machine again with `tenfold calibrate host`"
            )
        return self.figure(f"calibration.{name}", "time").value

    def offset(self, source: str) -> float:
        """Seconds that the calls of a measuring source take beside the kernel. Raises UnknownName
        for another one.
        """
        path = f"offsets.{source}"
        if path not in self.figures:
            raise UnknownName("measuring source", source, self.measuring_sources)
        return self.figures[path].value

    @property
    def measuring_sources(self) -> tuple[str, ...]:
        return tuple(n.removeprefix("offsets.") for n in self.figures if n.startswith("offsets."))

    def error(self, family: str) -> float:
        """Factor less 1 within which nine of ten kernels of a family are expected: its own, or that
        of all kernels.
        """
        own = self.figures.get(f"calibration.{family}_error")
        return own.value if own is not None else self.constant("time_error")

    def with_constants(
        self, values: Mapping[str, float], status: Status = "fitted", source: str = "given"
    ) -> Chip:
        """This chip with these constants (``calibration.…`` or ``offsets.…`` by their path) in
        place of its own.
        """
        changed = {path: Quantity(v, v, v, status, source) for path, v in values.items()}
        return replace(self, figures={**self.figures, **changed})

    def with_calibration_of(self, relative: Chip) -> Chip:
        """This chip with the constants that it lacks taken from ``relative``, marked so, and wider
        errors.

        Fractions and factors carry over; seconds are cycles of the relative, at this chip's clock
        where both are published. Where what the best matmul achieves is published of both, shares
        of the matrix peak are scaled by it.
        """
        figures = dict(self.figures)
        cycles = relative.clock_hz / self.clock_hz if relative.clock_hz and self.clock_hz else 1.0
        own, theirs = self.achieved_share, relative.achieved_share
        achieves = own / theirs if own and theirs else 1.0
        for name, q in relative.figures.items():
            if not name.startswith(("calibration.", "offsets.")) or name in figures:
                continue
            if name == "calibration.model_error" and "calibration.time_error" in self.figures:
                continue  # what was measured on this chip says more
            if name.endswith("_error"):
                value = min(1.0, q.value * RELATIVE_ERROR_FACTOR)
            else:
                value = (
                    q.value * cycles
                    if name.endswith("_s") or name.startswith("offsets.")
                    else q.value
                )
            if name in _SHARES_OF_PEAK:
                value = min(1.0, value * achieves)
            figures[name] = Quantity(
                value, value, value, "assumed", q.source, f"taken from {relative.name}"
            )
        return replace(self, figures=figures, sources={**relative.sources, **self.sources})

    def storage(self, asked: str | None) -> MatrixPrecision:
        """The dtype to compute in: the one asked for, else the best precision that the chip runs
        fast.

        Best precision is the fastest 16-bit float, else int8, else fp32: bf16 and fp16 keep quality
        without a check, int8 must be asked for wherever the chip has a choice. A processor runs
        fp32.

        Raises UnsupportedDType with what the chip has.
        """
        have = self.peak_flops
        if asked is not None:
            try:
                precision = MatrixPrecision(asked)
            except ValueError as error:
                raise UnsupportedDType(
                    f"unknown dtype '{asked}': allowed are {', '.join(MatrixPrecision)}"
                ) from error
            if precision not in have:
                raise UnsupportedDType(
                    f"{self.name} has no {asked} arithmetic: it has {', '.join(have)}"
                )
            return precision
        order = [
            MatrixPrecision.BF16,
            MatrixPrecision.FP16,
            MatrixPrecision.INT8,
            MatrixPrecision.FP32,
        ]
        for choice in reversed(order) if self.kind == "host" else order:
            if choice in have:
                return choice
        raise UnsupportedDType(f"{self.name} publishes no arithmetic peak")

    def bits(self, precision: MatrixPrecision) -> int:
        return {"int8": 8, "fp8": 8, "fp4": 4, "bf16": 16, "fp16": 16, "tf32": 32, "fp32": 32}[
            precision
        ]


_DIMENSIONS = {
    "process": "length_m", "die_area": "area_m2", "transistors": "count", "clock": "frequency_hz",
    "sustained_clock": "frequency_hz", "units": "count", "vector_ops_per_cycle": "count",
    "vector_bits": "count", "tdp": "power_w", "idle_power": "power_w", "busy_power": "power_w",
    "system_power": "power_w", "achieved_matmul": "flops_per_s",
}  # fmt: skip

_SHARES_OF_PEAK = (
    "calibration.matrix_fraction",
    "calibration.attention_fraction",
    "calibration.moe_matrix_fraction",
)

_CALIBRATION_UNITS = {
    "_s": "time_s", "_fraction": "fraction", "_rows": "count", "_share": "fraction",
    "_error": "fraction", "_factor": "fraction",
}  # fmt: skip


_PARTS = {
    "capacity": "bytes", "bandwidth": "bytes_per_s", "read_bandwidth": "bytes_per_s",
    "write_bandwidth": "bytes_per_s", "bandwidth_one_way": "bytes_per_s", "arrays": "count",
    "rows": "count", "columns": "count", "count": "count",
}  # fmt: skip


def dimension_of(path: str) -> str:
    """The dimension (a key of ``units``) of the figure at ``path`` of a chip."""
    section, _, last = path.rpartition(".")
    if section == "calibration":
        return next((d for suffix, d in _CALIBRATION_UNITS.items() if last.endswith(suffix)), "")
    if path.startswith("offsets."):
        return "time_s"
    return {"peak": "flops_per_s"}.get(section) or _PARTS.get(last) or _DIMENSIONS[last]


def read_chip(path: Path) -> Chip:
    """The chip that the TOML file at ``path`` describes.

    Raises DataFileError for an unknown field, a wrong type or unit, a missing source, or a failed
    self-check.
    """
    try:
        file = msgspec.toml.decode(path.read_bytes(), type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise DataFileError(f"{path.name}: {error}") from error
    try:
        figures = _figures(file)
    except UnitError as error:
        raise DataFileError(f"{path.name}: {error}") from error
    unknown = sorted({f.source for f in figures.values()} - set(file.sources))
    if unknown:
        raise DataFileError(f"{path.name}: source '{unknown[0]}' is not in [sources]")
    chip = _assemble(file, figures)
    _self_check(file, chip, path)
    return chip


def _quantity(figure: _Figure, dimension: str, where: str) -> Quantity:
    try:
        value = units.parse(figure.value, dimension)
        low = units.parse(figure.low, dimension) if figure.low else value
        high = units.parse(figure.high, dimension) if figure.high else value
    except UnitError as error:
        raise UnitError(f"{where}: {error}") from error
    if not low <= value <= high:
        raise UnitError(
            f"{where}: needs low <= value <= high, got {figure.low or figure.value},"
            f" {figure.value}, {figure.high or figure.value}"
        )
    return Quantity(value, low, high, figure.status, figure.source, figure.note)


def _figures(file: _File) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}

    def put(where: str, figure: _Figure | None, dimension: str) -> None:
        if figure is not None:
            found[where] = _quantity(figure, dimension, where)

    for name, dimension in _DIMENSIONS.items():
        put(name, getattr(file, name), dimension)
    for precision, figure in file.peak.items():
        put(f"peak.{precision.value}", figure, "flops_per_s")
    if file.matrix:
        for name in ("arrays", "rows", "columns"):
            put(f"matrix.{name}", getattr(file.matrix, name), "count")
    if file.memory:
        put("memory.capacity", file.memory.capacity, "bytes")
        put("memory.bandwidth", file.memory.bandwidth, "bytes_per_s")
    for level in file.sram:
        put(f"sram.{level.name}.capacity", level.capacity, "bytes")
        put(f"sram.{level.name}.read_bandwidth", level.read_bandwidth, "bytes_per_s")
        put(f"sram.{level.name}.write_bandwidth", level.write_bandwidth, "bytes_per_s")
    if file.links:
        put("links.count", file.links.count, "count")
        put("links.bandwidth_one_way", file.links.bandwidth_one_way, "bytes_per_s")
    if file.host:
        put("host.bandwidth", file.host.bandwidth, "bytes_per_s")
    for name, figure in file.calibration.items():
        dimension = next(
            (d for suffix, d in _CALIBRATION_UNITS.items() if name.endswith(suffix)), ""
        )
        if not dimension:
            raise UnitError(
                f"calibration.{name}: the name must end in one of {', '.join(_CALIBRATION_UNITS)}"
            )
        put(f"calibration.{name}", figure, dimension)
    for name, figure in file.offsets.items():
        put(f"offsets.{name}", figure, "time_s")
    return found


def _assemble(file: _File, figures: Mapping[str, Quantity]) -> Chip:
    def number(where: str) -> float | None:
        return figures[where].value if where in figures else None

    def whole(where: str) -> int:
        return round(figures[where].value)

    return Chip(
        name=file.name,
        organisation=file.organisation,
        year=file.year,
        kind=file.kind,
        cooling=file.cooling,
        note=file.note,
        clock_hz=number("clock"),
        units=whole("units") if "units" in figures else None,
        vector_ops_per_cycle=number("vector_ops_per_cycle"),
        peak_flops={p: figures[f"peak.{p.value}"].value for p in file.peak},
        matrix=(
            Matrix(whole("matrix.arrays"), whole("matrix.rows"), whole("matrix.columns"))
            if file.matrix
            else None
        ),
        memory_kind=file.memory.kind if file.memory else "",
        memory_bytes=number("memory.capacity"),
        memory_bytes_per_s=number("memory.bandwidth"),
        sram=tuple(
            Sram(
                s.name,
                figures[f"sram.{s.name}.capacity"].value,
                number(f"sram.{s.name}.read_bandwidth"),
                number(f"sram.{s.name}.write_bandwidth"),
            )
            for s in file.sram
        ),
        tdp_w=number("tdp"),
        relatives=tuple(file.relatives),
        figures=figures,
        calibration_from=file.calibration_from,
        activation_level=file.activation_level,
        whole_weight_tiles=file.whole_weight_tiles,
        sources=file.sources,
    )


PEAK_TOLERANCE = 0.02


def _self_check(file: _File, chip: Chip, path: Path) -> None:
    """The file's name is the chip's; peak = arrays x rows x columns x clock x 2 for the widest-used
    dtype.
    """
    if path.stem != chip.name:
        raise DataFileError(
            f"{path.name}: the chip is named '{chip.name}', the file must be '{chip.name}.toml'"
        )
    if chip.kind != "listed" and (
        chip.memory_bytes is None or chip.memory_bytes_per_s is None or not chip.peak_flops
    ):
        raise DataFileError(
            f"{path.name}: a modelled chip needs memory capacity, memory bandwidth and a peak"
        )
    if chip.matrix is None or chip.clock_hz is None or file.peak_reason:
        return
    made = chip.matrix.macs_per_cycle * chip.clock_hz * 2
    claims = {
        p: v
        for p, v in chip.peak_flops.items()
        if p in (MatrixPrecision.BF16, MatrixPrecision.INT8)
    }
    base = claims.get(MatrixPrecision.BF16, claims.get(MatrixPrecision.INT8))
    if base is not None and abs(base / made - 1) > PEAK_TOLERANCE:
        raise DataFileError(
            f"{path.name}: peak {base / 1e12:.1f} T differs from arrays x rows x columns x clock x"
            f" 2 = {made / 1e12:.1f} T by more than {PEAK_TOLERANCE:.0%}: correct a figure or state"
            " peak_reason"
        )
