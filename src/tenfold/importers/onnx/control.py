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


def _body(
    node: Node,
    graph: onnx.GraphProto,
    import_graph: ImportGraph,
    formals: list[Value | None] | None,
) -> tuple[Builder, list[str]]:
    parent = node.builder
    if parent.depth >= MAX_NESTING:
        raise ModelError(f"node '{node.loc}': bodies nested more than {MAX_NESTING} deep")
    inner = Builder(
        graph.name or node.op_type,
        parent.opset,
        parent.functions,
        parent,
        depth=parent.depth + 1,
        budget=parent.budget,
        folder=parent.folder,
        dims=parent.dims,
    )
    inner.scope.bounds = parent.scope.bounds
    return inner, import_graph(inner, graph, formals)


def _close(node: Node, bodies: list[tuple[Builder, list[str]]]) -> tuple[list[Graph], list[str]]:
    """Graphs that all take the union of the captures after their own inputs, and the captured outer
    values.
    """
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
    for branch in ("then_branch", "else_branch"):
        given = {t.name for t in node.needs(branch).initializer}
        if any(i.name not in given for i in node.needs(branch).input):
            raise ModelError(
                f"node '{node.loc}': the {branch} of an If takes inputs, must take none"
            )
    condition = node.known(0)
    if condition is not None and condition.dtype != object:
        taken = node.needs("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        return _inline_branch(node, taken, import_graph)
    bodies = [
        _body(node, node.needs(b), import_graph, None) for b in ("then_branch", "else_branch")
    ]
    if len({len(outs) for _, outs in bodies}) != 1:
        raise ModelError(
            f"node '{node.loc}': the branches of an If give different numbers of results"
        )
    graphs, captured = _close(node, bodies)
    return _emit(node, "if", [node.input(0), *captured], graphs, {}, len(bodies[0][1]))


def _inline_branch(node: Node, graph: onnx.GraphProto, import_graph: ImportGraph) -> list[str]:
    """The branch that is always taken, in place of the If."""
    parent = node.builder
    inner = Builder(
        name=parent.name,
        opset=parent.opset,
        functions=parent.functions,
        outer=parent.outer,
        scope=parent.scope,
        env=dict(parent.env),
        ops=parent.ops,
        inputs=parent.inputs,
        captures=parent.captures,
        counter=parent.counter,
        depth=parent.depth + 1,
        budget=parent.budget,
        folder=parent.folder,
        dims=parent.dims,
    )
    if parent.depth >= MAX_NESTING:
        raise ModelError(f"node '{node.loc}': bodies nested more than {MAX_NESTING} deep")
    outputs = import_graph(inner, graph, None)
    parent.counter = inner.counter
    return outputs


def _import_loop(node: Node, import_graph: ImportGraph) -> list[str]:
    proto = node.needs("body")
    state = [node.value(i) for i in range(2, len(node.inputs))]
    if len(proto.input) != len(state) + 2 or len(proto.output) < len(state) + 1:
        raise ModelError(
            f"node '{node.loc}': the Loop's body takes {len(proto.input)} inputs, needs"
            f" {len(state) + 2}"
        )
    formals: list[Value | None] = [Value("i", DType.I64, ()), Value("c", DType.BOOL, ()), *state]
    builder, outputs = _body(node, proto, import_graph, formals)
    graphs, captured = _close(node, [(builder, outputs)])
    limit = node.inputs[0] if node.inputs else ""
    condition = node.inputs[1] if len(node.inputs) > 1 else ""
    inputs = [limit, condition, *node.inputs[2:], *captured]
    return _emit(node, "loop", inputs, graphs, {"carried": len(state)}, len(outputs) - 1)


def _import_scan(node: Node, import_graph: ImportGraph) -> list[str]:
    if node.opset < 9:
        return _import_batched_scan(node, import_graph)
    proto, scanned = node.needs("body"), node.needs("num_scan_inputs")
    states = len(node.inputs) - scanned
    if states < 0 or len(proto.input) != len(node.inputs) or len(proto.output) < states:
        raise ModelError(
            f"node '{node.loc}': the Scan's body takes {len(proto.input)} inputs, the node gives"
            f" {len(node.inputs)}"
        )
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


def _import_batched_scan(node: Node, import_graph: ImportGraph) -> list[str]:
    """Scan of opset 8, where everything has a batch axis first: a scan over the batch of scans over
    time.
    """
    proto, scanned = node.needs("body"), node.needs("num_scan_inputs")
    if node.has(0):
        raise ModelError(
            f"node '{node.loc}': Scan of opset 8 with sequence lengths is not supported: convert"
            " the model to opset 9 or later"
        )
    names = list(node.inputs[1:])
    states = len(names) - scanned
    values = [node.type_of(n) for n in names]
    if (
        states < 0
        or len(proto.input) != len(names)
        or any(
            v.shape is None or len(v.shape) < (2 if i >= states else 1)
            for i, v in enumerate(values)
        )
    ):
        raise ModelError(
            f"node '{node.loc}': the Scan's body takes {len(proto.input)} inputs, the node gives"
            f" {len(names)} with a batch axis"
        )
    single = [replace(v, shape=v.dims[1:]) for v in values]
    formals: list[Value | None] = [
        replace(v, shape=v.dims[1:]) if i >= states else v for i, v in enumerate(single)
    ]
    inner, outputs = _body(node, proto, import_graph, formals)
    graphs, captured = _close(node, [(inner, outputs)])
    outer = Builder(
        f"{node.loc}.batch",
        node.builder.opset,
        {},
        depth=node.builder.depth + 1,
        budget=node.builder.budget,
    )
    for name, value in zip(
        [*names, *captured], [*single, *(node.type_of(c) for c in captured)], strict=True
    ):
        outer.input(name, value.dtype, value.shape)
    results = tuple(f"{o}.one" for o in outputs)
    attrs: dict[str, Any] = {"states": states, "scanned": scanned, "input_axes": (0,) * scanned}
    if node.attr("directions"):
        attrs["input_directions"] = node.attr("directions")
    outer.emit(Op("scan", tuple(outer.inputs), results, attrs, tuple(graphs), node.loc))
    whole = {"states": 0, "scanned": len(names), "input_axes": (0,) * len(names)}
    return _emit(node, "scan", [*names, *captured], [outer.finish(results)], whole, len(outputs))


def _emit(
    node: Node, kind: str, inputs: list[str], graphs: list[Graph], attrs: dict[str, Any], count: int
) -> list[str]:
    wanted = [*node.outputs, *[""] * count][:count]
    names = tuple(node.builder.unique(o or f"{node.loc}.unused{j}") for j, o in enumerate(wanted))
    node.builder.emit(Op(kind, tuple(inputs), names, attrs, tuple(graphs), node.loc))
    return list(names)


BODY_HANDLERS: dict[str, Callable[[Node, ImportGraph], list[str]]] = {
    "If": _import_if,
    "Loop": _import_loop,
    "Scan": _import_scan,
}
