"""Calibration: a chip's constants from measured times."""

from tenfold.calibration.fit import Calibration, FamilyFit, calibrate
from tenfold.calibration.measured import Forward, Measured, read_measured, split
from tenfold.calibration.sets import SETS, MeasuredSet
from tenfold.calibration.write import chip_text, with_constants, writable, write_chip

__all__ = [
    "SETS", "Calibration", "FamilyFit", "Forward", "Measured", "MeasuredSet", "calibrate",
    "chip_text", "read_measured", "split", "with_constants", "writable", "write_chip",
]  # fmt: skip
