"""The command line as a user sees it: exit codes, one clear line, JSON that parses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tenfold.chips import names
from tenfold.cli import app
from tenfold.errors import TenfoldError
from tenfold.evaluate.predicting import RESULT_COLUMNS

runner = CliRunner(env={"COLUMNS": "150"})


def run(*words: str) -> Any:
    result = runner.invoke(app, list(words))
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout) if "--json" in words else result.stdout


def process(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", "from tenfold.cli import main; main()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "132"}
    )


def test_profile_document_has_the_keys_that_scripts_rely_on() -> None:
    document = run(
        "profile",
        "resnet50",
        "--chip",
        "tpu-v4,t4",
        "--batch",
        "1,8",
        "--region",
        "us-central1",
        "--json",
    )
    assert [(r["chip"], r["batch"]) for r in document["runs"]] == [
        ("tpu-v4", 1),
        ("tpu-v4", 8),
        ("t4", 1),
        ("t4", 8),
    ]
    keys = {
        "chip",
        "batch",
        "dtype",
        "time_s",
        "interval_s",
        "energy_j",
        "power_w",
        "flops",
        "mfu",
        "bytes",
        "counters",
        "coverage",
        "kernels",
        "usd_per_million",
        "gco2e_per_million",
    }
    for r in document["runs"]:
        assert keys <= set(r)
        assert r["interval_s"][0] < r["time_s"] < r["interval_s"][1]
        assert r["coverage"] == 1.0
        assert {"name", "ops", "time_s", "bound", "flops", "bytes"} <= set(r["kernels"][0])
        assert sum(k["time_s"] * k["repeat"] for k in r["kernels"]) + r[
            "launch_s"
        ] == pytest.approx(r["time_s"])
        assert sum(r["energy_entries_j"].values()) == pytest.approx(r["energy_j"])


def test_a_chip_without_a_price_has_no_money() -> None:
    (r,) = run("profile", "resnet50", "-c", "tpu-v4i", "--region", "europe-north1", "--json")[
        "runs"
    ]
    assert "usd_per_million" not in r
    assert r["gco2e_per_million"] > 0


def test_best_precision_by_chip() -> None:
    runs = run(
        "profile", "squeezenet", "-c", "tpu-v1,tpu-v4i,t4,k80-die,haswell-e5-2699v3", "--json"
    )["runs"]
    assert [r["dtype"] for r in runs] == ["int8", "bf16", "fp16", "fp32", "fp32"]
    assert [r.get("quality") for r in runs] == ["not checked"] * 3 + [None] * 2


def test_some_chips_may_be_refused_while_others_run() -> None:
    document = run("profile", "squeezenet", "-c", "tpu-v1,tpu-v4", "--dtype", "bf16", "--json")
    assert [r["chip"] for r in document["runs"]] == ["tpu-v4"]
    assert document["rejected"][0]["chip"] == "tpu-v1"


def test_tables_show_what_a_person_needs() -> None:
    text = run(
        "profile", "resnet50", "-c", "tpu-v4i,a100-sxm-80", "-b", "8", "--region", "us-central1"
    )
    for word in (
        "tpu-v4i",
        "a100-sxm-80",
        "bf16",
        "of peak",
        "$ per million",
        "not rented out",
        "time per item",
        "Quality not checked",
        "provisional",
    ):
        assert word in text, word
    single = run("profile", "resnet50", "-c", "tpu-v1", "--sources")
    for word in ("waiting for weights", "off-chip memory", "static", "kernel", "Jouppi"):
        assert word in single, word


def test_chips_and_models() -> None:
    catalogue = run("chips", "--json")["chips"]
    assert [c["name"] for c in catalogue] == list(names())
    one = run("chips", "tpu-v4i", "--json")
    assert one["figures"]["tdp"]["value"] == 175
    assert all(f["status"] and f["source"] for f in one["figures"].values())
    assert "CMEM" in run("chips", "tpu-v4i")
    models = {m["name"]: m for m in run("models", "--json")["models"]}
    assert models["resnet50"]["parameters"] == pytest.approx(25.6e6, rel=0.01)
    assert run("models", "vgg19", "--json")["parameters"] == pytest.approx(143.7e6, rel=0.01)
    assert "resnet50" in run("models")


def test_estimate_is_the_envelope() -> None:
    document = run("estimate", "--power", "1.2kW", "--hours", "24", "--json")
    assert document["energy_kwh"] == pytest.approx(28.8)
    assert document["kgco2e"] == pytest.approx(12.4, abs=0.05)
    assert document["ev_miles"] == pytest.approx([103, 115], abs=0.5)
    assert "103 to 115 miles" in run("estimate", "--power", "1.2 kW", "--hours", "24")
    clean = run(
        "estimate", "--power", "1200W", "--hours", "24", "--region", "europe-north2", "--json"
    )
    assert clean["kgco2e"] < document["kgco2e"] / 50


def test_predict_writes_the_same_rows(tmp_path: Path) -> None:
    ops, out = tmp_path / "ops.csv", tmp_path / "out.csv"
    ops.write_text("op,dtype,m,n,k,note\nmatmul,bf16,64,64,64,first\n")
    run("predict", str(ops), "--chip", "tpu-v6e", "-o", str(out))
    header, row = out.read_text().splitlines()
    assert header == ",".join(("op,dtype,m,n,k,note", *RESULT_COLUMNS))
    assert row.startswith("matmul,bf16,64,64,64,first,")
    assert run("predict", str(ops), "--chip", "a100-sxm-80", "--json")["rows"][0]["time_s"] > 0
    assert "matmul" in run("predict", str(ops), "--chip", "h100-sxm")


BAD = {
    "unknown chip": (["profile", "resnet50", "-c", "tpu-v44"], "did you mean tpu-v4"),
    "unknown model": (["profile", "resnet5O", "-c", "tpu-v4"], "did you mean resnet50"),
    "unknown region": (
        ["profile", "resnet50", "-c", "tpu-v4", "--region", "us-centrall"],
        "did you mean us-central",
    ),
    "no such file": (["profile", "no/such/file.onnx", "-c", "tpu-v4"], "there is no file"),
    "batch 0": (
        ["profile", "resnet50", "-c", "tpu-v4", "-b", "0"],
        "batch must be a whole number of at least 1",
    ),
    "batch word": (
        ["profile", "resnet50", "-c", "tpu-v4", "-b", "many"],
        "batch must be a whole number",
    ),
    "no dtype": (
        ["profile", "resnet50", "-c", "tpu-v1", "--dtype", "bf16"],
        "tpu-v1 has no bf16 arithmetic: it has int8",
    ),
    "unknown dtype": (
        ["profile", "resnet50", "-c", "tpu-v4", "--dtype", "bf32"],
        "unknown dtype 'bf32'",
    ),
    "does not fit": (["profile", "vgg19", "-c", "tpu-v4i", "-b", "2000"], "tpu-v4i has 8.590 GB"),
    "no seq": (["profile", "resnet50", "-c", "tpu-v4", "--seq", "3"], "the model has no free seq"),
    "listed": (["profile", "resnet50", "-c", "hanguang-800"], "hanguang-800"),
    "no unit": (["estimate", "--power", "1200", "--hours", "1"], "has no unit"),
    "wrong unit": (["estimate", "--power", "3 kB", "--hours", "1"], "unknown unit 'kB'"),
    "no hours": (
        ["estimate", "--power", "3 kW", "--hours", "0"],
        "must be a finite number above 0",
    ),
    "unknown lesson": (["lessons", "11"], "unknown lesson '11'"),
    "no csv": (["predict", "no.csv", "-c", "tpu-v4"], "cannot read no.csv"),
    "size": (["profile", "resnet50", "-c", "tpu-v4", "--size", "n"], "--size takes NAME=NUMBER"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case: str) -> None:
    words, message = BAD[case]
    result = runner.invoke(app, words)
    assert isinstance(result.exception, TenfoldError), (result.exception, result.output)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_process_exit_codes_and_streams(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07 not a model at all")
    for words in (
        ["profile", str(broken), "-c", "tpu-v4"],
        ["profile", "resnet50", "-c", "tpu-v9"],
        ["profile", "resnet50"],
        ["fly"],
    ):
        bad = process(*words)
        assert bad.returncode == 2, words
        assert bad.stdout == ""
        assert "Traceback" not in bad.stderr
    good = process("profile", "squeezenet", "-c", "tpu-v4", "--json")
    assert good.returncode == 0
    assert good.stderr == ""
    assert json.loads(good.stdout)["runs"]


def test_help_names_every_verb_and_completion_is_offered() -> None:
    text = runner.invoke(app, ["--help"]).output
    for verb in (
        "chips",
        "models",
        "profile",
        "predict",
        "estimate",
        "lessons",
        "--install-completion",
    ):
        assert verb in text
