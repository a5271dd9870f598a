"""Sequences apart on several chips: the same results, what it saves and costs, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from tenfold.chips import chip
from tenfold.cluster import Layout
from tenfold.cluster.apart import check_context, context_apart
from tenfold.cluster.functional import interpret_parts
from tenfold.cluster.group import grouped
from tenfold.cluster.partition import partition
from tenfold.cluster.training import Recompute, Shard, Step, Training, training_step
from tenfold.errors import InputError
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.ir import Graph, interpret
from tenfold.ir.gradient import differentiated, trained
from tenfold.ir.sharding import Cut
from tenfold.machine.kernel import Attention
from tenfold.model import Sizes, load, prepare
from test_partition import FAST, built

H100 = chip("h100-sxm")
BF16 = H100.storage("bf16")
ABLE = ("llama", "two heads of keys", "gemma", "mixtral", "deepseek")


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("ways", [2, 3])
def test_apart_they_give_what_whole_sequences_give(name: str, ways: int) -> None:
    whole, own = built(name), built(name, seq=6 // ways)
    feeds = seeded_inputs(whole, 0)
    check_context(own, ways)
    got = interpret_parts(whole, (context_apart(own, ways, 1),), feeds)
    for n, want in interpret(whole, feeds).items():
        np.testing.assert_allclose(got[n], want, rtol=1e-4, atol=1e-5, err_msg=n)


def test_a_stretch_of_a_layer_is_shared_as_a_layer_is() -> None:
    whole, own = built("llama"), built("llama", seq=3)
    feeds = seeded_inputs(whole, 0)
    part = context_apart(own, 2, 4)
    got = interpret_parts(whole, (part, *partition(part.graph, 4, FAST)), feeds)
    for n, want in interpret(whole, feeds).items():
        np.testing.assert_allclose(got[n], want, rtol=1e-4, atol=1e-5, err_msg=n)


def test_gradients_of_weights_add_up_to_those_of_the_whole() -> None:
    """Each chip has those of its stretch, joined here one below the other."""
    made = {seq: differentiated(g, trained(g)) for seq in (6, 3) if (g := built("llama", seq=seq))}
    whole, own = made[6], made[3]
    feeds = seeded_inputs(whole.graph, 0)
    want = interpret(whole.graph, feeds)
    part = context_apart(own.graph, 2, 1)
    part = replace(part, outputs=dict.fromkeys(part.outputs, Cut(0)))
    got = interpret_parts(whole.graph, (part,), feeds)
    weights = [n for n in whole.grads if n in whole.graph.constants]
    assert len(weights) > 10
    for weight in weights:
        name = whole.grads[weight]
        parts = got[own.grads[weight]]
        total = sum(np.split(parts, 2))
        np.testing.assert_allclose(total, want[name], rtol=2e-3, atol=1e-4, err_msg=weight)


def test_spread_queries_see_half_of_the_keys() -> None:
    """As many in the mean as all queries see, whatever share of them a chip has."""
    whole = Attention(1, 8, 8, 8192, 8192, 128, causal=True)
    part = replace(whole, q_len=1024, spread=True)
    assert part.computed == whole.computed
    assert replace(part, spread=False).computed > 0.9


@lru_cache(maxsize=8)
def llama(seq: int) -> Graph:
    return prepare(load("llama-3.1-8b"), Sizes(batch=1, seq=seq)).graph


def step(layout: Layout, seq: int = 32_768) -> Step:
    training = Training(layout, recompute=Recompute.FULL, shard=Shard.WEIGHTS)
    return training_step(llama(seq // layout.context), H100, BF16, training, 8)


def test_stretches_hold_less_and_gather_keys() -> None:
    copies, apart = step(Layout(data=8)), step(Layout(data=2, context=4))
    assert apart.flops == pytest.approx(copies.flops, rel=1e-3)
    assert apart.memory.activations == pytest.approx(copies.memory.activations / 4, rel=0.01)
    assert apart.memory.weights == pytest.approx(copies.memory.weights)
    assert apart.entries["links between parts of a layer"] > 0
    # the same work in the same time, but for the links
    busy = [
        sum(s.entries.get(n, 0.0) for n in ("forward", "backward", "computed again"))
        for s in (copies, apart)
    ]
    assert busy[1] == pytest.approx(busy[0], rel=0.1)


def test_what_cannot_lie_apart() -> None:
    with pytest.raises(InputError, match="in training only"):
        grouped(llama(512), H100, BF16, 1, Layout(context=2))
    for name, said in (("t5", "mixes tokens beside it"), ("cnn", "no attention in one kernel")):
        with pytest.raises(InputError, match=said):
            check_context(built(name), 2)
