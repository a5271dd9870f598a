"""Topologies and collectives: laws that hold for every way, counts that are refused, and rows of
`predict`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tenfold.chips import chip, names
from tenfold.cluster import (
    Collective,
    Exchange,
    Link,
    Shape,
    Tokens,
    Way,
    collective,
    exchange,
    link_facts,
    topology_named,
    topology_names,
    topology_of,
)
from tenfold.cluster.link import RELATIVE_ERROR_FACTOR
from tenfold.cluster.topology import bandwidth
from tenfold.errors import InputError, MissingFigure, UnknownName
from tenfold.evaluate.predicting import predict_all, read_requests

MOVES_ALL = [k for k in Collective if k is not Collective.SEND_RECV]
MEMBERS = [(t, c) for t in topology_names() for c in topology_named(t).chips]


def _counts(name: str) -> list[int]:
    """Some that the topology has."""
    found = topology_named(name)
    inner = found.levels[0].members
    return [n for n in (2, 4, 8, 16, 64, 256) if n <= inner or (n % inner == 0 and n <= found.most)]


@pytest.mark.parametrize(("name", "on"), MEMBERS)
def test_every_topology_joins_chips_of_the_catalogue(name: str, on: str) -> None:
    record, joined = chip(on), topology_named(name)
    assert topology_of(record) is joined
    assert _counts(name)
    for level in joined.levels:
        assert bandwidth(level, record) > 1e9
    for kind in Collective:
        for count in _counts(name):
            assert collective(kind, 1e6, count, joined, record).time_s > 0


def test_a_chip_is_sold_in_one_topology_and_every_file_is_read() -> None:
    sold = [c for name in topology_names() for c in topology_named(name).chips]
    assert len(sold) == len(set(sold))
    assert set(sold) <= set(names())


def _least(kind: Collective, n: int) -> float:
    """Bytes that must leave a chip, of one: counted on a ring that is walked."""
    parts = [{i: {i}} for i in range(n)]  # whose values each part of a chip's buffer holds
    sent = 0.0
    if kind in (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER):
        for step in range(n - 1):
            moved = [parts[i].get((i - step) % n, {i}) for i in range(n)]
            for i in range(n):
                at = (i - step - 1) % n
                parts[i][at] = parts[i].get(at, {i}) | moved[(i - 1) % n]
            sent += 1 / n
        assert all(len(parts[i][(i + 1) % n]) == n for i in range(n))
    if kind in (Collective.ALL_REDUCE, Collective.ALL_GATHER, Collective.ALL_TO_ALL):
        sent += (n - 1) / n
    return sent if kind is not Collective.BROADCAST else 1.0


@pytest.mark.parametrize("name", topology_names())
def test_no_way_moves_less_than_it_must(name: str) -> None:
    """What a ring moves is the least (Patarasuk and Yuan 2009); a switch that adds up needs each
    byte once, and across boxes what a box gathers counts inside.
    """
    joined = topology_named(name)
    record = chip(joined.chips[0])
    for kind in MOVES_ALL:
        for count in _counts(name):
            done = collective(kind, 1e8, count, joined, record)
            least = 1e8 if done.way is Way.IN_SWITCH else _least(kind, count) * 1e8
            assert done.sent_bytes >= least * (1 - 1e-9), (kind, count, done)
            level = joined.parts(count)[0][0]
            if done.way is not Way.LEVELS:  # no more than links carry in that time
                assert done.sent_bytes <= bandwidth(level, record) * done.time_s


@pytest.mark.parametrize("name", topology_names())
def test_a_broadcast_takes_no_longer_than_a_sum(name: str) -> None:
    joined = topology_named(name)
    record = chip(joined.chips[0])
    for count in _counts(name):
        for size in (1e4, 1e9):
            one, all_of_them = (
                collective(k, size, count, joined, record).time_s
                for k in (Collective.BROADCAST, Collective.ALL_REDUCE)
            )
            assert one <= all_of_them * 1.3


def test_short_messages_between_many_boxes_go_up_a_tree() -> None:
    h100 = chip("h100-sxm")
    joined = topology_of(h100)
    few, many = (collective(Collective.ALL_REDUCE, 1e5, n, joined, h100).time_s for n in (64, 4096))
    assert many < 3 * few


def test_a_slice_with_a_short_side_is_a_mesh() -> None:
    """2 x 2 x 4 of TPU v4 wraps around nowhere, 4 x 4 x 4 everywhere; of v5e a side of 16 does."""
    gather = Collective.ALL_GATHER
    v4, v5e = chip("tpu-v4"), chip("tpu-v5e")
    rate = link_facts(Link.ICI).value("long_fraction")
    for record, count, links, most in ((v4, 16, 3, 6), (v4, 64, 6, 6), (v5e, 256, 4, 4)):
        joined = topology_of(record)
        reached = bandwidth(joined.levels[0], record) * rate * links / most
        time = collective(gather, 1e12, count, joined, record).time_s
        assert time == pytest.approx((count - 1) / count * 1e12 / reached, rel=1e-3)


def test_relatives_lend_rates_and_no_kernels() -> None:
    """PCIe has no NVLS and none of the engines' kernels that need NVLink."""
    facts = link_facts(Link.PCIE)
    assert not [n for n in facts.figures if n.startswith(("switch_", "engine_"))]
    l40s = chip("l40s")
    done = collective(Collective.ALL_REDUCE, 1024, 8, topology_of(l40s), l40s, engine=True)
    assert done.way is Way.SHORT_RING


