"""Five hundred damaged files with a fixed seed: refused with one line or priced, never a crash.

`make fuzz` runs ten thousand.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, TensorProto, helper, numpy_helper

import fuzz
from tenfold.errors import ModelError
from tenfold.importers.onnx import load_onnx_bytes
from tenfold.ir import bind, graph_totals, verify


def test_five_hundred_mutants() -> None:
    if not fuzz.MODELS.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the real models are not there: run `make models`")
        pytest.skip("real models are not there: run `make models`")
    cases = fuzz.run(1, 500, 2, progress=False)
    assert len(cases) == 500
    failures = [c for c in cases if c.outcome not in ("ok", "refused")]
    assert not failures, failures[:3]
    assert {"ok", "refused"} == {c.outcome for c in cases}


def priced(nodes: list[Any], constants: dict[str, Any], inputs: list[Any]) -> float:
    """Seconds from a file to its price."""
    weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    outputs = [helper.make_empty_tensor_value_info("y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    start = time.perf_counter()
    graph = load_onnx_bytes(model.SerializeToString())
    verify(graph)
    graph_totals(bind(graph, dict.fromkeys(graph.symbols, 8), assume_bounds=True))
    return time.perf_counter() - start


ONES = np.ones((1, 1, 8), np.float32)


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("LRN", {"x": np.ones((1, 2, 3, 4), np.float32)}, {"size": 10**8}),
        ("AveragePool", {"x": ONES}, {"kernel_shape": [3 * 10**8], "pads": [3 * 10**8, 3 * 10**8]}),
        ("ConvTranspose", {"x": ONES, "w": ONES[..., :3]}, {"strides": [10**8]}),
        (
            "RoiAlign",
            {
                "x": np.ones((1, 1, 2, 2), np.float32),
                "r": np.ones((1, 4), np.float32),
                "b": np.zeros(1, np.int64),
            },
            {"sampling_ratio": 10**5},
        ),
        ("MatMul", {"a": np.ones((4096, 1), np.float32), "b": np.ones((1, 4096), np.float32)}, {}),
        ("Range", {"a": np.int64(0), "b": np.int64(2**62), "c": np.int64(1)}, {}),
        ("Size", {"x": np.ones(3, np.float32)}, {}),
    ],
)
def test_small_files_with_large_demands_are_not_folded(
    op: str, constants: dict[str, Any], attributes: dict[str, Any]
) -> None:
    assert priced([helper.make_node(op, list(constants), ["y"], **attributes)], constants, []) < 5


def test_more_elements_than_int64_counts() -> None:
    node = helper.make_node("Size", ["x"], ["y"])
    assert (
        priced([node], {}, [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2**62, 2**62])])
        < 5
    )


def test_deeply_nested_branches_are_priced_once() -> None:
    """Deciding each branch by deciding those in it first took time exponential in the depth."""

    def body(name: str, node: Any) -> GraphProto:
        return helper.make_graph([node], name, [], [helper.make_empty_tensor_value_info(name)])

    inner = body("y0", helper.make_node("Relu", ["x"], ["y0"]))
    for i in range(1, 12):
        other = inner if i < 9 else body("o", helper.make_node("Sigmoid", ["x"], ["o"]))
        inner = body(
            f"y{i}", helper.make_node("If", ["c"], [f"y{i}"], then_branch=inner, else_branch=other)
        )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    assert priced([node], {}, inputs) < 10


def test_functions_that_multiply_are_refused() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("f0", ["x"], ["y"], domain="d")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_empty_tensor_value_info("y")],
        )
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    for i in range(12):
        inner, domain = (f"f{i + 1}", "d") if i < 11 else ("Relu", "")
        nodes = [helper.make_node(inner, [f"v{j}"], [f"v{j + 1}"], domain=domain) for j in range(8)]
        model.functions.append(helper.make_function("d", f"f{i}", ["v0"], ["v8"], nodes, imports))
    with pytest.raises(ModelError, match="functions expand to more than"):
        load_onnx_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            helper.make_node("Concat", ["x"], ["y"], axis=1.5),
            "attribute 'axis' is FLOAT, must be INT",
        ),
        (helper.make_node("Concat", ["x"], ["y"]), "lacks the attribute 'axis'"),
        (helper.make_node("Relu", ["x", "x"], ["y"]), "has 2 inputs, takes 1"),
        (helper.make_node("Relu", ["x"], ["y"], name="a\nb"), "cannot be printed on one line"),
        (
            helper.make_node("Relu", ["x"], ["y"], name="n" * 3000),
            "is 3000 characters long: at most 1000 are allowed",
        ),
    ],
)
def test_nodes_that_break_the_standard(node: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        priced([node], {}, [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])])
