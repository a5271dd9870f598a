"""Units: every table, prefixes that are never confused, refusals that say what is allowed, and
numbers shown for people.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold import units
from tenfold.errors import UnitError
from tenfold.units import Dimension

DIMENSIONS = sorted(units._TABLES)
DECIMAL = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
ALL = [
    (dimension, unit, factor)
    for dimension in DIMENSIONS
    for unit, factor in units._TABLES[dimension].items()
]
NUMBERS = st.floats(1e-6, 1e6, allow_subnormal=False)


@pytest.mark.parametrize(
    ("dimension", "unit", "factor"), ALL, ids=[f"{d}-{u or 'none'}" for d, u, _ in ALL]
)
def test_every_unit_of_every_dimension(dimension: str, unit: str, factor: float) -> None:
    """With and without a space, with signs and exponents."""
    for text, number in (
        ("2.5", 2.5),
        (".5", 0.5),
        ("7.", 7.0),
        ("+3", 3.0),
        ("-1.5e-3", -1.5e-3),
        ("4E2", 400.0),
    ):
        for written in (f"{text} {unit}", f"{text}{unit}", f"  {text}  {unit}\t"):
            assert units.parse(written, Dimension(dimension)) == pytest.approx(
                number * factor, rel=1e-15
            )


@pytest.mark.parametrize("prefix", DECIMAL)
def test_decimal_and_binary_prefixes_differ(prefix: str) -> None:
    decimal = DECIMAL[prefix]
    assert units.parse(f"1 {prefix}B", Dimension.BYTES) == decimal
    assert (
        units.parse(f"8 {prefix}bit/s", Dimension.BYTES_PER_S)
        == units.parse(f"1 {prefix}B/s", Dimension.BYTES_PER_S)
        == decimal
    )
    binary = prefix.upper() + "iB"
    if prefix in "kMGT":
        power = 10 * ("kMGT".index(prefix) + 1)
        assert (
            units.parse(f"1 {binary}", Dimension.BYTES)
            == units.parse(f"1 {binary}/s", Dimension.BYTES_PER_S)
            == 2.0**power
        )


@pytest.mark.parametrize(
    ("same", "as_", "dimension"),
    [
        ("1 h", "60 min", "time_s"),
        ("1 d", "24 hours", "time_s"),
        ("3 us", "3 µs", "time_s"),
        ("1000 ns", "1 us", "time_s"),
        ("1 kWh", "3.6 MJ", "energy_j"),
        ("1000 pJ", "1 nJ", "energy_j"),
        ("1 cm2", "100 mm2", "area_m2"),
        ("1 TOPS", "1 TFLOPS", "flops_per_s"),
        ("1 TFLOP/s", "1000 GOP/s", "flops_per_s"),
        ("1 kg/kWh", "1000 gCO2e/kWh", "kgco2e_per_j"),
        ("0.4 kgCO2e/kWh", "400 g/kWh", "kgco2e_per_j"),
        ("60 /min", "1 /s", "rate_per_s"),
        ("3600 /h", "1 /s", "rate_per_s"),
        ("4 USD/h", "4 USD/chip-hour", "usd_per_s"),
        ("5 $", "5 USD", "usd"),
        ("25 %", "0.25", "fraction"),
        ("16 G", "16000 M", "count"),
        ("1 kHz", "1000 Hz", "frequency_hz"),
        ("512 bytes", "0.5 KiB", "bytes"),
    ],
)
def test_two_ways_to_write_it(same: str, as_: str, dimension: str) -> None:
    assert units.parse(same, Dimension(dimension)) == pytest.approx(
        units.parse(as_, Dimension(dimension)), rel=1e-14
    )


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("10ms", "time_s", 0.01),
        ("2 h", "time_s", 7200),
        ("28 MiB", "bytes", 28 * 2**20),
        ("16 GB", "bytes", 16e9),
        ("1.2 kW", "power_w", 1200),
        ("400 W", "power_w", 400),
        ("0.429 kg/kWh", "kgco2e_per_j", 0.429 / 3.6e6),
        ("412.72 gCO2e/kWh", "kgco2e_per_j", 0.41272 / 3.6e6),
        ("614 GB/s", "bytes_per_s", 614e9),
        ("400 Gbit/s", "bytes_per_s", 50e9),
        ("92 TOPS", "flops_per_s", 92e12),
        ("1050 MHz", "frequency_hz", 1.05e9),
        ("7 nm", "length_m", 7e-9),
        ("3.22 USD/chip-hour", "usd_per_s", 3.22 / 3600),
        ("20 %", "fraction", 0.2),
        ("0.2", "fraction", 0.2),
        ("1e3 GB", "bytes", 1e12),
        ("545 mm2", "area_m2", 545e-6),
    ],
)
def test_published_figures(text: str, dimension: str, value: float) -> None:
    assert units.parse(text, Dimension(dimension)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "dimension", "message"),
    [
        ("10 GB", "power_w", "unknown unit 'GB' for power_w: .*allowed are .*W"),
        ("ten W", "power_w", "'ten W' is not a number with a unit"),
        ("", "bytes", "is not a number with a unit"),
        ("5 gb", "bytes", "unknown unit 'gb' for bytes: .*allowed are .*GB, GiB"),
        ("5 Gb", "bytes", "unknown unit 'Gb'"),
        ("5 KB", "bytes", "unknown unit 'KB'"),
        ("5 GB", "bytes_per_s", "unknown unit 'GB' for bytes_per_s: .*allowed are .*GB/s"),
        ("5 GB/S", "bytes_per_s", "unknown unit 'GB/S'"),
        ("5 mW", "energy_j", "unknown unit 'mW'"),
        ("5 MFLOPS", "flops_per_s", "unknown unit 'MFLOPS'"),
        ("1,5 W", "power_w", "unknown unit ',5 W'"),
        ("1 000 W", "power_w", "unknown unit '000 W'"),
        ("5e W", "power_w", "unknown unit 'e W'"),
        ("0x10 W", "power_w", "unknown unit 'x10 W'"),
        ("5 W each", "power_w", "unknown unit 'W each'"),
        ("5", "time_s", "'5' has no unit for time_s: .*allowed are .*ms"),
        ("0.3kw", "power_w", r"did you mean '0.3kW'\?"),
        ("5 sec", "time_s", r"did you mean '5s'\?"),
        ("2 Hours", "time_s", r"did you mean '2hours'\?"),
        ("300gb/s", "bytes_per_s", r"did you mean '300GB/s'\?"),
        # no number at all where the unit is none that is spelt otherwise
        ("1k/s", "rate_per_s", r"for rate_per_s: \(allowed are"),
        ("3 mw", "power_w", r"for power_w: \(allowed are"),
        ("W", "power_w", "'W' is not a number with a unit: write for example '10 W'"),
        ("nan W", "power_w", "'nan W' is not a number"),
        ("inf s", "time_s", "'inf s' is not a number"),
        ("--5 W", "power_w", "is not a number"),
        ("5 %", "count", "unknown unit '%'"),
        (" ", "fraction", "is not a number"),
    ],
)
def test_refusals(text: str, dimension: str, message: str) -> None:
    with pytest.raises(UnitError, match=message) as caught:
        units.parse(text, Dimension(dimension))
    assert "\n" not in str(caught.value)


@given(NUMBERS, st.sampled_from(["s", "J", "W", "B", "FLOPS"]), st.integers(2, 6))
def test_shown_numbers_are_near_and_short(value: float, unit: str, digits: int) -> None:
    shown = units.show(value, unit, digits)
    match = re.fullmatch(r"([\d.]+) ([nµmkMG]?)" + unit, shown)
    assert match, shown
    back = float(match[1]) * units._SI[match[2]]
    assert back == pytest.approx(value, rel=10.0 ** (1 - digits))
    assert 0.99 <= float(match[1]) <= 1000
    assert units.show(-value, unit, digits) == "-" + shown


@given(
    st.floats(1e-3, 9e2), st.sampled_from([("s", "time_s"), ("W", "power_w"), ("J", "energy_j")])
)
def test_what_is_shown_can_be_read(value: float, kind: tuple[str, str]) -> None:
    unit, dimension = kind
    assert units.parse(units.show(value, unit, 6), Dimension(dimension)) == pytest.approx(
        value, rel=1e-5
    )


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.0, "J", "0 J"),
        (float("nan"), "J", "nan J"),
        (1e-3, "J", "1.00 mJ"),
        (123.4, "J", "123 J"),
        (12.34, "J", "12.3 J"),
        (1.234, "J", "1.23 J"),
        (5e18, "J", "5.00 EJ"),
        (0.0123, "s", "12.3 ms"),
        (1.0, "s", "1.00 s"),
        (999.9e-6, "s", "1.00 ms"),
        (0.0, "s", "0 s"),
        (4.56e-10, "s", "456 ps"),
        (7200, "s", "7.20 ks"),
        (99.96, "s", "100 s"),
        (9.996, "s", "10.0 s"),
        (float("inf"), "s", "inf s"),
    ],
)
def test_shown_exactly(value: float, unit: str, shown: str) -> None:
    assert units.show(value, unit) == shown
