"""Common subexpressions: what is computed twice from the same operands is computed once."""

from __future__ import annotations

from tenfold.compiler.passes.sweep import Pass, Sweep, sweeping
from tenfold.ir.graph import Op
from tenfold.ir.infer import row_of

SMALL = 64  # elements of constants whose contents are compared


def _visit(sweep: Sweep, op: Op) -> None:
    if op.bodies or not row_of(op).pure or op.kind == "identity":
        sweep.emit(op)
        return
    key = (
        op.kind,
        tuple(_operand(sweep, n) for n in op.inputs),
        tuple(sorted(op.attrs.items())),
        tuple(bool(o) for o in op.outputs),
    )
    before = sweep.memo.get(key)
    if before is None:
        sweep.memo[key] = sweep.emit(op)
        return
    for old, new in zip(op.outputs, before.outputs, strict=True):
        if old:
            sweep.forward(old, new, op)


def _operand(sweep: Sweep, name: str) -> object:
    """A value by its name, a small constant by its content."""
    data = sweep.constants.get(name)
    if data is None or data.size > SMALL or data.dtype == object:
        return name
    return data.dtype.name, data.shape, data.tobytes()


PASS = Pass(
    "cse", "what is computed twice from the same operands is computed once", sweeping(_visit)
)
