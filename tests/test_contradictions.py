"""Operands that contradict each other are refused when a model is read, where ONNX Runtime refuses
them too; names are not numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime import InferenceSession

from support import check_against_runtime, imported, model_of, runtime
from tenfold.errors import ModelError
from tenfold.ir.graph import Array

Shape = tuple[int, ...] | None
RNG = np.random.default_rng(3)
LSTM = {"hidden_size": 4}
BOTH = {"hidden_size": 4, "direction": "bidirectional"}
LAST = {"hidden_size": 4, "layout": 1}

# op, shapes that agree, attributes, and shapes of single operands that do not, with what is said of
# them
CASES: list[tuple[str, list[Shape], dict[str, Any], list[tuple[int, tuple[int, ...], str]]]] = [
    ("LayerNormalization", [(2, 3, 4), (4,), (4,)], {}, [(1, (5,),
        "the scale has the shape [5], must spread over [2, 3, 4]"), (2, (3,), "the bias")]),
    ("LayerNormalization", [(2, 3, 4), (3, 4), (1, 4)], {"axis": 1}, [(1, (12,), "the scale"),
        (2, (4, 3), "the bias"), (1, (1, 2, 3, 4), "the scale")]),
    ("RMSNormalization", [(2, 3, 4), (4,)], {}, [(1, (5,), "the scale"), (1, (3, 5),
        "the scale")]),
    ("SimplifiedLayerNormalization", [(2, 3, 4), (4,)], {}, [(1, (5,), "the scale")]),
    ("BatchNormalization", [(2, 3, 4), (3,), (3,), (3,), (3,)], {}, [(1, (2,),
        "the scale has the shape [2], must have [3]"), (2, (2,), "the bias"), (3, (1,), "the mean"),
        (4, (4,), "the variance"), (1, (3, 1), "the scale")]),
    ("InstanceNormalization", [(2, 3, 4), (3,), (3,)], {}, [(1, (2,), "the scale"), (2, (4,),
        "the bias"), (1, (1,), "the scale"), (0, (2, 3), "rank 3 and more")]),
    ("GroupNormalization", [(2, 4, 4), (4,), (4,)], {"num_groups": 2}, [(1, (3,),
        "the scale of 2 groups"), (2, (3,), "the bias"), (0, (2, 5, 4), "the groups must divide")]),
    ("Conv", [(1, 4, 8, 8), (6, 2, 3, 3), (6,)], {"group": 2}, [(2, (5,),
        "the bias has the shape [5], must have [6]"), (2, (1,), "the bias"), (2, (6, 1),
        "the bias"), (1, (5, 2, 3, 3), "conv in 2 groups: they must divide the 5 outputs")]),
    ("ConvTranspose", [(1, 4, 8, 8), (4, 3, 3, 3), (6,)], {"group": 2}, [(2, (3,), "the bias"),
        (1, (3, 3, 3, 3), "4 channels, needs 3"), (1, (4, 3, 3), "ranks must agree")]),
    ("LSTM", [(5, 2, 3), (1, 16, 3), (1, 16, 4), (1, 32), (2,), (1, 2, 4), (1, 2, 4), (1, 12)],
        LSTM, [(1, (1, 17, 3), "the weight W has the shape [1, 17, 3], must have [1, 16, 3]"), (1,
        (1, 16, 2), "the weight W"), (1, (2, 16, 3), "the weight W"), (2, (1, 16, 5),
        "the recurrent weight R"), (3, (1, 16), "the bias B"), (4, (3,), "sequence lengths"), (5,
        (2, 2, 4), "an initial state"), (6, (1, 2, 5), "an initial state"), (7, (1, 16),
        "the peephole weight P")]),
    ("GRU", [(5, 2, 3), (2, 12, 3), (2, 12, 4), (2, 24), (2,), (2, 2, 4)], BOTH, [(1, (1, 12,
        3), "the weight W"), (2, (2, 16, 4), "the recurrent weight R"), (3, (2, 12), "the bias B"),
        (5, (2, 3, 4), "an initial state")]),
    ("RNN", [(5, 2, 3), (1, 4, 3), (1, 4, 4), (1, 8), (2,), (1, 2, 4)], LSTM, [(1, (1, 4, 2),
        "the weight W"), (2, (1, 8, 4), "the recurrent weight R"), (3, (2, 8), "the bias B"), (5,
        (1, 2, 5), "an initial state")]),
]  # fmt: skip
FALSE = [(*case[:3], *wrong) for case in CASES for wrong in case[3]]


def model(op: str, shapes: list[Any], attrs: dict[str, Any]) -> tuple[onnx.ModelProto, list[str]]:
    inputs = {
        f"i{k}": (np.int32 if k == 4 and op in ("LSTM", "GRU", "RNN") else np.float32, s)
        for k, s in enumerate(shapes)
    }
    return model_of(
        [helper.make_node(op, list(inputs), ["y"], name="here", **attrs)], inputs, ["y"], opset=23
    ), list(inputs)


def content(shapes: list[Any], names: list[str], op: str) -> dict[str, Array]:
    positive = [RNG.uniform(0.5, 1.5, s).astype(np.float32) for s in shapes]
    feeds = dict(zip(names, positive, strict=True))
    if op in ("LSTM", "GRU", "RNN"):
        feeds["i4"] = np.full(shapes[4], 3, np.int32)
    return feeds


@pytest.mark.parametrize(
    ("op", "shapes", "attrs"),
    [c[:3] for c in CASES],
    ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)],
)
def test_what_agrees_is_accepted(op: str, shapes: list[Any], attrs: dict[str, Any]) -> None:
    made, names = model(op, shapes, attrs)
    check_against_runtime(made, content(shapes, names, op))


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "at", "wrong", "message"),
    FALSE,
    ids=[f"{f[0]}-{f[3]}-{f[4]}" for f in FALSE],
)
def test_what_contradicts_is_refused(
    op: str, shapes: list[Any], attrs: dict[str, Any], at: int, wrong: tuple[int, ...], message: str
) -> None:
    bad = [*shapes[:at], wrong, *shapes[at + 1 :]]
    made, names = model(op, bad, attrs)
    with pytest.raises(ModelError) as caught:
        imported(made)
    assert "node 'here'" in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(Exception, match=f"{op}|bias|ShapeInference"):
        runtime(made, content(bad, names, op))
    free = [*shapes[:at], tuple(f"d{i}" for i in range(len(wrong))), *shapes[at + 1 :]]
    if len(wrong) == len(shapes[at]):
        imported(model(op, free, attrs)[0])


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("Conv", {"group": 0}),
        ("Conv", {"group": -1}),
        ("ConvTranspose", {"group": 3}),
        ("ConvTranspose", {"group": 0}),
    ],
)
def test_groups_that_do_not_divide(op: str, attrs: dict[str, Any]) -> None:
    shapes = [(1, 4, 8, 8), (4, 4, 3, 3)]
    made, names = model(op, shapes, attrs)
    with pytest.raises(ModelError, match=r"node 'here' .* in -?\d groups: they must divide the 4"):
        imported(made)
    with pytest.raises(Exception, match="group"):
        runtime(made, content(shapes, names, op))


@pytest.mark.parametrize("size", [1, 5])
def test_bias_of_a_quantised_convolution(size: int) -> None:
    def made(count: int) -> onnx.ModelProto:
        one = np.float32(0.1)
        weights = {
            "s": one,
            "z": np.uint8(1),
            "w": np.ones((6, 2, 3, 3), np.uint8),
            "b": np.ones(count, np.int32),
        }
        node = helper.make_node(
            "QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z", "b"], ["y"], name="here"
        )
        return model_of([node], {"x": (np.uint8, (1, 2, 5, 5))}, ["y"], weights)

    x = {"x": np.ones((1, 2, 5, 5), np.uint8)}
    check_against_runtime(made(6), x)
    with pytest.raises(
        ModelError, match=rf"node 'here': QLinearConv of 6 outputs has a bias of shape \[{size}\]"
    ):
        imported(made(size))
    if size == 1:  # ONNX Runtime itself lets five pass for six
        with pytest.raises(Exception, match="bias shape invalid"):
            runtime(made(size), x)


@pytest.mark.parametrize("axis", [-4, -3, 2, 3])
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax", "LpNormalization"])
def test_axes_of_softmax(op: str, opset: int, axis: int) -> None:
    made = model_of(
        [helper.make_node(op, ["x"], ["y"], axis=axis, name="here")],
        {"x": (np.float32, [2, 3, 4])},
        ["y"],
        opset=opset,
    )
    x = {"x": RNG.standard_normal((2, 3, 4)).astype(np.float32)}
    if -3 <= axis < 3:
        check_against_runtime(made, x)
        return
    with pytest.raises(
        ModelError, match=rf"node 'here' .*axis {axis} is outside a tensor of rank 3"
    ):
        imported(made)
    with pytest.raises(Exception, match="(?i)axis"):
        runtime(made, x)


@pytest.mark.parametrize("index", [-4, -3, 0, 2, 3])
@pytest.mark.parametrize("op", ["Gather", "GatherElements", "GatherND"])
def test_indices_that_are_known(op: str, index: int) -> None:
    """Within, negative, and one beyond at either end; where the extent has a name, nothing is
    said.
    """
    places = {
        "Gather": [[0, index]],
        "GatherElements": [[[0], [index]]],
        "GatherND": [[1, 0], [1, index]],
    }[op]
    axis = {} if op == "GatherND" else {"axis": 1}

    def made(extent: Any) -> onnx.ModelProto:
        node = helper.make_node(op, ["x", "i"], ["y"], name="here", **axis)
        return model_of([node], {"x": (np.float32, [2, extent, 4])}, ["y"], {"i": np.array(places)})

    x = {"x": RNG.standard_normal((2, 3, 4)).astype(np.float32)}
    check_against_runtime(made("n"), x) if -3 <= index < 3 else imported(made("n"))
    if -3 <= index < 3:
        check_against_runtime(made(3), x)
        return
    with pytest.raises(
        ModelError, match=rf"node 'here' .*index {index} is outside an axis of extent 3"
    ):
        imported(made(3))
    with pytest.raises(Exception, match="(?i)ind"):
        runtime(made(3), x)


def test_more_indices_than_axes() -> None:
    made = model_of(
        [helper.make_node("GatherND", ["x", "i"], ["y"], name="here")],
        {"x": (np.float32, [3, 3]), "i": (np.int64, [1, 3])},
        ["y"],
    )
    with pytest.raises(
        ModelError, match="node 'here' .*indices of 3 axes after 0 of the batch: the data has 2"
    ):
        imported(made)
    with pytest.raises(Exception, match="GatherND"):
        runtime(made, {"x": np.ones((3, 3), np.float32), "i": np.zeros((1, 3), np.int64)})


@pytest.mark.parametrize(
    ("op", "types", "attrs", "message"),
    [
        ("Relu", [np.str_], {}, "input 0 holds string, and it takes"),
        ("Exp", [np.int64], {}, "input 0 holds int64, and it takes"),
        ("Add", [np.str_, np.str_], {}, "input 0 holds string, and it takes"),
        ("Add", [np.bool_, np.bool_], {}, "input 0 holds bool, and it takes"),
        ("MatMul", [np.float32, np.bool_], {}, "input 1 holds bool, and it takes"),
        ("Softmax", [np.str_], {}, "input 0 holds string, and it takes"),
        ("Gather", [np.float32, np.float32], {}, "input 1 holds float, and it takes int32, int64"),
        ("Where", [np.float32, np.float32, np.float32], {}, "input 0 holds float, and it takes"),
    ],
)
def test_types_that_an_op_does_not_take(
    op: str, types: list[type[Any]], attrs: dict[str, Any], message: str
) -> None:
    """As the standard's own schema says and ONNX Runtime when it loads the file."""
    names = [f"x{i}" for i in range(len(types))]
    model = model_of(
        [helper.make_node(op, names, ["y"], **attrs)],
        {n: (t, [2, 2]) for n, t in zip(names, types, strict=True)},
        ["y"],
    )
    with pytest.raises(Exception, match="Type Error"):
        InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=message):
        imported(model)
