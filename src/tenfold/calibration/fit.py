"""Fitting a chip's constants to measured times: few, physical, one set for each family of kernels.

The logarithm of predicted over measured is made small by least squares that forgives outliers (soft
L1), a measuring source counting as the root of its number of rows. Fractions stay below 1. Families
are fitted in order: later ones use the rates of earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

import numpy as np

from tenfold.calibration.measured import Forward, Measured
from tenfold.calibration.sought import FITTINGS, Search, Sought
from tenfold.chips import Chip, Constant, GpuConstant, KernelFamily, Predicted, Whole
from tenfold.chips.figures import CALIBRATION, OFFSETS
from tenfold.compiler import build
from tenfold.errors import InputError
from tenfold.evaluate.operators import kernel_of, kernels_of
from tenfold.evaluate.predicting import WITH_OFFSET, overlapped_fetch_s
from tenfold.facts import Status
from tenfold.machine import Kernel, Level, Program, gpu_times, pace, time_kernels
from tenfold.machine.energy import energy_model, power_limit
from tenfold.model import Sizes, load, prepare

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

FEWEST = 4  # rows of a family below which nothing is fitted
# a source counts as the root of its rows: many rows say more, but not alone what a constant is
POWER = 0.25
OUTLIER = 0.5  # logarithmic error beyond which a row weighs less
WHOLE_OUTLIER = 0.2  # the same where whole models are among the rows
SIMPLEX_TRIES = 160
# times that whole models are planned anew with the constants found: what fits in memory when
# a share of a few rows counts as one more row, whose error is this part of its distance from the
# usual
PRIOR = 0.5
# rows that say little about other rows, and the interval they give at least (assumed)
FEW, LEAST_OF_FEW = 30, 0.15
INTERVAL = 0.9  # of the rows fitted on lie within the error that is stored


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """How one family came out: rows fitted on and held out, and their errors as fractions of the
    measured time.

    ``covers`` names the errors of the chip file that its interval is for.
    """

    family: str
    covers: tuple[Predicted, ...]
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
    fitting = FITTINGS.get(chip.kind)
    if fitting is None:
        raise InputError(
            f"{chip.name} is of kind '{chip.kind}', without constants for operators: give a GPU or"
            " a TPU, or `host`"
        )
    everything = (*fitted_on, *held_out)
    if not fitting.whole_models and any(isinstance(m.what, Forward) for m in everything):
        raise InputError(
            f"rows of whole models are for TPUs: {chip.name} is fitted to single operators"
        )
    done: list[FamilyFit] = []
    few: list[str] = []
    known: dict[str, float] = {}  # what each source times beside the kernel, found once
    for families, constants in fitting.families.items():
        train, test = (_of_families(chip, rows, families) for rows in (fitted_on, held_out))
        if len(train) < FEWEST:
            few += [families[0].value] if train or test else []
            continue
        for _ in range(fitting.plans):
            chip, fit = _fit(chip, families, constants, train, test, known)
        known |= fit.offsets
        done.append(fit)
    if fitting.power and sum(m.power_w is not None for m in fitted_on) >= FEWEST:
        rows = ([m for m in rows if m.power_w is not None] for rows in (fitted_on, held_out))
        chip, fit = fit_energy(chip, *rows)
        done.append(fit)
    if not done:
        raise InputError(
            f"no kind of operator has {FEWEST} rows or more to fit on: found"
            f" {len(fitted_on) + len(held_out)} rows in all"
        )
    return Calibration(chip, tuple(done), tuple(few))


def _of_families(
    chip: Chip, rows: Sequence[Measured], families: Sequence[KernelFamily]
) -> list[Measured]:
    whole = FITTINGS[chip.kind].whole_models  # the constants of a TPU show in whole models too
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


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is sought, in logarithms: constants, then what each source times beside the kernel.
    ``fixed`` are those of sources that earlier families gave.
    """

    chip: Chip
    constants: Sequence[Sought]
    offsets: tuple[str, ...]
    fixed: Mapping[str, float]
    timers: Mapping[str, Timer]
    measured: Mapping[str, Floats]

    @property
    def ranges(self) -> tuple[Floats, Floats, Floats]:
        """Least, where the search starts, most."""
        each = [
            *((c.low, c.start, c.high) for c in self.constants),
            *(OFFSET_S for _ in self.offsets),
        ]
        lows, starts, highs = np.array(each).T
        return np.log(lows), np.log(np.clip(starts, lows * 1.01, highs * 0.99)), np.log(highs)

    def at(self, logs: Floats) -> tuple[dict[str, float], dict[str, float]]:
        """Constants by their paths, and times beside by source."""
        values = [math.exp(v) for v in logs]
        named = {_path(c.name): v for c, v in zip(self.constants, values, strict=False)}
        found = dict(zip(self.offsets, values[len(self.constants) :], strict=True))
        return named, {**self.fixed, **found}

    def residuals(self, logs: Floats) -> Floats:
        """Logarithms of predicted over measured, each source with its own weight."""
        named, beside = self.at(logs)
        parts = []
        for s, time in self.timers.items():
            used = named | ({LAUNCH: beside[s]} if s in beside else {})
            ratio = time(_with(self.chip, used)) / self.measured[s]
            parts.append(np.log(ratio) / len(self.measured[s]) ** POWER)
        mean = float(np.mean([len(t) for t in self.measured.values()]))
        return np.concatenate(parts) * mean**POWER


