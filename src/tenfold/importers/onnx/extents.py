"""Declared extents: numbers, names, and expressions over the names of others."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, parse, simplify, symbol, symbols_of

_NAME = re.compile(r"[^\W\d]\w*")
_MARKS = re.compile(r"[-+*/%(]")


def plain_names(inputs: Iterable[onnx.ValueInfoProto]) -> frozenset[str]:
    """The extents of a graph's inputs that are called by a name alone."""
    dims = (d for info in inputs for d in info.type.tensor_type.shape.dim)
    return frozenset(d.dim_param for d in dims if _NAME.fullmatch(d.dim_param))


def extent(given: str, known: frozenset[str], value: str, axis: int) -> Dim:
    """An extent as it is written: a symbol; or what an expression comes to, such as ``2*batch``,
    ``seq // 2`` or ``past + seq``. A name with a minus in it (``batch-size``) is a name, unless a
    part of it is the name of another extent.
    """
    if _MARKS.search(given):
        expression = _expression(given)
        if expression is not None and (
            "-" not in given or any(s in known for s in symbols_of(expression))
        ):
            return expression
    return symbol(symbol_name(given, value, axis))


def _expression(given: str) -> Dim | None:
    """None where it is no expression over names."""
    text = re.sub(r"//", "/", given)
    floors = "//" in given
    try:
        found = parse(_floored(given) if floors else text)
    except ModelError:
        return None
    return None if isinstance(found, int) else simplify(found)


def _floored(given: str) -> str:
    """``a // b`` as ``floor(a / b)``, for operands that are names, numbers or in brackets."""
    operand = r"(\w+|\([^()]*\))"
    before = None
    while before != given:
        before = given
        given = re.sub(rf"{operand}\s*//\s*{operand}", r"floor(\1/\2)", given, count=1)
    return given


def symbol_name(given: str, value: str, axis: int) -> str:
    """A usable symbol name: the one in the file if it says anything, else the input's name and
    axis.
    """
    clean = "".join(c if c.isalnum() or c == "_" else "_" for c in given).strip("_")
    if not clean or clean[0].isdigit() or clean.startswith("unk__"):
        base = "".join(c if c.isalnum() else "_" for c in value).strip("_") or "input"
        return f"{base}_{axis}" if not base[0].isdigit() else f"d_{base}_{axis}"
    return clean
