"""What the standard says a node looks like: its attributes' types and how many inputs it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import onnx
import onnx.defs

from tenfold.errors import ModelError
from tenfold.importers.onnx.node import Node
from tenfold.importers.onnx.types import ONNX_NAMES

NO_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Signature:
    """Attribute types by name, those that must be there, least and most inputs, and the types that
    each input may have; the last input's are those of all that follow.
    """

    attributes: Mapping[str, int]
    required: frozenset[str]
    least: int
    most: int
    inputs: tuple[frozenset[str], ...]


@lru_cache(maxsize=4096)
def _signature(op_type: str, opset: int, domain: str) -> _Signature | None:
    """None for an op without a schema at that opset."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a version beyond int32
        return None
    return _Signature(
        attributes={name: int(a.type.value) for name, a in schema.attributes.items()},
        required=frozenset(n for n, a in schema.attributes.items() if a.required),
        least=schema.min_input,
        most=schema.max_input,
        inputs=tuple(frozenset(i.types) for i in schema.inputs),
    )


def check_signature(node: Node) -> None:
    """Raises ModelError where a node has too few or too many inputs, one of a type that the op does
    not take, lacks an attribute, or has one of the wrong type.

    Attributes that the schema does not have are left alone: exporters add their own.
    """
    signature = _signature(node.op_type, node.opset, node.domain)
    if signature is None:
        return
    least, most = signature.least, signature.most
    count = len(node.inputs)
    if not least <= count <= most:
        allowed = (
            f"{least} or more"
            if most == NO_LIMIT
            else str(least)
            if least == most
            else f"{least} to {most}"
        )
        raise ModelError(
            f"node '{node.loc}' ({node.op_type} of opset {node.opset}) has {count} inputs, takes"
            f" {allowed}"
        )
    missing = sorted(signature.required - node.attrs.keys())
    if missing:
        raise ModelError(
            f"node '{node.loc}' ({node.op_type} of opset {node.opset}) lacks the attribute"
            f" '{missing[0]}'"
        )
    for a in node.proto.attribute:
        wanted = signature.attributes.get(a.name, a.type)
        if a.type != wanted:
            found, allowed = (onnx.AttributeProto.AttributeType.Name(t) for t in (a.type, wanted))
            raise ModelError(
                f"node '{node.loc}' ({node.op_type}): attribute '{a.name}' is {found}, must be"
                f" {allowed}"
            )
    _check_types(node, signature.inputs)


def _check_types(node: Node, allowed: tuple[frozenset[str], ...]) -> None:
    """As ONNX Runtime does when it loads a file."""
    for i, name in enumerate(node.inputs):
        if not name or not allowed:
            continue
        types = allowed[min(i, len(allowed) - 1)]
        found = ONNX_NAMES[node.value(i).dtype]
        if f"tensor({found})" not in types:
            names = sorted(t[7:-1] for t in types if t.startswith("tensor("))
            raise ModelError(
                f"node '{node.loc}' ({node.op_type} of opset {node.opset}): input {i} holds"
                f" {found}, and it takes {', '.join(names) or 'no tensor'}"
            )
