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

import ast
import base64
import re
import zlib
from collections.abc import Iterator

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir import dims
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Attr, Graph, Op, Value

_INLINE = 16  # elements of a constant that are written as numbers


def to_text(graph: Graph, *, weights: bool = False) -> str:
    """The text form of ``graph``."""
    return "\n".join(_lines(graph, weights, "")) + "\n"


def _lines(graph: Graph, weights: bool, pad: str) -> Iterator[str]:
    yield f"{pad}graph {_quote(graph.name)} {{"
    inner = pad + "  "
    for name in graph.inputs:
        yield f"{inner}input {_typed(graph.values[name])}"
    for name in sorted(graph.constants):
        yield f"{inner}const {_typed(graph.values[name])} = {_constant(graph.constants[name], weights)}"
    for op in graph.ops:
        yield from _op_lines(graph, op, weights, inner)
    for name, bound in sorted(graph.bounds.items()):
        yield f"{inner}bound {name} {dims.text(bound)}"
    yield f"{inner}output {', '.join(_name(n) for n in graph.outputs)}"
    yield pad + "}"


def _op_lines(graph: Graph, op: Op, weights: bool, pad: str) -> Iterator[str]:
    outs = ", ".join(_typed(graph.values[o]) if o else "_" for o in op.outputs)
    args = ", ".join(_name(i) if i else "_" for i in op.inputs)
    attrs = " {" + ", ".join(f"{k}={op.attrs[k]!r}" for k in sorted(op.attrs)) + "}" if op.attrs else ""
    loc = f" {_quote(op.loc)}" if op.loc else ""
    yield f"{pad}{outs} = {op.kind}({args}){attrs}{loc}{' with' if op.bodies else ''}"
    for body in op.bodies:
        yield from _lines(body, weights, pad + "  ")


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r") + "'"


def _name(name: str) -> str:
    return "%" + name if re.fullmatch(r"[\w./:\-]+", name) else "%" + _quote(name)


def _typed(value: Value) -> str:
    shape = "?" if value.shape is None else ",".join(dims.text(d) for d in value.shape)
    return f"{_name(value.name)}: {value.dtype}[{shape}]"


def _constant(data: Array | None, weights: bool) -> str:
    if data is None:
        return "elided"
    if data.dtype == object:
        return f"strings {[str(v) for v in data.reshape(-1)]!r}"
    if data.size <= _INLINE and data.dtype.kind in "iub":
        return f"{[int(v) for v in data.reshape(-1)]!r}"
    if not weights and data.size > _INLINE:
        return "elided"
    return "bytes " + base64.b64encode(zlib.compress(np.ascontiguousarray(data).tobytes(), 1)).decode()


# --- parsing -------------------------------------------------------------------------------------------

_STRING = r"'(?:[^'\\]|\\.)*'"
_NAME = rf"%(?:[\w./:\-]+|{_STRING})"
_TYPED = re.compile(rf"\s*({_NAME}): (\w+)\[([^\]]*)\]")


class _Lines:
    def __init__(self, text: str) -> None:
        self.rows = [(i, r.strip()) for i, r in enumerate(text.splitlines(), 1) if r.strip()]
        self.at = 0

    def peek(self) -> str:
        return self.rows[self.at][1] if self.at < len(self.rows) else ""

    def next(self) -> str:
        if self.at >= len(self.rows):
            raise ModelError("text form ends inside a graph")
        self.at += 1
        return self.rows[self.at - 1][1]

    def fail(self, what: str) -> ModelError:
        return ModelError(f"text form, line {self.rows[max(0, self.at - 1)][0]}: {what}")


def parse_text(text: str) -> Graph:
    """The graph that ``text`` describes. Raises ModelError with the line of the first fault."""
    lines = _Lines(text)
    graph = _parse_graph(lines)
    if lines.peek():
        lines.next()
        raise lines.fail("something follows the graph")
    return graph


