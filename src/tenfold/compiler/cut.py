"""Cutting what fusion joined: an attention as three kernels, where that is what compilers do or the
machine finds it faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tenfold.chips import Chip
from tenfold.compiler.fusion import SOFTMAX
from tenfold.ir.table import Lowering
from tenfold.machine import Group, Kernel, Operand, Product, Role, time_kernel
from tenfold.machine.kernel import Attention, off_chip

MASK = 3  # of the inputs of an attention
# of the off-chip memory: beyond it the scores of one attention must stay inside a kernel (assumed)
LARGEST_SCORES = 0.25


def cut(
    made: Iterable[Kernel],
    groups: Sequence[Group],
    root: Mapping[str, str],
    chip: Chip,
    row_elements: int,
) -> Iterator[Kernel]:
    """The kernels, attentions cut into parts where that is how they run. Equal kernels are asked
    about once.

    GPU libraries bring attention as one kernel; small ones are quicker apart, and a softmax over at
    most ``row_elements`` stays in the kernel that makes the scores. XLA has no such kernel: on
    systolic chips scores, softmax and values run one after the other, all scores are computed,
    causal or not, and they stay on the chip while they fit; the softmax reads them twice, once for
    each row's maximum and sum.
    """
    apart: dict[tuple[object, ...], bool] = {}
    for kernel in made:
        if (
            chip.kind == "systolic"
            and not kernel.products
            and SOFTMAX & set(kernel.ops)
            and kernel.operands
        ):
            yield from twice(kernel)
            continue
        if kernel.attention is None or not kernel.operands:
            yield kernel
            continue
        if chip.kind == "host":
            yield from _masked(
                _parts(kernel, groups[kernel.group], root, passes=1), groups[kernel.group], root
            )
            continue
        if chip.kind == "systolic":
            whole = _all_scores(kernel, kernel.attention)
            scores = (
                whole.products[0].batch
                * whole.products[0].m
                * whole.products[0].n
                * kernel.operand_bits
                / 8
            )
            parts = _parts(whole, groups[kernel.group], root, passes=2)
            yield from parts if scores <= LARGEST_SCORES * (chip.memory_bytes or 0) else (kernel,)
            continue
        parts = _parts(
            kernel,
            groups[kernel.group],
            root,
            passes=0 if kernel.attention.kv_len <= row_elements else 1,
        )
        if kernel.shape not in apart:
            together = time_kernel(chip, kernel).time_s
            apart[kernel.shape] = sum(time_kernel(chip, p).time_s for p in parts) < together
        yield from parts if apart[kernel.shape] else (kernel,)


def twice(kernel: Kernel) -> tuple[Kernel, Kernel]:
    """A softmax on its own: maximum and sum of each row, then the rows again."""
    reads = tuple(o for o in kernel.operands if o.role is not Role.OUTPUT)
    vector, functions = kernel.vector_ops // 2, kernel.transcendentals // 2
    sums = _part(replace(kernel, vector_ops=vector, transcendentals=functions), "sums", reads)
    return sums, replace(
        kernel,
        vector_ops=kernel.vector_ops - vector,
        transcendentals=kernel.transcendentals - functions,
    )


def _all_scores(kernel: Kernel, a: Attention) -> Kernel:
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


def _parts(
    kernel: Kernel, group: Group, root: Mapping[str, str], passes: int
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
    of_values = _sources(group, root, [n for i, n in enumerate(anchor.inputs) if i in (2, 5)])
    of_scores = _sources(group, root, [n for i, n in enumerate(anchor.inputs) if i not in (2, 5)])
    query_key = tuple(o for o in reads if o.name in of_scores)
    rest = tuple(o for o in reads if o.name in of_values or o.name not in of_scores)
    half = kernel.flops // 2
    values = _part(
        kernel,
        "values",
        (_read(weights), *rest, *outputs),
        products=(second,),
        flops=kernel.flops - half,
        vector_ops=0,
        transcendentals=0,
    )
    if not passes:
        return (
            _part(kernel, "weights", (*query_key, weights), products=(first,), flops=half),
            values,
        )
    vector, functions = kernel.vector_ops // passes, kernel.transcendentals // passes
    rows = replace(kernel, kind=Lowering.REDUCE, products=(), flops=0)
    sums = replace(rows, vector_ops=vector, transcendentals=functions)
    last = replace(
        rows,
        vector_ops=kernel.vector_ops - vector * (passes - 1),
        transcendentals=kernel.transcendentals - functions * (passes - 1),
    )
    return (
        _part(
            kernel,
            "scores",
            (*query_key, written),
            products=(first,),
            flops=half,
            vector_ops=0,
            transcendentals=0,
        ),
        *(_part(sums, "sums", (_read(written),)) for _ in range(passes - 1)),
        _part(last, "softmax", (_read(written), weights)),
        values,
    )


def _masked(parts: tuple[Kernel, ...], group: Group, root: Mapping[str, str]) -> Iterator[Kernel]:
    """The parts of an attention with the sum of scores and mask on its own, as a runtime of single
    operators does it.
    """
    scores, softmax, values = parts
    anchor = group.anchor
    assert anchor is not None
    names = _sources(group, root, anchor.inputs[MASK : MASK + 1])
    mask = tuple(o for o in scores.operands if o.name in names)
    if not mask:
        yield from parts
        return
    *reads, written = (o for o in scores.operands if o not in mask)
    total = replace(written, name=f"{anchor.outputs[0]}/masked")
    yield replace(scores, operands=(*reads, written), traffic=off_chip((*reads, written)))
    adding = replace(
        scores,
        kind=Lowering.VECTOR,
        products=(),
        flops=0,
        vector_ops=written.bytes * 8 // scores.operand_bits,
    )
    operands = (_read(written), *mask, total)
    yield replace(
        adding,
        name=scores.name.removesuffix("scores") + "mask",
        operands=operands,
        traffic=off_chip(operands),
    )
    given = tuple(_read(total) if o.name == written.name else o for o in softmax.operands)
    yield replace(softmax, operands=given)
    yield values


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


def _part(kernel: Kernel, what: str, operands: tuple[Operand, ...], **changed: object) -> Kernel:
    return replace(
        kernel,
        name=f"{kernel.name}/{what}",
        attention=None,
        operands=operands,
        traffic=off_chip(operands),
        **changed,  # type: ignore[arg-type]
    )
