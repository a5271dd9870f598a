"""Text form of graphs: one op a line, stable, and it parses back.

    graph "mlp" {
      input %x: fp32[batch,784]
      const %w: fp32[784,10] = elided
      %y: fp32[batch,10] = matmul(%x, %w) {transpose_b=0} "fc1"
      output %y
    }

Large constants are elided by default: the parsed graph then has weights without data. With
``weights=True`` they are written in full and the round trip is exact.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir import dims
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Attr, Graph, Op, Value

_INLINE = 16  # elements of a constant that are written as numbers
_PLAIN = r"[\w./:\-]*[\w./\-]"  # a name that needs no quotes


def to_text(graph: Graph, *, weights: bool = False) -> str:
    """The text form of ``graph``."""
    return "\n".join(_lines(graph, weights, "")) + "\n"


def _lines(graph: Graph, weights: bool, pad: str) -> Iterator[str]:
    yield f"{pad}graph {_quote(graph.name)} {{"
    inner = pad + "  "
    for name in graph.inputs:
        yield f"{inner}input {_typed(graph.values[name])}"
    for name in sorted(graph.constants):
        yield (
            f"{inner}const {_typed(graph.values[name])} ="
            f" {_constant(graph.constants[name], weights)}"
        )
    for op in graph.ops:
        yield from _op_lines(graph, op, weights, inner)
    for name, bound in sorted(graph.bounds.items()):
        yield f"{inner}bound {name} {dims.text(bound)}"
    for name, most in sorted(graph.limits.items()):
        yield f"{inner}limit {name} {most}"
    for name, numbers in sorted(graph.stored.items()):
        yield f"{inner}stored {_name(name)} {numbers}"
    yield f"{inner}output {', '.join(_name(n) for n in graph.outputs)}".rstrip()
    yield pad + "}"


def _op_lines(graph: Graph, op: Op, weights: bool, pad: str) -> Iterator[str]:
    outs = ", ".join(_typed(graph.values[o]) if o else "_" for o in op.outputs)
    args = ", ".join(_name(i) if i else "_" for i in op.inputs)
    attrs = (
        " {" + ", ".join(f"{k}={_literal(op.attrs[k])}" for k in sorted(op.attrs)) + "}"
        if op.attrs
        else ""
    )
    loc = f" {_quote(op.loc)}" if op.loc else ""
    yield f"{pad}{outs} = {op.kind}({args}){attrs}{loc}{' with' if op.bodies else ''}"
    for body in op.bodies:
        yield from _lines(body, weights, pad + "  ")


def _quote(text: str) -> str:
    """In single quotes, with escapes for what would end the string or the line, or cannot be
    seen.
    """
    shown = (
        (
            c
            if c.isprintable() and c not in "\\'"
            else "\\" + c
            if c in "\\'"
            else c.encode("unicode_escape").decode()
        )
        for c in text
    )
    return "'" + "".join(shown) + "'"


def _name(name: str) -> str:
    return "%" + name if re.fullmatch(_PLAIN, name) else "%" + _quote(name)


def _typed(value: Value) -> str:
    shape = "?" if value.shape is None else ",".join(dims.text(d) for d in value.shape)
    return f"{_name(value.name)}: {value.dtype}[{shape}]"


def _literal(value: Attr) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ("," if len(value) == 1 else "") + ")"
    return repr(value)


def _constant(data: Array | None, weights: bool) -> str:
    if data is None:
        return "elided"
    if data.dtype == object:
        return f"strings [{', '.join(_quote(str(v)) for v in data.reshape(-1))}]"
    if data.size <= _INLINE and data.dtype.kind in "iub":
        return f"{[int(v) for v in data.reshape(-1)]!r}"
    if not weights and data.size > _INLINE:
        return "elided"
    return (
        "bytes " + base64.b64encode(zlib.compress(np.ascontiguousarray(data).tobytes(), 1)).decode()
    )


# --- parsing ----------------------------------------------------------------------------

_STRING = r"'(?:[^'\\]|\\.)*'"
_NAME = rf"%(?:{_STRING}|{_PLAIN})"
_NUMBER = r"-?(?:inf|nan|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]+)?)(?!\w)"
_ESCAPES = {"\\": "\\", "'": "'", "n": "\n", "r": "\r", "t": "\t"}
_DEEPEST = 64  # graphs in graphs


class _Row:
    """A line and how far it has been read."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text, self.at = number, text, 0

    def take(self, pattern: str) -> str | None:
        """What ``pattern`` matches here, behind blanks; None, and nothing is read, where it does
        not match.
        """
        match = re.compile(rf" *({pattern})").match(self.text, self.at)
        if match is None:
            return None
        self.at = match.end()
        return str(match[1])

    def need(self, pattern: str, what: str) -> str:
        found = self.take(pattern)
        if found is None:
            raise self.fail(f"{what}, found '{self.text[self.at :].strip()[:60]}'")
        return found

    def end(self, what: str) -> None:
        if self.text[self.at :].strip():
            raise self.fail(f"{what}, found '{self.text[self.at :].strip()[:60]}'")

    def fail(self, what: str) -> ModelError:
        return ModelError(f"text form, line {self.number}: {what}")


