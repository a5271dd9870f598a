"""What holds a run back, advice that is true when followed, and the page."""

from __future__ import annotations

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenfold.chips import chip
from tenfold.cli import app
from tenfold.compiler import Options
from tenfold.errors import InputError
from tenfold.evaluate.advice import advise, bottleneck
from tenfold.evaluate.profiling import profile_bound
from tenfold.machine.energy import power_limit
from tenfold.model import Sizes, load, prepare
from tenfold.report.tables import alike


@pytest.mark.parametrize(
    ("model", "phase", "on", "unit"),
    [
        ("llama-2-7b", "decode", "tpu-v4", "off-chip memory"),
        ("vgg19", None, "a100-sxm-80", "matrix unit"),
        ("bert-large", None, "tpu-v4", "matrix unit"),
        ("squeezenet", None, "a100-sxm-80", "launches"),
        ("bert-large", None, "t4", "power limit"),
        ("tpu-v1-mlp0", None, "tpu-v1", "off-chip memory"),
    ],
)
def test_the_bottleneck_is_what_it_should_be(
    model: str, phase: str | None, on: str, unit: str
) -> None:
    sizes = Sizes(
        batch=64 if model == "vgg19" else 8 if model == "bert-large" else 1,
        seq=384 if model == "bert-large" else 128 if phase else None,
    )
    run = profile_bound(prepare(load(model, phase), sizes), on).run
    found = bottleneck(run.program, chip(on))
    assert found[0].unit == unit
    assert all(-1e-9 <= r.gain < 1 for r in found)
    units = {"off-chip memory", "matrix unit", "vector unit", "launches"}
    limited = {"power limit"} if power_limit(chip(on)) is not None else set()
    assert {r.unit for r in found} == units | limited


def test_a_limit_that_holds_nothing_back_gains_nothing() -> None:
    """Memory-bound decode draws less than an A100 may."""
    run = profile_bound(prepare(load("llama-2-7b", "decode"), Sizes(1, 128)), "a100-sxm-80").run
    gains = {r.unit: r.gain for r in bottleneck(run.program, chip("a100-sxm-80"))}
    assert gains["power limit"] == pytest.approx(0, abs=1e-6)


def test_advice_comes_true_when_followed() -> None:
    graph, v4i = load("resnet50"), chip("tpu-v1")
    sizes = Sizes(batch=2)
    given = advise(graph, sizes, v4i, v4i.storage(None), Options(("fuse",)))
    assert {a.do for a in given} >= {"batch 4", "the compiler step 'fuse'"}
    before = (
        profile_bound(prepare(graph, sizes), "tpu-v1", options=Options(("fuse",))).run.time_s.value
        / 2
    )
    batch = next(a for a in given if a.do == "batch 4")
    after = (
        profile_bound(
            prepare(graph, Sizes(batch=4)), "tpu-v1", options=Options(("fuse",))
        ).run.time_s.value
        / 4
    )
    assert 1 - after / before == pytest.approx(batch.gain)
    fused = next(a for a in given if "fuse" in a.do)
    assert 1 - profile_bound(
        prepare(graph, sizes), "tpu-v1"
    ).run.time_s.value / 2 / before == pytest.approx(fused.gain)


def test_json_has_bottleneck_and_advice_for_one_run_only() -> None:
    one = json.loads(
        CliRunner().invoke(app, ["profile", "squeezenet", "-c", "t4", "--json"]).stdout
    )
    assert one["runs"][0]["bottleneck"][0]["gain"] > 0
    assert one["runs"][0]["advice"][0]["do"]
    two = json.loads(
        CliRunner().invoke(app, ["profile", "squeezenet", "-c", "t4,l4", "--json"]).stdout
    )
    assert "advice" not in two["runs"][0]


