"""The verifier: accepts or rejects a graph as a whole."""

from __future__ import annotations

from tenfold.errors import ModelError
from tenfold.ir.graph import Graph
from tenfold.ir.infer import infer_graph, row_of


def verify(graph: Graph) -> None:
    """Check names, order, attributes, arities and that inference reproduces the declared types.

    Raises ModelError with the first fault found.
    """
    defined = set(graph.inputs) | set(graph.constants)
    if len(set(graph.inputs)) != len(graph.inputs):
        raise ModelError(f"graph '{graph.name}': an input is named twice")
    for name, data in graph.constants.items():
        value = graph.values.get(name)
        if value is None:
            raise ModelError(f"graph '{graph.name}': constant '{name}' has no type")
        if data is not None and (tuple(data.shape) != value.shape or data.dtype != value.dtype.numpy):
            raise ModelError(f"constant '{name}' is declared {value.dtype}{list(value.dims)}, its data is {data.dtype}{list(data.shape)}")
    for op in graph.ops:
        problem = row_of(op).check(op)
        if problem:
            raise ModelError(f"node '{op.name}': {problem}")
        for name in op.inputs:
            if name and name not in defined:
                raise ModelError(f"node '{op.name}' ({op.kind}) reads '{name}', which nothing before it defines")
        for name in op.outputs:
            if name in defined:
                raise ModelError(f"node '{op.name}' ({op.kind}) defines '{name}' a second time")
            if name:
                defined.add(name)
        for body in op.bodies:
            verify(body)
    for name in graph.outputs:
        if name not in defined:
            raise ModelError(f"graph '{graph.name}': output '{name}' is never defined")
    _check_types(graph)


def _check_types(graph: Graph) -> None:
    again, _ = infer_graph(graph, {n: graph.values[n].shape for n in graph.inputs})
    for name, value in graph.values.items():
        other = again.values.get(name)
        if other is None or value.shape is None or other.shape is None:
            continue
        clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(value.shape, other.shape, strict=False))
        if value.dtype != other.dtype or len(value.shape) != len(other.shape) or clash:
            raise ModelError(f"'{name}' is declared {value.dtype}{list(value.shape)} but inference gives {other.dtype}{list(other.shape)}")
