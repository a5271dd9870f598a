"""Changing a batch that the file fixes at one, where every op keeps the items of a batch apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tenfold.errors import FixedBatch, ModelError
from tenfold.ir.cost import op_call
from tenfold.ir.dims import Dim, Shape, prod, symbol, symbols_of
from tenfold.ir.graph import Array, Graph, Op, UnknownShape
from tenfold.ir.infer import infer_graph, row_of
from tenfold.ir.space import Reach, Space
from tenfold.ir.table import Call, Lowering

BATCH = "batch"


def rebatch(graph: Graph) -> Graph:
    """``graph``, whose inputs all start with extent 1, with that extent turned into the symbol
    ``batch``.

    Raises FixedBatch where the inputs do not, or where an op would mix the items.
    """
    batch = symbol(BATCH)
    shapes: dict[str, Shape | None] = {}
    for name in graph.inputs:
        shape = graph.values[name].shape
        if not shape or shape[0] != 1:
            raise FixedBatch(
                f"the model's batch is fixed: input '{name}' has shape {list(shape or ())}, only a"
                " first extent of 1 can be re-batched"
            )
        shapes[name] = (batch, *shape[1:])
    freed = _free_reshapes(graph)
    values = {**freed.values, **{n: replace(graph.values[n], shape=s) for n, s in shapes.items()}}
    try:
        inferred, _ = infer_graph(replace(freed, values=values), shapes)
    except ModelError as error:
        raise FixedBatch(
            f"the model's batch is fixed at 1 and cannot be changed: {error}"
        ) from error
    _check_apart(inferred)
    return inferred


def _free_reshapes(graph: Graph) -> Graph:
    """Reshapes to a constant shape that starts with 1 let that extent follow the batch."""
    constants, values = dict(graph.constants), dict(graph.values)
    ops: list[Op] = []
    for op in graph.ops:
        target = _view_target(op, constants)
        if (
            target is not None
            and target.size
            and target.reshape(-1)[0] == 1
            and not op.attrs.get("allowzero", 0)
        ):
            name = f"{op.name}/rebatched"
            free = target.copy()
            source = graph.values[op.inputs[0]].shape
            free[0] = 0 if source and source[0] == 1 else -1
            if free[0] == 0 or (free == -1).sum() == 1:
                constants[name] = free
                values[name] = replace(values[op.inputs[1]], name=name)
                op = replace(op, inputs=(op.inputs[0], name))
        ops.append(op)
    return replace(graph, ops=tuple(ops), constants=constants, values=values)


def _view_target(op: Op, constants: Mapping[str, Array | None]) -> Array | None:
    """The constant shape that a view gives its operand."""
    row = row_of(op)
    named = row.lowering is Lowering.VIEW and row.target is not None
    return constants.get(op.inputs[row.target or 0]) if named else None


def _check_apart(graph: Graph) -> None:
    for op in graph.ops:
        why = _mixes(op_call(graph, op))
        if why:
            raise FixedBatch(
                f"the model's batch is fixed at 1 and cannot be changed: node '{op.name}'"
                f" ({op.kind}) {why}"
            )
        for body in op.bodies:
            _check_apart(body)


def _mixes(call: Call) -> str:
    """How the op mixes the items of a batch, or ""."""
    row = row_of(call.op)
    if row.measures or row.loose:
        return ""
    try:
        space = row.space(call)
    except UnknownShape:
        return "has a shape that is not known before the model runs"
    widths: list[tuple[Dim, Dim]] = []
    for i, map_ in enumerate(space.maps):
        shape = call.inputs[i].shape if call.has(i) else None  # type: ignore[union-attr]
        axes = _batch_axes(shape)
        if map_ is None or shape is None or not axes:
            continue
        place = _place(shape, axes)
        why = _brings_together(space, i, axes[0])
        if place is None or why:
            return why or f"works along the batch, axis {axes[0]} of its input {i}"
        widths.append(place)
    if widths and _leaves_out(call, space):
        return "writes the same into every item, or one item's into all"
    for value in call.outputs if widths else ():
        shape = value.shape if value is not None else ()
        if value is None or shape is None:
            continue
        place = _place(shape, _batch_axes(shape))
        if place is None or not any(
            _follows(w, place, row.lowering is Lowering.VIEW) for w in widths
        ):
            return f"mixes the items of a batch: its result is [{', '.join(map(str, shape))}]"
    return ""


def _brings_together(space: Space, operand: int, axis: int) -> str:
    """Why the items along an axis of an operand do not stay apart, or ""."""
    map_ = space.maps[operand]
    assert map_ is not None
    index = map_[axis]
    if any(space.is_reduced(loop) for loop in index.loops):
        return "reduces over the batch"
    if index.reach in _APART:
        return ""
    return f"works along the batch, axis {axis} of its input {operand}"


# A view's axes are checked by where items lie in memory, bodies by themselves.
_APART = frozenset({Reach.SAME, Reach.FOLDED, Reach.BODY})


def _leaves_out(call: Call, space: Space) -> bool:
    """Whether an operand has one index along the batch, without being spread over it."""
    batched: set[int] = set()
    single: set[int] = set()
    for i, map_ in enumerate(space.maps):
        for axis, index in enumerate(map_ or ()):
            if index.reach is Reach.SAME:
                held = BATCH in symbols_of(call.shape(i)[axis])
                (batched if held else single).update(index.loops)
    return bool(batched & single)


def _batch_axes(shape: Shape | None) -> list[int]:
    return [i for i, d in enumerate(shape or ()) if BATCH in symbols_of(d)]


def _place(shape: Shape, axes: list[int]) -> tuple[Dim, Dim] | None:
    """How many elements come before the one axis of the batch, and how many an item has along it;
    None where that is not so.
    """
    import sympy

    if len(axes) != 1:
        return None
    each = sympy.cancel(shape[axes[0]] / symbol(BATCH))
    if BATCH in symbols_of(each):
        return None
    return prod(shape[: axes[0]]), int(each) if each.is_Integer else each


def _follows(before: tuple[Dim, Dim], after: tuple[Dim, Dim], renamed: bool) -> bool:
    """Whether a result holds the batch as an operand did: a view where it lies in memory, all
    others as many an item.
    """
    if not renamed:
        return before[1] == after[1]
    (outer, each), (outer_after, each_after) = before, after
    numbers = (outer, each, outer_after, each_after)
    if not all(isinstance(n, int) for n in numbers):
        return True
    return max(int(outer), int(outer_after)) <= min(
        int(outer) * int(each), int(outer_after) * int(each_after)
    )
