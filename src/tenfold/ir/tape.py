"""What a gradient rule writes on: ops appended to a graph, each typed as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tenfold.ir.graph import Array, Attr, Op
from tenfold.ir.infer import Scope, infer_op


class Tape:
    """Ops written so far, in a scope that knows every value; names end in a number of their own."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.ops: list[Op] = []
        self.loc = ""

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(str(d)) for d in self.scope.values[name].dims)

    def op(self, kind: str, *inputs: str, **attrs: Attr) -> str:
        """The first result of a new op."""
        return self.several(1, kind, *inputs, **attrs)[0]

    def several(self, count: int, kind: str, *inputs: str, **attrs: Attr) -> tuple[str, ...]:
        """All results of a new op."""
        base = self._new(f"{self.loc}/{kind}")
        names = (base, *(f"{base}:{i}" for i in range(1, count)))
        given = inputs
        while given and not given[-1]:
            given = given[:-1]
        self.ops.append(infer_op(self.scope, Op(kind, given, names, attrs, (), base)))
        return names

    def ints(self, *values: int) -> str:
        return self._constant(np.asarray(values, np.int64))

    def number(self, value: float, like: str) -> str:
        """One number of the type of ``like``."""
        return self._constant(np.asarray(value, self.scope.values[like].dtype.numpy))

    def filled(self, name: str, content: Array, like: str) -> str:
        """A computed constant of the type of ``like``."""
        self.scope.constant(name, content.astype(self.scope.values[like].dtype.numpy))
        self.scope.stored[name] = 0
        return name

    def unfilled(self, name: str, shape: tuple[int, ...], like: str) -> str:
        """A computed constant of the type of ``like`` whose content nobody needs."""
        self.scope.declare(replace(self.scope.values[like], name=name, shape=shape))
        self.scope.constants[name] = None
        self.scope.stored[name] = 0
        return name

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return x if self.shape(x) == tuple(shape) else self.op("reshape", x, self.ints(*shape))

    def swapped(self, x: str) -> str:
        """The last two axes exchanged."""
        rank = len(self.shape(x))
        return self.op("transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))

    def outside(self, name: str, like: str) -> str:
        """A new value of the type of ``like``, which something outside gives."""
        self.scope.declare(replace(self.scope.values[like], name=name))
        return name

    def sum_to(self, x: str, shape: Sequence[int]) -> str:
        """``x`` summed over what ``shape`` was spread along (NumPy's broadcasting)."""
        have = self.shape(x)
        if have == tuple(shape):
            return x
        extra = len(have) - len(shape)
        axes = [a for a, d in enumerate(have) if a < extra or (shape[a - extra] == 1 and d != 1)]
        total = self.op("reduce_sum", x, self.ints(*axes), keepdims=0) if axes else x
        return self.reshape(total, shape)

    def rename(self, name: str, to: str) -> str:
        """A value under another name."""
        made = Op("identity", (name,), (to,), {}, (), to)
        self.ops.append(infer_op(self.scope, made))
        return to

    def _constant(self, content: Array) -> str:
        name = self._new(f"{self.loc}/const")
        self.scope.constant(name, content)
        self.scope.stored[name] = 0
        return name

    def _new(self, base: str) -> str:
        name, n = base, 1
        while name in self.scope.values:
            n += 1
            name = f"{base}.{n}"
        return name
