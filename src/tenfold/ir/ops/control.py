"""Control flow, and the op that Tenfold does not know.

Bodies are graphs whose inputs are all explicit: first what the construct itself passes,
then what the body captures from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, Shape, add, mul, simplify
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, UnknownShape, Value
from tenfold.ir.ops.common import all_reads, all_writes, space_of, whole_space
from tenfold.ir.space import ALL, BODY, Serial, Space
from tenfold.ir.table import MANY, Call, Context, Control, Lowering, OpRow, Work, attributes


def _body_outputs(call: Call, which: int) -> list[Value]:
    body = call.op.bodies[which]
    return [body.values[name] for name in body.outputs]


def merge_shapes(call: Call, a: Shape | None, b: Shape | None) -> Shape | None:
    """The shape that covers both: unequal extents become unknown ones, unequal ranks no shape at
    all.
    """
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else call.unknown_dim("merge") for x, y in zip(a, b, strict=True))


# --- if ---------------------------------------------------------------------------------


def _only_branch(call: Call) -> int | None:
    """The branch of an ``if`` whose other branch is impossible."""
    from tenfold.ir.infer import IMPOSSIBLE

    return next(
        (which for which in (0, 1) if call.op.bodies[1 - which].name.startswith(IMPOSSIBLE)), None
    )


def _if_dtypes(call: Call) -> Sequence[DType]:
    only = _only_branch(call)
    if only is not None:
        return [v.dtype for v in _body_outputs(call, only)]
    then, other = ([v.dtype for v in _body_outputs(call, which)] for which in (0, 1))
    if then != other:
        raise ValueError(f"its branches give {', '.join(then)} and {', '.join(other)}")
    return then


def _if_shapes(call: Call) -> Sequence[Shape | None]:
    only = _only_branch(call)
    if only is not None:
        return [v.shape for v in _body_outputs(call, only)]
    pairs = zip(_body_outputs(call, 0), _body_outputs(call, 1), strict=True)
    return [merge_shapes(call, a.shape, b.shape) for a, b in pairs]


def _if(ctx: Context, condition: Array, *captured: Array | None) -> Sequence[Array]:
    return ctx.bodies[0 if bool(condition.reshape(-1)[0]) else 1](captured)


# --- loop -------------------------------------------------------------------------------


def _loop_trips(call: Call) -> Dim | None:
    """Iterations of a loop, where they can be known before running."""
    limit = call.numbers(0)
    return simplify(limit[0]) if limit is not None and _always_true(call) else None


def _always_true(call: Call) -> bool:
    """Whether the loop's condition is true from the start and the body never changes it."""
    body = call.op.bodies[0]
    start = call.numbers(1) if call.has(1) else [True]
    out = body.outputs[0]
    renamed = {op.outputs[0]: op.inputs[0] for op in body.ops if op.kind == "identity"}
    while out in renamed:
        out = renamed[out]
    constant = body.constants.get(out)
    kept = out == body.inputs[1] or (constant is not None and bool(np.all(constant)))
    return kept and start is not None and bool(start[0])


def _loop_dtypes(call: Call) -> Sequence[DType]:
    return [v.dtype for v in _body_outputs(call, 0)[1:]]


def _loop_shapes(call: Call) -> Sequence[Shape | None]:
    carried = call.attr("carried")
    outs = _body_outputs(call, 0)[1:]
    trips = _loop_trips(call)
    shapes: list[Shape | None] = [
        merge_shapes(call, v.shape, initial.shape if initial else None)
        for v, initial in zip(outs[:carried], call.inputs[2 : 2 + carried], strict=True)
    ]
    for v in outs[carried:]:
        extent = trips if trips is not None else call.unknown_dim("trips")
        shapes.append(
            None
            if v.shape is None
            else (int(extent) if isinstance(extent, np.integer) else extent, *v.shape)
        )
    return shapes


def _loop(
    ctx: Context, limit: Array | None, condition: Array | None, *rest: Array | None
) -> Sequence[Array]:
    carried = ctx.get("carried")
    state, captured = list(rest[:carried]), rest[carried:]
    most = int(limit.reshape(-1)[0]) if limit is not None else MANY
    alive = np.asarray(True) if condition is None else condition.reshape(())
    stacked: list[list[Array]] = [[] for _ in range(ctx.outputs - carried)]
    i = 0
    while i < most and bool(alive):
        alive, *outs = ctx.bodies[0]([np.asarray(i, np.int64), alive, *state, *captured])
        alive, state = alive.reshape(()), list(outs[:carried])
        for column, value in zip(stacked, outs[carried:], strict=False):
            column.append(value)
        i += 1
    return [
        *(s for s in state if s is not None),
        *(np.stack(c) if c else _nothing(ctx, carried + j) for j, c in enumerate(stacked)),
    ]


