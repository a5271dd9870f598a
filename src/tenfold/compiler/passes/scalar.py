"""Functions of one number, recognised by what they compute: evaluated on sample points, however
they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from tenfold.compiler.passes.sweep import Sweep
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Attr, Op
from tenfold.ir.infer import row_of
from tenfold.ir.table import Context

LONGEST = 12  # ops in one function
_TELLING = frozenset({"erf", "tanh", "sigmoid", "softplus", "clip", "hard_sigmoid", "exp"})
_SIMPLE = _TELLING | {
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "pow",
    "max",
    "min",
    "relu",
    "reciprocal",
    "sqrt",
}
_POINTS = np.concatenate(
    [np.linspace(-8, 8, 65), [-0.3, -1e-2, 1e-2, 0.7], [-40, -20, -12, 12, 20, 40]]
)
# times each constant of the region: bounds show beyond themselves
_AROUND = np.array([-3.0, -1.5, -1.0, 1.0, 1.5, 3.0])
_CANDIDATES: tuple[tuple[str, Mapping[str, Attr]], ...] = (
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("swish", {}),
    ("swish", {"alpha": 1.702}),
    ("hard_swish", {}),
    ("mish", {}),
    ("sigmoid", {}),
    ("softplus", {}),
)
# absolute, on the sample points; narrow floats round their constants
_ERROR = {
    DType.F32: 5e-5,
    DType.F64: 5e-5,
}
_ERROR_NARROW = 2e-3


def recognise_scalar(sweep: Sweep, op: Op, kinds: Collection[str] | None = None) -> bool:
    """Replace ``op`` and what leads to it by one op where all of it is one known function of one
    value (of ``kinds``, if given).
    """
    value = sweep.value(op.outputs[0])
    if not value.dtype.is_float or len(op.inputs) != 2:
        return False
    for x, region in reversed(_regions(sweep, op)):
        if sweep.value(x).shape != value.shape or sweep.value(x).dtype != value.dtype:
            continue
        known = _function(sweep, x, region, value.dtype)
        if known is not None and (kinds is None or known[0] in kinds):
            sweep.emit(Op(known[0], (x,), op.outputs, known[1], (), op.loc))
            return True
    return False


def _regions(sweep: Sweep, root: Op) -> list[tuple[str, list[Op]]]:
    """Every cut at one value below ``root``: that value, and the ops from it to the root in
    order.
    """
    order = {o: i for i, p in enumerate(sweep.ops[-64:]) for o in p.outputs if o}
    region, found = [root], []
    frontier = {n for n in root.inputs if sweep.scalar(n) is None}
    while frontier and len(region) < LONGEST:
        if len(frontier) == 1 and any(p.kind in _TELLING for p in region) and len(region) > 1:
            found.append((next(iter(frontier)), region[::-1]))
        last = max(frontier, key=lambda n: order.get(n, -1))
        op = sweep.producer.get(last)
        if (
            op is None
            or op.kind not in _SIMPLE
            or len(op.outputs) != 1
            or last not in order
            or last in sweep.graph.outputs
        ):
            break
        inside = sum(last in p.inputs and p.inputs.count(last) for p in region)
        if sweep.uses.get(last, 0) > inside:
            break
        region = [*region, op]
        frontier = (frontier - {last}) | {n for n in op.inputs if n and sweep.scalar(n) is None}
    return found


def _function(
    sweep: Sweep, x: str, region: list[Op], dtype: DType
) -> tuple[str, Mapping[str, Attr]] | None:
    """The known function that the ops compute of ``x``, or None."""
    names = {x: 0}
    key: list[object] = []
    for op in region:
        names |= {o: len(names) for o in op.outputs}
        key.append(
            (
                op.kind,
                tuple(names[n] if n in names else sweep.scalar(n) for n in op.inputs if n),
                tuple(op.attrs.items()),
            )
        )
    memo = ("function", dtype, *key)
    if memo not in sweep.memo:
        points = _points(sweep, region)
        sweep.memo[memo] = _nearest(
            points, _run(sweep, x, region, points), _ERROR.get(dtype, _ERROR_NARROW)
        )
    result: tuple[str, Mapping[str, Attr]] | None = sweep.memo[memo]
    return result


def _points(sweep: Sweep, region: list[Op]) -> Array:
    """Where the ops are evaluated: near zero, far from it, and on both sides of every constant in
    them.
    """
    constants = [
        c
        for op in region
        for n in op.inputs
        if n and (c := sweep.scalar(n)) is not None and 0 < abs(c) < np.inf
    ]
    return np.concatenate([_POINTS, *(c * _AROUND for c in constants)])


def _run(sweep: Sweep, x: str, region: list[Op], points: Array) -> Array:
    live: dict[str, Array] = {x: points}
    for op in region:
        operands = [
            live[n] if n in live else np.asarray(sweep.scalar(n), np.float64) if n else None
            for n in op.inputs
        ]
        with np.errstate(all="ignore"):
            live[op.outputs[0]] = np.asarray(row_of(op).evaluate(Context(op.attrs), *operands))
    return live[region[-1].outputs[0]]


def _nearest(points: Array, got: Array, most: float) -> tuple[str, Mapping[str, Attr]] | None:
    best: tuple[float, tuple[str, Mapping[str, Attr]]] | None = None
    for kind, attrs in _CANDIDATES:
        with np.errstate(all="ignore"):
            want = np.asarray(row_of(Op(kind, ("x",), ("y",))).evaluate(Context(attrs), points))
        error = (
            float(np.max(np.abs(got - want) / np.maximum(np.abs(want), 1)))
            if np.isfinite(got).all()
            else np.inf
        )
        if error <= most and (best is None or error < best[0]):
            best = (error, (kind, attrs))
    return best[1] if best else None
