"""Whole models: the constants that they move, and each before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tenfold.calibration.measured import Forward, Measured
from tenfold.calibration.record import FEW, FamilyFit, ModelFit
from tenfold.calibration.timing import Floats, errors, fitted_to, path_of, timer, with_errors
from tenfold.chips import Chip, Constant, Whole
from tenfold.chips.figures import CALIBRATION

WHOLE_MODELS = "whole models"
# logarithmic deviations of a row from its prediction and of a constant from what it was: assumed,
# and only their ratio counts (half and double are in docs/calibration.md)
WHOLE_ROW, HELD = 0.1, 0.3
FAR = 2.0  # more than two such deviations of a constant


def model_fits(
    before: Chip, after: Chip, train: Sequence[Measured], test: Sequence[Measured]
) -> Iterator[ModelFit]:
    """Each whole model with the constants that the chip had, and with those found."""
    for rows, held_out in ((train, False), (test, True)):
        found = zip(rows, timer(before, rows)(before), timer(after, rows)(after), strict=True)
        for m, was, now in found:
            assert isinstance(m.what, Forward)
            yield ModelFit(m.what, m.time_s, float(was), float(now), held_out)


def far(given: Chip, fit: FamilyFit) -> dict[str, float]:
    """Constants that whole models moved by more than ``FAR``, with the factor: such rows are not
    explained by a chip that is a little slower or faster.
    """
    factors = {n: v / given.figures[f"{CALIBRATION}{n}"].value for n, v in fit.constants.items()}
    return {n: f for n, f in factors.items() if not 1 / FAR < f < FAR}


def fit_whole(
    chip: Chip,
    moved: Sequence[Constant],
    train: Sequence[Measured],
    test: Sequence[Measured],
) -> tuple[Chip, FamilyFit]:
    """Constants moved by whole models, each as far as these speak against what it was.

    A row counts by ``WHOLE_ROW``, a constant's distance by ``HELD``: maximum a posteriori, normal
    in logarithms. One model says little of any constant, and moves all that it uses a little; the
    interval of whole models gets no narrower by fewer than ``FEW`` rows.
    """
    from scipy.optimize import least_squares

    held = [c for c in moved if chip.number(path_of(c)) is not None]
    start = np.log([chip.constant(c) for c in held])
    shares = np.array([not c.endswith("_s") for c in held])
    high = np.where(shares, 0.0, np.inf)
    time = timer(chip, train)
    measured = np.array([m.time_s for m in train])

    def at(logs: Floats) -> dict[str, float]:
        return {path_of(c): float(v) for c, v in zip(held, np.exp(logs), strict=True)}

    def residuals(logs: Floats) -> Floats:
        rows = np.log(time(fitted_to(chip, at(logs))) / measured) / WHOLE_ROW
        return np.concatenate([rows, (logs - start) / HELD])

    low = np.full(len(held), -np.inf)
    inside = np.minimum(start, high - 1e-6)
    found = least_squares(residuals, inside, bounds=(low, high), diff_step=1e-3, max_nfev=40)
    best = fitted_to(chip, at(found.x))
    fit = FamilyFit(
        family=WHOLE_MODELS,
        covers=(Whole.MODEL,),
        constants={n.removeprefix(CALIBRATION): v for n, v in at(found.x).items()},
        offsets={},
        fitted_on=tuple(errors(best, train, {})),
        held_out=tuple(errors(best, test, {})),
    )
    if len(train) >= FEW:
        return with_errors(best, fit), fit
    # a fit to few rows says how far it is from these, not from other networks
    error = max(fit.interval, chip.error(Whole.MODEL))
    return fitted_to(best, {f"{CALIBRATION}{Whole.MODEL.value}_error": error}), fit
