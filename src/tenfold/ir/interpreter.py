"""The plain interpreter: walks the ops and applies the NumPy column. It defines truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tenfold.errors import InputError, ModelError
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Graph, Op, Value
from tenfold.ir.infer import row_of
from tenfold.ir.table import Context


def interpret(graph: Graph, inputs: Mapping[str, Array], *, seed: int = 0) -> dict[str, Array]:
    """Outputs of ``graph`` by name. ``seed`` serves the random ops.

    Raises InputError for missing, extra or wrongly ranked inputs, ModelError for a weight without
    data.
    """
    arrays = check_inputs(graph, inputs)
    results = run(graph, list(arrays.values()), np.random.default_rng(seed))
    return dict(zip(graph.outputs, results, strict=True))


def check_inputs(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs as arrays, in the graph's order. Raises InputError for missing, extra or wrongly
    ranked ones.
    """
    missing = [n for n in graph.inputs if n not in inputs]
    extra = sorted(set(inputs) - set(graph.inputs))
    if missing or extra:
        what = f"input '{missing[0]}' is missing" if missing else f"there is no input '{extra[0]}'"
        raise InputError(f"{what}: the model takes {', '.join(graph.inputs) or 'no inputs'}")
    arrays = {n: np.asarray(inputs[n]) for n in graph.inputs}
    for name, array in arrays.items():
        _check_input(graph.values[name], array)
    return arrays


def _check_input(value: Value, array: Array) -> None:
    """Type, rank and fixed extents of an input; raises InputError saying what is wanted."""
    shape = value.shape
    wrong = shape is not None and (
        len(shape) != array.ndim
        or any(isinstance(d, int) and d != n for d, n in zip(shape, array.shape, strict=True))
    )
    typed = array.dtype == value.dtype.numpy or (
        value.dtype is DType.STRING and array.dtype.kind in "OUS"
    )
    if wrong or not typed:
        wanted = f"{value.dtype}[{', '.join(map(str, shape)) if shape is not None else '?'}]"
        raise InputError(
            f"input '{value.name}' must be {wanted}, got {array.dtype}{list(array.shape)}"
        )


def run(graph: Graph, arguments: Sequence[Array | None], rng: np.random.Generator) -> list[Array]:
    """Outputs of ``graph`` for positional ``arguments``. Values are dropped after their last
    use.
    """
    live: dict[str, Array | None] = dict(zip(graph.inputs, arguments, strict=True))
    live |= graph.constants
    last = _last_uses(graph)
    for i, op in enumerate(graph.ops):
        run_op(graph, op, live, rng)
        for name in last.get(i, ()):
            live.pop(name, None)
    results = []
    for name in graph.outputs:
        value = live[name]
        if value is None:
            raise ModelError(f"output '{name}' is a weight without data")
        results.append(value)
    return results


def _last_uses(graph: Graph) -> dict[int, list[str]]:
    where: dict[str, int] = {}
    for i, op in enumerate(graph.ops):
        where |= dict.fromkeys((n for n in (*op.inputs, *op.outputs) if n), i)
    keep = set(graph.outputs)
    uses: dict[int, list[str]] = {}
    for name, i in where.items():
        if name not in keep:
            uses.setdefault(i, []).append(name)
    return uses


def run_op(graph: Graph, op: Op, live: dict[str, Array | None], rng: np.random.Generator) -> None:
    """Evaluate one op on the values in ``live`` and put its results there."""
    row = row_of(op)
    arrays = [live[n] if n else None for n in op.inputs]
    for name, array in zip(op.inputs, arrays, strict=True):
        if name and array is None and not op.bodies:
            raise ModelError(
                f"'{name}' is a weight without data: this model can be priced but not run"
            )
    declared = tuple(graph.value(o) for o in op.outputs) if op.bodies else ()
    bodies = tuple(_runner(body, rng) for body in op.bodies)
    while arrays and arrays[-1] is None and not op.bodies:
        arrays.pop()
    with np.errstate(all="ignore"):
        result = row.evaluate(Context(op.attrs, len(op.outputs), bodies, rng, declared), *arrays)
    outputs = [result] if isinstance(result, np.ndarray | np.generic) else list(result)
    if any(op.outputs[len(outputs) :]):
        raise ModelError(
            f"node '{op.name}' ({op.kind}) gives {len(outputs)} results, {len(op.outputs)} are"
            " named"
        )
    for name, array in zip(op.outputs, outputs, strict=False):
        if name:
            live[name] = np.asarray(array)


def _runner(
    body: Graph, rng: np.random.Generator
) -> Callable[[Sequence[Array | None]], list[Array]]:
    return lambda arguments: run(body, list(arguments), rng)
