"""The proof: errors by area, held to a stored baseline, and the page that prints them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from support import VALIDATION, measured
from tenfold.errors import InputError, UnknownName
from tenfold.report.fidelity import fidelity_page
from tenfold.validation import NAMES, PUBLISHED, Row, bars, compare, data_folder, summaries

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ROOT / "tests" / "golden" / "fidelity.toml"
INTERVALS = (0.85, 0.95)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [r for n in NAMES for r in compare(n, VALIDATION)]


@measured
def test_no_area_is_worse_by_a_tenth(rows: list[Row], request: pytest.FixtureRequest) -> None:
    """A change that makes any summary worse moves the stored one in a deliberate commit (`make
    golden`).
    """
    now = {a: s.mape for a, s in summaries(rows).items()}
    if request.config.getoption("--golden"):
        BASELINE.write_text("".join(f'"{a}" = {v:.6g}\n' for a, v in now.items()), encoding="utf-8")
    before = msgspec.toml.decode(BASELINE.read_bytes(), type=dict[str, float])
    assert set(now) == set(before)
    worse = {a: (v, before[a]) for a, v in now.items() if v > before[a] * 1.1 + 1e-9}
    assert not worse


@measured
def test_the_page_is_current(rows: list[Row], tmp_path: Path) -> None:
    page = tmp_path / "fidelity.md"
    fidelity_page(page, rows)
    assert page.read_text() == (ROOT / "docs" / "fidelity.md").read_text(), (
        "run: tenfold validate --data DIR --write docs/fidelity.md"
    )
    assert all(
        (tmp_path / "fidelity" / p.name).is_file()
        for p in (ROOT / "docs" / "fidelity").glob("*.svg")
    )


@measured
@pytest.mark.parametrize("area", ["systolic cycles", "mapping efficiency", "energy per operation"])
def test_what_must_be_equal_is_equal(rows: list[Row], area: str) -> None:
    own = [r for r in rows if r.area == area]
    assert len(own) >= 18
    assert all(r.predicted == r.reference for r in own)


@measured
def test_intervals_hold_nine_of_ten(rows: list[Row]) -> None:
    """Over all held-out rows of kernels on chips with constants of their own; and no large area is
    far off.
    """
    known = [
        r
        for r in rows
        if r.inside is not None
        and not r.seen
        and "never calibrated" not in r.area
        and r.unit == "s"
    ]
    share = sum(bool(r.inside) for r in known) / len(known)
    assert INTERVALS[0] <= share <= INTERVALS[1]
    for area, s in summaries(known).items():
        if s.n >= 300:
            assert s.inside is not None
            assert 0.84 <= s.inside <= 0.98, area


@measured
@pytest.mark.parametrize("area", [b.area for b in bars().values() if not b.note])
def test_aims_that_are_met_stay_met(rows: list[Row], area: str) -> None:
    assert bars()[area].met(summaries(rows)[area])


@measured
def test_every_aim_names_an_area(rows: list[Row]) -> None:
    assert set(bars()) <= set(summaries(rows))


def test_published_tables_need_no_folder() -> None:
    for name in PUBLISHED:
        own = compare(name, None)
        assert own
        assert all(r.predicted > 0 or r.unit == "points" for r in own)
    assert compare("kernels", None) == []


def test_tpu_v1_counters_add_up() -> None:
    by_model: dict[str, float] = {}
    for r in compare("tpu-v1", None):
        if "counters" in r.area:
            model = r.case.split()[0]
            by_model[model] = by_model.get(model, 0.0) + r.predicted
    assert by_model
    assert all(v == pytest.approx(1.0) for v in by_model.values())


def test_design_sweeps_go_the_right_way() -> None:
    sweeps = {r.case: r for r in compare("tpu-v1", None) if "sweeps" in r.area}
    assert all(abs(r.error) <= 0.25 for r in sweeps.values())
    sizes = [r for r in compare("tpu-v4i", None) if "by CMEM size" in r.area]
    assert [r.predicted for r in sizes] == sorted(r.predicted for r in sizes)


def test_a_faulty_request() -> None:
    with pytest.raises(UnknownName, match="tpu-v1"):
        compare("tpu-1", None)
    with pytest.raises(InputError, match="no folder"):
        data_folder(Path("/nowhere/at/all"))


@measured
def test_alexnet_from_its_own_topology_file() -> None:
    """Every layer that it was run on; how much quicker is in `make bench`."""
    import csv

    from tenfold.scalesim import Dataflow, ScaleSimConfig, read_topology, report

    layers = read_topology((VALIDATION / "scalesim" / "topologies" / "alexnet.csv").read_text())
    with (VALIDATION / "scalesim" / "scalesim_v3_layers.csv").open() as file:
        known = {
            r["layer"].strip(): int(r["total_cycles"])
            for r in csv.DictReader(file)
            if r["topology"] == "alexnet"
        }
    ours = {
        layer.name: r.total_cycles
        for layer, r in zip(
            layers, report(ScaleSimConfig(128, 128, Dataflow.OS), layers), strict=True
        )
    }
    assert known.items() <= ours.items()
