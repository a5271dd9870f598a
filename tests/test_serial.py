"""Work that goes step by step takes its steps one after the other, on every kind of machine, by
what its row of the op table says.
"""

from __future__ import annotations

import numpy as np
import pytest

from tenfold.chips import chip
from tenfold.evaluate.profiling import profile
from tenfold.ir import TABLE
from tenfold.ir.dims import mul, prod
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import all_reads, all_writes, space_of
from tenfold.ir.space import Serial, Space, at, row
from tenfold.ir.table import Call, Context, Lowering, OpRow, Work, attributes
from tenfold.ir.text import parse_text
from tenfold.machine import KernelRun
from tenfold.machine.kernel import Chain
from tenfold.machine.roofline import LATENCY_CYCLES, vector_cycles
from tenfold.model import Sizes

CHIPS = ("tpu-v4i", "a100-sxm-80", "epyc-9654")
ELEMENTS = 4096


def _scan(_: Context, x: Array, keep: Array) -> Array:
    """The state h of each step is keep * h + x (Gu, Dao 2023, Mamba, equation 2a)."""
    y, state = np.empty_like(x), np.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        state = keep[:, t] * state + x[:, t]
        y[:, t] = state
    return y


def _space(call: Call) -> Space:
    map_ = (at(0), row(1), at(2))
    return space_of(call, map_, map_, serial=Serial(call.shape(0)[1]))


SELECTIVE_SCAN = OpRow(
    kind="selective_scan",
    arity=(2, 2),
    attrs=attributes(),
    dtypes=lambda call: [call.input(0).dtype],
    shapes=lambda call: [call.shape(0)],
    space=_space,
    work=lambda call: Work(
        vector_flops=mul(2, prod(call.shape(0))), reads=all_reads(call), writes=all_writes(call)
    ),
    evaluate=_scan,
    lowering=Lowering.REDUCE,
)


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**TABLE, SELECTIVE_SCAN.kind: SELECTIVE_SCAN}
    monkeypatch.setattr("tenfold.ir.infer.TABLE", table)


def _kernels(steps: int, width: int, on: str, after: str = "") -> tuple[KernelRun, ...]:
    shape = f"fp32[1,{steps},{width}]"
    graph = parse_text(f"""graph 'scan' {{
      input %x: {shape}
      input %k: {shape}
      %g: {shape} = sigmoid(%k)
      %y: {shape} = selective_scan(%x, %g)
      {after.format(shape=shape)}
      output {"%z" if after else "%y"}
    }}""")
    return profile(graph, on, Sizes()).run.kernels


@pytest.mark.parametrize("name", CHIPS)
def test_steps_come_one_after_the_other_in_one_launch(name: str) -> None:
    (_, whole), (_, serial) = _kernels(1, ELEMENTS, name), _kernels(ELEMENTS, 1, name)
    least = (ELEMENTS - 1) * LATENCY_CYCLES / chip(name).clock("time")
    assert serial.time_s - whole.time_s > 0.9 * least
    (_, half) = _kernels(ELEMENTS // 2, 1, name)
    assert serial.time_s - half.time_s == pytest.approx(least / 2, rel=0.1)
    (_, wide) = _kernels(ELEMENTS // 2, 2, name)
    assert wide.time_s == pytest.approx(half.time_s, rel=0.2), "what is beside costs little"


@pytest.mark.parametrize("name", CHIPS)
def test_nothing_is_fused_before_a_scan(name: str) -> None:
    kernels = _kernels(64, 32, name)
    assert [k.kernel.ops for k in kernels] == [("sigmoid",), ("selective_scan",)]


def test_what_follows_element_by_element_joins() -> None:
    kernels = _kernels(64, 32, "a100-sxm-80", after="%z: {shape} = mul(%y, %x)")
    assert [k.kernel.ops for k in kernels] == [("sigmoid",), ("selective_scan", "mul")]


def test_an_associative_chain_is_a_tree_where_hardware_makes_it_one() -> None:
    chain = Chain(steps=1024, beside=1, chained=1, associative=True)
    assert vector_cycles(1024, 64.0, chain, pairs=True) == 10 * LATENCY_CYCLES
    assert vector_cycles(1024, 64.0, chain, pairs=False) == 1024 * LATENCY_CYCLES
    wide = Chain(steps=1024, beside=640, chained=1, associative=True)
    assert vector_cycles(655_360, 64.0, wide, pairs=True) == 10_240
    assert vector_cycles(655_360, 64.0, wide, pairs=False) == 10_240
    assert vector_cycles(655_360, 64.0, None, pairs=True) == 10_240
