"""What each step of the compiler is worth on every real model, held against a table, so that none
loses what it was worth silently. The table has ratios, so that a constant of the machine that moves
every time alike moves none of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support import FETCHED, LIGHTS, model_path
from tenfold.chips import Chip, chip
from tenfold.compiler import STEPS, Options, build
from tenfold.errors import InputError
from tenfold.ir import Graph
from tenfold.machine import pace
from tenfold.model import Sizes, load, prepare

CHIPS = ("tpu-v4i", "a100-sxm-80")
BATCH = 4
SLACK = 1.02  # a step may lose this much on a model: another cut of the same work into tiles
DRIFT = 0.05  # of what a step is worth: more is a change of the compiler, to be looked at
FOLDER = Path(__file__).parent / "golden" / "steps"


def worths(name: str) -> dict[str, float]:
    """How many times as long a pass takes without each step, and without all, by chip and step."""
    try:
        graph = prepare(load(model_path(name)), Sizes(batch=BATCH)).graph
    except InputError:  # a streaming model whose state has no batch
        graph = prepare(load(model_path(name)), Sizes()).graph
    return {f"{c} {step}": worth for c in CHIPS for step, worth in _on(graph, chip(c)).items()}


def _on(graph: Graph, record: Chip) -> dict[str, float]:
    def time(*without: str) -> float:
        options = Options(without)
        return pace(build(graph, record, record.storage(None), BATCH, options), record).pass_s

    whole = time()
    return {step: time(step) / whole for step in STEPS} | {"none": time(*STEPS) / whole}


@pytest.mark.models
@pytest.mark.parametrize("name", [*FETCHED, *LIGHTS])
def test_each_step_is_worth_what_it_was(name: str, request: pytest.FixtureRequest) -> None:
    path = FOLDER / f"{name.replace('/', '-').removesuffix('.onnx')}.txt"
    found = worths(name)
    for step, worth in found.items():
        assert worth * SLACK >= 1, f"{name} is faster without a step: {step}"
    if request.config.getoption("--golden"):
        path.write_text("".join(f"{step} {worth:.3g}\n" for step, worth in found.items()))
    lines = (line.rsplit(" ", 1) for line in path.read_text().splitlines())
    known = {step: float(worth) for step, worth in lines}
    assert found == pytest.approx(known, rel=DRIFT), "after a deliberate change: make golden"
