"""Chips of one's own: begun from another, or from four figures."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from support import FOUR
from tenfold.chips import Chip, Kind, chip, names
from tenfold.chips.record import ROOFLINE_ERROR
from tenfold.chips.write import new_file
from tenfold.cli import app
from tenfold.errors import DataFileError, InputError, MissingFigure
from tenfold.evaluate.profiling import profile_bound
from tenfold.model import Sizes, load, prepare

runner = CliRunner(env={"COLUMNS": "160"})
LIKE = [n for n in names() if n != "host" and chip(n).kind is not Kind.LISTED]


@pytest.mark.parametrize("name", LIKE)
def test_a_copy_reads_back_and_takes_as_long(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(new_file("mine", chip(name)))
    assert path.read_text().count("# ") > 6
    mine = chip(str(path))
    assert mine.name == "mine"
    bound = prepare(load("resnet50"), Sizes(4))
    try:
        theirs = profile_bound(bound, chip(name)).run.time_s.value
    except MissingFigure:
        return  # energy of a chip whose power only its relatives tell
    try:
        ours = profile_bound(bound, mine).run.time_s.value
    except MissingFigure as error:
        assert "which its file does not give" in str(error) or "tdp" in str(error)
        return
    assert ours == pytest.approx(theirs, rel=0.05)


def test_the_command_writes_it_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, ["chips", "--new", "mine", "--like", "l4"])
    assert done.exit_code == 0
    assert tomllib.loads(Path("mine.toml").read_text())["calibration_from"] == "l4"
    for words, said in (
        (["--new", "mine", "--like", "l4"], "is there already"),
        (["--new", "../up", "--like", "l4"], "a name of letters"),
        (["--new", "other"], "takes two names"),
        (["l4", "--new", "other", "--like", "l4"], "takes two names"),
    ):
        with pytest.raises(InputError, match=said):
            runner.invoke(app, ["chips", *words], catch_exceptions=False)


def test_all_is_the_list() -> None:
    assert runner.invoke(app, ["chips", "all"]).stdout == runner.invoke(app, ["chips"]).stdout


def test_four_figures_are_a_chip(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FOUR)
    words = ["profile", "resnet50", "-c", str(path), "-b", "8", "--region", "us-central1"]
    said = runner.invoke(app, words).stdout
    assert "mine is a roofline: times within a factor of 2.5" in said
    assert "clock, units, vector_ops_per_cycle and L2" in said
    run = profile_bound(prepare(load("resnet50"), Sizes(8)), chip(str(path))).run
    assert run.time_s.high / run.time_s.value == pytest.approx(1 + ROOFLINE_ERROR)
    assert run.energy_j.low > 0
    planned = runner.invoke(
        app, ["plan", "resnet50", "--slo", "10ms", "--rate", "500", "-c", str(path)]
    )
    assert "x mine (one spare)" in planned.stdout


def test_what_is_missing_or_wrong_is_named_in_one_go(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = FOUR.replace("capacity", "capacty").replace("300 W", "-300 W").replace("[peak]", "[pek]")
    path.write_text(text)
    with pytest.raises(DataFileError) as caught:
        chip(str(path))
    for word in ("capacty", "tdp: must be above 0", "pek", "peak: a modelled chip needs one"):
        assert word in str(caught.value)


def _plain(record: Chip) -> Chip:
    """Of a chip that has a model, what a roofline would know."""
    kept = ("memory.capacity", "memory.bandwidth", "tdp")
    figures = {p: f for p, f in record.figures.items() if p.startswith("peak.") or p in kept}
    return replace(
        record,
        kind=Kind.ROOFLINE,
        figures=figures,
        levels=(),
        activation_level=None,
        calibration_from="",
        whole_weight_tiles=False,
    )


def test_nine_of_ten_lie_within_what_a_roofline_claims() -> None:
    """Against the chips' own models, from GPUs of 2017 to TPU v6e."""
    networks = [("resnet50", 1), ("resnet50", 32), ("bert-large", 1), ("bert-large", 16),
        ("vit-b16", 8), ("gnmt", 16)]  # fmt: skip
    bound = [prepare(load(n), Sizes(b)) for n, b in networks]
    factors = []
    for name in ("v100-sxm2", "t4", "a100-sxm-80", "h100-sxm", "l4", "tpu-v3", "tpu-v6e"):
        for b in bound:
            theirs, ours = (
                profile_bound(b, c).run.time_s.value for c in (chip(name), _plain(chip(name)))
            )
            factors.append(max(ours / theirs, theirs / ours))
    assert np.mean(np.array(factors) <= 1 + ROOFLINE_ERROR) >= 0.9


def test_a_missing_figure_of_ones_own_is_not_said_to_be_unpublished() -> None:
    bare = replace(chip("l4"), figures={})
    with pytest.raises(MissingFigure) as caught:
        bare.clock("time")
    assert "its file does not give" in str(caught.value)
