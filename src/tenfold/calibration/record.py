"""How a calibration came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tenfold.calibration.measured import Forward
from tenfold.chips import Chip, Predicted

# rows that say little about other rows, and the interval they give at least (assumed)
FEW, LEAST_OF_FEW = 30, 0.15
INTERVAL = 0.9  # of the rows fitted on lie within the error that is stored


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """How one family came out: rows fitted on and held out, and their errors as fractions of the
    measured time.

    ``covers`` names the errors of the chip file that its interval is for. Those ``before`` are
    with the constants that the chip had.
    """

    family: str
    covers: tuple[Predicted, ...]
    constants: Mapping[str, float]
    offsets: Mapping[str, float]
    fitted_on: tuple[float, ...]
    held_out: tuple[float, ...]
    fitted_on_before: tuple[float, ...] = ()
    held_out_before: tuple[float, ...] = ()

    @property
    def before(self) -> tuple[float, ...]:
        """What the errors of the rows held out were with the constants that the chip had; of those
        fitted on where none is held out.
        """
        return self.held_out_before or self.fitted_on_before

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
class ModelFit:
    """A whole model: its measured seconds, and those predicted before and after."""

    what: Forward
    measured_s: float
    before_s: float
    after_s: float
    held_out: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """A chip with the constants that its measurements gave, how each family came out, which had
    too few rows, and whole models one by one; ``far`` are constants that these moved further than
    is likely, by factor.
    """

    chip: Chip
    families: tuple[FamilyFit, ...]
    too_few: tuple[str, ...] = ()
    models: tuple[ModelFit, ...] = ()
    far: Mapping[str, float] = field(default_factory=dict)
