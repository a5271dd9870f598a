"""Measuring through PyTorch: on a processor here, since no card is at hand; what is written is what
`calibrate` reads, and the networks do the work of the zoo's.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tenfold.calibration import Forward, calibrate, read_measured, split
from tenfold.chips import chip
from tenfold.errors import InputError
from tenfold.evaluate.operators import OperatorCall, kernel_of
from tenfold.ir.cost import graph_totals
from tenfold.machine import Stack
from tenfold.measure.torch import (
    MODELS,
    Bench,
    LeftOut,
    Place,
    Taken,
    bench,
    cases,
    measure_models,
    measure_operators,
    table,
)
from tenfold.measure.torch.bench import Drawn
from tenfold.measure.torch.calls import call_of
from tenfold.measure.torch.models import inputs, module
from tenfold.model import Sizes, load, prepare

torch = pytest.importorskip("torch")
SMALL = {
    "matmul": {"m": 4, "n": 8, "k": 16},
    "batched_matmul": {"batch": 3, "m": 4, "n": 8, "k": 16},
    "attention_prefill": {
        "batch": 2, "q_len": 6, "heads": 4, "kv_heads": 2, "head_dim": 8, "causal": 1,
    },
    "attention_decode": {"batch": 2, "kv_len": 6, "heads": 4, "kv_heads": 2, "head_dim": 8},
    "conv2d": {
        "batch": 2, "channels": 4, "height": 9, "width": 9, "filters": 8, "kernel": 3, "stride": 2,
        "padding": 1, "groups": 2,
    },
    "softmax": {"rows": 3, "cols": 5},
    "layernorm": {"rows": 3, "cols": 5},
    "gelu": {"rows": 3, "cols": 5},
    "add": {"rows": 3, "cols": 5},
}  # fmt: skip
SHAPES = {
    "matmul": (4, 8),
    "batched_matmul": (3, 4, 8),
    "attention_prefill": (2, 4, 6, 8),
    "attention_decode": (2, 4, 1, 8),
    "conv2d": (2, 8, 5, 5),
}


@pytest.fixture(scope="module")
def here() -> Bench:
    return bench(Place.CPU)


def test_every_operator_that_is_measured_runs_and_gives_its_shape(here: Bench) -> None:
    assert {r.op for r in cases()} == set(SMALL)
    for op, extents in SMALL.items():
        made = call_of(here.torch, OperatorCall(1, op, "fp32", extents), "cpu")()
        assert tuple(made.shape) == SHAPES.get(op, (3, 5)), op


def test_every_case_is_one_that_a_card_of_the_catalogue_predicts() -> None:
    a100 = chip("a100-sxm-80")
    for r in cases():
        kernel = kernel_of(r, a100, a100.storage(r.dtype))
        assert kernel.flops > 0 or kernel.traffic.total > 0
    assert len({(r.op, r.dtype, *r.extents.items()) for r in cases()}) == len(list(cases()))


def test_what_is_written_is_what_calibrate_reads(here: Bench) -> None:
    small = [OperatorCall(1, op, "fp32", e, "balanced", engine=False) for op, e in SMALL.items()]
    rows = [r for r in measure_operators(here, small) if isinstance(r, Taken)]
    rows.append(Taken(Forward("bert-base", 1, 384, "fp32", Stack.EAGER), 0.1))
    rows.append(Taken(Forward("resnet50", 2, None, "fp32", Stack.COMPILED), 0.2))
    text = table(here, rows, "2026-11-28")
    assert text.startswith(
        f"# processor\n# PyTorch {torch.__version__}\n# measured on 2026-11-28\n"
    )
    read = read_measured(text)
    assert len(read) == len(rows) == 2 * len(SMALL) + 2
    for taken, m in zip(rows, read, strict=True):
        assert m.time_s == pytest.approx(taken.time_s, rel=1e-5)
        if isinstance(taken.what, OperatorCall):
            assert isinstance(m.what, OperatorCall)
            named = ("op", "extents", "warm", "engine")
            assert [getattr(m.what, n) for n in named] == [getattr(taken.what, n) for n in named]
        else:
            assert m.what == taken.what


def test_watts_and_clock_go_with_the_rows_that_have_them(here: Bench) -> None:
    what = OperatorCall(1, "matmul", "fp16", {"m": 8, "n": 8, "k": 8})
    text = table(here, [Taken(what, 1e-3, Drawn(301.5, 1.2e9)), Taken(what, 1e-3)], "2026-11-28")
    first, second = read_measured(text)
    assert first.power_w == 301.5
    assert second.power_w is None


def test_times_of_a_chip_written_as_measured_give_back_its_constants(here: Bench) -> None:
    """Rows of the very shapes that a session takes, timed by one chip, calibrate another to it."""
    from tenfold.evaluate.predicting import predict

    a100, start = chip("a100-sxm-80"), chip("h100-sxm")
    own = {n: f.value for n, f in a100.figures.items() if not n.startswith("calibration.")}
    start = start.with_figures(own)
    fp16 = [r for r in cases() if r.op == "matmul" and r.dtype == "fp16"]
    text = table(here, [Taken(r, predict(r, a100).time_s.value) for r in fp16], "2026-11-28")
    done = calibrate(start, *split(read_measured(text)))
    (fit,) = done.families
    mean = lambda errors: sum(map(abs, errors)) / len(errors)  # noqa: E731
    assert mean(fit.held_out) < 0.05 < mean(fit.held_out_before)


@pytest.mark.parametrize("what", [m for m in MODELS if m.batch == 1 and m.dtype == "fp32"][:2])
def test_the_networks_do_the_work_of_the_zoo(here: Bench, what: Forward) -> None:
    """Counted by PyTorch's own counter, which counts what windows read beyond the edges too: 3.5 %
    of ResNet-50.
    """
    from torch.utils.flop_counter import FlopCounterMode

    network = module(here.torch, what.model).eval()
    given = inputs(here.torch, what, "cpu", torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(given)
    bound = prepare(load(what.model), Sizes(1, what.seq))
    ours = graph_totals(bound.graph).contraction_flops
    assert 0.99 <= counter.get_total_flops() / ours <= 1.04
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(
        bound.graph.parameters, rel=0.01
    )


def test_a_whole_model_is_timed(here: Bench) -> None:
    what = next(m for m in MODELS if m.model == "resnet50" and m.dtype == "fp32")
    (taken,) = measure_models(here, [what])
    assert isinstance(taken, Taken)
    assert taken.what == what
    assert taken.time_s > 1e-3


def test_models_cover_stacks_and_dtypes() -> None:
    assert Counter(m.stack for m in MODELS) == {Stack.EAGER: 8, Stack.COMPILED: 8}
    assert {m.dtype for m in MODELS} == {"fp16", "fp32"}


def test_what_is_not_measured_is_refused(here: Bench) -> None:
    moe = OperatorCall(1, "moe", "fp16", {})
    with pytest.raises(InputError, match="moe in fp16 is not measured through PyTorch"):
        call_of(here.torch, moe, "cpu")


def test_a_machine_without_a_card_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    command = [sys.executable, "-m", "tenfold", "measure", "cuda", "-o", str(tmp_path / "m.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "finds no GPU here" in done.stderr
    assert not (tmp_path / "m.csv").exists()


def test_what_cannot_be_measured_is_left_out_with_its_reason(here: Bench) -> None:
    wrong = Forward("resnet50", 1, 7, "fp32", Stack.EAGER)  # token numbers are no images
    (left,) = measure_models(here, [wrong])
    assert isinstance(left, LeftOut)
    assert left.why.startswith("resnet50 fp32 eager batch 1: ")
