"""The text form of random graphs, of every element type and of bodies: it parses back to the same
graph.
"""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from support import imported, model_of, ops_of
from tenfold.errors import ModelError
from tenfold.importers.onnx.extents import symbol_name
from tenfold.ir import DType, Graph, Op, Value, bind, interpret, parse_text, to_text, verify
from tenfold.ir import dims as d
from tenfold.ir.graph import Array

UNARY = ("Relu", "Sigmoid", "Neg", "Identity", "Softmax", "LeakyRelu", "Transpose", "HardSigmoid")
BINARY = ("Add", "Mul", "Max", "Sub", "Where")
NAMES = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("C", "Z"), include_characters=" '\\,%(){}=[]\""
    ),
    min_size=1,
    max_size=8,
)


def same(a: Graph, b: Graph) -> None:
    """Equal in everything, constants bit for bit."""
    assert (a.name, a.inputs, a.outputs, dict(a.values), dict(a.bounds)) == (
        b.name,
        b.inputs,
        b.outputs,
        dict(b.values),
        dict(b.bounds),
    )
    assert set(a.constants) == set(b.constants)
    for name, data in a.constants.items():
        equal(data, b.constants[name])
    assert len(a.ops) == len(b.ops)
    for x, y in zip(a.ops, b.ops, strict=True):
        assert replace(x, bodies=()) == replace(y, bodies=())
        for one, other in zip(x.bodies, y.bodies, strict=True):
            same(one, other)


