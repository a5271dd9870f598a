"""What drives a GPU: what each stack runs as one kernel, and a host that cannot keep up."""

from __future__ import annotations

import pytest

from tenfold.chips import chip
from tenfold.compiler import Options, build
from tenfold.errors import InputError, UnknownName
from tenfold.ir.text import parse_text
from tenfold.machine import Program, Stack, simulate, stack_facts, stack_named
from tenfold.machine.stack import AttentionPace, attention_pace
from tenfold.model import Sizes, load, prepare

BLOCK = """graph 'block' {
  input %x: fp32[64,256]
  const %w: fp32[256,256] = elided
  const %b: fp32[256] = elided
  %m: fp32[64,256] = matmul(%x, %w)
  %a: fp32[64,256] = add(%m, %b)
  %r: fp32[64,256] = relu(%a)
  %s: fp32[64,256] = add(%r, %x)
  %n: fp32[64,256] = layer_norm(%s, %b, %b) {axis=-1}
  output %n
}"""


def program(stack: Stack, model: str = "", batch: int = 1) -> Program:
    l4 = chip("l4")
    if not model:
        return build(parse_text(BLOCK), l4, l4.storage(None), 64, Options(stack=stack))
    bound = prepare(load(model), Sizes(batch, 128))
    return build(bound.graph, l4, l4.storage(None), batch, Options(stack=stack))


def kernels(stack: Stack) -> list[tuple[str, ...]]:
    return [k.ops for k in program(stack).kernels]


def test_an_engine_fuses_behind_a_product() -> None:
    assert kernels(Stack.ENGINE) == [("matmul", "add", "relu", "add"), ("layer_norm",)]


def test_torch_compile_fuses_beside_products_which_take_their_bias() -> None:
    assert kernels(Stack.COMPILED) == [("matmul", "add"), ("relu", "add", "layer_norm")]


def test_eager_launches_every_op_but_the_bias() -> None:
    assert kernels(Stack.EAGER) == [("matmul", "add"), ("relu",), ("add",), ("layer_norm",)]


def test_eager_scales_and_masks_scores_on_their_own() -> None:
    names = [k.name for k in program(Stack.EAGER, "bert-base").kernels]
    parts = [n.rsplit("attend/", 1)[1] for n in names if n.startswith("layer.0.attention.attend/")]
    assert parts == ["scores", "scores/1", "scores/2", "softmax", "values"]
    compiled = [k.name for k in program(Stack.COMPILED, "bert-base").kernels]
    parts = [n.rsplit("/", 1)[1] for n in compiled if n.startswith("layer.0.attention.attend/")]
    assert parts == ["scores", "softmax", "values"]


def test_a_small_model_waits_for_its_host() -> None:
    """One item of BERT on a fast chip takes what the host needs to launch its kernels."""
    c = chip("h100-sxm")
    bound = prepare(load("bert-base"), Sizes(1, 32))
    made = build(bound.graph, c, c.storage(None), 1, Options(stack=Stack.EAGER))
    launches = sum(k.repeat for k in made.kernels)
    run = simulate(made, c)
    assert run.time_s.value == pytest.approx(
        launches * stack_facts(Stack.EAGER).host_launch_s.value
    )
    large = prepare(load("bert-base"), Sizes(64, 384))
    made = build(large.graph, c, c.storage(None), 64, Options(stack=Stack.EAGER))
    assert simulate(made, c).launch_s == 0


def test_stacks_are_quicker_the_more_they_fuse() -> None:
    times = [simulate(program(s, "bert-large", 8)).time_s.value for s in Stack]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ["tpu-v4", "epyc-9654"])
def test_other_chips_have_their_makers_stack(name: str) -> None:
    c = chip(name)
    with pytest.raises(InputError, match="the stack 'eager' is one of GPUs"):
        build(parse_text(BLOCK), c, c.storage(None), 64, Options(stack=Stack.EAGER))


def test_an_unknown_stack_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean eager"):
        stack_named("eagre")


def test_older_kernels_of_attention_are_of_chips_that_there_are() -> None:
    """H200 has those of H100 (a misspelt name was never found), and engines have the newest."""
    for name in ("h100-sxm", "h200-sxm", "h800"):
        assert attention_pace(Stack.EAGER, name).forward > 1
        assert attention_pace(Stack.ENGINE, name) == AttentionPace()
    assert attention_pace(Stack.COMPILED, "a100-sxm-80") == AttentionPace()
