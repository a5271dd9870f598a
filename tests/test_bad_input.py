"""Bytes and models that are not what they claim: each is refused by a TenfoldError of one line,
never by a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from support import LIGHT, model_of
from tenfold.errors import LONGEST_MESSAGE, InputError, ModelError, TenfoldError, UnknownName
from tenfold.importers import load_onnx, load_onnx_bytes
from tenfold.ir import bind, graph_totals, verify

node = helper.make_node
F = np.float32
SMALL = LIGHT / "light_squeezenet.onnx"


def priced(data: bytes, sizes: Mapping[str, int] | None = None) -> None:
    """The whole way from bytes to numbers."""
    graph = load_onnx_bytes(data)
    verify(graph)
    graph_totals(
        bind(graph, dict.fromkeys(graph.symbols, 2) if sizes is None else sizes, assume_bounds=True)
    )


def one_line(error: TenfoldError) -> str:
    text = str(error)
    assert text == text.strip()
    assert "\n" not in text
    assert 10 < len(text) <= LONGEST_MESSAGE
    return text


def refused(
    data: bytes | onnx.ModelProto,
    message: str = ".",
    kind: type[TenfoldError] = ModelError,
    sizes: Mapping[str, int] | None = None,
) -> str:
    with pytest.raises(kind, match=message) as caught:
        priced(data if isinstance(data, bytes) else data.SerializeToString(), sizes)
    return one_line(caught.value)


def relu(shape: Sequence[Any] = (2, 3)) -> onnx.ModelProto:
    return model_of([node("Relu", ["x"], ["y"], name="here")], {"x": (F, shape)}, ["y"])


# --- bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0" * 64,
        b"not a model",
        b"PK\x03\x04" + bytes(40),
        b"\x08\x0a",
        b"\x80\x02}q\x00.",
        b"\xff" * 300,
        b'{"graph": {}}',
    ],
)
def test_what_is_no_model(data: bytes) -> None:
    refused(data, "not an ONNX model|holds no graph")


@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    refused(data)


@given(st.floats(0, 1), st.sampled_from(["light_squeezenet", "light_resnet50"]))
def test_truncated_files(keep: float, name: str) -> None:
    """Cut anywhere: refused, or where the cut falls between two fields, a model that still adds
    up.
    """
    whole = (LIGHT / f"{name}.onnx").read_bytes()
    try:
        priced(whole[: int(keep * (len(whole) - 1))])
    except TenfoldError as error:
        one_line(error)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_files_cut_inside_a_field(keep: float) -> None:
    whole = (LIGHT / "light_resnet50.onnx").read_bytes()
    refused(whole[: int(len(whole) * keep)], kind=TenfoldError)


@given(st.data())
def test_flipped_bytes(data: st.DataObject) -> None:
    whole = bytearray(
        model_of(
            [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])],
            {"x": (F, ["n", 3, 8, 8])},
            ["y"],
            {"w": np.ones((2, 3, 3, 3), F)},
        ).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        priced(bytes(whole))
    except TenfoldError as error:
        one_line(error)


@pytest.mark.parametrize("name", ["none.onnx", ".", "folder", "folder/none.onnx", "file/none.onnx"])
def test_what_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot read") as caught:
        load_onnx(tmp_path / name)
    one_line(caught.value)


# --- ops --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Convv", "Conv"),
        ("conv", "Conv"),
        ("MatMull", "MatMul"),
        ("Softmx", "Softmax"),
        ("Reshap", "Reshape"),
        ("ReduceMeen", "ReduceMean"),
    ],
)
def test_an_unknown_op_gets_the_nearest_name(wrong: str, right: str) -> None:
    model = relu()
    model.graph.node[0].op_type = wrong
    assert right in refused(
        model, rf"unknown ONNX op '{wrong}': did you mean .*\(node 'here'\)", UnknownName
    )


@pytest.mark.parametrize("domain", ["my.ops", "Com.Microsoft", "ai.onnx.mll"])
def test_an_unknown_domain_is_named(domain: str) -> None:
    model = relu()
    model.graph.node[0].domain = domain
    refused(
        model,
        f"node 'here': the domain '{domain}' of op 'Relu' is unknown, and the model neither"
        " brings a function for it nor declares the shape of its results",
    )


@pytest.mark.parametrize("version", [0, -1, 29, 10**9])
def test_an_opset_that_does_not_exist(version: int) -> None:
    refused(
        model_of([node("Relu", ["x"], ["y"])], {"x": (F, [1])}, ["y"], opset=version),
        f"opset {version} is outside what is supported",
    )


def test_an_op_of_sequences_is_refused_with_the_reason() -> None:
    refused(
        model_of([node("SequenceEmpty", [], ["y"])], {"x": (F, [1])}, ["y"]),
        "SequenceEmpty' is not supported: sequences",
    )


# --- shapes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "message"),
    [
        ("MatMul", [[2, 3], [4, 5]], {}, "inner extents 3 and 4 differ"),
        ("Add", [[2, 3], [4]], {}, "3 and 4 do not broadcast"),
        ("Gemm", [[2, 3], [3, 4], [5]], {}, "4 and 5|5 and 4|broadcast"),
        ("Concat", [[2, 3], [3, 3]], {"axis": 1}, "."),
        ("Concat", [[2, 3], [2, 3]], {"axis": 2}, "."),
        ("Conv", [[1, 3, 8, 8], [4, 2, 3, 3]], {}, "3 channels, needs 2"),
        ("Conv", [[1, 2, 2, 2], [4, 2, 3, 3]], {}, "no room for the kernel"),
        ("Conv", [[1, 2, 8], [4, 2, 3, 3]], {}, "."),
        ("MaxPool", [[1, 1, 2, 2]], {"kernel_shape": [3, 3]}, "."),
        ("Transpose", [[2, 3]], {"perm": [0, 0]}, "."),
        ("Transpose", [[2, 3]], {"perm": [0]}, "."),
        ("Split", [[2, 3]], {"axis": 7}, "."),
        ("Flatten", [[2, 3]], {"axis": 9}, "."),
        ("LayerNormalization", [[2, 3], [3]], {"axis": 7}, "."),
        ("ReduceMean", [[2, 3]], {"axes": [4]}, "."),
        ("ArgMax", [[2, 3]], {"axis": 4}, "."),
        ("PRelu", [[2, 3], [5]], {}, "broadcast"),
        ("Einsum", [[2, 3]], {"equation": "ijk->ik"}, "."),
        ("Where", [[2], [3], [3]], {}, "."),
    ],
)
def test_contradictory_shapes_name_the_node(
    op: str, shapes: list[list[int]], attrs: dict[str, Any], message: str
) -> None:
    inputs = {
        f"i{k}": (np.bool_ if op == "Where" and k == 0 else F, s) for k, s in enumerate(shapes)
    }
    model = model_of([node(op, list(inputs), ["y"], name="here", **attrs)], inputs, ["y"])
    assert "node 'here'" in refused(model, message)


@pytest.mark.parametrize("target", [[4, 2], [-1, 4], [-1, -1], [0, 0, 2], [-2, 3]])
def test_a_reshape_that_does_not_add_up(target: list[int]) -> None:
    model = model_of(
        [node("Reshape", ["x", "t"], ["y"], name="here")],
        {"x": (F, [2, 3])},
        ["y"],
        {"t": np.array(target)},
    )
    assert "node 'here'" in refused(model)


@pytest.mark.parametrize(("shape", "name"), [(("batch", 3), "batch"), ((0, 3), "x_0")])
def test_batch_zero(shape: tuple[Any, ...], name: str) -> None:
    """Asked for, it is refused; written in the file it means unknown, so that it must be given."""
    refused(relu(shape), f"{name} must be at least 1, got 0", InputError, {name: 0})
    refused(relu(shape), "batch must be at least 1, got 0", InputError, {"batch": 0})
    priced(relu(shape).SerializeToString(), {name: 3})


def test_an_input_that_is_no_tensor() -> None:
    model = relu()
    model.graph.input[0].CopyFrom(
        helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1])
    )
    refused(model, "input 'x' is a sequence_type: only tensors are supported")
    model.graph.input[0].CopyFrom(helper.make_empty_tensor_value_info("x"))
    refused(model, "input 'x'")


# --- weights ----------------------------------------------------------------------------


def weighted(tensor: TensorProto) -> onnx.ModelProto:
    model = model_of([node("Identity", ["w"], ["y"])], {"x": (F, [1])}, ["y"])
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize(
    "kind",
    [
        TensorProto.FLOAT,
        TensorProto.INT64,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.UINT8,
        TensorProto.INT4,
        TensorProto.BOOL,
    ],
)
@pytest.mark.parametrize("size", [0, 1, 5, 20])
def test_a_weight_with_the_wrong_amount_of_raw_data(kind: int, size: int) -> None:
    tensor = TensorProto(name="w", data_type=kind, dims=[4, 25], raw_data=bytes(size * 2 + 1))
    refused(weighted(tensor), r"tensor 'w' of shape \[4, 25\]: its data does not fit its type")


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (TensorProto.FLOAT, "float_data"),
        (TensorProto.INT64, "int64_data"),
        (TensorProto.INT32, "int32_data"),
        (TensorProto.DOUBLE, "double_data"),
    ],
)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_weight_with_the_wrong_amount_of_typed_data(kind: int, field: str, count: int) -> None:
    tensor = TensorProto(name="w", data_type=kind, dims=[2, 2], **{field: [1] * count})
    refused(weighted(tensor), r"tensor 'w' of shape \[2, 2\]: its data does not fit its type")


@pytest.mark.parametrize("dims", [[-1], [2, -3], [2**40, 2**40], [2**62]])
def test_a_weight_of_an_impossible_shape(dims: list[int]) -> None:
    refused(
        weighted(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"")),
        r"tensor 'w'.*shape",
    )


@pytest.mark.parametrize("kind", [0, 99, -1])
def test_a_weight_of_an_unknown_type(kind: int) -> None:
    refused(
        weighted(TensorProto(name="w", data_type=kind, dims=[1], raw_data=b"1234")),
        f"tensor 'w' has the unknown element type {kind}",
    )


# --- wiring -----------------------------------------------------------------------------


def wired(*nodes: onnx.NodeProto, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    return model_of(nodes, {"x": (F, [2])}, outputs)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            wired(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), outputs=["b"]),
            "nodes wait for each other in a circle: 'a' <- 'b' <- 'a'",
        ),
        (wired(node("Relu", ["y"], ["y"])), "in a circle: 'y' <- 'y'"),
        (wired(node("Relu", ["a"], ["y"])), "'a' is used but nothing defines it"),
        (wired(node("Relu", ["x"], ["y"]), outputs=["z"]), "'z' is used but nothing defines it"),
        (wired(node("Add", ["x"], ["y"], name="here")), "'here'"),
        (wired(node("Relu", [], ["y"], name="here")), "'here'"),
        (wired(node("Relu", [""], ["y"], name="here")), "'here'"),
        (wired(node("Conv", ["x", ""], ["y"], name="here")), "'here'"),
        (wired(node("Cast", ["x"], ["y"], name="here")), "'here'.*'to'"),
        (wired(node("Cast", ["x"], ["y"], name="here", to=99)), "'here'"),
        (wired(node("Cast", ["x"], ["y"], name="here", to="x")), "'here'"),
        (wired(node("Concat", ["x", "x"], ["y"], name="here")), "'here'.*'axis'"),
    ],
)
def test_cycles_and_missing_pieces(model: onnx.ModelProto, message: str) -> None:
    refused(model, message)


def _calls(*bodies: tuple[str, list[str]]) -> onnx.ModelProto:
    model = wired(node(bodies[0][0], ["x"], ["y"], domain="mine"))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    for name, ops in bodies:
        links = ["a", *[f"v{i}" for i in range(len(ops) - 1)], "b"]
        steps = [
            node(op, [links[i]], [links[i + 1]], domain="mine" if op[0] == "f" else "")
            for i, op in enumerate(ops)
        ]
        model.functions.append(
            helper.make_function(
                "mine",
                name,
                ["a"],
                ["b"],
                steps,
                [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
            )
        )
    return model


@pytest.mark.parametrize(
    ("bodies", "message"),
    [
        ((("f", ["f"]),), "call each other more than"),
        ((("f", ["f2"]), ("f2", ["Relu", "f"])), "call each other more than"),
        ((*tuple((f"f{i}", [f"f{i + 1}"] * 10) for i in range(9)), ("f9", ["Relu"])), "expand"),
    ],
)
def test_functions_that_never_end(bodies: tuple[tuple[str, list[str]], ...], message: str) -> None:
    refused(_calls(*bodies), message)


def _long(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = "n" * 2000


def _line(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = "two\nlines"


def _bell(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "bell\a"


def _dimension(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n\r\nn"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_long, "2000 characters long"),
        (_line, "cannot be printed on one line"),
        (_bell, "cannot be printed"),
        (_dimension, "cannot be printed"),
    ],
)
def test_names_that_cannot_be_shown(
    damage: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = relu(["n", 3])
    damage(model)
    refused(model, message)


def test_the_good_ones_are_accepted() -> None:
    priced(relu().SerializeToString())
    priced(SMALL.read_bytes())
    priced(_calls(("f", ["f2", "Relu"]), ("f2", ["Neg"])).SerializeToString())
