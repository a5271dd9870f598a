"""The op table: every column of every row is filled, and works on at least one static example of
its kind.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from support import imported, model_of, node_cases, to_array
from tenfold.errors import TenfoldError
from tenfold.ir import (
    TABLE,
    Access,
    DType,
    Graph,
    Lowering,
    Op,
    bind,
    interpret,
    op_call,
    parse_text,
)
from tenfold.ir.gradient import differentiated
from tenfold.ir.infer import row_of

KINDS = sorted(TABLE)
SHAPE_NOT_CHECKED: set[str] = set()
NEVER_STATIC = {"image_decoder"}  # the size of an image is in its bytes; the node tests run it


@dataclass(frozen=True)
class Example:
    """One op inside a static graph that can be run."""

    name: str
    graph: Graph
    op: Op
    feeds: Mapping[str, Any]


def _frozen(case: Any) -> onnx.ModelProto | None:
    """The case with all inputs but the first as constants, so that axes and sizes are known."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for info, value in list(zip(model.graph.input, case.data_sets[0][0], strict=False))[1:]:
        array = to_array(value)
        if not isinstance(array, np.ndarray) or array.dtype.kind in "OUS":
            return None
        model.graph.initializer.append(numpy_helper.from_array(array, info.name))
    return model


def _from_node_tests(found: dict[str, list[Example]]) -> None:
    for case in node_cases():
        arrays = [to_array(v) for v in case.data_sets[0][0]]
        for model in (case.model, _frozen(case)):
            if model is None:
                continue
            try:
                graph = bind(imported(model), {}, assume_bounds=True)
            except TenfoldError:
                continue  # no fixed shapes, or out of scope: test_onnx_nodes says which must work
            if graph.is_static:
                names = [i.name for i in case.model.graph.input]
                feeds = {n: a for n, a in zip(names, arrays, strict=False) if n in graph.inputs}
                for op in graph.ops:
                    found[op.kind].append(Example(case.name, graph, op, feeds))


def _dynamic(
    kind: str, *nodes: onnx.NodeProto, **constants: Any
) -> tuple[str, onnx.ModelProto, dict[str, Any], bool]:
    """Nodes that use ``n``, the data-dependent number of non-zeros of ``x`` (its bound: 6); results
    is ``y``.
    """
    count = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Shape", ["places"], ["n"], start=1),
        helper.make_node("Squeeze", ["n"], ["n0"]),
    ]
    model = model_of([*count, *nodes], {"x": (np.float32, [6])}, ["y"], constants, opset=18)
    return kind, model, {"x": np.array([1, 0, 2, 3, 0, 4], np.float32)}, True


def _loop_model() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "x"], ["s2"]), helper.make_node("Neg", ["s2"], ["z"])],
        "body",
        [
            helper.make_tensor_value_info(n, t, s)
            for n, t, s in (("i", 7, []), ("c", 9, []), ("s", 1, [3]))
        ],
        [helper.make_empty_tensor_value_info(n) for n in ("c2", "s2", "z")],
        [numpy_helper.from_array(np.array(True), "c2")],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y", "all"], body=body)
    return model_of([node], {"x": (np.float32, [3])}, ["y", "all"], {"trips": np.int64(4)})


def _if_model() -> onnx.ModelProto:
    branches = {
        f"{which}_branch": helper.make_graph(
            [helper.make_node(op, ["x"], ["r"])],
            which,
            [],
            [helper.make_empty_tensor_value_info("r")],
        )
        for which, op in (("then", "Neg"), ("else", "Exp"))
    }
    return model_of(
        [helper.make_node("If", ["c"], ["y"], **branches)],
        {"c": (np.bool_, []), "x": (np.float32, [3])},
        ["y"],
    )


def _lstm_model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    h, i = 4, 3
    constants = {
        "w": rng.integers(-9, 9, (1, i, 4 * h)).astype(np.int8),
        "r": rng.integers(-9, 9, (1, h, 4 * h)).astype(np.int8),
        "b": np.zeros((1, 8 * h), np.float32),
        "s": np.full(1, 0.01, np.float32),
        "z": np.zeros(1, np.int8),
    }
    inputs = ["x", "w", "r", "b", "", "", "", "", "s", "z", "s", "z"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, ["y"], domain="com.microsoft", hidden_size=h
    )
    return model_of([node], {"x": (np.float32, [5, 1, i])}, ["y"], constants, microsoft=True)


