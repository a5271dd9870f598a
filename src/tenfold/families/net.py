"""Building graphs by hand: values by name, ops with inferred types, weights without content."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tenfold.ir.dims import Dim
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Attr, Graph, Op, Value
from tenfold.ir.infer import Scope, infer_op


class Net:
    """A graph under construction. Names follow the scopes that are open:
    ``with net.scope("layer.3"):``.
    """

    def __init__(self, name: str, dtype: DType) -> None:
        self.name, self.dtype = name, dtype
        self._scope = Scope()
        self._path: list[str] = []
        self._inputs: list[str] = []
        self._ops: list[Op] = []
        self._constants: dict[str, Array | None] = {}
        self._limits: dict[str, int] = {}
        self._used: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        self._path.append(name)
        yield
        self._path.pop()

    def path(self, name: str) -> str:
        """``name`` within the scopes that are open."""
        return ".".join((*self._path, name))

    def _named(self, name: str) -> str:
        full = self.path(name)
        count = self._used[full] = self._used.get(full, 0) + 1
        return full if count == 1 else f"{full}_{count}"

    def shape(self, name: str) -> tuple[Dim, ...]:
        return self._scope.values[name].dims

    def input(self, name: str, shape: tuple[Dim, ...], dtype: DType | None = None) -> str:
        self._scope.declare(Value(name, dtype or self.dtype, shape))
        self._inputs.append(name)
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A weight whose content nobody knows."""
        full = self._named(name)
        self._scope.declare(Value(full, self.dtype, shape))
        self._constants[full] = None
        return full

    def number(self, name: str, value: float) -> str:
        return self._content(name, np.asarray(value, self.dtype.numpy))

    def ints(self, name: str, *values: int) -> str:
        return self._content(name, np.asarray(values, np.int64))

    def _content(self, name: str, data: Array) -> str:
        full = self._named(name)
        self._scope.constant(full, data)
        self._constants[full] = data
        return full

    def op(
        self,
        kind: str,
        *inputs: str,
        name: str = "",
        outputs: int = 1,
        attrs: dict[str, Attr] | None = None,
    ) -> str:
        """The first output of a new op."""
        return self.ops(kind, *inputs, name=name, outputs=outputs, attrs=attrs)[0]

    def ops(
        self,
        kind: str,
        *inputs: str,
        name: str = "",
        outputs: int = 1,
        attrs: dict[str, Attr] | None = None,
    ) -> tuple[str, ...]:
        """All outputs of a new op."""
        full = self._named(name or kind)
        names = (full, *(f"{full}:{i}" for i in range(1, outputs)))
        self._ops.append(infer_op(self._scope, Op(kind, inputs, names, attrs or {}, (), full)))
        return names

    def graph(self, *outputs: str) -> Graph:
        scope = self._scope
        return Graph(
            name=self.name,
            inputs=tuple(self._inputs),
            outputs=outputs,
            ops=tuple(self._ops),
            values=scope.values,
            constants=self._constants,
            bounds=dict(scope.bounds),
            limits=self._limits,
        )

    def limit(self, dimension: str, most: int) -> None:
        """The network has room for so much of a free dimension."""
        self._limits[dimension] = most

    # --- layers that many families share -------------------------------------------------

    def linear(self, x: str, name: str, width_in: int, width_out: int, *, bias: bool) -> str:
        y = self.op("matmul", x, self.weight(f"{name}.weight", width_in, width_out), name=name)
        return (
            self.op("add", y, self.weight(f"{name}.bias", width_out), name=f"{name}.add")
            if bias
            else y
        )

    def reshape(self, x: str, name: str, *shape: int) -> str:
        """0 copies an extent, -1 takes the rest."""
        return self.op("reshape", x, self.ints(f"{name}.shape", *shape), name=name)

    def layer_norm(
        self, x: str, name: str, width: int, epsilon: float = 1e-5, *, affine: bool = True
    ) -> str:
        weights = (
            (self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width))
            if affine
            else ()
        )
        return self.op("layer_norm", x, *weights, name=name, attrs={"axis": -1, "epsilon": epsilon})

    def rms_norm(self, x: str, name: str, width: int, epsilon: float = 1e-6) -> str:
        return self.op(
            "rms_norm",
            x,
            self.weight(f"{name}.weight", width),
            name=name,
            attrs={"axis": -1, "epsilon": epsilon},
        )

    def activation(self, x: str, function: str) -> str:
        """``silu``, ``relu``, ``gelu``, ``gelu_tanh``, ``tanh`` or ``sigmoid``."""
        kinds: dict[str, tuple[str, dict[str, Attr]]] = {
            "silu": ("swish", {}),
            "gelu_tanh": ("gelu", {"approximate": "tanh"}),
        }
        kind, attrs = kinds.get(function, (function, {}))
        return self.op(kind, x, name=function, attrs=attrs)

    def feed_forward(
        self, x: str, width: int, inner: int, function: str, *, gated: bool, bias: bool
    ) -> str:
        """Two products with a function between, or three with a gate (Shazeer 2020)."""
        if gated:
            gate = self.activation(self.linear(x, "gate", width, inner, bias=bias), function)
            h = self.op("mul", gate, self.linear(x, "up", width, inner, bias=bias), name="gated")
        else:
            h = self.activation(self.linear(x, "up", width, inner, bias=bias), function)
        return self.linear(h, "down", inner, width, bias=bias)
