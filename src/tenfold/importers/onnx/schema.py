"""What the standard says a node looks like: its attributes' types and how many inputs it takes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import onnx
import onnx.defs

from tenfold.errors import ModelError
from tenfold.importers.onnx.node import Node

NO_LIMIT = 2**31 - 1


@lru_cache(maxsize=4096)
def _signature(
    op_type: str, opset: int, domain: str
) -> tuple[dict[str, int], frozenset[str], int, int] | None:
    """Attribute types by name, those that must be there, least and most inputs; None for an op
    without a schema at that opset.
    """
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # TypeError: a version beyond int32
        return None
    types = {name: int(a.type.value) for name, a in schema.attributes.items()}
    return (
        types,
        frozenset(n for n, a in schema.attributes.items() if a.required),
        schema.min_input,
        schema.max_input,
    )


def check_signature(node: Node) -> None:
    """Raises ModelError where a node has too few or too many inputs, lacks an attribute, or has one
    of the wrong type.

    Attributes that the schema does not have are left alone: exporters add their own.
    """
    signature = _signature(node.op_type, node.opset, node.domain)
    if signature is None:
        return
    types, required, least, most = signature
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
    missing = sorted(required - node.attrs.keys())
    if missing:
        raise ModelError(
            f"node '{node.loc}' ({node.op_type} of opset {node.opset}) lacks the attribute"
            f" '{missing[0]}'"
        )
    for a in node.proto.attribute:
        wanted = types.get(a.name, a.type)
        if a.type != wanted:
            found, allowed = (onnx.AttributeProto.AttributeType.Name(t) for t in (a.type, wanted))
            raise ModelError(
                f"node '{node.loc}' ({node.op_type}): attribute '{a.name}' is {found}, must be"
                f" {allowed}"
            )