def equal(a: Array | None, b: Array | None) -> None:
    assert a is not None
    assert b is not None
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A few ops on [batch, 4] values, with weights, constants, a branch on data, and awkward
    names.
    """
    names = draw(st.lists(NAMES, min_size=12, max_size=12, unique=True))
    live = [names[0]]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.float16]))
    constants: dict[str, Array] = {"yes": np.ones((1, 4), bool)}
    nodes = []
    for name in names[1 : draw(st.integers(2, 11))]:
        op, a, b = (
            draw(st.sampled_from((*UNARY, *BINARY, "MatMul", "If", "Shape"))),
            draw(st.sampled_from(live)),
            draw(st.sampled_from(live)),
        )
        label = draw(st.sampled_from(["", f"node of {name}"]))
        if op in UNARY:
            attrs = {
                "LeakyRelu": {"alpha": 0.25},
                "Softmax": {"axis": -1},
                "Transpose": {"perm": [0, 1]},
                "HardSigmoid": {"beta": 0.1},
            }
            nodes.append(helper.make_node(op, [a], [name], name=label, **attrs.get(op, {})))
        elif op in BINARY:
            nodes.append(
                helper.make_node(op, ["yes", a, b] if op == "Where" else [a, b], [name], name=label)
            )
        elif op == "MatMul":
            constants[f"w {name}"] = rng.standard_normal((4, 4)).astype(dtype)
            nodes.append(helper.make_node(op, [a, f"w {name}"], [name], name=label))
        elif op == "Shape":
            nodes += [
                helper.make_node(op, [a], [f"s {name}"]),
                helper.make_node("Reshape", [b, f"s {name}"], [name], name=label),
            ]
        else:
            bodies = [
                helper.make_graph(
                    [helper.make_node(k, [x], ["out"])],
                    k,
                    [],
                    [helper.make_empty_tensor_value_info("out")],
                )
                for k, x in (("Tanh", a), ("Abs", b))
            ]
            nodes.append(
                helper.make_node(
                    "If", ["flag"], [name], name=label, then_branch=bodies[0], else_branch=bodies[1]
                )
            )
        live.append(name)
    return model_of(
        nodes, {names[0]: (dtype, ["batch", 4]), "flag": (np.bool_, [1])}, [live[-1]], constants
    )


@given(models())
def test_random_graphs_round_trip(model: onnx.ModelProto) -> None:
    graph = imported(model)
    text = to_text(graph, weights=True)
    again = parse_text(text)
    same(graph, again)
    assert to_text(again, weights=True) == text
    verify(again)
    feeds = {
        n: np.ones([1 if v.dtype is DType.BOOL else 2, 4][: len(v.dims)], v.dtype.numpy)
        for n in graph.inputs
        for v in (graph.values[n],)
    }
    for name, want in interpret(graph, feeds).items():
        equal(interpret(again, feeds)[name], want)
    bound = bind(graph, dict.fromkeys(graph.symbols, 3))
    same(bound, parse_text(to_text(bound, weights=True)))


WORDS = st.text(st.characters(), min_size=1, max_size=6)
IDENTIFIERS = st.one_of(
    st.sampled_from(
        ["lambda", "if", "None", "True", "e", "inf", "nan", "_", "input", "Max", "floor"]
    ),
    st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True),
)
SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=6))
ATTRS = st.dictionaries(
    IDENTIFIERS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(tuple)), max_size=3
).map(lambda a: dict(sorted(a.items())))
EXTENTS = st.one_of(
    st.integers(0, 9),
    st.builds(
        lambda n, k: d.add(d.mul(k, d.symbol(symbol_name(n, "x", 0))), 1),
        st.one_of(IDENTIFIERS, WORDS),
        st.integers(1, 3),
    ),
)


@st.composite
def anything(draw: st.DrawFn) -> Graph:
    """A graph of arbitrary words and attributes, whether it makes sense or not."""
    names = draw(st.lists(WORDS, min_size=4, max_size=4, unique=True))
    shapes = st.one_of(st.none(), st.lists(EXTENTS, max_size=3).map(tuple))
    values = {
        n: Value(n, draw(st.sampled_from([DType.F32, DType.I4, DType.BOOL])), draw(shapes))
        for n in names
    }
    operands = st.lists(st.one_of(st.just(""), st.sampled_from(names)), max_size=3).map(tuple)
    op = Op(
        draw(IDENTIFIERS),
        draw(operands),
        (names[2], "", names[3]),
        draw(ATTRS),
        (),
        draw(st.one_of(st.just(""), WORDS)),
    )
    bounds = {"u0_" + draw(IDENTIFIERS): draw(EXTENTS)}
    return Graph(
        name=draw(WORDS),
        inputs=(names[0],),
        outputs=draw(st.sampled_from([(), (names[2],), tuple(names[:3])])),
        ops=(op,),
        values=values,
        constants={names[1]: None},
        bounds=bounds,
    )


@given(anything())
@example(
    Graph(
        name="g",
        inputs=(),
        outputs=("y",),
        ops=(Op("relu", (), ("y",), {"a": float("nan"), "lambda": (float("inf"), -float("inf"))}),),
        values={"y": Value("y", DType.F32, (d.symbol("lambda"),))},
        constants={},
        bounds={},
    )
)
def test_any_words_and_numbers_round_trip(graph: Graph) -> None:
    again = parse_text(to_text(graph))
    assert repr(again.ops) == repr(graph.ops)
    assert (again.name, again.inputs, again.outputs, again.bounds, again.values) == (
        graph.name,
        graph.inputs,
        graph.outputs,
        graph.bounds,
        graph.values,
    )
    assert to_text(again) == to_text(graph)


TYPED = [
    "'", "%", "(", ")", "{", "}", "[", "]", ",", "=", ":", "\\", "\n", " ", "_", "\0", "9" * 5000,
    "inf", "nan", "'\\q'", "**", "lambda", "const %k: int8[2] = [300, 1]",
    "const %b: fp32[2] = bytes !", "const %b: fp32[2] = bytes eJw=",
    "const %s: string[1] = strings [1]", "const %e: fp32[n] = [1]", "if", "é",
]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.integers(0, 10**4), st.integers(0, 12), st.sampled_from(TYPED)),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_text_is_refused_or_read(edits: list[tuple[int, int, str]]) -> None:
    """Cut and pasted anywhere: never anything but a graph or one line that says where."""
    text = GOLDEN
    for at, cut, word in edits:
        place = at % (len(text) + 1)
        text = text[:place] + word + text[place + cut :]
    try:
        again = parse_text(text)
    except ModelError as error:
        assert str(error).startswith("text form")
        return
    assert to_text(parse_text(to_text(again, weights=True)), weights=True) == to_text(
        again, weights=True
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("const %k: int8[2] = [300, 1]", "the data of constant 'k' does not fit int8"),
        ("const %k: int8[3] = [1, 2]", "does not fit int8"),
        ("const %k: fp32[2] = bytes !", "the data of constant 'k' does not fit|found '!'"),
        ("const %k: fp32[2] = bytes eJxj", "does not fit"),
        ("const %k: fp32[n] = [1]", "needs a shape of numbers"),
        ("const %k: fp32[?] = [1]", "needs a shape of numbers"),
        ("const %k: int8[1] = [x]", "expected a number"),
        ("const %k: string[1] = [1]", "is not string"),
        ("const %k: int8[1] = strings ['a']", "is not int8"),
        ("const %k: int8[1] = [1", r"expected , or \]"),
        ("input %k: fp32[a b]", "'a b' is no dimension"),
        ("input %k: fp32[__import__('os')]", "is no dimension"),
        ("bound u0 1/0", "'1/0' is no dimension"),
        ("input %k: fp32[2**99999]", "is no dimension"),
        ("input %'a\\q': fp32[2]", "is no escape"),
        ("%k: fp32[1] = relu(%x) {a=b}", "expected a number or"),
        ("%k: fp32[1] = relu(%x) {a=__import__('os')}", "expected a number or"),
        ("%k: fp32[1] = relu(%x) {a=" + "9" * 5000 + "}", "is no number"),
        ("%k: fp32[1] = relu(%x) {a=(1, 2}", r"expected , or \)"),
        ("%k: fp32[1] = relu(%x,)", "expected a name"),
        ("output %y,", "expected a name"),
        ("input %k: fp32[" + "(" * 5000 + "]", "is no dimension"),
    ],
)
def test_malformed_rows(row: str, message: str) -> None:
    with pytest.raises(ModelError, match=rf"text form, line 2: .*({message})"):
        parse_text("graph 'g' {\n" + row + "\n}\n")


def test_packed_data_is_never_unpacked_beyond_its_shape() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
    tracemalloc.start()
    with pytest.raises(ModelError, match="does not fit fp32"):
        parse_text(f"graph 'g' {{\nconst %k: fp32[2] = bytes {bomb}\n}}\n")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_graphs_nested_without_end() -> None:
    row = "graph 'g' {\n%y: bool[1] = if(%y) with\n"
    with pytest.raises(ModelError, match=r"text form, line 131: graphs nested more than 64 deep"):
        parse_text(row * 3000)


@given(models())
def test_elided_text_is_stable(model: onnx.ModelProto) -> None:
    text = to_text(imported(model))
    assert to_text(parse_text(text)) == text
    assert len(text.splitlines()) == text.count("\n")


def holding(dtype: DType, data: Array) -> Graph:
    graph = imported(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (np.float32, [2])}, ["y"])
    )
    return replace(
        graph, values={**graph.values, "c": Value("c", dtype, data.shape)}, constants={"c": data}
    )


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (17,), (0, 3)], ids=str)
@pytest.mark.parametrize("dtype", list(DType))
def test_constants_of_every_type_are_exact(dtype: DType, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    if dtype is DType.STRING:
        data = np.asarray(["", "it's", 'a "b"\n', "é\\", "%x, }"] * 4, dtype=object)[
            :count
        ].reshape(shape)
    else:
        raw = (
            np.random.default_rng(3).integers(0, 256, count * dtype.numpy.itemsize).astype(np.uint8)
        )
        mask = {DType.BOOL: 1, DType.I2: 3, DType.U2: 3}.get(dtype, 15 if dtype.bits < 8 else 255)
        data = np.frombuffer((raw & mask).tobytes(), dtype.numpy).reshape(shape)
    graph = holding(dtype, data)
    equal(parse_text(to_text(graph, weights=True)).constants["c"], data)
    kept = parse_text(to_text(graph)).constants["c"]
    if count > 16 and dtype is not DType.STRING:
        assert kept is None
    else:
        equal(kept, data)


@pytest.mark.parametrize(
    "data",
    [
        np.array([2**64 - 1, 0], np.uint64),
        np.array(-(2**63)),
        np.array([np.nan, -0.0, np.inf, -np.inf, 1e-45], np.float32),
        np.ones((3, 2), np.float64).T,
    ],
)
def test_extreme_numbers_are_exact(data: Array) -> None:
    equal(
        parse_text(to_text(holding(DType(data.dtype.name.replace("float", "fp")), data))).constants[
            "c"
        ],
        data.copy(),
    )


@pytest.mark.parametrize(
    "word",
    ["a'b", "x} 'z", "é", "a\nb", "\\", "} with", "(", "a, b=1", "'", "%q", "_", "graph 'g' {"],
)
def test_awkward_words_survive_everywhere(word: str) -> None:
    value, data = Value(word, DType.STRING, (2,)), np.asarray([word, "u"], dtype=object)
    op = Op(
        "relu",
        ("", word, ""),
        (word + "1", "", word + "2"),
        {"k": word, "t": (word, word), "i": (1,), "e": (), "b": True, "f": -0.5},
        (),
        word,
    )
    values = {n: Value(n, DType.F32, None) for n in (word + "1", word + "2")} | {word: value}
    graph = Graph(
        name=word,
        inputs=(),
        outputs=op.outputs[::2],
        ops=(op,),
        values=values,
        constants={word: data},
        bounds={},
    )
    same(parse_text(to_text(graph)), graph)


GOLDEN = """\
graph 'g' {
  input %x: fp32[batch,4]
  input %flag: bool[1]
  const %mask: bool[4] = [1, 0, 1, 1]
  const %w: fp32[4,5] = elided
  %c: fp32[batch,4] = where(%mask, %x, %x) 'c'
  %m: fp32[batch,5] = matmul(%c, %w) 'fc 1'
  %i: int64[2,u0_non_zero] = non_zero(%m) 'i'
  %y: fp32[batch,5] = if(%flag, %m) 'pick' with
    graph 'then' {
      input %m: fp32[batch,5]
      %t: fp32[batch,5] = tanh(%m) 't'
      bound u0_non_zero 5*batch
      output %t
    }
    graph 'else' {
      input %m: fp32[batch,5]
      %e: fp32[batch,5] = leaky_relu(%m) {alpha=0.5} 'e'
      bound u0_non_zero 5*batch
      output %e
    }
  bound u0_non_zero 5*batch
  output %y, %i
}
"""


def golden() -> Graph:
    bodies = [
        helper.make_graph(
            [helper.make_node(op, ["m"], [out], **attrs)],
            name,
            [],
            [helper.make_empty_tensor_value_info(out)],
        )
        for op, out, name, attrs in (
            ("Tanh", "t", "then", {}),
            ("LeakyRelu", "e", "else", {"alpha": 0.5}),
        )
    ]
    nodes = [
        helper.make_node("Where", ["mask", "x", "x"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["m"], name="fc 1"),
        helper.make_node("NonZero", ["m"], ["i"]),
        helper.make_node(
            "If", ["flag"], ["y"], name="pick", then_branch=bodies[0], else_branch=bodies[1]
        ),
    ]
    constants = {"mask": np.array([True, False, True, True]), "w": np.ones((4, 5), np.float32)}
    return imported(
        model_of(
            nodes, {"x": (np.float32, ["batch", 4]), "flag": (np.bool_, [1])}, ["y", "i"], constants
        )
    )


def test_golden_text() -> None:
    text = to_text(golden())
    assert text == GOLDEN
    assert to_text(parse_text(GOLDEN)) == GOLDEN
    verify(parse_text(GOLDEN))
    assert parse_text(GOLDEN).bounds == golden().bounds
    assert len(ops_of(parse_text(GOLDEN), "tanh")) == 1


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
    nodes = [
        helper.make_node("Reshape", ["x", "w"], ["r"]),
        helper.make_node("LeakyRelu", ["r"], ["y"], alpha=0.5),
    ]
    return imported(
        model_of(nodes, {"x": (np.float32, ["batch", 4])}, ["y"], {"w": np.array([-1, 2])})
    )


def test_text_of_a_tiny_graph() -> None:
    assert to_text(tiny()) == TINY
    assert to_text(parse_text(TINY)) == TINY


def test_elided_weights_can_be_priced_but_not_run() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = imported(
        model_of([node], {"x": (np.float32, [2, 8])}, ["y"], {"w": np.ones((8, 5), np.float32)})
    )
    light = parse_text(to_text(graph))
    assert light.constants["w"] is None
    assert light.parameters == 40
    verify(light)
    with pytest.raises(ModelError, match="'w' is a weight without data"):
        interpret(light, {"x": np.ones((2, 8), np.float32)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph 'g' {", "graf 'g' {", r"line 1: expected: graph 'name' \{, found 'graf"),
        ("matmul(%c, %w)", "matmul[%c, %w]", "line 7: not an op: '%m"),
        ("graph 'g' {", "graph g {", r"line 1: expected: graph 'name' \{"),
        ("input %x: fp32", "input %x fp32", "line 2: expected %name: dtype"),
        ("bool[1]", "boolean[1]", "line 3: unknown dtype 'boolean'"),
        ("= elided", "= lost", "line 5: unknown constant form 'lost'"),
        ("matmul(%c, %w)", "matmul(%c, %w", "line 7: not an op: '%m"),
        ("%i: int64[2,", "i: int64[2,", "line 8: expected an output, found 'i"),
        ("    graph 'then' {", "    graph then {", "line 10: expected: graph"),
        ("tanh(%m) 't'", "tanh(%m) t", "line 12: not an op"),
        ("    }\n    graph 'else'", "    graph 'else'", "line 15: not an op: 'graph 'else'"),
        (
            "output %y, %i\n}\n",
            "output %y, %i\n}\n\nmore\n",
            "line 26: something follows the graph",
        ),
        ("output %y, %i\n}\n", "output %y, %i\n", "text form ends inside a graph"),
    ],
)
def test_faults_name_their_line(old: str, new: str, message: str) -> None:
    assert GOLDEN.count(old) == 1
    with pytest.raises(ModelError, match=message):
        parse_text(GOLDEN.replace(old, new))


def test_bfloat16_int4_and_strings_from_a_file() -> None:
    """From ONNX tensors on, not only from arrays made here."""
    nodes = [
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["q", "s"], ["z"]),
    ]
    nodes.append(helper.make_node("Identity", ["t"], ["u"]))
    model = model_of(
        nodes, {"x": (np.float32, [1])}, ["y", "z", "u"], {"s": np.float32(0.5)}, opset=21
    )
    numbers = [float(n) for n in range(-8, 8)] + [0.0]
    model.graph.initializer.extend(
        [
            helper.make_tensor("b", TensorProto.BFLOAT16, [17], numbers),
            helper.make_tensor("q", TensorProto.INT4, [17], [int(n) for n in numbers]),
            helper.make_tensor("t", TensorProto.STRING, [2], [b"one's", "zw\u00f6lf".encode()]),
        ]
    )
    graph = imported(model)
    again = parse_text(to_text(graph, weights=True))
    same(graph, again)
    results = interpret(again, {"x": np.zeros(1, np.float32)})
    wide, halved, words = (results[n] for n in again.outputs)
    np.testing.assert_array_equal(wide, numbers)
    np.testing.assert_array_equal(halved, np.array(numbers) / 2)
    assert words.tolist() == ["one's", "zw\u00f6lf"]
