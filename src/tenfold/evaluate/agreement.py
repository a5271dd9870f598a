"""Quality: what a precision does to the results of a model, by running it.

Lesson 3: reduced precision is free only as long as this holds.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from tenfold.chips import Chip, MatrixPrecision
from tenfold.compiler import Options, build
from tenfold.errors import InputError
from tenfold.ir import Graph, Op, op_work
from tenfold.ir.cost import lookup_axis
from tenfold.ir.graph import Array
from tenfold.ir.infer import row_of
from tenfold.ir.interpreter import run_op
from tenfold.ir.table import Lowering
from tenfold.machine import Program
from tenfold.machine.functional import run_program
from tenfold.machine.numerics import Exact, Integer, Narrow, Numerics, RangeFinder, quantised

CALIBRATION_RUNS = 4
SEED = 2026


@dataclass(frozen=True, slots=True)
class Quality:
    """A precision against the file's own, on the same inputs.

    ``cosine`` is the least over items and outputs, ``sqnr_db`` signal over rounding noise of all
    outputs together, ``top1`` the share of rows whose largest entry is the same. ``worst`` is the
    op whose own rounding is the loudest against its result, ``covered`` the share of contraction
    arithmetic that runs in the precision.
    """

    scheme: str
    cosine: float
    sqnr_db: float
    top1: float
    worst: str
    worst_sqnr_db: float
    covered: float
    inputs: str


def inputs_from(path: Path, graph: Graph) -> dict[str, Array]:
    """The arrays of an .npz file, by the names of the model's inputs. Raises InputError for what is
    missing or no array file.
    """
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            arrays = {n: file[n] for n in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot read {path}: inputs come as an .npz file with one array for each of"
            f" {', '.join(graph.inputs)}"
        ) from error
    return arrays


def seeded_inputs(graph: Graph, seed: int) -> dict[str, Array]:
    """Inputs when the user has none: normal floats, whole numbers within the tables that they look
    up, masks of ones.
    """
    rng = np.random.default_rng(seed)
    limits = _limits(graph)
    feeds: dict[str, Array] = {}
    for name in graph.inputs:
        value = graph.values[name]
        shape, dtype = tuple(int(d) for d in value.dims), value.dtype.numpy
        if value.dtype.is_float:
            feeds[name] = rng.standard_normal(shape).astype(dtype)
        elif "mask" in name.lower() or value.dtype.value == "bool":
            feeds[name] = np.ones(shape, dtype)
        else:
            feeds[name] = rng.integers(0, limits.get(name, 2), shape).astype(dtype)
    return feeds


def _limits(graph: Graph) -> dict[str, int]:
    """For each whole-number input the size of the smallest table that it indexes."""
    source = {n: n for n in graph.inputs}
    limits: dict[str, int] = {}
    for op in graph.ops:
        row = row_of(op)
        renames = row.converts or row.lowering in (Lowering.VIEW, Lowering.MOVE)
        if renames and op.inputs and op.inputs[0] in source:
            source[op.outputs[0]] = source[op.inputs[0]]
        axis = lookup_axis(graph, op)
        if axis is not None and len(op.inputs) > 1 and op.inputs[1] in source:
            rows = graph.values[op.inputs[0]].dims[axis]
            name = source[op.inputs[1]]
            limits[name] = min(limits.get(name, 1 << 31), int(rows))
    return limits


CHECKED = (MatrixPrecision.BF16, MatrixPrecision.FP16, MatrixPrecision.INT8)


def checkable(precision: MatrixPrecision) -> None:
    """Raises InputError for a precision whose numerics are not modelled."""
    if precision not in CHECKED:
        raise InputError(
            f"there is nothing to check in {precision.value}: quality is checked for"
            f" {', '.join(CHECKED)}"
        )


def quality(
    graph: Graph, chip: Chip, dtype: str | None, inputs: Mapping[str, Array] | None = None
) -> list[Quality]:
    """The quality of ``dtype`` (the chip's best by default) for a bound ``graph``: int8 both with
    dynamic and with calibrated ranges.

    Raises InputError for a model without weights, or a dtype whose numerics are those of the file.
    """
    missing = [n for n, a in graph.constants.items() if a is None]
    if missing:
        raise InputError(
            f"quality needs the weights, and {graph.name} has none ('{missing[0]}' …): give an ONNX"
            " file"
        )
    precision = chip.storage(dtype)
    checkable(precision)
    program = build(graph, chip, precision, 1, Options(keep_weights=True))
    feeds = dict(inputs) if inputs is not None else seeded_inputs(graph, SEED)
    given = "the given inputs" if inputs is not None else "seeded inputs"
    try:
        exact = run_program(program, feeds)
    except (IndexError, ValueError, TypeError, ArithmeticError) as error:
        raise InputError(
            f"{graph.name} cannot be run on {given}: {error}: give others with --inputs"
        ) from error
    ranges = (
        [feeds]
        if inputs is not None
        else [seeded_inputs(graph, SEED + 1 + run) for run in range(CALIBRATION_RUNS)]
    )
    return [
        _compare(program, name, n, feeds, exact, given)
        for name, n in _schemes(program, precision, ranges)
    ]


def _schemes(
    program: Program, precision: MatrixPrecision, calibration: list[dict[str, Array]]
) -> list[tuple[str, Numerics]]:
    if precision is MatrixPrecision.BF16:
        return [("bf16", Narrow(np.dtype(ml_dtypes.bfloat16)))]
    if precision is MatrixPrecision.FP16:
        return [("fp16", Narrow(np.dtype(np.float16)))]
    seen = RangeFinder()
    for feeds in calibration:
        run_program(program, feeds, numerics=seen)
    return [("int8 dynamic", Integer()), ("int8 static", Integer(seen.ranges))]


def _compare(
    program: Program,
    name: str,
    numerics: Numerics,
    feeds: Mapping[str, Array],
    exact: Mapping[str, Array],
    given: str,
) -> Quality:
    got = run_program(program, feeds, numerics=numerics)
    floats = [n for n, a in exact.items() if a.dtype.kind == "f" and a.size]
    if not floats:
        raise InputError(f"{program.model} has no output of floats to compare")
    worst, noise = _loudest(program, numerics, feeds)
    return Quality(
        scheme=name,
        cosine=min(_cosine(exact[n], got[n]) for n in floats),
        sqnr_db=_sqnr([exact[n] for n in floats], [got[n] for n in floats]),
        top1=float(np.mean([_top1(exact[n], got[n]) for n in floats])),
        worst=worst,
        worst_sqnr_db=noise,
        covered=_covered(program, numerics),
        inputs=given,
    )


def _cosine(a: Array, b: Array) -> float:
    """The least cosine over the items of a batch."""
    items = a.shape[0] if a.ndim > 1 else 1
    x, y = (v.astype(np.float64).reshape(items, -1) for v in (a, b))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    same = np.all(x == y, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.where(same, 1.0, (x * y).sum(axis=1) / lengths)
    return float(np.nan_to_num(cosines, nan=0.0).min())


def _sqnr(want: list[Array], got: list[Array]) -> float:
    """10 log10 of signal over noise power, in dB; infinite where nothing differs."""
    signal = sum(float((w.astype(np.float64) ** 2).sum()) for w in want)
    noise = sum(
        float(((w.astype(np.float64) - g.astype(np.float64)) ** 2).sum())
        for w, g in zip(want, got, strict=True)
    )
    if not math.isfinite(noise):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def _top1(a: Array, b: Array) -> float:
    return float(np.mean(a.argmax(-1) == b.argmax(-1))) if a.ndim and a.shape[-1] > 1 else 1.0


def _covered(program: Program, numerics: Numerics) -> float:
    """The share of contraction arithmetic whose operands the precision rounds."""
    total = done = 0
    for op in program.graph.ops:
        flops = int(op_work(program.graph, op).contraction_flops)
        total += flops
        done += (
            flops if not isinstance(numerics, Integer) or _is_quantised(program.graph, op) else 0
        )
    return done / total if total else 1.0


def _is_quantised(graph: Graph, op: Op) -> bool:
    arrays = [np.zeros(1, graph.values[n].dtype.numpy) if n else None for n in op.inputs]
    return quantised(op, arrays, [n in graph.constants for n in op.inputs])


def _loudest(program: Program, numerics: Numerics, feeds: Mapping[str, Array]) -> tuple[str, float]:
    """The op with the least SQNR when only its own operands are rounded, everything before it
    exact.
    """
    graph = program.graph
    live: dict[str, Array | None] = {**graph.constants, **feeds}
    rng = np.random.default_rng(0)
    worst, least = "", math.inf
    for op in graph.ops:
        arrays = [live[n] if n else None for n in op.inputs]
        rounded = numerics.operands(op, arrays, [n in graph.constants for n in op.inputs])
        run_op(graph, op, live, rng)
        if rounded is arrays or isinstance(numerics, Exact):
            continue
        scratch = {n: a for n, a in zip(op.inputs, rounded, strict=True) if n}
        run_op(graph, op, scratch, rng)
        want, got = live[op.outputs[0]], scratch[op.outputs[0]]
        if want is not None and got is not None and want.dtype.kind == "f":
            noise = _sqnr([want], [got])
            if noise < least:
                worst, least = op.name, noise
    return worst, least
