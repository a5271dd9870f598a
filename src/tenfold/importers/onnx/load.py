"""ONNX files to graphs."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from tenfold.errors import InputError, ModelError
from tenfold.importers.onnx.control import BODY_HANDLERS
from tenfold.importers.onnx.extents import extent, plain_names
from tenfold.importers.onnx.external import external_array
from tenfold.importers.onnx.fallback import function_body, import_opaque
from tenfold.importers.onnx.handlers import HANDLERS
from tenfold.importers.onnx.node import Builder, Node
from tenfold.importers.onnx.order import made_once, ordered
from tenfold.importers.onnx.schema import check_signature
from tenfold.importers.onnx.types import DTYPES
from tenfold.ir.dims import Dim
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph, UnknownShape
from tenfold.ir.table import MAX_RANK

OPSETS = (7, 28)
MAX_DEPTH = 16
MAX_SPARSE = 1 << 28
MAX_NAME = 1000


class _NoModel(ModelError):
    """The bytes are no model at all."""


def load_onnx(path: str | Path) -> Graph:
    """The graph in the ONNX file at ``path``, external data included.

    Raises InputError if the file cannot be read, ModelError if it is not a valid model.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return load_onnx_bytes(data, name=path.stem, folder=path.parent)
    except _NoModel as error:
        raise ModelError(f"{path}: {error}") from error


def load_onnx_bytes(data: bytes, *, name: str = "model", folder: Path | None = None) -> Graph:
    """The graph in a serialised ONNX model; external data is looked up in ``folder``.

    Raises ModelError if it is not a valid model.
    """
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise _NoModel(f"not an ONNX model ({len(data)} bytes that do not parse as one)") from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise _NoModel("the file holds no graph: is it an ONNX model, and complete?")
    return import_model(model, name, folder)


def import_model(model: onnx.ModelProto, name: str, folder: Path | None = None) -> Graph:
    """The graph of a parsed model. Raises ModelError for anything that is not valid."""
    _check_names(model)
    opset = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
    version = opset.setdefault("", 1 if model.ir_version < 3 else OPSETS[1])
    if not 1 <= version <= OPSETS[1]:
        raise ModelError(
            f"{name}: opset {version} is outside what is supported ({OPSETS[0]} to {OPSETS[1]})"
        )
    functions = {(f.domain, f.name): f for f in model.functions}
    builder = Builder(
        name=model.graph.name or name,
        opset=opset,
        functions=functions,
        folder=folder,
        dims=plain_names(model.graph.input),
    )
    try:
        outputs = import_graph(builder, model.graph)
    except RecursionError as error:
        raise ModelError(f"{name}: nested too deeply") from error
    return builder.finish(outputs)


def _check_names(model: onnx.ModelProto) -> None:
    """Names end up in reports, symbols and messages: they must be short enough for one line, and
    printable.
    """
    for what, name in itertools.chain(
        _graph_names(model.graph),
        (
            pair
            for f in model.functions
            for pair in (("function", f.name), ("domain", f.domain), *_node_names(f.node))
        ),
        (("value", name) for f in model.functions for name in itertools.chain(f.input, f.output)),
        (("domain", o.domain) for o in model.opset_import),
    ):
        if not isinstance(name, str):  # protobuf hands over what is not UTF-8 as bytes
            raise ModelError(f"the {what} {name[:60]!r} is not UTF-8")
        if len(name) > MAX_NAME:
            raise ModelError(
                f"the {what} '{name[:60]}…' is {len(name)} characters long: at most {MAX_NAME} are"
                " allowed"
            )
        if not (name.isascii() and name.isprintable()) and any(
            unicodedata.category(c)[0] in "CZ" and c != " " for c in name
        ):
            raise ModelError(
                f"the {what} {name!r} holds characters that cannot be printed on one line"
            )


