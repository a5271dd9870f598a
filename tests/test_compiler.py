"""Fusion, memory and whole programs: same results, no overlap, nothing counted twice, text that
stays.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from support import STRUCTURES, model_path, real_model, seeded_feeds
from tenfold.chips import MatrixPrecision, chip
from tenfold.compiler import STEPS, Options, build
from tenfold.compiler.fusion import fuse
from tenfold.compiler.passes import run_passes
from tenfold.compiler.schedule import Interval, place, tightest
from tenfold.errors import UnknownName
from tenfold.importers.onnx import import_model
from tenfold.ir import Graph, interpret, parse_text
from tenfold.ir.table import Lowering
from tenfold.machine import Attention, Buffer, Program, Role, simulate, target_of
from tenfold.machine.functional import run_program
from tenfold.machine.text import program_text
from tenfold.machine.trace import trace, trace_document
from tenfold.model import Sizes, load, prepare

V4I, A100, EPYC = chip("tpu-v4i"), chip("a100-sxm-80"), chip("epyc-9654")


def bound(name: str, batch: int = 1) -> Graph:
    graph = (
        import_model(real_model(name), name)
        if name.startswith("light/")
        else load(model_path(name))
    )
    return prepare(graph, Sizes(batch)).graph


def compiled(graph: Graph, on: str = "tpu-v4i", *without: str, weights: bool = False) -> Program:
    record = chip(on)
    return build(graph, record, record.storage(None), 1, Options(without, keep_weights=weights))


# --- same results -----------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_program_computes_what_the_graph_does(name: str) -> None:
    """Kernel by kernel, each seeing only what it declares to read; the graph itself is compared in
    test_passes.
    """
    graph = bound(name)
    feeds = seeded_feeds(graph)
    for on in ("tpu-v4i", "a100-sxm-80"):
        program = compiled(graph, on, weights=True)
        want, got = interpret(program.graph, feeds), run_program(program, feeds)
        for n in want:
            assert want[n].dtype == got[n].dtype
            assert np.array_equal(want[n], got[n], equal_nan=want[n].dtype.kind == "f"), (on, n)


# --- fusion -----------------------------------------------------------------------------


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("on", ["tpu-v4i", "a100-sxm-80"])
def test_groups_cut_the_graph_once_and_in_order(name: str, on: str) -> None:
    graph = run_passes(bound(name))
    groups = fuse(graph, target_of(chip(on)).rules)
    ops = [id(op) for g in groups for op in g.ops]
    assert sorted(ops) == sorted(id(op) for op in graph.ops)
    there = set(graph.inputs) | set(graph.constants)
    for g in groups:
        assert set(g.inputs) <= there, f"{g.name} runs before what it reads is made"
        there |= set(g.outputs)
        assert len(g.reasons) == len(g.ops)
        assert all(g.reasons)
        assert sum(op.kind in ("matmul", "conv", "attention") for op in g.ops) <= 1


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_fusion_only_saves(name: str) -> None:
    """Fewer kernels, fewer bytes, the same arithmetic; faster on every kind of machine."""
    graph = bound(name)
    for record in (V4I, A100, EPYC):
        apart, together = (
            compiled(graph, record.name, *w) for w in (("fuse", "residency"), ("residency",))
        )
        assert len(together.kernels) <= len(apart.kernels)
        assert together.moved_bytes <= apart.moved_bytes
        for what in ("flops", "vector_ops", "transcendentals"):
            assert sum(getattr(k, what) * k.repeat for k in together.kernels) == sum(
                getattr(k, what) * k.repeat for k in apart.kernels
            )
        assert simulate(together).time_s.value <= simulate(apart).time_s.value * 1.02


def reasons(text: str, on: str = "tpu-v4i") -> list[list[str]]:
    return [[op.kind for op in g.ops] for g in fuse(parse_text(text), target_of(chip(on)).rules)]


def test_epilogues_residuals_and_rows() -> None:
    text = """graph 'g' {
      input %x: fp32[64,128]
      input %r: fp32[64,256]
      const %w: fp32[128,256] = elided
      const %b: fp32[256] = elided
      %m: fp32[64,256] = matmul(%x, %w)
      %a: fp32[64,256] = add(%m, %b)
      %s: fp32[64,256] = add(%a, %r)
      %n: fp32[64,256] = layer_norm(%s, %b, %b) {axis=-1}
      %y: fp32[64,256] = relu(%n)
      output %y
    }"""
    assert reasons(text) == [["matmul", "add", "add", "layer_norm", "relu"]]
    assert reasons(text, "a100-sxm-80") == [["matmul", "add", "add"], ["layer_norm", "relu"]]


def test_nothing_waits_for_itself() -> None:
    """x -> relu -> (matmul -> add) with relu's other reader: relu may not join the kernel that its
    own result must pass through.
    """
    text = """graph 'g' {
      input %x: fp32[8,8]
      const %w: fp32[8,8] = elided
      %a: fp32[8,8] = matmul(%x, %w)
      %b: fp32[8,8] = relu(%a)
      %c: fp32[8,8] = matmul(%b, %w)
      %d: fp32[8,8] = matmul(%c, %w)
      %y: fp32[8,8] = add(%b, %d)
      output %y
    }"""
    assert reasons(text) == [["matmul", "relu"], ["matmul"], ["matmul", "add"]]


def test_a_transpose_before_a_product_is_read_as_it_comes_and_expansion_in_its_small_form() -> None:
    text = """graph 'g' {
      input %q: fp32[1,8,4,16]
      input %k: fp32[1,2,4,16]
      const %s: int64[5] = [1, 2, 4, 4, 16]
      const %u: int64[5] = [1, 2, 1, 4, 16]
      const %t: int64[4] = [1, 8, 4, 16]
      %k1: fp32[1,2,1,4,16] = reshape(%k, %u)
      %k2: fp32[1,2,4,4,16] = expand(%k1, %s)
      %k3: fp32[1,8,4,16] = reshape(%k2, %t)
      %y: fp32[1,8,4,4] = matmul(%q, %k3) {transpose_b=1}
      output %y
    }"""
    (group,) = fuse(parse_text(text), target_of(A100).rules)
    assert set(group.inputs) >= {"q", "k"}
    assert "k2" not in group.outputs


def test_different_rows_are_different_kernels() -> None:
    text = """graph 'g' {
      input %x: fp32[4,6,8]
      const %a: int64[1] = [1]
      %n: fp32[4,6,8] = softmax(%x) {axis=-1}
      %m: fp32[4,1,8] = reduce_mean(%n, %a) {keepdims=1}
      output %m
    }"""
    assert reasons(text) == [["softmax"], ["reduce_mean"]]


def test_every_step_can_be_left_out_and_no_other() -> None:
    graph = bound("light/light_squeezenet.onnx")
    for step in STEPS:
        assert simulate(compiled(graph, "tpu-v4i", step)).time_s.value > 0
    with pytest.raises(UnknownName, match="unknown pass 'fusee': did you mean fuse"):
        Options(("fusee",))


# --- memory -----------------------------------------------------------------------------


def overlaps(buffers: Sequence[Buffer]) -> list[tuple[str, str]]:
    """Pairs that share a byte at some kernel, found the slow way: apart from the planner's own
    arithmetic.
    """
    found = []
    for i, a in enumerate(buffers):
        for b in buffers[:i]:
            times = range(max(a.first, b.first), min(a.last, b.last) + 1)
            bytes_ = range(max(a.offset, b.offset), min(a.offset + a.bytes, b.offset + b.bytes))
            if len(times) and len(bytes_):
                found.append((a.name, b.name))
    return found


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_plan_never_overlaps_and_moves_what_it_says(name: str) -> None:
    graph = bound(name)
    for on in ("tpu-v1", "tpu-v4i", "tpu-v6e", "a100-sxm-80"):
        program = compiled(graph, on)
        plan = program.memory
        assert overlaps(plan.near) == overlaps(plan.far) == []
        assert all(b.offset + b.bytes <= plan.capacity for b in plan.near)
        assert max((b.offset + b.bytes for b in plan.far), default=0) == plan.far_bytes
        everything = compiled(graph, on, "residency")
        for kept, whole in zip(program.kernels, everything.kernels, strict=True):
            a, b = kept.traffic, whole.traffic
            assert a.off_chip.weights + a.near.weights == b.off_chip.weights
            assert a.off_chip.inputs + a.near.inputs == b.off_chip.inputs
            assert a.off_chip.outputs + a.near.outputs == b.off_chip.outputs
        assert sum(k.traffic.prefetch for k in program.kernels) == sum(
            k.traffic.prefetched for k in program.kernels
        )
        for i, k in enumerate(program.kernels):
            for o in k.operands:
                where = [
                    b
                    for b in (*plan.near, *plan.far)
                    if b.name == o.name and o.role is not Role.WEIGHT
                ]
                assert all(b.first <= i <= b.last for b in where)


def test_branches_listed_side_by_side_run_one_after_the_other() -> None:
    """Four branches that grow and shrink, their large halves listed first: in that order all of
    them would be alive at once.
    """
    wide = [f"%w{i}: fp32[64,4096] = matmul(%x, %u{i})" for i in range(4)]
    thin = [f"%t{i}: fp32[64,8] = matmul(%w{i}, %v{i})" for i in range(4)]
    weights = [
        f"const %{n}{i}: fp32[{s}] = elided"
        for i in range(4)
        for n, s in (("u", "32,4096"), ("v", "4096,8"))
    ]
    sums = [
        "%s1: fp32[64,8] = add(%t0, %t1)",
        "%s2: fp32[64,8] = add(%s1, %t2)",
        "%y: fp32[64,8] = add(%s2, %t3)",
    ]
    graph = parse_text(
        "\n".join(
            [
                "graph 'g' {",
                "input %x: fp32[64,32]",
                *weights,
                *wide,
                *thin,
                *sums,
                "output %y",
                "}",
            ]
        )
    )
    listed, chosen = (compiled(graph, "a100-sxm-80", "merge", *w) for w in (("order",), ()))
    assert chosen.memory.lower_bound < 0.6 * listed.memory.lower_bound
    assert sorted(k.name for k in chosen.kernels) == sorted(k.name for k in listed.kernels)


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_order_never_keeps_more_alive(name: str) -> None:
    graph = bound(name)
    listed, chosen = (compiled(graph, "a100-sxm-80", *w) for w in (("order",), ()))
    assert chosen.memory.lower_bound <= listed.memory.lower_bound


def exact(buffers: Sequence[Interval], seconds: float) -> int:
    """The least memory that CP-SAT finds, started from ours; where it settles nothing in time, the
    lower bound, which is harder to meet.
    """
    cp_model = pytest.importorskip("ortools.sat.python.cp_model")
    model = cp_model.CpModel()
    offsets, limit = place(buffers)
    top = model.new_int_var(tightest(buffers), limit, "top")
    times, spaces = [], []
    for b in buffers:
        at = model.new_int_var(0, limit - b.bytes, b.name)
        model.add_hint(at, offsets[b.name])
        times.append(model.new_fixed_size_interval_var(b.first, b.last - b.first + 1, b.name))
        spaces.append(model.new_fixed_size_interval_var(at, b.bytes, b.name))
        model.add(top >= at + b.bytes)
    model.add_no_overlap_2d(times, spaces)
    model.minimize(top)
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = seconds
    solver.parameters.num_workers = 1
    settled = solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return int(solver.objective_value) if settled else tightest(buffers)


@pytest.mark.models
@pytest.mark.parametrize("name", STRUCTURES)
def test_offsets_are_near_the_exact_optimum_on_real_models(name: str) -> None:
    far = compiled(bound(name), "a100-sxm-80").memory.far
    buffers = [Interval(b.name, b.first, b.last, b.bytes) for b in far if b.bytes]
    if buffers:
        assert place(buffers)[1] <= 1.1 * exact(buffers, 2.0)


@pytest.mark.parametrize("seed", range(12))
def test_offsets_on_random_instances(seed: int) -> None:
    """Lifetimes and sizes as in minimalloc's sets: many short buffers, some long ones."""
    rng = random.Random(seed)
    buffers = []
    for i in range(rng.choice([20, 60, 150])):
        first = rng.randrange(100)
        last = min(99, first + (rng.randrange(60) if rng.random() < 0.2 else rng.randrange(8)))
        buffers.append(Interval(str(i), first, last, 64 * rng.randrange(1, 400)))
    offsets, needed = place(buffers)
    placed = [
        Buffer(b.name, Role.INPUT, b.bytes, b.first, b.last, offsets[b.name]) for b in buffers
    ]
    assert overlaps(placed) == []
    assert needed == max(b.offset + b.bytes for b in placed)
    assert tightest(buffers) <= needed <= 1.1 * exact(buffers, 2.0)


