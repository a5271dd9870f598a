"""The graph of a network and its gradient: reverse mode over the op table's gradient column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tenfold.errors import ModelError
from tenfold.ir.cost import op_call
from tenfold.ir.derivatives import Backward, NoGradient
from tenfold.ir.graph import Graph, Op, UnknownShape, stored_numbers
from tenfold.ir.infer import Scope, row_of
from tenfold.ir.tape import Tape

SEED = "grad."  # begins the name of the gradient of a value


@dataclass(frozen=True, slots=True)
class Differentiated:
    """``graph`` computes the network's outputs and then the gradients of what was asked for, from
    those of its outputs (further inputs, ``seeds``); the first ``forward`` ops are the network's.
    """

    graph: Graph
    forward: int
    seeds: tuple[str, ...]
    grads: Mapping[str, str]  # by value


def trained(graph: Graph) -> tuple[str, ...]:
    """The weights of a graph: constants of floats that a file stores."""
    return tuple(
        n
        for n in graph.constants
        if graph.values[n].dtype.is_float
        and graph.values[n].dims
        and stored_numbers(graph.values[n], graph.stored)
    )


def differentiated(
    graph: Graph, wanted: Collection[str], outputs: Collection[str] | None = None
) -> Differentiated:
    """The network and the gradients of ``wanted`` (weights, or inputs of floats), given those of
    its ``outputs`` (of floats, by default all that depend on something wanted).

    ``graph`` must be static. Raises ModelError for an op on the way whose gradient is not known.
    """
    moving = _moving(graph, wanted)
    scope = Scope(
        values=dict(graph.values), constants=dict(graph.constants), stored=dict(graph.stored)
    )
    scope.known = {n: a for n, a in graph.constants.items() if a is not None and a.size <= 4096}
    tape = Tape(scope)
    ends = [n for n in graph.outputs if n in moving and (outputs is None or n in outputs)]
    sums: dict[str, list[str]] = {n: [tape.outside(SEED + n, n)] for n in ends}
    for op in reversed(graph.ops):
        if any(sums.get(o) for o in op.outputs):
            _one(graph, op, tape, sums, moving)
    grads: dict[str, str] = {}
    for name in wanted:
        tape.loc = SEED + name
        total = _total(tape, sums.get(name, []))
        if total:
            grads[name] = tape.rename(total, f"{SEED}{name}")
    whole = replace(
        graph,
        inputs=(*graph.inputs, *(SEED + n for n in ends)),
        outputs=(*graph.outputs, *grads.values()),
        ops=(*graph.ops, *tape.ops),
        values=scope.values,
        constants=scope.constants,
        stored=scope.stored,
    )
    return Differentiated(whole, len(graph.ops), tuple(SEED + n for n in ends), grads)


def _moving(graph: Graph, wanted: Collection[str]) -> set[str]:
    """Values of floats that change with something wanted."""
    moving = set(wanted)
    for op in graph.ops:
        if row_of(op).gradient is NoGradient.FLAT or not moving.intersection(op.inputs):
            continue
        moving.update(o for o in op.outputs if o and graph.values[o].dtype.is_float)
    return moving


def _one(
    graph: Graph, op: Op, tape: Tape, sums: dict[str, list[str]], moving: Collection[str]
) -> None:
    """The gradients of one op's operands, added to what others contributed."""
    wanted = tuple(n in moving for n in op.inputs)
    if not any(wanted):
        return
    rule = row_of(op).gradient
    tape.loc = f"{SEED}{op.name}"
    if isinstance(rule, NoGradient):
        raise ModelError(f"node '{op.name}' ({op.kind}) cannot be trained: {rule.value}")
    given = tuple(_total(tape, sums.get(o, [])) if o else "" for o in op.outputs)
    call = op_call(graph, op)
    try:
        found = rule(tape, Backward(op, call, given, wanted))
    except (NotImplementedError, UnknownShape) as error:
        raise ModelError(f"node '{op.name}' ({op.kind}) cannot be trained: {error}") from error
    for name, grad, want in zip(op.inputs, found, wanted, strict=True):
        if want and grad:
            sums.setdefault(name, []).append(grad)


def _total(tape: Tape, parts: list[str]) -> str:
    """The sum of what several readers contribute; "" of none. Summed once."""
    while len(parts) > 1:
        first, second = parts.pop(), parts.pop()
        parts.append(tape.op("add", second, first))
    return parts[0] if parts else ""
