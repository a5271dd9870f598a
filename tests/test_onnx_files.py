"""ONNX files as people have them: nodes out of order, extents that are expressions, weights behind
links, ops that nobody knows, sizes that an input's content decides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import imported, model_of, runtime
from tenfold.chips import chip
from tenfold.compiler import compile
from tenfold.compiler.passes import run_passes, without_weights
from tenfold.errors import InputError, ModelError
from tenfold.importers import load_onnx
from tenfold.importers.onnx.extents import extent
from tenfold.ir import graph_totals, interpret, verify
from tenfold.ir.dims import text
from tenfold.ir.text import parse_text, to_text
from tenfold.model import Sizes, prepare, roles

F = np.float32


def chain(order: list[int]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="first"),
        helper.make_node("Neg", ["a"], ["b"], name="second"),
        helper.make_node("Add", ["a", "b"], ["y"], name="third"),
    ]
    return model_of([nodes[i] for i in order], {"x": (F, [2, 3])}, ["y"])


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1]])
def test_nodes_out_of_order_are_sorted(order: list[int]) -> None:
    """As ONNX Runtime does, which runs them."""
    model, x = chain(order), np.array([[-1, 2, -3], [4, 5, -6]], F)
    graph = imported(model)
    assert [op.loc for op in graph.ops] == ["first", "second", "third"]
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], runtime(model, {"x": x})[0])


def test_a_circle_is_refused_and_named() -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
    ]
    with pytest.raises(ModelError, match="in a circle: 'one' <- 'two' <- 'one'"):
        imported(model_of(nodes, {"x": (F, [2])}, ["b"]))


def test_a_body_out_of_order_is_refused_for_what_it_is() -> None:
    body = helper.make_graph(
        [helper.make_node("Neg", ["m"], ["o"]), helper.make_node("Relu", ["x"], ["m"])],
        "then",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    model = model_of([node], {"x": (F, [2]), "c": (np.bool_, [])}, ["y"])
    with pytest.raises(ModelError, match=r"reads 'm', which a later node makes: .* not in order"):
        imported(model)


@pytest.mark.parametrize(
    ("given", "comes_to"),
    [
        ("batch", "batch"),
        ("2*batch", "2*batch"),
        ("seq + 1", "seq+1"),
        ("seq // 2", "floor(seq/2)"),
        ("(seq + 1)//2", "floor(seq/2+1/2)"),
        ("batch*seq", "batch*seq"),
        ("past_sequence_length + sequence_length", "past_sequence_length+sequence_length"),
        ("seq - 1", "seq-1"),
        ("floor(seq/2)", "floor(seq/2)"),
        ("Max(1, seq)", "seq"),
        # names with signs in them, of which no part is an extent
        ("image-height", "image_height"),
        ("unk__12", "x_0"),
        ("", "x_0"),
        ("a.b", "a_b"),
        ("2*", "x_0"),
    ],
)
def test_an_extent_is_a_name_or_what_its_expression_comes_to(given: str, comes_to: str) -> None:
    assert text(extent(given, frozenset({"batch", "seq"}), "x", 0)) == comes_to


@pytest.mark.parametrize(
    ("given", "rows"), [("2*batch", 16), ("seq + 1", 17), ("seq // 2", 8), ("batch*seq", 128)]
)
def test_an_expression_follows_the_sizes_of_the_others(given: str, rows: int) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), F), "w")
    nodes = [
        helper.make_node("MatMul", ["c", "w"], ["y"]),
        helper.make_node("Relu", ["x"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            # the expression first: it says nothing of what its parts are
            helper.make_tensor_value_info("c", TensorProto.FLOAT, [given, 4]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "seq"]),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yz"],
        [weight],
    )
    made = imported(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert roles(made) == {"batch": "batch", "seq": "seq"}
    bound = prepare(made, Sizes(8, seq=16))
    assert bound.graph.values["c"].shape == (rows, 4)
    assert bound.sizes == {"batch": 8, "seq": 16}


# --- weights in other files ----------------------------------------------------------------


def pointing(folder: Path, shape: tuple[int, ...] = (4,)) -> Path:
    """A model whose weight is in w.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [tensor],
    )
    path = folder / "m.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_weights_behind_a_link_are_read(kind: str, tmp_path: Path) -> None:
    """As the cache of Hugging Face and deduplicating file systems keep them."""
    blob = tmp_path / "blobs" / "bbbb"
    blob.parent.mkdir()
    blob.write_bytes(np.arange(4, dtype=F).tobytes())
    path = pointing(tmp_path / "snapshots" / "r1")
    make = os.symlink if kind == "symbolic" else os.link
    make(blob, path.parent / "w.bin")
    y = interpret(load_onnx(path), {"x": np.zeros(4, F)})["y"]
    np.testing.assert_array_equal(y, np.arange(4, dtype=F))


