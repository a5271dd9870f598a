"""Canonical form: one way to write each thing, and nothing that does nothing."""

from __future__ import annotations

import numpy as np

from tenfold.compiler.passes.sweep import Pass, Sweep, sweeping
from tenfold.ir.dims import elements
from tenfold.ir.graph import Op

_VIEWS = frozenset({"reshape", "flatten", "squeeze", "unsqueeze", "identity"})


def _visit(sweep: Sweep, op: Op) -> None:
    """Views become one reshape of the source, transposes one transpose; what does nothing is left
    out.
    """
    result = op.outputs[0] if op.outputs else ""
    if (
        len(op.outputs) == 1
        and op.inputs
        and op.inputs[0]
        and result not in sweep.graph.outputs
        and _nothing(sweep, op)
    ):
        sweep.forward(result, op.inputs[0], op)
    elif (
        op.kind in _VIEWS
        and sweep.shape(result) is not None
        and sweep.shape(op.inputs[0]) is not None
    ):
        _view(sweep, op)
    elif op.kind == "transpose":
        _transpose(sweep, op)
    elif op.kind == "matmul":
        sweep.emit(_matmul(sweep, op))
    else:
        sweep.emit(op)


def _nothing(sweep: Sweep, op: Op) -> bool:
    """Whether the op's result is its first operand, element for element and shape for shape."""
    before, after = sweep.value(op.inputs[0]), sweep.value(op.outputs[0])
    if before.dtype != after.dtype or before.shape is None or before.shape != after.shape:
        return False
    if op.kind in ("cast", "expand", "tile", *_VIEWS):
        return True
    if op.kind == "transpose":
        moved = [p for p in _perm(op, len(before.shape)) if before.shape[p] != 1]
        return moved == sorted(moved)
    if op.kind == "concat":
        return len(op.inputs) == 1
    if op.kind == "split":
        return len(op.outputs) == 1
    if op.kind == "slice":
        steps = (
            sweep.constants.get(op.inputs[4]) if len(op.inputs) > 4 and op.inputs[4] else np.ones(1)
        )
        return steps is not None and bool((steps > 0).all())
    if op.kind == "pad":
        pads = sweep.constants.get(op.inputs[1]) if len(op.inputs) > 1 else None
        return pads is not None and not pads.any()
    return False


def _perm(op: Op, rank: int) -> tuple[int, ...]:
    given = op.attrs.get("perm")
    return (
        tuple(int(p) % rank for p in given)
        if isinstance(given, tuple) and given
        else tuple(reversed(range(rank)))
    )


def _view(sweep: Sweep, op: Op) -> None:
    """A reshape to a constant shape, straight from what the views before it look at."""
    source = op.inputs[0]
    while source in sweep.producer and sweep.producer[source].kind == "reshape":
        source = sweep.producer[source].inputs[0]
    result = op.outputs[0]
    target = sweep.shape(result)
    assert target is not None
    if sweep.shape(source) == target and result not in sweep.graph.outputs:
        sweep.forward(result, source, op)
        return
    if op.kind == "identity":
        sweep.emit(op)
        return
    shape = sweep.number(result, np.asarray(target, dtype=np.int64))
    sweep.emit(Op("reshape", (source, shape), op.outputs, {"allowzero": 1}, (), op.loc))


def _transpose(sweep: Sweep, op: Op) -> None:
    """Two transposes are one; one that moves only extents of 1 is a reshape."""
    source = op.inputs[0]
    shape = sweep.value(source).shape
    if shape is None:
        sweep.emit(op)
        return
    perm = _perm(op, len(shape))
    before = sweep.producer.get(source)
    if before is not None and before.kind == "transpose":
        inner = _perm(before, len(perm))
        source, perm = before.inputs[0], tuple(inner[p] for p in perm)
        moved = Op("transpose", (source,), op.outputs, {"perm": perm}, (), op.loc)
        if op.outputs[0] not in sweep.graph.outputs and _nothing(sweep, moved):
            sweep.forward(op.outputs[0], source, op)
            return
    static = sweep.shape(source)
    if static is not None and elements(static):
        moved_axes = [p for p in perm if static[p] != 1]
        if moved_axes == sorted(moved_axes):
            target = sweep.number(
                op.outputs[0], np.asarray([static[p] for p in perm], dtype=np.int64)
            )
            _view(sweep, Op("reshape", (source, target), op.outputs, {"allowzero": 1}, (), op.loc))
            return
    sweep.emit(Op("transpose", (source,), op.outputs, {"perm": perm}, (), op.loc))


def _matmul(sweep: Sweep, op: Op) -> Op:
    """A transpose of the last two axes of an operand becomes a flag: matrix units read either
    way.
    """
    inputs, attrs = list(op.inputs), dict(op.attrs)
    for i, flag in ((0, "transpose_a"), (1, "transpose_b")):
        before = sweep.producer.get(inputs[i])
        if before is None or before.kind != "transpose":
            continue
        rank = len(sweep.value(inputs[i]).dims)
        if rank >= 2 and _perm(before, rank) == (*range(rank - 2), rank - 1, rank - 2):
            inputs[i] = before.inputs[0]
            attrs[flag] = 0 if attrs.get(flag, 0) else 1
    return (
        Op("matmul", tuple(inputs), op.outputs, attrs, (), op.loc)
        if tuple(inputs) != op.inputs
        else op
    )


PASS = Pass(
    "canonicalise",
    "one way to write each thing: views are reshapes, transposes compose, no-ops go",
    sweeping(_visit),
)
