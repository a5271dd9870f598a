"""Graphs: dimensions, binding, verifier, text form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from support import imported, model_of, ops_of
from tenfold.errors import ModelError
from tenfold.ir import DType, Graph, Op, Value, bind, interpret, parse_text, to_text, verify
from tenfold.ir import dims as d

NAMES = ("n", "seq", "h")
values = st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(1, 40)))
leaves = st.one_of(st.integers(1, 12), st.sampled_from(NAMES).map(d.symbol))


def _grow(inner: st.SearchStrategy[d.Dim]) -> st.SearchStrategy[d.Dim]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: d.add(*p)),
        pairs.map(lambda p: d.mul(*p)),
        pairs.map(lambda p: d.maximum(*p)),
        pairs.map(lambda p: d.minimum(*p)),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: d.floordiv(*p)),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: d.ceildiv(*p)),
    )


expressions = st.recursive(leaves, _grow, max_leaves=5)
BINARY: dict[str, tuple[Callable[[d.Dim, d.Dim], d.Dim], Callable[[int, int], int]]] = {
    "add": (d.add, lambda a, b: a + b),
    "sub": (d.sub, lambda a, b: a - b),
    "mul": (d.mul, lambda a, b: a * b),
    "maximum": (d.maximum, max),
    "minimum": (d.minimum, min),
}


@given(expressions, expressions, values, st.sampled_from(sorted(BINARY)))
def test_symbolic_arithmetic_is_that_of_numbers(a: d.Dim, b: d.Dim, at: dict[str, int], name: str) -> None:
    symbolic, plain = BINARY[name]
    x, y = d.substitute(a, at), d.substitute(b, at)
    assert isinstance(x, int)
    assert isinstance(y, int)
    assert d.substitute(symbolic(a, b), at) == plain(x, y)


@given(expressions, values, st.integers(1, 9))
def test_symbolic_division(a: d.Dim, at: dict[str, int], by: int) -> None:
    x = d.substitute(a, at)
    assert isinstance(x, int)
    assert d.substitute(d.floordiv(a, by), at) == x // by
    assert d.substitute(d.ceildiv(a, by), at) == -(-x // by)


@given(expressions)
def test_a_dimension_prints_and_parses_back(a: d.Dim) -> None:
    assert d.parse(d.text(a)) == a


def test_broadcast() -> None:
    n = d.symbol("n")
    assert d.broadcast([(n, 1, 4), (3, 1)]) == (n, 3, 4)
    assert d.broadcast([(n,), (7,)]) == (7,)
    with pytest.raises(ValueError, match="3 and 4 do not broadcast"):
        d.broadcast([(3,), (4,)])


def shaped() -> Graph:
    """x [batch, seq, 6] reshaped through shape arithmetic to [batch, seq * 2, 3]."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["b"]),
        helper.make_node("Gather", ["s", "one"], ["l"]),
        helper.make_node("Mul", ["l", "two"], ["l2"]),
        helper.make_node("Unsqueeze", ["b", "axis"], ["b1"]),
        helper.make_node("Unsqueeze", ["l2", "axis"], ["l1"]),
        helper.make_node("Concat", ["b1", "l1", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Relu", ["r"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "axis": np.array([0]), "minus": np.array([-1])}
    return imported(model_of(nodes, {"x": (np.float32, ["batch", "seq", 6])}, ["y"], constants))


def test_shape_arithmetic_is_resolved_and_folded_away() -> None:
    graph = shaped()
    batch, seq = d.symbol("batch"), d.symbol("seq")
    assert graph.symbols == ("batch", "seq")
    assert graph.values["y"].shape == (batch, d.mul(2, seq), 3)
    bound = bind(graph, {"batch": 2, "seq": 5})
    assert bound.is_static
    assert bound.values["y"].shape == (2, 10, 3)
    assert [op.kind for op in bound.ops] == ["reshape", "relu"]
    verify(bound)
    x = np.arange(60, dtype=np.float32).reshape(2, 5, 6)
    np.testing.assert_array_equal(interpret(bound, {"x": x})["y"], interpret(graph, {"x": x})["y"])


def test_data_dependent_extents_take_their_bound() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=1)]
    graph = imported(model_of(nodes, {"x": (np.float32, [3, 4])}, ["y"]))
    assert not graph.is_static
    priced = bind(graph, {}, assume_bounds=True)
    assert priced.values["y"].shape == (2, 12)
    assert list(priced.bounds.values()) == [12]
    assert interpret(graph, {"x": np.eye(3, 4, dtype=np.float32)})["y"].shape == (2, 3)


TINY = """\
graph 'g' {
  input %x: fp32[batch,4]
  const %w: int64[2] = [-1, 2]
  %r: fp32[2*batch,2] = reshape(%x, %w) 'r'
  %y: fp32[2*batch,2] = leaky_relu(%r) {alpha=0.5} 'y'
  output %y
}
"""