def test_the_model_itself_may_be_a_link(tmp_path: Path) -> None:
    path = pointing(tmp_path / "blobs")
    folder = tmp_path / "snapshots"
    folder.mkdir()
    (folder / "m.onnx").symlink_to(path)
    (folder / "w.bin").write_bytes(np.full(4, 7, F).tobytes())
    y = interpret(load_onnx(folder / "m.onnx"), {"x": np.zeros(4, F)})["y"]
    assert y.tolist() == [7, 7, 7, 7]


def test_a_weight_of_which_only_the_shape_matters_is_not_read(tmp_path: Path) -> None:
    """64 GiB that a disk does not have: a hole."""
    side = 1 << 17
    path = pointing(tmp_path, (side, side))
    with (path.parent / "w.bin").open("wb") as hole:
        hole.truncate(4 * side * side)
    graph = load_onnx(path)
    assert graph.parameters == side * side
    program = compile(graph, chip("epyc-9654"), items=1)
    assert program.weight_bytes == 4 * side * side


def test_what_is_no_file_holds_no_weights(tmp_path: Path) -> None:
    path = pointing(tmp_path)
    os.mkfifo(path.parent / "w.bin")
    with pytest.raises(ModelError, match="which is no file"):
        load_onnx(path)


# --- ops that nobody knows -----------------------------------------------------------------


def unknown(domain: str, declared: list[Any] | None, shape: list[Any]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], domain=domain, name="it"),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info("m", TensorProto.FLOAT, declared)] if declared else []
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        value_info=infos,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets)


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "org.example"])
def test_an_unknown_op_is_priced_by_its_bytes_where_its_result_is_declared(domain: str) -> None:
    graph = imported(unknown(domain, [16, 64], [16, 32]))
    assert graph.values["y"].shape == (16, 64)
    program = compile(graph, chip("t4"), items=1)
    assert program.native_fraction < 1
    (first, *_) = program.kernels
    assert first.traffic.off_chip.reads == 16 * 32 * 2
    assert first.traffic.off_chip.outputs == 16 * 64 * 2


def test_a_declared_extent_follows_the_operands() -> None:
    graph = imported(unknown("org.example", ["batch", 64], ["batch", 32]))
    assert prepare(graph, Sizes(8)).graph.values["y"].shape == (8, 64)


@pytest.mark.parametrize("domain", ["com.microsoft", "org.example"])
def test_an_unknown_op_without_a_declared_result_is_refused(domain: str) -> None:
    with pytest.raises(ModelError, match=r"depends on data|neither brings a function"):
        prepare(imported(unknown(domain, None, [16, 32])), Sizes())


# --- sizes that an input's content decides -------------------------------------------------


def ranged() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Range", ["zero", "n", "one"], ["r"]),
        helper.make_node("Cast", ["r"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["c", "axis"], ["u"]),
        helper.make_node("MatMul", ["u", "w"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "axis": np.array([1], np.int64),
        "w": np.ones((1, 64), F),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def resized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["size"], ["s"], to=TensorProto.INT64),
        helper.make_node("Concat", ["lead", "s"], ["to"], axis=0),
        helper.make_node("Resize", ["m", "", "", "to"], ["y"], mode="linear", name="masks"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("m", TensorProto.FLOAT, [1, 4, 8, 8]),
            helper.make_tensor_value_info("size", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 4], np.int64), "lead")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def looped() -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "w"], ["t"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2, 32]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, [2, 32]),
        ],
    )
    node = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 32]),
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((32, 32), F), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_the_content_of_an_input_decides_a_length() -> None:
    graph = imported(ranged())
    bound = prepare(graph, Sizes(named=(("n", 100),)))
    assert bound.graph.values["y"].shape == (100, 64)
    assert graph_totals(bound.graph).flops == 2 * 100 * 64
    with pytest.raises(ModelError, match=r"give one with --size (\w+)=NUMBER, or the content"):
        prepare(graph, Sizes())


def test_a_bound_may_be_given_by_the_name_that_the_message_says() -> None:
    graph = imported(ranged())
    with pytest.raises(ModelError) as caught:
        prepare(graph, Sizes())
    name = str(caught.value).split("--size ")[1].split("=")[0]
    bound = prepare(graph, Sizes(named=((name, 50),)))
    assert bound.graph.values["y"].shape == (50, 64)
    assert bound.graph.bounds[name] == 50


def test_the_content_of_a_vector_decides_an_image() -> None:
    graph = imported(resized())
    bound = prepare(graph, Sizes(values=(("size", (1080.0, 1920.0)),)))
    assert bound.graph.values["y"].shape == (1, 4, 1080, 1920)
    with pytest.raises(InputError, match="takes 2 numbers, got 3"):
        prepare(graph, Sizes(values=(("size", (1.0, 2.0, 3.0)),)))