def _graph_names(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    yield "graph", graph.name
    for info in itertools.chain(graph.input, graph.output):
        yield "value", info.name
        for d in info.type.tensor_type.shape.dim:
            yield "dimension", d.dim_param
    for tensor in itertools.chain(graph.initializer, (s.values for s in graph.sparse_initializer)):
        yield "tensor", tensor.name
    yield from _node_names(graph.node)


def _node_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        yield "node", node.name
        yield "op type", node.op_type
        yield "domain", node.domain
        for value in itertools.chain(node.input, node.output):
            yield "value", value
        for a in node.attribute:
            yield "attribute", a.name
            if a.type == onnx.AttributeProto.GRAPH:
                yield from _graph_names(a.g)


def import_graph(
    builder: Builder, graph: onnx.GraphProto, formals: Sequence[Any] | None = None
) -> list[str]:
    """Add a graph's initialisers, inputs and nodes to ``builder``; returns the names of its
    outputs.

    ``formals`` gives the values of a body's inputs where the construct around it knows them.
    """
    initialisers = {t.name: t for t in graph.initializer}
    builder.declared = {v.name: v for v in (*graph.value_info, *graph.output)}
    if not formals:
        for info in graph.input:
            if info.name not in initialisers:
                dtype, shape = value_type(info, info.name, builder.dims)
                builder.input(info.name, dtype, shape)
    else:
        for info, value in zip(graph.input, formals, strict=False):
            dtype, shape = (
                (value.dtype, value.shape)
                if value is not None
                else value_type(info, info.name, builder.dims)
            )
            builder.input(info.name, dtype, shape)
    for tensor in graph.initializer:
        if tensor.name not in builder.env or builder.env[tensor.name] not in builder.inputs:
            builder.env[tensor.name] = builder.constant(
                tensor.name, tensor_array(tensor, builder.folder)
            )
    for sparse in graph.sparse_initializer:
        builder.env[sparse.values.name] = builder.constant(sparse.values.name, sparse_array(sparse))
    made_once(graph)
    for proto in _in_order(builder, graph):
        import_node(builder, proto)
    outputs = []
    for info in graph.output:
        inner = builder.resolve(info.name)
        outputs.append(inner)
    return _distinct(builder, outputs, [o.name for o in graph.output])


def _in_order(builder: Builder, graph: onnx.GraphProto) -> Sequence[onnx.NodeProto]:
    """The nodes of a model in an order in which they can run; those of a body as they are, which
    ONNX Runtime asks for too.
    """
    if builder.outer is None:
        return ordered(graph.node, builder.env)
    later = {o for node in graph.node for o in node.output if o}
    for node in graph.node:
        for name in node.input:
            if name in later and name not in builder.env:
                raise ModelError(
                    f"node '{node.name or node.op_type}' of the body '{graph.name}' reads"
                    f" '{name}', which a later node makes: the nodes are not in order"
                )
        later -= set(node.output)
    return graph.node


def _distinct(builder: Builder, outputs: list[str], names: list[str]) -> list[str]:
    """Outputs under their ONNX names, each a value of its own; a model may hand back its inputs and
    constants as they are.
    """
    result: list[str] = []
    for inner, name in zip(outputs, names, strict=True):
        if builder.outer is None and inner == name and inner not in result:
            result.append(inner)
            continue
        if (
            inner in builder.inputs
            or inner in builder.captures.values()
            or inner in result
            or inner in builder.scope.constants
        ):
            fresh = builder.unique(name)
            from tenfold.ir.graph import Op
            from tenfold.ir.infer import infer_op

            builder.ops.append(
                infer_op(builder.scope, Op("identity", (inner,), (fresh,), {}, (), name))
            )
            inner = fresh
        result.append(inner)
    return result


def value_type(
    info: onnx.ValueInfoProto, name: str, known: frozenset[str]
) -> tuple[DType, tuple[Dim, ...] | None]:
    """Element type and shape of a declared value; free dimensions become symbols, named as the file
    does or after the value, or what their expression over the ``known`` ones comes to.
    """
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(
            f"input '{name}' is a {kind or 'value without type'}: only tensors are supported"
        )
    tensor = info.type.tensor_type
    if tensor.elem_type not in DTYPES:
        raise ModelError(f"input '{name}' has the unknown element type {tensor.elem_type}")
    if not tensor.HasField("shape"):
        return DTYPES[tensor.elem_type], None
    dims: list[Dim] = []
    for i, d in enumerate(tensor.shape.dim):
        if d.HasField("dim_value") and d.dim_value > 0:
            dims.append(int(d.dim_value))
        else:
            dims.append(extent(d.dim_param, known, name, i))
    return DTYPES[tensor.elem_type], tuple(dims)


def tensor_array(tensor: onnx.TensorProto, folder: Path | None = None) -> np.ndarray[Any, Any]:
    """The content of a tensor; of one outside the file, that of its place in ``folder``."""
    if tensor.data_type not in DTYPES:
        raise ModelError(f"tensor '{tensor.name}' has the unknown element type {tensor.data_type}")
    count = np.prod([float(d) for d in tensor.dims])
    if any(d < 0 for d in tensor.dims) or count > 2**40:
        raise ModelError(f"tensor '{tensor.name}' has the impossible shape {list(tensor.dims)}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        found = external_array(tensor, DTYPES[tensor.data_type], folder)
        return found.astype(DTYPES[tensor.data_type].numpy, copy=False)
    try:
        array = numpy_helper.to_array(tensor)
    except (
        ValueError,
        TypeError,
        OverflowError,
        RuntimeError,
        MemoryError,
        AttributeError,
    ) as error:
        raise ModelError(
            f"tensor '{tensor.name}' of shape {list(tensor.dims)}: its data does not fit its type"
        ) from error
    if tensor.data_type == onnx.TensorProto.STRING:
        return np.asarray(
            [
                s.decode("utf-8", "replace") if isinstance(s, bytes) else s
                for s in array.reshape(-1)
            ],
            dtype=object,
        ).reshape(array.shape)
    return np.asarray(array, dtype=DTYPES[tensor.data_type].numpy)


def sparse_array(sparse: onnx.SparseTensorProto) -> np.ndarray[Any, Any]:
    values, indices = tensor_array(sparse.values), tensor_array(sparse.indices)
    name, shape = sparse.values.name, tuple(sparse.dims)
    if any(d < 0 for d in shape) or math.prod(max(d, 1) for d in shape) > MAX_SPARSE:
        raise ModelError(
            f"sparse tensor '{name}' has the impossible shape {list(shape)[:MAX_RANK]}"
        )
    if (
        values.ndim != 1
        or indices.dtype != np.int64
        or indices.shape not in ((values.size,), (values.size, len(shape)))
    ):
        raise ModelError(
            f"sparse tensor '{name}' has {list(values.shape)} values and {list(indices.shape)}"
            " indices, which do not belong together"
        )
    dense = np.zeros(shape, values.dtype)
    try:
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
    except IndexError as error:
        raise ModelError(f"sparse tensor '{name}': {error}") from error
    return dense


def attributes(proto: onnx.NodeProto, folder: Path | None = None) -> dict[str, Any]:
    """Attributes as Python values; graphs and tensors stay protos and arrays."""
    result: dict[str, Any] = {}
    for a in proto.attribute:
        match a.type:
            case onnx.AttributeProto.FLOAT:
                result[a.name] = float(a.f)
            case onnx.AttributeProto.INT:
                result[a.name] = int(a.i)
            case onnx.AttributeProto.STRING:
                result[a.name] = a.s.decode("utf-8", "replace")
            case onnx.AttributeProto.TENSOR:
                result[a.name] = tensor_array(a.t, folder)
            case onnx.AttributeProto.GRAPH:
                result[a.name] = a.g
            case onnx.AttributeProto.FLOATS:
                result[a.name] = tuple(float(v) for v in a.floats)
            case onnx.AttributeProto.INTS:
                result[a.name] = tuple(int(v) for v in a.ints)
            case onnx.AttributeProto.STRINGS:
                result[a.name] = tuple(s.decode("utf-8", "replace") for s in a.strings)
            case onnx.AttributeProto.SPARSE_TENSOR:
                result[a.name] = sparse_array(a.sparse_tensor)
            case other:
                raise ModelError(
                    f"node '{proto.name}': attribute '{a.name}' has the unsupported type {other}"
                )
    return result


def import_node(builder: Builder, proto: onnx.NodeProto) -> None:
    """Add one node: by its handler, by its function body, or as an opaque op."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    node = Node(
        builder=builder,
        proto=proto,
        op_type=proto.op_type,
        domain=domain,
        opset=builder.opset.get(domain, 1),
        inputs=tuple(builder.resolve(i) if i else "" for i in proto.input),
        outputs=tuple(proto.output),
        attrs=attributes(proto, builder.folder),
    )
    results = _dispatch(node)
    if len(results) < sum(1 for o in proto.output if o):
        results += [""] * (len(proto.output) - len(results))
    for outer, inner in zip(proto.output, results, strict=False):
        if outer and inner:
            builder.env[outer] = inner


def _dispatch(node: Node) -> list[str]:
    key = (node.domain, node.op_type)
    if key in node.builder.functions:
        return _inline(node, node.builder.functions[key])
    check_signature(node)
    try:
        if node.domain == "" and node.op_type in BODY_HANDLERS:
            return BODY_HANDLERS[node.op_type](node, import_graph)
        handler = HANDLERS.get(key)
        if handler is not None:
            return list(handler(node))
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        ZeroDivisionError,
        OverflowError,
    ) as error:
        raise ModelError(
            f"node '{node.loc}' ({node.op_type}): {type(error).__name__} {error}"
        ) from error
    except UnknownShape as error:
        raise ModelError(
            f"node '{node.loc}' ({node.op_type}): the rank of '{error}' depends on data"
        ) from error
    body = function_body(node)
    if body is not None:
        return _inline(node, body)
    return import_opaque(node, DTYPES)


def _inline(node: Node, function: onnx.FunctionProto) -> list[str]:
    """A model-local or standard function, expanded in place."""
    parent = node.builder
    if parent.depth >= MAX_DEPTH:
        raise ModelError(f"node '{node.loc}': functions call each other more than {MAX_DEPTH} deep")
    parent.budget.spend(len(function.node), node.loc)
    opset: Mapping[str, int] = {
        ("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import
    }
    inner = Builder(
        name=parent.name,
        opset={**parent.opset, **opset},
        functions=parent.functions,
        outer=parent.outer,
        scope=parent.scope,
        env={},
        ops=parent.ops,
        inputs=parent.inputs,
        captures=parent.captures,
        counter=parent.counter,
        depth=parent.depth + 1,
        budget=parent.budget,
        folder=parent.folder,
        dims=parent.dims,
    )
    for formal, actual in zip(function.input, node.inputs, strict=False):
        inner.env[formal] = actual
    for formal in function.input:
        inner.env.setdefault(formal, "")
    given = {a.name: a for a in node.proto.attribute}
    defaults = {a.name: a for a in function.attribute_proto}
    for proto in function.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        copy.name = f"{node.loc}/{proto.name or proto.op_type}"
        _fill_references(copy, given, defaults)
        import_node(inner, copy)
    parent.counter = inner.counter
    return [inner.env.get(o, "") for o in function.output][: len(node.proto.output)]


def _fill_references(
    proto: onnx.NodeProto, given: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Replace attributes that refer to the function's own by their values."""
    kept = []
    for a in proto.attribute:
        if a.ref_attr_name:
            source = given.get(a.ref_attr_name, defaults.get(a.ref_attr_name))
            if source is None:
                continue
            filled = onnx.AttributeProto()
            filled.CopyFrom(source)
            filled.name = a.name
            kept.append(filled)
        else:
            for sub in (
                [a.g, *a.graphs]
                if a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
                else []
            ):
                for n in sub.node:
                    _fill_references(n, given, defaults)
            kept.append(a)
    fresh = list(kept)
    del proto.attribute[:]
    proto.attribute.extend(fresh)
