"""Fitting a chip's constants to measured times: few, physical, one set for each family of kernels.

The logarithm of predicted over measured is made small by least squares that forgives outliers (soft
L1), a measuring source counting as the root of its number of rows. Fractions stay below 1. Families
are fitted in order: later ones use the rates of earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tenfold.calibration.measured import Forward, Measured
from tenfold.chips import Chip
from tenfold.compiler import build
from tenfold.errors import InputError
from tenfold.machine import Family, Kernel, Program, gpu_times, simulate, time_kernels
from tenfold.machine.energy import energy_model
from tenfold.operators import kernel_of, parts_of
from tenfold.predict import WITH_OFFSET, fetched_with
from tenfold.profile import Sizes, load, prepare

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

FEWEST = 4  # rows of a family below which nothing is fitted
# a source counts as the root of its rows: many rows say more, but not alone what a constant is
POWER = 0.25
OUTLIER = 0.5  # logarithmic error beyond which a row weighs less
WHOLE_OUTLIER = 0.2  # the same where whole models are among the rows
SIMPLEX_TRIES = 160
# times that whole models are planned anew with the constants found: what fits in memory when
# depends on them
PLANS = 2
# a share of a few rows counts as one more row, whose error is this part of its distance from the
# usual
PRIOR = 0.5
# rows that say little about other rows, and the interval they give at least (assumed)
FEW, LEAST_OF_FEW = (
    30,
    0.15,
)
INTERVAL = 0.9  # of the rows fitted on lie within the error that is stored


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of the machine model by its name in the chip file, with the bounds it is sought
    in.
    """

    name: str
    start: float
    low: float
    high: float


def _share(name: str, start: float = 0.8) -> Constant:
    return Constant(name, start, 0.02, 1.0)


def _seconds(name: str, start: float) -> Constant:
    return Constant(name, start, 1e-9, 1e-3)


