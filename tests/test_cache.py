"""What a GPU's kernels find of each other in L2."""

from __future__ import annotations

import pytest

from tenfold.chips import SramRole, chip
from tenfold.compiler import Options, build
from tenfold.errors import InputError
from tenfold.evaluate.operators import OperatorCall, kernel_of
from tenfold.ir.text import parse_text
from tenfold.machine import Kernel, simulate, time_kernel
from tenfold.machine.gpu.cache import SHARE
from tenfold.model import Sizes, load, prepare

L40S = chip("l40s")  # 96 MiB of L2
ROOM = SHARE * L40S.level_bytes(SramRole.L2)


def chain(rows: int, middle: int) -> tuple[Kernel, ...]:
    """Three products in a row, and a sum that reads the first one's result again; ``middle``
    columns lie between.
    """
    text = f"""graph 'chain' {{
      input %x: fp16[{rows},64]
      const %w: fp16[64,64] = elided
      const %u: fp16[64,{middle}] = elided
      const %v: fp16[{middle},64] = elided
      %a: fp16[{rows},64] = matmul(%x, %w)
      %b: fp16[{rows},{middle}] = matmul(%a, %u)
      %c: fp16[{rows},64] = matmul(%b, %v)
      %y: fp16[{rows},64] = add(%c, %a)
      output %y
    }}"""
    return build(parse_text(text), L40S, L40S.storage("fp16"), rows).kernels


def near(kernels: tuple[Kernel, ...]) -> list[int]:
    return [k.traffic.near.inputs for k in kernels]


def test_what_was_just_written_is_read_near() -> None:
    rows = 4096
    first, second, third = chain(rows, 64)
    made = rows * 64 * 2
    assert near((first, second, third)) == [0, made, 2 * made]
    assert second.traffic.off_chip.inputs == third.traffic.off_chip.inputs == 0
    assert first.traffic.off_chip.inputs == made  # the model's own input comes from memory
    assert all(k.traffic.off_chip.weights and k.traffic.off_chip.outputs for k in (first, second))


def test_what_is_larger_than_the_cache_is_not() -> None:
    rows = int(ROOM / (64 * 2)) + 1
    assert near(chain(rows, 64)) == [0, 0, 0]


def test_what_lies_between_pushes_out() -> None:
    """The first result is still there for the product after it, and gone for the sum."""
    rows = 4096
    middle = int(ROOM / (rows * 2)) + 64
    first, second, third = chain(rows, middle // 64 * 64)
    made = rows * 64 * 2
    assert near((first, second, third))[1] == made
    assert third.traffic.near.inputs == 0


def test_a_moderate_batch_of_a_network_lives_in_the_cache() -> None:
    """ResNet-50 in int8: at 32 items most of what is read comes from L2, and an item takes less
    time than at 256, where it does not.
    """
    per_item = {}
    for batch in (32, 256):
        bound = prepare(load("resnet50"), Sizes(batch))
        run = simulate(build(bound.graph, L40S, L40S.storage("int8"), batch), L40S)
        per_item[batch] = run.time_s.value / batch
    assert per_item[32] < 0.85 * per_item[256]


@pytest.mark.parametrize("name", ["tpu-v4", "epyc-9654"])
def test_other_machines_have_their_own_plan(name: str) -> None:
    c = chip(name)
    bound = prepare(load("resnet50"), Sizes(1))
    made = build(bound.graph, c, c.storage(None), 1, Options(without=("residency",))).kernels
    assert all(not k.traffic.near.total for k in made)


def call(rows: int, *, warm: bool) -> Kernel:
    extents = {"rows": rows, "cols": 1024}
    request = OperatorCall(1, "gelu", "fp16", extents, warm=warm)
    return kernel_of(request, L40S, L40S.storage("fp16"))


def test_warm_operands_come_from_the_cache_where_they_fit() -> None:
    small, large = 4096, 65536
    cold, warm = (time_kernel(L40S, call(small, warm=w)) for w in (False, True))
    assert warm.time_s < 0.75 * cold.time_s
    assert call(large, warm=True) == call(large, warm=False)


def test_warm_is_a_matter_of_gpus() -> None:
    v4, extents = chip("tpu-v4"), {"rows": 64, "cols": 64}
    request = OperatorCall(1, "gelu", "bf16", extents, warm=True)
    with pytest.raises(InputError, match="tpu-v4 has no such cache, so leave --warm out"):
        kernel_of(request, v4, v4.storage(None))
