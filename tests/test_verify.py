"""The verifier: sound graphs pass, each kind of corruption is rejected with a message that names
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support import imported, model_of, model_path, ops_of
from tenfold.errors import ModelError
from tenfold.importers import load_onnx
from tenfold.ir import DType, Graph, Op, Value, bind, interpret, verify
from tenfold.ir.dims import symbol


@cache
def sound() -> Graph:
    """x -> matmul -> softmax, then an if whose branches read both."""
    bodies = [
        helper.make_graph(
            [helper.make_node(op, ["s"], [out])], op, [], [helper.make_empty_tensor_value_info(out)]
        )
        for op, out in (("Tanh", "t"), ("Abs", "a"))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["s"], axis=-1),
        helper.make_node(
            "If", ["flag"], ["y"], name="pick", then_branch=bodies[0], else_branch=bodies[1]
        ),
    ]
    inputs = {"x": (np.float32, ["batch", 4]), "flag": (np.bool_, [1])}
    return imported(model_of(nodes, inputs, ["y"], {"w": np.ones((4, 5), np.float32)}))


def op(i: int, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, ops=(*g.ops[:i], replace(g.ops[i], **changes), *g.ops[i + 1 :]))


def first(extra: Op) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, ops=(extra, *g.ops))


def last(extra: Op) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, ops=(*g.ops, extra))


def typed(name: str, /, **changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, values={**g.values, name: replace(g.values[name], **changes)})


def untyped(name: str) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, values={n: v for n, v in g.values.items() if n != name})


HALF = {
    "s": Value("s", DType.F32, (symbol("batch"), 5)),
    "a": Value("a", DType.F16, (symbol("batch"), 5)),
}


def weight(data: Any) -> Callable[[Graph], Graph]:
    return lambda g: replace(g, constants={**g.constants, "w": data})


def branch(**changes: Any) -> Callable[[Graph], Graph]:
    return lambda g: op(2, bodies=(g.ops[2].bodies[0], replace(g.ops[2].bodies[1], **changes)))(g)


CORRUPTIONS: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "input named twice": (lambda g: replace(g, inputs=("x", "x", "flag")),
        "graph 'g': an input is named twice: 'x'"),
    "output named twice": (lambda g: replace(g, outputs=("y", "y")),
        "graph 'g': an output is named twice: 'y'"),
    "input that is a constant": (lambda g: replace(g, constants={**g.constants, "x": None}),
        "graph 'g': 'x' is an input and a constant"),
    "input without type": (untyped("x"), "graph 'g': 'x' has no type"),
    "result without type": (untyped("s"), "graph 'g': 's' has no type"),
    "output without type": (untyped("y"), "graph 'g': 'y' has no type"),
    "type of nothing": (lambda g: replace(g, values={**g.values, "spare": Value("spare",
        DType.F32, (1,))}), "graph 'g': 'spare' has a type, but nothing defines it"),
    "type of another": (typed("s", name="m"), "graph 'g': the type of 's' is that of 'm'"),
    "negative extent": (typed("s", shape=(symbol("batch"), -5)),
        r"'s' is declared fp32\[batch, -5\]: an extent is a whole number from 0"),
    "extent that is no number": (typed("s", shape=(symbol("batch"), 5.0)),
        r"'s' is declared fp32\[batch, 5.0\]: an extent is"),
    "op without outputs": (last(Op("relu", ("m",), ("",))),
        "an op of kind 'relu' has no outputs"),
    "body where there is none": (lambda g: op(1, bodies=g.ops[2].bodies[:1])(g),
        "node 's': softmax takes 0 bodies, got 1"),
    "branch with too few operands": (op(2, inputs=("flag",)),
        r"node 'pick' \(if of bool\[1\]\): the body '\w+' takes 1 operands, got 0"),
    "branch of another type": (branch(ops=(Op("cast", ("s",), ("a",), {"to": "fp16"}),),
        values=HALF), r"node 'pick' \(if of .*\): its branches give fp32 and fp16"),
    "branch with a result more": (branch(outputs=("a", "s")), r"node 'pick' \(if"),
    "branch value without type": (branch(values={}), "graph 'Abs': .* has no type"),
    "output more than the op gives": (op(2, outputs=("y", "z")), "graph 'g': 'z' has no type"),
    "constant without type": (untyped("w"), "graph 'g': 'w' has no type"),
    "weight of another shape": (weight(np.ones((5, 4), np.float32)),
        r"constant 'w' is declared fp32\[4, 5\], its data is float32\[5, 4\]"),
    "weight of another rank": (weight(np.ones(20, np.float32)), r"its data is float32\[20\]"),
    "weight of another type": (weight(np.ones((4, 5))),
        r"constant 'w' is declared fp32\[4, 5\], its data is float64\[4, 5\]"),
    "unknown kind": (op(1, kind="sofmax"), "op kind 'sofmax' at 's' is not in the op table"),
    "unknown kind in a branch": (branch(ops=(Op("sofmax", ("s",), ("a",)),)),
        "op kind 'sofmax'"),
    "unknown attribute": (op(1, attrs={"axes": 1}),
        r"node 's': softmax has no attribute 'axes' \(it has axis"),
    "attribute of the wrong type": (op(1, attrs={"axis": 1.5}),
        "node 's': softmax: attribute 'axis' must be int, got 1.5"),
    "attribute where there is none": (op(0, attrs={"axis": 1}),
        "node 'm': matmul has no attribute 'axis'"),
    "too many operands": (op(1, inputs=("m", "m")),
        "node 's': softmax takes 1 to 1 inputs, got 2"),
    "too few operands": (op(0, inputs=("x",)), "node 'm': matmul takes 2 to"),
    "operand left out": (op(1, inputs=("",)), "softmax needs input 0"),
    "operand nobody defines": (op(0, inputs=("x", "v")),
        r"node 'm' \(matmul\) reads 'v', which nothing before it defines"),
    "cycle": (first(Op("add", ("y", "x"), ("z",))),
        r"node 'z' \(add\) reads 'y', which nothing before it defines"),
    "op that feeds itself": (first(Op("relu", ("z",), ("z",))), r"node 'z' \(relu\) reads 'z'"),
    "wrong order": (lambda g: replace(g, ops=g.ops[::-1]), r"node 'pick' \(if\) reads 's'"),
    "value defined twice": (last(Op("relu", ("m",), ("s",))),
        r"node 's' \(relu\) defines 's' a second time"),
    "two outputs of one name": (op(0, outputs=("m", "m")),
        r"node 'm' \(matmul\) defines 'm' a second time"),
    "input defined by an op": (last(Op("relu", ("m",), ("x",))),
        r"node 'x' \(relu\) defines 'x' a second time"),
    "weight defined by an op": (last(Op("relu", ("m",), ("w",))),
        r"node 'w' \(relu\) defines 'w' a second time"),
    "output nobody defines": (lambda g: replace(g, outputs=("y", "z")),
        "graph 'g': output 'z' is never defined"),
    "branch output nobody defines": (branch(outputs=("z",)),
        "graph 'Abs': output 'z' is never defined"),
    "branch reads from outside": (branch(ops=(Op("abs", ("x",), ("a",)),)),
        r"node 'a' \(abs\) reads 'x'"),
    "branch missing": (lambda g: op(2, bodies=g.ops[2].bodies[:1])(g),
        "node 'pick': if takes 2 bodies, got 1"),
    "operands contradict": (typed("x", shape=(symbol("batch"), 3)),
        r"node 'm' \(matmul of fp32\[batch, 3\], fp32\[4, 5\]\): .*inner extents 3 and 4 differ"),
    "declared type": (typed("s", dtype=DType.F16),
        r"'s' is declared fp16\[batch, 5\] but inference gives fp32\[batch, 5\]"),
    "declared extent": (typed("s", shape=(symbol("batch"), 6)),
        r"'s' is declared fp32\[batch, 6\] but inference gives fp32\[batch, 5\]"),
    "declared rank": (typed("m", shape=(5,)),
        r"'m' is declared fp32\[5\] but inference gives fp32\[batch, 5\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_is_rejected(name: str) -> None:
    damage, message = CORRUPTIONS[name]
    verify(sound())
    with pytest.raises(ModelError, match=message) as caught:
        verify(damage(sound()))
    assert "\n" not in str(caught.value)


def test_a_graph_without_any_one_of_its_types_is_rejected() -> None:
    for name in sound().values:
        with pytest.raises(ModelError, match=f"'{name}' has no type"):
            verify(untyped(name)(sound()))


def test_more_results_than_an_op_gives() -> None:
    """How many an op can give is seen when it runs."""
    graph = replace(
        op(0, outputs=("m", "m2"))(sound()),
        values={**sound().values, "m2": Value("m2", DType.F32, None)},
    )
    verify(graph)
    with pytest.raises(ModelError, match=r"node 'm' \(matmul\) gives 1 results, 2 are named"):
        interpret(graph, {"x": np.ones((1, 4), np.float32), "flag": np.array([True])})


def test_weights_without_data_and_unknown_shapes_are_sound() -> None:
    verify(weight(None)(sound()))
    verify(typed("m", shape=None)(sound()))


@pytest.mark.parametrize("name", ["light/light_squeezenet.onnx", "silero_vad/silero_vad.onnx"])
def test_every_single_swap_of_a_weights_type_is_found(name: str) -> None:
    """Real graphs, imported and bound, are sound; with any of their first weights retyped they are
    not.
    """
    graph = load_onnx(model_path(name))
    verify(graph)
    verify(bind(graph, dict.fromkeys(graph.symbols, 1)) if "silero" not in name else graph)
    weights = [n for n, d in graph.constants.items() if d is not None and d.dtype == np.float32][
        :12
    ]
    for name_ in weights:
        data = graph.constants[name_]
        assert data is not None
        with pytest.raises(ModelError, match="its data is float16"):
            verify(replace(graph, constants={**graph.constants, name_: data.astype(np.float16)}))


def test_every_op_of_a_real_graph_is_needed() -> None:
    graph = load_onnx(model_path("light/light_squeezenet.onnx"))
    for i in range(0, len(graph.ops), 5):
        with pytest.raises(ModelError, match=r"which nothing before it defines|is never defined"):
            verify(replace(graph, ops=graph.ops[:i] + graph.ops[i + 1 :]))
    assert ops_of(graph, "conv")
