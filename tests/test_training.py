"""A training step: what it is made of, the laws it keeps, what is refused, and the search."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenfold.chips import MatrixPrecision, chip
from tenfold.cli import app
from tenfold.cluster import Layout
from tenfold.cluster.chunk import Memory
from tenfold.cluster.search import best_of, fits
from tenfold.cluster.timeline import Doing, timeline
from tenfold.cluster.training import Recompute, Shard, Step, Training, training_step
from tenfold.errors import DoesNotFit, InputError
from tenfold.evaluate.training import NoLayout, TrainAsk, train
from tenfold.ir import Graph, graph_totals, interpret
from tenfold.ir.gradient import differentiated, trained
from tenfold.ir.unfused import unfused
from tenfold.machine import Program
from tenfold.model import Sizes, load, prepare
from tenfold.report.schedule import spans_of
from test_partition import built

A100 = chip("a100-sxm-80")
BF16 = A100.storage("bf16")
FP8 = MatrixPrecision.FP8
ALONE = Training(Layout())
run = CliRunner(env={"COLUMNS": "150"}).invoke


@lru_cache(maxsize=8)
def gpt(micro: int, seq: int = 512) -> Graph:
    return prepare(load("gpt2"), Sizes(batch=micro, seq=seq)).graph


def step(training: Training, batch: int = 16) -> Step:
    return training_step(gpt(training.micro), A100, BF16, training, batch)


def test_a_step_is_the_sum_of_its_entries() -> None:
    for training in (
        ALONE,
        Training(Layout(tensor=4, pipeline=2, data=2), sequence=True, shard=Shard.OPTIMISER),
        Training(Layout(pipeline=4), interleave=2, recompute=Recompute.FULL),
    ):
        found = step(training)
        assert sum(found.entries.values()) == pytest.approx(found.time.value)
        assert found.memory.total == sum(getattr(found.memory, f.name) for f in fields(Memory))
        assert found.time.low < found.time.value < found.time.high


def test_flops_are_those_of_the_model_whatever_the_layout() -> None:
    """Three times those of the forward pass, but for what is looked up (Chowdhery et al. 2022)."""
    counted = {
        step(t).flops
        for t in (
            ALONE,
            Training(Layout(tensor=4), micro=2),
            Training(Layout(pipeline=2, data=2), recompute=Recompute.FULL),
        )
    }
    assert len(counted) == 1
    forward = int(str(graph_totals(gpt(1)).contraction_flops))
    assert counted.pop() / 16 == pytest.approx(3 * forward, rel=0.005)


def test_stages_wait_for_each_other_as_long_as_the_schedule_says() -> None:
    """(p - 1) / m of the work (Narayanan et al. 2021, equation 1), a share with interleaving."""
    for turns in (1, 2):
        found = step(Training(Layout(pipeline=4), interleave=turns), batch=8)
        waits = found.entries["waiting for other stages"]
        work = found.time.value - waits - found.entries["optimiser"]
        # less where the others are quicker than the slowest, which has the loss
        assert 0.75 * 3 / 8 / turns < waits / work <= 3 / 8 / turns


def test_computing_again_takes_time_and_saves_memory() -> None:
    kept, again = (step(replace(ALONE, recompute=r)) for r in (Recompute.NONE, Recompute.FULL))
    # the logits stay, and are not made again
    logits = 512 * 50_257 * 2
    left = again.memory.activations - logits
    assert 0 < left < 0.2 * (kept.memory.activations - logits)
    share = (again.time.value - kept.time.value) / again.entries["forward"]
    head = 2 * 512 * 768 * 50_257 / int(str(graph_totals(gpt(1)).contraction_flops))
    assert 1 - head - 0.1 < share < 1 - 0.5 * head


def test_products_of_layers_are_narrow_and_no_others() -> None:
    """Whatever else has the extents of the vocabulary, and with heads that are few (regressions)."""
    for model, training in (
        ("gpt2", Training(Layout(tensor=2), products=FP8)),
        ("gpt2", Training(Layout(), products=FP8, flash=False)),
        ("qwen3-30b-a3b", Training(Layout(data=8, experts=8), products=FP8)),
    ):
        graph = prepare(load(model), Sizes(batch=1, seq=256)).graph
        wide = _wide(graph, training)
        assert all("attend" in n or "head" in n for n in wide), wide
        assert sum("head" in n for n in wide) == 3


def test_what_several_products_are_given_is_narrowed_once() -> None:
    """Of a block of Llama: what queries, keys and values are given, what their product is, what the
    gate is given and the last product is - and as many gradients, one for each product.
    """
    graph = prepare(load("llama-3.1-8b"), Sizes(batch=1, seq=256)).graph
    program = _program(graph, Training(Layout(), products=FP8))
    width, inner, keys = 4096, 14_336, 1024
    forward = width + width + width + inner
    backward = width + 2 * keys + width + 2 * inner + width
    assert sum(k.quantizes for k in program.kernels) == 32 * 256 * (forward + backward)


def test_the_schedule_waits_for_shared_weights() -> None:
    asked = ask(training=Training(Layout(data=8), shard=Shard.WEIGHTS, overlap=False))
    found = train(asked)
    assert found.step.entries["weights from other copies"] > 0
    end = max(s.end_s for s in spans_of(found, found.rounds))
    assert end == pytest.approx(found.step.time.value, rel=1e-6)


def _wide(graph: Graph, training: Training) -> list[str]:
    """Kernels of products that stay in 16 bits."""
    from tenfold.cluster.narrow import is_narrow

    program = _program(graph, training)
    return [k.name for k in program.kernels if k.products and not is_narrow(k, program)]


def _program(graph: Graph, training: Training) -> Program:
    """What a chip runs, forward and backward."""
    from tenfold.cluster.block import Maker
    from tenfold.cluster.network import Joined, prices
    from tenfold.cluster.stages import in_stages
    from tenfold.cluster.topology import joining
    from tenfold.cluster.training import prepared
    from tenfold.compiler import DEFAULT

    h100 = chip("h100-sxm")
    bf16 = h100.storage("bf16")
    network = Joined(joining(h100, None, training.layout.chips), h100)
    price = prices(h100, bf16, network, training.layout.tensor)
    (stage,) = in_stages(prepared(graph, training), 1, price)
    maker = Maker(h100, bf16, training, network, price, DEFAULT)
    return maker.ran(stage, last=True).run.program


def test_a_shared_optimiser_holds_a_share() -> None:
    whole, share = (
        step(Training(Layout(data=4), shard=s)).memory.optimiser
        for s in (Shard.NONE, Shard.OPTIMISER)
    )
    assert share == pytest.approx(whole / 4)


def test_shared_weights_hold_a_share_and_go_round_in_every_microbatch() -> None:
    """16 bytes a weight (fp32 weight, gradient, both moments), a share on each copy, besides the
    blocks that are gathered; their traffic is that of ZeRO stage 3, 1.5 times that of plain copies
    (Rajbhandari et al. 2020, section 7.3).
    """
    plain = Training(Layout(data=8), overlap=False)
    whole, shared = (step(replace(plain, shard=s)) for s in (Shard.NONE, Shard.WEIGHTS))
    held = sum(getattr(shared.memory, n) for n in ("weights", "gradients", "optimiser"))
    assert held == pytest.approx(16 * gpt(1).parameters / 8, rel=0.01)
    assert shared.memory.total < whole.memory.total
    sums, around = whole.entries["sums of gradients"], shared.entries["weights from other copies"]
    # 2 + 2 + 4 bytes a weight for 4 + 4, in each of two microbatches, block by block
    assert sums < around / 2 < 1.6 * sums
    assert step(replace(plain, shard=Shard.WEIGHTS, overlap=True)).time.value < shared.time.value


def test_keeping_some_products_is_between_nothing_and_everything() -> None:
    kept, some, full = (
        step(replace(ALONE, recompute=r)) for r in (Recompute.NONE, Recompute.OPS, Recompute.FULL)
    )
    assert kept.time.value < some.time.value < full.time.value
    activations = [s.memory.activations for s in (full, some, kept)]
    assert activations == sorted(activations)


def test_sums_along_sequences_keep_less() -> None:
    plain, cut = (
        step(Training(Layout(tensor=4), sequence=s)).memory.activations for s in (False, True)
    )
    assert cut < 0.8 * plain


def test_copies_take_parts_of_a_batch() -> None:
    one, four = step(ALONE), step(Training(Layout(data=4)))
    assert four.flops == one.flops
    left = four.entries.get("sums of gradients", 0.0)
    work = one.entries["forward"] + one.entries["backward"]
    assert four.time.value == pytest.approx(work / 4 + left + four.entries["optimiser"])


@pytest.mark.parametrize("name", ["llama", "two heads of keys", "gemma", "bert"])
def test_an_attention_in_parts_is_the_same(name: str) -> None:
    import numpy as np

    from tenfold.evaluate.agreement import seeded_inputs

    graph = built(name)
    apart, feeds = unfused(graph), seeded_inputs(graph, 0)
    assert not any(op.kind == "attention" for op in apart.ops)
    want, got = interpret(graph, feeds), interpret(apart, feeds)
    for n, array in want.items():
        np.testing.assert_allclose(got[n], array, rtol=1e-4, atol=1e-5)
    assert differentiated(apart, trained(apart)).grads


@pytest.mark.parametrize(
    ("training", "batch", "said"),
    [
        (Training(Layout(data=3)), 16, "give a multiple of 3"),
        (Training(Layout(pipeline=4), interleave=2), 6, "do not go round pp=4"),
        (Training(Layout(tensor=8)), 16, "12 heads"),
        (Training(Layout(pipeline=500)), 16, "operations with weights"),
    ],
)
def test_steps_that_cannot_be(training: Training, batch: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        step(training, batch)


# products that share an operand are merged where their weights have no other reader, and in
# training the backward pass is one
FORWARD_ONLY = {"merge"}


def test_every_pass_that_fires_forward_fires_in_training() -> None:
    from tenfold.compiler.passes import PASSES

    graph = gpt(1)
    whole = differentiated(graph, trained(graph)).graph
    for p in PASSES:
        before = p.apply(graph)
        fires = [op.kind for op in before.ops] != [op.kind for op in graph.ops]
        if fires and p.name not in FORWARD_ONLY:
            after = p.apply(whole)
            assert [op.kind for op in after.ops] != [op.kind for op in whole.ops], p.name


def ask(**changes: object) -> TrainAsk:
    plain = TrainAsk(model="gpt2", chip=A100, count=8, tokens=1e9, batch=64, seq=512)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_search_finds_what_a_layout_by_hand_gives() -> None:
    found = train(ask())
    best = found.step.training
    assert best.layout.chips == 8
    again = train(ask(training=best))
    assert again.step.time == found.step.time
    able = [t for t in found.tried if t.fits]
    assert able
    assert all(fits(A100, t.memory) for t in able if t.memory is not None)
    front = best_of(found.tried)
    assert front[0] == able[0]
    for t in front:
        assert not any(
            o.time.value < t.time.value and o.memory.total < t.memory.total
            for o in able
            if o.time and o.memory and t.time and t.memory
        )
    same = next(t for t in able if t.training == best)
    assert same.time is not None
    assert same.time.value == pytest.approx(found.step.time.value, rel=0.1)
    assert found.seconds.value == pytest.approx(1e9 / 64 / 512 * found.step.time.value)
    assert found.chip_hours.value == pytest.approx(found.seconds.value * 8 / 3600)


def test_sequences_lie_apart_where_a_layout_says_so() -> None:
    asked = ["train", "llama-3.1-8b", "--chip", "h100-sxm", "--count", "8", "--tokens", "1e9"]
    asked += ["--seq", "16384", "--batch", "4", "--layout", "dp=2,cp=4", "--recompute", "full"]
    done = run(app, [*asked, "--shard", "weights"])
    assert done.exit_code == 0
    assert "dp=2,cp=4, 1 a microbatch, full recomputation, weights shared" in done.output
    refused = run(app, [*asked[:-3], "cp=8", "--seq", "16383"])
    assert "16,383 tokens to lie apart in equal stretches" in str(refused.exception)


def test_where_nothing_fits_the_nearest_miss_is_said() -> None:
    with pytest.raises(NoLayout, match=r"the nearest, .* takes .* GB of 85.9 on a chip"):
        train(ask(model="llama-3.1-70b", count=4, batch=4))
    done = run(
        app,
        ["train", "llama-3.1-70b", "--chip", "a100-sxm-80", "--count", "4", "--tokens", "1e9",
         "--batch", "4"],
    )  # fmt: skip
    assert done.exit_code == 1
    assert "the nearest" in done.output


def test_a_layout_that_does_not_fit_says_by_how_much() -> None:
    with pytest.raises(DoesNotFit, match="one chip's part needs"):
        train(ask(model="llama-3.1-8b", count=1, batch=1, training=ALONE))


def test_what_counts_no_tokens_is_not_trained() -> None:
    with pytest.raises(InputError, match="no free sequence, .* give --items"):
        train(ask(model="resnet50", seq=None))
    with pytest.raises(InputError, match="both say how long a run is"):
        train(ask(items=1e6))
    with pytest.raises(InputError, match="give --tokens or --items"):
        train(ask(tokens=None))


def test_networks_without_a_sequence_count_items() -> None:
    """ResNet-50 on 16 TPU v3, 4,096 images a step: MLPerf v0.7 takes 128 ms, evaluation included."""
    images = TrainAsk(model="resnet50", chip=chip("tpu-v3"), count=16, items=1.28e6, batch=4096)
    found = train(replace(images, training=Training(Layout(data=16), micro=256)))
    assert found.seq is None
    assert found.seconds.value == pytest.approx(1.28e6 / 4096 * found.step.time.value)
    assert found.step.time.value == pytest.approx(0.128, rel=0.3)
    sequences = train(ask(tokens=None, items=1e6, training=Training(Layout(data=8))))
    tokens = train(ask(tokens=512e6, training=Training(Layout(data=8))))
    assert sequences.seconds.value == pytest.approx(tokens.seconds.value)


def test_one_chip_trains_and_hands_nothing_on() -> None:
    found = train(ask(count=1))
    assert found.step.training.layout == Layout()
    assert set(found.step.entries) == {"forward", "backward", "optimiser"}
    # 7.8 times as long as eight do, who share the batch and sum their gradients
    eight = train(ask()).seconds.value
    assert 5 * eight < found.seconds.value < 8.05 * eight


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seq", "4096"], "gpt2 has positions for 1,024 tokens, got --seq 4,096"),
        (["--tokens", "10"], "10 tokens are less than a step"),
        (["--layout", "dp=8", "--sequence-parallel"], "give tp, too"),
        (["--layout", "dp=8", "--interleave", "2"], "give pp, or an interleave of 1"),
        (["--layout", "tp=4,pp=2", "--shard", "weights"], "give dp or cp, too"),
        (["--layout", "dp=8", "--skew", "2"], "give ep in --layout"),
        (["--layout", "dp=8", "--shard", "all"], "none, optimiser, weights"),
    ],
)
def test_runs_that_cannot_be(arguments: list[str], said: str) -> None:
    asked = ["train", "gpt2", "--chip", "a100-sxm-80", "--count", "8", "--tokens", "1e9"]
    done = run(app, [*asked, *arguments])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)


def test_dropout_takes_time_and_a_mask() -> None:
    without, with_it = (step(replace(ALONE, dropout=d)) for d in (False, True))
    assert with_it.time.value > without.time.value
    assert with_it.memory.total > without.memory.total
    assert with_it.flops == without.flops


def test_parts_of_a_layout_need_one() -> None:
    done = run(
        app,
        ["train", "gpt2", "--chip", "a100-sxm-80", "--count", "8", "--tokens", "1e9",
         "--recompute", "full"],
    )  # fmt: skip
    assert isinstance(done.exception, InputError)
    assert "--recompute is of a layout" in str(done.exception)


def test_the_document_and_the_text_of_a_run() -> None:
    asked = ["train", "gpt2", "--chip", "a100-sxm-80", "--count", "8", "--tokens", "1e9"]
    asked += ["--batch", "64", "--seq", "512", "--layout", "tp=2,pp=2,dp=2"]
    found = json.loads(run(app, [*asked, "--json"]).stdout)
    assert found["count"] == 8
    assert found["layout"]["sides"] == {"tp": 2, "pp": 2, "dp": 2, "ep": 1, "cp": 1}
    assert found["layout"]["sequence_parallel"] is True
    assert sum(found["step_entries_s"].values()) == pytest.approx(found["step_s"])
    assert sum(found["memory_entries_bytes"].values()) == pytest.approx(found["memory_bytes"])
    assert found["days"] * 86400 == pytest.approx(found["steps"] * found["step_s"])
    assert "tried" not in found
    shown = run(app, asked).output
    assert "8 x a100-sxm-80 (tp=2,pp=2,dp=2, 1 a microbatch, optimiser shared)" in shown
    assert "waiting for other stages" in shown


def test_interruptions_of_llama_3() -> None:
    """466 in 54 days on 16,384 chips, and more than nine tenths of the time got on (Grattafiori et
    al. 2024, section 3.3.4); fewer chips are interrupted less.
    """
    from tenfold.cluster.failures import interruptions

    found = interruptions(16_384)
    assert 54 * 86400 / found.between_s.value == pytest.approx(466, rel=0.01)
    assert 0.85 < found.goodput.value < 0.95
    assert found.goodput.low < 0.9 < found.goodput.high
    shares = [interruptions(n).goodput.value for n in (1, 64, 1024, 16_384)]
    assert shares == sorted(shares, reverse=True)


def test_the_timeline_of_a_step_is_as_long_as_the_step() -> None:
    """Schedules of equal stages wait as long as the formulas of their papers say; no chip does two
    things at once, and each microbatch is done once forward and once backward by each stage.
    """
    for training in (
        Training(Layout(pipeline=4)),
        Training(Layout(pipeline=4), interleave=3),
        Training(Layout(tensor=2, pipeline=2), recompute=Recompute.FULL),
    ):
        found = step(training, batch=16)
        one = replace(found.chunks[1], handed=found.chunks[0].handed)
        chunks = [one] * len(found.chunks)
        pipeline = training.layout.pipeline
        spans = timeline(chunks, pipeline, 16)
        each = one.time.value + one.handed.value
        work = 16 * each * training.interleave
        bubble = (pipeline - 1) * each
        assert max(s.end_s for s in spans) == pytest.approx(work + bubble, rel=0.03)
        for place in range(pipeline):
            own = sorted((s for s in spans if s.place == place), key=lambda s: s.start_s)
            assert all(a.end_s <= b.start_s + 1e-12 for a, b in pairwise(own))
            for doing in (Doing.FORWARD, Doing.BACKWARD):
                tasks = [(s.microbatch, s.turn) for s in own if s.doing is doing]
                assert len(tasks) == len(set(tasks)) == 16 * training.interleave


def test_the_page_and_the_trace_of_a_run(tmp_path: Path) -> None:
    """The page needs nothing else and names what the answer does; the trace has a lane a chip and
    one for its links, on which nothing overlaps, and ends with the step.
    """
    page, trace = tmp_path / "run.html", tmp_path / "run.json"
    asked = ["train", "gpt2", "--chip", "a100-sxm-80", "--count", "8", "--tokens", "1e9"]
    asked += ["--batch", "64", "--seq", "512", "--layout", "tp=1,pp=4,dp=2"]
    done = run(app, [*asked, "--html", str(page), "--trace", str(trace)])
    assert done.exit_code == 0
    text = page.read_text()
    assert done.output.splitlines()[0] in " ".join(text.split())
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "what the chips of a pipeline do when" in text
    assert "the same batch with fewer and more copies" in text
    found = json.loads(trace.read_text())
    lanes = {e["tid"]: e["args"]["name"] for e in found["traceEvents"] if e["ph"] == "M"}
    assert [*lanes.values()][:2] == ["chip 0", "links of chip 0"]
    spans = [e for e in found["traceEvents"] if e["ph"] == "X"]
    for lane in lanes:
        own = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if e["tid"] == lane)
        assert all(a[1] <= b[0] + 1e-6 for a, b in pairwise(own))
    counted = Counter(e["cat"] for e in spans)
    assert counted["forward"] == counted["backward"] == 4 * 32
    document = json.loads(run(app, [*asked, "--json"]).stdout)
    end = max(e["ts"] + e["dur"] for e in spans) * 1e-6
    # stages are not equal: the slowest one's share is what the sum counts
    assert end == pytest.approx(document["step_s"], rel=0.1)


def test_a_file_for_a_page_is_not_the_model() -> None:
    asked = ["train", "gpt2", "--chip", "a100-sxm-80", "--count", "8", "--tokens", "1e9"]
    done = run(app, [*asked, "--html", "x.html", "--trace", "x.html"])
    assert isinstance(done.exception, InputError)
