"""Experts apart on several chips: the same results, what it saves and costs, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from tenfold.chips import chip
from tenfold.cluster import Layout, topology_named
from tenfold.cluster.apart import Experts, experts_apart, experts_of
from tenfold.cluster.functional import interpret_parts
from tenfold.cluster.group import Group, grouped
from tenfold.cluster.layout import layout_named
from tenfold.cluster.partition import partition
from tenfold.cluster.training import Recompute, Shard, Step, Training, training_step
from tenfold.errors import InputError
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.ir import Graph, interpret
from tenfold.ir.gradient import differentiated, trained
from tenfold.model import Sizes, load, prepare
from test_partition import FAST, SMALL, built

H100 = chip("h100-sxm")
BF16 = H100.storage("bf16")
MIXED = ("mixtral", "switch", "deepseek")


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("ways", [2, 4])
def test_apart_they_give_what_they_give_together(name: str, ways: int) -> None:
    """Each chip has sequences of its own; the busiest could get all tokens."""
    whole, own = built(name, batch=ways), built(name, batch=1)
    feeds = seeded_inputs(whole, 0)
    part = experts_apart(own, Experts(ways))
    assert len(experts_of(own)) > 0
    assert part.graph.parameters < own.parameters
    got = interpret_parts(whole, (part,), feeds)
    for n, want in interpret(whole, feeds).items():
        np.testing.assert_allclose(got[n], want, rtol=1e-4, atol=1e-5, err_msg=n)


@pytest.mark.parametrize("name", MIXED)
def test_gradients_of_experts_are_whole_on_the_chip_that_holds_them(name: str) -> None:
    whole, own = (_backward(built(name, batch=b)) for b in (2, 1))
    feeds = seeded_inputs(whole[0], 0)
    part = experts_apart(own[0], Experts(2))
    want, got = interpret(whole[0], feeds), interpret_parts(whole[0], (part,), feeds)
    for weight in experts_of(whole[0]):
        grad = whole[1][weight]
        np.testing.assert_allclose(got[grad], want[grad], rtol=2e-3, atol=1e-4, err_msg=weight)


def _backward(graph: Graph) -> tuple[Graph, dict[str, str]]:
    made = differentiated(graph, trained(graph))
    grads = {n: g for n, g in made.grads.items() if n in graph.constants}
    return made.graph, grads


def test_each_expert_is_cut_too_where_chips_share_a_layer() -> None:
    whole, own = built("mixtral", batch=2), built("mixtral", batch=1)
    feeds = seeded_inputs(whole, 0)
    apart = experts_apart(own, Experts(2, stride=2))
    parts = (apart, *partition(apart.graph, 2, FAST))
    got = interpret_parts(whole, parts, feeds)
    for n, want in interpret(whole, feeds).items():
        np.testing.assert_allclose(got[n], want, rtol=1e-4, atol=1e-5, err_msg=n)


@lru_cache(maxsize=8)
def mixtral(batch: int, seq: int = 512) -> Graph:
    return prepare(load("mixtral-8x7b"), Sizes(batch=batch, seq=seq)).graph


def group(layout: Layout, batch: int = 1) -> Group:
    return grouped(mixtral(batch), H100, BF16, batch, layout)


def test_a_chip_holds_its_share_of_experts_and_waits_for_their_tokens() -> None:
    apart, together = group(Layout(data=8, experts=8)), group(Layout(tensor=8))
    plain = mixtral(1)
    experts = sum(int(str(plain.values[n].elements)) for n in experts_of(plain))
    held = apart.slowest.program.weight_bytes / 2
    assert held == pytest.approx(plain.parameters - experts * 7 / 8, rel=0.01)
    assert together.slowest.program.weight_bytes / 2 < held
    exchanged = [k for k in apart.slowest.kernels if k.kernel.together]
    assert len(exchanged) == 2 * 32  # there and back in each layer
    assert apart.flops == 8 * together.flops


def step(**changes: Any) -> Step:
    plain = Training(Layout(data=8, experts=8), micro=1, recompute=Recompute.FULL)
    return training_step(mixtral(1), H100, BF16, replace(plain, **changes), 8)


def test_apart_in_training_less_is_held_and_summed() -> None:
    apart, plain = (step(layout=Layout(data=8, experts=n)) for n in (8, 1))
    for part in ("weights", "gradients", "optimiser"):
        assert getattr(apart.memory, part) < 0.25 * getattr(plain.memory, part)
    assert apart.flops == plain.flops
    assert apart.entries["optimiser"] < 0.25 * plain.entries["optimiser"]
    assert apart.entries["links between parts of a layer"] > 0
    assert "links between parts of a layer" not in plain.entries
    # experts that nobody else holds are not shared further
    shared = step(shard=Shard.OPTIMISER)
    experts = sum(c.experts for c in shared.chunks)
    rest = sum(c.weights for c in shared.chunks) - experts
    assert shared.memory.optimiser == pytest.approx(12 * (experts + rest / 8))


def test_the_busiest_chip_sets_the_pace() -> None:
    even, skewed = (step(skew=s) for s in (1.0, 2.0))
    assert skewed.time.value > 1.2 * even.time.value


def test_plain_links_have_no_kernels_for_tokens() -> None:
    """Each choice of a token is sent on its own where links are no switch."""
    layout = Layout(data=8, experts=8)
    switched, cards = (
        grouped(mixtral(1), H100, BF16, 1, layout, topology=t)
        for t in (
            topology_named("dgx-h100"),
            replace(topology_named("pcie-box"), chips=("h100-sxm",)),
        )
    )
    assert switched.together_s < cards.together_s


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dp=8,ep=3", "give a divisor"),
        ("ep=8", "dp x cp = 1"),
    ],
)
def test_layouts_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        layout_named(text)


def test_networks_whose_experts_cannot_lie_apart() -> None:
    with pytest.raises(InputError, match="8 experts, which 16 chips cannot share equally"):
        group(Layout(data=16, experts=16))
    gpt = prepare(load("gpt2"), Sizes(batch=1, seq=64)).graph
    with pytest.raises(InputError, match="gpt2 has no experts to lie apart"):
        grouped(gpt, H100, BF16, 1, Layout(data=2, experts=2))


def test_small_networks_are_those_with_experts() -> None:
    assert {n for n in SMALL if experts_of(built(n))} == set(MIXED)
