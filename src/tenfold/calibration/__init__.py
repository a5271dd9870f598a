"""Calibration: a chip's constants from measured times."""

from tenfold.calibration.fit import calibrate
from tenfold.calibration.given import Given, ProfiledModel, read_given
from tenfold.calibration.measured import Forward, Measured, read_measured, split
from tenfold.calibration.record import Calibration, FamilyFit, ModelFit
from tenfold.calibration.sets import SETS, MeasuredSet
from tenfold.calibration.write import chip_text, with_constants, writable, write_chip

__all__ = [
    "SETS", "Calibration", "FamilyFit", "Forward", "Given", "Measured", "MeasuredSet", "ModelFit",
    "ProfiledModel", "calibrate", "chip_text", "read_given", "read_measured", "split",
    "with_constants", "writable", "write_chip",
]  # fmt: skip