def test_weights_stay_between_calls_where_they_fit() -> None:
    program = compiled(bound("light/light_squeezenet.onnx"))
    assert {
        b.name
        for b in program.memory.near
        if b.role is Role.WEIGHT and b.first == 0 and b.last == len(program.kernels)
    }
    assert (
        program.moved_bytes
        < 0.2 * compiled(bound("light/light_squeezenet.onnx"), "tpu-v4i", "residency").moved_bytes
    )


def test_weights_that_do_not_fit_are_fetched_ahead() -> None:
    program = compiled(bound("light/light_vgg19.onnx", 32))
    ahead = [k for k in program.kernels if k.traffic.prefetched]
    assert ahead
    slices = [
        b
        for b in program.memory.near
        if b.role is Role.WEIGHT and b.why.startswith("fetched while")
    ]
    assert len(slices) > len(ahead)  # a weight comes in parts, while several kernels run
    assert any(b.first == b.last for b in slices)  # and while its own kernel starts
    assert (
        simulate(program).time_s.value
        < simulate(
            compiled(bound("light/light_vgg19.onnx", 32), "tpu-v4i", "residency")
        ).time_s.value
    )


# --- the whole --------------------------------------------------------------------------


SMALL = """graph 'small' {
  input %x: fp32[512,300]
  const %w: fp32[300,1000] = elided
  const %b: fp32[1000] = elided
  const %v: fp32[1000,64] = elided
  %m: fp32[512,1000] = matmul(%x, %w)
  %a: fp32[512,1000] = add(%m, %b)
  %g: fp32[512,1000] = gelu(%a)
  %n: fp32[512,64] = matmul(%g, %v)
  %y: fp32[512,64] = softmax(%n) {axis=-1}
  output %y
}"""