class _Lines:
    """The lines that are not blank, in order. Only a newline ends one: names may hold other
    separators.
    """

    def __init__(self, text: str) -> None:
        rows = (_Row(i, r.strip()) for i, r in enumerate(text.split("\n"), 1))
        self.rows = [r for r in rows if r.text]
        self.at = 0

    def peek(self) -> str:
        return self.rows[self.at].text if self.at < len(self.rows) else ""

    def next(self) -> _Row:
        if self.at >= len(self.rows):
            raise ModelError("text form ends inside a graph")
        self.at += 1
        return self.rows[self.at - 1]


def parse_text(text: str) -> Graph:
    """The graph that ``text`` describes. Raises ModelError with the line of the first fault."""
    lines = _Lines(text)
    graph = _parse_graph(lines, 0)
    if lines.peek():
        raise lines.next().fail("something follows the graph")
    return graph


def _parse_graph(lines: _Lines, depth: int) -> Graph:
    head = lines.next()
    if depth > _DEEPEST:
        raise head.fail(f"graphs nested more than {_DEEPEST} deep")
    head.need("graph", "expected: graph 'name' {")
    name = _unquote(head, head.need(_STRING, "expected: graph 'name' {"))
    head.need(r"\{", "expected: graph 'name' {")
    head.end("expected the end of the line")
    values: dict[str, Value] = {}
    constants: dict[str, Array | None] = {}
    inputs: list[str] = []
    bounds: dict[str, dims.Dim] = {}
    limits: dict[str, int] = {}
    stored: dict[str, int] = {}
    ops: list[Op] = []
    outputs: tuple[str, ...] = ()
    while (row := lines.next()).text != "}":
        word = row.take(r"(?:input|const|bound|limit|stored|output)(?![^ ])")
        if word == "input":
            inputs.append(_declare(row, values))
        elif word == "const":
            declared = _declare(row, values)
            row.need("=", "expected = and a constant")
            constants[declared] = _parse_constant(row, values[declared])
        elif word == "bound":
            symbol = row.need(r"\w+", "expected the name of a dimension")
            bounds[symbol] = _dim(row, row.need(".*", "expected a dimension"))
        elif word == "limit":
            symbol = row.need(r"\w+", "expected the name of a dimension")
            limits[symbol] = int(row.need(r"[1-9]\d{0,17}", "expected the largest size"))
        elif word == "stored":
            constant = _bare(row, row.need(_NAME, "expected the %name of a constant"))
            stored[constant] = int(row.need(r"\d{1,18}", "expected how many numbers it is made of"))
        elif word == "output":
            outputs = _names(row, "")
        else:
            ops.append(_parse_op(lines, row, values, depth))
        row.end("expected the end of the line")
    return Graph(
        name=name,
        inputs=tuple(inputs),
        outputs=outputs,
        ops=tuple(ops),
        values=values,
        constants=constants,
        bounds=bounds,
        limits=limits,
        stored=stored,
    )


def _declare(
    row: _Row, values: dict[str, Value], what: str = "expected %name: dtype[shape]"
) -> str:
    name = _bare(row, row.need(_NAME, what))
    row.need(":", what)
    dtype = row.need(r"\w+", what)
    row.need(r"\[", what)
    shape = row.need(r"[^\]]*", what)
    row.need(r"\]", what)
    known = None if shape == "?" else tuple(_dim(row, d) for d in _split(shape))
    try:
        values[name] = Value(name, DType(dtype), known)
    except ValueError as error:
        raise row.fail(f"unknown dtype '{dtype}'") from error
    return name


def _dim(row: _Row, text: str) -> dims.Dim:
    try:
        return dims.parse(text)
    except ModelError as error:
        raise row.fail(str(error)) from error


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]] if text else []


def _bare(row: _Row, name: str) -> str:
    return _unquote(row, name[1:]) if name.startswith("%'") else name[1:]


def _unquote(row: _Row, text: str) -> str:
    def plain(escape: re.Match[str]) -> str:
        code = escape[1] or escape[2] or escape[3]
        if code is None and escape[4] in _ESCAPES:
            return _ESCAPES[escape[4]]
        if code is None or int(code, 16) > 0x10FFFF:
            raise row.fail(
                f"'{escape[0]}' is no escape: allowed are \\\\ \\' \\n \\r \\t \\x \\u \\U"
            )
        return chr(int(code, 16))

    digit = "[0-9a-fA-F]"
    return re.sub(rf"\\(?:x({digit}{{2}})|u({digit}{{4}})|U({digit}{{8}})|(.))", plain, text[1:-1])


