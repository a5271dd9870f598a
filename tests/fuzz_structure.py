"""Mutations of declared types, of whole graphs, and of graphs in graphs."""

from __future__ import annotations

import math
import random

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from fuzz_vocabulary import SYMBOLS, TYPES, pick_graph, pick_int, pick_name, pick_node, value_names

# --- declared types ----------------------------------------------------------------------


def input_shape(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    if not graph.input:
        return ""
    info = rng.choice(graph.input)
    tensor = info.type.tensor_type
    roll = rng.random()
    if roll < 0.1:
        tensor.ClearField("shape")
    elif roll < 0.2:
        for _ in range(rng.choice([1, 2, 80])):
            tensor.shape.dim.add().dim_value = rng.choice([1, 2])
    elif roll < 0.3 and tensor.shape.dim:
        del tensor.shape.dim[rng.randrange(len(tensor.shape.dim)) :]
    elif tensor.shape.dim:
        for d in rng.sample(list(tensor.shape.dim), rng.randint(1, len(tensor.shape.dim))):
            if rng.random() < 0.5:
                d.dim_value = pick_int(rng)
            else:
                d.dim_param = rng.choice(SYMBOLS)
    return (
        f"shape of input {info.name[:30]!r} becomes"
        f" {[d.dim_value or d.dim_param[:20] for d in tensor.shape.dim][:8]}"
    )


def element_type(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    if not graph.input:
        return ""
    info = rng.choice(graph.input)
    match rng.randrange(6):
        case 0:
            info.ClearField("type")
        case 1:
            info.type.sequence_type.elem_type.tensor_type.elem_type = 1
        case 2:
            info.type.map_type.key_type = 7
        case _:
            info.type.tensor_type.elem_type = rng.choice(TYPES)
    return (
        f"type of input {info.name[:30]!r} becomes {info.type.WhichOneof('value')}"
        f" {info.type.tensor_type.elem_type}"
    )


def known_inputs(rng: random.Random, model: ModelProto) -> str:
    """Small inputs become constants, so that the importer folds what reads them."""
    changed = []
    for info in list(model.graph.input):
        tensor = info.type.tensor_type
        dims = [d.dim_value for d in tensor.shape.dim]
        if (
            tensor.elem_type in (TensorProto.FLOAT, TensorProto.INT64)
            and all(0 < d <= 64 for d in dims)
            and math.prod(dims) <= 4096
        ):
            content = [rng.choice([0, 1, 1, 2, 3]) for _ in range(math.prod(dims))]
            model.graph.initializer.append(
                helper.make_tensor(info.name, tensor.elem_type, dims, content)
            )
            changed.append(info.name)
    kept = [i for i in model.graph.input if i.name not in changed]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return f"inputs {changed[:4]} become constants" if changed else ""


def list_of_values(rng: random.Random, model: ModelProto) -> str:
    """Inputs or outputs deleted, doubled, renamed."""
    graph = pick_graph(rng, model)
    which = rng.choice(["input", "output"])
    field = getattr(graph, which)
    match rng.randrange(4):
        case 0 if field:
            del field[rng.randrange(len(field))]
        case 1:
            del field[:]
        case 2 if field:
            field.append(rng.choice(field))
        case _:
            field.add().name = pick_name(rng, model)
    return f"{which}s are now {[f.name[:20] for f in field][:6]}"


def opset(rng: random.Random, model: ModelProto) -> str:
    version = rng.choice([rng.randint(0, 100), rng.randint(0, 100), -1, 2**62])
    match rng.randrange(4):
        case 0:
            del model.opset_import[:]
        case 1:
            model.opset_import.add(
                domain=rng.choice(["", "ai.onnx", "com.microsoft", "foo.bar"]), version=version
            )
        case _:
            for o in model.opset_import:
                o.version = version
    return f"opsets {[(o.domain, o.version) for o in model.opset_import]}"


def model_fields(rng: random.Random, model: ModelProto) -> str:
    match rng.randrange(3):
        case 0:
            model.ir_version = rng.choice([0, 1, 2, 3, 99, -1])
            return f"ir_version {model.ir_version}"
        case 1:
            model.ClearField("graph")
            return "no graph"
        case _:
            del model.graph.node[:]
            return "no nodes"


# --- graphs in graphs -------------------------------------------------------------------


def cycle(rng: random.Random, model: ModelProto) -> str:
    graph = pick_graph(rng, model)
    nodes = [n for n in graph.node if n.input and n.output]
    if not nodes:
        return ""
    early = rng.randrange(len(nodes))
    late = rng.randrange(early, len(nodes))
    nodes[early].input[rng.randrange(len(nodes[early].input))] = nodes[late].output[0]
    return f"node {early} reads node {late}"


def nested_if(rng: random.Random, model: ModelProto) -> str:
    """An If in an If in an If …, with a condition that is constant, an input, or missing."""
    depth = rng.choice([1, 2, 3, 8, 11, 13, 25])
    known = value_names(model.graph)
    result = rng.choice(known) if known else "nowhere"
    body = helper.make_graph(
        [helper.make_node("Identity", [result], ["leaf"])], "leaf", [], [_untyped("leaf")]
    )
    for i in range(depth):
        branches = {
            "then_branch": body,
            "else_branch": body if i < 8 and rng.random() < 0.5 else _leaf(result),
        }
        node = helper.make_node("If", ["deep_condition"], [f"deep{i}"], **branches)
        body = helper.make_graph([node], f"deep{i}", [], [_untyped(f"deep{i}")])
    model.graph.node.extend(body.node)
    model.graph.output.extend(body.output)
    match rng.randrange(3):
        case 0:
            model.graph.initializer.append(
                helper.make_tensor("deep_condition", TensorProto.BOOL, [], [True])
            )
        case 1:
            model.graph.input.append(
                helper.make_tensor_value_info("deep_condition", TensorProto.BOOL, [])
            )
    return f"If nested {depth} deep over {result[:30]!r}"


def nested_loop(rng: random.Random, model: ModelProto) -> str:
    """Loops in loops whose carried value changes shape in every round."""
    depth = rng.choice([1, 2, 3, 6, 11, 14])
    known = value_names(model.graph)
    start = rng.choice(known) if known else "nowhere"
    names = ["trips", "alive", "state"]
    nodes = [
        helper.make_node(rng.choice(["Concat", "MatMul", "Identity"]), ["state", "state"], ["next"])
    ]
    if nodes[0].op_type == "Concat":
        nodes[0].attribute.append(helper.make_attribute("axis", 0))
    elif nodes[0].op_type == "Identity":
        del nodes[0].input[1:]
    for _ in range(depth):
        keep = helper.make_node("Identity", ["alive"], ["still"])
        body = helper.make_graph(
            [*nodes, keep],
            "round",
            [_untyped(n) for n in names],
            [_untyped("still"), _untyped("next")],
        )
        nodes = [helper.make_node("Loop", ["", "", "state"], ["next"], body=body)]
    nodes[0].input[2] = start
    nodes[0].output[0] = "looped"
    model.graph.node.extend(nodes)
    model.graph.output.append(_untyped("looped"))
    return f"Loop nested {depth} deep over {start[:30]!r}"


def functions(rng: random.Random, model: ModelProto) -> str:
    """Functions that call themselves or each other, or the next one many times."""
    count, calls = rng.choice([(1, 1), (2, 1), (12, 8), (15, 2), (20, 1), (3, 400)])
    last = rng.choice(["Relu", "f0", "f1", "Bogus"])
    domain = "made.up"
    for i in range(count):
        inner = f"f{i + 1}" if i + 1 < count else last
        where = domain if inner.startswith("f") else ""
        nodes = [
            helper.make_node(inner, ["x" if j == 0 else f"y{j - 1}"], [f"y{j}"], domain=where)
            for j in range(calls)
        ]
        imports = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
        model.functions.append(
            helper.make_function(domain, f"f{i}", ["x"], [f"y{calls - 1}"], nodes, imports)
        )
    known = value_names(model.graph)
    model.graph.node.append(
        helper.make_node(
            "f0", [rng.choice(known) if known else "nowhere"], ["called"], domain=domain
        )
    )
    model.graph.output.append(_untyped("called"))
    return f"{count} functions of {calls} calls, ending in {last}"


def subgraph_attribute(rng: random.Random, model: ModelProto) -> str:
    """A node gets its own graph as a body."""
    node = pick_node(rng, model)
    if node is None or model.ByteSize() > 200_000:
        return ""
    copy = GraphProto()
    copy.CopyFrom(model.graph)
    node.op_type, node.domain = rng.choice(["If", "Loop", "Scan"]), ""
    names = {"If": ("then_branch", "else_branch"), "Loop": ("body",), "Scan": ("body",)}[
        node.op_type
    ]
    del node.attribute[:]
    for name in names:
        node.attribute.append(helper.make_attribute(name, copy))
    if node.op_type == "Scan":
        node.attribute.append(helper.make_attribute("num_scan_inputs", pick_int(rng)))
    return f"{node.op_type} with the whole graph as its body"


def _untyped(name: str) -> onnx.ValueInfoProto:
    return helper.make_empty_tensor_value_info(name)


def _leaf(result: str) -> GraphProto:
    return helper.make_graph(
        [helper.make_node("Identity", [result], ["other"])], "other", [], [_untyped("other")]
    )
