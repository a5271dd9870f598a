"""Symbolic dimensions against plain ints: what an expression says after substitution is what the
ints say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.ir import dims as d

A, B, C = (d.symbol(n) for n in "abc")
SIZES = st.fixed_dictionaries({n: st.integers(1, 60) for n in "abc"})
POSITIVE = st.integers(1, 24)


def linear(symbols: str = "abc") -> st.SearchStrategy[d.Dim]:
    """k + sum of multiples of symbols, positive for every size: what shape arithmetic makes of
    extents.
    """
    terms = st.lists(
        st.tuples(st.sampled_from(symbols), st.integers(1, 12)), min_size=1, max_size=3
    )
    return st.tuples(st.integers(0, 30), terms).map(lambda p: _sum(p[0], p[1]))


def _sum(constant: int, terms: list[tuple[str, int]]) -> d.Dim:
    total: d.Dim = constant
    for name, factor in terms:
        total = d.add(total, d.mul(factor, d.symbol(name)))
    return total


def at(dim: d.Dim, sizes: dict[str, int]) -> int:
    number = d.evaluate(dim, sizes)
    assert isinstance(number, int), f"{dim} at {sizes} is {number!r}"
    return number


@given(linear(), POSITIVE, st.integers(-40, 40), SIZES)
def test_division_by_a_number(x: d.Dim, by: int, shift: int, sizes: dict[str, int]) -> None:
    """Also where the dividend may be negative, as in the extent of a convolution that has no
    room.
    """
    moved = d.add(x, shift)
    plain = at(x, sizes) + shift
    assert at(d.floordiv(moved, by), sizes) == math.floor(plain / by)
    assert at(d.ceildiv(moved, by), sizes) == math.ceil(plain / by)


@given(linear(), linear(), SIZES)
def test_division_by_an_expression(x: d.Dim, y: d.Dim, sizes: dict[str, int]) -> None:
    assert at(d.floordiv(x, y), sizes) == at(x, sizes) // at(y, sizes)
    assert at(d.ceildiv(x, y), sizes) == -(-at(x, sizes) // at(y, sizes))


@given(linear(), POSITIVE, POSITIVE, SIZES)
def test_a_multiple_divides_without_a_floor(
    x: d.Dim, by: int, times: int, sizes: dict[str, int]
) -> None:
    assert d.floordiv(d.mul(x, by), by) == x == d.ceildiv(d.mul(x, by), by)
    assert at(d.floordiv(d.mul(x, by * times), by), sizes) == times * at(x, sizes)


@given(
    st.lists(st.one_of(linear(), st.integers(-5, 90)), min_size=1, max_size=5),
    SIZES,
    st.sampled_from(["maximum", "minimum"]),
)
def test_extremes_of_many(parts: list[d.Dim], sizes: dict[str, int], name: str) -> None:
    step, plain = (d.maximum, max) if name == "maximum" else (d.minimum, min)
    total, backwards = parts[0], parts[-1]
    for p in parts[1:]:
        total = step(total, p)
    for p in parts[-2::-1]:
        backwards = step(backwards, p)
    assert at(total, sizes) == at(backwards, sizes) == plain(at(p, sizes) for p in parts)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (d.maximum(A, 1), A),
        (d.maximum(0, A), A),
        (d.maximum(A, A), A),
        (d.minimum(A, 1), 1),
        (d.minimum(A, A), A),
        (d.maximum(d.maximum(A, B), A), d.maximum(B, A)),
        (d.sub(d.add(A, B), B), A),
        (d.sub(A, A), 0),
        (d.mul(A, 0), 0),
        (d.floordiv(d.add(d.mul(6, A), 4), 2), d.add(d.mul(3, A), 2)),
        (d.floordiv(d.mul(A, B), B), A),
        (d.prod(()), 1),
        (d.prod((2, A, 3)), d.mul(6, A)),
        (d.mul(d.add(A, 1), d.add(A, 1)), d.add(d.add(d.mul(A, A), d.mul(2, A)), 1)),
        (d.substitute(d.add(A, B), {"a": 3}), d.add(3, B)),
        (d.evaluate(d.add(A, B), {"a": 3}), None),
        (d.evaluate(7, {}), 7),
        (d.ceildiv(-7, 2), -3),
        (d.floordiv(-7, 2), -4),
        (d.elements(()), 1),
    ],
)
def test_equal_dimensions_compare_equal(got: Any, want: Any) -> None:
    assert got == want
    assert type(got) is type(want)


@given(linear(), linear(), POSITIVE, SIZES)
def test_text_parses_back(x: d.Dim, y: d.Dim, by: int, sizes: dict[str, int]) -> None:
    for dim in (
        x,
        d.sub(x, y),
        d.floordiv(x, by),
        d.ceildiv(d.mul(x, y), by),
        d.floordiv(x, y),
        d.maximum(x, y),
        d.minimum(d.floordiv(y, by), x),
    ):
        text = d.text(dim)
        assert " " not in text
        again = d.parse(text)
        assert again == dim
        assert d.text(again) == text
        assert at(again, sizes) == at(dim, sizes)


@pytest.mark.parametrize(
    "name",
    [
        "N",
        "S",
        "E",
        "I",
        "Q",
        "O",
        "beta",
        "gamma",
        "zeta",
        "pi",
        "batch_size",
        "u0_nonzero",
        "seq",
        "T",
        "re",
        "oo",
    ],
)
def test_names_that_sympy_uses_itself_are_symbols(name: str) -> None:
    dim = d.add(d.mul(2, d.symbol(name)), 1)
    assert d.parse(d.text(dim)) == dim
    assert d.symbols_of(dim) == {name}


@given(st.integers(-(10**12), 10**12))
def test_ints_print_and_parse_as_ints(n: int) -> None:
    assert d.parse(d.text(n)) == n
    assert d.is_static(d.parse(d.text(n)))


# --- expressions of expressions ---------------------------------------------------------

NESTED_NAMES = ("n", "seq", "h")
NESTED_SIZES = st.fixed_dictionaries(dict.fromkeys(NESTED_NAMES, st.integers(1, 40)))
leaves = st.one_of(st.integers(1, 12), st.sampled_from(NESTED_NAMES).map(d.symbol))


def _grow(inner: st.SearchStrategy[d.Dim]) -> st.SearchStrategy[d.Dim]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map(lambda p: d.add(*p)),
        pairs.map(lambda p: d.mul(*p)),
        pairs.map(lambda p: d.maximum(*p)),
        pairs.map(lambda p: d.minimum(*p)),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: d.floordiv(*p)),
        st.tuples(inner, st.integers(1, 9)).map(lambda p: d.ceildiv(*p)),
    )


expressions = st.recursive(leaves, _grow, max_leaves=5)
BINARY: dict[str, tuple[Callable[[d.Dim, d.Dim], d.Dim], Callable[[int, int], int]]] = {
    "add": (d.add, lambda a, b: a + b),
    "sub": (d.sub, lambda a, b: a - b),
    "mul": (d.mul, lambda a, b: a * b),
    "maximum": (d.maximum, max),
    "minimum": (d.minimum, min),
}


@given(expressions, expressions, NESTED_SIZES, st.sampled_from(sorted(BINARY)))
def test_symbolic_arithmetic_is_that_of_numbers(
    a: d.Dim, b: d.Dim, at: dict[str, int], name: str
) -> None:
    symbolic, plain = BINARY[name]
    x, y = d.substitute(a, at), d.substitute(b, at)
    assert isinstance(x, int)
    assert isinstance(y, int)
    assert d.substitute(symbolic(a, b), at) == plain(x, y)


@given(expressions, NESTED_SIZES, st.integers(1, 9))
def test_symbolic_division(a: d.Dim, at: dict[str, int], by: int) -> None:
    x = d.substitute(a, at)
    assert isinstance(x, int)
    assert d.substitute(d.floordiv(a, by), at) == x // by
    assert d.substitute(d.ceildiv(a, by), at) == -(-x // by)


@given(expressions)
def test_a_dimension_prints_and_parses_back(a: d.Dim) -> None:
    assert d.parse(d.text(a)) == a


# --- broadcasting -----------------------------------------------------------------------

extents = st.lists(
    st.tuples(st.sampled_from([1, 2, 3, 5]), st.booleans(), st.booleans()), max_size=4
)


@given(extents, st.integers(0, 2))
def test_broadcasting_is_that_of_numpy(axes: list[tuple[int, bool, bool]], shorter: int) -> None:
    """Two shapes that agree but for extents of one, each extent perhaps known only by name."""
    import numpy as np

    names = {f"n{i}": n for i, (n, _, _) in enumerate(axes)}
    left = [n if not named else d.symbol(f"n{i}") for i, (n, named, _) in enumerate(axes)]
    right = [1 if one else n for n, _, one in axes][min(shorter, len(axes)) :]
    got = d.broadcast([tuple(left), tuple(right)])
    assert d.broadcast([tuple(right), tuple(left)]) == got
    assert tuple(at(g, names) for g in got) == np.broadcast_shapes(
        tuple(n for n, _, _ in axes), tuple(right)
    )


def test_broadcasting_names() -> None:
    assert d.broadcast([]) == ()
    assert d.broadcast([(A,), (1,)]) == d.broadcast([(1,), (A,)]) == (A,)
    assert d.broadcast([(A, 1), (A, B)]) == (A, B)
    assert d.broadcast([(A,), (4,)]) == d.broadcast([(4,), (A,)]) == (4,)
    assert d.broadcast([(A,), (B,)]) == (d.maximum(A, B),)
    assert d.broadcast([(A, 1, 4), (3, 1)]) == (A, 3, 4)
    for shapes, named in (([(2,), (3,)], "2 and 3"), ([(4, 2), (A, 2), (3, 1)], "4 and 3")):
        with pytest.raises(ValueError, match=f"{named} do not broadcast"):
            d.broadcast(shapes)


def test_symbols_and_statics() -> None:
    assert d.symbols_of(d.maximum(d.floordiv(A, 2), B)) == {"a", "b"}
    assert d.symbols_of(3) == frozenset()
    assert d.all_static((1, 2))
    assert not d.all_static((1, A))
    assert type(d.simplify(d.sub(d.add(A, 2), A))) is int