def _nothing(ctx: Context, i: int) -> Array:
    """What a scan output is after no iterations: nothing, of the declared type."""
    value = ctx.declared[i] if i < len(ctx.declared) else None
    if value is None:
        return np.zeros((0,), np.float32)
    return np.zeros(
        (0, *(d if isinstance(d, int) else 0 for d in (value.shape or (0,))[1:])), value.dtype.numpy
    )


# --- scan -------------------------------------------------------------------------------


def _scan_dtypes(call: Call) -> Sequence[DType]:
    return [v.dtype for v in _body_outputs(call, 0)]


def _scan_trips(call: Call) -> Dim | None:
    """As many as the first scanned operand is long."""
    states = call.attr("states")
    shape = call.shape(states)
    return shape[_scan_axes(call)[0] % len(shape)]


def _scan_axes(call: Call) -> tuple[int, ...]:
    return call.attr("input_axes") or (0,) * call.attr("scanned")


def _scan_space(call: Call) -> Space:
    """One step after the other along the axis of each scanned operand; the body sees the rest."""
    states, axes = call.attr("states"), _scan_axes(call)
    space = _body_space(call)
    maps = list(space.maps)
    for i, axis in enumerate(axes, states):
        map_ = maps[i]
        if map_ is not None:
            along = axis % len(map_)
            maps[i] = tuple(ALL if k == along else index for k, index in enumerate(map_))
    steps = _scan_trips(call)
    return replace(space, maps=tuple(maps), serial=None if steps is None else Serial(steps))


def _loop_space(call: Call) -> Space:
    steps = _loop_trips(call)
    return replace(_body_space(call), serial=None if steps is None else Serial(steps))


def _body_space(call: Call) -> Space:
    """What becomes of operands is for the bodies to say."""
    maps = (
        (BODY,) * len(v.shape) if v is not None and v.shape is not None else None
        for v in call.inputs
    )
    return space_of(call, *maps, parallel=(), results=[None] * len(call.outputs))


def _scan_shapes(call: Call) -> Sequence[Shape | None]:
    states = call.attr("states")
    outs = _body_outputs(call, 0)
    trips = _scan_trips(call)
    axes = call.attr("output_axes") or (0,) * (len(outs) - states)
    shapes: list[Shape | None] = [v.shape for v in outs[:states]]
    for v, axis in zip(outs[states:], axes, strict=True):
        if v.shape is None or trips is None:
            raise UnknownShape("scan output")
        at = axis % (len(v.shape) + 1)
        shapes.append((*v.shape[:at], trips, *v.shape[at:]))
    return shapes


def _scan(ctx: Context, *arrays: Array | None) -> Sequence[Array]:
    states, scanned = ctx.get("states"), ctx.get("scanned")
    state: list[Array | None] = list(arrays[:states])
    inputs = [a for a in arrays[states : states + scanned] if a is not None]
    captured = arrays[states + scanned :]
    axes = ctx.get("input_axes") or (0,) * scanned
    back = ctx.get("input_directions") or (0,) * scanned
    columns = [
        np.moveaxis(a, x, 0)[::-1] if d else np.moveaxis(a, x, 0)
        for a, x, d in zip(inputs, axes, back, strict=True)
    ]
    if columns[0].shape[0] == 0:
        raise ModelError("a scan over a sequence of length 0 has no result")
    outputs = ctx.outputs - states
    stacked: list[list[Array]] = [[] for _ in range(outputs)]
    for t in range(columns[0].shape[0]):
        outs = ctx.bodies[0]([*state, *(c[t] for c in columns), *captured])
        state = list(outs[:states])
        for column, value in zip(stacked, outs[states:], strict=True):
            column.append(value)
    out_axes, out_back = (
        ctx.get("output_axes") or (0,) * outputs,
        ctx.get("output_directions") or (0,) * outputs,
    )
    results = [
        np.stack(c[::-1] if d else c, axis=x)
        for c, x, d in zip(stacked, out_axes, out_back, strict=True)
    ]
    return [*(s for s in state if s is not None), *results]


