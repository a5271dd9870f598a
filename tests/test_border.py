"""Units, estimates, and files that are not what they claim: everything refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import imported, model_of, model_path
from tenfold import units
from tenfold.errors import InputError, ModelError, TenfoldError, UnitError, UnknownName
from tenfold.estimate import Estimate
from tenfold.importers import load_onnx, load_onnx_bytes
from tenfold.ir import bind


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("10ms", "time_s", 0.01), ("2 h", "time_s", 7200), ("28 MiB", "bytes", 28 * 2**20), ("16 GB", "bytes", 16e9), ("1.2 kW", "power_w", 1200),
        ("400 W", "power_w", 400), ("0.429 kg/kWh", "kgco2e_per_j", 0.429 / 3.6e6), ("412.72 gCO2e/kWh", "kgco2e_per_j", 0.41272 / 3.6e6),
        ("614 GB/s", "bytes_per_s", 614e9), ("400 Gbit/s", "bytes_per_s", 50e9), ("92 TOPS", "flops_per_s", 92e12), ("1050 MHz", "frequency_hz", 1.05e9),
        ("7 nm", "length_m", 7e-9), ("3.22 USD/chip-hour", "usd_per_s", 3.22 / 3600), ("20 %", "fraction", 0.2), ("0.2", "fraction", 0.2),
        ("1e3 GB", "bytes", 1e12), ("545 mm2", "area_m2", 545e-6),
    ],
)  # fmt: skip
def test_units(text: str, dimension: str, value: float) -> None:
    assert units.parse(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        ("10", "time_s", "has no unit"),
        ("10 GB", "power_w", "unknown unit 'GB'"),
        ("ten W", "power_w", "is not a number with a unit"),
        ("", "bytes", "is not a number"),
    ],
)
def test_bad_units_say_what_is_allowed(text: str, dimension: str, message: str) -> None:
    with pytest.raises(UnitError, match=message) as caught:
        units.parse(text, dimension)
    assert "W" in str(caught.value) or "B" in str(caught.value) or "s" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0123, "12.3 ms"),
        (1.0, "1.00 s"),
        (999.9e-6, "1.00 ms"),
        (0.0, "0 s"),
        (4.56e-10, "456 ps"),
        (7200, "7.20 ks"),
        (99.96, "100 s"),
        (9.996, "10.0 s"),
        (float("inf"), "inf s"),
    ],
)
def test_show(value: float, shown: str) -> None:
    assert units.show(value, "s") == shown


def test_estimates_carry_their_interval() -> None:
    a, b = Estimate.within(10, 0.25), Estimate(2, 1, 4)
    assert (a.low, a.high) == (8, 12.5)
    assert a + b == Estimate(12, 9, 16.5)
    assert a * b == Estimate(20, 8, 50)
    assert b * 3 == Estimate(6, 3, 12)
    assert b / 2 == Estimate(1, 0.5, 2)
    assert Estimate.total([a, b, Estimate.exact(1)]) == Estimate(13, 10, 17.5)
    with pytest.raises(ValueError, match="low <= value <= high"):
        Estimate(1, 2, 3)


RESNET = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"


def refused(data: bytes) -> str:
    with pytest.raises(TenfoldError) as caught:
        bind(load_onnx_bytes(data), {}, assume_bounds=True)
    message = str(caught.value)
    assert "\n" not in message
    assert 10 < len(message) <= 600
    return message


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(keep: float) -> None:
    data = RESNET.read_bytes()
    assert refused(data[: int(len(data) * keep)])


def test_random_and_empty_bytes() -> None:
    for seed in range(20):
        refused(np.random.default_rng(seed).bytes(200))
    assert "no graph" in refused(b"")


def test_unknown_op_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="unknown ONNX op 'Convv': did you mean Conv"):
        imported(model_of([helper.make_node("Convv", ["x"], ["y"], name="here")], {"x": (np.float32, [1])}, ["y"]))
    with pytest.raises(ModelError, match="domain 'my.ops' of op 'Secret' is unknown"):
        imported(model_of([helper.make_node("Secret", ["x"], ["y"], domain="my.ops")], {"x": (np.float32, [1])}, ["y"]))
    with pytest.raises(ModelError, match="SequenceEmpty' is not supported: sequences"):
        imported(model_of([helper.make_node("SequenceEmpty", [], ["y"])], {"x": (np.float32, [1])}, ["y"]))


@pytest.mark.parametrize(
    ("nodes", "shapes", "message"),
    [
        ([("MatMul", ["x", "w"])], {"x": [2, 3], "w": [4, 5]}, "inner extents 3 and 4 differ"),
        ([("Add", ["x", "w"])], {"x": [2, 3], "w": [4]}, "3 and 4 do not broadcast"),
        ([("Conv", ["x", "w"])], {"x": [1, 3, 8, 8], "w": [4, 2, 3, 3]}, "3 channels, needs 2"),
        ([("Conv", ["x", "w"])], {"x": [1, 2, 2, 2], "w": [4, 2, 3, 3]}, "no room for the kernel"),
        ([("Add", ["x", "nothing"])], {"x": [1]}, "'nothing' is used but nothing defines it"),
    ],
)
def test_contradictions_name_the_node(nodes: list[tuple[str, list[str]]], shapes: dict[str, list[int]], message: str) -> None:
    made = [helper.make_node(op, inputs, ["y"], name="the_node") for op, inputs in nodes]
    with pytest.raises(ModelError, match=message) as caught:
        imported(model_of(made, {n: (np.float32, s) for n, s in shapes.items()}, ["y"]))
    assert "nothing" in message or "the_node" in str(caught.value)


def test_data_that_does_not_fit_its_shape() -> None:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (np.float32, [4])}, ["y"], {"w": np.ones(4, np.float32)})
    model.graph.initializer[0].dims[0] = 5
    assert "'w' of shape [5]: its data does not fit" in refused(model.SerializeToString())


def test_batch_zero() -> None:
    graph = imported(model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (np.float32, ["batch", 4])}, ["y"]))
    with pytest.raises(InputError, match="batch must be at least 1, got 0"):
        bind(graph, {"batch": 0})
    with pytest.raises(InputError, match="no free dimension 'seq': it has batch"):
        bind(graph, {"batch": 1, "seq": 3})


def external(folder: Path, location: str) -> Path:
    tensor = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (np.float32, [4])}, ["y"])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    raw = tensor.raw_data
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    (folder / "weights.bin").write_bytes(raw)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    graph = load_onnx(external(tmp_path, "weights.bin"))
    weight = graph.constants["w"]
    assert weight is not None
    np.testing.assert_array_equal(weight, [0, 1, 2, 3])


@pytest.mark.parametrize("location", ["missing.bin", "../weights.bin", "/etc/hostname", ""])
def test_external_data_that_is_not_there_or_outside(location: str, tmp_path: Path) -> None:
    path = external(tmp_path, location)
    with pytest.raises(ModelError, match="external data cannot be loaded") as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="stored outside the file"):
        load_onnx_bytes(path.read_bytes())


def test_a_folder_or_nothing_is_no_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(InputError, match="cannot read"):
            load_onnx(path)


def test_fixed_batch_is_said_to_be_fixed() -> None:
    graph = load_onnx(model_path("silero_vad/silero_vad_openvino_16k.onnx"))
    with pytest.raises(InputError, match="the model's batch is fixed"):
        bind(graph, {"batch": 4})
