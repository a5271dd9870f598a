"""`tenfold simulate`: scenario files in, tenants' p99 out; what cannot be is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tenfold.cli import app
from tenfold.errors import InputError
from tenfold.scenario import SHIPPED, energy_j, read_scenario, ready, run, shipped

runner = CliRunner(env={"COLUMNS": "160"})
DOCS = Path(__file__).resolve().parents[1] / "docs"
BASE = """
name = "base"
duration = "2 s"
[[model]]
name = "m"
times = { 1 = "1 ms", 8 = "3 ms" }
[[tenant]]
name = "t"
[[tenant.stream]]
model = "m"
slo = "20 ms"
arrivals = { kind = "poisson", rate = "300 /s" }
"""


def written(folder: Path, text: str = BASE) -> Path:
    path = folder / "scenario.toml"
    path.write_text(text)
    return path


def document(*words: str) -> Any:
    done = runner.invoke(app, ["simulate", *words, "--json"])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return json.loads(done.stdout)


def test_the_keys_that_scripts_rely_on(tmp_path: Path) -> None:
    found = document(str(written(tmp_path)))
    assert {"name", "p50_s", "p99_s", "goodput_per_s", "rejected", "mean_batch"} <= set(
        found["tenants"][0]
    )
    assert 0 < found["utilisation"] < 1
    assert found["total"]["offered"] == found["total"]["answered"] + found["total"]["rejected"]
    assert "energy_j" not in found  # times without a chip have no joules
    assert document("mixed")["energy_j"] > 0


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios_run_and_say_what_they_are(name: str) -> None:
    assert shipped(name).name == name
    assert len(shipped(name).note) > 20


def test_the_scenario_of_the_docs_runs(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (DOCS / "serving.md").read_text(), re.S)
    found = document(str(written(tmp_path, text)), "--explain", "2")
    assert [t["name"] for t in found["tenants"]] == ["backfill", "photos"]
    assert all(t["p99_over_slo"] <= 1 for t in found["tenants"])
    assert len(found["releases"]) == 2


@pytest.mark.parametrize("policy", ["fixed", "delay", "aimd", "clockwork"])
def test_other_policies_run(tmp_path: Path, policy: str) -> None:
    found = document(str(written(tmp_path)), "--policy", policy)
    assert found["policy"] == policy
    assert found["total"]["answered"] > 0


def test_energy_is_batches_and_idle_time() -> None:
    given = ready(shipped("mixed"))
    log, _ = run(given)
    busy = sum(b.ended_s - b.began_s for b in log.batches)
    joules, longer = (energy_j(given, log, log.ended_s + s) for s in (0.0, 10.0))
    assert joules is not None
    assert longer is not None
    assert longer - joules == pytest.approx(10 * 55)  # TPU v4i's published idle power
    assert joules / busy < 175  # watts while busy stay under the TDP


def test_traces_are_read_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(
        "arrival_s\n" + "\n".join(f"{0.01 * i:.3f}" for i in range(100))
    )
    text = BASE.replace(
        '{ kind = "poisson", rate = "300 /s" }', '{ kind = "trace", file = "trace.csv" }'
    )
    assert document(str(written(tmp_path, text)))["total"]["offered"] == 100


def test_versions_and_shadows(tmp_path: Path) -> None:
    text = BASE.replace(
        "[[tenant]]",
        '[[model]]\nname = "n"\ntimes = { 1 = "1 ms" }\n[[version]]\nof = "live"\nmodel ='
        ' "m"\nshare = 0.8\n[[version]]\nof = "live"\nmodel = "n"\nshare = 0.2\n[[tenant]]',
        1,
    ).replace('model = "m"\nslo', 'model = "live"\nslo')
    found = document(str(written(tmp_path, text)))
    assert found["total"]["in_time"] == found["total"]["offered"]


def test_the_page_is_whole(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    assert (
        runner.invoke(app, ["simulate", str(written(tmp_path)), "--html", str(page)]).exit_code == 0
    )
    text = page.read_text()
    assert text.count("<svg") == 4
    assert "all that were waiting" in text


def test_a_comparison_has_every_policy(tmp_path: Path) -> None:
    found = document(str(written(tmp_path)), "--compare")
    assert [s["policy"] for s in found["compared"]] == [
        "slo",
        "fixed",
        "delay",
        "aimd",
        "clockwork",
    ]
    assert all(s["goodput_per_s"] > 0 for s in found["compared"])


def test_a_closed_loop_that_is_refused_waits_before_it_tries_again(tmp_path: Path) -> None:
    text = BASE.replace(
        '{ kind = "poisson", rate = "300 /s" }', '{ kind = "closed", clients = 64 }'
    ).replace('"20 ms"', '"5 ms"')
    found = document(str(written(tmp_path, text)))
    assert found["total"]["answered"] > 1000
    assert found["total"]["offered"] < 64 * 2 / 1e-3 + 64


CANNOT = [
    ("[[tenant]]", '[[version]]\nof = "x"\nmodel = "m"\nshare = 1\nshadow = true\n[[tenant]]',
    "with a sum above 0"), ('duration = "2 s"', 'duration = "2 s"\nseed = -1',
    "a seed is 0 to"), ('rate = "300 /s"', 'rate = "0 /s"', "rate must be above 0, got 0"),
    ('rate = "300 /s"', 'rate = "1e30 /s"', "more than the 100,000,000 that a run"),
    ('kind = "poisson"', 'kind = "on-off"',
    "missing required field `on`; they have rate, on, off, off_rate"), ('rate = "300 /s"',
    'rate = "300 /s", cv = 2', "kind poisson: Object contains unknown field `cv`: it may have rate"), ("[[tenant]]",
    '[policy]\nkind = "delay"\nqueue = -1\n[[tenant]]', "queue must be at least 1, got -1"),
    ('rate = "300 /s"', 'rate = "-3 /s"', "rate must be above 0, got -3"), ('rate = "300 /s"',
    'rate = "300"', "tenant 't': '300' has no unit"), ('slo = "20 ms"', 'slo = "0.5 ms"',
    "the least possible SLO is 1 ms"), ('slo = "20 ms"', 'slo = "0 ms"', "an SLO is of a nanosecond to a year"),
    ('model = "m"', 'model = "n"', "unknown model 'n'"), ('name = "t"\n',
    'name = "t"\nweight = 0\n', "needs a weight above 0 and finite, got 0"), ("[[tenant]]",
    '[[tenant]]\nname = "t"\n[[tenant.stream]]\nmodel = "m"\nslo = "20 ms"\n'
    'arrivals = { kind = "poisson", rate = "1 /s" }\n[[tenant]]', "tenant 't' is there 2 times"),
    ("[[tenant]]", '[[version]]\nof = "x"\nmodel = "m"\nshare = 0\n[[tenant]]',
    "with a sum above 0"), ('kind = "poisson"', 'kind = "possion"',
    "unknown kind of arrivals 'possion': did you mean poisson"),
    ('kind = "poisson", rate = "300 /s"', 'kind = "trace", file = "none.csv"',
    "cannot read"), ('kind = "poisson", rate = "300 /s"',
    'kind = "closed", clients = 0', "at least one of clients"), ('duration = "2 s"', 'duration = "2 s"\nwarm_up = "3 s"',
    "lasts longer than its warm-up"), ('duration = "2 s"', 'duration = "2 s"\nspeed = 3',
    "unknown field `speed`"), ('times = { 1 = "1 ms", 8 = "3 ms" }',
    'times = { 1 = "1 ms" }\nnetwork = "resnet50"', "either a network or times"),
    ('times = { 1 = "1 ms", 8 = "3 ms" }', 'network = "resnet50"', "needs a chip"),
    ('times = { 1 = "1 ms", 8 = "3 ms" }', 'times = { 0 = "1 ms" }',
    "a whole number of 1 to"), ('times = { 1 = "1 ms", 8 = "3 ms" }',
    'times = { 1 = "1 ms" }\nseq = 128\nlargest = 8', "nothing reads its seq"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), CANNOT)
def test_what_cannot_be_is_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in BASE
    done = runner.invoke(app, ["simulate", str(written(tmp_path, BASE.replace(old, new, 1)))])
    assert isinstance(done.exception, InputError), done.output
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_model_over_the_budget(tmp_path: Path) -> None:
    text = BASE.replace("[[model]]", 'memory = "1 MB"\n[[model]]', 1).replace(
        '8 = "3 ms" }', '8 = "3 ms" }\nweights = "2 MB"'
    )
    with pytest.raises(InputError, match=r"takes 2 MB, more than the memory budget of 1 MB"):
        run(ready(read_scenario(written(tmp_path, text))))


@pytest.mark.parametrize("memory", ["0 B", "0 GB", "-1 GB"])
def test_no_memory_at_all_is_not_all_of_it(tmp_path: Path, memory: str) -> None:
    text = BASE.replace("[[model]]", f'memory = "{memory}"\n[[model]]', 1)
    with pytest.raises(InputError, match="memory holds more than 0 B|must|negative"):
        read_scenario(written(tmp_path, text))


@pytest.mark.parametrize("words", [[], ["mixd"], ["nothing.toml"], ["mixed", "--policy", "sloo"]])
def test_names_that_are_none(words: list[str]) -> None:
    assert isinstance(runner.invoke(app, ["simulate", *words]).exception, InputError)
