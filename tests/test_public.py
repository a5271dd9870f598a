"""The public door: its names, and that the whole pipeline reads as one screen of calls."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tenfold
from support import model_path

DOOR = {
    "Chip", "Envelope", "Estimate", "Footprint", "Graph", "InputError", "MissingFigure",
    "ModelError", "Profile", "Plan", "Program", "Rent", "Run", "Sizes", "TenfoldError", "chip",
    "compile", "envelope", "footprint", "lessons", "load", "plan", "predict", "profile", "rent",
    "simulate",
}  # fmt: skip


def test_exported_names() -> None:
    assert set(tenfold.__all__) == DOOR
    assert all(hasattr(tenfold, n) for n in DOOR)


def test_pipeline() -> None:
    graph = tenfold.load("resnet50").bind({"batch": 16})
    chip = tenfold.chip("tpu-v4i")
    program = tenfold.compile(graph, chip, dtype="bf16")
    run = tenfold.simulate(program)
    assert program.items == 16
    assert run.time_s.value > 0
    assert run.energy_j.value > 0
    assert run.kernels
    same = tenfold.profile(tenfold.load("resnet50"), "tpu-v4i", tenfold.Sizes(batch=16)).run
    assert same.time_s == run.time_s


def test_importing_is_light() -> None:
    """Nothing but Python comes before it is asked for, so that Ctrl-C has nothing to break."""
    code = (
        "import sys; before = set(sys.modules); import tenfold;"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "['tenfold']"


def test_the_door_says_what_it_lacks() -> None:
    assert set(dir(tenfold)) >= DOOR
    with pytest.raises(AttributeError, match="module 'tenfold' has no attribute 'lesson'"):
        _ = tenfold.lesson


def test_free_dimensions_must_be_bound_first() -> None:
    graph = tenfold.load(model_path("rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx"))
    with pytest.raises(tenfold.InputError, match="bind them first"):
        tenfold.compile(graph, tenfold.chip("tpu-v4"))
