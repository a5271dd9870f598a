"""Measuring this machine: its constants, and real models beside their prediction."""

from tenfold.measure.calibrate import calibrate_host
from tenfold.measure.compare import Comparison, compare_nodes
from tenfold.measure.probes import probes
from tenfold.measure.runtime import ModelTime, NodeTime, measure

__all__ = [
    "Comparison",
    "ModelTime",
    "NodeTime",
    "calibrate_host",
    "compare_nodes",
    "measure",
    "probes",
]
