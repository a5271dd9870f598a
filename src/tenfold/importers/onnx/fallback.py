"""What to do with an op that has no handler: expand its function, or keep it opaque."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, TypeAlias

import onnx
import onnx.defs

from tenfold.errors import ModelError, UnknownName
from tenfold.importers.onnx.extents import extent
from tenfold.importers.onnx.left_out import LEFT_OUT
from tenfold.importers.onnx.node import Node
from tenfold.importers.onnx.types import DTYPES
from tenfold.ir.dims import Dim
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Op, Value

_Types: TypeAlias = "list[tuple[DType, tuple[int, ...] | None]]"

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
    number = next(k for k, v in DTYPES.items() if v is value.dtype)
    shape = (
        None
        if value.shape is None
        else [(d if d < 2**63 else None) if isinstance(d, int) else str(d) for d in value.shape]
    )
    return onnx.helper.make_tensor_type_proto(number, shape)


def import_opaque(node: Node, dtypes: Mapping[int, DType]) -> list[str]:
    """Keep the op as it is: evaluated by ``onnx.reference``, priced by its bytes, reported as not
    native. What the standard does not infer of its results, the file may declare.

    Raises UnknownName for an op that the standard has not, ModelError for one of a domain that
    nobody knows, whose results the file does not declare.
    """
    if not node.domain and not onnx.defs.has(node.op_type):
        known = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
        raise UnknownName("ONNX op", node.op_type, known, f"(node '{node.loc}')")
    private = not node.domain or node.domain in PRIVATE
    heard_of = private or onnx.defs.has(node.op_type, node.domain)
    declared = _declared(node, _infer_outputs(node, dtypes) if heard_of else [], dtypes)
    if not heard_of and not declared:
        raise ModelError(
            f"node '{node.loc}': the domain '{node.domain}' of op '{node.op_type}' is unknown, and"
            " the model neither brings a function for it nor declares the shape of its results"
            " (value_info)"
        )
    model = _single_node_model(node)
    names = tuple(node.builder.unique(o) if o else "" for o in node.outputs)
    attrs: dict[str, Any] = {
        "source": f"{node.domain + ':' if node.domain else ''}{node.op_type}",
        "model": base64.b64encode(model.SerializeToString()).decode(),
    }
    if declared:
        attrs["dtypes"] = tuple(d.value for d, _ in declared)
        attrs["ranks"] = tuple(-1 if s is None else len(s) for _, s in declared)
        attrs["dims"] = tuple(_size(d) for _, s in declared for d in s or ())
        attrs["like"] = tuple(_axis_with(node, d) for _, s in declared for d in s or ())
    elif not any(node.inputs):
        raise ModelError(
            f"node '{node.loc}': op '{node.op_type}' is not supported and the type of its result is"
            " unknown"
        )
    node.builder.emit(Op("opaque", tuple(i for i in node.inputs if i), names, attrs, (), node.loc))
    return list(names)


def _size(d: Dim | None) -> int:
    return d if isinstance(d, int) else -1


AXES = 64  # of one operand; ``like`` counts the axes of all operands


def _axis_with(node: Node, d: Dim | None) -> int:
    """The axis of an operand that has this free extent, counted over operands; -1 where none."""
    if d is None or isinstance(d, int):
        return -1
    for i, name in enumerate(n for n in node.inputs if n):
        shape = node.type_of(name).shape or ()
        if d in shape:
            return i * AXES + shape.index(d)
    return -1


def _declared(
    node: Node, inferred: _Types, dtypes: Mapping[int, DType]
) -> list[tuple[DType, tuple[Dim | None, ...] | None]]:
    """The types of the results: as inferred, and where that says less, as the file declares."""
    found: list[tuple[DType, tuple[Dim | None, ...] | None]] = []
    for i, name in enumerate(o for o in node.outputs if o):
        dtype: DType | None = None
        shape: tuple[Dim | None, ...] | None = None
        if i < len(inferred):
            dtype, shape = inferred[i]
        info = node.builder.declared.get(name)
        if info is not None and info.type.tensor_type.elem_type in dtypes:
            dtype = dtype or dtypes[info.type.tensor_type.elem_type]
            given = _shape_of(node, info)
            if shape is None:
                shape = given
            elif given is not None and len(given) == len(shape):
                shape = tuple(g if s == -1 else s for s, g in zip(shape, given, strict=True))
        if dtype is None:
            return []
        found.append((dtype, shape))
    return found


def _shape_of(node: Node, info: onnx.ValueInfoProto) -> tuple[Dim | None, ...] | None:
    """As declared: numbers, and extents that have a name or are an expression; else None."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        int(d.dim_value)
        if d.HasField("dim_value") and d.dim_value > 0
        else extent(d.dim_param, node.builder.dims, info.name, i)
        if d.dim_param
        else None
        for i, d in enumerate(tensor.shape.dim)
    )


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


def _infer_outputs(node: Node, dtypes: Mapping[int, DType]) -> _Types:
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
