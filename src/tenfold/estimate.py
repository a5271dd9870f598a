"""A predicted quantity with its interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the interval it is expected in (``low <= value <= high``), all in one SI unit.

    Sums and products assume full correlation, so that intervals never shrink by adding:
    model errors of one chip and one kind of kernel do not average out.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(
                f"an estimate needs low <= value <= high, got {self.low}, {self.value}, {self.high}"
            )

    @staticmethod
    def exact(value: float) -> Estimate:
        return Estimate(value, value, value)

    @staticmethod
    def within(value: float, fraction: float) -> Estimate:
        """``value`` that may be off by ``fraction`` as a factor: value/(1+f) … value*(1+f)."""
        ends = sorted((value / (1 + fraction), value * (1 + fraction)))
        return Estimate(value, ends[0], ends[1])

    @staticmethod
    def total(parts: Iterable[Estimate]) -> Estimate:
        value = low = high = 0.0
        for part in parts:
            value, low, high = value + part.value, low + part.low, high + part.high
        return Estimate(value, low, high)

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, other: Estimate | float) -> Estimate:
        """Product of non-negative quantities."""
        if isinstance(other, Estimate):
            return Estimate(self.value * other.value, self.low * other.low, self.high * other.high)
        ends = sorted((self.low * other, self.high * other))
        return Estimate(self.value * other, ends[0], ends[1])

    def __truediv__(self, other: float) -> Estimate:
        return self * (1.0 / other)
