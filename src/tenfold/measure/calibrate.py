"""This machine as a chip file, from small models that ONNX Runtime runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tenfold.calibration import Calibration, FamilyFit
from tenfold.calibration.sought import Sought
from tenfold.chips import Chip, HostConstant, Whole, chip
from tenfold.chips.figures import CALIBRATION
from tenfold.chips.write import chip_file
from tenfold.compiler import build
from tenfold.facts import Status
from tenfold.importers.onnx import import_model
from tenfold.ir.binding import bind
from tenfold.machine import Program, pace
from tenfold.measure.probes import Probe, probes
from tenfold.measure.runtime import measure, normal_inputs

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

T = TypeVar("T")

OUTLIER = 0.1
CONSTANTS = (
    # clocks above the one that /proc/cpuinfo shows are possible
    Sought(HostConstant.MATRIX_FRACTION, 0.7, 0.02, 2.0),
    Sought(HostConstant.INT8_FRACTION, 0.4, 0.01, 2.0),
    # threads that wait for work spin; beyond this they would sleep
    Sought(HostConstant.FORK_S, 2e-6, 1e-8, 1e-5),
    Sought(HostConstant.CONV_FRACTION, 0.7, 0.02, 2.0),
    Sought(HostConstant.GROUPED_FRACTION, 0.4, 0.01, 4.0),
    Sought(HostConstant.PASS_FACTOR, 3.0, 0.1, 50.0),
    Sought(HostConstant.VECTOR_FRACTION, 0.3, 0.01, 2.0),
    Sought(HostConstant.CACHE_FACTOR, 2.0, 1.0, 30.0),
    Sought(HostConstant.PRIVATE_FACTOR, 2.0, 1.0, 10.0),
    Sought(HostConstant.MOVE_FRACTION, 0.3, 0.02, 1.0),
    Sought(HostConstant.LAUNCH_S, 2e-6, 1e-8, 1e-3),
    Sought(HostConstant.RUN_S, 5e-6, 1e-7, 1e-3),
    Sought(HostConstant.WATCHING_S, 2e-6, 1e-8, 1e-4),  # what timing a node on its own adds
)
BANDWIDTH = "memory.bandwidth"
BANDWIDTHS = (1e9, 2e10, 2e12)  # bytes a second: the least, where the search starts, the most
SHARE = f"{CALIBRATION}{HostConstant.CACHED_SHARE.value}"
SHARES = (1.0, 0.5, 0.25, 0.125)  # of the last-level cache that this machine may have to itself
SOURCE = "measured"


@dataclass(frozen=True, slots=True)
class _Measured:
    """A probe's seconds: of so many nodes timed on their own, or of a whole run where there are
    none.
    """

    probe: Probe
    program: Program
    time_s: float
    nodes: int


def calibrate_host(advance: Callable[[], None] = lambda: None) -> tuple[Calibration, str]:
    """This machine with fitted constants and the text of its chip file; ``advance`` is called after
    each measurement.

    Two thirds of the operators are fitted on, the others scored.
    """
    base = chip("host")
    rows = []
    for p in probes():
        rows.append(_measured(base, p))
        advance()
    train, test = split_probes(rows)
    record, constants = fit_host(base, train)
    errors = [tuple(r - 1 for r in _ratios(record, part)) for part in (train, test)]
    fit = FamilyFit("operators", (Whole.TIME, Whole.MODEL), constants, {}, *errors)
    note = (
        f"{len(train)} operators with ONNX Runtime on this machine fitted on, {len(test)} held out"
        " (tenfold calibrate host)"
    )
    errors_of = {f"{CALIBRATION}{of.value}_error": fit.interval for of in fit.covers}
    record = record.with_figures(errors_of, Status.FITTED, SOURCE, {SOURCE: note})
    record = replace(record, calibration_from="")
    return Calibration(record, (fit,)), chip_file(record)


def split_probes(rows: Sequence[T]) -> tuple[list[T], list[T]]:
    """Two thirds to fit on and the rest, drawn so that no size of every operator falls into one
    part; always the same.
    """
    drawn = np.random.default_rng(1).permutation(len(rows))
    return [r for r, i in zip(rows, drawn, strict=True) if i % 3 != 2], [
        r for r, i in zip(rows, drawn, strict=True) if i % 3 == 2
    ]


def _measured(base: Chip, p: Probe) -> _Measured:
    found = measure(p.model.SerializeToString(), normal_inputs(p.inputs))
    program = build(bind(import_model(p.model, p.name), {}), base, base.storage(None), 1)
    if p.whole:
        return _Measured(p, program, found.time_s, 0)
    return _Measured(p, program, max(sum(n.time_s for n in found.nodes), 5e-7), len(found.nodes))


def _ratios(record: Chip, rows: Sequence[_Measured]) -> list[float]:
    """Predicted over measured; nodes timed on their own each take a little longer, and the call
    around them does not count.
    """
    watching_s = record.constant(HostConstant.WATCHING_S)
    paces = ((r, pace(r.program, record)) for r in rows)
    return [
        (p.kernels_s + (r.nodes * watching_s if r.nodes else p.launch_s)) / r.time_s
        for r, p in paces
    ]


def fit_host(base: Chip, rows: Sequence[_Measured]) -> tuple[Chip, dict[str, float]]:
    """The chip with memory bandwidth and constants that make small the logarithm of predicted over
    measured (soft L1).

    The share of the last-level cache makes steps, and is tried.
    """
    tries = [
        _fitted(base.with_figures({SHARE: share}, Status.FITTED, SOURCE), rows) for share in SHARES
    ]
    _, record, constants = min(tries, key=lambda t: t[0])
    return record, constants | {HostConstant.CACHED_SHARE.value: record.figures[SHARE].value}


def _fitted(base: Chip, rows: Sequence[_Measured]) -> tuple[float, Chip, dict[str, float]]:
    """What is left to minimise, the chip and its constants."""
    from scipy.optimize import least_squares

    paths = [*(f"{CALIBRATION}{c.name.value}" for c in CONSTANTS), BANDWIDTH]
    whole = {f"{CALIBRATION}{HostConstant.MEMORY_FRACTION.value}": 1.0}
    low, start, high = zip(*((c.low, c.start, c.high) for c in CONSTANTS), strict=True)
    bounds = (np.log([*low, BANDWIDTHS[0]]), np.log([*high, BANDWIDTHS[2]]))

    def at(logs: Floats) -> Chip:
        values = dict(zip(paths, np.exp(logs).tolist(), strict=True))
        return base.with_figures(values | whole, Status.FITTED, SOURCE)

    def residuals(logs: Floats) -> Floats:
        return np.log(_ratios(at(logs), rows))

    found = least_squares(
        residuals,
        np.log([*start, BANDWIDTHS[1]]),
        bounds=bounds,
        loss="soft_l1",
        f_scale=OUTLIER,
        diff_step=1e-3,
        max_nfev=40,
    )
    constants = dict(zip((c.name.value for c in CONSTANTS), np.exp(found.x).tolist(), strict=False))
    return float(found.cost), at(found.x), constants