@pytest.mark.parametrize("on", ["tpu-v1", "tpu-v3", "tpu-v4i", "tpu-v6e", "t4", "epyc-9654"])
def test_program_text_is_as_it_was(on: str, golden: Callable[[str, str], None]) -> None:
    golden(f"small-{on}.txt", program_text(compiled(parse_text(SMALL), on), chip(on)))


@pytest.mark.parametrize("on", ["tpu-v4i", "a100-sxm-80", "mi300x", "epyc-9654"])
def test_trace_adds_up(on: str) -> None:
    """Kernels follow each other without a gap until the end; the units work within that, and never
    on two things at once.
    """
    run = simulate(compiled(parse_text(SMALL), on))
    events = trace(run, chip(on))
    spans = [e for e in events if e.unit == "kernels"]
    assert sum(e.length_s for e in spans) == pytest.approx(run.time_s.value)
    for before, after in itertools.pairwise(spans):
        assert after.start_s == pytest.approx(before.start_s + before.length_s)
    for unit in {e.unit for e in events}:
        mine = sorted((e.start_s, e.length_s) for e in events if e.unit == unit)
        assert all(a + n <= b + 1e-12 for (a, n), (b, _) in itertools.pairwise(mine)), unit
        assert mine[-1][0] + mine[-1][1] <= run.time_s.value * (1 + 1e-9)
    matrix = sum(e.length_s for e in events if e.unit == "matrix unit")
    if on == "tpu-v4i":
        assert matrix == pytest.approx(run.counters.active / chip(on).clock("time"))
    else:
        assert {"matrix unit", "vector unit", "off-chip memory"} <= {e.unit for e in events}
        assert matrix >= run.counters.active / chip(on).clock("time") * 0.999
        bounds = {e.about["bound"] for e in spans if e.about}
        assert bounds == {k.bound for k in run.kernels}
    read = sum(float(e.about["bytes read"]) for e in spans if e.about)
    assert read == sum(k.kernel.traffic.all_reads * k.kernel.repeat for k in run.kernels)
    document = json.loads(json.dumps(trace_document(run, chip(on)), allow_nan=False))
    assert {e["ph"] for e in document["traceEvents"]} == {"M", "X"}


