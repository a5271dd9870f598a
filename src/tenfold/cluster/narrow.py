"""Products of a training step in fewer bits than its tensors: fp8 (Micikevicius et al. 2022, FP8
Formats for Deep Learning, section 4).

Activations and gradients are scaled and narrowed once before the product that reads them first;
that of the weights' gradients takes what is there. Weights lie there narrow both ways round, in as
many bytes as they had. Attention and the product that makes words stay as they are
(NVIDIA/Megatron-LM and pytorch/torchtitan narrow the products of blocks only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tenfold.chips import Chip, MatrixPrecision
from tenfold.errors import InputError
from tenfold.ir.graph import Graph, Op, stored_numbers
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering
from tenfold.ir.views import roots
from tenfold.machine import Kernel, Program

ABLE = (MatrixPrecision.FP8,)


def check_narrow(chip: Chip, products: MatrixPrecision) -> None:
    """Raises InputError for what training is not modelled in, or the chip has not."""
    if products not in ABLE:
        raise InputError(
            f"training with products in {products.value} is not modelled: give --dtype fp8, bf16,"
            " fp16, tf32 or fp32"
        )
    if products not in chip.peak_flops:
        raise InputError(f"{chip.name} has no products in {products.value}: give --dtype bf16")


def head_of(graph: Graph, logits: str) -> str:
    """The weights that make ``logits``, "" where no product with weights does."""
    made = {o: op for op in graph.ops for o in op.outputs}
    name = logits
    while name in made and made[name].inputs:
        op = made[name]
        if row_of(op).lowering is Lowering.MATRIX:
            held = [n for n in op.inputs if _weight(graph, n)]
            return held[0] if held else ""
        name = op.inputs[0]
    return ""


def narrowed(
    program: Program, products: MatrixPrecision, gradients: Mapping[str, str], head: str
) -> Program:
    """``program`` with the products of its layers in ``products``: those with weights, and those
    that make ``gradients`` of weights (results by name, with their weights); those of the weights
    ``head`` stay as they are.
    """
    ends = _ends(program.graph, gradients)
    makers = {o: op for op in program.graph.ops for o in op.outputs}
    root = roots(program.graph)
    made, done = [], set[str]()
    for k in program.kernels:
        anchor = program.groups[k.group].anchor
        weighed = _weighed(program.graph, anchor, ends, makers) if anchor is not None else None
        able = k.products and k.attention is None and k.backward_of is None
        # a part of a weight is named as the weight, with ticks
        if able and weighed is not None and weighed.rstrip("'") != head:
            assert anchor is not None
            given = {root.get(n, n): n for n in _given(program.graph, anchor)}
            # what several products are given is narrowed once
            new = [n for r, n in given.items() if r not in done]
            done |= set(given)
            made.append(_narrowed(k, products, program.graph, list(given.values()), new))
        else:
            made.append(k)
    return replace(program, kernels=tuple(made))


def is_narrow(kernel: Kernel, program: Program) -> bool:
    return bool(kernel.products) and kernel.precision is not program.precision


def _weight(graph: Graph, name: str) -> bool:
    held = name in graph.constants and len(graph.values[name].dims) > 1
    return held and stored_numbers(graph.values[name], graph.stored) > 0


def _ends(graph: Graph, gradients: Mapping[str, str]) -> dict[str, str]:
    """The values that end as a gradient of a weight, only moved, added up or summed over chips."""
    found = dict(gradients)
    for op in reversed(graph.ops):
        row = row_of(op)
        passes = row.views or row.additive or row.collective or row.lowering is Lowering.MOVE
        weight = found.get(op.outputs[0]) if op.outputs else None
        if weight is not None and passes:
            found |= {n: weight for n in op.inputs if n and n not in graph.constants}
    return found


def _given(graph: Graph, op: Op) -> list[str]:
    """The factors of a product that are no weights."""
    factors = [op.inputs[i] for i in row_of(op).factors if i < len(op.inputs)]
    return [n for n in factors if n and not _weight(graph, n)]


def _of(op: Op, ends: Mapping[str, str]) -> bool:
    return op.outputs[0] in ends


def _weighed(graph: Graph, op: Op, ends: Mapping[str, str], made: Mapping[str, Op]) -> str | None:
    """The weights that a product is with or makes the gradient of; None for one of neither."""
    if _of(op, ends):
        return ends[op.outputs[0]]
    for name in op.inputs:
        while name in made and (
            row_of(made[name]).views or row_of(made[name]).lowering is Lowering.MOVE
        ):
            name = made[name].inputs[0]
        if name and _weight(graph, name):
            return name
    return None


def _narrowed(
    kernel: Kernel,
    products: MatrixPrecision,
    graph: Graph,
    given: Sequence[str],
    new: Sequence[str],
) -> Kernel:
    """A kernel whose factors ``given`` are narrow, ``new`` ones of them narrowed for it."""
    share = products.bits / kernel.operand_bits
    moved = kernel.traffic.off_chip

    def elements(names: Sequence[str]) -> int:
        return sum(int(str(graph.values[n].elements)) for n in names)

    grouped = len(kernel.products) > 1
    factors = _routed(kernel) if grouped else elements(given)
    wide = min(moved.inputs, factors * kernel.operand_bits // 8)
    less = replace(
        moved,
        weights=int(moved.weights * share),
        inputs=moved.inputs - int(wide * (1 - share)),
    )
    return replace(
        kernel,
        precision=products,
        operand_bits=products.bits,
        traffic=replace(kernel.traffic, off_chip=less),
        quantizes=factors if grouped else elements(new),
    )


def _routed(kernel: Kernel) -> int:
    """Elements that experts are given and that they make in between: behind the router two products
    of all that are active; backward their gradients too.
    """
    _, first, second, *backward = kernel.products
    once = first.batch * first.m * (first.k + second.k)
    return 2 * once if backward else once