class _Page(HTMLParser):
    """Tags that open and close, and what could reach out of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.svgs = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        assert not any(name in ("src", "href") for name, _ in attrs)
        self.svgs += tag == "svg"
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_shows_every_chart(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    done = CliRunner().invoke(
        app,
        [
            "profile",
            "resnet50",
            "-c",
            "tpu-v4i,a100-sxm-80",
            "-b",
            "4",
            "--html",
            str(path),
            "--region",
            "us-central1",
        ],
    )
    assert done.exit_code == 0
    text = path.read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.open == []
    # two that compare; time, energy, roofline, memory for each of two runs
    assert page.svgs == 10
    for number in re.findall(r' (?:x|y|width|height|cx|cy|r|x1|y1|x2|y2)="([^"]+)"', text):
        assert float(number) == float(number), number
    assert "where the joules go" in text
    assert "gCO2e a million" in text


def test_the_charts_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    path = tmp_path / "charts.png"
    words = ["profile", "squeezenet", "-c", "tpu-v4i", "--png", str(path)]
    assert CliRunner().invoke(app, words).exit_code == 0
    with Image.open(path) as picture:
        assert picture.size == (1440, 840)
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        InputError, match=r"--png needs matplotlib: pip install 'tenfold\[charts\]'"
    ):
        CliRunner().invoke(app, words, catch_exceptions=False)
    done = CliRunner().invoke(app, [*words, "--json"])
    assert "runs" in json.loads(done.stdout), "the answer stays though the picture cannot be made"


def test_names_from_the_file_cannot_break_the_page() -> None:
    from dataclasses import replace

    from tenfold.report.html import profile_page

    p = profile_bound(prepare(load("squeezenet"), Sizes()), "tpu-v4i")
    evil = "</title><script>alert(1)</script>"
    program = replace(
        p.run.program,
        model=evil,
        memory=replace(
            p.run.program.memory,
            near=tuple(replace(b, name=evil) for b in p.run.program.memory.near),
        ),
    )
    kernels = tuple(replace(k, kernel=replace(k.kernel, name=evil)) for k in p.run.kernels)
    text = profile_page(
        [replace(p, run=replace(p.run, program=program, kernels=kernels))], [evil], [evil]
    )
    assert "<script>" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["profile", "squeezenet", "-c", "t4", "--without", "fusee"],
            "unknown pass 'fusee': did you mean fuse",
        ),
        (
            ["profile", "bert-base", "-c", "t4", "--phase", "decode"],
            "bert-base has no phase 'decode'",
        ),
        (
            ["profile", "squeezenet", "-c", "t4,l4", "--trace", "t.json"],
            "--trace takes one chip and one batch, got 2 runs",
        ),
        (
            ["profile", "squeezenet", "-c", "t4", "--html", "/no/such/folder/p.html"],
            "cannot write /no/such/folder/p.html",
        ),
        (["compile", "squeezenet"], "compile takes a model and a chip"),
        (["compile", "squeezenet", "-c", "tpu-v9"], "unknown chip 'tpu-v9'"),
        (["profile", "gpt2", "-c", "t4", "--quality"], "quality needs the weights"),
        (["profile", "squeezenet", "-c", "epyc-9654", "--quality"], "nothing to check in fp32"),
        (["profile", "squeezenet", "-c", "t4", "--inputs", "x.npz"], "--inputs are for --quality"),
        (["profile", "squeezenet", "-c", ""], "--chip needs the name of at least one chip"),
        (
            ["profile", "squeezenet", "-c", "t4", "-b", "²"],
            "batch must be a whole number of at least 1, got '²'",
        ),
        (
            ["profile", "squeezenet", "-c", "t4", "-b", "--5"],
            "batch must be a whole number of at least 1, got '--5'",
        ),
        (["profile", "squeezenet", "-c", "t4", "--size", "n=²"], "--size takes NAME=NUMBER"),
        (
            ["profile", "squeezenet", "-c", "tpu-v4", "-b", "1000000000"],
            "beyond any machine: use a smaller batch",
        ),
        (
            ["profile", "x" * 5000, "-c", "t4"],
            "is no path and no name of a model: it has 5,000 characters",
        ),
        (["compile", "squeezenet", "-c", "graphcore-bow"], "listed for its figures only"),
    ],
)
def test_bad_words_get_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_names_from_a_file_are_no_markup(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {"model_type": "bert", "_name_or_path": "[/bold][red]name", "num_hidden_layers": 1}
        )
    )
    done = CliRunner().invoke(app, ["profile", str(path), "-c", "t4"])
    assert done.exit_code == 0
    assert "[/bold][red]name" in done.stdout


def test_compile_prints_program_groups_and_memory() -> None:
    done = CliRunner().invoke(
        app, ["compile", "squeezenet", "-c", "tpu-v4i"], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0
    assert "kernel 0 'n0' = conv relu" in done.stdout
    assert "element by element on the result of conv" in done.stdout
    document = json.loads(
        CliRunner().invoke(app, ["compile", "squeezenet", "-c", "tpu-v4i", "--json"]).stdout
    )
    assert set(document) >= {"groups", "program", "memory"}
    assert {b["where"] for b in document["memory"]} == {"CMEM", "off chip"}
    steps = json.loads(CliRunner().invoke(app, ["compile", "--steps", "--json"]).stdout)["steps"]
    assert list(steps) == [
        "canonicalise",
        "fold",
        "batch-norm",
        "cse",
        "recognise",
        "merge",
        "dce",
        "precision",
        "fuse",
        "order",
        "residency",
    ]


def test_kernels_of_one_shape_are_one_line_and_nothing_is_lost() -> None:
    run = profile_bound(prepare(load("bert-base"), Sizes(1, 128)), "tpu-v4i").run
    found = alike(run)
    assert len(found) < len(run.kernels) / 5
    assert sum(a.count for a in found) == sum(k.kernel.repeat for k in run.kernels)
    assert [a.seconds for a in found] == sorted((a.seconds for a in found), reverse=True)
    times = math.fsum(k.time_s * k.kernel.repeat for k in run.kernels)
    assert math.fsum(a.seconds for a in found) == pytest.approx(times)
    crossed = sum(k.kernel.traffic.total * k.kernel.repeat for k in run.kernels)
    assert sum(a.bytes for a in found) == pytest.approx(crossed)
    ups = [a for a in found if any("mlp.up" in n for n in a.names)]
    assert sum(len(a.names) for a in ups) == 12
    assert {n for a in ups for n in a.names} == {f"layer.{i}.mlp.up" for i in range(12)}
    assert all(a.first.kernel.flops * a.count == pytest.approx(a.flops) for a in ups)