def _searched(problem: _Problem, search: Search) -> Floats:
    """The logarithms that fit best."""
    from scipy.optimize import least_squares, minimize

    lows, start, highs = problem.ranges
    match search:
        case Search.GRADIENT:
            return least_squares(
                problem.residuals,
                start,
                bounds=(lows, highs),
                loss="soft_l1",
                f_scale=OUTLIER,
                diff_step=1e-3,
                max_nfev=60,
            ).x
        case Search.SIMPLEX:
            shares = [c.is_share for c in problem.constants]

            def loss(logs: Floats) -> float:
                prior = PRIOR * (logs - start)[: len(shares)][shares]
                return _forgiving(np.concatenate([problem.residuals(logs), prior]))

            return minimize(
                loss,
                start,
                method="Nelder-Mead",
                bounds=list(zip(lows, highs, strict=True)),
                options={"maxfev": SIMPLEX_TRIES, "xatol": 0.01, "fatol": 1e-4},
            ).x
        case _:
            assert_never(search)


def _fit(
    chip: Chip,
    families: Sequence[KernelFamily],
    constants: Sequence[Sought],
    train: Sequence[Measured],
    test: Sequence[Measured],
    known: Mapping[str, float],
) -> tuple[Chip, FamilyFit]:
    fitting = FITTINGS[chip.kind]
    by_source: dict[str, list[Measured]] = {}
    for m in train:
        by_source.setdefault(m.source, []).append(m)
    own = fitting.beside and families[0] in WITH_OFFSET
    problem = _Problem(
        chip=chip,
        constants=constants,
        offsets=tuple(s for s in by_source if s not in known) if own else (),
        fixed={s: known[s] for s in by_source if own and s in known},
        timers={s: timer(chip, rows) for s, rows in by_source.items()},
        measured={s: np.array([m.time_s for m in rows]) for s, rows in by_source.items()},
    )
    named, beside = problem.at(_searched(problem, fitting.search))
    if beside and families[0] is KernelFamily.MATMUL:
        # the least of the measuring sources: kernels in a graph
        named[LAUNCH] = min(beside.values())
    best = _with(chip, named | {f"{OFFSETS}{s}": v for s, v in beside.items()})
    fit = FamilyFit(
        family=_name(families),
        covers=(Whole.TIME,) if fitting.whole_models else tuple(families),
        constants={k.removeprefix(CALIBRATION): v for k, v in named.items()},
        offsets=beside,
        fitted_on=tuple(_errors(best, train, beside)),
        held_out=tuple(_errors(best, test, beside)),
    )
    return _with_errors(best, fit), fit


LAUNCH = f"{CALIBRATION}{GpuConstant.LAUNCH_S.value}"
OFFSET_S = (1e-9, 3e-6, 1e-3)  # of a call beside its kernel: least, where the search starts, most
ENERGY = (GpuConstant.BUSY_FRACTION, GpuConstant.MAC_ENERGY_FACTOR)


def _path(constant: Constant) -> str:
    return f"{CALIBRATION}{constant.value}"


def _with(chip: Chip, values: Mapping[str, float]) -> Chip:
    return chip.with_figures(values, Status.FITTED)


