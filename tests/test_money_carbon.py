"""Money and carbon: tables load strictly, totals are sums, published sums come out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from tenfold import carbon, economics
from tenfold.carbon import envelope, footprint, region_named, regions
from tenfold.chips import chip, names
from tenfold.economics import Terms, list_prices, rent
from tenfold.economics.offers import read_offers
from tenfold.errors import DataFileError, InputError, UnknownName
from tenfold.estimate import Estimate


def test_every_price_is_for_a_chip_of_the_catalogue_and_dated() -> None:
    offers = list_prices().offers
    assert len(offers) > 500
    for o in offers:
        assert o.chip in names()
        assert o.date[:2] == "20"
        assert o.source
        if o.terms is Terms.ON_DEMAND:
            assert 0.1 < o.usd_per_chip_s * 3600 < 20, o
        assert o.usd_per_chip_s * 3600 > 0.02, o


def test_rent_is_time_times_price_and_spans_providers() -> None:
    hour = Estimate.exact(3600.0)
    here = rent(chip("a100-sxm-80"), hour, "us-east-1")
    assert here is not None
    assert (here.price.provider, here.price.instance) == ("Amazon Web Services", "p4de.24xlarge")
    assert here.usd.value == pytest.approx(27.44705 / 8)
    assert here.usd.low < here.usd.value < here.usd.high
    anywhere = rent(chip("a100-sxm-80"), hour)
    assert anywhere is not None
    assert anywhere.usd.value == anywhere.usd.low == here.usd.low
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


@pytest.mark.parametrize(
    ("name", "location", "cloud", "grid"),
    [
        ("us-east-1", "Virginia", "Amazon Web Services", "us-east4"),
        ("eu-west-1", "Ireland", "Amazon Web Services", "IRL"),
        ("westeurope", "Netherlands", "Microsoft Azure", "europe-west4"),
        ("West Europe", "Netherlands", "Microsoft Azure", "europe-west4"),
        ("FR", "France", "", "FRA"),
        ("FRA", "France", "", "FRA"),
        ("france", "France", "", "FRA"),
        ("Switzerland", "Switzerland", "", "CHE"),
    ],
)
def test_names_of_other_clouds_and_countries_are_the_grid_of_the_place(
    name: str, location: str, cloud: str, grid: str
) -> None:
    found = region_named(name)
    assert (found.location, found.cloud) == (location, cloud)
    assert found.kgco2e_per_j == regions()[grid].kgco2e_per_j


def test_a_place_of_several_regions_and_an_unknown_one_say_whose_they_are() -> None:
    with pytest.raises(InputError, match=r"europe-west9 \(Google Cloud, Paris\), eu-west-3"):
        region_named("paris")
    with pytest.raises(UnknownName, match=r"eu-west-3 \(Amazon Web Services, Paris\)"):
        region_named("eu-west-99")


def test_envelope_of_four_v100() -> None:
    e = envelope(1200.0, 24 * 3600.0, None)
    assert e.energy_j / 3.6e6 == pytest.approx(28.8)
    assert 12.3 < e.kgco2e < 12.4
    assert (round(e.ev_miles.low), round(e.ev_miles.high)) == (103, 115)
    for power, time in ((0.0, 1.0), (1.0, -1.0)):
        with pytest.raises(InputError, match="above 0"):
            envelope(power, time, None)


@pytest.mark.parametrize(
    ("module", "file", "extra"),
    [
        (economics, "rent/2026.toml", '[[rent]]\nchip = "t4"\nprise = "1 USD/h"\n'),
        (economics, "rent/aws.toml", '[instance.x]\nchip = "t4"\nchips = 1\nprise = {}\n'),
        (
            carbon,
            "grids/google-2024.toml",
            (
                '[region.x]\nlocation = "X"\ngrid = "1 gCO2e/kWh"\ncarbon_free_share = 1.0\nnote ='
                ' "?"\n'
            ),
        ),
    ],
)
def test_data_files_are_read_strictly(
    module: ModuleType, file: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(str(module.__file__)).parent / "data" / file
    changed = tmp_path / file
    changed.parent.mkdir()
    changed.write_text(data.read_text() + "\n" + extra)
    monkeypatch.setattr("tenfold.carbon.grids.DATA", tmp_path)
    read = partial(read_offers, changed.parent) if module is economics else regions.__wrapped__
    with pytest.raises(DataFileError, match=Path(file).stem):
        read()
