"""SCALE-Sim's cycle counts, exactly, from its own files (Samajdar et al., ISPASS 2020; SCALE-Sim
v3).

A layer is a product Sr x T by T x Sc on an array of R x C cells, in one of three dataflows. Weights
or activations are loaded, streamed and drained one fold after the other, with nothing overlapped;
the count is that of the last cycle's index, so one less than the length. Stalls, which depend on
the order of prefetches, are left out: these are the cycles without them.
"""

from __future__ import annotations

import configparser
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tenfold.errors import InputError
from tenfold.files import read_text

LARGEST = 2**40
MOST_LAYERS = 100_000  # that a depthwise one is cut into


class Dataflow(StrEnum):
    """Which operand stays in the array: weights, inputs, or outputs."""

    WS = "ws"
    IS = "is"
    OS = "os"


@dataclass(frozen=True, slots=True)
class ScaleSimConfig:
    """What the cycles depend on: the array, and the dataflow."""

    rows: int
    columns: int
    dataflow: Dataflow


@dataclass(frozen=True, slots=True)
class Layer:
    """A product [m, k] x [k, n] by the name that the topology gives it."""

    name: str
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Report:
    """One line of COMPUTE_REPORT.csv; utilisation and efficiency in percent, as there."""

    layer: int
    total_cycles: int
    overall_util: float
    mapping_efficiency: float
    compute_util: float


HEADER = (
    "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping"
    " Efficiency %, Compute Util %,"
)


def read_config(text: str) -> ScaleSimConfig:
    """The array and dataflow of a SCALE-Sim configuration. Raises InputError naming the option that
    is missing or wrong.
    """
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, inline_comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise InputError(f"not a SCALE-Sim configuration: {str(error).splitlines()[0]}") from error
    section = "architecture_presets"
    if not parser.has_section(section):
        raise InputError(
            f"the configuration has no section [{section}]: found"
            f" {', '.join(parser.sections()) or 'none'}"
        )

    def option(name: str) -> str:
        if not parser.has_option(section, name):
            raise InputError(f"the configuration has no '{name}' in [{section}]")
        return parser.get(section, name).strip()

    flow = option("Dataflow").lower()
    if flow not in list(Dataflow):
        raise InputError(f"Dataflow is '{flow}': allowed are {', '.join(Dataflow)}")
    return ScaleSimConfig(
        _size(option("ArrayHeight"), "ArrayHeight"),
        _size(option("ArrayWidth"), "ArrayWidth"),
        Dataflow(flow),
    )


