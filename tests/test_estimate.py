"""Estimates: the value stays inside its interval, and intervals never shrink by adding."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.estimate import Estimate

SIZES = st.floats(0, 1e9, allow_subnormal=False)
FACTORS = st.floats(0, 1e3, allow_subnormal=False)
estimates = (
    st.lists(SIZES, min_size=3, max_size=3).map(sorted).map(lambda v: Estimate(v[1], v[0], v[2]))
)


def ends(e: Estimate) -> tuple[float, float, float]:
    return e.value, e.low, e.high


@given(estimates, estimates)
def test_sums_and_products_end_by_end(a: Estimate, b: Estimate) -> None:
    assert ends(a + b) == (a.value + b.value, a.low + b.low, a.high + b.high)
    assert ends(a * b) == (a.value * b.value, a.low * b.low, a.high * b.high)
    assert a + b == b + a
    assert a * b == b * a


@given(st.lists(estimates, max_size=6))
def test_a_total_is_the_sum_and_no_narrower_than_its_parts(parts: list[Estimate]) -> None:
    total = Estimate.total(parts)
    step = Estimate.exact(0)
    for p in parts:
        step = step + p
    assert total == step
    width = math.fsum(p.high - p.low for p in parts)
    assert total.high - total.low == pytest.approx(width, rel=1e-9, abs=1e-3)
    assert Estimate.total(iter(parts)) == total


@given(estimates, st.floats(-1e3, 1e3, allow_subnormal=False))
def test_scaling_keeps_the_value_inside(a: Estimate, by: float) -> None:
    scaled = a * by
    assert scaled.value == a.value * by
    assert {scaled.low, scaled.high} == {a.low * by, a.high * by}
    if abs(by) > 1e-3:
        for got, want in zip(ends(a / by), ends(a * (1 / by)), strict=True):
            assert got == pytest.approx(want)


@given(SIZES, FACTORS)
def test_within_is_a_factor_to_both_sides(value: float, fraction: float) -> None:
    e = Estimate.within(value, fraction)
    assert e.low == pytest.approx(value / (1 + fraction))
    assert e.high == pytest.approx(value * (1 + fraction))
    negative = Estimate.within(-value, fraction)
    assert (negative.low, negative.high) == (-e.high, -e.low)


@given(SIZES)
def test_exact_has_no_width(value: float) -> None:
    assert ends(Estimate.exact(value)) == (value, value, value)
    assert Estimate.within(value, 0.0) == Estimate.exact(value)


@pytest.mark.parametrize(
    "bad", [(1, 2, 3), (3, 1, 2), (1, 3, 0), (math.nan, 0, 1), (1, math.nan, 2), (1, 0, math.nan)]
)
def test_what_is_no_interval(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="needs low <= value <= high"):
        Estimate(*bad)


def test_by_hand() -> None:
    a, b = Estimate.within(10, 0.25), Estimate(2, 1, 4)
    assert ends(a) == (10, 8, 12.5)
    assert (a + b, a * b) == (Estimate(12, 9, 16.5), Estimate(20, 8, 50))
    assert (b * 3, b / 2) == (Estimate(6, 3, 12), Estimate(1, 0.5, 2))
    assert Estimate.total([a, b, Estimate.exact(1)]) == Estimate(13, 10, 17.5)


def test_it_is_a_value() -> None:
    e = Estimate(2, 1, 4)
    assert len({e, Estimate(2.0, 1.0, 4.0)}) == 1
    assert Estimate.total([]) == Estimate.exact(0)
    with pytest.raises(FrozenInstanceError):
        e.value = 3  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        _ = e / 0