def _names(row: _Row, absent: str) -> tuple[str, ...]:
    """Names between commas; ``absent`` is the pattern of one that is left out."""
    found: list[str] = []
    pattern = f"{_NAME}|{absent}" if absent else _NAME
    name = row.take(pattern)
    while name is not None:
        found.append(_bare(row, name) if name.startswith("%") else "")
        name = row.need(pattern, "expected a name") if row.take(",") else None
    return tuple(found)


def _parse_constant(row: _Row, value: Value) -> Array | None:
    if row.take(r"elided(?!\w)"):
        return None
    form = row.take("strings(?= )|bytes(?= )") or "numbers"
    if value.shape is None or not dims.all_static(value.shape):
        raise row.fail(
            f"constant '{value.name}' with data needs a shape of numbers, has"
            f" {[str(d) for d in value.shape or '?']}"
        )
    try:
        if form == "bytes":
            return _packed(row.need(r"[A-Za-z0-9+/=]*", "expected base64"), value)
        if row.take(r"(?=\[)") is None:
            raise row.fail(f"unknown constant form '{row.text[row.at :].strip()[:20]}'")
        data = _sequence(row, "[", "]")
        if (form == "strings") is not (value.dtype is DType.STRING) or not all(
            isinstance(v, str if form == "strings" else int) for v in data
        ):
            raise row.fail(f"the data of constant '{value.name}' is not {value.dtype}")
        return np.asarray(data, dtype=value.dtype.numpy).reshape(value.shape)
    except (ValueError, OverflowError, TypeError, zlib.error) as error:
        raise row.fail(
            f"the data of constant '{value.name}' does not fit {value.dtype}{list(value.shape)}:"
            f" {error}"
        ) from error


def _packed(text: str, value: Value) -> Array:
    """Raises ValueError where the data is not as long as the shape says; no more than that is ever
    unpacked.
    """
    dtype, shape = value.dtype.numpy, tuple(int(d) for d in value.dims)
    size = dims.elements(shape) * dtype.itemsize
    raw = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(raw) != size:
        raise ValueError(f"{size} bytes are needed")
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


def _sequence(row: _Row, opening: str, closing: str) -> list[Any]:
    """Strings and numbers between brackets and commas."""
    row.need(re.escape(opening), f"expected {opening}")
    found: list[Any] = []
    while not row.take(re.escape(closing)):
        found.append(_scalar(row))
        if not row.take(","):
            row.need(re.escape(closing), f"expected , or {closing}")
            break
    return found


def _scalar(row: _Row) -> int | float | str | bool:
    word = row.need(f"{_STRING}|True|False|{_NUMBER}", "expected a number or a 'string'")
    if word.startswith("'"):
        return _unquote(row, word)
    if word in ("True", "False"):
        return word == "True"
    try:
        return int(word) if re.fullmatch(r"-?[0-9]+", word) else float(word)
    except ValueError as error:  # more digits than Python converts
        raise row.fail(f"'{word[:40]}' is no number") from error


def _parse_op(lines: _Lines, row: _Row, values: dict[str, Value], depth: int) -> Op:
    if " = " not in row.text:
        raise row.fail(f"not an op: '{row.text[:80]}'")
    what = f"not an op: '{row.text[:80]}': expected "
    outs: list[str] = []
    while not outs or row.take(","):
        outs.append("" if row.take(r"_(?!\w)") else _declare(row, values, "expected an output"))
    row.need("=", what + "=")
    kind = row.need(r"\w+", what + "a kind of op")
    row.need(r"\(", what + "(")
    ins = _names(row, r"_(?!\w)")
    row.need(r"\)", what + ")")
    attrs: dict[str, Attr] = _parse_attrs(row) if row.take(r"\{") else {}
    loc = row.take(_STRING)
    op = Op(kind, ins, tuple(outs), attrs, (), _unquote(row, loc) if loc else "")
    if not row.take(r"with(?!\w)"):
        row.end(what + "the end of the line")
        return op
    bodies: list[Graph] = []
    while lines.peek().startswith("graph "):
        bodies.append(_parse_graph(lines, depth + 1))
    return Op(op.kind, op.inputs, op.outputs, op.attrs, tuple(bodies), op.loc)


def _parse_attrs(row: _Row) -> dict[str, Attr]:
    found: dict[str, Attr] = {}
    while not row.take(r"\}"):
        name = row.need(r"\w+", "expected the name of an attribute")
        row.need("=", "expected =")
        found[name] = (
            tuple(_sequence(row, "(", ")")) if row.take(r"(?=\()") is not None else _scalar(row)
        )
        if not row.take(","):
            row.need(r"\}", "expected , or }")
            break
    return found
