"""A network on several chips computes what it computes on one: every family of the zoo, small, and
real files; what is cut, what is added up, and what every chip holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tenfold.cluster.functional import interpret_parts
from tenfold.cluster.part import Part, Prices
from tenfold.cluster.partition import partition
from tenfold.errors import InputError
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.families import FAMILIES
from tenfold.ir import DType, Graph, graph_totals, interpret
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering
from tenfold.model import Sizes, load, prepare

FAST = Prices(memory_bytes_per_s=3e12, flops_per_s=9e14, link_bytes_per_s=4e11, link_s=1e-5)
FREE = Prices(memory_bytes_per_s=1.0, flops_per_s=1.0, link_bytes_per_s=1e30, link_s=0.0)
DECODER: dict[str, Any] = {"layers": 2, "width": 32, "inner": 64, "heads": 8, "vocabulary": 64}
MIXED = {"count": 4, "top_k": 2, "inner": 32}
LATENT = {"q_rank": 16, "kv_rank": 16, "nope_dim": 8, "rope_dim": 4, "value_dim": 8}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("decoder", DECODER),
    "two heads of keys": ("decoder", {**DECODER, "kv_heads": 2}),
    "one head of keys, side by side": ("decoder", {**DECODER, "kv_heads": 1, "parallel": True}),
    "gpt-2, tied": (
        "decoder",
        {
            **DECODER, "rope": False, "positions": 32, "norm": "layer", "gated": False,
            "function": "gelu_tanh", "qkv_bias": True, "out_bias": True, "mlp_bias": True,
            "tied": True,
        },
    ),
    "gemma": (
        "decoder",
        {
            **DECODER, "softcap": 30.0, "logit_softcap": 20.0, "post_norms": True, "tied": True,
            "windows": (3, 0), "qk_norm": True, "scaled_embedding": True,
        },
    ),
    "mixtral": ("decoder", {**DECODER, "experts": {**MIXED, "shared_inner": 16}}),
    "switch": (
        "decoder",
        {**DECODER, "experts": {"count": 4, "top_k": 1, "inner": 32, "gated": False,
                                "capacity": 2}},
    ),
    "deepseek": (
        "decoder",
        {**DECODER, "latent": LATENT,
         "experts": {**MIXED, "shared_inner": 16, "score": "sigmoid", "bias": True}},
    ),
    "t5": ("seq2seq", {**DECODER, "head_dim": 4, "buckets": 4}),
    "transformer": (
        "seq2seq",
        {**DECODER, "head_dim": 4, "norm": "layer", "pre_norm": False, "bias": True},
    ),
    "bert": ("encoder", {**DECODER, "positions": 16, "types": 2, "pooler": True}),
    "vit": (
        "encoder",
        {"layers": 2, "width": 32, "inner": 64, "heads": 8, "image": 16, "patch": 4,
         "classes": 8, "pre_norm": True},
    ),
    "dit": (
        "diffusion",
        {"layers": 2, "width": 32, "inner": 64, "heads": 8, "size": 8, "patch": 2, "channels": 4,
         "classes": 8},
    ),
    "lstm": ("cells", {"layers": 2, "width": 16, "inputs": 16}),
    "gnmt": (
        "translator",
        {"encoder_layers": 2, "decoder_layers": 2, "width": 16, "source_vocabulary": 64,
         "target_vocabulary": 64},
    ),
    "rnn-t": (
        "transducer",
        {"inputs": 16, "before": 2, "after": 2, "stacking": 2, "width": 16,
         "prediction_layers": 1, "prediction_width": 16, "joint": 32, "characters": 29},
    ),
    "dlrm": ("recommender", {"bottom": (13, 16, 8), "top": (32, 16, 1), "tables": (64, 8, 3)}),
    "mlp": ("stack", {"widths": (32, 64, 32, 64)}),
    "cnn": ("plain", {"size": 9, "channels": 8, "layers": ((16, 5), (16, 3)), "heads": (1, 1)}),
}  # fmt: skip
# whose every product is cut in eight: no router, no step of a recurrence, no single head
ALL_SHARED = ("llama", "gpt-2, tied", "gemma", "t5", "bert", "vit", "mlp", "cnn")
GENERATES = ("llama", "two heads of keys", "gemma", "deepseek", "t5")


def built(name: str, phase: str = "forward", batch: int = 2, seq: int = 6) -> Graph:
    from msgspec import convert

    from tenfold.families.decoder import Phase

    family, shape = SMALL[name]
    row = FAMILIES[family]
    graph = row.build(name, convert(shape, row.shape), Phase(phase), DType.F32)
    wanted = Sizes(batch=batch, seq=seq if "seq" in str(graph.symbols) else None)
    return weighted(prepare(graph, wanted).graph)


def weighted(graph: Graph) -> Graph:
    """``graph`` with seeded weights where it has none."""
    rng = np.random.default_rng(0)

    def content(name: str) -> Any:
        value = graph.values[name]
        shape = [int(d) for d in value.dims]
        return (rng.standard_normal(shape) * 0.3).astype(value.dtype.numpy)

    found = {n: content(n) if a is None else a for n, a in graph.constants.items()}
    return replace(graph, constants=found)


def check(
    graph: Graph,
    ways: int,
    prices: Prices,
    like: Mapping[str, str] = {},
    *,
    sequence: bool = False,
) -> tuple[Part, ...]:
    """The whole and its parts give the same."""
    feeds = seeded_inputs(graph, 0)
    parts = partition(graph, ways, prices, like=like, sequence=sequence)
    want, got = interpret(graph, feeds), interpret_parts(graph, parts, feeds)
    sizes = {n: float(np.abs(a.astype(np.float64)).max(initial=0.0)) for n, a in want.items()}
    usual = float(np.median(list(sizes.values())))
    for name, array in want.items():
        # some gradients are zero but for rounding (of a bias that all scores of a row have)
        scale = max(sizes[name], 1e-6 * usual, 1e-9)
        np.testing.assert_allclose(
            got[name].astype(np.float64), array.astype(np.float64), rtol=1e-4, atol=1e-5 * scale,
            err_msg=name,
        )  # fmt: skip
    return parts


def together(part: Part) -> Counter[str]:
    return Counter(op.kind for op in part.graph.ops if row_of(op).together is not None)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_the_parts_of_every_family_compute_the_whole(name: str, ways: int) -> None:
    graph = built(name)
    for prices in (FAST, FREE):
        parts = check(graph, ways, prices)
        whole = int(str(graph_totals(graph).contraction_flops))
        each = int(str(graph_totals(parts[-1].graph).contraction_flops))
        shared = whole / ways
        # what is done once in all parts together, or by every chip again
        assert shared <= each <= whole
        assert parts[-1].repeated_flops >= 0
        if name in ALL_SHARED and prices is FREE:
            assert each * ways == whole


@pytest.mark.parametrize("name", GENERATES)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_caches_are_cut_with_the_heads_that_fill_them(name: str, phase: str) -> None:
    graph = built(name, phase)
    (part, *_) = check(graph, 2, FAST)
    caches = [n for n in graph.inputs if n.startswith("cache") and len(graph.values[n].dims) == 4]
    if name != "deepseek":  # whose cache is one for all heads
        assert all(part.inputs[n] is not None for n in caches)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "densenet121"])
@pytest.mark.parametrize("ways", [2, 4])
def test_the_parts_of_real_files_compute_the_whole(name: str, ways: int) -> None:
    """Convolutions by filters and by channels, in groups, with biases that are added once."""
    check(weighted(prepare(load(name), Sizes(batch=1)).graph), ways, FAST)


def test_a_transformer_layer_is_megatrons() -> None:
    """Columns, then rows, and one sum each for attention and feed-forward (Shoeybi et al. 2019,
    section 3): found by the index maps.
    """
    graph = prepare(load("llama-3.1-70b"), Sizes(batch=1, seq=128)).graph
    (part,) = partition(graph, 8, FAST)
    assert together(part) == {"all_reduce": 160, "all_gather": 1}
    assert part.repeated_flops == 0
    norms = sum(
        int(str(graph.values[n].elements))
        for n in graph.constants
        if len(graph.values[n].dims) == 1
    )
    assert part.graph.parameters == pytest.approx(graph.parameters / 8, abs=norms)
    moved = [op for op in part.graph.ops if row_of(op).lowering is Lowering.TOGETHER]
    assert all(op.attrs["ways"] == 8 and op.attrs["stride"] == 1 for op in moved)


def test_experts_and_what_all_tokens_pass_are_summed_once() -> None:
    graph = prepare(load("deepseek-v3"), Sizes(batch=1, seq=128)).graph
    (part,) = partition(graph, 8, FAST)
    assert together(part)["all_reduce"] == 2 * 61


def test_fewer_heads_of_keys_than_chips_are_shared() -> None:
    """Sixteen chips and eight heads of keys: two chips hold the same head, and sum at once."""
    graph = prepare(load("llama-3.1-70b"), Sizes(batch=1, seq=128)).graph
    parts = partition(graph, 16, FAST)
    assert [p.ways for p in parts] == [8, 2]
    sums = [op for op in parts[-1].graph.ops if op.kind == "all_reduce"]
    assert len(sums) == 160
    assert {op.attrs["ways"] for op in sums} == {16}


def test_heads_that_do_not_divide_are_refused() -> None:
    graph = prepare(load("gpt2"), Sizes(batch=1, seq=16)).graph
    with pytest.raises(InputError) as caught:
        partition(graph, 8, FAST)
    assert "12 heads" in str(caught.value)
    assert "allowed are 1, 2, 3, 4, 6, 12" in str(caught.value)


def test_more_chips_hold_less_each() -> None:
    graph = prepare(load("llama-3.1-8b"), Sizes(batch=1, seq=128)).graph
    held = [partition(graph, n, FAST)[-1].graph.parameters for n in (1, 2, 4, 8)]
    assert held == sorted(held, reverse=True)
    assert held[0] == graph.parameters
    assert held[3] < 1.01 * held[0] / 8


def test_a_cut_that_costs_more_than_it_saves_is_not_made() -> None:
    """Narrow products behind which rows are needed whole (DeepSeek's latent projections) stay on
    every chip where links are slow, and are cut where they cost nothing.
    """
    graph = built("deepseek")
    slow = partition(graph, 4, replace(FAST, link_s=1.0))[-1]
    free = partition(graph, 4, FREE)[-1]
    assert slow.repeated_flops > free.repeated_flops
    assert together(slow)["all_gather"] < together(free)["all_gather"]
