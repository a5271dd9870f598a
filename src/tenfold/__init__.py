"""Tenfold: what running a neural network will take, before you buy or rent the chip.

import tenfold

graph = tenfold.load("model.onnx").bind({"batch": 16})
chip = tenfold.chip("tpu-v4i")
program = tenfold.compile(graph, chip, dtype="bf16")
run = tenfold.simulate(program)
print(run.time_s, run.energy_j)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.carbon import Envelope, Footprint, envelope, footprint
    from tenfold.chips import Chip, chip
    from tenfold.claims import lessons
    from tenfold.compiler import compile
    from tenfold.economics import Rent, rent
    from tenfold.errors import InputError, MissingFigure, ModelError, TenfoldError
    from tenfold.estimate import Estimate
    from tenfold.evaluate.predicting import predict
    from tenfold.evaluate.profiling import Profile, profile
    from tenfold.ir import Graph
    from tenfold.machine import Program, Run, simulate
    from tenfold.model import Sizes, load
    from tenfold.planner import Plan
    from tenfold.planner.front import plan

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

_HOMES = {
    "Chip": "tenfold.chips",
    "Envelope": "tenfold.carbon",
    "Estimate": "tenfold.estimate",
    "Footprint": "tenfold.carbon",
    "Graph": "tenfold.ir",
    "InputError": "tenfold.errors",
    "MissingFigure": "tenfold.errors",
    "ModelError": "tenfold.errors",
    "Plan": "tenfold.planner",
    "Profile": "tenfold.evaluate.profiling",
    "Program": "tenfold.machine",
    "Rent": "tenfold.economics",
    "Run": "tenfold.machine",
    "Sizes": "tenfold.model",
    "TenfoldError": "tenfold.errors",
    "chip": "tenfold.chips",
    "compile": "tenfold.compiler",
    "envelope": "tenfold.carbon",
    "footprint": "tenfold.carbon",
    "lessons": "tenfold.claims",
    "load": "tenfold.model",
    "plan": "tenfold.planner.front",
    "predict": "tenfold.evaluate.predicting",
    "profile": "tenfold.evaluate.profiling",
    "rent": "tenfold.economics",
    "simulate": "tenfold.machine",
}


def __getattr__(name: str) -> Any:
    """What the door offers, imported when it is asked for: the command line starts before."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tenfold' has no attribute '{name}'")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