def _control_work(call: Call) -> Work:
    """Bodies' arithmetic times their trips; of an ``if`` the dearer branch. Unknown trips count
    once.
    """
    from tenfold.ir.cost import graph_totals

    totals = [graph_totals(body) for body in call.op.bodies]
    if call.op.kind == "if":
        worst = max(totals, key=lambda t: t.flops if isinstance(t.flops, int) else 0)
    else:
        worst = totals[0]
    rule = CONTROL_TRIPS[call.op.kind]
    trips = (rule(call) if rule is not None else 1) or 1
    trips = int(trips) if isinstance(trips, np.integer) else trips
    return Work(
        contraction_flops=mul(trips, worst.contraction_flops),
        vector_flops=mul(trips, worst.vector_flops),
        transcendentals=mul(trips, worst.transcendentals),
        reads=all_reads(call),
        writes=all_writes(call),
    )


# --- opaque -----------------------------------------------------------------------------


def _opaque_dtypes(call: Call) -> Sequence[DType]:
    given = call.attr("dtypes")
    return [DType(d) for d in given] if given else [call.input(0).dtype] * len(call.op.outputs)


def _opaque_shapes(call: Call) -> Sequence[Shape | None]:
    """Declared by the source, as numbers or as an axis of an operand, else unknown."""
    ranks = call.attr("ranks")
    if not ranks:
        return [None] * len(call.op.outputs)
    sizes = call.attr("dims")
    like = call.attr("like") or (-1,) * len(sizes)
    extents = iter([_opaque_extent(call, d, a) for d, a in zip(sizes, like, strict=True)])
    return [None if rank < 0 else tuple(next(extents) for _ in range(rank)) for rank in ranks]


AXES = 64  # of one operand, in what ``like`` counts


def _opaque_extent(call: Call, size: int, axis: int) -> Dim:
    if size >= 0:
        return size
    if axis >= 0:
        operand = call.inputs[axis // AXES]
        if operand is not None and operand.shape is not None:
            return operand.shape[axis % AXES]
    return call.unknown_dim("opaque")


def _opaque(ctx: Context, *arrays: Array | None) -> Sequence[Array]:
    """Evaluated by ``onnx.reference`` from the serialised node."""
    import base64

    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(base64.b64decode(str(ctx.get("model"))))
    names = [i.name for i in model.graph.input]
    feeds = dict(zip(names, (a for a in arrays if a is not None), strict=True))
    try:
        evaluator = ReferenceEvaluator(model)
        return [np.asarray(y) for y in evaluator.run(None, feeds)]
    except (ImportError, NotImplementedError) as error:
        raise ModelError(f"op '{ctx.get('source')}' cannot be evaluated here: {error}") from error


def _opaque_work(call: Call) -> Work:
    elements: Dim = 0
    for v in call.outputs:
        if v is not None and v.shape is not None:
            elements = add(elements, v.elements)
    return Work(vector_flops=elements, reads=all_reads(call), writes=all_writes(call))


CONTROL_TRIPS: Mapping[str, Callable[[Call], Dim | None] | None] = {
    "if": None,
    "loop": _loop_trips,
    "scan": _scan_trips,
}


def _control(
    kind: str,
    control: Control,
    dtypes: Any,
    shapes: Any,
    space: Any,
    evaluate: Any,
    **attrs: type,
) -> OpRow:
    return OpRow(
        kind=kind,
        arity=(0, MANY),
        attrs=attributes(**attrs),
        dtypes=dtypes,
        shapes=shapes,
        space=space,
        work=_control_work,
        evaluate=evaluate,
        lowering=Lowering.CONTROL,
        control=control,
        trips=CONTROL_TRIPS[kind],
    )


ROWS: tuple[OpRow, ...] = (
    _control("if", Control.BRANCH, _if_dtypes, _if_shapes, _body_space, _if),
    _control("loop", Control.LOOP, _loop_dtypes, _loop_shapes, _loop_space, _loop, carried=int),
    _control("scan", Control.SCAN, _scan_dtypes, _scan_shapes, _scan_space, _scan, states=int,
        scanned=int, input_axes=tuple, input_directions=tuple, output_axes=tuple,
        output_directions=tuple),
    OpRow(kind="opaque", arity=(0, MANY), attrs=attributes(source=str, model=str, dtypes=tuple,
        ranks=tuple, dims=tuple, like=tuple), dtypes=_opaque_dtypes, shapes=_opaque_shapes,
        space=whole_space, work=_opaque_work, evaluate=_opaque, lowering=Lowering.OPAQUE),
)  # fmt: skip