def _size(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 18 or not 0 < int(text) <= LARGEST:
        raise InputError(f"{where} needs a whole number above 0, found '{text}'")
    return int(text)


_CONV = (
    "IFMAP height",
    "IFMAP width",
    "filter height",
    "filter width",
    "channels",
    "filters",
    "strides",
)


def read_topology(text: str) -> list[Layer]:
    """The layers of a topology: convolutions, or matrix products where the first line names M, N
    and K.

    A convolution whose name holds DP is depthwise: a layer for each channel. Two strides, by height
    and width, are those of files that name both columns. Raises InputError with the line for
    missing fields, or sizes that are no whole numbers above 0, and for a column that is not read.
    """
    try:
        numbered = enumerate(list(csv.reader(io.StringIO(text))), 1)
    except csv.Error as error:
        raise InputError(f"the topology is no CSV: {error}") from error
    lines = [
        (i, [c.strip() for c in row])
        for i, row in numbered
        if any(c.strip() for c in row) and not row[0].lstrip().startswith("#")
    ]
    if not lines:
        raise InputError("the topology is empty")
    header = [c.lower() for c in lines[0][1] if c]
    gemm = header[1:4] == ["m", "n", "k"]
    if len(header) == 4 and not gemm:
        raise InputError(
            "the first line of a topology of products must be Layer, M, N, K, found"
            f" {', '.join(header)}"
        )
    needed = 4 if gemm else 8
    two_strides = not gemm and len(header) > 8 and _names_width(header[7:9])
    if two_strides:
        needed = 9
    if len(header) > needed:
        raise InputError(
            f"the topology has the column '{header[needed]}', which no cycles depend on here: leave"
            f" out what comes after the first {needed}"
        )
    layers: list[Layer] = []
    for number, row in lines[1:]:
        if len(row) < needed:
            raise InputError(f"line {number} of the topology has {len(row)} fields, needs {needed}")
        if unread := [c for c in row[needed:] if c]:
            raise InputError(
                f"line {number} of the topology has {needed + len(unread)} fields, of which"
                f" {needed} are read: the first line must name the others"
            )
        names = ("M", "N", "K") if gemm else (*_CONV, "stride width")[: needed - 1]
        sizes = [
            _size(c, f"line {number} of the topology, {n}:")
            for c, n in zip(row[1:needed], names, strict=True)
        ]
        layers += [Layer(row[0], *sizes)] if gemm else _convolution(number, row[0], sizes)
    if not layers:
        raise InputError("the topology has no layers after its first line")
    return layers


def _names_width(columns: Sequence[str]) -> bool:
    """Whether two columns are those of strides by height and width."""
    return len(columns) == 2 and "height" in columns[0] and "width" in columns[1]


def _convolution(line: int, name: str, sizes: Sequence[int]) -> list[Layer]:
    """Lowered to a product by im2col, without padding, batch 1."""
    height, width, filter_height, filter_width, channels, filters, *strides = sizes
    if filter_height > height or filter_width > width:
        raise InputError(
            f"line {line} of the topology: a filter of {filter_height} x {filter_width} does not"
            f" fit {height} x {width}"
        )
    out = [
        -(-(size - f + stride) // stride)
        for size, f, stride in (
            (height, filter_height, strides[0]),
            (width, filter_width, strides[-1]),
        )
    ]
    taps, rows = filter_height * filter_width, out[0] * out[1]
    if "DP" in name:
        if channels > MOST_LAYERS:
            raise InputError(f"line {line} of the topology: {channels:,} channels are too many")
        return [Layer(name, rows, filters, taps)] * channels
    return [Layer(name, rows, filters, taps * channels)]


def report(config: ScaleSimConfig, layers: Sequence[Layer]) -> list[Report]:
    """Cycles and utilisation of each layer, in closed form."""
    return [_layer(config, i, layer) for i, layer in enumerate(layers)]


def _layer(c: ScaleSimConfig, number: int, layer: Layer) -> Report:
    across, down, time = {
        Dataflow.WS: (layer.k, layer.n, layer.m),
        Dataflow.IS: (layer.k, layer.m, layer.n),
        Dataflow.OS: (layer.m, layer.n, layer.k),
    }[c.dataflow]
    folds = -(-across // c.rows) * -(-down // c.columns)
    stationary = c.dataflow is not Dataflow.OS
    fold = (2 if stationary else 1) * c.rows + c.columns + time - 2
    total = folds * fold - 1
    counted = 2 * c.rows + 2 * c.columns + time - 3 if stationary else fold
    cells, work = c.rows * c.columns, across * down * time
    return Report(
        number,
        total,
        overall_util=work * 100 / (total * cells),
        mapping_efficiency=across * down * 100 / (folds * cells),
        compute_util=work * 100 / (folds * cells * counted),
    )


def compute_report(rows: Sequence[Report]) -> str:
    """COMPUTE_REPORT.csv in SCALE-Sim's form; the column with prefetch, an estimate there, repeats
    the cycles.
    """
    lines = [HEADER]
    lines += [
        f"{r.layer}, {r.total_cycles}, {r.total_cycles}, 0, {r.overall_util},"
        f" {r.mapping_efficiency}, {r.compute_util},"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def run(config: Path, topology: Path) -> list[Report]:
    """The report for two files of SCALE-Sim. Raises InputError naming the file."""
    read = []
    for path, reader in ((config, read_config), (topology, read_topology)):
        text = read_text(path)
        try:
            read.append(reader(text))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return report(read[0], read[1])  # type: ignore[arg-type]