@pytest.mark.parametrize("name", topology_names())
def test_more_bytes_never_take_less_time(name: str) -> None:
    joined = topology_named(name)
    record = chip(joined.chips[0])
    for kind in Collective:
        for engine in (False, True):
            times = [
                collective(kind, 2.0**p, max(_counts(name)[:3]), joined, record, engine=engine)
                for p in range(8, 34)
            ]
            assert all(a.time_s <= b.time_s for a, b in pairwise(times))


def test_one_chip_and_no_bytes_take_nothing() -> None:
    h100 = chip("h100-sxm")
    joined = topology_of(h100)
    for kind in Collective:
        for size, count in ((1e9, 1), (0, 8)):
            done = collective(kind, size, count, joined, h100)
            assert (done.time_s, done.way) == (0.0, Way.NOTHING)


def test_a_sum_is_a_scatter_and_a_gather() -> None:
    """In bytes on a ring, and in time on a torus, launch apart."""
    v4 = chip("tpu-v4")
    joined, launch = topology_of(v4), link_facts(Link.ICI).value("launch")
    both, *parts = (
        collective(k, 1e9, 64, joined, v4).time_s - launch
        for k in (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER, Collective.ALL_GATHER)
    )
    assert both == pytest.approx(sum(parts))


def test_a_torus_uses_all_links_of_sides_that_wrap() -> None:
    """A cube of 4 x 4 x 4 of TPU v4 has six links a chip in its rings; 2 x 2 x 2 has three, since a
    side of two is one link.
    """
    v4 = chip("tpu-v4")
    joined = topology_of(v4)
    rate = bandwidth(joined.levels[0], v4) * link_facts(Link.ICI).value("long_fraction")
    for count, links in ((64, 6), (8, 3)):
        time = collective(Collective.ALL_GATHER, 1e12, count, joined, v4).time_s
        want = (count - 1) / count * 1e12 / (rate * links / 6)
        assert time == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "count", "sides"),
    [
        ("tpu-v4-pod", 64, (4, 4, 4)),
        ("tpu-v4-pod", 4096, (16, 16, 16)),
        ("tpu-v5e-pod", 8, (2, 4)),
        ("tpu-v5e-pod", 256, (16, 16)),
        ("dgx-h100", 8, (8,)),
    ],
)
def test_boxes_are_as_even_as_they_can_be(name: str, count: int, sides: tuple[int, ...]) -> None:
    ((_, found),) = topology_named(name).parts(count)
    assert sorted(found) == sorted(sides)


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("dgx-h100", 12, "12 chips on dgx-h100 are not whole groups of 8: give a multiple of 8"),
        ("dgx-h100", 0, "joins 1 to 24,576 chips, got 0"),
        ("tpu-v5e-pod", 512, "tpu-v5e-pod joins 1 to 256 chips, got 512"),
        ("tpu-v5e-pod", 17, "17 chips make no box in the torus of tpu-v5e-pod"),
    ],
)
def test_counts_that_cannot_be_are_one_clear_line(name: str, count: int, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        topology_named(name).parts(count)
    assert "\n" not in str(error.value)


def test_chips_and_clusters_that_nobody_knows() -> None:
    with pytest.raises(UnknownName, match="dgx-h100"):
        topology_named("dgx-h10")
    with pytest.raises(InputError, match="nothing is known of how epyc-9654 is joined"):
        topology_of(chip("epyc-9654"))
    bare = chip("h100-sxm")
    figures = {p: f for p, f in bare.figures.items() if not p.startswith("links.")}
    with pytest.raises(MissingFigure, match="a collective"):
        collective(Collective.ALL_REDUCE, 1e6, 8, topology_of(bare), replace(bare, figures=figures))


def test_every_link_has_what_its_shape_needs() -> None:
    for link in Link:
        facts = link_facts(link)
        assert {"launch", "step", "long_fraction", "error"} <= facts.figures.keys()
        assert (facts.has("switch_fraction")) == (link in (Link.NVLINK4, Link.NVLINK5))
    measured, relative = link_facts(Link.NVLINK4), link_facts(Link.NVLINK5)
    assert relative.error == RELATIVE_ERROR_FACTOR * measured.error
    assert {x.shape for n in topology_names() for x in topology_named(n).levels} == set(Shape)


def test_between_boxes_the_fabric_counts() -> None:
    """Two boxes of 8 H100: each chip sends its eighth of the sum over its own adapter."""
    h100 = chip("h100-sxm")
    joined = topology_of(h100)
    inside, two = (collective(Collective.ALL_REDUCE, 8e9, n, joined, h100).time_s for n in (8, 16))
    fabric = joined.levels[1].bandwidth
    assert fabric is not None
    assert two > inside
    assert two > 8e9 / 8 / fabric.value
    # a box has eight adapters: the fabric alone, one for all, would take eight times as long
    assert two < 8e9 / fabric.value


def test_the_way_goes_with_the_size() -> None:
    h100 = chip("h100-sxm")
    joined = topology_of(h100)

    def way(size: float, *, engine: bool) -> Way:
        return collective(Collective.ALL_REDUCE, size, 8, joined, h100, engine=engine).way

    assert [way(s, engine=False) for s in (1e4, 1e9)] == [Way.SHORT_RING, Way.IN_SWITCH]
    assert [way(s, engine=True) for s in (1e4, 1e6, 1e9)] == [
        Way.ONE_SHOT, Way.TWO_SHOT, Way.IN_SWITCH,
    ]  # fmt: skip


def test_rows_of_predict() -> None:
    text = "op,dtype,bytes,chips\nall_reduce,bf16,67108864,8\nsend_recv,bf16,67108864,2\n"
    raw, requests = read_requests(text)
    h100 = chip("h100-sxm")
    found = list(predict_all(requests, h100))
    assert len(raw) == 2
    for p in found:
        assert p.energy_j is None
        assert 0 < p.time_s.low < p.time_s.value < p.time_s.high
    # NCCL's own table of 8 H100 (nccl-tests, NCCL 2.18.5): 324.6 us
    assert found[0].time_s.value == pytest.approx(324.6e-6, rel=0.1)
    with pytest.raises(InputError, match="line 2: pcie-box joins l4, .*: h100-sxm is none of them"):
        list(predict_all(requests, h100, None, topology_named("pcie-box")))
    own = replace(h100, name="mine")  # a chip of one's own may be joined in any way
    other = list(predict_all(requests, own, None, topology_named("pcie-box")))
    assert other[0].time_s.value > 5 * found[0].time_s.value
    with pytest.raises(InputError, match="all_reduce has no time of a measuring source"):
        list(predict_all(requests, h100, "aiconfigurator"))
    for text, said in (
        ("op,dtype,bytes,chips\nall_reduce,bf16,1024,12\n", "line 2: 12 chips on dgx-h100"),
        ("op,dtype,bytes\nall_reduce,bf16,1024\n", "line 2, column 'chips': all_reduce needs"),
        ("op,dtype,bytes,chips,m\nall_reduce,bf16,8,8,8\n", "column 'm': all_reduce does not use"),
        ("op,dtype,bytes,chips,warm\nall_reduce,bf16,8,8,yes\n", "line 2: all_reduce has no oper"),
    ):
        with pytest.raises(InputError, match=said):
            list(predict_all(read_requests(text)[1], h100))


def test_the_command_takes_collectives(tmp_path: Path) -> None:
    import csv

    from typer.testing import CliRunner

    from tenfold.cli import app

    ops, out = tmp_path / "ops.csv", tmp_path / "out.csv"
    ops.write_text("op,dtype,bytes,chips\nall_to_all,bf16,1048576,16\n")
    words = ["predict", str(ops), "-c", "tpu-v4", "-o", str(out)]
    assert CliRunner().invoke(app, words).exit_code == 0
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert row["bound"] == Way.TORUS.value
    assert row["energy_j"] == ""
    assert math.isfinite(float(row["time_s"]))


def test_tokens_go_to_their_experts_and_back() -> None:
    """One exchange of DeepEP's own table (README of deepseek-ai/DeepEP: 8 H800, 128 tokens of 7168,
    8 of 256 experts, low latency: 77 us out and 114 us back), and laws of it.
    """
    h800 = chip("h800")
    joined = topology_of(h800)

    def seconds(way: Exchange, tokens: int, count: int = 8, **how: int | None) -> float:
        width = 1 + 4 / 128 if way is Exchange.DISPATCH else 2.0
        what = Tokens(tokens, 7168 * width, 8)
        taken = how.get("multiprocessors")
        return exchange(way, what, count, joined, h800, multiprocessors=taken).time_s

    assert seconds(Exchange.DISPATCH, 128) == pytest.approx(77e-6, rel=0.1)
    assert seconds(Exchange.COMBINE, 128) == pytest.approx(114e-6, rel=0.3)
    for way in Exchange:
        assert seconds(way, 256) > seconds(way, 128)
        assert seconds(way, 128, 16) > seconds(way, 128)
        few, many = (seconds(way, 4096, multiprocessors=n) for n in (4, 24))
        assert few > many
        # for many tokens the normal kernels send less: once to each chip
        assert seconds(way, 65536, multiprocessors=24) < seconds(way, 65536)
    with pytest.raises(InputError, match="on tpu-v4-pod all_to_all is what there is"):
        exchange(
            Exchange.DISPATCH, Tokens(1, 1.0, 1), 8, topology_named("tpu-v4-pod"), chip("tpu-v4"),
            multiprocessors=None,
        )  # fmt: skip


def test_rows_of_an_exchange() -> None:
    head = "op,dtype,tokens,hidden,topk,chips,low_latency,multiprocessors\n"
    text = head + "moe_dispatch,fp8,128,7168,8,8,1,\nmoe_dispatch,fp8,128,7168,8,8,,\n"
    quick, normal = predict_all(read_requests(text)[1], chip("h100-sxm"))
    assert quick.time_s.value != normal.time_s.value
    assert (quick.bound, quick.energy_j) == (Way.DIRECT.value, None)
    for last, said in (("2,", "needs 0 or 1, found '2'"), (",1000", "h100-sxm has 132, of which")):
        row = f"moe_combine,bf16,128,7168,8,8,{last}\n"
        with pytest.raises(InputError, match=said):
            list(predict_all(read_requests(head + row)[1], chip("h100-sxm")))
    both = read_requests(head + "moe_combine,bf16,128,7168,8,8,1,8\n")[1]
    with pytest.raises(InputError, match="multiprocessors = 8 is of the normal kernels"):
        list(predict_all(both, chip("h100-sxm")))
