"""Dimensions: a plain int, or a sympy expression over positive integer symbols.

sympy is imported only when a model has symbolic dimensions, because it costs a third of a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any, TypeAlias

from tenfold.errors import ModelError

if TYPE_CHECKING:
    import sympy

    Dim: TypeAlias = int | sympy.Expr
    Shape: TypeAlias = tuple[Dim, ...]
else:  # not at run time: importing sympy is slow
    Dim = Any
    Shape = tuple


def symbol(name: str) -> Dim:
    """A dimension not known yet: a positive integer called ``name``."""
    import sympy

    return sympy.Symbol(name, integer=True, positive=True)


def is_static(dim: Dim) -> bool:
    return isinstance(dim, int)


def all_static(shape: Iterable[Dim]) -> bool:
    return all(isinstance(d, int) for d in shape)


def simplify(dim: Any) -> Dim:
    """``dim`` as an int where it is one, else expanded so that equal dimensions compare equal."""
    if isinstance(dim, int):
        return int(dim)
    import sympy

    if isinstance(dim, sympy.Expr):
        expanded = _expand(dim)
        return int(expanded) if expanded.is_Integer else expanded
    return int(dim)


@lru_cache(maxsize=65536)
def _expand(expr: Any) -> Any:
    import sympy

    return sympy.expand(expr)


def add(a: Dim, b: Dim) -> Dim:
    return a + b if isinstance(a, int) and isinstance(b, int) else simplify(a + b)


def sub(a: Dim, b: Dim) -> Dim:
    return a - b if isinstance(a, int) and isinstance(b, int) else simplify(a - b)


def mul(a: Dim, b: Dim) -> Dim:
    return a * b if isinstance(a, int) and isinstance(b, int) else simplify(a * b)


def prod(dims: Iterable[Dim]) -> Dim:
    result: Dim = 1
    for d in dims:
        result = mul(result, d)
    return result


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b rounding down."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return _floordiv(a, b)


@lru_cache(maxsize=65536)
def _floordiv(a: Any, b: Any) -> Dim:
    import sympy

    if not isinstance(b, int):
        return simplify(sympy.floor(sympy.cancel(sympy.sympify(a) / b)))
    whole, rest = sympy.Integer(0), sympy.Integer(0)
    for term, coefficient in _expand(sympy.sympify(a)).as_coefficients_dict().items():
        if coefficient.is_Integer and coefficient % b == 0:
            whole += term * (coefficient // b)
        else:
            rest += term * coefficient
    return simplify(whole + (sympy.floor(rest / b) if rest != 0 else 0))


def ceildiv(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    return simplify(-floordiv(simplify(-a), b))


def maximum(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return _extreme("Max", a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return _extreme("Min", a, b)


@lru_cache(maxsize=65536)
def _extreme(name: str, a: Any, b: Any) -> Dim:
    """Max or Min, flattened and in a fixed order, without sympy's search for relations (60 ms a call)."""
    import sympy

    kind = getattr(sympy, name)
    parts: dict[Any, None] = {}
    for e in (sympy.sympify(a), sympy.sympify(b)):
        parts.update(dict.fromkeys(e.args if isinstance(e, kind) else (e,)))
    numbers = [p for p in parts if p.is_Integer]
    rest = sorted((p for p in parts if not p.is_Integer), key=str)
    if numbers:
        best = (max if name == "Max" else min)(numbers)
        if name == "Max" and best <= 1 and any(p.is_Symbol for p in rest):
            best = None  # symbols are at least one
        if name == "Min" and best <= 1 and all(p.is_Symbol for p in rest):
            return int(best)
        rest = rest if best is None else [best, *rest]
    return simplify(rest[0] if len(rest) == 1 else kind(*rest, evaluate=False))


def symbols_of(dim: Dim) -> frozenset[str]:
    return frozenset() if isinstance(dim, int) else frozenset(s.name for s in dim.free_symbols)


def substitute(dim: Dim, values: Mapping[str, int]) -> Dim:
    """``dim`` with the symbols in ``values`` replaced by ints."""
    if isinstance(dim, int):
        return dim
    result = dim.subs({s: values[s.name] for s in dim.free_symbols if s.name in values})
    return simplify(result if result.free_symbols else result.doit())  # Max and Min are kept unevaluated until then


def evaluate(dim: Dim, values: Mapping[str, int]) -> int | None:
    """The int that ``dim`` is under ``values``, or None where a symbol has no value."""
    result = substitute(dim, values)
    return result if isinstance(result, int) else None


def broadcast(shapes: Iterable[Shape]) -> Shape:
    """NumPy broadcasting. A symbolic dimension against an int above 1 is taken to be that int.

    Raises ValueError where two ints contradict.
    """
    all_shapes = list(shapes)
    rank = max((len(s) for s in all_shapes), default=0)
    result: list[Dim] = [1] * rank
    for s in all_shapes:
        for i, d in enumerate(s, start=rank - len(s)):
            result[i] = _broadcast_dim(result[i], d)
    return tuple(result)


def _broadcast_dim(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        if a == b or b == 1:
            return a
        if a == 1:
            return b
        raise ValueError(f"dimensions {a} and {b} do not broadcast")
    if a == b or (isinstance(b, int) and b == 1):
        return a
    if isinstance(a, int):
        return b if a == 1 else a
    if isinstance(b, int):
        return b
    return maximum(a, b)


def text(dim: Dim) -> str:
    return str(dim) if isinstance(dim, int) else str(dim).replace(" ", "")


def parse(source: str) -> Dim:
    """The dimension that ``text`` printed: an int, or an expression of + - * // floor, Max, Min."""
    try:
        return int(source)
    except ValueError:
        pass
    import re

    import sympy

    if not re.fullmatch(r"[\w\s+\-*/(),]+", source) or "__" in source:  # sympy evaluates what it parses
        raise ModelError(f"'{source[:60]}' is no dimension: allowed are names, whole numbers and + - * / ( ) ,")
    names = set(re.findall(r"[A-Za-z_]\w*", source)) - {"floor", "ceiling", "Max", "Min", "Mod"}
    local: dict[str, Any] = {n: symbol(n) for n in names}
    local |= {"Max": lambda *a: reduce(maximum, a), "Min": lambda *a: reduce(minimum, a)}
    return simplify(sympy.sympify(source, locals=local))


def elements(shape: Iterable[int]) -> int:
    return math.prod(shape)
