"""Products of a training step in fewer bits than its tensors: fp8 (Micikevicius et al. 2022, FP8
Formats for Deep Learning, section 4).

Activations and gradients are scaled and narrowed once before the product that reads them first;
that of the weights' gradients takes what is there. Weights lie there narrow both ways round, in as
many bytes as they had. Attention, and products as wide as the vocabulary, stay as they are
(NVIDIA/Megatron-LM and pytorch/torchtitan narrow the products of blocks only).
"""

from __future__ import annotations

from dataclasses import replace

from tenfold.chips import Chip, MatrixPrecision
from tenfold.errors import InputError
from tenfold.machine import Kernel, Program
from tenfold.machine.kernel import Role

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


def narrowed(program: Program, products: MatrixPrecision, spared: int) -> Program:
    """``program`` with the products of its layers in ``products``; those with an extent of
    ``spared`` stay as they are.
    """
    made = tuple(_narrowed(k, products, spared) for k in program.kernels)
    return replace(program, kernels=made)


def is_narrow(kernel: Kernel, program: Program) -> bool:
    return bool(kernel.products) and kernel.precision is not program.precision


def _narrowed(kernel: Kernel, products: MatrixPrecision, spared: int) -> Kernel:
    """A kernel with products of weights, or of activations for gradients of weights: scores of
    attention are those of many heads, and of no weights.
    """
    weighs = any(o.role is Role.WEIGHT for o in kernel.operands)
    single = all(p.batch == 1 for p in kernel.products)
    head = any(spared in (p.m, p.n, p.k) for p in kernel.products)
    if not kernel.products or kernel.attention is not None or head or not (weighs or single):
        return kernel
    share = products.bits / kernel.operand_bits
    moved = kernel.traffic.off_chip
    first = kernel.products[0]
    rows = first.batch * first.m * first.k if kernel.experts is None else _routed(kernel)
    factors = rows if weighs else first.m * first.k + first.k * first.n
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
        quantizes=rows if weighs else 0,
    )


def _routed(kernel: Kernel) -> int:
    """Elements that experts are given, and that they make in between."""
    e = kernel.experts
    assert e is not None
    return sum(e.counts) * (e.hidden + e.inner)
