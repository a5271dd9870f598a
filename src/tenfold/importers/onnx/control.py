"""``If``, ``Loop`` and ``Scan``: bodies become graphs whose captures are explicit inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from tenfold.errors import ModelError
from tenfold.importers.onnx.node import Builder, Node
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, Op, Value

if TYPE_CHECKING:
    import onnx

ImportGraph: TypeAlias = "Callable[[Builder, onnx.GraphProto, Sequence[Any] | None], list[str]]"

MAX_NESTING = 12


def _body(node: Node, graph: onnx.GraphProto, import_graph: ImportGraph, formals: list[Value | None] | None) -> tuple[Builder, list[str]]:
    parent = node.builder
    if parent.depth >= MAX_NESTING:
        raise ModelError(f"node '{node.loc}': bodies nested more than {MAX_NESTING} deep")
    inner = Builder(graph.name or node.op_type, parent.opset, parent.functions, parent, depth=parent.depth + 1, budget=parent.budget)
    inner.scope.bounds = parent.scope.bounds
    return inner, import_graph(inner, graph, formals)


def _close(node: Node, bodies: list[tuple[Builder, list[str]]]) -> tuple[list[Graph], list[str]]:
    """Graphs that all take the union of the captures after their own inputs, and the captured outer values."""
    captured: list[str] = []
    for builder, _ in bodies:
        captured += [c for c in builder.captures if c not in captured]
    graphs = []
    for builder, outputs in bodies:
        extra = []
        for source in captured:
            if source not in builder.captures:
                value = node.builder.scope.values[source]
                inner = builder.unique(source)
                builder.scope.declare(Value(inner, value.dtype, value.shape))
                builder.captures[source] = inner
            extra.append(builder.captures[source])
        graphs.append(builder.finish(outputs, extra))
    return graphs, captured


def _import_if(node: Node, import_graph: ImportGraph) -> list[str]:
    condition = node.known(0)
    if condition is not None and condition.dtype != object:
        taken = node.needs("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        return _inline_branch(node, taken, import_graph)
    bodies = [_body(node, node.needs(b), import_graph, None) for b in ("then_branch", "else_branch")]
    if len({len(outs) for _, outs in bodies}) != 1:
        raise ModelError(f"node '{node.loc}': the branches of an If give different numbers of results")
    graphs, captured = _close(node, bodies)
    return _emit(node, "if", [node.input(0), *captured], graphs, {}, len(bodies[0][1]))


def _inline_branch(node: Node, graph: onnx.GraphProto, import_graph: ImportGraph) -> list[str]:
    """The branch that is always taken, in place of the If."""
    parent = node.builder
    inner = Builder(
        parent.name, parent.opset, parent.functions, parent.outer, parent.scope, dict(parent.env), parent.ops, parent.inputs,
        parent.captures, parent.counter, parent.depth + 1, parent.budget,
    )  # fmt: skip
    if parent.depth >= MAX_NESTING:
        raise ModelError(f"node '{node.loc}': bodies nested more than {MAX_NESTING} deep")
    outputs = import_graph(inner, graph, None)
    parent.counter = inner.counter
    return outputs


def _import_loop(node: Node, import_graph: ImportGraph) -> list[str]:
    proto = node.needs("body")
    state = [node.value(i) for i in range(2, len(node.inputs))]
    if len(proto.input) != len(state) + 2 or len(proto.output) < len(state) + 1:
        raise ModelError(f"node '{node.loc}': the Loop's body takes {len(proto.input)} inputs, needs {len(state) + 2}")
    formals: list[Value | None] = [Value("i", DType.I64, ()), Value("c", DType.BOOL, ()), *state]
    builder, outputs = _body(node, proto, import_graph, formals)
    graphs, captured = _close(node, [(builder, outputs)])
    limit = node.inputs[0] if node.inputs else ""
    condition = node.inputs[1] if len(node.inputs) > 1 else ""
    inputs = [limit, condition, *node.inputs[2:], *captured]
    return _emit(node, "loop", inputs, graphs, {"carried": len(state)}, len(outputs) - 1)


def _import_scan(node: Node, import_graph: ImportGraph) -> list[str]:
    if node.opset < 9:
        raise ModelError(f"node '{node.loc}': Scan of opset 8 (with a batch axis) is not supported: convert the model to opset 9 or later")
    proto, scanned = node.needs("body"), node.needs("num_scan_inputs")
    states = len(node.inputs) - scanned
    if states < 0 or len(proto.input) != len(node.inputs) or len(proto.output) < states:
        raise ModelError(f"node '{node.loc}': the Scan's body takes {len(proto.input)} inputs, the node gives {len(node.inputs)}")
    axes = node.attr("scan_input_axes") or (0,) * scanned
    formals: list[Value | None] = []
    for i in range(len(node.inputs)):
        value = node.value(i)
        if i >= states and value.shape is not None:
            at = axes[i - states] % len(value.shape)
            value = replace(value, shape=(*value.shape[:at], *value.shape[at + 1 :]))
        formals.append(value)
    builder, outputs = _body(node, proto, import_graph, formals)
    graphs, captured = _close(node, [(builder, outputs)])
    attrs: dict[str, Any] = {"states": states, "scanned": scanned, "input_axes": tuple(axes)}
    for mine, theirs in (
        ("input_directions", "scan_input_directions"),
        ("output_axes", "scan_output_axes"),
        ("output_directions", "scan_output_directions"),
    ):
        if node.attr(theirs):
            attrs[mine] = node.attr(theirs)
    return _emit(node, "scan", [*node.inputs, *captured], graphs, attrs, len(outputs))


def _emit(node: Node, kind: str, inputs: list[str], graphs: list[Graph], attrs: dict[str, Any], count: int) -> list[str]:
    wanted = [*node.outputs, *[""] * count][:count]
    names = tuple(node.builder.unique(o or f"{node.loc}.unused{j}") for j, o in enumerate(wanted))
    node.builder.emit(Op(kind, tuple(inputs), names, attrs, tuple(graphs), node.loc))
    return list(names)


BODY_HANDLERS: dict[str, Callable[[Node, ImportGraph], list[str]]] = {
    "If": _import_if,
    "Loop": _import_loop,
    "Scan": _import_scan,
}
