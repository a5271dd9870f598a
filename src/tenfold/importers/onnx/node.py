"""The importer's view of a graph under construction, and of one ONNX node in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.binding import prune
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Attr, Graph, Op, Value
from tenfold.ir.infer import Scope, infer_op, only_moves, row_of, stored_behind
from tenfold.ir.table import Context

if TYPE_CHECKING:
    import onnx

FOLD_LIMIT = 1 << 27  # elements of a constant that importing may create
# nodes that functions and bodies may add: a few calls of calls make billions
EXPANSION_LIMIT = 20_000


@dataclass(slots=True)
class Budget:
    """What expanding functions may still add, over the whole model."""

    nodes: int = EXPANSION_LIMIT

    def spend(self, nodes: int, loc: str) -> None:
        self.nodes -= nodes
        if self.nodes < 0:
            raise ModelError(
                f"node '{loc}': the model's functions expand to more than {EXPANSION_LIMIT} nodes"
            )


@dataclass(slots=True)
class Builder:
    """A graph under construction. A body's builder looks up what it lacks in ``outer`` and records
    the capture.
    """

    name: str
    opset: Mapping[str, int]
    functions: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    outer: Builder | None = None
    scope: Scope = field(default_factory=Scope)
    env: dict[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    captures: dict[str, str] = field(default_factory=dict)
    counter: int = 0
    depth: int = 0
    budget: Budget = field(default_factory=Budget)
    folder: Path | None = None  # where tensors outside the file are
    dims: frozenset[str] = frozenset()  # names of the inputs' free extents
    declared: Mapping[str, onnx.ValueInfoProto] = field(default_factory=dict)  # by the file

    def unique(self, hint: str) -> str:
        name = hint or "v"
        while name in self.scope.values:
            self.counter += 1
            name = f"{hint}~{self.counter}"
        return name

    def input(self, name: str, dtype: DType, shape: tuple[Any, ...] | None) -> None:
        inner = self.unique(name)
        self.scope.declare(Value(inner, dtype, shape))
        self.env[name] = inner
        self.inputs.append(inner)

    def constant(self, hint: str, data: Array) -> str:
        name = self.unique(hint)
        self.scope.constant(name, data)
        return name

    def resolve(self, name: str) -> str:
        """The value that an ONNX name means here; captures it from outside where it is not ours."""
        if name in self.env:
            return self.env[name]
        if self.outer is None:
            raise ModelError(f"'{name}' is used but nothing defines it")
        source = self.outer.resolve(name)
        data = self.outer.scope.constants.get(source)
        if data is not None:
            self.env[name] = self.constant(name, data)
            if source in self.outer.scope.stored:
                self.scope.stored[self.env[name]] = self.outer.scope.stored[source]
            return self.env[name]
        value = self.outer.scope.values[source]
        inner = self.unique(name)
        self.scope.declare(
            Value(inner, value.dtype, value.shape), self.outer.scope.known.get(source)
        )
        self.env[name] = inner
        self.captures[source] = inner
        return inner

    def emit(self, op: Op) -> None:
        """Add an op, or fold it where it only renames or fills constants."""
        if self._fold(op):
            return
        self.ops.append(infer_op(self.scope, op))

    def _fold(self, op: Op) -> bool:
        row = row_of(op)
        foldable = op.kind == "full" or only_moves(op)
        arrays = [self.scope.constants.get(n) if n else None for n in op.inputs]
        if (
            not foldable
            or op.bodies
            or any(n and a is None for n, a in zip(op.inputs, arrays, strict=True))
        ):
            return False
        if not all(o and o not in self.scope.values for o in op.outputs):
            return False
        probe = Scope(
            values={n: self.scope.values[n] for n in op.inputs if n},
            known={n: self.scope.known[n] for n in op.inputs if n in self.scope.known},
        )
        infer_op(probe, op)  # rejects contradictions with a message
        shape = probe.values[op.outputs[0]].shape
        size = (
            np.prod([int(d) for d in shape or ()], dtype=np.float64)
            if shape is not None
            else np.inf
        )
        if size > FOLD_LIMIT:
            return False
        with np.errstate(all="ignore"):
            result = row.evaluate(Context(op.attrs, 1), *arrays)
        scope = self.scope
        scope.constant(op.outputs[0], np.asarray(result))
        scope.stored |= stored_behind(op, scope.values, scope.constants, scope.stored)
        return True

    def finish(self, outputs: Sequence[str], extra_inputs: Sequence[str] = ()) -> Graph:
        graph = Graph(
            name=self.name,
            inputs=(*self.inputs, *extra_inputs),
            outputs=tuple(outputs),
            ops=tuple(self.ops),
            values=self.scope.values,
            constants={n: d for n, d in self.scope.constants.items() if n not in self.inputs},
            bounds=self.scope.bounds,
            stored=self.scope.stored,
        )
        concrete = {
            n: a
            for n, a in self.scope.known.items()
            if a.dtype != object or graph.values[n].dtype is DType.STRING
        }
        return prune(graph, concrete)


@dataclass(slots=True)
class Node:
    """One ONNX node, as its handler sees it: inputs by index, attributes by name, ways to emit
    ops.
    """

    builder: Builder
    proto: onnx.NodeProto
    op_type: str
    domain: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]

    # --- reading -------------------------------------------------------------------------
    def attr(self, name: str, default: Any = None) -> Any:
        return self.attrs.get(name, default)

    def needs(self, name: str) -> Any:
        if name not in self.attrs:
            raise ModelError(f"node '{self.loc}' ({self.op_type}) lacks the attribute '{name}'")
        return self.attrs[name]

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and bool(self.inputs[i])

    def input(self, i: int) -> str:
        if not self.has(i):
            raise ModelError(f"node '{self.loc}' ({self.op_type}) lacks input {i}")
        return self.inputs[i]

    def value(self, i: int) -> Value:
        return self.builder.scope.values[self.input(i)]

    def rank(self, i: int) -> int:
        shape = self.value(i).shape
        if shape is None:
            raise ModelError(
                f"node '{self.loc}' ({self.op_type}): the rank of '{self.input(i)}' depends on data"
            )
        return len(shape)

    def known(self, i: int) -> Array | None:
        return self.builder.scope.known.get(self.inputs[i]) if self.has(i) else None

    def type_of(self, name: str) -> Value:
        return self.builder.scope.values[name]

    @property
    def loc(self) -> str:
        return str(self.proto.name) or next((str(o) for o in self.proto.output if o), self.op_type)

    # --- writing -------------------------------------------------------------------------
    def const(self, data: Any, dtype: Any = None) -> str:
        return self.builder.constant(
            f"{self.outputs[0] if self.outputs else self.loc}.c", np.asarray(data, dtype=dtype)
        )

    def ints(self, *values: int) -> str:
        return self.const(list(values), np.int64)

    def like(self, number: float, i: int = 0) -> str:
        """A scalar of the type of input ``i``."""
        return self.const(np.asarray(number, dtype=self.value(i).dtype.numpy))

    def emit(self, kind: str, inputs: Sequence[str], count: int = 1, **attrs: Attr | None) -> Any:
        """An intermediate op; returns the name of its output, or a tuple of ``count`` names."""
        base = self.outputs[0] if self.outputs and self.outputs[0] else self.loc
        names = tuple(self.builder.unique(f"{base}.{kind}{j or ''}") for j in range(count))
        self._put(kind, inputs, names, attrs)
        return names[0] if count == 1 else names

    def out(self, kind: str, inputs: Sequence[str], **attrs: Attr | None) -> list[str]:
        """The op that makes the node's outputs."""
        names = tuple(self.builder.unique(o) if o else "" for o in self.outputs)
        while names and not names[-1]:
            names = names[:-1]
        self._put(kind, inputs, names, attrs)
        return list(names)

    def flattened(self, kind: str, x: str, axis: int) -> tuple[str, str]:
        """``kind`` over all axes from ``axis`` on at once, and the shape that its result is to be
        brought back to.
        """
        flat = self.emit(kind, [self.emit("flatten", [x], axis=axis)], axis=-1)
        return flat, self.emit("shape", [x])

    def _put(
        self,
        kind: str,
        inputs: Sequence[str],
        names: tuple[str, ...],
        attrs: Mapping[str, Attr | None],
    ) -> None:
        ins = list(inputs)
        while ins and not ins[-1]:
            ins.pop()
        kept = {k: v for k, v in attrs.items() if v is not None}
        self.builder.emit(Op(kind, tuple(ins), names, kept, (), self.loc))

    def same(self, *names: str) -> dict[str, Any]:
        """The attributes ``names`` that the node has, for an op that calls them the same."""
        return {n: self.attrs[n] for n in names if n in self.attrs}
