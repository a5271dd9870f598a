"""The machine: event loop and closed form are one, counters and joules add up, sizes behave."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tenfold
from tenfold.chips import MatrixPrecision, chip, names
from tenfold.errors import DoesNotFit, InputError, MissingFigure
from tenfold.ir.table import Lowering
from tenfold.machine import (
    Counters,
    Kernel,
    Level,
    Moved,
    Product,
    Traffic,
    simulate,
    time_kernel,
)
from tenfold.machine.energy import at_node, energy_model, energy_table
from tenfold.machine.systolic.array import array_of
from tenfold.machine.systolic.maxplus import (
    DURATIONS,
    Repeat,
    apply,
    closed_form,
    event_loop,
    matrix_of,
    walk,
)
from tenfold.machine.systolic.step import STATES, Drain, Instruction, Launch, Tile
from tenfold.machine.systolic.tiles import Bytes, best_program

durations = st.integers(0, 50)
tiles = st.builds(
    Tile, **dict.fromkeys(DURATIONS, durations), new_weights=st.booleans(),
    weights_near=st.booleans(), weights_early=st.booleans(), first_k=st.booleans(),
    last_k=st.booleans(), both=st.booleans(),
)  # fmt: skip
instructions = st.one_of(
    tiles, st.builds(Launch, durations, durations), st.builds(Drain, durations, durations)
)
programs = st.recursive(
    st.builds(lambda t, n: Repeat((t,), n), tiles, st.integers(1, 7)),
    lambda inner: st.builds(
        lambda parts, n: Repeat(tuple(parts), n),
        st.lists(st.one_of(instructions, inner), min_size=1, max_size=4),
        st.integers(1, 4),
    ),
    max_leaves=8,
)


@given(programs, st.lists(st.integers(0, 100), min_size=STATES, max_size=STATES))
def test_closed_form_equals_event_loop(program: Repeat, start: list[int]) -> None:
    assert closed_form(program, start) == event_loop(program, start)


@given(programs, st.sets(st.sampled_from(DURATIONS)))
def test_a_relaxed_variant_is_the_program_with_those_durations_at_zero(
    program: Repeat, gone: set[str]
) -> None:
    variants = (frozenset[str](), frozenset(gone))
    state = apply(matrix_of(program, variants), np.zeros((2, STATES), dtype=np.int64))
    assert state[0].tolist() == event_loop(program)
    assert state[1].tolist() == event_loop(without(program, gone))


def without(program: Repeat, gone: set[str]) -> Repeat:
    def one(p: Instruction | Repeat) -> Instruction | Repeat:
        if isinstance(p, Repeat):
            return Repeat(tuple(one(q) for q in p.parts), p.count)
        if isinstance(p, Tile):
            return replace(p, **dict.fromkeys(gone, 0))
        if isinstance(p, Launch):
            return replace(p, prefetch=0 if "prefetch" in gone else p.prefetch)
        if isinstance(p, Drain):
            return Drain(
                0 if "weight_dma" in gone else p.weights, 0 if "act_dma" in gone else p.rest
            )
        return p

    done = one(program)
    assert isinstance(done, Repeat)
    return done


@given(programs)
def test_tile_kinds_count_every_tile(program: Repeat) -> None:
    assert sum(n for _, n in program.kinds()) == sum(isinstance(i, Tile) for i in walk(program))
    assert program.tiles == len(list(walk(program)))


def test_a_billion_tiles_are_exact() -> None:
    tile = Tile(
        weight_dma=3, weight_load=8, act_dma=5, matrix=11, vector=2, out_dma=1, new_weights=True
    )
    count = 10**9
    small, large = (max(closed_form(Repeat((tile,), n))) for n in (1000, count))
    # steady state: the busiest unit's cycles for each tile
    assert large - small == (count - 1000) * 11


def _product_kernel(
    m: int, n: int, k: int, precision: MatrixPrecision = MatrixPrecision.BF16, bits: int = 16
) -> Kernel:
    width = bits // 8
    return Kernel(
        name="k",
        ops=("matmul",),
        kind=Lowering.MATRIX,
        precision=precision,
        products=(Product(1, m, n, k),),
        flops=2 * m * n * k,
        traffic=Traffic(Moved(k * n * width, m * k * width, m * n * width)),
        operand_bits=bits,
    )


MODELLED = [n for n in names() if chip(n).modelled]


@pytest.mark.parametrize("name", MODELLED)
def test_counters_and_energy_add_up_on_every_chip(name: str) -> None:
    graph = tenfold.load("squeezenet").bind({"batch": 2})
    run = simulate(tenfold.compile(graph, chip(name)))
    c = run.counters
    parts = (c.active, c.weight_stall, c.weight_shift, c.memory_stall, c.vector, c.idle)
    assert all(p >= 0 for p in parts)
    assert sum(parts) == pytest.approx(c.cycles, rel=1e-9)
    assert c.cycles / chip(name).clock("time") == pytest.approx(run.time_s.value, rel=1e-9)
    assert run.time_s.value == pytest.approx(
        run.launch_s + sum(k.time_s * k.kernel.repeat for k in run.kernels), rel=1e-9
    )
    for f in fields(Counters):
        if f.name not in ("cycles", "idle"):
            each = [np.asarray(getattr(k.counters, f.name)) for k in run.kernels]
            total = sum(n * k.kernel.repeat for n, k in zip(each, run.kernels, strict=True))
            assert getattr(c, f.name) == pytest.approx(total, rel=1e-9), f.name
    by_kernel = sum(e.amount.value * k.kernel.repeat for k in run.kernels for e in k.energy)
    static = next(e for e in run.energy if e.what == "static")
    assert run.energy_j.value == pytest.approx(by_kernel + static.amount.value, rel=1e-9)
    assert run.energy_j.value == pytest.approx(sum(e.amount.value for e in run.energy), rel=1e-9)
    assert c.macs_useful == sum(p.macs * k.repeat for k in run.program.kernels for p in k.products)
    assert 0 < run.mfu <= 1
    assert run.time_s.low < run.time_s.value < run.time_s.high


@pytest.mark.parametrize("name", MODELLED)
def test_power_stays_near_what_was_published(name: str) -> None:
    """At full load the modelled power is the measured or rated one within a third; never below
    idle.
    """
    record = chip(name)
    precision = record.storage(None)
    model = energy_model(record, precision)
    large = _product_kernel(8192, 8192, 8192, precision, precision.bits)
    timed = time_kernel(record, large)
    watts = model.static_w.value + model.mac_j.value * timed.counters.macs_useful / timed.time_s
    memory_j = model.byte_j[Level.OFF_CHIP].value * timed.counters.bytes(Level.OFF_CHIP)
    watts += memory_j / timed.time_s
    published = record.figures.get("tdp")
    assert watts > model.static_w.value
    if published is not None:
        assert watts < published.value * 1.35


@pytest.mark.parametrize(
    "name", ["tpu-v1", "tpu-v4i", "tpu-v6e", "a100-sxm-80", "h100-sxm", "epyc-9654"]
)
def test_time_never_beats_the_roofline(name: str) -> None:
    record = chip(name)
    precision = record.storage(None)
    for m, n, k in (
        (1, 1, 1),
        (8, 4096, 4096),
        (4096, 4096, 8),
        (333, 777, 555),
        (8192, 8192, 8192),
    ):
        kernel = _product_kernel(m, n, k, precision, precision.bits)
        floor = max(
            kernel.flops / record.peak_flops[precision],
            kernel.traffic.total / (record.memory_bytes_per_s or math.inf),
        )
        assert time_kernel(record, kernel).time_s >= floor


@pytest.mark.parametrize("name", ["tpu-v4", "a100-sxm-80", "epyc-9654"])
def test_more_work_takes_longer(name: str) -> None:
    record = chip(name)
    times = [
        time_kernel(record, _product_kernel(s, s, s, record.storage(None))).time_s
        for s in (512, 1024, 2048, 4096)
    ]
    assert times == sorted(times)


def test_either_operand_may_be_stationary() -> None:
    """129 columns cost less than two column tiles, because they become the moving dimension."""
    v4i = chip("tpu-v4i")
    wide = time_kernel(v4i, _product_kernel(2048, 129, 1024)).time_s
    two = time_kernel(v4i, _product_kernel(2048, 256 * 4, 1024)).time_s
    assert wide < two


def test_rows_that_fill_the_accumulators_are_one_chunk_where_nothing_keeps_weights() -> None:
    """TPU v1 holds 4,096 rows of sums: 2,888 rows fetch their weights once, and drain when all are
    done; 5,000 do not fit.
    """
    v1 = chip("tpu-v1")
    array = array_of(v1, MatrixPrecision.INT8, 8)
    assert array.one_pass_rows == 4096

    def tiles(m: int) -> list[tuple[Tile, int]]:
        product = Product(1, m, 256, 2304)
        program = best_program(
            product, array, Bytes(0, product.k * product.n, 0), 2, weights_stationary=True
        )
        return list(program.kinds())

    once = tiles(2888)
    assert sum(n for _, n in once) == 9
    assert all(t.both for t, _ in once)
    twice = tiles(5000)
    assert sum(n for _, n in twice) == 27
    assert not any(t.both for t, _ in twice)
    assert all(t.weight_dma for t, _ in twice)  # what a chunk has used is gone


def test_weights_that_are_fetched_once_cost_less_with_batch() -> None:
    v1 = chip("tpu-v1")
    per_row = [
        time_kernel(v1, _product_kernel(b, 2048, 2048, MatrixPrecision.INT8, 8)).time_s / b
        for b in (1, 8, 64)
    ]
    assert per_row[0] > per_row[1] > per_row[2]


def test_a_model_that_does_not_fit_says_both_numbers() -> None:
    graph = tenfold.load("resnet50").bind({"batch": 20000})
    with pytest.raises(DoesNotFit, match=r"needs \d+\.\d+ GB .* tpu-v4i has 8\.590 GB"):
        simulate(tenfold.compile(graph, chip("tpu-v4i")))


def test_a_listed_chip_has_no_machine() -> None:
    graph = tenfold.load("squeezenet")
    with pytest.raises(InputError, match="listed for its figures only"):
        simulate(tenfold.compile(graph, chip("graphcore-bow")))


def test_missing_figures_are_named_only_where_needed() -> None:
    v5e = chip("tpu-v5e")
    assert "tdp" not in v5e.figures
    model = energy_model(v5e, MatrixPrecision.BF16)
    assert model.static_w.high > 2 * model.static_w.low  # relatives: a wide interval
    without = replace(
        v5e, figures={k: q for k, q in v5e.figures.items() if k != "clock"}, relatives=()
    )
    with pytest.raises(MissingFigure, match="needs 'clock'"):
        time_kernel(without, _product_kernel(8, 8, 8))
    with pytest.raises(MissingFigure, match="needs 'tdp' or 'busy_power'"):
        energy_model(without, MatrixPrecision.BF16)


def test_energy_table_entries_and_interpolation() -> None:
    """The published ends stand as they are; between them energy grows with the node."""
    for entry in (*energy_table().operation.values(), *energy_table().sram.values()):
        assert at_node(entry, 7) == entry.nm7
        assert at_node(entry, 45) == entry.nm45
        assert entry.nm7 < at_node(entry, 16) < at_node(entry, 28) < entry.nm45


def test_reduced_precision_is_faster_where_the_chip_says_so() -> None:
    graph = tenfold.load("vgg19").bind({"batch": 8})
    v6e = chip("tpu-v6e")
    assert (
        simulate(tenfold.compile(graph, v6e, dtype="int8")).time_s.value
        < simulate(tenfold.compile(graph, v6e, dtype="bf16")).time_s.value
    )
