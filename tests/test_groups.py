"""Chips that run one network together: stages, links, memory, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tenfold.chips import chip
from tenfold.cli import app
from tenfold.cluster import Layout, grouped, layout_named, layout_of
from tenfold.cluster.stages import in_stages
from tenfold.errors import DoesNotFit, InputError
from tenfold.estimate import Estimate
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.ir import interpret
from tenfold.machine import Together
from tenfold.model import Sizes, load, prepare
from test_partition import FAST, SMALL, built

H100 = chip("h100-sxm")
BF16 = H100.storage("bf16")
run = CliRunner(env={"COLUMNS": "150"}).invoke


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("count", [2, 3])
def test_stages_one_after_the_other_compute_the_whole(name: str, count: int) -> None:
    graph = built(name)
    if count > 2 and name in ("mlp", "lstm"):
        pytest.skip("has fewer operations with weights")
    feeds = seeded_inputs(graph, 0)
    have = dict(feeds)
    stages = in_stages(graph, count, FAST)
    assert len(stages) == count
    for stage in stages:
        have |= interpret(stage.graph, {n: have[n] for n in stage.graph.inputs})
    for n, array in interpret(graph, feeds).items():
        np.testing.assert_array_equal(have[n], array)
    weights = [n for s in stages for n in s.graph.constants if len(graph.values[n].dims) > 1]
    # each weight is in one stage, but for those that two stages use (tied ones)
    shared = len(weights) - len(set(weights))
    assert shared <= 1


def test_a_decoder_is_cut_between_layers() -> None:
    """What is handed on is one activation, and stages are alike but for the two ends."""
    graph = prepare(load("llama-3.1-8b"), Sizes(batch=1, seq=64)).graph
    stages = in_stages(graph, 4, FAST)
    width = 4096 * 64 * 2
    assert [s.sent_bytes for s in stages] == [width, width, width, 0]
    held = [s.graph.parameters for s in stages]
    # the last one has the head's product too, the first one a table that is only looked up
    assert max(held) < 1.4 * min(held)
    assert sum(held) == graph.parameters


class Free:
    """Links on which nothing takes time."""

    def seconds(self, what: Together) -> Estimate:
        assert what.ways > 1
        return Estimate.exact(0.0)

    def sent(self, size_bytes: float, stride: int) -> Estimate:
        assert size_bytes
        assert stride
        return Estimate.exact(0.0)


def test_stages_on_free_links_take_what_one_chip_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.cluster.group.Joined.sent", Free.sent)
    graph = prepare(load("llama-3.1-8b"), Sizes(batch=4, seq=128)).graph
    one, four = (grouped(graph, H100, BF16, 4, Layout(pipeline=n)) for n in (1, 4))
    assert four.time_s.value == pytest.approx(one.time_s.value, rel=0.01)
    assert four.every_s.value == pytest.approx(one.time_s.value / 4, rel=0.15)
    assert four.flops == one.flops


def test_one_chip_is_the_chip_alone() -> None:
    from tenfold.evaluate.profiling import Several, profile_bound

    bound = prepare(load("llama-3.1-8b"), Sizes(batch=4, seq=128))
    alone = profile_bound(bound, H100)
    group = profile_bound(bound, H100, on=Several(Layout()))
    assert group.time_s == alone.time_s
    assert group.energy_j.value == pytest.approx(alone.energy_j.value)
    assert group.mfu == pytest.approx(alone.mfu, rel=0.05)  # scores that are left out


def test_parts_take_less_and_links_more_as_chips_are_added() -> None:
    graph = prepare(load("llama-3.1-8b", "decode"), Sizes(batch=8, seq=1024)).graph
    groups = [grouped(graph, H100, BF16, 8, Layout(tensor=n)) for n in (1, 2, 4, 8)]
    held = [g.memory_bytes for g in groups]
    assert held == sorted(held, reverse=True)
    assert held[3] < 1.05 * held[0] / 8
    times = [g.time_s.value for g in groups]
    assert times == sorted(times, reverse=True)
    shares = [g.together_s / g.time_s.value for g in groups]
    assert shares == sorted(shares)
    assert groups[3].flops == groups[0].flops


def test_copies_share_a_batch() -> None:
    whole = prepare(load("bert-base"), Sizes(batch=8, seq=128)).graph
    part = prepare(load("bert-base"), Sizes(batch=2, seq=128)).graph
    one = grouped(part, H100, BF16, 2, Layout())
    four = grouped(part, H100, BF16, 2, Layout(data=4))
    assert four.time_s == one.time_s
    assert four.flops == 4 * one.flops == grouped(whole, H100, BF16, 8, Layout()).flops
    assert four.energy.total.value == pytest.approx(4 * one.energy.total.value)
    assert four.mfu == pytest.approx(one.mfu)


def test_what_does_not_fit_says_so() -> None:
    graph = prepare(load("llama-3.1-405b"), Sizes(batch=1, seq=16)).graph
    with pytest.raises(DoesNotFit) as caught:
        grouped(graph, H100, BF16, 1, Layout(tensor=8))
    assert "tp=8" in str(caught.value)
    assert grouped(graph, H100, BF16, 1, Layout(tensor=8, pipeline=2)).memory_bytes < 80e9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layout", "tp=3"], "32 heads, 8 of keys and values, which 3 chips cannot share"),
        (["--layout", "xp=3"], "unknown side of a layout 'xp'"),
        (["--layout", "tp="], "a layout is like tp=8"),
        (["--layout", "tp=2,tp=4"], "tp is given twice"),
        (["--layout", "tp=2,dp=4", "--batch", "3"], "a batch of 3 is not shared equally by dp=4"),
        (["--count", "9"], "not whole groups of 8"),
        (["--count", "0"], "must be at least 1"),
        (["--count", "8", "--layout", "tp=4"], "takes 4 chips, and the count is 8"),
        (["--count", "100000"], "joins 1 to 24,576 chips"),
        (["--cluster", "dgx-h100"], "give --count or --layout"),
        (["--count", "8", "--cluster", "tpu-v4-pod"], "h100-sxm is none of them"),
        (["--layout", "pp=400"], "operations with weights: give no more stages"),
    ],
)
def test_layouts_that_cannot_be(arguments: list[str], said: str) -> None:
    found = run(app, ["profile", "llama-3.1-8b", "--chip", "h100-sxm", "--seq", "64", *arguments])
    assert isinstance(found.exception, InputError)  # one line and exit 2, as test_cli has it
    assert said in str(found.exception)


def test_a_layout_is_read_as_it_is_shown() -> None:
    for text in ("tp=8", "tp=4,pp=2", "pp=3,dp=2", "tp=2,pp=2,dp=2"):
        assert str(layout_named(text)) == text
    assert layout_of(8, None) == Layout(tensor=8)
    assert str(layout_of(1, None)) == "tp=1"
    with pytest.raises(InputError):
        layout_of(8, "tp=2")


def test_the_document_of_a_group() -> None:
    asked = ["profile", "llama-3.1-70b", "--chip", "h100-sxm", "--layout", "tp=4,pp=2", "--json"]
    found = json.loads(run(app, [*asked, "--seq", "64"]).stdout)
    (done,) = found["runs"]
    group = done["group"]
    assert group["count"] == 8
    assert group["layout"] == {"tp": 4, "pp": 2, "dp": 1, "ep": 1, "cp": 1}
    assert group["cluster"] == "dgx-h100"
    stages = group["stages"]
    assert len(stages) == 2
    assert done["time_s"] == pytest.approx(sum(s["time_s"] + s["handed_s"] for s in stages))
    assert done["memory_bytes"] == max(s["memory_bytes"] for s in stages) < 80e9
    assert group["every_s"] < done["time_s"]
    assert 0 < group["links_s"] < done["time_s"]
    assert "links to other chips" in {b["unit"] for b in done["bottleneck"]}


def test_stages_hold_the_caches_of_as_many_batches_as_are_on_their_way() -> None:
    """Of n stages each holds its n-th of the weights, and of the caches of n batches."""
    decode = prepare(load("llama-3.1-8b", "decode"), Sizes(batch=32, seq=1024)).graph
    given = (decode.values[n] for n in decode.inputs)
    cached = sum(2 * int(str(v.elements)) for v in given if v.dtype.is_float)
    for n in (2, 4):
        group = grouped(decode, H100, BF16, 32, Layout(pipeline=n))
        one = max(s.run.program.memory_bytes for s in group.stages)
        # a stage without the head's product has a layer more
        assert group.memory_bytes - one == pytest.approx((n - 1) * cached / n, rel=0.15)


def test_a_plan_takes_the_fewest_chips_that_hold_a_model() -> None:
    """One H100 does not hold 141 GB: two share every layer, and what is counted, rented and powered
    are chips.
    """
    asked = ["plan", "llama-3.1-70b", "--seq", "128", "--slo", "1s", "--rate", "20", "--json"]
    found = json.loads(run(app, [*asked, "--chip", "h100-sxm,t4"]).stdout)
    (best,) = found["options"]
    assert best["together"] == 2
    assert best["count"] % 2 == 0
    assert best["spare"] == 2
    assert sum(r["chips"] for r in best["rented"]) >= best["count"]
    assert 50 < best["power_w"] < 750  # of one chip
    (refused,) = found["rejected"]
    assert refused["chip"] == "t4"
    assert "of 8 together 137 GB" in refused["reason"]
    shown = run(app, [*asked[:-1], "--chip", "h100-sxm"]).output
    assert f"in {best['count'] // 2} groups of 2" in shown
    assert "h100-sxm, tp=2" in shown


def test_a_plan_takes_more_chips_where_the_fewest_are_too_slow() -> None:
    graph = prepare(load("llama-3.1-70b"), Sizes(seq=512)).graph
    two, four = (grouped(graph, H100, BF16, 1, Layout(tensor=n)).time_s.value * 1e3 for n in (2, 4))
    asked = ["plan", "llama-3.1-70b", "--seq", "512", "--rate", "2", "--json"]
    slo = f"{2.6 * four:.1f}ms"  # who comes while a batch runs waits for it
    found = json.loads(run(app, [*asked, "--slo", slo, "--chip", "h100-sxm"]).stdout)
    assert found["options"][0]["together"] == 4
    assert four * 1e-3 < found["options"][0]["p99_s"] < 2 * two * 1e-3