def _cache_model() -> onnx.ModelProto:
    inputs = {
        n: (np.float32, s)
        for n, s in (
            ("x", [2, 1, 8]),
            ("k", [2, 1, 4]),
            ("v", [2, 1, 4]),
            ("pk", [2, 1, 5, 4]),
            ("pv", [2, 1, 5, 4]),
        )
    }
    node = helper.make_node(
        "GroupQueryAttention",
        [*inputs, "s", "t"],
        ["y", "keys", "values"],
        domain="com.microsoft",
        num_heads=2,
        kv_num_heads=1,
    )
    return model_of(
        [node],
        inputs,
        ["y", "keys", "values"],
        {"s": np.array([3, 5], np.int32), "t": np.array(6, np.int32)},
        microsoft=True,
    )


def _mini_cases() -> list[tuple[str, onnx.ModelProto, dict[str, Any], bool]]:
    """Kinds that no node test shows inside a static graph: (kind, model, feeds, whether to assume
    bounds).
    """
    node, x = helper.make_node, np.arange(3, dtype=np.float32)
    rois = np.array([[0, 0, 0, 3, 3]], np.float32)
    cache = {
        i.name: np.ones([d.dim_value for d in i.type.tensor_type.shape.dim], np.float32)
        for i in _cache_model().graph.input
    }
    picture = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    return [
        _dynamic("shape", node("Identity", ["n"], ["y"])),
        _dynamic("size", node("Size", ["places"], ["y"])),
        _dynamic("full", node("ConstantOfShape", ["n"], ["y"])),
        _dynamic(
            "range", node("Range", ["zero", "n0", "one"], ["y"]), zero=np.int64(0), one=np.int64(1)
        ),
        _dynamic("window", node("HannWindow", ["n0"], ["y"])),
        _dynamic(
            "one_hot",
            node("OneHot", ["places", "six", "offon"], ["y"]),
            six=np.int64(6),
            offon=np.array([0, 1], np.float32),
        ),
        ("loop", _loop_model(), {"x": x}, False),
        ("if", _if_model(), {"c": np.array(False), "x": x}, False),
        ("cached_attention", _cache_model(), cache, False),
        (
            "dynamic_quantize_lstm",
            _lstm_model(),
            {"x": np.linspace(-1, 1, 15).astype(np.float32).reshape(5, 1, 3)},
            False,
        ),
        (
            "max_roi_pool",
            model_of(
                [node("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[2, 2])],
                {"x": (np.float32, [1, 1, 4, 4]), "r": (np.float32, [1, 5])},
                ["y"],
            ),
            {"x": picture, "r": rois},
            False,
        ),
        (
            "cum_sum",
            model_of(
                [node("CumSum", ["x", "axis"], ["y"])],
                {"x": (np.float32, [2, 3])},
                ["y"],
                {"axis": np.int64(1)},
            ),
            {"x": np.arange(6, dtype=np.float32).reshape(2, 3)},
            False,
        ),
        (
            "lstm",
            model_of(
                [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2)],
                {"x": (np.float32, [3, 2, 2])},
                ["y"],
                {n: np.full((1, 8, 2), 0.1, np.float32) for n in ("w", "r")},
            ),
            {"x": np.linspace(-1, 1, 12).astype(np.float32).reshape(3, 2, 2)},
            False,
        ),
        (
            "multinomial",
            model_of(
                [node("Multinomial", ["x"], ["y"], sample_size=4)],
                {"x": (np.float32, [1, 3])},
                ["y"],
            ),
            {"x": x[None]},
            False,
        ),
        (
            "mel_weight_matrix",
            model_of(
                [node("MelWeightMatrix", ["a", "b", "c", "d", "x"], ["y"])],
                {"x": (np.float32, [])},
                ["y"],
                {"a": np.int64(4), "b": np.int64(16), "c": np.int64(8000), "d": np.float32(0)},
            ),
            {"x": np.float32(4000)},
            False,
        ),
    ]


@functools.lru_cache(maxsize=1)
def examples() -> Mapping[str, list[Example]]:
    found: dict[str, list[Example]] = defaultdict(list)
    _from_node_tests(found)
    for kind, model, feeds, assume in _mini_cases():
        graph = bind(imported(model), {}, assume_bounds=assume)
        found[kind] += [
            Example(f"mini {kind}", graph, op, feeds) for op in graph.ops if op.kind == kind
        ]
    for name, text in (
        ("experts", _EXPERTS),
        ("capacity", _WITH_CAPACITY),
        ("apart", _APART),
        ("apart, backward", _APART_GRAD),
        ("a stretch", _STRETCH),
        ("a stretch, backward", _STRETCH_GRAD),
    ):
        graph = parse_text(text)
        rng = np.random.default_rng(0)
        feeds = {
            n: rng.standard_normal([int(d) for d in graph.values[n].dims]).astype(np.float32)
            for n in graph.inputs
        }
        kind = graph.ops[0].kind
        found[kind].append(Example(name, graph, graph.ops[0], feeds))
    for kind, attrs in _ALONE.items():
        graph = parse_text(_TOGETHER.format(kind=kind, attrs=attrs))
        array = np.arange(12, dtype=np.float32).reshape(2, 6)
        found[kind].append(Example(f"{kind} of one", graph, graph.ops[0], {"x": array}))
    graph = parse_text(_DROPPED)
    kept = np.arange(12, dtype=np.float32).reshape(2, 6)
    found["dropout"].append(Example("nothing dropped", graph, graph.ops[0], {"x": kept}))
    _from_gradients(found)
    return found


_DROPPED = """graph 'dropped' {
  input %x: fp32[2,6]
  %y: fp32[2,6], %mask: bool[2,6] = dropout(%x) {ratio=0.0}
  output %y
}"""


BEHIND = (
    "relu", "gelu", "swish", "tanh", "sigmoid", "softmax", "layer_norm", "rms_norm", "gather",
    "attention", "moe", "conv", "max_pool", "average_pool", "batch_norm", "lrn",
    "lstm", "dropout",
)  # fmt: skip


def _from_gradients(found: dict[str, list[Example]]) -> None:
    """Kinds that only gradients have, behind some examples of those that they belong to."""
    rng = np.random.default_rng(0)
    for kind in BEHIND:
        alone = [e for e in found[kind] if len(e.graph.ops) == 1]
        # the last ones are our own
        for example in alone[-10:]:
            graph, op = example.graph, example.op
            floats = [n for n in op.inputs if n and graph.values[n].dtype is DType.F32]
            try:
                made = differentiated(graph, dict.fromkeys(floats))
            except TenfoldError:
                continue
            seeds = {
                s: rng.standard_normal([int(d) for d in made.graph.values[s].dims])
                for s in made.seeds
            }
            feeds = {**example.feeds, **{s: a.astype(np.float32) for s, a in seeds.items()}}
            for o in made.graph.ops[made.forward :]:
                if o.kind.endswith("_grad"):
                    found[o.kind].append(Example(f"behind {example.name}", made.graph, o, feeds))


# one chip of one: what more of them mean is tested with the cluster
_ALONE = {
    "all_reduce": "stride=1, ways=1",
    **dict.fromkeys(("all_gather", "own_part", "reduce_scatter"), "axis=1, stride=1, ways=1"),
}
_TOGETHER = """graph 'together' {{
  input %x: fp32[2,6]
  %y: fp32[2,6] = {kind}(%x) {{{attrs}}}
  output %y
}}"""
_EXPERTS = """graph 'experts' {
  input %x: fp32[2,3,8]
  input %router: fp32[8,4]
  input %up: fp32[4,8,12]
  input %down: fp32[4,6,8]
  %y: fp32[2,3,8] = moe(%x, %router, %up, %down) {activation='silu', gated=1, top_k=2}
  output %y
}"""


_APART = _EXPERTS.replace("moe(", "moe_apart(").replace(
    "top_k=2", "top_k=2, ways=1, stride=1, skew=1.0"
)
_APART_GRAD = """graph 'experts apart, backward' {
  input %x: fp32[2,3,8]
  input %router: fp32[8,4]
  input %up: fp32[4,8,12]
  input %down: fp32[4,6,8]
  input %g: fp32[2,3,8]
  %dx: fp32[2,3,8], %dr: fp32[8,4], %du: fp32[4,8,12], %dd: fp32[4,6,8] = moe_apart_grad(%x, %router, %up, %down, %g) {activation='silu', gated=1, top_k=2, ways=1, stride=1, skew=1.0}
  output %dx, %dr, %du, %dd
}"""
_STRETCH = """graph 'a stretch' {
  input %q: fp32[2,4,6]
  input %k: fp32[2,4,6]
  input %v: fp32[2,4,6]
  %y: fp32[2,4,6] = attention_apart(%q, %k, %v) {is_causal=1, q_num_heads=2, kv_num_heads=2, ways=1, stride=1}
  output %y
}"""
_STRETCH_GRAD = """graph 'a stretch, backward' {
  input %q: fp32[2,4,6]
  input %k: fp32[2,4,6]
  input %v: fp32[2,4,6]
  input %g: fp32[2,4,6]
  input %y: fp32[2,4,6]
  %dq: fp32[2,4,6], %dk: fp32[2,4,6], %dv: fp32[2,4,6] = attention_apart_grad(%q, %k, %v, %g, %y) {is_causal=1, q_num_heads=2, kv_num_heads=2, ways=1, stride=1}
  output %dq, %dk, %dv
}"""
_WITH_CAPACITY = _EXPERTS.replace("top_k=2", "top_k=2, capacity=1")


def test_an_expert_takes_no_more_of_a_sequence_than_its_capacity() -> None:
    """The first token of a sequence that is sent to an expert passes it, the next ones pass it by;
    what is counted is what sequences can send at most.
    """
    whole, capped = examples()["moe"]
    x, router, up, down = (np.asarray(capped.feeds[n], np.float64) for n in capped.graph.inputs)
    logits = x @ router
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = np.zeros_like(x)
    for b in range(2):
        full: set[int] = set()
        for t in range(3):
            chosen = np.argsort(-weights[b, t])[:2]
            share = weights[b, t, chosen] / weights[b, t, chosen].sum()
            for e, s in zip(chosen.tolist(), share, strict=True):
                if e not in full:
                    gate, value = np.split(x[b, t] @ up[e], 2)
                    want[b, t] += s * ((gate / (1 + np.exp(-gate)) * value) @ down[e])
                full.add(e)
    got = interpret(capped.graph, capped.feeds)["y"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    calls = [op_call(e.graph, e.op) for e in (whole, capped)]
    rules = [row_of(c.op).experts for c in calls]
    routed = [rule(c).routed for rule, c in zip(rules, calls, strict=True) if rule]
    assert routed == [2 * 3 * 2, 2 * min(3 * 2, 4 * 1)]


def test_experts_are_the_weighted_sum_of_dense_layers() -> None:
    """Every expert on every token, then only the best two count, by their renormalised softmax."""
    example = examples()["moe"][0]
    x, router, up, down = (np.asarray(example.feeds[n], np.float64) for n in example.graph.inputs)
    logits = x @ router
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kept = np.where(weights >= np.sort(weights, -1)[..., -2:-1], weights, 0)
    kept = kept / kept.sum(-1, keepdims=True)
    gate, value = np.split(np.einsum("bsd,edh->bseh", x, up), 2, axis=-1)
    each = np.einsum("bseh,ehd->bsed", gate / (1 + np.exp(-gate)) * value, down)
    want = (kept[..., None] * each).sum(2)
    np.testing.assert_allclose(
        interpret(example.graph, example.feeds)["y"], want, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_row_has_every_column(kind: str) -> None:
    row = TABLE[kind]
    assert row.kind == kind
    assert kind == kind.lower()
    least, most = row.arity
    assert 0 <= least <= most
    assert all(
        isinstance(name, str) and isinstance(wanted, type) for name, wanted in row.attrs.items()
    )
    for column in ("dtypes", "shapes", "space", "work", "evaluate"):
        assert callable(getattr(row, column)), column
    assert isinstance(row.lowering, Lowering)
    assert isinstance(row.symbolic, bool)
    assert isinstance(row.pure, bool)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in NEVER_STATIC])
def test_space_and_work_of_a_static_example(kind: str) -> None:
    priced = 0
    for example in examples()[kind]:
        row, call = row_of(example.op), op_call(example.graph, example.op)
        space, work = row.space(call), row.work(call)
        inputs, outputs = len(example.op.inputs), len(example.op.outputs)
        assert len(space.access) == inputs, example.name
        assert all(isinstance(a, Access) for a in space.access)
        assert all(isinstance(d, int) and d >= 0 for d in (*space.parallel, *space.reduced)), (
            example.name,
            space,
        )
        if row.lowering is not Lowering.VIEW or work.reads or work.writes:
            assert (len(work.reads), len(work.writes)) == (inputs, outputs), example.name
        numbers = (
            work.contraction_flops,
            work.vector_flops,
            work.transcendentals,
            *work.reads,
            *work.writes,
        )
        assert all(isinstance(n, int) and n >= 0 for n in numbers), (example.name, work)
        assert work.flops == work.contraction_flops + work.vector_flops
        for m in work.matmuls:
            assert all(isinstance(d, int) and d >= 0 for d in (m.batch, m.m, m.n, m.k, m.repeat)), (
                example.name,
                m,
            )
        priced += 1
    assert priced, f"no static example of {kind}"


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in NEVER_STATIC])
def test_inference_and_evaluation_agree_on_a_static_example(kind: str) -> None:
    """Up to eight examples: what evaluates has the types that were inferred (extents from data: at
    most those).
    """
    chosen = [e for e in examples()[kind] if e.name not in SHAPE_NOT_CHECKED][:8]
    assert chosen
    for example in chosen:
        shown = tuple(o for o in example.op.outputs if o)
        results = interpret(replace(example.graph, outputs=shown), example.feeds)
        for name, array in results.items():
            value = example.graph.values[name]
            assert array.dtype == value.dtype.numpy, (example.name, name)
            assert array.ndim == len(value.dims), (example.name, name)
            data_dependent = bool(example.graph.bounds)
            assert all(
                n == d or (data_dependent and n <= d)
                for n, d in zip(array.shape, value.dims, strict=True)
            ), (
                example.name,
                name,
                array.shape,
                value.dims,
            )