def test_kernels_of_views_alone_do_not_exist() -> None:
    program = compiled(bound("light/light_densenet121.onnx"))
    assert all(k.kind is not Lowering.VIEW for k in program.kernels)


@pytest.mark.parametrize(
    ("q_len", "kv_len", "share"),
    [(1024, 1024, 0.5625), (1024, 8192, 0.945), (2048, 32048, 0.97), (1, 4096, 1.0), (64, 64, 1.0)],
)
def test_a_causal_attention_over_a_past_sees_all_of_it(
    q_len: int, kv_len: int, share: float
) -> None:
    """Against the count of blocks of queries, each up to the diagonal of its last query."""
    attention = Attention(
        batch=1, heads=8, kv_heads=8, q_len=q_len, kv_len=kv_len, head_dim=64, causal=True
    )
    blocks = [
        min(kv_len, kv_len - q_len + end) * (end - max(0, end - 128))
        for end in range(min(128, q_len), q_len + 1, 128)
    ]
    assert attention.computed == pytest.approx(sum(blocks) / (q_len * kv_len), abs=0.005)
    assert attention.computed == pytest.approx(share, abs=0.005)


def test_a_cut_attention_reads_what_each_part_needs() -> None:
    """Queries, keys and mask for the weights, values for the rest, whatever order they are made in;
    one buffer may be all three.
    """
    text = """graph 'g' {
      input %v0: fp32[4,64,2,32]
      input %k0: fp32[4,64,2,32]
      input %q0: fp32[4,64,2,32]
      input %m: fp32[4,1,1,64]
      %v: fp32[4,2,64,32] = transpose(%v0) {perm=(0, 2, 1, 3)}
      %k: fp32[4,2,64,32] = transpose(%k0) {perm=(0, 2, 1, 3)}
      %q: fp32[4,2,64,32] = transpose(%q0) {perm=(0, 2, 1, 3)}
      %y: fp32[4,2,64,32] = attention(%q, %k, %v, %m)
      output %y
    }"""
    kernels = compiled(parse_text(text), "a100-sxm-80").kernels
    assert [k.name.rpartition("/")[2] for k in kernels] == ["weights", "values"]
    reads = [{o.name for o in k.operands if o.role is Role.INPUT} for k in kernels]
    assert reads == [{"q0", "k0", "m"}, {"v0", "y/weights"}]
    same = (
        "graph 'g' {\n input %x: fp32[4,2,64,32]\n %y: fp32[4,2,64,32] = attention(%x, %x, %x)\n"
        " output %y\n}"
    )
    reads = [
        {o.name for o in k.operands if o.role is Role.INPUT}
        for k in compiled(parse_text(same), "a100-sxm-80").kernels
    ]
    assert reads == [{"x"}, {"x", "y/weights"}]


