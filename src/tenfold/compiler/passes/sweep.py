"""One forward walk over a graph that writes it anew: what every pass is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tenfold.ir.dtypes import from_numpy
from tenfold.ir.graph import Array, Attr, Graph, Op, Value
from tenfold.ir.infer import Scope, infer_op, stored_behind


class Sweep:
    """The graph as rewritten so far. A visitor looks at each op once, with its operands already
    rewritten.

    It emits the op, another one, or nothing; ``forward`` makes later ops read another value
    instead. ``uses`` counts the readers of each value in the graph as it was; ``memo`` is the
    visitor's own notebook.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops: list[Op] = []
        self.producer: dict[str, Op] = {}
        self.constants: dict[str, Array | None] = dict(graph.constants)
        self._scope = Scope(
            values=dict(graph.values), constants=self.constants, stored=dict(graph.stored)
        )
        self._scope.known = {
            n: a for n, a in graph.constants.items() if a is not None and a.size <= 4096
        }
        self._renamed: dict[str, str] = {}
        self._fresh = 0
        self.memo: dict[tuple[object, ...], Any] = {}
        self.uses: dict[str, int] = {}
        for op in graph.ops:
            for name in op.inputs:
                self.uses[name] = self.uses.get(name, 0) + 1
        for name in graph.outputs:
            self.uses[name] = self.uses.get(name, 0) + 1

    def value(self, name: str) -> Value:
        return self._scope.values[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The static shape of a value, or None."""
        shape = self._scope.values[name].shape
        return (
            tuple(shape) if shape is not None and all(isinstance(d, int) for d in shape) else None
        )

    def is_constant(self, name: str) -> bool:
        return name in self.constants

    def scalar(self, name: str) -> float | None:
        """The number that a constant of one element holds."""
        data = self.constants.get(name)
        return (
            float(data.reshape(-1)[0])
            if data is not None and data.size == 1 and data.dtype.kind in "fiu"
            else None
        )

    def resolve(self, op: Op) -> Op:
        """``op`` with its operands as already rewritten."""
        inputs = tuple(self._renamed.get(i, i) for i in op.inputs)
        return op if inputs == op.inputs else replace(op, inputs=inputs)

    def emit(self, op: Op) -> Op:
        """Append ``op``; the types of outputs that are new are inferred."""
        if any(o and o not in self._scope.values for o in op.outputs):
            op = infer_op(self._scope, op)
        self.ops.append(op)
        for o in op.outputs:
            if o:
                self.producer[o] = op
        return op

    def make(self, kind: str, inputs: tuple[str, ...], attrs: Mapping[str, Attr], like: Op) -> str:
        """Append a new op with one new output; returns its name."""
        name = self.name(like.outputs[0], kind)
        self.emit(Op(kind, inputs, (name,), attrs, (), like.loc))
        return name

    def name(self, base: str, what: str) -> str:
        """A name that no value has."""
        while True:
            self._fresh += 1
            name = f"{base}~{what}{self._fresh}"
            if name not in self._scope.values:
                return name

    def constant(self, name: str, data: Array | None, value: Value) -> str:
        """Add a constant; ``data`` None is a weight whose content nobody knows."""
        self.constants[name] = data
        self._scope.declare(replace(value, name=name), data)
        return name

    def computed(self, op: Op) -> None:
        """Note that the results of ``op``, which are constants now, were computed."""
        known = self._scope
        known.stored |= stored_behind(op, known.values, self.constants, known.stored)

    def number(self, base: str, data: Array) -> str:
        """Add a constant with content under a new name."""
        return self.constant(
            self.name(base, "const"), data, Value("", from_numpy(data.dtype), data.shape)
        )

    def forward(self, old: str, new: str, like: Op) -> None:
        """Later readers of ``old`` read ``new``. A graph output keeps its name through an
        identity.
        """
        self._renamed[old] = new
        if old in self.graph.outputs:
            self.ops.append(Op("identity", (new,), (old,), loc=like.loc))
            self.producer[old] = self.ops[-1]

    def finish(self) -> Graph:
        """The new graph. What nobody reads any more is still in it: that is for dead-code
        elimination.
        """
        inputs = set(self.graph.inputs)
        values = {
            n: v
            for n, v in self._scope.values.items()
            if n in self.producer or n in self.constants or n in inputs
        }
        return replace(
            self.graph,
            ops=tuple(self.ops),
            values=values,
            constants=self.constants,
            stored=self._scope.stored,
        )


Visitor: TypeAlias = Callable[[Sweep, Op], None]


@dataclass(frozen=True, slots=True)
class Pass:
    """A named rewrite of graphs that leaves their results unchanged; ``does`` is its line of
    help.
    """

    name: str
    does: str
    apply: Callable[[Graph], Graph]


def sweeping(visit: Visitor) -> Callable[[Graph], Graph]:
    """The rewrite that shows every op to ``visit`` once, bodies of control flow first."""

    def apply(graph: Graph) -> Graph:
        sweep = Sweep(graph)
        for op in graph.ops:
            if op.bodies:
                op = replace(op, bodies=tuple(apply(body) for body in op.bodies))
            visit(sweep, sweep.resolve(op))
        return sweep.finish()

    return apply


def without_weights(graph: Graph, limit: int = 4096) -> Graph:
    """``graph`` with the content of large constants forgotten: enough for pricing, and far quicker
    to rewrite.
    """
    constants = {
        n: a if a is not None and a.size <= limit else None for n, a in graph.constants.items()
    }
    ops = tuple(
        replace(op, bodies=tuple(without_weights(b, limit) for b in op.bodies)) if op.bodies else op
        for op in graph.ops
    )
    return replace(graph, constants=constants, ops=ops)
