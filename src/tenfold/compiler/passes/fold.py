"""Constant folding: what depends on constants alone is computed once, when compiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tenfold.compiler.passes.sweep import Pass, Sweep, sweeping
from tenfold.ir.graph import Array, Op
from tenfold.ir.infer import row_of
from tenfold.ir.table import Context, Lowering

SMALL_BYTES = 16384  # a result this small may be larger than its operands


def _visit(sweep: Sweep, op: Op) -> None:
    if not _foldable(sweep, op):
        sweep.emit(op)
        return
    results: list[Array | None] = [None] * len(op.outputs)
    operands = [sweep.constants[n] if n else None for n in op.inputs]
    if all(a is not None for a, n in zip(operands, op.inputs, strict=True) if n):
        try:
            with np.errstate(all="ignore"):
                made = row_of(op).evaluate(Context(op.attrs, len(op.outputs)), *operands)
        # folding is an optimisation: what cannot be computed here fails when the model runs, if it
        # ever does
        except Exception:
            sweep.emit(op)
            return
        listed = [made] if isinstance(made, np.ndarray | np.generic) else list(made)
        results = [np.asarray(a) if a is not None else None for a in listed]
    for name, data in zip(op.outputs, results, strict=False):
        if name:
            _define(sweep, name, data, op)


def _define(sweep: Sweep, name: str, data: Array | None, op: Op) -> None:
    value = sweep.value(name)
    if name in sweep.graph.outputs:
        folded = sweep.constant(sweep.name(name, "folded"), data, value)
        sweep.emit(Op("identity", (folded,), (name,), loc=op.loc))
    else:
        folded = sweep.constant(name, data, value)
    sweep.computed(replace(op, outputs=(folded,)))


def _foldable(sweep: Sweep, op: Op) -> bool:
    """Pure, of constants alone, and not larger than what it is made of (a fill is a weight that the
    file spells short).
    """
    row = row_of(op)
    if op.bodies or not row.pure or row.lowering is Lowering.OPAQUE:
        return False
    if not all(sweep.is_constant(n) for n in op.inputs if n):
        return False
    if any(sweep.shape(o) is None for o in op.outputs if o):
        return False
    if any(sweep.value(n).dtype == "string" for n in (*op.inputs, *op.outputs) if n):
        return False
    made = sum(int(sweep.value(o).bytes) for o in op.outputs if o)
    given = sum(int(sweep.value(n).bytes) for n in op.inputs if n and sweep.shape(n) is not None)
    return op.kind == "full" or made <= max(given, SMALL_BYTES)


PASS = Pass("fold", "what depends on constants alone is computed when compiling", sweeping(_visit))