def test_a_graph_without_kernels_takes_no_time() -> None:
    for on in ("tpu-v4i", "a100-sxm-80", "epyc-9654"):
        run = simulate(
            compiled(
                parse_text(
                    "graph 'g' {\n input %x: fp32[4]\n %y: fp32[4] = identity(%x)\n output %y\n}"
                ),
                on,
            )
        )
        assert run.kernels == ()
        assert run.time_s.value == run.launch_s
        assert run.power_w >= 0
        assert run.mfu == 0


@pytest.mark.parametrize(("name", "stays"), [("tpu-v4i", True), ("tpu-v5e", False)])
def test_weights_stay_from_call_to_call_only_where_the_chip_keeps_them(
    name: str, stays: bool
) -> None:
    """XLA pins them in CMEM; in VMEM nothing outlives a call (its compiler reads every weight of
    ResNet-50 in each, ahead of time for v5e and v6e).
    """
    bound = prepare(load("resnet50"), Sizes(8))
    program = build(bound.graph, chip(name), MatrixPrecision.BF16, 8)
    read = sum(
        k.traffic.off_chip.weights * k.repeat + k.traffic.prefetch * k.repeat
        for k in program.kernels
    )
    assert (read < 0.9 * program.weight_bytes) == stays
    assert any(b.why == "stays between calls" for b in program.memory.near) == stays
