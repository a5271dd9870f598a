"""Money as people pay it: whole instances, the region's own provider, one's own prices, and the way
that this user can get a chip.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tenfold
from tenfold.cli import app
from tenfold.economics import MONTH_S, Prices, Terms, list_prices, own_prices
from tenfold.economics.offers import Offer, current, rented
from tenfold.errors import DataFileError, InputError
from tenfold.facts import Status
from tenfold.planner import Conditions, Measure, Plan, Spare, Way

runner = CliRunner(env={"COLUMNS": "160"})


def offer(instance: str, chips: int, usd_per_hour: float, **more: str) -> Offer:
    return Offer(
        chip="h100-sxm",
        provider=more.get("provider", "A"),
        instance=instance,
        chips=chips,
        region=more.get("region", "r"),
        terms=Terms.ON_DEMAND,
        date=more.get("date", "2026-01"),
        usd_per_s=usd_per_hour / 3600,
        status=Status.ASSUMED,
        source="a test",
    )


EIGHTS = offer("eight", 8, 40.0)
ONES = offer("one", 1, 7.0)


@pytest.mark.parametrize(
    ("count", "offers", "shown", "usd", "chips"),
    [
        (3, [EIGHTS], "1 x eight", 40.0, 8),
        (9, [EIGHTS], "2 x eight", 80.0, 16),
        (9, [EIGHTS, ONES], "1 x eight + 1 x one", 47.0, 9),
        (5, [EIGHTS, ONES], "5 x one", 35.0, 5),
        (6, [EIGHTS, ONES], "1 x eight", 40.0, 8),
        (14, [EIGHTS, ONES], "2 x eight", 80.0, 16),
        (2, [offer("", 1, 3.0)], "by the chip", 6.0, 2),
        # an instance of another provider or region does not fill up one of this
        (9, [EIGHTS, offer("one", 1, 1.0, provider="B")], "9 x one", 9.0, 9),
        (9, [EIGHTS, offer("one", 1, 6.0, region="s")], "9 x one", 54.0, 9),
    ],
)
def test_instances_are_whole(
    count: int, offers: list[Offer], shown: str, usd: float, chips: int
) -> None:
    found = rented(offers, count)
    assert found is not None
    assert (found.shown, found.chips) == (shown, chips)
    assert found.usd_per_s * 3600 == pytest.approx(usd)


def test_the_newest_price_counts_and_one_by_the_chip_only_where_there_is_no_instance() -> None:
    old, new = offer("eight", 8, 99.0, date="2024-05"), EIGHTS
    by_chip = offer("", 1, 1.0, date="2026-09-01", region="Iowa")
    other = offer("", 1, 2.0, provider="B")
    assert set(current([new, old, by_chip, other])) == {new, other}


def test_a_region_is_let_by_its_own_cloud() -> None:
    """Lambda calls a place us-east-1 too."""
    prices = list_prices()
    found = prices.rented("a100-sxm-80", 8, "us-east-1")
    assert found is not None
    assert (found.provider, found.shown) == ("Amazon Web Services", "1 x p4de.24xlarge")
    assert found.usd_per_s * 3600 == pytest.approx(27.44705)
    anywhere = prices.rented("a100-sxm-80", 8, "FRA")
    assert anywhere is not None
    assert anywhere.usd_per_s <= found.usd_per_s
    spot = prices.rented("l4", 1, "us-east-1", Terms.SPOT)
    assert spot is not None
    assert all(x.offer.terms is Terms.SPOT for x in spot.lets)


OWN = """
provider = "ours"
[site]
pue = 1.05
electricity = "0.20 USD/kWh"
life = "5 years"
utilisation = 0.5
[[purchase]]
chip = "t4"
price = "900 USD"
[instance."two"]
chip = "l4"
chips = 2
price = { home = "0.4 USD/hour" }
committed = { home = "0.2 USD/hour" }
"""


def given(tmp_path: Path, text: str) -> Prices:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return own_prices(path)


def plan(by: Measure | None = None, region: str | None = "us-central1", **more: object) -> Plan:
    return tenfold.plan(
        "resnet50",
        slo_s=0.01,
        rate_per_s=4000,
        region=region,
        chips=["t4", "l4", "tpu-v5e", "tpu-v4i", "a100-sxm-80"],
        conditions=Conditions(by=by, **more),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def listed() -> Plan:
    return plan()


def test_the_default_is_the_cheapest_way_and_what_nobody_sells_is_last(listed: Plan) -> None:
    money = [o.usd_per_month.value for o in listed.options if o.usd_per_month]
    assert money == sorted(money)
    assert listed.options[-1].chip.name == "tpu-v4i"
    assert listed.options[-1].way is None
    (v5e,) = (o for o in listed.options if o.chip.name == "tpu-v5e")
    assert v5e.bought is not None
    assert v5e.bought.estimated
    assert v5e.way is Way.RENTED, "an estimate is nobody's offer"
    for o in listed.options[:-1]:
        owned = o.tco_usd_per_year.value / 12 if o.tco_usd_per_year and o.bought else None
        rent = o.rent_usd_per_month.value if o.rent_usd_per_month else None
        if o.bought is None or o.bought.estimated:
            owned = None
        assert o.usd_per_month is not None
        assert o.usd_per_month.value == min(x for x in (owned, rent) if x is not None)


@pytest.mark.parametrize("by", list(Measure))
def test_options_are_in_the_order_that_was_asked_for(by: Measure, listed: Plan) -> None:
    found = plan(by)
    amounts = [a.value for o in found.options if (a := o.amount(by))]
    assert amounts == sorted(amounts)
    known = [o.amount(by) is not None for o in found.options]
    assert known == sorted(known, reverse=True), "what lacks the measure is last"
    assert {o.chip.name for o in found.options} == {o.chip.name for o in listed.options}
    assert found.ranks == listed.ranks


def test_rent_is_whole_instances_for_a_month(listed: Plan) -> None:
    for o in listed.options:
        if o.rented is None:
            continue
        assert o.rented.chips >= o.count.value
        lets = sum(x.count * x.offer.usd_per_s for x in o.rented.lets)
        assert o.rent_usd_per_month is not None
        assert o.rent_usd_per_month.value == pytest.approx(lets * MONTH_S)


def test_own_prices_take_the_place_of_the_lists(tmp_path: Path, listed: Plan) -> None:
    found = plan(prices=given(tmp_path, OWN))
    by_name = {o.chip.name: o for o in found.options}
    before = {o.chip.name: o for o in listed.options}
    l4, t4 = by_name["l4"], by_name["t4"]
    assert l4.rented is not None
    assert l4.rented.shown.endswith("x two")
    assert t4.way is Way.OWNED, "900 dollars over five years are less than a month's rent each"
    assert t4.tco is not None
    entries = {e.what: e.amount.value for e in t4.tco.account}
    assert entries["chip"] == pytest.approx(900 / 5)
    # loaded to half of what they hold
    working = l4.count.value - l4.count.spare
    assert working == -(-4000 // (l4.limit_per_s * 0.5))
    assert working > before["l4"].count.value - before["l4"].count.spare
    # PUE is in the carbon too
    assert l4.carbon is not None
    parts = {e.what: e.amount.value for e in l4.carbon}
    rest = parts["chip"] + parts["host and board"]
    assert parts["cooling and power delivery"] == pytest.approx(0.05 * rest)
    committed = plan(prices=given(tmp_path, OWN), terms=Terms.COMMITTED)
    (only,) = (o for o in committed.options if o.rented)
    assert only.chip.name == "l4"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pue = 1.05", "pue = 0.5", "site.pue: must be at least 1, found 0.5"),
        ("utilisation = 0.5", "utilisation = 0", "site.utilisation: must be above 0"),
        ('"0.20 USD/kWh"', '"0.20 USD"', "site.electricity: '0.20 USD' has the unknown unit"),
        ('life = "5 years"', 'life = "0 years"', "site.life: must be above 0"),
        ("[site]", "[site]\npeu = 1", "unknown field `peu`"),
        ('chip = "t4"', 'chip = "t44"', "unknown chip 't44': did you mean t4"),
        ('"900 USD"', '"-900 USD"', "purchase of t4: must be above 0"),
        ("chips = 2", "chips = 0", "two: chips must be at least 1"),
        ('"0.4 USD/hour"', '"0.4 USD/day"', "two in home: '0.4 USD/day' has the unknown unit"),
    ],
)
def test_a_wrong_figure_of_ones_own_is_named(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in OWN
    with pytest.raises(DataFileError) as caught:
        given(tmp_path, OWN.replace(old, new, 1))
    assert message in str(caught.value)


def test_no_file_is_no_prices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        own_prices(tmp_path / "none.toml")


def test_spare_chips_are_a_number_or_a_share() -> None:
    assert [Spare(2).of(n) for n in (1, 50)] == [2, 2]
    assert [Spare(0).of(n) for n in (1, 50)] == [0, 0]
    assert [Spare(0, 0.1).of(n) for n in (1, 10, 11, 200)] == [1, 1, 2, 20]


def test_the_first_line_is_the_answer() -> None:
    words = [
        "plan",
        "resnet50",
        "--slo",
        "10ms",
        "--rate",
        "1000",
        "--region",
        "us-central1",
        "-c",
        "l4,t4",
    ]
    text = runner.invoke(app, words).stdout
    document = json.loads(runner.invoke(app, [*words, "--json"]).stdout)
    first = text.splitlines()[0]
    assert first == document["answer"]
    best = document["options"][0]
    assert first.startswith(f"{best['count']} x {best['chip']} (one spare), p99 ")
    assert f"${best['usd_per_month']:,.0f}" in first
    assert "a month rented" in first
    assert "kgCO2e a month" in first
    assert document["oldest_price"] in text
    assert any("[1 x 3 x 224 x 224]" in line for line in document["assumed"])
    assert any("bf16" in line or "fp16" in line for line in document["assumed"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "price"], "--by is one of rent, tco, carbon, energy, capex, got 'price'"),
        (["--terms", "lease"], "--terms is one of on-demand, spot, committed, got 'lease'"),
        (["--spare", "-1"], "--spare is a number of chips"),
        (["--spare", "0%"], "--spare as a share is above 0 %"),
        (["--spare", "150%"], "--spare as a share is above 0 %"),
        (["--set", "clock=2x"], "--set changes a figure of the chips named with --chip"),
        (["--phase", "decode"], "a token of --phase decode is none"),
    ],
)
def test_what_a_plan_cannot_be_asked(words: list[str], message: str) -> None:
    call = ["plan", "gpt2", "--slo", "10ms", "--rate", "10", *words]
    with pytest.raises(InputError) as caught:
        runner.invoke(app, call, catch_exceptions=False)
    assert message in str(caught.value)


def test_a_network_that_generates_says_what_an_item_is() -> None:
    words = ["plan", "gpt2", "--slo", "100ms", "--rate", "10", "-c", "l4"]
    text = runner.invoke(app, words).stdout
    assert "[1 x 128]" in text
    assert "(assumed)" in text
    assert "an item is not an answer of many tokens" in text
