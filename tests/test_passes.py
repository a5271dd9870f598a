"""Passes leave results unchanged: every real model, every pass alone and all together, value by
value.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from onnx import helper

from support import STRUCTURES, imported, model_of, model_path, real_model, seeded_feeds
from tenfold.compiler.passes import DCE, PASSES, run_passes, without_weights
from tenfold.importers.onnx import import_model
from tenfold.ir import Graph, bind, interpret, parse_text, to_text, verify
from tenfold.ir.graph import Array
from tenfold.ir.interpreter import run_op
from tenfold.model import Sizes, load, prepare

NAMES = [p.name for p in PASSES]


@lru_cache(maxsize=1)
def reference(name: str) -> tuple[Graph, dict[str, Array]]:
    """A real model at batch 1 and every value in it for seeded inputs."""
    graph = (
        import_model(real_model(name), name)
        if name.startswith("light/")
        else load(model_path(name))
    )
    graph = prepare(graph, Sizes()).graph
    return graph, every_value(graph, seeded_feeds(graph), {})


def every_value(graph: Graph, feeds: dict[str, Array], known: dict[str, Array]) -> dict[str, Array]:
    """All values of a graph. Where ``known`` has a value of that name, ours must equal it, and its
    content goes on:

    so a difference is seen where it arises, and dynamic quantisation does not blow up roundings on
    the way.
    """
    live: dict[str, Array | None] = {**graph.constants, **feeds}
    rng = np.random.default_rng(0)
    for op in graph.ops:
        run_op(graph, op, live, rng)
        for name in op.outputs:
            if name in known:
                assert_same(known[name], live[name], f"{op.kind} '{name}'")
                live[name] = known[name]
    return {n: a for n, a in live.items() if a is not None}


def assert_same(want: Array, got: Array | None, what: str) -> None:
    assert got is not None
    assert want.shape == got.shape, what
    assert want.dtype == got.dtype, what
    if want.dtype.kind in "f":
        scale = float(np.max(np.abs(want[np.isfinite(want)]), initial=1e-6))
        tolerance = 5e-3 if want.dtype == np.float16 else 2e-5
        np.testing.assert_allclose(
            got.astype(np.float64),
            want.astype(np.float64),
            rtol=1e-3,
            atol=tolerance * scale,
            err_msg=what,
        )
    elif want.dtype in (np.uint8, np.int8):  # quantised: one step in one element of a hundred
        off = np.abs(want.astype(int) - got.astype(int))
        assert off.max(initial=0) <= 1, what
        assert (off > 0).mean() < 0.01, what
    else:
        assert np.array_equal(want, got), what


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_pass_on_every_real_model(name: str) -> None:
    graph, values = reference(name)
    feeds = {n: values[n] for n in graph.inputs}
    for p in (*PASSES, DCE):
        changed = p.apply(graph)
        verify(changed)
        every_value(changed, feeds, values)
    every_value(run_passes(graph, observe=lambda _, g: verify(g)), feeds, values)


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_passes_do_the_same_without_weights(name: str) -> None:
    """What is priced is what runs: forgetting the contents of weights changes no decision."""
    graph, _ = reference(name)
    full, bare = run_passes(graph), run_passes(without_weights(graph))
    assert [(op.kind, op.attrs, len(op.inputs)) for op in full.ops] == [
        (op.kind, op.attrs, len(op.inputs)) for op in bare.ops
    ]
    assert full.parameters == bare.parameters


def passed(text: str, *names: str) -> str:
    """The ops left after some passes, one a line, without names."""
    graph = parse_text(text)
    verify(graph)
    after = run_passes(graph, tuple(set(NAMES) - set(names)))
    verify(after)
    same(graph, after)
    return "\n".join(
        line.strip() for line in to_text(after).splitlines() if line.strip().startswith("%")
    )


def same(before: Graph, after: Graph) -> None:
    feeds = seeded_feeds(before)
    want, got = interpret(before, feeds), interpret(after, feeds)
    for n in want:
        assert_same(want[n], got[n], n)


def test_canonicalise_views_transposes_and_no_ops() -> None:
    text = """graph 'g' {
      input %x: fp32[2,3,4]
      const %s: int64[2] = [6, 4]
      const %t: int64[3] = [4, 6, 1]
      const %p: int64[6] = [0, 0, 0, 0, 0, 0]
      %a: fp32[6,4] = reshape(%x, %s)
      %b: fp32[4,6] = transpose(%a) {perm=(1, 0)}
      %c: fp32[6,4] = transpose(%b) {perm=(1, 0)}
      %d: fp32[4,6,1] = reshape(%c, %t)
      %e: fp32[4,6,1] = cast(%d) {to='fp32'}
      %f: fp32[4,6,1] = pad(%e, %p) {mode='constant'}
      %y: fp32[4,6,1] = relu(%f)
      output %y
    }"""
    assert (
        passed(text, "canonicalise")
        == "%d: fp32[4,6,1] = reshape(%x, %'d~const2') {allowzero=1}\n%y: fp32[4,6,1] = relu(%d)"
    )


def test_a_transposed_operand_becomes_a_flag() -> None:
    text = """graph 'g' {
      input %x: fp32[2,3,4]
      input %w: fp32[2,5,4]
      %t: fp32[2,4,5] = transpose(%w) {perm=(0, 2, 1)}
      %y: fp32[2,3,5] = matmul(%x, %t)
      output %y
    }"""
    assert passed(text, "canonicalise") == "%y: fp32[2,3,5] = matmul(%x, %w) {transpose_b=1}"


def test_fold_keeps_what_would_grow() -> None:
    text = """graph 'g' {
      input %x: fp32[64,64]
      const %a: fp32[] = bytes eJwDAAAAAAE=
      const %s: int64[2] = [64, 64]
      %n: int64[2] = add(%s, %s)
      %z: fp32[128,128] = expand(%a, %n)
      %m: int64[2] = sub(%n, %s)
      %v: fp32[64,64] = reshape(%x, %m)
      output %v, %z
    }"""
    graph = parse_text(text.replace("= bytes eJwDAAAAAAE=", "= elided"))
    kinds = [op.kind for op in run_passes(graph, tuple(set(NAMES) - {"fold"})).ops]
    assert kinds == ["expand", "reshape"]


@pytest.mark.parametrize("data", [True, False])
def test_batch_norm_and_factors_go_into_the_weights(data: bool) -> None:
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.standard_normal((6, 4, 3, 3)),
        "b": rng.standard_normal(6),
        "g": rng.uniform(0.5, 2, 6),
        "h": rng.standard_normal(6),
        "m": rng.standard_normal(6),
        "v": rng.uniform(0.5, 2, 6),
        "f": rng.uniform(0.5, 2, (6, 1, 1)),
        "o": rng.standard_normal((1, 6, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "h", "m", "v"], ["n"]),
        helper.make_node("Mul", ["n", "f"], ["s"]),
        helper.make_node("Add", ["o", "s"], ["t"]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    model = model_of(
        nodes,
        {"x": (np.float32, (2, 4, 5, 5))},
        ["y"],
        {n: a.astype(np.float32) for n, a in constants.items()},
    )
    graph = bind(imported(model), {})
    after = run_passes(graph if data else without_weights(graph, 0))
    assert [op.kind for op in after.ops] == ["conv", "relu"]
    assert len(after.constants) == 2
    if data:
        same(graph, after)


def test_batch_norm_stays_where_somebody_else_reads_the_convolution() -> None:
    graph = parse_text("""graph 'g' {
      input %x: fp32[1,2,3,3]
      const %w: fp32[2,2,1,1] = elided
      const %v: fp32[2] = elided
      %c: fp32[1,2,3,3] = conv(%x, %w)
      %n: fp32[1,2,3,3] = batch_norm(%c, %v, %v, %v, %v)
      output %c, %n
    }""")
    assert [op.kind for op in run_passes(graph).ops] == ["conv", "batch_norm"]


def test_cse_by_content_and_attributes() -> None:
    text = """graph 'g' {
      input %x: fp32[4]
      const %a: int64[1] = [4]
      const %b: int64[1] = [4]
      %p: fp32[4] = leaky_relu(%x) {alpha=0.5}
      %q: fp32[4] = leaky_relu(%x) {alpha=0.5}
      %r: fp32[4] = leaky_relu(%x) {alpha=0.25}
      %s: fp32[4] = expand(%p, %a)
      %t: fp32[4] = expand(%q, %b)
      %u: fp32[4] = add(%s, %t)
      %y: fp32[4] = add(%u, %r)
      output %y
    }"""
    assert passed(text, "cse").count("leaky_relu") == 2
    assert passed(text, "cse").count("expand") == 1


SCALARS = {
    "gelu": ["d = x / 1.4142135", "e = erf(d)", "f = e + 1", "g = x * f", "y = g * 0.5"],
    "gelu other order": ["h = x * 0.5", "d = x * 0.70710678", "e = erf(d)", "f = 1 + e",
    "y = f * h"], "gelu {approximate='tanh'}": ["c = x * x", "d = c * x", "e = d * 0.044715",
    "f = x + e", "g = f * 0.7978845608", "t = tanh(g)", "u = t + 1", "v = u * x", "y = v * 0.5"],
    "swish": ["s = sigmoid(x)", "y = x * s"], "swish {alpha=1.702}": ["a = x * 1.702",
    "s = sigmoid(a)", "y = s * x"], "hard_swish": ["a = x + 3", "b = clip(a)", "c = x * b",
    "y = c / 6"],
}  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_functions_of_one_number_are_recognised_however_written(name: str) -> None:
    nodes, constants = [], {"lo": np.float32(0), "hi": np.float32(6)}
    for line in SCALARS[name]:
        result, _, right = line.partition(" = ")
        if "(" in right:
            fn, _, operand = right.rstrip(")").partition("(")
            extra = ["lo", "hi"] if fn == "clip" else []
            nodes.append(helper.make_node(fn.capitalize(), [operand, *extra], [result]))
            continue
        left, sign, other = right.split()
        for operand in (left, other):
            if operand[0].isdigit():
                constants[operand] = np.float32(operand)
        nodes.append(
            helper.make_node({"*": "Mul", "+": "Add", "/": "Div"}[sign], [left, other], [result])
        )
    graph = bind(imported(model_of(nodes, {"x": (np.float32, (3, 5))}, ["y"], constants)), {})
    after = run_passes(graph)
    same(graph, after)
    assert [op.kind for op in after.ops] == [name.split()[0]]
    if "{" in name:
        assert f"{{{name.partition('{')[2]}" in to_text(after)


def test_what_is_nearly_a_known_function_is_not_one() -> None:
    constants = {"a": np.float32(1.3), "b": np.float32(1), "c": np.float32(0.5)}
    nodes = [
        helper.make_node("Div", ["x", "a"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "b"], ["f"]),
        helper.make_node("Mul", ["x", "f"], ["g"]),
        helper.make_node("Mul", ["g", "c"], ["y"]),
    ]
    after = run_passes(
        bind(imported(model_of(nodes, {"x": (np.float32, (3,))}, ["y"], constants)), {})
    )
    assert "gelu" not in [op.kind for op in after.ops]


def test_attention_is_recognised_with_scale_and_mask() -> None:
    text = """graph 'g' {
      input %q: fp32[2,3,5,8]
      input %k: fp32[2,5,3,8]
      input %v: fp32[2,3,5,4]
      input %mask: fp32[2,1,1,5]
      const %c: fp32[] = elided
      %t: fp32[2,3,8,5] = transpose(%k) {perm=(0, 2, 3, 1)}
      %s: fp32[2,3,5,5] = matmul(%q, %t)
      %d: fp32[2,3,5,5] = div(%s, %c)
      %m: fp32[2,3,5,5] = add(%mask, %d)
      %p: fp32[2,3,5,5] = softmax(%m) {axis=-1}
      %y: fp32[2,3,5,4] = matmul(%p, %v)
      output %y
    }"""
    graph = parse_text(text)
    graph = Graph(
        graph.name,
        graph.inputs,
        graph.outputs,
        graph.ops,
        graph.values,
        {"c": np.asarray(2.5, np.float32)},
    )
    after = run_passes(graph)
    same(graph, after)
    assert [op.kind for op in after.ops] == ["transpose", "attention"]
    assert after.ops[1].attrs["scale"] == pytest.approx(0.4)


def test_attention_whose_scores_are_an_output_stays_apart() -> None:
    graph = parse_text("""graph 'g' {
      input %q: fp32[1,2,3,4]
      %s: fp32[1,2,3,3] = matmul(%q, %q) {transpose_b=1}
      %p: fp32[1,2,3,3] = softmax(%s) {axis=-1}
      %y: fp32[1,2,3,4] = matmul(%p, %q)
      output %y, %p
    }""")
    assert [op.kind for op in run_passes(graph).ops] == ["matmul", "softmax", "matmul"]


@pytest.mark.parametrize("root", ["Sqrt+Div", "Sqrt+Reciprocal+Mul", "Pow+Mul"])
@pytest.mark.parametrize("centred", [True, False])
def test_norms_are_recognised_with_their_affine_part(root: str, centred: bool) -> None:
    rng = np.random.default_rng(2)
    constants = {
        "two": np.float32(2),
        "eps": np.float32(1e-5),
        "half": np.float32(-0.5),
        "g": rng.uniform(0.5, 2, 8).astype(np.float32),
        "b": rng.standard_normal(8).astype(np.float32),
    }
    nodes = []
    x = "x"
    if centred:
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[-1]),
            helper.make_node("Sub", ["x", "mean"], ["d"]),
        ]
        x = "d"
    nodes += [
        helper.make_node("Pow", [x, "two"], ["sq"]),
        helper.make_node("ReduceMean", ["sq"], ["var"], axes=[-1]),
        helper.make_node("Add", ["var", "eps"], ["shifted"]),
    ]
    if root == "Pow+Mul":
        nodes += [
            helper.make_node("Pow", ["shifted", "half"], ["inv"]),
            helper.make_node("Mul", [x, "inv"], ["n"]),
        ]
    else:
        nodes.append(helper.make_node("Sqrt", ["shifted"], ["root"]))
        if root == "Sqrt+Div":
            nodes.append(helper.make_node("Div", [x, "root"], ["n"]))
        else:
            nodes += [
                helper.make_node("Reciprocal", ["root"], ["inv"]),
                helper.make_node("Mul", ["inv", x], ["n"]),
            ]
    nodes += [
        helper.make_node("Mul", ["g", "n"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["y"]),
    ]
    graph = bind(
        imported(model_of(nodes, {"x": (np.float32, (4, 8))}, ["y"], constants, opset=13)), {}
    )
    after = run_passes(graph)
    same(graph, after)
    assert [op.kind for op in after.ops] == (["layer_norm"] if centred else ["rms_norm", "add"])


def test_softmax_written_out() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], axes=[1]),
        helper.make_node("Sub", ["x", "top"], ["d"]),
        helper.make_node("Exp", ["d"], ["e"]),
        helper.make_node("ReduceSum", ["e", "ax"], ["t"]),
        helper.make_node("Div", ["e", "t"], ["y"]),
    ]
    graph = bind(
        imported(
            model_of(nodes, {"x": (np.float32, (2, 5, 3))}, ["y"], {"ax": np.array([1])}, opset=13)
        ),
        {},
    )
    after = run_passes(graph)
    same(graph, after)
    assert [(op.kind, op.attrs["axis"]) for op in after.ops] == [("softmax", 1)]


@pytest.mark.parametrize("transposed", [0, 1])
def test_products_of_the_same_operand_become_one(transposed: int) -> None:
    rng = np.random.default_rng(3)
    shapes = {n: (w, 6) if transposed else (6, w) for n, w in (("wq", 8), ("wk", 4), ("wv", 2))}
    graph = parse_text(f"""graph 'g' {{
      input %x: fp32[2,3,6]
      {"".join(f"const %{n}: fp32{list(s)} = elided" + chr(10) for n, s in shapes.items())}
      %q: fp32[2,3,8] = matmul(%x, %wq) {{transpose_b={transposed}}}
      %k: fp32[2,3,4] = matmul(%x, %wk) {{transpose_b={transposed}}}
      %v: fp32[2,3,2] = matmul(%x, %wv) {{transpose_b={transposed}}}
      %r: fp32[2,3,4] = relu(%k)
      output %q, %r, %v
    }}""")
    graph = replace(
        graph, constants={n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    )
    after = run_passes(graph)
    same(graph, after)
    assert [op.kind for op in after.ops] == ["matmul", "split", "relu"]
    assert after.parameters == graph.parameters


def test_without_dce_the_dead_stay() -> None:
    graph = parse_text("""graph 'g' {
      input %x: fp32[4]
      %d: fp32[4] = exp(%x)
      %y: fp32[4] = relu(%x)
      output %y
    }""")
    assert len(run_passes(graph, ("dce",)).ops) == 2
    assert len(run_passes(graph).ops) == 1


@pytest.mark.parametrize(("bound", "scale"), [(10.0, 1.0), (9.0, 1.702), (50.0, 1.0)])
def test_a_bound_far_out_is_part_of_the_function(bound: float, scale: float) -> None:
    """A clamp that no value near zero meets is not swish all the same."""
    constants = {"lo": np.float32(-bound), "hi": np.float32(bound), "a": np.float32(scale)}
    nodes = [
        helper.make_node("Clip", ["x", "lo", "hi"], ["c"]),
        helper.make_node("Mul", ["c", "a"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["y"]),
    ]
    graph = bind(imported(model_of(nodes, {"x": (np.float32, (5,))}, ["y"], constants)), {})
    after = run_passes(graph)
    far = np.array([-400, -bound - 1, 0, bound + 1, 400], np.float32)
    assert_same(interpret(graph, {"x": far})["y"], interpret(after, {"x": far})["y"], "y")
    assert after.ops[0].kind == "clip"


@pytest.mark.parametrize(
    "mask", [(1, 1, 3, 1), (1, 2, 1, 1), (3, 1), (1,), (5,), (1, 1, 1, 5), (2, 1, 3, 5), ()]
)
@pytest.mark.parametrize("rank", [3, 4])
def test_masks_of_every_shape_give_the_same_attention(mask: tuple[int, ...], rank: int) -> None:
    """What the attention op cannot say - a mask without keys, or none per key - stays as it is
    written.
    """
    if len(mask) > rank:
        mask = mask[1:]
    lead = (2, 2) if rank == 4 else (2,)
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Add", ["s", "m"], ["a"]),
        helper.make_node("Softmax", ["a"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    inputs = {
        "q": (np.float32, (*lead, 3, 4)),
        "k": (np.float32, (*lead, 4, 5)),
        "v": (np.float32, (*lead, 5, 6)),
        "m": (np.float32, mask),
    }
    graph = bind(imported(model_of(nodes, inputs, ["y"])), {})
    after = run_passes(graph)
    same(graph, after)
    assert ("attention" in [op.kind for op in after.ops]) == (
        bool(mask) and mask[-1] == 5 and not (rank == 3 and len(mask) == 1)
    )


def test_statistics_that_arrive_with_the_data_are_not_folded() -> None:
    rng = np.random.default_rng(4)
    constants = {
        "w": rng.standard_normal((3, 2, 1, 1)).astype(np.float32),
        "z": np.zeros(3, np.float32),
        "o": np.ones(3, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "g", "z", "z", "o"], ["y"]),
    ]
    graph = bind(
        imported(
            model_of(
                nodes, {"x": (np.float32, (1, 2, 4, 4)), "g": (np.float32, (3,))}, ["y"], constants
            )
        ),
        {},
    )
    after = run_passes(graph)
    same(graph, after)
    assert [op.kind for op in after.ops] == ["conv", "batch_norm"]


def test_equal_bits_of_different_types_are_different_constants() -> None:
    from onnx import TensorProto
    from onnx.helper import make_tensor

    model = model_of(
        [helper.make_node("QuantizeLinear", ["x", "s", z], [f"q{z}"]) for z in ("a", "b")]
        + [helper.make_node("DequantizeLinear", [f"q{z}", "s", z], [f"y{z}"]) for z in ("a", "b")],
        {"x": (np.float32, (4,))},
        ["ya", "yb"],
        {"s": np.float32(0.1)},
        opset=21,
    )
    model.graph.initializer.extend(
        [make_tensor("a", TensorProto.INT4, [], [0]), make_tensor("b", TensorProto.UINT4, [], [0])]
    )
    graph = bind(imported(model), {})
    same(graph, run_passes(graph))