GPU: Mapping[tuple[Family, ...], tuple[Constant, ...]] = {
    (Family.MATMUL,): (_share("matrix_fraction"), _share("memory_fraction"), _share("l2_fraction",
    0.5), Constant("tile_factor", 1.0, 1e-3, 20), _seconds("wave_s", 1e-6), _seconds("reduction_s",
    2e-6)), (Family.QUANTIZED,): (_seconds("quantize_s", 1e-5),),
    (Family.ATTENTION,): (_share("attention_fraction", 0.5), _seconds("attention_block_s", 2e-6),
    _seconds("attention_launch_s", 1e-5)), (Family.DECODE,): (_seconds("decode_block_s", 5e-6),
    Constant("decode_stream_factor", 1.6, 0.1, 50), _seconds("decode_launch_s", 6e-6)),
    (Family.EXPERTS,): (_share("moe_matrix_fraction", 0.6), _share("moe_memory_fraction"),
    Constant("moe_token_factor", 1.0, 0.01, 20), _seconds("moe_launch_s", 2e-5),
    _seconds("moe_wave_s", 1e-6), _seconds("moe_expert_s", 1e-7)), (Family.SOFTMAX, Family.NORM,
    Family.STREAM): (_share("stream_fraction"), _share("softmax_fraction", 0.5),
    _share("norm_fraction", 0.7), _seconds("row_s", 1e-8)),
}  # fmt: skip
SYSTOLIC: tuple[Constant, ...] = (
    _seconds("kernel_s", 1e-6), _share("memory_fraction"), _share("matrix_fraction", 0.9),
    _share("vector_fraction", 0.6),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """How one family came out: rows fitted on and held out, and their errors as fractions of the
    measured time.

    ``covers`` names the errors of the chip file that its interval is for.
    """

    family: str
    covers: tuple[str, ...]
    constants: Mapping[str, float]
    offsets: Mapping[str, float]
    fitted_on: tuple[float, ...]
    held_out: tuple[float, ...]

    @property
    def interval(self) -> float:
        """The factor less 1 within which nine of ten rows that were fitted on lie; never narrow
        where rows are few.
        """
        logs = np.abs(np.log1p(self.fitted_on))
        least = LEAST_OF_FEW if len(self.fitted_on) < FEW else 0.0
        return max(least, float(math.expm1(np.quantile(logs, INTERVAL))))

    @property
    def inside(self) -> float | None:
        """Share of the rows held out that lie within the interval."""
        if not self.held_out:
            return None
        return float(np.mean(np.abs(np.log1p(self.held_out)) <= math.log1p(self.interval)))


@dataclass(frozen=True, slots=True)
class Calibration:
    """A chip with the constants that its measurements gave, how each family came out, and which had
    too few rows.
    """

    chip: Chip
    families: tuple[FamilyFit, ...]
    too_few: tuple[str, ...] = ()


Timer: TypeAlias = Callable[[Chip], Floats]


def calibrate(
    chip: Chip, fitted_on: Sequence[Measured], held_out: Sequence[Measured]
) -> Calibration:
    """``chip`` with constants fitted to some rows, and the errors on those and on the others.

    Raises InputError for a chip without a machine model, and where no family has enough rows.
    """
    if chip.kind not in ("gpu", "systolic"):
        raise InputError(
            f"{chip.name} is of kind '{chip.kind}', without constants for operators: give a GPU or"
            " a TPU, or `host`"
        )
    if chip.kind == "gpu" and any(isinstance(m.what, Forward) for m in (*fitted_on, *held_out)):
        raise InputError(
            f"rows of whole models are for TPUs: {chip.name} is fitted to single operators"
        )
    plan: Mapping[tuple[Family, ...], tuple[Constant, ...]] = (
        GPU if chip.kind == "gpu" else {tuple(Family): SYSTOLIC}
    )
    done: list[FamilyFit] = []
    few: list[str] = []
    known: dict[str, float] = {}  # what each source times beside the kernel, found once
    for families, constants in plan.items():
        train, test = (_of_families(chip, rows, families) for rows in (fitted_on, held_out))
        if len(train) < FEWEST:
            few += [families[0].value] if train or test else []
            continue
        for _ in range(PLANS if chip.kind == "systolic" else 1):
            chip, fit = _fit(chip, families, constants, train, test, known)
        known |= fit.offsets
        done.append(fit)
    if chip.kind == "gpu" and sum(m.power_w is not None for m in fitted_on) >= FEWEST:
        chip, fit = fit_energy(
            chip, *([m for m in rows if m.power_w is not None] for rows in (fitted_on, held_out))
        )
        done.append(fit)
    if not done:
        raise InputError(
            f"no kind of operator has {FEWEST} rows or more to fit on: found"
            f" {len(fitted_on) + len(held_out)} rows in all"
        )
    return Calibration(chip, tuple(done), tuple(few))


def _of_families(
    chip: Chip, rows: Sequence[Measured], families: Sequence[Family]
) -> list[Measured]:
    whole = chip.kind == "systolic"  # the constants of a TPU show in whole models too
    return [
        m
        for m in rows
        if (whole if isinstance(m.what, Forward) else _kernel(chip, m).family in families)
    ]


def _kernel(chip: Chip, m: Measured) -> Kernel:
    assert not isinstance(m.what, Forward)
    try:
        return kernel_of(m.what, chip, chip.storage(m.what.dtype))
    except InputError as error:
        raise type(error)(f"line {m.what.line}: {error}") from error


def _fit(
    chip: Chip,
    families: Sequence[Family],
    constants: Sequence[Constant],
    train: Sequence[Measured],
    test: Sequence[Measured],
    known: Mapping[str, float],
) -> tuple[Chip, FamilyFit]:
    from scipy.optimize import least_squares, minimize

    by_source: dict[str, list[Measured]] = {}
    for m in train:
        by_source.setdefault(m.source, []).append(m)
    own = chip.kind == "gpu" and families[0] in WITH_OFFSET
    offsets = tuple(s for s in by_source if s not in known) if own else ()
    fixed = {s: known[s] for s in by_source if own and s in known}
    timers = {s: timer(chip, rows) for s, rows in by_source.items()}
    measured = {s: np.array([m.time_s for m in rows]) for s, rows in by_source.items()}
    sought = (*constants, *(_seconds(f"offset {s}", 3e-6) for s in offsets))

    def at(logs: Floats) -> tuple[dict[str, float], dict[str, float]]:
        values = [math.exp(v) for v in logs]
        named = {f"calibration.{c.name}": v for c, v in zip(constants, values, strict=False)}
        return named, fixed | dict(zip(offsets, values[len(constants) :], strict=True))

    def residuals(logs: Floats) -> Floats:
        named, beside = at(logs)
        parts = []
        for s, time in timers.items():
            used = named | ({"calibration.launch_s": beside[s]} if s in beside else {})
            parts.append(
                np.log(time(chip.with_constants(used)) / measured[s]) / len(measured[s]) ** POWER
            )
        return np.concatenate(parts) * float(np.mean([len(t) for t in measured.values()]) ** POWER)

    bounds = [np.log([c.low for c in sought]), np.log([c.high for c in sought])]
    start = np.log([min(max(c.start, c.low * 1.01), c.high * 0.99) for c in sought])
    if chip.kind == "gpu":
        found = least_squares(
            residuals,
            start,
            bounds=bounds,
            loss="soft_l1",
            f_scale=OUTLIER,
            diff_step=1e-3,
            max_nfev=60,
        )
    else:  # whole cycles and changing plans make steps that a gradient stumbles over
        shares = [c.high == 1.0 for c in sought]
        options = {"maxfev": SIMPLEX_TRIES, "xatol": 0.01, "fatol": 1e-4}
        found = minimize(
            lambda logs: _forgiving(
                np.concatenate([residuals(logs), PRIOR * (logs - start)[shares]])
            ),
            start,
            method="Nelder-Mead",
            bounds=list(zip(*bounds, strict=True)),
            options=options,
        )
    named, beside = at(found.x)
    if beside and families[0] is Family.MATMUL:
        # the least of the measuring sources: kernels in a graph
        named["calibration.launch_s"] = min(beside.values())
    best = chip.with_constants(named | {f"offsets.{s}": v for s, v in beside.items()})
    errors = tuple(tuple(_errors(best, rows, beside)) for rows in (train, test))
    name = (
        families[0].value
        if len(families) == 1
        else "kernels"
        if chip.kind == "systolic"
        else "stream"
    )
    covers = ("time",) if chip.kind == "systolic" else tuple(f.value for f in families)
    fit = FamilyFit(
        name, covers, {k.removeprefix("calibration."): v for k, v in named.items()}, beside, *errors
    )
    return best.with_constants({f"calibration.{n}_error": fit.interval for n in covers}), fit


ENERGY = ("busy_fraction", "mac_energy_factor")


def fit_energy(
    chip: Chip, train: Sequence[Measured], test: Sequence[Measured]
) -> tuple[Chip, FamilyFit]:
    """The share of the load power that running anything draws, and a factor on the published energy
    of a multiply-add.

    A byte from memory takes what is published: in kernels that keep the multiprocessors busy it
    does not show.
    """
    from scipy.optimize import least_squares

    def at(logs: Floats) -> dict[str, float]:
        return {f"calibration.{n}": float(v) for n, v in zip(ENERGY, np.exp(logs), strict=True)}

    def ratio(c: Chip, rows: Sequence[Measured]) -> Floats:
        return np.array([energy_of(c, m) / ((m.power_w or 0.0) * m.time_s) for m in rows])

    bounds = (np.log([0.01, 0.01]), np.log([1.0, 50.0]))
    start = np.log([0.5, 1.0])
    found = least_squares(
        lambda x: np.log(ratio(chip.with_constants(at(x)), train)),
        start,
        bounds=bounds,
        loss="soft_l1",
        f_scale=OUTLIER,
    )
    best = chip.with_constants(at(found.x))
    errors = (tuple((ratio(best, rows) - 1).tolist()) for rows in (train, test))
    fit = FamilyFit(
        "energy",
        ("energy",),
        {n.removeprefix("calibration."): v for n, v in at(found.x).items()},
        {},
        *errors,
    )
    return best.with_constants({"calibration.energy_error": fit.interval}), fit


def energy_of(chip: Chip, m: Measured) -> float:
    """Joules of one row over its measured time."""
    k = _kernel(chip, m)
    model = energy_model(chip, k.precision)
    macs = sum(p.macs for p in k.products)
    return (
        model.mac_j.value * macs
        + model.memory_byte_j.value * k.traffic.total
        + model.static_w.value * m.time_s
    )


def _forgiving(residuals: Floats) -> float:
    """Mean soft L1: square for small residuals, absolute for large ones."""
    return float((np.sqrt(1 + (residuals / WHOLE_OUTLIER) ** 2) - 1).mean())


def _errors(chip: Chip, rows: Sequence[Measured], beside: Mapping[str, float]) -> list[float]:
    """Predicted over measured less 1, row by row."""
    found: list[float] = []
    for source in dict.fromkeys(m.source for m in rows):
        own = [m for m in rows if m.source == source]
        used = (
            chip.with_constants({"calibration.launch_s": beside[source]})
            if source in beside
            else chip
        )
        found += (timer(chip, own)(used) / np.array([m.time_s for m in own]) - 1).tolist()
    return found


def timer(chip: Chip, rows: Sequence[Measured]) -> Timer:
    """Seconds of ``rows`` as a function of the chip's constants; what does not depend on them is
    made once.
    """
    programs: list[tuple[int, Program]] = []
    alike: dict[tuple[object, ...], list[tuple[int, Kernel]]] = {}
    parts: list[tuple[int, tuple[Kernel, ...]]] = []
    for i, m in enumerate(rows):
        if isinstance(m.what, Forward):
            bound = prepare(load(m.what.model), Sizes(m.what.batch, m.what.seq))
            programs.append((i, build(bound.graph, chip, chip.storage(m.what.dtype), bound.batch)))
            continue
        k = _kernel(chip, m)
        if chip.kind == "gpu":
            alike.setdefault((k.family, k.precision), []).append((i, k))
        else:
            parts.append((i, parts_of(k, m.what, chip)))

    def time(c: Chip) -> Floats:
        seconds = np.empty(len(rows))
        for i, program in programs:
            seconds[i] = simulate(program, c).time_s.value
        for i, kernels in parts:
            seconds[i] = sum(t.time_s for t in time_kernels(c, kernels)[0]) - fetched_with(
                c, kernels
            )
        for group in alike.values():
            seconds[[i for i, _ in group]] = gpu_times(c, [k for _, k in group])
        return seconds

    return time