@pytest.mark.parametrize("kind", [k for k in KINDS if TABLE[k].lowering is Lowering.MATRIX])
def test_matrix_kinds_say_what_the_matrix_unit_does(kind: str) -> None:
    works = [row_of(e.op).work(op_call(e.graph, e.op)) for e in examples()[kind]]
    assert any(w.contraction_flops > 0 and w.matmuls for w in works)


@pytest.mark.parametrize("kind", [k for k in KINDS if TABLE[k].lowering is Lowering.VIEW])
def test_views_compute_nothing(kind: str) -> None:
    for example in examples()[kind]:
        work = row_of(example.op).work(op_call(example.graph, example.op))
        assert (work.flops, work.transcendentals) == (0, 0), example.name


def test_packed_bytes_of_narrow_types_count_two_and_four_to_a_byte() -> None:
    from tenfold.ir import Value

    sizes = {d: Value("v", d, (5,)).bytes for d in DType if d is not DType.STRING}
    assert sizes[DType.I4] == sizes[DType.U4] == sizes[DType.F4E2M1] == 3
    assert sizes[DType.I2] == sizes[DType.U2] == 2
    assert sizes[DType.F8E4M3] == sizes[DType.I8] == 5
    assert (sizes[DType.BF16], sizes[DType.F32], sizes[DType.C128]) == (10, 20, 80)


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TABLE["matmul"] = TABLE["conv"]  # type: ignore[index]
