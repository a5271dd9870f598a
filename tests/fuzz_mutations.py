"""Mutations of ONNX files for the fuzzer: of bytes, and of the protobuf's structure.

Each mutation takes a random generator and the model, changes the model in place and returns what it
did. Those that find nothing to change return "".
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.defs
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from fuzz_structure import (
    cycle,
    element_type,
    functions,
    input_shape,
    known_inputs,
    list_of_values,
    model_fields,
    nested_if,
    nested_loop,
    opset,
    subgraph_attribute,
)
from fuzz_vocabulary import (
    FLOATS,
    NAMES,
    STRINGS,
    TYPES,
    Mutation,
    attribute_names,
    graphs,
    op_names,
    pick_graph,
    pick_int,
    pick_name,
    pick_node,
    value_names,
)

# --- nodes -------------------------------------------------------------------------------


def delete_node(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    if not graph.node:
        return ""
    at = rng.randrange(len(graph.node))
    what = graph.node[at].op_type
    del graph.node[at]
    return f"delete node {at} {what}"


def duplicate_node(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    if not graph.node:
        return ""
    at = rng.randrange(len(graph.node))
    copy = NodeProto()
    copy.CopyFrom(graph.node[at])
    for i in range(len(copy.output)):
        if rng.random() < 0.5:
            copy.output[i] += "_again"
    graph.node.append(copy)
    return f"duplicate node {at} {copy.op_type}"


def reorder_nodes(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in graph.node]
    if rng.random() < 0.5:
        rng.shuffle(nodes)
    elif len(nodes) > 1:
        nodes.insert(rng.randrange(len(nodes)), nodes.pop(rng.randrange(len(nodes))))
    del graph.node[:]
    graph.node.extend(nodes)
    return "reorder nodes"


def rename_operand(rng: random.Random, model: ModelProto) -> str:
    node = pick_node(rng, model)
    if node is None:
        return ""
    field = rng.choice([node.input, node.output])
    if not field:
        return ""
    at, name = rng.randrange(len(field)), pick_name(rng, model)
    field[at] = name
    return f"{node.op_type} operand {at} becomes {name[:30]!r}"


def swap_inputs(rng: random.Random, model: ModelProto) -> str:
    node = pick_node(rng, model)
    if node is None or len(node.input) < 2:
        return ""
    names = list(node.input)
    rng.shuffle(names)
    node.input[:] = names
    return f"shuffle inputs of {node.op_type}"


def count_operands(rng: random.Random, model: ModelProto) -> str:
    """More or fewer inputs or outputs."""
    node = pick_node(rng, model)
    if node is None:
        return ""
    which = rng.choice(["input", "output"])
    field = getattr(node, which)
    many = rng.choice([1, 1, 2, 8, 300])
    if rng.random() < 0.5:
        field[:] = list(field)[: rng.randrange(len(field) + 1)]
    elif which == "input":
        field.extend(pick_name(rng, model) for _ in range(many))
    else:
        field.extend(f"extra{i}" for i in range(many))
    return f"{node.op_type} now has {len(field)} {which}s"


def change_op(rng: random.Random, model: ModelProto) -> str:
    node = pick_node(rng, model)
    if node is None:
        return ""
    before = node.op_type
    if rng.random() < 0.85:
        node.domain, node.op_type = rng.choice(op_names())
    else:
        node.op_type = rng.choice(["", "Bogus", "relu", "a\nb", "O" * 4000])
    return f"{before} becomes {node.domain}:{node.op_type[:30]!r}"


def change_domain(rng: random.Random, model: ModelProto) -> str:
    node = pick_node(rng, model)
    if node is None:
        return ""
    node.domain = rng.choice(
        ["", "ai.onnx", "com.microsoft", "ai.onnx.ml", "ai.onnx.training", "foo.bar", "a\nb"]
    )
    return f"domain of {node.op_type} becomes {node.domain!r}"


def insert_node(rng: random.Random, model: ModelProto) -> str:
    """Any op on any values of the graph, with any of its attributes."""
    graph = pick_graph(rng, model)
    known = value_names(graph)
    if not known:
        return ""
    node = graph.node.add()
    node.domain, node.op_type = rng.choice(op_names())
    node.input.extend(rng.choice(known) for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6])))
    node.output.extend(f"made{i}_{len(graph.node)}" for i in range(rng.choice([1, 1, 1, 2, 3])))
    for name in attribute_names(node.op_type):
        if rng.random() < 0.5:
            _any_attribute(rng, node.attribute.add(), name)
    graph.output.add().name = node.output[0]
    return f"insert {node.domain}:{node.op_type}"


def name_things(rng: random.Random, model: ModelProto) -> str:
    name = rng.choice(NAMES)
    graph = pick_graph(rng, model)
    target: Any = rng.choice(
        [graph, *list(graph.node)[:50], *graph.input, *graph.output, *graph.initializer]
    )
    target.name = name
    return f"a {type(target).__name__} is named {name[:30]!r}"


# --- attributes -------------------------------------------------------------------------


def _any_attribute(rng: random.Random, a: AttributeProto, name: str) -> None:
    """Attribute ``a`` called ``name`` with a random type and content."""
    a.name = name
    kind = rng.choice(["i", "i", "ints", "ints", "f", "s", "floats", "strings", "t"])
    ints, floats = AttributeProto.INTS, AttributeProto.FLOATS
    if kind == "i":
        a.type, a.i = AttributeProto.INT, pick_int(rng)
    elif kind == "f":
        a.type, a.f = AttributeProto.FLOAT, rng.choice(FLOATS)
    elif kind == "s":
        a.type, a.s = AttributeProto.STRING, rng.choice(STRINGS).encode()
    elif kind == "ints":
        a.type = ints
        a.ints.extend(pick_int(rng) for _ in range(rng.choice([0, 1, 2, 2, 4, 4, 9])))
    elif kind == "floats":
        a.type = floats
        a.floats.extend(rng.choice(FLOATS) for _ in range(rng.choice([0, 1, 4])))
    elif kind == "strings":
        a.type = AttributeProto.STRINGS
        a.strings.extend(rng.choice(STRINGS).encode() for _ in range(rng.choice([0, 1, 2])))
    else:
        a.type = AttributeProto.TENSOR
        a.t.CopyFrom(
            helper.make_tensor("t", TensorProto.INT64, [2], [pick_int(rng), pick_int(rng)])
        )


def change_attribute(rng: random.Random, model: ModelProto) -> str:
    """An existing attribute: gone, of another type, or of the same type with another content."""
    node = pick_node(rng, model)
    if node is None or not node.attribute:
        return ""
    at = rng.randrange(len(node.attribute))
    a = node.attribute[at]
    what = f"{node.op_type}.{a.name}"
    roll = rng.random()
    if roll < 0.15:
        del node.attribute[at]
        return f"delete {what}"
    if roll < 0.3:
        fresh = AttributeProto()
        _any_attribute(rng, fresh, a.name)
        a.CopyFrom(fresh)
    elif roll < 0.35:
        a.type = rng.choice([*range(16), 99])
    elif a.type == AttributeProto.INTS:
        _ints(rng, a.ints)
    elif a.type == AttributeProto.INT:
        a.i = pick_int(rng)
    elif a.type == AttributeProto.FLOAT:
        a.f = rng.choice(FLOATS)
    elif a.type == AttributeProto.STRING:
        a.s = rng.choice([*[s.encode() for s in STRINGS], b"\xff\xfe"])
    elif a.type == AttributeProto.TENSOR:
        return f"{what}: {_tensor(rng, a.t)}"
    return f"{what} becomes {str(a)[:60]!r}"


def _ints(rng: random.Random, field: Any) -> None:
    values = list(field)
    match rng.randrange(4):
        case 0:
            values = []
        case 1:
            values.append(pick_int(rng))
        case 2 if values:
            values[rng.randrange(len(values))] = pick_int(rng)
        case _:
            values = [pick_int(rng) for _ in values]
    del field[:]
    field.extend(values)


def add_attribute(rng: random.Random, model: ModelProto) -> str:
    node = pick_node(rng, model)
    if node is None:
        return ""
    name = rng.choice([*attribute_names(node.op_type), "bogus", "", "a\nb"])
    _any_attribute(rng, node.attribute.add(), name)
    return f"add {node.op_type}.{name!r} {str(node.attribute[-1])[:60]!r}"


# --- tensors ----------------------------------------------------------------------------


def _tensor(rng: random.Random, t: TensorProto) -> str:
    """Damage a tensor: its shape, its type or its content."""
    match rng.randrange(7):
        case 0:
            _ints(rng, t.dims)
        case 1:
            del t.dims[:]
            t.dims.extend(
                rng.choice(
                    [
                        [],
                        [0],
                        [2**40],
                        [-1],
                        [2**31, 2**31],
                        [1] * 70,
                        [0, 2**62, 2**62],
                        [2**63 - 1],
                    ]
                )
            )
        case 2:
            t.data_type = rng.choice(TYPES)
        case 3:
            t.raw_data = rng.choice(
                [
                    b"",
                    t.raw_data[: len(t.raw_data) // 2],
                    t.raw_data + b"\x01",
                    bytes(rng.randrange(256) for _ in range(16)),
                ]
            )
        case 4:
            rng.choice([t.float_data, t.int64_data, t.int32_data]).extend(
                [1] * rng.choice([1, 3, 50])
            )
        case 5:
            t.string_data.extend([b"\xff", b"s"])
        case _:
            return _content(rng, t)
    return f"tensor {t.name[:30]!r} now {t.data_type} {list(t.dims)[:6]}"


def _content(rng: random.Random, t: TensorProto) -> str:
    """Other numbers in a small tensor of the same type: what shape arithmetic is made of."""
    try:
        array = onnx.numpy_helper.to_array(t).copy()
    except (ValueError, TypeError, OverflowError, RuntimeError, AttributeError):
        return ""
    if not 0 < array.size <= 64 or array.dtype.kind not in "if":
        return ""
    for _ in range(rng.choice([1, 1, array.size])):
        value = pick_int(rng) if array.dtype.kind == "i" else rng.choice(FLOATS)
        if array.dtype.kind == "i":
            bits = array.dtype.itemsize * 8 - 1
            value = max(-(1 << bits), min(int(value), (1 << bits) - 1))
        array.reshape(-1)[rng.randrange(array.size)] = value
    name = t.name
    t.CopyFrom(onnx.numpy_helper.from_array(array, name))
    return f"content of {name[:30]!r} becomes {array.reshape(-1)[:8].tolist()}"


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs(model):
        yield from graph.initializer
        for node in graph.node:
            yield from (a.t for a in node.attribute if a.type == AttributeProto.TENSOR)


def change_tensor(rng: random.Random, model: ModelProto) -> str:
    found = list(_tensors(model))
    return _tensor(rng, rng.choice(found)) if found else ""


def change_numbers(rng: random.Random, model: ModelProto) -> str:
    found = [t for t in _tensors(model) if t.data_type == TensorProto.INT64]
    return _content(rng, rng.choice(found)) if found else ""


def list_of_initialisers(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    if not graph.initializer:
        return ""
    at = rng.randrange(len(graph.initializer))
    if rng.random() < 0.5:
        del graph.initializer[at]
        return f"delete initialiser {at}"
    graph.initializer.append(graph.initializer[at])
    return f"initialiser {at} twice"


def external_data(rng: random.Random, model: ModelProto) -> str:
    found = list(_tensors(model))
    if not found:
        return ""
    t = rng.choice(found)
    t.data_location = TensorProto.EXTERNAL
    for key, values in (
        (
            "location",
            (
                "missing.bin",
                "weights.bin",
                "/etc/hostname",
                "../../weights.bin",
                "",
                ".",
                "a\nb",
                "\x00",
            ),
        ),
        ("offset", ("0", "-1", "9999999999", "x", "")),
        ("length", ("8", "0", "-1", "99999999999999", "x")),
    ):
        if rng.random() < 0.8:
            t.external_data.add(key=key, value=rng.choice(values))
    return f"external data {[(e.key, e.value) for e in t.external_data]}"


def sparse(rng: random.Random, model: ModelProto) -> str:
    s = model.graph.sparse_initializer.add()
    s.values.CopyFrom(
        helper.make_tensor(pick_name(rng, model), TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    )
    shape = rng.choice([[3], [3, 2], [3, 1], []])
    count = 1
    for d in shape:
        count *= d
    s.indices.CopyFrom(
        helper.make_tensor("where", TensorProto.INT64, shape, [pick_int(rng) for _ in range(count)])
    )
    s.dims.extend(pick_int(rng) for _ in range(rng.choice([0, 1, 2, 3])))
    return f"sparse initialiser {list(s.dims)}"


STRUCTURAL: tuple[Mutation, ...] = (
    delete_node, duplicate_node, reorder_nodes, rename_operand, swap_inputs, count_operands,
    change_op, change_op, change_domain, insert_node, insert_node, name_things, change_attribute,
    change_attribute, change_attribute, add_attribute, add_attribute, change_tensor, change_tensor,
    change_numbers, change_numbers, list_of_initialisers, external_data, sparse, known_inputs,
    known_inputs, input_shape, input_shape, element_type, list_of_values, opset, model_fields,
    cycle, nested_if, nested_loop, functions, subgraph_attribute,
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """One damage to the bytes of a file."""
    damaged = bytearray(data)
    at = rng.randrange(len(data))
    size = rng.choice([1, 2, 4, 16, 100, 1000])
    what = rng.choice(["truncate", "flip", "insert", "delete", "duplicate", "zero"])
    match what:
        case "truncate":
            del damaged[at:]
        case "flip":
            for _ in range(rng.choice([1, 1, 4, 32])):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        case "insert":
            damaged[at:at] = rng.randbytes(size)
        case "delete":
            del damaged[at : at + size]
        case "duplicate":
            damaged[at:at] = damaged[at : at + size]
        case _:
            damaged[at : at + size] = bytes(len(damaged[at : at + size]))
    return bytes(damaged), f"{what} {size} bytes at {at}"


def mutate(rng: random.Random, data: bytes) -> tuple[bytes, list[str]]:
    """One to four mutations of a serialised model, and what they were."""
    recipe: list[str] = []
    if rng.random() < 0.2:
        for _ in range(rng.choice([1, 1, 2, 4])):
            data, what = mutate_bytes(rng, data) if data else (data, "nothing left")
            recipe.append(what)
        return data, recipe
    model = ModelProto.FromString(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        mutation = rng.choice(STRUCTURAL)
        try:
            what = mutation(rng, model)
        except Exception:  # damage that the format or its own library refuses
            what = ""
        recipe.append(what or f"{mutation.__name__}: nothing to change")
    return model.SerializeToString(), recipe
