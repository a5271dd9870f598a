"""Money and carbon: tables load strictly, totals are sums, published sums come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenfold import carbon, economics
from tenfold.carbon import envelope, footprint, region_named, regions
from tenfold.chips import chip, names
from tenfold.economics import rent, rent_prices
from tenfold.errors import DataFileError, InputError, UnknownName
from tenfold.estimate import Estimate


def test_every_price_is_for_a_chip_of_the_catalogue_and_dated() -> None:
    for p in rent_prices():
        assert p.chip in names()
        assert p.date[:2] == "20"
        assert 0.1 < p.usd_per_s * 3600 < 20
        assert p.source


def test_rent_is_time_times_price_and_spans_providers() -> None:
    hour = Estimate.exact(3600.0)
    r = rent(chip("a100-sxm-80"), hour)
    assert r is not None
    assert r.price.provider == "Google Cloud"
    assert r.usd.value == pytest.approx(3.93)
    assert r.usd.low < 3.93 < r.usd.high
    assert rent(chip("tpu-v1"), hour) is None


@pytest.mark.parametrize("name", names())
def test_footprint_entries_sum_to_the_meter(name: str) -> None:
    energy = Estimate(3.6e6, 3.0e6, 4.0e6)
    f = footprint(chip(name), energy, "us-central1")
    assert f.energy_j.value == pytest.approx(sum(e.amount.value for e in f.energy))
    assert f.energy_j.value > energy.value
    assert f.kgco2e.value == pytest.approx(f.energy_j.value / 3.6e6 * 0.41272)
    assert f.kgco2e.low < f.kgco2e.value < f.kgco2e.high


def test_regions() -> None:
    assert len(regions()) >= 44  # Google's alone
    assert region_named("europe-north2").kgco2e_per_j * 3.6e6 == pytest.approx(0.00273)
    with pytest.raises(UnknownName, match="did you mean"):
        region_named("europe-north3")


def test_envelope_of_four_v100() -> None:
    e = envelope(1200.0, 24 * 3600.0, None)
    assert e.energy_j / 3.6e6 == pytest.approx(28.8)
    assert 12.3 < e.kgco2e < 12.4
    assert (round(e.ev_miles.low), round(e.ev_miles.high)) == (103, 115)
    for power, time in ((0.0, 1.0), (1.0, -1.0)):
        with pytest.raises(InputError, match="above 0"):
            envelope(power, time, None)


@pytest.mark.parametrize(
    ("module", "loader", "file", "extra"),
    [
        (economics, "rent_prices", "rent/2026.toml", '[[rent]]\nchip = "t4"\nprise = "1 USD/h"\n'),
        (
            carbon,
            "regions",
            "grids/google-2024.toml",
            (
                '[region.x]\nlocation = "X"\ngrid = "1 gCO2e/kWh"\ncarbon_free_share = 1.0\nnote ='
                ' "?"\n'
            ),
        ),
    ],
)
def test_data_files_are_read_strictly(
    module: object,
    loader: str,
    file: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Path(str(module.__file__)).parent / "data" / file  # type: ignore[attr-defined]
    changed = tmp_path / file
    changed.parent.mkdir()
    changed.write_text(data.read_text() + "\n" + extra)
    monkeypatch.setattr(module, "DATA", changed.parent if module is economics else tmp_path)
    read = getattr(module, loader)
    read.cache_clear()
    with pytest.raises(DataFileError, match=Path(file).stem):
        read()
    monkeypatch.undo()
    read.cache_clear()
    assert read()