def _parse_graph(lines: _Lines) -> Graph:
    head = re.fullmatch(rf"graph ({_STRING}) \{{", lines.next())
    if not head:
        raise lines.fail("expected: graph 'name' {")
    values: dict[str, Value] = {}
    constants: dict[str, Array | None] = {}
    inputs: list[str] = []
    bounds: dict[str, dims.Dim] = {}
    ops: list[Op] = []
    outputs: tuple[str, ...] = ()
    while (row := lines.next()) != "}":
        word, _, rest = row.partition(" ")
        if word == "input":
            inputs.append(_declare(lines, rest, values))
        elif word == "const":
            left, _, right = rest.partition(" = ")
            name = _declare(lines, left, values)
            constants[name] = _parse_constant(lines, right, values[name])
        elif word == "bound":
            name, _, bound = rest.partition(" ")
            bounds[name] = dims.parse(bound)
        elif word == "output":
            outputs = tuple(_bare(n) for n in re.findall(_NAME, rest))
        else:
            ops.append(_parse_op(lines, row, values))
    return Graph(_unquote(head[1]), tuple(inputs), outputs, tuple(ops), values, constants, bounds)


def _declare(lines: _Lines, text: str, values: dict[str, Value]) -> str:
    match = _TYPED.match(text)
    if not match:
        raise lines.fail(f"expected %name: dtype[shape], found '{text[:60]}'")
    name, dtype, shape = _bare(match[1]), match[2], match[3]
    dims_ = None if shape == "?" else tuple(dims.parse(d) for d in _split(shape))
    try:
        values[name] = Value(name, DType(dtype), dims_)
    except ValueError as error:
        raise lines.fail(f"unknown dtype '{dtype}'") from error
    return name


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]] if text else []


def _bare(name: str) -> str:
    return _unquote(name[1:]) if name.startswith("%'") else name[1:]


def _unquote(text: str) -> str:
    return str(ast.literal_eval(text))


def _parse_constant(lines: _Lines, text: str, value: Value) -> Array | None:
    shape = tuple(int(d) for d in value.dims)
    if text == "elided":
        return None
    if text.startswith("strings "):
        return np.asarray(ast.literal_eval(text[8:]), dtype=object).reshape(shape)
    if text.startswith("bytes "):
        raw = zlib.decompress(base64.b64decode(text[6:]))
        return np.frombuffer(raw, dtype=value.dtype.numpy).reshape(shape)
    if text.startswith("["):
        return np.asarray(ast.literal_eval(text), dtype=value.dtype.numpy).reshape(shape)
    raise lines.fail(f"unknown constant form '{text[:20]}'")


_OP = re.compile(rf"(.*?) = (\w+)\(((?:{_STRING}|[^()'])*)\)(?: (\{{.*\}}))?(?: ({_STRING}))?( with)?$")


def _parse_op(lines: _Lines, row: str, values: dict[str, Value]) -> Op:
    match = _OP.fullmatch(row)
    if not match:
        raise lines.fail(f"not an op: '{row[:80]}'")
    outs: list[str] = []
    rest = match[1]
    while rest:
        typed = _TYPED.match(rest)
        if typed:
            outs.append(_declare(lines, rest, values))
            rest = rest[typed.end() :]
        elif rest.lstrip().startswith("_"):
            outs.append("")
            rest = rest.lstrip()[1:]
        else:
            raise lines.fail(f"expected an output, found '{rest[:40]}'")
        rest = rest.removeprefix(",")
    ins = tuple("" if n == "_" else _bare(n) for n in re.findall(rf"{_NAME}|(?<![\w.%])_(?![\w.])", match[3]))
    attrs: dict[str, Attr] = {}
    if match[4]:
        attrs = {k.arg or "": ast.literal_eval(k.value) for k in ast.parse(f"f({match[4][1:-1]})", mode="eval").body.keywords}  # type: ignore[attr-defined]
    bodies: list[Graph] = []
    while match[6] and lines.peek().startswith("graph "):
        bodies.append(_parse_graph(lines))
    return Op(match[2], ins, tuple(outs), attrs, tuple(bodies), _unquote(match[5]) if match[5] else "")
