"""The verifier: accepts or rejects a graph as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tenfold.errors import ModelError
from tenfold.ir.graph import Graph, Op, Value
from tenfold.ir.infer import infer_graph, row_of

BODIES = {"if": 2, "loop": 1, "scan": 1}


def verify(graph: Graph) -> None:
    """Check names, types, order, attributes, arities and that inference reproduces the declared
    types.

    Raises ModelError with the first fault found.
    """
    _check_lists(graph)
    defined = set(graph.inputs) | set(graph.constants)
    for op in graph.ops:
        _check_op(op, defined)
        defined.update(o for o in op.outputs if o)
    for name in graph.outputs:
        if name not in defined:
            raise ModelError(f"graph '{graph.name}': output '{name}' is never defined")
    _check_values(graph, defined)
    _check_types(graph)


def _check_lists(graph: Graph) -> None:
    for what, names in (("input", graph.inputs), ("output", graph.outputs)):
        if (twice := _twice(names)) is not None:
            raise ModelError(f"graph '{graph.name}': an {what} is named twice: '{twice}'")
    both = sorted(set(graph.inputs) & set(graph.constants))
    if both:
        raise ModelError(f"graph '{graph.name}': '{both[0]}' is an input and a constant")
    for name in graph.stored:
        if name not in graph.constants:
            raise ModelError(
                f"graph '{graph.name}': '{name}' is said to be computed when compiling and is no"
                " constant"
            )


def _twice(names: Iterable[str]) -> str | None:
    return next((n for n, count in Counter(names).items() if count > 1), None)


def _check_op(op: Op, defined: set[str]) -> None:
    """One op after what ``defined`` names."""
    named = [o for o in op.outputs if o]
    if not named:
        raise ModelError(f"an op of kind '{op.kind}' has no outputs")
    row = row_of(op)
    problem = row.check(op)
    if problem:
        raise ModelError(f"node '{op.name}': {problem}")
    for name in op.inputs:
        if name and name not in defined:
            raise ModelError(
                f"node '{op.name}' ({op.kind}) reads '{name}', which nothing before it defines"
            )
    again = next((o for o in named if o in defined), _twice(named))
    if again is not None:
        raise ModelError(f"node '{op.name}' ({op.kind}) defines '{again}' a second time")
    if len(op.bodies) != BODIES.get(op.kind, 0):
        raise ModelError(
            f"node '{op.name}': {op.kind} takes {BODIES.get(op.kind, 0)} bodies, got"
            f" {len(op.bodies)}"
        )
    for body in op.bodies:
        verify(body)


def _check_values(graph: Graph, defined: set[str]) -> None:
    """Every value that is defined has a type, every type belongs to one, and constants' data is of
    theirs.
    """
    untyped = sorted(defined - set(graph.values))
    if untyped:
        raise ModelError(f"graph '{graph.name}': '{untyped[0]}' has no type")
    dangling = sorted(set(graph.values) - defined)
    if dangling:
        raise ModelError(
            f"graph '{graph.name}': '{dangling[0]}' has a type, but nothing defines it"
        )
    for name, value in graph.values.items():
        if value.name != name:
            raise ModelError(
                f"graph '{graph.name}': the type of '{name}' is that of '{value.name}'"
            )
        if value.shape is not None and not all(
            d >= 0 if isinstance(d, int) else hasattr(d, "free_symbols") for d in value.shape
        ):
            raise ModelError(
                f"'{name}' is declared {_shown(value)}: an extent is a whole number from 0 or an"
                " expression of names"
            )
    for name, data in graph.constants.items():
        value = graph.values[name]
        if data is not None and (
            tuple(data.shape) != value.shape or data.dtype != value.dtype.numpy
        ):
            raise ModelError(
                f"constant '{name}' is declared {_shown(value)}, its data is"
                f" {data.dtype}{list(data.shape)}"
            )


def _check_types(graph: Graph) -> None:
    again, _ = infer_graph(graph, {n: graph.values[n].shape for n in graph.inputs})
    for name, value in graph.values.items():
        other = again.values[name]
        clash = value.dtype != other.dtype
        if value.shape is not None and other.shape is not None:
            pairs = zip(value.shape, other.shape, strict=False)
            clash |= len(value.shape) != len(other.shape) or any(
                isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs
            )
        if clash:
            raise ModelError(
                f"'{name}' is declared {_shown(value)} but inference gives {_shown(other)}"
            )


def _shown(value: Value) -> str:
    return f"{value.dtype}[{', '.join(map(str, value.shape)) if value.shape is not None else '?'}]"
