"""An attention as the kernels it runs in where no single one does it: scores, softmax, values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tenfold.ir.table import Lowering, Rate
from tenfold.machine.kernel import Attention, Group, Kernel, Operand, Product, Role, off_chip

MASK = 3  # of the inputs of an attention
VALUES = (2, 5)  # new ones, and those of the past


def softmax_in_two(kernel: Kernel) -> tuple[Kernel, Kernel]:
    """A softmax on its own: maximum and sum of each row, then the rows again."""
    reads = tuple(o for o in kernel.operands if o.role is not Role.OUTPUT)
    vector, functions = kernel.vector_ops // 2, kernel.transcendentals // 2
    sums = _part(kernel, "sums", reads, vector_ops=vector, transcendentals=functions)
    rest = kernel.vector_ops - vector, kernel.transcendentals - functions
    return sums, replace(kernel, vector_ops=rest[0], transcendentals=rest[1])


def all_scores(kernel: Kernel, a: Attention) -> Kernel:
    """``kernel`` with products and softmax over every score, in a window or not."""
    first, second = kernel.products
    products = (
        Product(first.batch, first.m, a.kv_len, first.k),
        Product(second.batch, second.m, second.n, a.kv_len),
    )
    vector, functions = (
        n * a.kv_len // a.seen for n in (kernel.vector_ops, kernel.transcendentals)
    )
    return replace(kernel, products=products, vector_ops=vector, transcendentals=functions)


def in_parts(
    kernel: Kernel, group: Group, root: Mapping[str, str], *, passes: int
) -> tuple[Kernel, ...]:
    """Scores, softmax over them, and their product with the values.

    The softmax reads the scores ``passes`` times; with 0 it is done as they are made.
    """
    first, second = kernel.products
    scores = first.batch * first.m * first.n * kernel.operand_bits // 8
    anchor = group.anchor
    assert anchor is not None
    written, weights = (
        Operand(f"{anchor.outputs[0]}/{n}", Role.OUTPUT, scores) for n in ("scores", "weights")
    )
    reads = [o for o in kernel.operands if o.role is not Role.OUTPUT]
    outputs = [o for o in kernel.operands if o.role is Role.OUTPUT]
    of_values = _sources(group, root, [n for i, n in enumerate(anchor.inputs) if i in VALUES])
    of_scores = _sources(group, root, [n for i, n in enumerate(anchor.inputs) if i not in VALUES])
    query_key = tuple(o for o in reads if o.name in of_scores)
    rest = tuple(o for o in reads if o.name in of_values or o.name not in of_scores)
    half = kernel.flops // 2
    bare = replace(kernel, vector_ops=0, transcendentals=0, rate=Rate.PRODUCT)
    values = _part(
        replace(bare, products=(second,), flops=kernel.flops - half),
        "values",
        (_read(weights), *rest, *outputs),
    )
    only_scores = {"products": (first,), "flops": half, "rate": Rate.PRODUCT}
    if not passes:
        return _part(kernel, "weights", (*query_key, weights), **only_scores), values
    return (
        _part(bare, "scores", (*query_key, written), **only_scores),
        *_softmax(kernel, written, weights, passes),
        values,
    )


def _softmax(kernel: Kernel, scores: Operand, weights: Operand, passes: int) -> tuple[Kernel, ...]:
    """The softmax of an attention: its rows read ``passes`` times, the last time written too."""
    vector, functions = kernel.vector_ops // passes, kernel.transcendentals // passes
    rows = replace(kernel, kind=Lowering.REDUCE, products=(), flops=0, rate=Rate.SOFTMAX)
    sums = replace(rows, vector_ops=vector, transcendentals=functions)
    last = replace(
        rows,
        vector_ops=kernel.vector_ops - vector * (passes - 1),
        transcendentals=kernel.transcendentals - functions * (passes - 1),
    )
    return (
        *(_part(sums, "sums", (_read(scores),)) for _ in range(passes - 1)),
        _part(last, "softmax", (_read(scores), weights)),
    )


def scores_passed(parts: tuple[Kernel, ...], times: int) -> tuple[Kernel, ...]:
    """The parts of an attention with ``times`` kernels more that go over its scores one by one, as
    frameworks scale and mask them.
    """
    scores, softmax, values = parts
    written = next(o for o in scores.operands if o.role is Role.OUTPUT)
    passed: list[Kernel] = []
    last = written
    for i in range(1, times + 1):
        before, last = last, replace(written, name=f"{written.name}/{i}")
        passed.append(_over_scores(scores, f"{scores.name}/{i}", (_read(before), last)))
    given = tuple(_read(last) if o.name == written.name else o for o in softmax.operands)
    return (scores, *passed, replace(softmax, operands=given), values)


def mask_apart(
    parts: tuple[Kernel, ...], group: Group, root: Mapping[str, str]
) -> tuple[Kernel, ...]:
    """The parts of an attention with the sum of scores and mask on its own, as a runtime of single
    operators does it.
    """
    scores, softmax, values = parts
    anchor = group.anchor
    assert anchor is not None
    names = _sources(group, root, anchor.inputs[MASK : MASK + 1])
    mask = tuple(o for o in scores.operands if o.name in names)
    if not mask:
        return parts
    *reads, written = (o for o in scores.operands if o not in mask)
    total = replace(written, name=f"{anchor.outputs[0]}/masked")
    operands = (_read(written), *mask, total)
    adding = _over_scores(scores, scores.name.removesuffix("scores") + "mask", operands)
    alone = (*reads, written)
    given = tuple(_read(total) if o.name == written.name else o for o in softmax.operands)
    return (
        replace(scores, operands=alone, traffic=off_chip(alone)),
        adding,
        replace(softmax, operands=given),
        values,
    )


def _over_scores(scores: Kernel, name: str, operands: tuple[Operand, ...]) -> Kernel:
    """A kernel of one operation for each of the scores that ``scores`` makes, written last."""
    return replace(
        scores,
        name=name,
        kind=Lowering.VECTOR,
        rate=Rate.STREAM,
        products=(),
        flops=0,
        vector_ops=operands[-1].bytes * 8 // scores.operand_bits,
        operands=operands,
        traffic=off_chip(operands),
    )


def _sources(group: Group, root: Mapping[str, str], names: Sequence[str]) -> set[str]:
    """Buffers from outside that these values are made of within the group."""
    maker = {o: op for op in group.ops for o in op.outputs if o}
    found: set[str] = set()
    waiting = [n for n in names if n]
    while waiting:
        name = waiting.pop()
        if name in maker:
            waiting += [n for n in maker[name].inputs if n]
        else:
            found.add(root.get(name, name))
    return found


def _read(o: Operand) -> Operand:
    return replace(o, role=Role.INPUT)


def _part(kernel: Kernel, what: str, operands: tuple[Operand, ...], **changed: Any) -> Kernel:
    return replace(
        kernel,
        name=f"{kernel.name}/{what}",
        attention=None,
        operands=operands,
        traffic=off_chip(operands),
        **changed,
    )
