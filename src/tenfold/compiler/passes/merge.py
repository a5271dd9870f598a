"""Products of the same operand with different weights - query, key and value; gate and up - become
one wide product.
"""

from __future__ import annotations

import numpy as np

from tenfold.compiler.passes.sweep import Pass, Sweep, sweeping
from tenfold.ir.graph import Array, Op, Value


def _visit(sweep: Sweep, op: Op) -> None:
    """The first of several such products computes them all; the results are parts of one."""
    family = _family(sweep, op) if op.kind == "matmul" else []
    if len(family) < 2:
        sweep.emit(op)
    elif ("merged", op.outputs[0]) not in sweep.memo:
        sweep.memo |= {("merged", p.outputs[0]): True for p in family}
        _emit(sweep, op, family)


def _family(sweep: Sweep, op: Op) -> list[Op]:
    """The products in the graph that read what ``op`` reads, with weights of the same kind."""
    if ("families",) not in sweep.memo:
        families: dict[tuple[object, ...], list[Op]] = {}
        for p in sweep.graph.ops:
            if (
                p.kind == "matmul"
                and not p.attrs.get("transpose_a", 0)
                and _weight(sweep, p) is not None
            ):
                weight = sweep.value(p.inputs[1])
                families.setdefault(
                    (p.inputs[0], bool(p.attrs.get("transpose_b", 0)), weight.dtype), []
                ).append(p)
        sweep.memo[("families",)] = True
        sweep.memo |= {("family", p.outputs[0]): f for f in families.values() for p in f}
    found: list[Op] = sweep.memo.get(("family", op.outputs[0]), [])
    return found


def _weight(sweep: Sweep, op: Op) -> tuple[int, ...] | None:
    shape = sweep.shape(op.inputs[1]) if sweep.is_constant(op.inputs[1]) else None
    alone = sweep.uses.get(op.inputs[1], 0) == 1  # a weight that is shared would be stored twice
    floats = sweep.value(op.inputs[1]).dtype.is_float
    return shape if shape is not None and len(shape) == 2 and alone and floats else None


def _emit(sweep: Sweep, op: Op, family: list[Op]) -> None:
    columns = 0 if op.attrs.get("transpose_b", 0) else 1
    arrays = [sweep.constants[p.inputs[1]] for p in family]
    shapes = [sweep.value(p.inputs[1]).dims for p in family]
    widths = [int(s[columns]) for s in shapes]
    known = [a for a in arrays if a is not None]
    data: Array | None = np.concatenate(known, axis=columns) if len(known) == len(arrays) else None
    whole = tuple(sum(widths) if i == columns else d for i, d in enumerate(shapes[0]))
    weight = sweep.constant(
        sweep.name(op.inputs[1], "merged"), data, Value("", sweep.value(op.inputs[1]).dtype, whole)
    )
    wide = sweep.make("matmul", (op.inputs[0], weight), op.attrs, op)
    sizes = sweep.number(op.outputs[0], np.asarray(widths, np.int64))
    sweep.emit(
        Op("split", (wide, sizes), tuple(p.outputs[0] for p in family), {"axis": -1}, (), op.loc)
    )


PASS = Pass(
    "merge", "products that read the same operand become one wide product", sweeping(_visit)
)
