"""Fitting a chip's constants to measured times: few, physical, one set for each family of kernels.

The logarithm of predicted over measured is made small by least squares that forgives outliers (soft
L1), a measuring source counting as the root of its number of rows. Fractions stay below 1. Families
are fitted in order: later ones use the rates of earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from tenfold.calibration.measured import Forward, Measured
from tenfold.calibration.record import Calibration, FamilyFit
from tenfold.calibration.sought import FITTINGS, Search, Sought
from tenfold.calibration.timing import (
    LAUNCH,
    Floats,
    Timer,
    errors,
    fitted_to,
    kernel_at,
    path_of,
    timer,
    with_errors,
)
from tenfold.calibration.whole import far, fit_whole, model_fits
from tenfold.chips import Chip, GpuConstant, KernelFamily, Whole
from tenfold.chips.figures import CALIBRATION, OFFSETS
from tenfold.errors import InputError
from tenfold.evaluate.predicting import WITH_OFFSET
from tenfold.machine import Level
from tenfold.machine.energy import energy_model, power_limit

FEWEST = 4  # rows of a family below which nothing is fitted
# a source counts as the root of its rows: many rows say more, but not alone what a constant is
POWER = 0.25
OUTLIER = 0.5  # logarithmic error beyond which a row weighs less
WHOLE_OUTLIER = 0.2  # the same where whole models are among the rows
SIMPLEX_TRIES = 160
# a share of a few rows counts as one more row, whose error is this part of its distance from the
# usual
PRIOR = 0.5


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
    given = chip
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
        done.append(_beside_what_was(given, fit, train, test))
    if fitting.power and sum(m.power_w is not None for m in fitted_on) >= FEWEST:
        rows = ([m for m in rows if m.power_w is not None] for rows in (fitted_on, held_out))
        chip, fit = fit_energy(chip, *rows)
        done.append(fit)
    whole = [[m for m in rows if isinstance(m.what, Forward)] for rows in (fitted_on, held_out)]
    moved: dict[str, float] = {}
    if fitting.moved and whole[0]:
        operators = chip
        chip, fit = fit_whole(chip, fitting.moved, *whole)
        moved = far(operators, fit)
        done.append(_beside_what_was(given, fit, *whole))
    if not done:
        raise InputError(
            f"no kind of operator has {FEWEST} rows or more to fit on: found"
            f" {len(fitted_on) + len(held_out)} rows in all"
        )
    models = tuple(model_fits(given, chip, *whole))
    return Calibration(chip, tuple(done), tuple(few), models, moved)


def _beside_what_was(
    given: Chip, fit: FamilyFit, train: Sequence[Measured], test: Sequence[Measured]
) -> FamilyFit:
    """``fit`` with the errors that the chip had before; the times of calls beside kernels are those
    that it had, too.
    """
    named = (m.source for m in (*train, *test))
    known = {s: given.offset(s) for s in named if s in given.measuring_sources}
    beside = known if any(f in WITH_OFFSET for f in fit.covers) else {}
    before = (tuple(errors(given, rows, beside)) for rows in (train, test))
    first, second = before
    return replace(fit, fitted_on_before=first, held_out_before=second)


def _of_families(
    chip: Chip, rows: Sequence[Measured], families: Sequence[KernelFamily]
) -> list[Measured]:
    whole = FITTINGS[chip.kind].whole_models  # the constants of a TPU show in whole models too
    return [
        m
        for m in rows
        if (whole if isinstance(m.what, Forward) else kernel_at(chip, m).family in families)
    ]


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
        named = {path_of(c.name): v for c, v in zip(self.constants, values, strict=False)}
        found = dict(zip(self.offsets, values[len(self.constants) :], strict=True))
        return named, {**self.fixed, **found}

    def residuals(self, logs: Floats) -> Floats:
        """Logarithms of predicted over measured, each source with its own weight."""
        named, beside = self.at(logs)
        parts = []
        for s, time in self.timers.items():
            used = named | ({LAUNCH: beside[s]} if s in beside else {})
            ratio = time(fitted_to(self.chip, used)) / self.measured[s]
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
    best = fitted_to(chip, named | {f"{OFFSETS}{s}": v for s, v in beside.items()})
    fit = FamilyFit(
        family=_name(families),
        covers=(Whole.TIME,) if fitting.whole_models else tuple(families),
        constants={k.removeprefix(CALIBRATION): v for k, v in named.items()},
        offsets=beside,
        fitted_on=tuple(errors(best, train, beside)),
        held_out=tuple(errors(best, test, beside)),
    )
    return with_errors(best, fit), fit


OFFSET_S = (1e-9, 3e-6, 1e-3)  # of a call beside its kernel: least, where the search starts, most
ENERGY = (GpuConstant.BUSY_FRACTION, GpuConstant.MAC_ENERGY_FACTOR)


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
        return {path_of(n): float(v) for n, v in zip(ENERGY, np.exp(logs), strict=True)}

    def ratio(c: Chip, rows: Sequence[Measured]) -> Floats:
        return np.array([energy_of(c, m) / ((m.power_w or 0.0) * m.time_s) for m in rows])

    bounds = (np.log([0.01, 0.01]), np.log([1.0, 50.0]))
    start = np.log([0.5, 1.0])
    found = least_squares(
        lambda x: np.log(ratio(fitted_to(chip, at(x)), train)),
        start,
        bounds=bounds,
        loss="soft_l1",
        f_scale=OUTLIER,
    )
    best = fitted_to(chip, at(found.x))
    fit = FamilyFit(
        family=Whole.ENERGY.value,
        covers=(Whole.ENERGY,),
        constants={n.removeprefix(CALIBRATION): v for n, v in at(found.x).items()},
        offsets={},
        fitted_on=tuple((ratio(best, train) - 1).tolist()),
        held_out=tuple((ratio(best, test) - 1).tolist()),
    )
    return with_errors(best, fit), fit


def energy_of(chip: Chip, m: Measured) -> float:
    """Joules of one row over its measured time, within the chip's power limit."""
    k = kernel_at(chip, m)
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
