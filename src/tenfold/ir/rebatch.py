"""Changing a batch that the file fixes at one, where every op keeps the items of a batch apart."""

from __future__ import annotations

from dataclasses import replace

from tenfold.errors import InputError, ModelError
from tenfold.ir.cost import op_call
from tenfold.ir.dims import Dim, Shape, prod, symbol, symbols_of
from tenfold.ir.graph import Graph, Op, UnknownShape
from tenfold.ir.infer import infer_graph, row_of
from tenfold.ir.table import Access, Call, Lowering

BATCH = "batch"

# The axis along which an op works, by its default; rows with an attribute ``axis`` that is not here
# only name an axis with it.
ALONG = {
    "softmax": -1, "log_softmax": -1, "hardmax": -1, "lp_normalization": -1, "top_k": -1,
    "concat": 0, "split": 0, "gather": 0, "gather_elements": 0, "scatter_elements": 0,
    "compress": 0, "tensor_scatter": -2, "arg_max": 0, "arg_min": 0,
}  # fmt: skip
FROM = ("layer_norm", "rms_norm")  # these work along all axes from theirs on
RECURRENT = ("lstm", "gru", "rnn", "dynamic_quantize_lstm")
# Ops that treat every axis alike, or whose bodies are looked at by themselves; all others take the
# first axis for the batch.
ANYWHERE = frozenset(
    {
        "transpose",
        "expand",
        "slice",
        "tile",
        "pad",
        "matmul",
        "matmul_integer",
        "einsum",
        "random",
        "bernoulli",
        "if",
        "loop",
    }
)

# as many results as the data says, of all items together
COUNTED = (
    "non_zero",
    "non_max_suppression",
)
# what is written, and where, must be there for each item
WRITTEN = (
    "scatter_elements",
    "tensor_scatter",
)
# no items in the results, or a scale over all of them by design
LOOSE = (
    "shape",
    "size",
    "dynamic_quantize",
)


def rebatch(graph: Graph) -> Graph:
    """``graph``, whose inputs all start with extent 1, with that extent turned into the symbol
    ``batch``.

    Raises InputError where the inputs do not, or where an op would mix the items.
    """
    batch = symbol(BATCH)
    shapes: dict[str, Shape | None] = {}
    for name in graph.inputs:
        shape = graph.values[name].shape
        if not shape or shape[0] != 1:
            raise InputError(
                f"the model's batch is fixed: input '{name}' has shape {list(shape or ())}, only a"
                " first extent of 1 can be re-batched"
            )
        shapes[name] = (batch, *shape[1:])
    freed = _free_reshapes(graph)
    values = {**freed.values, **{n: replace(graph.values[n], shape=s) for n, s in shapes.items()}}
    try:
        inferred, _ = infer_graph(replace(freed, values=values), shapes)
    except ModelError as error:
        raise InputError(
            f"the model's batch is fixed at 1 and cannot be changed: {error}"
        ) from error
    _check_apart(inferred)
    return inferred


def _free_reshapes(graph: Graph) -> Graph:
    """Reshapes to a constant shape that starts with 1 let that extent follow the batch."""
    constants, values = dict(graph.constants), dict(graph.values)
    ops: list[Op] = []
    for op in graph.ops:
        target = constants.get(op.inputs[1]) if op.kind == "reshape" else None
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


def _check_apart(graph: Graph) -> None:
    for op in graph.ops:
        why = _mixes(op_call(graph, op))
        if why:
            raise InputError(
                f"the model's batch is fixed at 1 and cannot be changed: node '{op.name}'"
                f" ({op.kind}) {why}"
            )
        for body in op.bodies:
            _check_apart(body)


def _mixes(call: Call) -> str:
    """How the op mixes the items of a batch, or ""."""
    row = row_of(call.op)
    if call.op.kind in LOOSE:
        return ""
    try:
        space = row.space(call)
    except UnknownShape:
        return "has a shape that is not known before the model runs"
    if any(BATCH in symbols_of(d) for d in space.reduced):
        return "reduces over the batch"
    widths: list[tuple[Dim, Dim]] = []
    for i, access in enumerate(space.access):
        shape = call.inputs[i].shape if call.has(i) and access is not Access.SHAPE else None  # type: ignore[union-attr]
        axes = _batch_axes(shape)
        if shape is None or not axes:
            continue
        place = _place(shape, axes)
        if place is None or axes[0] in _worked_axes(call, i, len(shape)):
            return f"works along the batch, axis {axes[0]} of its input {i}"
        widths.append(place)
    if call.op.kind in WRITTEN and 0 < len(widths) < len(space.access):
        return "writes the same into every item, or one item's into all"
    for value in call.outputs if widths else ():
        shape = value.shape if value is not None else ()
        axes = _batch_axes(shape)
        if value is None or shape is None or (call.op.kind in COUNTED and not axes):
            continue
        place = _place(shape, axes)
        if place is None or not any(
            _follows(w, place, row.lowering is Lowering.VIEW) for w in widths
        ):
            return f"mixes the items of a batch: its result is [{', '.join(map(str, shape))}]"
    return ""


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


def _worked_axes(call: Call, i: int, rank: int) -> range:
    """The axes of operand ``i`` along which the op brings elements together, beside those that it
    reduces.
    """
    kind, row = call.op.kind, row_of(call.op)
    if kind in ALONG:
        if i and kind != "concat" and kind != "gather_elements":
            return range(0)
        at = int(call.attr("axis", ALONG[kind])) % rank
        return range(at, at + 1)
    if kind in FROM:
        return range(int(call.attr("axis", -1)) % rank, rank)
    if kind == "unique":
        return range(rank)
    if kind == "reverse_sequence":
        at = int(call.attr("time_axis", 0)) % rank
        return range(at, at + 1)
    if kind in ("cum_sum", "cum_prod"):
        known = call.numbers(1)
        return (
            range(rank) if known is None else range(int(known[0]) % rank, int(known[0]) % rank + 1)
        )
    if kind in ("gather_nd", "scatter_nd"):
        depth = call.shape(1)[-1]
        first = int(call.attr("batch_dims", 0))
        return (
            range(first, first + int(depth) if isinstance(depth, int) else rank)
            if i == 0
            else range(0)
        )
    if kind == "scan":
        states, axes = (
            int(call.attr("states")),
            call.attr("input_axes") or (0,) * int(call.attr("scanned")),
        )
        at = int(axes[i - states]) % rank if states <= i < states + len(axes) else rank
        return range(at, at + 1)
    if kind in RECURRENT and i == 0 and not call.attr("layout", 0):
        return range(0, rank, 2)
    pointwise = row.lowering is Lowering.VECTOR and set(row.space(call).access) <= {
        Access.POINT,
        Access.BROADCAST,
        Access.SHAPE,
    }
    if kind in ANYWHERE or pointwise or row.lowering is Lowering.VIEW or kind.startswith("reduce_"):
        return range(0)
    if kind in RECURRENT:
        return range(0) if not call.attr("layout", 0) else range(1, rank)
    return range(1, rank)
