"""Graph, Op and Value: the intermediate representation.

A graph is a list of ops in topological order over named values (static single assignment).
Constants are values too; a constant without data is a weight whose content nobody needs to know
(a published architecture without its weights): it can be priced, but not interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tenfold.ir.dims import Dim, Shape, all_static, prod, symbols_of
from tenfold.ir.dtypes import DType

T = TypeVar("T")
Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Attr: TypeAlias = "int | float | str | bool | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]"
NO_WEIGHTS = frozenset({DType.I64, DType.BOOL, DType.STRING})  # shapes, indices, masks, words
NO_ATTRS: Mapping[str, Attr] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: its name, element type and shape. ``shape`` is None where not even the rank is
    known.
    """

    name: str
    dtype: DType
    shape: Shape | None

    @property
    def elements(self) -> Dim:
        return prod(self.dims)

    @property
    def dims(self) -> Shape:
        """The shape; raises UnknownShape where the rank is not known."""
        if self.shape is None:
            raise UnknownShape(self.name)
        return self.shape

    @property
    def bytes(self) -> Dim:
        """Packed size: two int4 to a byte."""
        from tenfold.ir.dims import ceildiv, mul

        bits = self.dtype.bits
        return mul(self.elements, bits // 8) if bits >= 8 else ceildiv(mul(self.elements, bits), 8)


class UnknownShape(Exception):
    """A rule asked for a shape that is not known before the model runs."""


@dataclass(frozen=True, slots=True)
class Op:
    """One node. ``inputs`` and ``outputs`` name values; an absent optional one is "".

    ``bodies`` are the sub-graphs of control flow; what they read from outside are explicit inputs.
    ``loc`` is the name the node has in the source, so that reports speak the user's language.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=lambda: NO_ATTRS)
    bodies: tuple[Graph, ...] = ()
    loc: str = ""

    @property
    def name(self) -> str:
        return self.loc or next(o for o in self.outputs if o)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A network: inputs, outputs, ops in topological order, every value by name, constants' data.

    ``bounds`` maps a data-dependent symbol (how many boxes survive) to the most it can be,
    ``limits`` a free dimension of the inputs to the largest the network has room for (learned
    positions).  ``stored`` says of a constant that was computed (a mask, positions, a transposed
    weight) how many numbers of the model's file it is made of, of a fill all that it has; one that
    is not in it is stored.

    A graph equals only itself (``tenfold.ir.text`` compares contents). ``memo`` is what others
    derived from it and would derive again: it goes when the graph goes.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    values: Mapping[str, Value]
    constants: Mapping[str, Array | None]
    bounds: Mapping[str, Dim] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` gives, which must follow from the graph and ``key`` alone; made once."""
        if key not in self.memo:
            self.memo[key] = make()
        found: T = self.memo[key]
        return found

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the free dimensions of the inputs, in order of appearance."""
        seen: dict[str, None] = {}
        for name in self.inputs:
            for d in self.values[name].shape or ():
                seen.update(dict.fromkeys(sorted(symbols_of(d))))
        return tuple(seen)

    @property
    def is_static(self) -> bool:
        return all(v.shape is not None and all_static(v.shape) for v in self.values.values())

    @property
    def parameters(self) -> int:
        """Number of elements that the constants of rank 1 and more are made of, those of bodies
        included; int64 holds shapes and indices, bool masks, and what was computed from sizes alone
        holds none.
        """
        own = sum(stored_numbers(self.values[n], self.stored) for n in self.constants)
        return own + sum(body.parameters for op in self.ops for body in op.bodies)

    def bind(self, sizes: Mapping[str, int]) -> Graph:
        """This graph for the given sizes of its free dimensions: see ``tenfold.ir.bind``."""
        from tenfold.ir.binding import bind

        return bind(self, sizes)

    def walk(self) -> Iterator[Op]:
        """All ops, those of bodies after the op that holds them."""
        for op in self.ops:
            yield op
            for body in op.bodies:
                yield from body.walk()

    def value(self, name: str) -> Value | None:
        return self.values[name] if name else None


def stored_numbers(value: Value, stored: Mapping[str, int]) -> int:
    """How many numbers of the model's file a constant is made of; ``stored`` has those that were
    computed.
    """
    if value.name in stored:
        return stored[value.name]
    return int(prod(value.dims)) if value.dims and value.dtype not in NO_WEIGHTS else 0
