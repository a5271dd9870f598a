"""Dimensions: a plain int, or a sympy expression over positive integer symbols.

sympy is imported only when a model has symbolic dimensions, because it costs a third of a second.
"""

from __future__ import annotations

import math
import re
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
    """Max or Min, flattened and in a fixed order, without sympy's search for relations (60 ms a
    call).
    """
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
    # Max and Min are kept unevaluated until then
    return simplify(result if result.free_symbols else result.doit())


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


_TOKEN = re.compile(r"\s*(?:([0-9]{1,60}(?![0-9\w]))|([^\W0-9]\w*)|(\*\*|[-+*/(),]))")
_LONGEST = 100_000  # characters of an expression; the longest of a real model has 22 thousand
_HIGHEST_POWER = 64


def parse(source: str) -> Dim:
    """The dimension that ``text`` printed: an int, or an expression of + - * / ** floor, ceiling,
    Mod, Max, Min over names.

    Raises ModelError for anything else.
    """
    if re.fullmatch(r"-?[0-9]{1,60}", source):
        return int(source)
    try:
        result = _Parser(source).whole()
    except (RecursionError, ZeroDivisionError, TypeError, ValueError, AttributeError) as error:
        raise _no_dimension(source) from error
    if not isinstance(result, int) and (not result.free_symbols or result.has(*_infinities())):
        raise _no_dimension(source)
    return result


def _infinities() -> tuple[Any, ...]:
    import sympy

    return sympy.oo, -sympy.oo, sympy.zoo, sympy.nan


def _no_dimension(source: str) -> ModelError:
    return ModelError(
        f"'{source[:60]}' is no dimension: allowed are names, whole numbers, floor, ceiling, Mod,"
        " Max, Min and + - * / ** ( ) ,"
    )


class _Parser:
    """Recursive descent over the tokens of an expression, so that nothing in it is evaluated as
    code.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens: list[str] = []
        at, end = 0, len(source.rstrip())
        while at < end:
            match = _TOKEN.match(source, at) if end <= _LONGEST else None
            if match is None:
                raise _no_dimension(source)
            self.tokens.append(match[match.lastindex or 0])
            at = match.end()
        self.at = 0

    def whole(self) -> Dim:
        result = self.sum()
        if self.at < len(self.tokens):
            raise _no_dimension(self.source)
        return simplify(result)

    def take(self, *wanted: str) -> str:
        """The next token if it is one of those, else nothing."""
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return ""

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise _no_dimension(self.source)

    def sum(self) -> Any:
        result = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            result = result + other if sign == "+" else result - other
        return result

    def product(self) -> Any:
        result = self.signed()
        while sign := self.take("*", "/"):
            other = self.signed()
            result = result * other if sign == "*" else result / other
        return result

    def signed(self) -> Any:
        if self.take("-"):
            return -self.signed()
        base = self.atom()
        if not self.take("**"):
            return base
        power = self.signed()
        if not power.is_Integer or abs(int(power)) > _HIGHEST_POWER:
            raise _no_dimension(self.source)
        return base**power

    def atom(self) -> Any:
        import sympy

        if self.at >= len(self.tokens):
            raise _no_dimension(self.source)
        token = self.tokens[self.at]
        self.at += 1
        if token == "(":
            result = self.sum()
            self.need(")")
            return result
        if token[0] in "0123456789":
            return sympy.Integer(token)
        if not (token[0].isalnum() or token[0] == "_"):
            raise _no_dimension(self.source)
        return self.call(token) if self.take("(") else symbol(token)

    def call(self, name: str) -> Any:
        import sympy

        arguments = [self.sum()]
        while self.take(","):
            arguments.append(self.sum())
        self.need(")")
        many = {"Max": maximum, "Min": minimum}
        counts = {"floor": 1, "ceiling": 1, "Mod": 2}
        if name in many:
            return sympy.sympify(reduce(many[name], map(simplify, arguments)))
        if counts.get(name) != len(arguments):
            raise _no_dimension(self.source)
        return getattr(sympy, name)(*arguments)


def elements(shape: Iterable[int]) -> int:
    return math.prod(shape)
