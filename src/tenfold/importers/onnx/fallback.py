"""What to do with an op that has no handler: expand its function, or keep it opaque."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import onnx
import onnx.defs

from tenfold.errors import ModelError, UnknownName
from tenfold.importers.onnx.left_out import LEFT_OUT
from tenfold.importers.onnx.node import Node
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Op, Value

PRIVATE = frozenset(
    {
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.microsoft.experimental",
        "ai.onnx.ml",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "org.pytorch.aten",
    }
)


def function_body(node: Node) -> onnx.FunctionProto | None:
    """The body by which the standard defines a function op, where it has one at this opset."""
    if node.domain:
        return None
    if node.op_type in LEFT_OUT:
        raise ModelError(
            f"node '{node.loc}': op '{node.op_type}' is not supported: {LEFT_OUT[node.op_type]}"
        )
    try:
        schema = onnx.defs.get_schema(node.op_type, node.opset, "")
    except (
        onnx.defs.SchemaError,
        TypeError,
    ):  # TypeError: a name that is not text, or a version beyond int32
        return None
    if schema.has_function:
        return schema.function_body
    if schema.has_context_dependent_function:
        types = [
            _type_proto(node.type_of(i)).SerializeToString() if i else b"" for i in node.inputs
        ]
        for version in sorted(schema.context_dependent_function_opset_versions, reverse=True):
            if version <= node.opset:
                return _built_body(node, schema, version, types)
    return None


def _built_body(
    node: Node, schema: onnx.defs.OpSchema, version: int, types: list[bytes]
) -> onnx.FunctionProto:
    """The body that the standard builds for this node's attributes and types."""
    body = onnx.FunctionProto()
    try:
        made = schema.get_context_dependent_function_with_opset_version(
            version, node.proto.SerializeToString(), types
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"node '{node.loc}' ({node.op_type}): {error}") from error
    body.ParseFromString(made)
    return body


def _type_proto(value: Value) -> onnx.TypeProto:
    from tenfold.importers.onnx.load import DTYPES

    number = next(k for k, v in DTYPES.items() if v is value.dtype)
    shape = (
        None
        if value.shape is None
        else [(d if d < 2**63 else None) if isinstance(d, int) else str(d) for d in value.shape]
    )
    return onnx.helper.make_tensor_type_proto(number, shape)


def import_opaque(node: Node, dtypes: Mapping[int, DType]) -> list[str]:
    """Keep the op as it is: evaluated by ``onnx.reference``, priced by its bytes, reported as not
    native.

    Raises UnknownName for an op that neither the standard nor a known private domain has.
    """
    if not node.domain and not onnx.defs.has(node.op_type):
        known = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
        raise UnknownName("ONNX op", node.op_type, known, f"(node '{node.loc}')")
    if node.domain and node.domain not in PRIVATE and not onnx.defs.has(node.op_type, node.domain):
        raise ModelError(
            f"node '{node.loc}': the domain '{node.domain}' of op '{node.op_type}' is unknown, and"
            " the model brings no function for it"
        )
    declared = _infer_outputs(node, dtypes)
    model = _single_node_model(node)
    names = tuple(node.builder.unique(o) if o else "" for o in node.outputs)
    attrs: dict[str, Any] = {
        "source": f"{node.domain + ':' if node.domain else ''}{node.op_type}",
        "model": base64.b64encode(model.SerializeToString()).decode(),
    }
    if declared:
        attrs["dtypes"] = tuple(d.value for d, _ in declared)
        attrs["ranks"] = tuple(-1 if s is None else len(s) for _, s in declared)
        attrs["dims"] = tuple(d for _, s in declared for d in s or ())
    elif not any(node.inputs):
        raise ModelError(
            f"node '{node.loc}': op '{node.op_type}' is not supported and the type of its result is"
            " unknown"
        )
    node.builder.emit(Op("opaque", tuple(i for i in node.inputs if i), names, attrs, (), node.loc))
    return list(names)


def _single_node_model(node: Node) -> onnx.ModelProto:
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    inputs = [
        onnx.helper.make_value_info(str(n), _type_proto(node.type_of(i)))
        for n, i in zip(node.proto.input, node.inputs, strict=True)
        if i
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(o) for o in node.proto.output if o]
    graph = onnx.helper.make_graph([proto], "opaque", inputs, outputs)
    imports = [onnx.helper.make_opsetid("", node.builder.opset.get("", 1))]
    if node.domain:
        imports.append(onnx.helper.make_opsetid(node.domain, node.opset))
    return onnx.helper.make_model(graph, opset_imports=imports)


def _infer_outputs(
    node: Node, dtypes: Mapping[int, DType]
) -> list[tuple[DType, tuple[int, ...] | None]]:
    """Types by the standard's own inference; dimensions it does not know are -1."""
    try:
        inferred = onnx.shape_inference.infer_shapes(_single_node_model(node))
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return []
    found: list[tuple[DType, tuple[int, ...] | None]] = []
    for info in inferred.graph.output:
        tensor = info.type.tensor_type
        if tensor.elem_type not in dtypes:
            return []
        shape = (
            tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            if tensor.HasField("shape")
            else None
        )
        found.append((dtypes[tensor.elem_type], shape))
    return found