def _with_errors(chip: Chip, fit: FamilyFit) -> Chip:
    return _with(chip, {f"{CALIBRATION}{of.value}_error": fit.interval for of in fit.covers})


def _name(families: Sequence[KernelFamily]) -> str:
    """What families that are fitted together are called."""
    if len(families) == 1:
        return families[0].value
    return "kernels" if len(families) == len(KernelFamily) else KernelFamily.STREAM.value


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
        return {_path(n): float(v) for n, v in zip(ENERGY, np.exp(logs), strict=True)}

    def ratio(c: Chip, rows: Sequence[Measured]) -> Floats:
        return np.array([energy_of(c, m) / ((m.power_w or 0.0) * m.time_s) for m in rows])

    bounds = (np.log([0.01, 0.01]), np.log([1.0, 50.0]))
    start = np.log([0.5, 1.0])
    found = least_squares(
        lambda x: np.log(ratio(_with(chip, at(x)), train)),
        start,
        bounds=bounds,
        loss="soft_l1",
        f_scale=OUTLIER,
    )
    best = _with(chip, at(found.x))
    fit = FamilyFit(
        family=Whole.ENERGY.value,
        covers=(Whole.ENERGY,),
        constants={n.removeprefix(CALIBRATION): v for n, v in at(found.x).items()},
        offsets={},
        fitted_on=tuple((ratio(best, train) - 1).tolist()),
        held_out=tuple((ratio(best, test) - 1).tolist()),
    )
    return _with_errors(best, fit), fit


def energy_of(chip: Chip, m: Measured) -> float:
    """Joules of one row over its measured time, within the chip's power limit."""
    k = _kernel(chip, m)
    model = energy_model(chip, k.precision)
    macs = sum(p.macs for p in k.products)
    passing = 2 * (k.traffic.all_reads + k.traffic.all_writes)
    bytes_j = model.byte_j[Level.OFF_CHIP].value * k.traffic.total
    bytes_j += model.byte_j[Level.ON_CHIP].value * passing
    joules = model.mac_j.value * macs + bytes_j + model.static_w.value * m.time_s
    limit = power_limit(chip)
    return min(joules, limit.limit_w * m.time_s) if limit is not None else joules


def _forgiving(residuals: Floats) -> float:
    """Mean soft L1: square for small residuals, absolute for large ones."""
    return float((np.sqrt(1 + (residuals / WHOLE_OUTLIER) ** 2) - 1).mean())


def _errors(chip: Chip, rows: Sequence[Measured], beside: Mapping[str, float]) -> list[float]:
    """Predicted over measured less 1, row by row."""
    found: list[float] = []
    for source in dict.fromkeys(m.source for m in rows):
        own = [m for m in rows if m.source == source]
        used = _with(chip, {LAUNCH: beside[source]}) if source in beside else chip
        found += (timer(chip, own)(used) / np.array([m.time_s for m in own]) - 1).tolist()
    return found


def timer(chip: Chip, rows: Sequence[Measured]) -> Timer:
    """Seconds of ``rows`` as a function of the chip's constants; what does not depend on them is
    made once.
    """
    together = FITTINGS[chip.kind].together
    programs: list[tuple[int, Program]] = []
    alike: dict[tuple[object, ...], list[tuple[int, Kernel]]] = {}
    parts: list[tuple[int, tuple[Kernel, ...]]] = []
    for i, m in enumerate(rows):
        if isinstance(m.what, Forward):
            bound = prepare(load(m.what.model), Sizes(m.what.batch, m.what.seq))
            programs.append((i, build(bound.graph, chip, chip.storage(m.what.dtype), bound.batch)))
            continue
        k = _kernel(chip, m)
        if together:
            alike.setdefault((k.family, k.precision), []).append((i, k))
        else:
            parts.append((i, kernels_of(k, m.what, chip)))

    def time(c: Chip) -> Floats:
        seconds = np.empty(len(rows))
        for i, program in programs:
            seconds[i] = pace(program, c).pass_s
        for i, kernels in parts:
            seconds[i] = sum(t.time_s for t in time_kernels(c, kernels)[0]) - overlapped_fetch_s(
                c, kernels
            )
        for group in alike.values():
            seconds[[i for i, _ in group]] = gpu_times(c, [k for _, k in group])
        return seconds

    return time
