"""The Chip record: a name and its figures, of which every number is a property.

The figures are the one truth. ``with_figures`` gives the same chip with some of them changed, and
whatever is computed from them changes with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from tenfold.chips.constants import (
    OF_KIND,
    SHARES_OF_PEAK,
    Constant,
    KernelFamily,
    Predicted,
    Whole,
)
from tenfold.chips.figures import CALIBRATION, OFFSETS, PEAK, spec
from tenfold.chips.kinds import Kind, MatrixPrecision, MemoryTechnology, SramRole
from tenfold.errors import InputError, MissingFigure, UnknownName, UnsupportedDType
from tenfold.facts import Figure, Status

RELATIVE_ERROR_FACTOR = 2.0  # the interval is wider where constants come from a relative (assumed)
LANES_ALONE = 0.8  # of the fp32 peak that lanes do at the file's clock: they are all there is
_SHARES_OF_PEAK = frozenset(f"{CALIBRATION}{c.value}" for c in SHARES_OF_PEAK)


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
    """One on-chip memory; bandwidths in bytes a second where published."""

    role: SramRole
    bytes: float
    read_bytes_per_s: float | None
    write_bytes_per_s: float | None

    @property
    def name(self) -> str:
        return self.role.value


# factor less 1 that nine of ten networks of the zoo lie within on chips that have a model of their
# own too (tests/test_own_chips.py)
ROOFLINE_ERROR = 1.5


@dataclass(frozen=True, slots=True)
class Change:
    """A figure that was set by hand: where, to what in the words of who did, before and after in
    SI.
    """

    path: str
    given: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)  # no slots: what figures give is computed once and kept
class Chip:
    """One accelerator die or package as rented or bought; every number in SI.

    ``figures`` holds the Figure (with status and source) behind each number by its path in the
    file, for example ``memory.bandwidth`` or ``peak.bf16``. ``levels`` are the on-chip memories.
    ``activation_level`` names the one that activations live in where they never go off chip,
    ``weight_level`` the one in which weights stay from one call to the next.
    ``whole_weight_tiles`` says that weights are stored and fetched in tiles of the array, padding
    included. ``base`` is the chip of which figures were changed: energies an event stay its own,
    but on GPUs, where they follow from process and clock; ``changes`` are those, which are in its
    name, and ``called`` is the name that it is sold by.
    Chips are compared and hashed by identity.
    """

    name: str
    organisation: str
    year: int
    kind: Kind
    figures: Mapping[str, Figure]
    sources: Mapping[str, str]
    memory: MemoryTechnology | None = None
    levels: tuple[SramRole, ...] = ()
    cooling: str = ""
    note: str = ""
    topology: str = ""
    peak_reason: str = ""
    relatives: tuple[str, ...] = ()
    calibration_from: str = ""
    activation_level: SramRole | None = None
    weight_level: SramRole | None = None
    whole_weight_tiles: bool = False
    base: Chip | None = None
    changes: tuple[Change, ...] = ()
    called: str = ""

    @property
    def sold_as(self) -> str:
        """The name that prices go by."""
        return self.called or self.name

    # --- figures ---------------------------------------------------------------------------------

    def number(self, path: str) -> float | None:
        """The value at ``path``; None where the file does not give it."""
        found = self.figures.get(path)
        return found.value if found is not None else None

    def figure(self, path: str, result: str) -> Figure:
        """The figure at ``path``. Raises MissingFigure naming the ``result`` that needs it."""
        if path not in self.figures:
            raise MissingFigure(
                f"{result} on {self.name} needs '{path}', which its file does not give: add it"
                " there, or choose another chip (what nobody has published is in no file)"
            )
        return self.figures[path]

    def with_figures(
        self,
        values: Mapping[str, float],
        status: Status = Status.ASSUMED,
        source: str = "given",
        sources: Mapping[str, str] | None = None,
    ) -> Chip:
        """This chip with the figures at some paths changed or added, each checked against its
        range.

        ``sources`` are added to its own. Raises InputError for a value that a figure cannot have,
        UnknownName for a path that no chip of this kind has.
        """
        changed = dict(self.figures)
        for path, value in values.items():
            try:
                fault = spec(self.kind, path).range.fault(value)
            except KeyError:
                raise UnknownName(f"figure of {self.name}", path, self.figures) from None
            if fault:
                raise InputError(f"{path} of {self.name} {fault}, got {value:g}")
            changed[path] = Figure.exact(value, status, source)
        return replace(self, figures=changed, sources={**self.sources, **(sources or {})})

    # --- what the figures say --------------------------------------------------------------------

    @property
    def clock_hz(self) -> float | None:
        return self.number("clock")

    @property
    def units(self) -> int | None:
        units = self.number("units")
        return round(units) if units is not None else None

    @property
    def vector_ops_per_cycle(self) -> float | None:
        return self.number("vector_ops_per_cycle")

    @property
    def memory_bytes(self) -> float | None:
        return self.number("memory.capacity")

    @property
    def memory_bytes_per_s(self) -> float | None:
        return self.number("memory.bandwidth")

    @property
    def tdp_w(self) -> float | None:
        return self.number("tdp")

    @cached_property
    def peak_flops(self) -> Mapping[MatrixPrecision, float]:
        return {
            MatrixPrecision(p.removeprefix(PEAK)): f.value
            for p, f in self.figures.items()
            if p.startswith(PEAK)
        }

    @cached_property
    def matrix(self) -> Matrix | None:
        size = [self.number(f"matrix.{n}") for n in ("arrays", "rows", "columns")]
        arrays, rows, columns = (round(n) if n is not None else 0 for n in size)
        return Matrix(arrays, rows, columns) if None not in size else None

    @cached_property
    def sram(self) -> tuple[Sram, ...]:
        return tuple(
            Sram(
                role,
                self.figures[f"sram.{role.value}.capacity"].value,
                self.number(f"sram.{role.value}.read_bandwidth"),
                self.number(f"sram.{role.value}.write_bandwidth"),
            )
            for role in self.levels
        )

    def level(self, role: SramRole | None) -> Sram | None:
        """The on-chip memory of this role, if the chip has one."""
        return next((s for s in self.sram if s.role is role), None)

    def level_bytes(self, role: SramRole) -> float:
        """How much the on-chip memory of this role holds; 0 where there is none."""
        found = self.level(role)
        return found.bytes if found is not None else 0.0

    @property
    def sram_bytes(self) -> float:
        return sum(s.bytes for s in self.sram)

    @property
    def achieved_share(self) -> float | None:
        """What the best 16-bit matmul of many reached, over the peak; None where nobody has
        published it.
        """
        achieved = self.number("achieved_matmul")
        peak = self.peak_flops.get(MatrixPrecision.BF16)
        return achieved / peak if achieved is not None and peak else None

    def on_lanes(self, precision: MatrixPrecision) -> bool:
        """Whether products in ``precision`` run on the vector lanes of a GPU: its fp32 peak is
        theirs, since it has no matrix units for fp32.
        """
        if precision is not MatrixPrecision.FP32 or self.kind is not Kind.GPU:
            return False
        lanes = (self.vector_ops_per_cycle or 0.0) * (self.clock_hz or 0.0)
        return lanes >= LANES_ALONE * self.peak_flops[precision]

    @property
    def host_bytes_per_s(self) -> float | None:
        """Rate of the link to the host, where inputs and results of each pass cross it before and
        after.
        """
        return self.number("host.bandwidth") if self.activation_level else None

    @property
    def vector_lanes(self) -> int:
        """fp32 numbers in one vector register of a processor; 256 bits where its file does not
        say.
        """
        return max(1, int(self.number("vector_bits") or 256) // 32)

    @property
    def modelled(self) -> bool:
        """Whether there is a machine model of it."""
        return self.kind is not Kind.LISTED

    def clock(self, result: str) -> float:
        """Cycles a second; of a roofline without one, nanoseconds are counted."""
        if self.kind is Kind.ROOFLINE and "clock" not in self.figures:
            return 1e9
        return self.figure("clock", result).value

    # --- constants of its machine model -----------------------------------------------------------

    def constant(self, name: Constant) -> float:
        """A fitted or assumed constant of the machine model. Raises MissingFigure where the file
        lacks it.
        """
        path = f"{CALIBRATION}{name.value}"
        if path not in self.figures and self.kind is Kind.HOST:
            raise MissingFigure(
                f"time on {self.name} needs '{path}', which its file lacks, as those of earlier"
                " versions do: measure that machine again with `tenfold calibrate host`"
            )
        return self.figure(path, "time").value

    def offset(self, source: str) -> float:
        """Seconds that the calls of a measuring source take beside the kernel. Raises UnknownName
        for another one.
        """
        path = f"{OFFSETS}{source}"
        if path not in self.figures:
            raise UnknownName("measuring source", source, self.measuring_sources)
        return self.figures[path].value

    @property
    def measuring_sources(self) -> tuple[str, ...]:
        return tuple(n.removeprefix(OFFSETS) for n in self.figures if n.startswith(OFFSETS))

    def error(self, of: Predicted) -> float:
        """Factor less 1 within which nine of ten predictions of a kind are expected: its own, or
        that of all kernels.
        """
        own = self.number(_error(of))
        if self.kind is Kind.ROOFLINE:
            return ROOFLINE_ERROR if own is None else own
        return own if own is not None else self.figure(_error(Whole.TIME), "time").value

    def with_calibration_of(self, relative: Chip) -> Chip:
        """This chip with the constants that it lacks taken from ``relative``, marked so, and wider
        errors.

        Fractions and factors carry over; seconds are cycles of the relative, at this chip's clock
        where both are published. Where what the best matmul achieves is published of both, shares
        of the matrix peak are scaled by it. Raises InputError for a relative of another kind.
        """
        if relative.kind is not self.kind:
            raise InputError(
                f"{self.name} takes constants from {relative.name}, which is of kind"
                f" '{relative.kind}': needs a chip of its own kind, '{self.kind}'"
            )
        figures = dict(self.figures)
        both = relative.clock_hz and self.clock_hz
        cycles = relative.clock_hz / self.clock_hz if both else 1.0  # type: ignore[operator]
        own, theirs = self.achieved_share, relative.achieved_share
        achieves = own / theirs if own and theirs else 1.0
        for path, figure in relative.figures.items():
            if not path.startswith((CALIBRATION, OFFSETS)) or path in figures:
                continue
            if path == _error(Whole.MODEL) and _error(Whole.TIME) in self.figures:
                continue  # what was measured on this chip says more
            value = figure.value
            if path.endswith("_error"):
                value = min(max(1.0, value), value * RELATIVE_ERROR_FACTOR)
                value = max(value, _LEAST_OF_RELATIVE.get(path, 0.0))
            elif path.endswith("_s") or path.startswith(OFFSETS):
                value *= cycles
            if path in _SHARES_OF_PEAK:
                value = min(1.0, value * achieves)
            note = f"taken from {relative.name}"
            figures[path] = Figure.exact(value, Status.ASSUMED, figure.source, note)
        return replace(self, figures=figures, sources={**relative.sources, **self.sources})

    def without_calibration(self, *kept: str) -> Chip:
        """This chip as if it had never been measured, but for the figures whose paths begin with
        one of ``kept``.
        """
        measured = (CALIBRATION, OFFSETS)
        figures = {
            path: figure
            for path, figure in self.figures.items()
            if not path.startswith(measured) or path.startswith(kept)
        }
        return replace(self, figures=figures)

    # --- precisions ------------------------------------------------------------------------------

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
        for choice in reversed(_BEST) if self.kind is Kind.HOST else _BEST:
            if choice in have:
                return choice
        raise UnsupportedDType(f"{self.name} publishes no arithmetic peak")


# Attention with A100's constants on H100 and the other way round, three libraries each: nine of ten
# rows lie within 0.29 to 0.98, 0.53 in the median, however narrow the relative's own interval is
# (rows of ai-dynamo/aiconfigurator; docs/calibration.md)
_LEAST_OF_RELATIVE: Mapping[str, float] = {
    f"{CALIBRATION}{family}_error": 0.5 for family in (KernelFamily.ATTENTION, KernelFamily.DECODE)
}
_BEST = (
    MatrixPrecision.BF16,
    MatrixPrecision.FP16,
    MatrixPrecision.INT8,
    MatrixPrecision.FP32,
)


def _error(of: Predicted) -> str:
    return f"{CALIBRATION}{of.value}_error"


def constants(chip: Chip) -> Mapping[Constant, float]:
    """The constants that ``chip`` has, its own or a relative's."""
    found = {c: chip.number(f"{CALIBRATION}{c.value}") for c in OF_KIND[chip.kind]}
    return {c: v for c, v in found.items() if v is not None}