def tiny() -> Graph:
    nodes = [helper.make_node("Reshape", ["x", "w"], ["r"]), helper.make_node("LeakyRelu", ["r"], ["y"], alpha=0.5)]
    return imported(model_of(nodes, {"x": (np.float32, ["batch", 4])}, ["y"], {"w": np.array([-1, 2])}))


def test_text_of_a_tiny_graph() -> None:
    assert to_text(tiny()) == TINY
    assert to_text(parse_text(TINY)) == TINY


@given(st.integers(0, 2**32), st.sampled_from(["float32", "float16", "bfloat16", "int4", "int64", "uint8", "float8_e4m3fn"]))
def test_weights_round_trip_exactly(seed: int, kind: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, kind, None) or kind)
    rng = np.random.default_rng(seed)
    data = rng.integers(-8, 7, rng.integers(0, 6, 2)).astype(np.float32).astype(dtype)
    graph = tiny()
    value = Value("extra weight, oddly 'named'", DType({"int4": "int4"}.get(kind) or _name(dtype)), data.shape)
    held = replace(graph, values={**graph.values, value.name: value}, constants={**graph.constants, value.name: data})
    again = parse_text(to_text(held, weights=True))
    back = again.constants[value.name]
    assert back is not None
    assert back.dtype == data.dtype
    np.testing.assert_array_equal(back.astype(np.float32), data.astype(np.float32))
    assert to_text(again, weights=True) == to_text(held, weights=True)


def _name(dtype: np.dtype) -> str:  # type: ignore[type-arg]
    from tenfold.ir.dtypes import from_numpy

    return from_numpy(dtype).value


def test_elided_weights_can_be_priced_but_not_run() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = imported(model_of([node], {"x": (np.float32, [2, 8])}, ["y"], {"w": np.ones((8, 5), np.float32)}))
    light = parse_text(to_text(graph))
    assert light.constants["w"] is None
    assert light.parameters == 40
    verify(light)
    with pytest.raises(ModelError, match="'w' is a weight without data"):
        interpret(light, {"x": np.ones((2, 8), np.float32)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph 'g' {", "graf 'g' {", "line 1: expected: graph"),
        ("fp32[batch,4]", "fp33[batch,4]", "line 2: unknown dtype 'fp33'"),
        ("leaky_relu(%r)", "leaky_relu[%r]", "line 5: not an op"),
        ("[-1, 2]", "gone", "line 3: unknown constant form"),
        ("}\n", "", "ends inside a graph"),
        ("}\n", "}\nmore\n", "something follows"),
    ],
)
def test_faults_in_text_name_the_line(old: str, new: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse_text(TINY.replace(old, new))


def _twice(g: Graph) -> Graph:
    return replace(g, ops=(*g.ops, g.ops[0]))


def _backwards(g: Graph) -> Graph:
    return replace(g, ops=tuple(reversed(g.ops)))


def _attribute(g: Graph) -> Graph:
    return replace(g, ops=(g.ops[0], replace(g.ops[1], attrs={"beta": 1.0})))


def _arity(g: Graph) -> Graph:
    return replace(g, ops=(g.ops[0], replace(g.ops[1], inputs=("r", "r"))))


def _kind(g: Graph) -> Graph:
    return replace(g, ops=(g.ops[0], replace(g.ops[1], kind="leeky_relu")))


def _output(g: Graph) -> Graph:
    return replace(g, outputs=("z",))


def _shape(g: Graph) -> Graph:
    return replace(g, values={**g.values, "y": replace(g.values["y"], shape=(d.symbol("batch"), 3))})


def _dtype(g: Graph) -> Graph:
    return replace(g, values={**g.values, "y": replace(g.values["y"], dtype=DType.F16)})


def _weight(g: Graph) -> Graph:
    return replace(g, constants={**g.constants, "w": np.array([1, 2, 3])})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_twice, "defines 'r' a second time"), (_backwards, "reads 'r', which nothing before it defines"), (_attribute, "has no attribute 'beta'"),
        (_arity, "takes 1 to 1 inputs, got 2"), (_kind, "'leeky_relu' at 'y' is not in the op table"), (_output, "output 'z' is never defined"),
        (_shape, "inference gives"), (_dtype, "declared fp16"), (_weight, "is declared int64"),
    ],
)  # fmt: skip
def test_verifier_rejects(damage: Callable[[Graph], Graph], message: str) -> None:
    graph = tiny()
    verify(graph)
    with pytest.raises(ModelError, match=message):
        verify(damage(graph))


def test_re_batching_a_model_made_for_one() -> None:
    nodes = [helper.make_node("Reshape", ["x", "t"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    graph = imported(model_of(nodes, {"x": (np.float32, [1, 2, 3])}, ["y"], {"t": np.array([1, 6]), "w": np.ones((6, 4), np.float32)}))
    four = bind(graph, {"batch": 4})
    assert four.values["y"].shape == (4, 4)
    assert isinstance(ops_of(four, "reshape")[0], Op)
