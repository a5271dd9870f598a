"""Tenfold: what running a neural network will take, before you buy or rent the chip.

import tenfold

graph = tenfold.load("model.onnx").bind({"batch": 16})
chip = tenfold.chip("tpu-v4i")
program = tenfold.compile(graph, chip, dtype="bf16")
run = tenfold.simulate(program)
print(run.time_s, run.energy_j)
"""

from __future__ import annotations

from tenfold.carbon import Envelope, Footprint, envelope, footprint
from tenfold.chips import Chip, chip
from tenfold.compiler import compile
from tenfold.economics import Rent, rent
from tenfold.errors import InputError, MissingFigure, ModelError, TenfoldError
from tenfold.estimate import Estimate
from tenfold.evaluate.predicting import predict
from tenfold.evaluate.profiling import Profile, profile
from tenfold.ir import Graph
from tenfold.lessons import lessons
from tenfold.machine import Program, Run, simulate
from tenfold.model import Sizes, load
from tenfold.planner import Plan, plan

__version__ = "0.1.0"

__all__ = [
    "Chip",
    "Envelope",
    "Estimate",
    "Footprint",
    "Graph",
    "InputError",
    "MissingFigure",
    "ModelError",
    "Plan",
    "Profile",
    "Program",
    "Rent",
    "Run",
    "Sizes",
    "TenfoldError",
    "chip",
    "compile",
    "envelope",
    "footprint",
    "lessons",
    "load",
    "plan",
    "predict",
    "profile",
    "rent",
    "simulate",
]
