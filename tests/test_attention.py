"""Attention: masks of every shape with and without causality, and caches whose sequences differ in
length, against ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from support import check_values, imported, model_of, runtime
from tenfold.errors import ModelError
from tenfold.ir import bind, graph_totals, interpret, verify
from tenfold.ir.graph import Array
from tenfold.machine.kernel import Attention

F = np.float32
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(F)


def ours(model: Any, feeds: dict[str, Array]) -> list[Array]:
    graph = imported(model)
    verify(graph)
    results = interpret(graph, feeds)
    return [results[name] for name in graph.outputs]


# --- the standard's op ------------------------------------------------------------------


def standard(mask: Array, **attrs: Any) -> tuple[Any, dict[str, Array]]:
    """Two sequences, three heads, four queries over six keys."""
    feeds = {"q": QUERY, "k": KEYS[0], "v": KEYS[1], "m": mask}
    node = helper.make_node("Attention", list(feeds), ["y"], **attrs)
    return (
        model_of([node], {n: (a.dtype, a.shape) for n, a in feeds.items()}, ["y"], opset=23),
        feeds,
    )


QUERY, KEYS = normal(2, 3, 4, 8), (normal(2, 3, 6, 8), normal(2, 3, 6, 8))
MASKS = [(4, 6), (1, 6), (2, 1, 1, 6), (2, 3, 4, 6), (1, 1, 4, 6), (3, 1, 6), (2, 1, 4, 6)]


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("boolean", [False, True])
@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_a_mask_of_any_shape(shape: tuple[int, ...], boolean: bool, causal: int) -> None:
    """Equal to ONNX Runtime and to the standard's evaluator given the mask with all its query
    rows.
    """
    mask = RNG.random(shape) < 0.6 if boolean else normal(*shape)
    if boolean:
        mask[..., 0] = True
    model, feeds = standard(mask, is_causal=causal)
    (got,) = ours(model, feeds)
    whole, wide = standard(
        np.ascontiguousarray(np.broadcast_to(mask, (*shape[:-2], 4, 6))), is_causal=causal
    )
    for want in (runtime(whole, wide)[0], ReferenceEvaluator(whole).run(None, wide)[0]):
        check_values(got, want, 1e-5, 1e-6)


def test_heads_said_twice() -> None:
    """Before opset 25 a node on rank 4 may also name its heads."""
    model, feeds = standard(normal(4, 6), is_causal=1, q_num_heads=3, kv_num_heads=3)
    check_values(ours(model, feeds)[0], runtime(model, feeds)[0], 1e-5, 1e-6)


@pytest.mark.parametrize("shape", [(3, 6), (4, 7), (5, 1, 4, 6), (2, 2, 4, 6)], ids=str)
def test_a_mask_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    model, feeds = standard(normal(*shape))
    with pytest.raises(
        ModelError,
        match=(
            r"node 'y' \(attention .*: the mask has the shape .*, must spread over \[2, 3, 4, 6\]"
        ),
    ):
        imported(model)
    with pytest.raises(Exception, match="Attention"):
        runtime(model, feeds)


# --- ONNX Runtime's ops -----------------------------------------------------------------


def private(
    op: str, feeds: dict[str, Array], names: list[str], outputs: list[str], **attrs: Any
) -> tuple[Any, dict[str, Array]]:
    node = helper.make_node(op, names, outputs, domain="com.microsoft", **attrs)
    model = model_of(
        [node], {n: (a.dtype, a.shape) for n, a in feeds.items()}, outputs, microsoft=True
    )
    return model, feeds


PADDED = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], np.int32)
TRIANGLE = np.tril(np.ones((2, 5, 5), np.int32))
TRIANGLE[1, :, 1] = 0


@pytest.mark.parametrize("mask", [PADDED, TRIANGLE], ids=["keys", "queries and keys"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("op", ["Attention", "MultiHeadAttention"])
def test_causal_and_masked_together(op: str, causal: int, biased: bool, mask: Array) -> None:
    if op == "Attention":
        feeds, names = (
            {"x": normal(2, 5, 16), "w": normal(16, 48), "b": normal(48), "m": mask},
            ["x", "w", "b", "m"],
        )
    else:
        feeds = {"q": normal(2, 5, 16), "k": normal(2, 5, 16), "v": normal(2, 5, 16), "m": mask}
        names = ["q", "k", "v", "", "m"]
    if biased:
        feeds["bias"] = normal(2, 4, 5, 5)
        names += ["", "bias"] if op == "Attention" else ["bias"]
    model, feeds = private(op, feeds, names, ["y"], num_heads=4, unidirectional=causal)
    check_values(ours(model, feeds)[0], runtime(model, feeds)[0], 1e-4, 2e-5)


def test_a_mask_whose_rank_depends_on_data_is_refused() -> None:
    feeds = {"x": normal(2, 5, 16), "w": normal(16, 48), "b": normal(48), "shape": np.array([2, 5])}
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", 6, [1], [1])
        ),
        helper.make_node(
            "Attention", ["x", "w", "b", "ones"], ["y"], domain="com.microsoft", num_heads=4
        ),
    ]
    inputs: dict[str, Any] = {n: (a.dtype, a.shape) for n, a in feeds.items()}
    with pytest.raises(
        ModelError, match=r"node 'y' \(Attention\): the rank of 'ones' depends on data"
    ):
        imported(model_of(nodes, {**inputs, "shape": (np.int64, ["rank"])}, ["y"], microsoft=True))


def test_causality_without_order_is_refused() -> None:
    """Which of seven keys precede three queries is nowhere said; ONNX Runtime lets the last query
    see all, the others not.
    """
    feeds = {"q": normal(1, 3, 8), "k": normal(1, 7, 8), "v": normal(1, 7, 8)}
    model, _ = private(
        "MultiHeadAttention", feeds, list(feeds), ["y"], num_heads=1, unidirectional=1
    )
    with pytest.raises(
        ModelError, match="causal MultiHeadAttention of 3 queries over 7 keys needs a past of 4"
    ):
        imported(model)


def grouped(
    step: int, past: int | None, ends: list[int], total: int, bias: tuple[int, ...] | None = None
) -> tuple[Any, dict[str, Array]]:
    """Two query heads over one pair of keys and values; ``ends`` are the sequences' lengths less
    one.
    """
    b = len(ends)
    feeds = {"q": normal(b, step, 16), "k": normal(b, step, 8), "v": normal(b, step, 8)}
    names = ["q", "k", "v", "", "", "s", "t"]
    if past is not None:
        feeds |= {"pk": normal(b, 1, past, 8), "pv": normal(b, 1, past, 8)}
        names[3:5] = ["pk", "pv"]
    feeds |= {"s": np.array(ends, np.int32), "t": np.array(total, np.int32)}
    if bias:
        feeds["bias"] = normal(*bias)
        names += ["", "", "", "bias"]
    return private(
        "GroupQueryAttention", feeds, names, ["y", "keys", "values"], num_heads=2, kv_num_heads=1
    )


@pytest.mark.parametrize(
    ("step", "past", "ends", "total", "bias"),
    [
        (4, None, [3, 3], 4, None),
        (4, None, [1, 3], 4, None),
        (4, None, [1, 3], 4, (2, 1, 4, 4)),
        (4, 8, [3, 3], 4, None),
        (4, 8, [1, 2], 4, None),
        (1, 3, [3, 3], 4, None),
        (1, 3, [1, 3], 4, None),
        (1, 3, [1, 3], 4, (1, 2, 1, 4)),
        (1, 8, [2, 5], 6, None),
        (1, 8, [2, 5], 8, None),
        (1, 8, [2, 5], 6, (2, 2, 1, 6)),
        (3, 5, [7], 8, None),
        (3, 9, [7], 8, None),
        (1, 3, [1, 2], 3, None),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_each_sequence_of_a_cache_has_its_own_length(
    step: int,
    past: int | None,
    ends: list[int],
    total: int,
    bias: tuple[int, ...] | None,
    known: bool,
) -> None:
    """Results and caches equal ONNX Runtime's, whether lengths come with the file or with the
    input.
    """
    model, feeds = grouped(step, past, ends, total, bias)
    if known:
        fixed = {n: feeds.pop(n) for n in ("s", "t")}
        inputs = [i for i in model.graph.input if i.name not in fixed]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.graph.initializer.extend(
            helper.make_tensor(n, 6, a.shape, a.reshape(-1).tolist()) for n, a in fixed.items()
        )
    for got, want in zip(ours(model, feeds), runtime(model, feeds), strict=True):
        check_values(got, want, 1e-4, 1e-5)


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize(
    ("step", "past", "ends", "total"), [(6, None, [5, 5], 6), (1, 8, [8, 5], 9), (3, 9, [7], 8)]
)
def test_a_window_of_grouped_attention(
    window: int, step: int, past: int | None, ends: list[int], total: int
) -> None:
    """Each query meets at most ``window`` keys, itself included, as in ONNX Runtime."""
    model, feeds = grouped(step, past, ends, total)
    model.graph.node[0].attribute.append(helper.make_attribute("local_window_size", window))
    for got, want in zip(ours(model, feeds), runtime(model, feeds), strict=True):
        check_values(got, want, 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("causal", "queries", "keys", "window"),
    [
        (True, 1000, 1000, 200),
        (True, 512, 2048, 700),
        (True, 1, 900, 64),
        (True, 300, 300, 300),
        (False, 640, 640, 129),
    ],
)
def test_scores_computed_in_a_window_are_those_of_the_blocks_it_touches(
    causal: bool, queries: int, keys: int, window: int
) -> None:
    """Counted one block of 128 queries at a time; a window to both sides ends where the keys do,
    which the closed form leaves out.
    """
    past, side = keys - queries, window - 1 if causal else window // 2
    seen = 0
    for start in range(0, queries, 128):
        rows = min(128, queries - start)
        last = past + start + rows if causal else min(keys, start + rows + side)
        seen += rows * (last - max(0, past + start - side))
    a = Attention(
        batch=1,
        heads=8,
        kv_heads=8,
        q_len=queries,
        kv_len=keys,
        head_dim=64,
        causal=causal,
        window=window,
    )
    assert a.computed == pytest.approx(seen / (queries * keys), rel=0.03 if causal else 0.12)
    assert (
        a.computed
        < Attention(
            batch=1, heads=8, kv_heads=8, q_len=queries, kv_len=keys, head_dim=64, causal=causal
        ).computed
        or window >= keys
    )


def test_the_cache_takes_no_more_than_its_past_and_the_step() -> None:
    """How long the cache becomes is known from the total, or bounded without it; and the price
    counts it.
    """
    model, _ = grouped(2, 6, [4], 5)
    graph = imported(model)
    assert not graph.is_static
    priced = bind(graph, {}, assume_bounds=True)
    assert priced.values["keys"].shape == (1, 1, 8, 8)
    assert graph_totals(priced).contraction_flops == 2 * 2 * (2 * 2 * 8 * 8)


@pytest.mark.parametrize(
    ("step", "past", "ends", "total"),
    [(1, 3, [4], 4), (2, 3, [0], 5), (1, 3, [5], 6), (2, 2, [3, 3], 9)],
)
def test_lengths_that_do_not_fit_the_cache(
    step: int, past: int, ends: list[int], total: int
) -> None:
    model, feeds = grouped(step, past, ends, total)
    feeds["s"] = feeds["s"] if len(ends) == 1 else feeds["s"] + 9
    with pytest.raises(
        ModelError,
        match=(
            r"sequences of lengths \[.*\] do not fit a past of \d, a step of \d and a total of \d"
        ),
    ):
        ours(model, feeds)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"softcap": 5.0}, "softcap"),
        ({"smooth_softmax": 1}, "smooth softmax"),
    ],
)
def test_what_grouped_attention_cannot_honour_is_refused(
    attrs: dict[str, Any], message: str
) -> None:
    model, _ = grouped(1, 3, [3], 4)
    model.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in attrs.items())
    with pytest.raises(ModelError, match=f"node 'y': GroupQueryAttention with .*{message}"):
        imported(model)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(
    ("step", "past", "ends", "total"),
    [
        (4, None, [3, 3], 4),
        (4, None, [1, 3], 4),
        (1, 3, [3, 3], 4),
        (1, 3, [1, 3], 4),
        (1, 8, [5, 2], 6),
    ],
)
def test_packed_and_turned_grouped_attention_is_that_of_onnx_runtime(
    step: int,
    past: int | None,
    ends: list[int],
    total: int,
    rotary: bool,
    packed: bool,
    interleaved: int,
) -> None:
    """Two query heads of 16 over one of keys and values, as the model builder of
    onnxruntime-genai writes them.
    """
    if interleaved and not rotary:
        pytest.skip("only what is turned is turned in pairs")
    b, head = len(ends), 16
    widths = {"q": 2 * head, "k": head, "v": head}
    feeds = {n: normal(b, step, w) for n, w in widths.items()}
    names = ["q", "k", "v", "", "", "s", "t"]
    if packed:
        feeds = {"q": np.concatenate(list(feeds.values()), axis=-1)}
        names[1:3] = ["", ""]
    if past is not None:
        feeds |= {"pk": normal(b, 1, past, head), "pv": normal(b, 1, past, head)}
        names[3:5] = ["pk", "pv"]
    feeds |= {"s": np.array(ends, np.int32), "t": np.array(total, np.int32)}
    attrs: dict[str, Any] = {"num_heads": 2, "kv_num_heads": 1}
    if rotary:
        angles = np.arange(12)[:, None] / 10.0 ** (np.arange(head // 2) / 4)
        feeds |= {"cos": np.cos(angles, dtype=np.float32), "sin": np.sin(angles, dtype=np.float32)}
        names += ["cos", "sin"]
        attrs |= {"do_rotary": 1, "rotary_interleaved": interleaved}
    model, feeds = private("GroupQueryAttention", feeds, names, ["y", "keys", "values"], **attrs)
    mine, theirs = ours(model, feeds), runtime(model, feeds)
    for i, end in enumerate(ends):
        # what lies behind a sequence's end is nobody's
        rows = slice(None) if step == 1 else slice(0, end + 1)
        check_values(mine[0][i, rows], theirs[0][i, rows], 1e-4, 2e-5)
        check_values(mine[1][i, :, : end + 1], theirs[1][i, :, : end + 1], 1e-4, 2e-5)


def test_packed_heads_that_do_not_divide_the_width_are_refused() -> None:
    feeds = {"q": normal(1, 1, 30), "s": np.array([0], np.int32), "t": np.array(1, np.int32)}
    names = ["q", "", "", "", "", "s", "t"]
    model, _ = private("GroupQueryAttention", feeds, names, ["y"], num_heads=2, kv_num_heads=1)
    with pytest.raises(ModelError, match="packed into a width of 30, which they do not divide"):
        imported(model)


def test_a_head_sink_is_refused() -> None:
    model, _ = grouped(1, 3, [3], 4, (1, 2, 1, 4))
    model.graph.node[0].input.append("q")
    with pytest.raises(ModelError, match="node 'y': GroupQueryAttention with a head sink"):
        imported(model)
