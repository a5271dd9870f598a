"""Numbers as people write them: three digits, one unit for a figure and its interval."""

from __future__ import annotations

from tenfold.estimate import Estimate
from tenfold.units import scale_of


def short(x: float) -> str:
    """Three significant digits, all of them before the point where there are more: 1,037 or 0.0882;
    never with an exponent down to a millionth.
    """
    if x == 0 or abs(x) >= 100:
        return f"{x:,.0f}"
    if abs(x) < 1e-6:
        return f"{x:.2g}"
    text = f"{x:.8f}"
    digits = len(text.split(".")[1]) - len(text.split(".")[1].lstrip("0"))
    whole = len(str(int(abs(x)))) if abs(x) >= 1 else 0
    decimals = max(0, 3 - whole) if whole else digits + 3
    return f"{x:,.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{x:,.0f}"


def ranged(e: Estimate, scale: float = 1.0) -> str:
    """``0.667 (0.592-0.8)``; only the value, where the interval shows the same."""
    value, low, high = (short(x * scale) for x in (e.value, e.low, e.high))
    return value if low == value == high else f"{value} ({low}-{high})"


def with_unit(e: Estimate, unit: str) -> str:
    """``1.66 ms (0.879-3.53)``: the interval in the unit of the value."""
    scale, prefix = scale_of(e.value)
    value, low, high = (short(x / scale) for x in (e.value, e.low, e.high))
    interval = "" if low == value == high else f" ({low}-{high})"
    return f"{value} {prefix}{unit}{interval}"


def counted(n: int, what: str, many: str = "") -> str:
    """``1 spare``, ``2 spares``."""
    return f"{n:,} {what if n == 1 else many or what + 's'}"
