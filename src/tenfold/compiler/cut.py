"""Cutting what fusion joined where the machine says that apart is faster: a small attention as three kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tenfold.chips import Chip
from tenfold.ir.table import Lowering
from tenfold.machine import Group, Kernel, Operand, Role, time_kernel
from tenfold.machine.kernel import off_chip


def cut(made: Iterable[Kernel], groups: Sequence[Group], root: Mapping[str, str], chip: Chip, row_elements: int) -> Iterator[Kernel]:
    """The kernels, those that the machine runs faster in parts cut into them. Equal kernels are asked about once.

    A softmax over at most ``row_elements`` stays in the kernel that makes the scores.
    """
    apart: dict[tuple[object, ...], bool] = {}
    for kernel in made:
        if kernel.attention is None or chip.kind != "gpu" or not kernel.operands:
            yield kernel
            continue
        parts = _parts(kernel, groups[kernel.group], root, kernel.attention.kv_len <= row_elements)
        if kernel.shape not in apart:
            whole = time_kernel(chip, kernel).time_s
            apart[kernel.shape] = sum(time_kernel(chip, p).time_s for p in parts) < whole
        yield from parts if apart[kernel.shape] else (kernel,)


def _parts(kernel: Kernel, group: Group, root: Mapping[str, str], short: bool) -> tuple[Kernel, ...]:
    """Scores, softmax over them, and their product with the values; the scores pass through memory, long ones twice."""
    first, second = kernel.products
    scores = first.batch * first.m * first.n * kernel.operand_bits // 8
    anchor = group.anchor
    assert anchor is not None
    written, weights = (Operand(f"{anchor.outputs[0]}/{n}", Role.OUTPUT, scores) for n in ("scores", "weights"))
    reads = [o for o in kernel.operands if o.role is not Role.OUTPUT]
    outputs = [o for o in kernel.operands if o.role is Role.OUTPUT]
    of_values = _sources(group, root, [n for i, n in enumerate(anchor.inputs) if i in (2, 5)])
    of_scores = _sources(group, root, [n for i, n in enumerate(anchor.inputs) if i not in (2, 5)])
    query_key = tuple(o for o in reads if o.name in of_scores)
    rest = tuple(o for o in reads if o.name in of_values or o.name not in of_scores)
    half = kernel.flops // 2
    values = _part(kernel, "values", (_read(weights), *rest, *outputs), products=(second,), flops=kernel.flops - half, vector_ops=0,
                   transcendentals=0)  # fmt: skip
    if short:
        return _part(kernel, "weights", (*query_key, weights), products=(first,), flops=half), values
    return (
        _part(kernel, "scores", (*query_key, written), products=(first,), flops=half, vector_ops=0, transcendentals=0),
        _part(kernel, "softmax", (_read(written), weights), products=(), flops=0, kind=Lowering.REDUCE),
        values,
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


def _part(kernel: Kernel, what: str, operands: tuple[Operand, ...], **changed: object) -> Kernel:
    return replace(kernel, name=f"{kernel.name}/{what}", attention=None, operands=operands, traffic=off_chip(operands), **changed)  # type: ignore[arg-type]
