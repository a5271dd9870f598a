"""What each step of the compiler is worth on every real model: a golden table, so that nothing gets
slower silently.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support import FETCHED, LIGHTS, model_path
from tenfold.chips import chip
from tenfold.compiler import STEPS, Options, build
from tenfold.errors import InputError
from tenfold.machine import simulate
from tenfold.model import Sizes, load, prepare

CHIPS = ("tpu-v4i", "a100-sxm-80")
BATCH = 4
SLACK = 1.02  # a step may lose this much on a model: another cut of the same work into tiles


def rows(name: str) -> list[str]:
    """Microseconds with everything, then without each step, on two kinds of chip."""
    try:
        graph = prepare(load(model_path(name)), Sizes(batch=BATCH)).graph
    except InputError:  # a streaming model whose state has no batch
        graph = prepare(load(model_path(name)), Sizes()).graph
    lines = []
    for c in CHIPS:
        record = chip(c)
        times = {
            step: (
                simulate(
                    build(graph, record, record.storage(None), BATCH, Options(without))
                ).time_s.value
                * 1e6
            )
            for step, without in [("all", ()), *((s, (s,)) for s in STEPS), ("none", tuple(STEPS))]
        }
        for step, time in times.items():
            assert times["all"] <= time * SLACK, f"{name} on {c} is faster without {step}"
        lines.append(f"{name} {c} " + " ".join(f"{s}={t:.4g}" for s, t in times.items()))
    return lines


@pytest.mark.models
@pytest.mark.parametrize("name", [*FETCHED, *LIGHTS])
def test_no_step_makes_a_model_slower(name: str, golden: Callable[[str, str], None]) -> None:
    golden(
        f"steps/{name.replace('/', '-').removesuffix('.onnx')}.txt", "\n".join(rows(name)) + "\n"
    )
