"""If, Loop and Scan against ONNX Runtime: captures, nesting, scan outputs, trip counts, branches
decided at bind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

from support import check_against_runtime, imported, model_of, ops_of
from tenfold.chips import chip
from tenfold.compiler import compile as compile_for
from tenfold.compiler.passes import run_passes
from tenfold.errors import InputError, ModelError
from tenfold.ir import bind, graph_totals, interpret, verify

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def body(
    nodes: list[Any],
    inputs: list[tuple[str, int, list[int] | None]],
    outputs: list[tuple[str, int]],
    **constants: Any,
) -> GraphProto:
    return helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )


def test_if_on_data_with_captures() -> None:
    then = body([helper.make_node("Add", ["x", "y"], ["t"])], [], [("t", F)])
    other = body([helper.make_node("Mul", ["x", "k"], ["e"])], [], [("e", F)], k=np.float32(3))
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other),
    ]
    model = model_of(
        nodes,
        {"x": (np.float32, [2, 3]), "y": (np.float32, [2, 3])},
        ["z"],
        {"zero": np.float32(0)},
    )
    x, y = np.ones((2, 3), np.float32), np.full((2, 3), 5, np.float32)
    for sign in (1, -1):
        graph = check_against_runtime(model, {"x": sign * x, "y": y})
    assert len(ops_of(graph, "if")) == 1
    priced = bind(graph, {}, assume_bounds=True)
    assert not ops_of(priced, "if")
    assert any(n.endswith(".branch") for n in priced.bounds)


def test_if_on_a_shape_is_decided_at_bind() -> None:
    then = body([helper.make_node("Identity", ["x"], ["t"])], [], [("t", F)])
    other = body(
        [helper.make_node("Relu", ["x"], ["e0"]), helper.make_node("Neg", ["e0"], ["e"])],
        [],
        [("e", F)],
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "one"], ["n"]),
        helper.make_node("Equal", ["n", "four"], ["c"]),
        helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other),
    ]
    model = model_of(
        nodes, {"x": (np.float32, ["a", "b"])}, ["z"], {"one": np.int64(1), "four": np.int64(4)}
    )
    for width in (4, 6):
        graph = check_against_runtime(
            model, {"x": np.arange(-3.0, 2 * width - 3, dtype=np.float32).reshape(2, width)}
        )
        bound = bind(graph, {"a": 2, "b": width})
        assert not ops_of(bound, "if")
        assert bool(ops_of(bound, "neg")) == (width == 6)


def loop_body() -> GraphProto:
    nodes = [
        helper.make_node("Add", ["s", "w"], ["s1"]),
        helper.make_node("Mul", ["s1", "s1"], ["sq"]),
        helper.make_node("Identity", ["c"], ["c1"]),
    ]
    return body(
        nodes, [("i", I64, []), ("c", B, []), ("s", F, [3])], [("c1", B), ("s1", F), ("sq", F)]
    )


def test_loop_by_count_with_scan_output_and_capture() -> None:
    node = helper.make_node("Loop", ["m", "", "x"], ["y", "all"], body=loop_body())
    model = model_of(
        [node], {"x": (np.float32, [3]), "w": (np.float32, [3])}, ["y", "all"], {"m": np.int64(5)}
    )
    graph = check_against_runtime(
        model, {"x": np.arange(3, dtype=np.float32), "w": np.ones(3, np.float32)}
    )
    assert graph.values["all"].shape == (5, 3)
    assert graph_totals(bind(graph, {})).vector_flops == 5 * (3 + 3)


def test_loop_ended_by_its_condition() -> None:
    nodes = [
        helper.make_node("Add", ["s", "s"], ["s1"]),
        helper.make_node("ReduceMax", ["s1"], ["top"], keepdims=0),
        helper.make_node("Less", ["top", "limit"], ["c1"]),
    ]
    inner = body(nodes, [("i", I64, []), ("c", B, []), ("s", F, [2])], [("c1", B), ("s1", F)])
    node = helper.make_node("Loop", ["", "go", "x"], ["y"], body=inner)
    model = model_of(
        [node], {"x": (np.float32, [2])}, ["y"], {"go": np.asarray(True), "limit": np.float32(100)}
    )
    check_against_runtime(model, {"x": np.array([1, 3], np.float32)})


def test_if_inside_a_loop_captures_from_two_levels() -> None:
    then = body([helper.make_node("Add", ["s", "w"], ["t"])], [], [("t", F)])
    other = body([helper.make_node("Sub", ["s", "i_float"], ["e"])], [], [("e", F)])
    nodes = [
        helper.make_node("Cast", ["i"], ["i_float"], to=F),
        helper.make_node("Less", ["i", "two"], ["small"]),
        helper.make_node("If", ["small"], ["s1"], then_branch=then, else_branch=other),
        helper.make_node("Identity", ["c"], ["c1"]),
    ]
    inner = body(nodes, [("i", I64, []), ("c", B, []), ("s", F, [2])], [("c1", B), ("s1", F)])
    node = helper.make_node("Loop", ["m", "", "x"], ["y"], body=inner)
    model = model_of(
        [node],
        {"x": (np.float32, [2]), "w": (np.float32, [2])},
        ["y"],
        {"m": np.int64(4), "two": np.int64(2)},
    )
    check_against_runtime(
        model, {"x": np.zeros(2, np.float32), "w": np.array([10, 20], np.float32)}
    )


def test_loop_whose_state_grows() -> None:
    nodes = [
        helper.make_node("Concat", ["s", "one"], ["s1"], axis=0),
        helper.make_node("Identity", ["c"], ["c1"]),
    ]
    inner = body(
        nodes,
        [("i", I64, []), ("c", B, []), ("s", F, None)],
        [("c1", B), ("s1", F)],
        one=np.ones(1, np.float32),
    )
    node = helper.make_node("Loop", ["m", "", "x"], ["y"], body=inner)
    model = model_of([node], {"x": (np.float32, [2])}, ["y"], {"m": np.int64(3)})
    check_against_runtime(model, {"x": np.zeros(2, np.float32)})


def scan(**attrs: Any) -> Any:
    nodes = [
        helper.make_node("Add", ["h", "xt"], ["h1"]),
        helper.make_node("Mul", ["h1", "k"], ["yt"]),
    ]
    inner = body(nodes, [("h", F, [3]), ("xt", F, [3])], [("h1", F), ("yt", F)])
    return helper.make_node(
        "Scan", ["h0", "x"], ["h_end", "y"], body=inner, num_scan_inputs=1, **attrs
    )


def test_scan_forward_reversed_and_along_another_axis() -> None:
    feeds = {"h0": np.ones(3, np.float32), "k": np.full(3, 2, np.float32)}
    for attrs, shape in (
        ({}, (5, 3)),
        ({"scan_input_directions": [1], "scan_output_directions": [1]}, (5, 3)),
        ({"scan_input_axes": [1], "scan_output_axes": [1]}, (3, 5)),
    ):
        inputs = {"h0": (np.float32, [3]), "x": (np.float32, list(shape)), "k": (np.float32, [3])}
        model = model_of([scan(**attrs)], inputs, ["h_end", "y"])
        x = np.arange(15, dtype=np.float32).reshape(shape)
        graph = check_against_runtime(model, {**feeds, "x": x})
        assert graph.values["y"].shape == shape
        assert graph_totals(bind(graph, {})).vector_flops == 5 * 6


def test_scan_over_a_free_length() -> None:
    inputs = {"h0": (np.float32, [3]), "x": (np.float32, ["time", 3]), "k": (np.float32, [3])}
    graph = imported(model_of([scan()], inputs, ["h_end", "y"]))
    bound = bind(graph, {"time": 7})
    assert bound.values["y"].shape == (7, 3)
    assert graph_totals(bound).vector_flops == 7 * 6


def test_loop_of_no_trips_gives_nothing_of_the_right_type() -> None:
    node = helper.make_node("Loop", ["m", "", "x"], ["y", "all"], body=loop_body())
    model = model_of(
        [node], {"x": (np.float32, [3]), "w": (np.float32, [3]), "m": (np.int64, [])}, ["y", "all"]
    )
    check_against_runtime(
        model, {"x": np.ones(3, np.float32), "w": np.ones(3, np.float32), "m": np.asarray(0)}
    )


def test_scan_of_nothing_is_refused() -> None:
    inputs = {"h0": (np.float32, [3]), "x": (np.float32, ["time", 3]), "k": (np.float32, [3])}
    graph = imported(model_of([scan()], inputs, ["h_end", "y"]))
    with pytest.raises(ModelError, match="length 0"):
        interpret(
            graph,
            {
                "h0": np.ones(3, np.float32),
                "x": np.ones((0, 3), np.float32),
                "k": np.ones(3, np.float32),
            },
        )


def test_inputs_of_the_wrong_type_or_shape_are_refused() -> None:
    graph = imported(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (np.float32, [2, "n"])}, ["y"])
    )
    for wrong in (
        np.ones((2, 3)),
        np.ones((2, 3), np.int64),
        np.ones((3, 3), np.float32),
        np.ones(2, np.float32),
    ):
        with pytest.raises(InputError, match="input 'x' must be fp32"):
            interpret(graph, {"x": wrong})


@pytest.mark.parametrize("trips", [0, 1, 5])
def test_known_trips_are_counted(trips: int) -> None:
    """A loop that is known to run so often costs its body so many times, and nothing is assumed."""
    product = [
        helper.make_node("MatMul", ["h", "w"], ["y"]),
        helper.make_node("Identity", ["c"], ["go"]),
    ]
    inner = body(product, [("i", I64, []), ("c", B, []), ("h", F, [8, 8])], [("go", B), ("y", F)])
    node = helper.make_node("Loop", ["n", "t", "x"], ["z"], body=inner)
    constants = {"n": np.int64(trips), "t": np.bool_(True), "w": np.ones((8, 8), np.float32)}
    graph = imported(model_of([node], {"x": (np.float32, [8, 8])}, ["z"], constants))
    program = compile_for(graph, chip("tpu-v4"))
    assert sum(k.repeat for k in program.kernels if k.products) == trips
    assert program.assumed == ()


def test_a_model_may_hand_back_its_inputs_and_constants() -> None:
    """Under their own names, before and after the passes."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    graph = imported(
        model_of(nodes, {"x": (np.float32, [4])}, ["y", "x", "k"], {"k": np.ones(1, np.float32)})
    )
    feeds = {"x": np.arange(4, dtype=np.float32) - 2}
    for g in (graph, run_passes(graph)):
        verify(g)
        assert g.outputs == ("y", "x", "k")
        results = interpret(g, feeds)
        np.testing.assert_array_equal(results["x"], feeds["x"])
        np.testing.assert_array_equal(results["k"], [1.0])
