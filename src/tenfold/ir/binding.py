"""Binding: a graph for one batch, sequence length, height and width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from tenfold.errors import InputError, ModelError
from tenfold.ir.dims import Dim, Shape, evaluate, prod, substitute, symbols_of
from tenfold.ir.graph import Array, Graph, Op, Value
from tenfold.ir.infer import IMPOSSIBLE, Scope, infer_graph, infer_op, row_of, stored_behind
from tenfold.ir.rebatch import BATCH, rebatch
from tenfold.ir.table import Control

LARGEST_SIZE = 10**9  # of a dimension that is left free: products of four stay within a float
NO_BOUNDS: Mapping[str, int] = MappingProxyType({})


def with_values(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """``graph`` with inputs of known content: what depends on it (a range's length, a loop's trips,
    the size of an image) is known then. Raises InputError for a content that an input cannot have.
    """
    for name, data in values.items():
        shape = graph.values[name].shape
        known = shape is not None and all(isinstance(d, int) for d in shape)
        if known and data.size != prod(shape or ()):
            raise InputError(
                f"input '{name}' of shape {list(shape or ())} takes {prod(shape or ())} numbers,"
                f" got {data.size}"
            )
    made = {
        n: np.asarray(data, graph.values[n].dtype.numpy).reshape(_static(graph.values[n]))
        for n, data in values.items()
    }
    types = {n: Value(n, graph.values[n].dtype, a.shape) for n, a in made.items()}
    return replace(
        graph,
        inputs=tuple(n for n in graph.inputs if n not in made),
        values={**graph.values, **types},
        constants={**graph.constants, **made},
    )


def _static(value: Value) -> tuple[int, ...]:
    dims = value.shape if value.shape is not None else (-1,)
    return tuple(d if isinstance(d, int) else -1 for d in dims)


def bind(
    graph: Graph,
    sizes: Mapping[str, int],
    *,
    assume_bounds: bool = False,
    bounds: Mapping[str, int] = NO_BOUNDS,
) -> Graph:
    """``graph`` with its symbols replaced by ``sizes``, shape arithmetic folded away and branches
    decided.

    With ``assume_bounds`` extents that depend on data are set to their upper bound, those in
    ``bounds`` or what the ops say, so that the result is static and can be priced.  A size for a
    symbol that the graph has not is an error, except that ``batch`` may re-batch a graph whose
    batch was fixed at one.

    Raises InputError for unknown or non-positive sizes, ModelError where a size contradicts the
    model.
    """
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or isinstance(size, bool):
            raise InputError(f"{name} must be a whole number, got {size!r}")
        if size < 1:
            raise InputError(f"{name} must be at least 1, got {size}")
        if size > LARGEST_SIZE:
            raise InputError(f"{name} must be at most {LARGEST_SIZE:,}, got {size}")
        if size > graph.limits.get(name, size):
            raise InputError(
                f"{graph.name} has learned positions for a {name} of at most"
                f" {graph.limits[name]:,}, got {size:,}"
            )
    if sizes.get(BATCH, 1) != 1 and BATCH not in graph.symbols:
        graph = rebatch(graph)
    unknown = sorted(set(sizes) - set(graph.symbols) - {BATCH})
    if unknown:
        raise InputError(
            f"the model has no free dimension '{unknown[0]}': it has"
            f" {', '.join(graph.symbols) or 'none'}"
        )
    shapes = {
        n: None if v.shape is None else tuple(substitute(d, sizes) for d in v.shape)
        for n in graph.inputs
        for v in (graph.values[n],)
    }
    bound = _fold(graph, shapes)
    if not assume_bounds:
        return bound
    given = {n: b for n, b in graph.bounds.items() if n.endswith(".trips") and isinstance(b, int)}
    return _assume(_choose_branches(bound), {**given, **bounds})


def _choose_branches(graph: Graph) -> Graph:
    """Where a condition depends on data, the dearer branch; the choice is noted among the
    bounds.
    """
    undecided = [op for op in graph.ops if _branches(op)]
    if not undecided:
        return graph
    known: dict[str, Array] = {}
    notes: dict[str, Dim] = {}
    for op in undecided:
        costs = [_branch_flops(body) for body in op.bodies]
        dear = (
            1
            if isinstance(costs[0], int) and isinstance(costs[1], int) and costs[1] > costs[0]
            else 0
        )
        known[op.inputs[0]] = np.asarray(dear == 0)
        notes[f"{op.name}.branch"] = dear
    decided = _choose_branches(_inline_branches(graph, known))
    return replace(decided, bounds={**decided.bounds, **notes})


def _branch_flops(body: Graph) -> Dim:
    """Flops of a branch. An ``if`` inside counts as its dearer branch; only where that has no
    number is it decided first.
    """
    from tenfold.ir.cost import graph_totals

    try:
        flops = graph_totals(body).flops
    except ModelError:  # a shape that is known only once the inner branch is
        flops = None
    return flops if isinstance(flops, int) else graph_totals(_choose_branches(body)).flops


def _fold(graph: Graph, shapes: Mapping[str, Shape | None]) -> Graph:
    """Infer with the new shapes; what is then known becomes a constant, what nobody needs
    disappears.
    """
    inferred, known = infer_graph(graph, shapes)
    concrete = {
        n: a
        for n, a in known.items()
        if a.dtype != object or inferred.values[n].dtype.value == "string"
    }
    return prune(_inline_branches(inferred, concrete), concrete)


def _inline_branches(graph: Graph, known: Mapping[str, Array]) -> Graph:
    """Replace every ``if`` whose condition is known, or that has one possible branch, by the branch
    it takes.
    """
    if not any(_branches(op) and _taken(op, known) is not None for op in graph.ops):
        return graph
    ops: list[Op] = []
    constants = dict(graph.constants)
    stored = dict(graph.stored)
    values = dict(graph.values)
    renamed: dict[str, str] = {}
    for op in graph.ops:
        body = _taken(op, known) if _branches(op) else None
        if body is None:
            ops.append(replace(op, inputs=tuple(renamed.get(i, i) for i in op.inputs)))
            continue
        mark = f"{op.name}/"
        names = {b: renamed.get(a, a) for b, a in zip(body.inputs, op.inputs[1:], strict=True)}
        for name, value in body.values.items():
            if name not in names:
                names[name] = mark + name
                values[mark + name] = replace(value, name=mark + name)
        constants |= {names[n]: data for n, data in body.constants.items()}
        stored |= {names[n]: numbers for n, numbers in body.stored.items()}
        ops += [
            replace(
                b,
                inputs=tuple(names.get(i, i) for i in b.inputs),
                outputs=tuple(names.get(o, o) for o in b.outputs),
                loc=mark + b.name,
            )
            for b in body.ops
        ]
        renamed |= {o: names[b] for o, b in zip(op.outputs, body.outputs, strict=True) if o}
    outputs = tuple(renamed.get(o, o) for o in graph.outputs)
    kept = [
        Op("identity", (o,), (name,), loc=name)
        for name, o in zip(graph.outputs, outputs, strict=True)
        if name != o
    ]
    flat = replace(graph, ops=(*ops, *kept), values=values, constants=constants, stored=stored)
    flat = prune(flat, {})
    shapes = {n: flat.values[n].shape for n in flat.inputs}
    return _fold(flat, shapes)


def _branches(op: Op) -> bool:
    return row_of(op).control is Control.BRANCH


def _taken(op: Op, known: Mapping[str, Array]) -> Graph | None:
    """The branch that ``if`` takes, where that is certain."""
    if op.inputs[0] in known:
        return op.bodies[0 if bool(np.ravel(known[op.inputs[0]])[0]) else 1]
    possible = [b for b in op.bodies if not b.name.startswith(IMPOSSIBLE)]
    return possible[0] if len(possible) == 1 else None


def prune(graph: Graph, known: Mapping[str, Array]) -> Graph:
    """Drop ops whose results are known or unused; known results that are used become constants."""
    needed = set(graph.outputs)
    ops: list[Op] = []
    for op in reversed(graph.ops):
        used = [o for o in op.outputs if o in needed]
        if not used or all(o in known for o in used):
            continue
        ops.append(op)
        needed.update(i for i in op.inputs if i)
    made = {o for op in ops for o in op.outputs if o}
    folded = {
        n: known[n]
        for n in needed
        if n in known and n not in made and n not in graph.constants and n not in graph.inputs
    }
    constants = {n: d for n, d in graph.constants.items() if n in needed} | folded
    stored = dict(graph.stored)
    contents = {*graph.constants, *known}
    for op in graph.ops:  # in order, so that what is computed from computed values is too
        if all(o in known and o not in made for o in op.outputs if o):
            stored |= stored_behind(op, graph.values, contents, stored)
    values = {
        n: v for n, v in graph.values.items() if n in made or n in constants or n in graph.inputs
    }
    return replace(
        graph,
        ops=tuple(reversed(ops)),
        values=values,
        constants=constants,
        stored={n: k for n, k in stored.items() if n in constants},
    )


def _assume(graph: Graph, given: Mapping[str, int]) -> Graph:
    """Data-dependent extents at their upper bound, everything else by propagation. Raises
    InputError for a bound of an extent that there is not.
    """
    scope = Scope(prefix="v")
    for name in graph.inputs:
        if graph.values[name].shape is None:
            raise ModelError(
                f"input '{name}' declares no shape, not even its rank, so the model cannot be"
                " priced"
            )
        scope.declare(graph.values[name])
    for name, data in graph.constants.items():
        (
            scope.declare(graph.values[name], data)
            if data is not None
            else scope.declare(graph.values[name])
        )
    ops: list[Op] = []
    assumed: dict[str, Dim] = {}
    for op in graph.ops:
        done = infer_op(scope, op)
        ops.append(done)
        for name in done.outputs:
            if name:
                value = scope.values[name]
                scope.values[name] = _bounded(value, {**scope.bounds, **given}, assumed, done)
    trips = {f"{op.name}.trips" for op in graph.walk() if row_of(op).trips is not None}
    assumed |= {n: b for n, b in given.items() if n in trips}
    if unused := sorted(set(given) - set(assumed)):
        depends = ", ".join([*assumed, *sorted(trips)]) or "none"
        raise InputError(
            f"the model has no free dimension '{unused[0]}', no input of that name and no extent"
            f" that depends on data (those are: {depends})"
        )
    notes = {n: b for n, b in graph.bounds.items() if n.endswith(".branch")}
    return replace(graph, ops=tuple(ops), values=scope.values, bounds={**notes, **assumed})


def _bounded(value: Value, bounds: Mapping[str, Dim], assumed: dict[str, Dim], op: Op) -> Value:
    if value.shape is None:
        raise ModelError(
            f"node '{op.name}' ({op.kind}): the shape of its result depends on data, so it cannot"
            " be priced"
        )
    dims: list[Dim] = []
    for d in value.shape:
        most: dict[str, int] = {}
        for s in symbols_of(d):
            limit = bounds.get(s, -1)
            if not isinstance(limit, int) or limit < 0:
                raise ModelError(
                    f"node '{op.name}' ({op.kind}): extent '{s}' depends on data and has no upper"
                    f" bound, so it cannot be priced: give one with --size {s}=NUMBER, or the"
                    " content of the input that decides (--size INPUT=NUMBER,…)"
                )
            most[s] = limit
        assumed.update(most)
        number = evaluate(d, most)
        dims.append(d if number is None else number)
    return replace(value, shape=tuple(dims))
