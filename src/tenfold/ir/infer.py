"""Inference: types of every value, and the content of those that are known before the model
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, all_static, prod, symbol
from tenfold.ir.dtypes import from_numpy
from tenfold.ir.graph import Array, Attr, Graph, Op, UnknownShape, Value, stored_numbers
from tenfold.ir.ops import TABLE
from tenfold.ir.table import MAX_RANK, Call, Context, Control, Lowering, OpRow

KNOWN_LIMIT = 4096  # elements; larger tensors are data, not shape arithmetic
# Attributes of ops that slide windows, sample regions or count n-grams: no shape arithmetic, and
# dearer than their results are large.
NEVER_SMALL = frozenset(
    {"kernel_shape", "pads", "pooled_shape", "sampling_ratio", "max_skip_count"}
)


@dataclass(slots=True)
class Scope:
    """What is known while a graph is walked: values, contents, fresh symbols with their bounds."""

    values: dict[str, Value] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array | None] = field(default_factory=dict)
    bounds: dict[str, Dim] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    prefix: str = "u"

    def fresh(self, what: str, at_most: Dim | None) -> Dim:
        name = f"{self.prefix}{len(self.bounds)}_{what}"
        self.bounds[name] = at_most if at_most is not None else -1
        return symbol(name)

    def declare(self, value: Value, content: Array | None = None) -> None:
        self.values[value.name] = value
        if content is not None and content.size <= KNOWN_LIMIT:
            self.known[value.name] = content

    def constant(self, name: str, content: Array) -> None:
        self.declare(Value(name, from_numpy(content.dtype), content.shape), content)
        self.constants[name] = content

    def call(self, op: Op, outputs: tuple[Value | None, ...] = ()) -> Call:
        known = {i: self.known[n] for i, n in enumerate(op.inputs) if n in self.known}
        return Call(
            op, tuple(self.values[n] if n else None for n in op.inputs), outputs, known, self.fresh
        )


def only_moves(op: Op) -> bool:
    """Whether ``op`` gives the numbers of its operand again, in another shape, order or type."""
    return row_of(op).lowering is Lowering.VIEW or op.kind in ("transpose", "cast")


def stored_behind(
    op: Op,
    values: Mapping[str, Value],
    contents: Container[str],
    stored: Mapping[str, int],
) -> dict[str, int]:
    """The entries of ``Graph.stored`` for the results of an ``op`` on constants: no more numbers
    than its operands hold together and no more than a result has elements; none for a result that
    holds just as many.

    A fill counts in full, for that is how a file spells a weight short, and one number in what is
    computed from it (a mask).
    """
    whole = {o: stored_numbers(values[o], {}) for o in op.outputs if o}
    held = {n: stored_numbers(values[n], stored) for n in op.inputs if n in contents}
    fills = {n for n in held if stored.get(n, -1) == stored_numbers(values[n], {})}
    if op.kind == "full" or (fills and only_moves(op)):
        return whole
    given = sum(min(1, k) if n in fills else k for n, k in held.items())
    return {o: given for o, own in whole.items() if given < own}


def row_of(op: Op) -> OpRow:
    row = TABLE.get(op.kind)
    if row is None:
        raise ModelError(f"op kind '{op.kind}' at '{op.name}' is not in the op table")
    return row


def infer_op(scope: Scope, op: Op) -> Op:
    """Add the outputs of ``op`` to the scope; returns the op, with its bodies inferred for these
    operands.

    Raises ModelError naming the node when its operands contradict each other.
    """
    row = row_of(op)
    problem = row.check(op)
    if problem:
        raise ModelError(f"node '{op.name}': {problem}")
    call = scope.call(op)
    try:
        if op.bodies:
            op = replace(op, bodies=_infer_bodies(scope, op))
            call = replace(call, op=op)
        dtypes = list(row.dtypes(call))
        shapes = _shapes(row, call)
    except (
        ValueError,
        IndexError,
        TypeError,
        ZeroDivisionError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:
        shown = ", ".join(
            f"{v.dtype}{list(v.shape) if v.shape is not None else '[?]'}" for v in call.inputs if v
        )
        raise ModelError(f"node '{op.name}' ({op.kind} of {shown}): {error}") from error
    content = _content(row, op, call)
    for i, name in enumerate(op.outputs):
        if not name:
            continue
        shape = shapes[i] if i < len(shapes) else None
        if shape is not None and not all(
            isinstance(d, int) or hasattr(d, "free_symbols") for d in shape
        ):
            raise ModelError(
                f"node '{op.name}' ({op.kind}): an extent of its result is no whole number:"
                f" {[str(d) for d in shape]}"
            )
        if shape is not None and any(isinstance(d, int) and d < 0 for d in shape):
            raise ModelError(
                f"node '{op.name}' ({op.kind}): negative extent in output shape {list(shape)}"
            )
        if shape is not None and len(shape) > MAX_RANK:
            raise ModelError(
                f"node '{op.name}' ({op.kind}): rank {len(shape)} is above the limit of {MAX_RANK}"
            )
        value = content[i] if content is not None and i < len(content) else None
        dtype = dtypes[min(i, len(dtypes) - 1)]
        if value is not None:
            shape = value.shape
            value = value if value.dtype == object else value.astype(dtype.numpy, copy=False)
        scope.declare(Value(name, dtype, shape), value)
    return op


def _shapes(row: OpRow, call: Call) -> list[tuple[Dim, ...] | None]:
    try:
        return list(row.shapes(call))
    except UnknownShape:
        return [None] * len(call.op.outputs)


def _content(row: OpRow, op: Op, call: Call) -> Sequence[Array | None] | None:
    """The outputs' content where all inputs' contents are known, or the op only looks at a
    shape.
    """
    if op.bodies or not row.pure or row.lowering is Lowering.OPAQUE:
        return None
    if row.measures:
        return _shape_content(row, op, call)
    present = [i for i, n in enumerate(op.inputs) if n]
    if len(call.known) < len(present):
        return None
    arrays = [call.known.get(i) for i in range(len(op.inputs))]
    symbolic = any(a is not None and a.dtype == object for a in arrays)
    if symbolic and not row.symbolic:
        return None
    if _too_large(row, op, call):
        return None
    if symbolic:
        arrays = [_exact(a) for a in arrays]
    try:
        with np.errstate(all="ignore"):
            result = row.evaluate(Context(op.attrs, len(op.outputs)), *arrays)
    except Exception:
        # Folding is an optimisation: what cannot be computed here is computed when the model runs,
        # or rejected by the shape rule with a message; a value that nobody can compute must not be
        # guessed.
        return None
    outputs = (
        list(result)
        if isinstance(result, tuple | list)
        else [np.asarray(result, dtype=object if symbolic else None)]
    )
    return [_settle(o) if o is not None and o.size <= KNOWN_LIMIT else None for o in outputs]


def _too_large(row: OpRow, op: Op, call: Call) -> bool:
    """Whether evaluating would make something large, or take long, out of small operands."""
    if not NEVER_SMALL.isdisjoint(row.attrs) or any(_beyond(v) for v in op.attrs.values()):
        return True
    try:
        shapes = row.shapes(call)
    except Exception:  # the shape rule's own call reports it
        return row.grows
    for shape in shapes:
        if shape is None:
            continue
        if row.grows and not (shape and all_static(shape)):
            return True
        if prod(d for d in shape if isinstance(d, int)) > KNOWN_LIMIT:
            return True
    return False


def _beyond(attribute: Attr) -> bool:
    numbers = attribute if isinstance(attribute, tuple) else (attribute,)
    return any(isinstance(n, int) and abs(n) > KNOWN_LIMIT for n in numbers)


def _shape_content(row: OpRow, op: Op, call: Call) -> list[Array] | None:
    value = call.inputs[0]
    if value is None or value.shape is None:
        return None
    if not row.shapes(call)[0]:  # a single number: how many elements there are
        return [_settle(np.asarray(value.elements, dtype=object))]
    start: Any = op.attrs.get("start", 0)
    end: Any = op.attrs.get("end")
    dims = value.shape[start:end]
    return [_settle(np.asarray(dims, dtype=object))]


def _exact(a: Array | None) -> Array | None:
    """Floats as exact rationals, so that shape arithmetic in floats stays exact beside symbols."""
    if a is None or a.dtype.kind != "f":
        return a.astype(object) if a is not None and a.dtype.kind in "iu" else a
    import sympy

    flat = [sympy.Rational(str(v)) if np.isfinite(v) else v for v in a.reshape(-1).tolist()]
    return np.asarray(flat, dtype=object).reshape(a.shape)


def _settle(a: Array) -> Array:
    """An object array of plain ints that fit int64 as that; others unchanged."""
    if a.dtype != object:
        return a
    flat = [int(v) if getattr(v, "is_Integer", False) else v for v in a.reshape(-1).tolist()]
    if all(isinstance(v, int) and v.bit_length() < 64 for v in flat):
        return np.asarray(flat, dtype=np.int64).reshape(a.shape)
    return np.asarray(flat, dtype=object).reshape(a.shape)


def _infer_bodies(scope: Scope, op: Op) -> tuple[Graph, ...]:
    """Bodies with the types that the operands give them. What a loop carries may change its shape:
    then it is unknown.
    """
    operands = [scope.values[n] if n else None for n in op.inputs]
    known = [scope.known.get(n) for n in op.inputs]
    match TABLE[op.kind].control:
        case Control.BRANCH:
            return _infer_branches(scope, op, operands[1:], known)
        case Control.LOOP:
            return (_infer_loop(scope, op, operands, known),)
        case Control.SCAN:
            return (_infer_scan(scope, op, operands, known),)
        case control:
            raise ModelError(f"op '{op.name}' ({op.kind}) has bodies, and no control: {control}")


def _infer_scan(
    scope: Scope, op: Op, operands: list[Value | None], known: list[Array | None]
) -> Graph:
    states, scanned = int(op.attrs["states"]), int(op.attrs["scanned"])  # type: ignore[arg-type]
    slices: list[Value | None] = []
    axes: Any = op.attrs.get("input_axes") or (0,) * scanned
    for v, axis in zip(operands[states : states + scanned], axes, strict=True):
        if v is None or v.shape is None:
            slices.append(v)
        else:
            at = int(axis) % len(v.shape)
            slices.append(replace(v, shape=(*v.shape[:at], *v.shape[at + 1 :])))
    body_operands = [*operands[:states], *slices, *operands[states + scanned :]]
    contents = [None] * (states + scanned) + known[states + scanned :]
    return infer_body(scope, op.bodies[0], body_operands, contents)


IMPOSSIBLE = "impossible: "  # marks a branch that contradicts its operands, and so is never taken


def _infer_branches(
    scope: Scope, op: Op, operands: list[Value | None], known: list[Array | None]
) -> tuple[Graph, ...]:
    """Both branches; one that contradicts its operands or the condition is marked, two are an
    error.
    """
    results: list[Graph] = []
    faults: list[ModelError] = []
    condition = known[0] if known[0] is not None and known[0].dtype != object else None
    for which, body in enumerate(op.bodies):
        try:
            if condition is not None and bool(condition.reshape(-1)[0]) != (which == 0):
                raise ModelError("never taken")
            results.append(infer_body(scope, body, operands, known[1:]))
        except ModelError as error:
            faults.append(error)
            results.append(replace(body, name=IMPOSSIBLE + body.name.removeprefix(IMPOSSIBLE)))
    if len(faults) == len(op.bodies):
        raise faults[0]
    return tuple(results)


def _infer_loop(
    scope: Scope, op: Op, operands: list[Value | None], known: list[Array | None]
) -> Graph:
    carried = int(op.attrs["carried"])  # type: ignore[arg-type]
    body = op.bodies[0]
    counter, condition = body.values[body.inputs[0]], body.values[body.inputs[1]]
    state = list(operands[2 : 2 + carried])
    captured, contents = operands[2 + carried :], known[2 + carried :]
    for _ in range(3):
        inferred = infer_body(
            scope, body, [counter, condition, *state, *captured], [None] * (2 + carried) + contents
        )
        outs = [inferred.values[n] for n in inferred.outputs[1 : 1 + carried]]
        widened = [_widen(scope, a, b) for a, b in zip(state, outs, strict=True)]
        if [w.shape if w else None for w in widened] == [s.shape if s else None for s in state]:
            return inferred
        state = widened
    return infer_body(
        scope,
        body,
        [counter, condition, *(replace(s, shape=None) if s else None for s in state), *captured],
        [None] * (2 + carried) + contents,
    )


def _widen(scope: Scope, before: Value | None, after: Value) -> Value | None:
    if before is None:
        return None
    if before.shape is None or after.shape is None or len(before.shape) != len(after.shape):
        return replace(before, shape=None)
    if before.shape == after.shape:
        return before
    dims = tuple(
        a if a == b else scope.fresh("carried", None)
        for a, b in zip(before.shape, after.shape, strict=True)
    )
    return replace(before, shape=dims)


def infer_body(
    scope: Scope, body: Graph, operands: Sequence[Value | None], known: Sequence[Array | None]
) -> Graph:
    inner = Scope(bounds=scope.bounds, prefix=scope.prefix)
    if len(body.inputs) != len(operands):
        raise ValueError(
            f"the body '{body.name}' takes {len(body.inputs)} operands, got {len(operands)}"
        )
    for name, value, content in zip(body.inputs, operands, known, strict=True):
        declared = body.values[name]
        given = declared if value is None else Value(name, value.dtype, value.shape)
        inner.declare(given, content)
    return _walk(inner, body)


def infer_graph(
    graph: Graph, shapes: Mapping[str, tuple[Dim, ...] | None]
) -> tuple[Graph, Mapping[str, Array]]:
    """``graph`` inferred again with other input shapes, and the contents known on the way.

    Raises ModelError where the shapes contradict the ops.
    """
    scope = Scope()
    for name in graph.inputs:
        value = graph.values[name]
        scope.declare(replace(value, shape=shapes.get(name, value.shape)))
    return _walk(scope, graph), scope.known


def _walk(scope: Scope, graph: Graph, infer: Callable[[Scope, Op], Op] = infer_op) -> Graph:
    for name, data in graph.constants.items():
        if data is not None:
            scope.declare(graph.values[name], data)
        else:
            scope.declare(graph.values[name])
    ops = tuple(infer(scope, op) for op in graph.ops)
    return Graph(
        name=graph.name,
        inputs=graph.inputs,
        outputs=graph.outputs,
        ops=ops,
        values=scope.values,
        constants=graph.constants,
        bounds=dict(scope.bounds),
        limits=graph.limits,
        stored=graph.stored,
    )