@pytest.mark.parametrize("named", [("n", 10), ("y.trips", 10)])
def test_the_trips_of_a_loop_may_be_given(named: tuple[str, int]) -> None:
    graph = imported(looped())
    program = compile(prepare(graph, Sizes(named=(named,))).graph, chip("t4"))
    assert program.flops == 10 * 2 * 2 * 32 * 32
    once = compile(prepare(graph, Sizes()).graph, chip("t4"))
    assert once.flops == 2 * 2 * 32 * 32
    assert dict(once.assumed) == {"y.trips": 1}


def test_a_size_that_nothing_has_is_refused() -> None:
    graph = imported(looped())
    with pytest.raises(InputError, match=r"no free dimension 'foo': it has none; and no input"):
        prepare(graph, Sizes(named=(("foo", 3),)))
    with pytest.raises(InputError, match=r"no free dimension 'z.trips', no input .* are: y.trips"):
        prepare(graph, Sizes(named=(("z.trips", 3),)))


@pytest.mark.parametrize("first", ["node", "initialiser", "input"])
def test_a_value_of_two_makers_is_refused(first: str) -> None:
    """As ONNX Runtime does."""
    nodes = [helper.make_node("Neg", ["x"], ["y"], name="two")]
    if first == "node":
        nodes.insert(0, helper.make_node("Relu", ["x"], ["y"], name="one"))
    model = model_of(nodes, {"x": (F, [2]), **({"y": (F, [2])} if first == "input" else {})}, ["y"])
    if first == "initialiser":
        model.graph.initializer.append(numpy_helper.from_array(np.ones(2, F), "y"))
    with pytest.raises(ModelError, match="'y' is made twice, by .* and by node 'two'"):
        imported(model)


@pytest.mark.parametrize("step", [0, -1])
@pytest.mark.parametrize("name", ["strides", "dilations", "kernel_shape"])
@pytest.mark.parametrize("op", ["Conv", "MaxPool", "ConvTranspose", "AveragePool"])
def test_windows_go_forward(op: str, name: str, step: int) -> None:
    inputs = {"x": (F, [1, 4, 8, 8])}
    if "Conv" in op:
        if name == "kernel_shape":
            pytest.skip("the shape of the weights says it")
        inputs["w"] = (F, [4, 4, 3, 3])
        attrs: dict[str, Any] = {}
    else:
        attrs = {"kernel_shape": [3, 3]}
    attrs[name] = [1, step]
    node = helper.make_node(op, list(inputs), ["y"], **attrs)
    with pytest.raises(ModelError, match=f"attribute '{name}' must be 1 or more"):
        imported(model_of([node], inputs, ["y"]))


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1.5, "batch must be a whole number, got 1.5"),
        ("4", "batch must be a whole number, got '4'"),
        (True, "batch must be a whole number, got True"),
        (0, "batch must be at least 1, got 0"),
        (10**23, "batch must be at most 1,000,000,000"),
    ],
)
def test_a_size_is_a_whole_number_that_something_can_have(size: Any, said: str) -> None:
    graph = imported(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (F, ["b", 2])}, ["y"])
    )
    name = graph.symbols[0]
    with pytest.raises(InputError, match=said.replace("batch", name)):
        graph.bind({name: size})


def computed() -> onnx.ModelProto:
    """A causal mask, positions, a scale, a transposed weight and half of a weight: 320 of its
    numbers are stored.
    """
    nodes = [
        helper.make_node("Range", ["zero", "n", "one"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "last"], ["column"]),
        helper.make_node("Less", ["column", "row"], ["later"]),
        helper.make_node("Cast", ["later"], ["later32"], to=TensorProto.FLOAT),
        helper.make_node("ConstantOfShape", ["shape"], ["far"], value=tensor("v", [-1e9])),
        helper.make_node("Mul", ["later32", "far"], ["mask"]),
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("Slice", ["half", "from", "to"], ["h"]),
        helper.make_node("MatMul", ["x", "wt"], ["xw"]),
        helper.make_node("Add", ["xw", "mask"], ["masked"]),
        helper.make_node("MatMul", ["masked", "h"], ["y"]),
    ]
    stored = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "n": np.int64(16),
        "last": np.array([1]),
        "shape": np.array([16, 16]),
        "from": np.array([0]),
        "to": np.array([16]),
        "w": np.ones((16, 4), F),
        "half": np.ones((32, 16), F),
    }
    return model_of(nodes, {"x": (F, [16, 4])}, ["y"], stored)


def tensor(name: str, values: list[float]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, F), name)


def test_what_is_computed_from_sizes_is_no_parameter() -> None:
    """A mask of 256 numbers comes from a range and the one number of a fill; a transposed weight is
    still the weight, and half of one counts as the half that is used.
    """
    graph = imported(computed())
    folded = run_passes(graph)
    assert folded.parameters == 16 * 4 + 16 * 16 + 1
    assert folded.stored["mask"] == 1
    assert run_passes(without_weights(graph, 0)).parameters == folded.parameters
    verify(folded)
    assert to_text(parse_text(to_text(folded))) == to_text(folded)
    assert parse_text(to_text(folded)).parameters == folded.parameters
