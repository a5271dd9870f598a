"""Streams, files and signals: what a shell, a disk and a terminal do to the command."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tenfold
from tenfold.cli import app, main
from tenfold.errors import (
    DataFileError,
    DoesNotFit,
    InputError,
    ModelError,
    TenfoldError,
    UnknownName,
)
from tenfold.files import check_apart, read_text, write_text, write_whole
from tenfold.scenario import left_out, read_scenario

BOM = b"\xef\xbb\xbf"
SCENARIO = """name = "t"
duration = "2 s"
[[model]]
name = "m"
times = { 1 = "1 ms", 8 = "4 ms" }
[[tenant]]
name = "a"
[[tenant.stream]]
model = "m"
slo = "20 ms"
arrivals = { kind = "poisson", rate = "100 /s" }
"""


def command(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "tenfold", *words]
    env = os.environ | {"PYTHONIOENCODING": "utf-8"} | more.pop("env", {})
    return subprocess.run(call, capture_output=True, text=True, env=env, timeout=100, **more)


# --- the command ----------------------------------------------------------------------------


def test_the_module_runs_and_says_its_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"tenfold {tenfold.__version__}")


@pytest.mark.parametrize(
    "words",
    [("profile",), ("no-such-verb",), ("chips", "--no-such-option"), ("profile", "resnet50", "-c")],
)
def test_a_usage_error_is_one_line(words: tuple[str, ...]) -> None:
    done = command(*words)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("tenfold: ")
    assert "--help" in line


def test_help_shows_extras_as_they_are_typed() -> None:
    assert "tenfold[charts]" in command("profile", "--help").stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_a_terminal_of_few_letters_gets_text(encoding: str) -> None:
    words = ("profile", "tpu-v1-mlp0", "--chip", "tpu-v4i")
    done = subprocess.run(
        [sys.executable, "-m", "tenfold", *words],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "tpu-v4i" in text
    assert " us" in text or " µs" in text


def test_a_closed_or_full_output_is_no_answer() -> None:
    """1 means that the answer is no."""
    call = f"{sys.executable} -m tenfold chips tpu-v4i --json"
    for redirected in (">&-", "> /dev/full"):
        done = subprocess.run(
            f"{call} {redirected}", shell=True, stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    done = subprocess.run(
        f"{call} | head -1", shell=True, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.stderr == ""


def test_ctrl_c_is_clean() -> None:
    call = [sys.executable, "-m", "tenfold", "plan", "bert-large", "--slo", "50ms", "--rate", "9"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_a_fault_of_our_own_is_neither_no_nor_bad_input() -> None:
    code = (
        "import tenfold.cli.entry as m, tenfold.carbon as c\n"
        "def boom(*_): raise ZeroDivisionError('boom')\n"
        "c.envelope = boom\n"
        "import sys; sys.argv = ['tenfold', 'estimate', '--power', '1W', '--hours', '1']\n"
        "m.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    (line,) = done.stderr.strip().splitlines()
    assert "ZeroDivisionError: boom" in line


@pytest.mark.parametrize("hours", ["nan", "inf", "-inf", "0", "-1"])
def test_hours_are_finite_and_above_0(hours: str) -> None:
    words = ["estimate", "--power", "300W", f"--hours={hours}"]
    with pytest.raises(InputError, match="must be a finite number above 0|must be above 0"):
        CliRunner().invoke(app, words, catch_exceptions=False)


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_so_are_the_seconds_of_a_load_test(seconds: str) -> None:
    words = ["loadtest", "squeezenet", "--slo", "10ms", f"--seconds={seconds}"]
    with pytest.raises(InputError, match="--seconds must be a finite number above 0"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_small_energies_are_not_nothing() -> None:
    """0.3 W for a day are 7.2 Wh and 3.1 g."""
    said = CliRunner().invoke(app, ["estimate", "--power", "300mW", "--hours", "24"]).stdout
    assert "7.20 Wh" in said
    assert "3.09 gCO2e" in said


# --- files ------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(BOM + SCENARIO.encode())
    assert read_scenario(tmp_path / "s.toml").name == "t"
    (tmp_path / "config.json").write_bytes(BOM + b'{"model_type": "gpt2"}')
    assert tenfold.load(tmp_path / "config.json").parameters == 124_439_808
    chip = Path(tenfold.__file__).parent / "chips" / "catalogue" / "t4.toml"
    (tmp_path / "t4.toml").write_bytes(BOM + chip.read_bytes())
    assert tenfold.chip(str(tmp_path / "t4.toml")).name == "t4"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "none"])
def test_what_never_ends_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    for read in (read_text, read_scenario, lambda p: tenfold.chip(str(p))):
        with pytest.raises(InputError):
            read(path)
    with pytest.raises(InputError):
        CliRunner().invoke(app, ["predict", str(path), "-c", "t4"], catch_exceptions=False)


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f.html"
    path.write_text("precious")

    def half(to: Path) -> None:
        to.write_text("half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        write_whole(path, half)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_modes_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o600


def test_outputs_replace_no_input_and_no_other_output(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    check_apart({"MODEL": one}, {"--html": two, "--trace": None})
    with pytest.raises(InputError, match="--html and MODEL are the same file"):
        check_apart({"MODEL": one}, {"--html": one})
    two.symlink_to(one)
    with pytest.raises(InputError, match="--trace and --html are the same file"):
        check_apart({}, {"--html": one, "--trace": two})


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "f", "-c", "t4", "-o", "f"],
        ["profile", "f", "-c", "t4", "--html", "f"],
        ["profile", "squeezenet", "-c", "tpu-v4i", "--html", "g", "--trace", "g"],
        ["compile", "f", "-c", "t4", "-o", "f"],
        ["plan", "f", "--slo", "1s", "--rate", "1", "--html", "f"],
        ["simulate", "f", "--html", "f"],
    ],
)
def test_verbs_keep_their_files_apart(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("precious")
    with pytest.raises(InputError, match="are the same file"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert Path("f").read_text() == "precious"


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("chip", "t5", ["t4"]),
        DoesNotFit("m", 2e9, "t4", 1e9),
        ModelError("a message"),
        InputError("another"),
    ],
)
def test_errors_go_from_worker_to_worker(error: TenfoldError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


# --- scenarios ----------------------------------------------------------------------------------


def scenario(tmp_path: Path, old: str, new: str) -> Path:
    assert old in SCENARIO
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO.replace(old, new, 1))
    return path


POISSON = '{ kind = "poisson", rate = "100 /s" }'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (POISSON, '{ kind = "gamma", rate = "1 /s", cv = 1e200 }', "cv is 0.001 to 100"),
        (POISSON, '{ kind = "gamma", rate = "1 /s", cv = 1e-200 }', "cv is 0.001 to 100"),
        ('8 = "4 ms" }', '8 = "4 ms" }\nspread = 1e9', "a spread of 0 to 10"),
        ("[[model]]", "seed = -1\n[[model]]", "a seed is 0 to"),
        ("[[model]]", f"seed = {2**63 - 1}\nworkers = 0\n[[model]]", "workers 1 to"),
        ('8 = "4 ms"', '01 = "4 ms"', "without leading zeros, got '01'"),
        ('8 = "4 ms"', '1000000000 = "4 ms"', "a whole number of 1 to"),
        ('"1 ms"', '"5e-324 s"', "times are of a nanosecond to a year"),
        (POISSON, '{ kind = "poisson", rate = "1e8 /s" }', "more than the 100,000,000 that a run"),
        (POISSON, '{ kind = "closed", clients = 1000000 }', "1,000,000 clients, more than"),
        (
            POISSON,
            '{ kind = "on-off", rate = "1 /s", on = "1 ns", off = "1 ns" }',
            "times on and off in 2 s are more than",
        ),
        ('slo = "20 ms"', 'slo = "20 ms"\npriority = 10000000', "a priority is at most"),
    ],
)
def test_what_no_run_can_hold_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_scenario(scenario(tmp_path, old, new))
    assert message in str(caught.value)


def test_bounds_are_of_the_scenario_as_a_whole(tmp_path: Path) -> None:
    path = scenario(tmp_path, POISSON, '{ kind = "poisson", rate = "3e7 /s" }')
    read_scenario(path)
    text = path.read_text()
    path.write_text(text + text[text.index("[[tenant]]") :].replace('"a"', '"b"'))
    with pytest.raises(InputError, match="its streams send 1.2e"):
        read_scenario(path)


def test_a_trace_that_comes_all_at_once_is_a_trace(tmp_path: Path) -> None:
    (tmp_path / "zero.csv").write_text("arrival_s\n0\n0\n")
    path = scenario(tmp_path, POISSON, '{ kind = "trace", file = "zero.csv" }')
    document = json.loads(CliRunner().invoke(app, ["simulate", str(path), "--json"]).stdout)
    assert document["total"]["offered"] == 2
    with pytest.raises(InputError, match="has given times instead|comes all at 0 s"):
        CliRunner().invoke(app, ["plan", "--mix", str(path)], catch_exceptions=False)


def test_rows_of_a_trace_after_the_end_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s\n0\n1\n5\n6\n7\n")
    path = scenario(tmp_path, POISSON, '{ kind = "trace", file = "t.csv" }')
    (line,) = left_out(read_scenario(path))
    assert line == "3 of the 5 rows of the trace of 'a' come after the end at 2 s"
    assert line in CliRunner().invoke(app, ["simulate", str(path)]).stdout


def test_a_network_beside_the_scenario_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2", "num_hidden_layers": 1}')
    text = SCENARIO.replace('times = { 1 = "1 ms", 8 = "4 ms" }', 'network = "config.json"')
    (folder / "s.toml").write_text('chip = "t4"\n' + text)
    for where in (folder, tmp_path):
        monkeypatch.chdir(where)
        found = read_scenario(folder / "s.toml")
        assert Path(found.models[0].network).is_file()


def test_a_largest_batch_leaves_out_the_times_above_it(tmp_path: Path) -> None:
    path = scenario(tmp_path, '8 = "4 ms" }', '8 = "4 ms" }\nlargest = 4')
    assert set(read_scenario(path).models[0].times_s) == {1}


def test_the_policy_does_not_grow_with_tenants_times_models(tmp_path: Path) -> None:
    """300 tenants of 300 models: what is asked for, not what could be, is work."""
    parts = ['name = "many"', 'duration = "2 s"']
    for i in range(300):
        parts.append(f'[[model]]\nname = "k{i}"\ntimes = {{ 1 = "1 ms" }}')
    for i in range(300):
        parts.append(
            f'[[tenant]]\nname = "u{i}"\n[[tenant.stream]]\nmodel = "k{i}"\nslo = "20 ms"\n'
            'arrivals = { kind = "poisson", rate = "3 /s" }'
        )
    path = tmp_path / "s.toml"
    path.write_text("\n".join(parts))
    from tenfold.scenario import ready, run
    from tenfold.serving.shares import TenantAccount

    asked = 0
    plain = TenantAccount.live

    def counted(self: TenantAccount, now_s: float, model: str | None = None) -> bool:
        nonlocal asked
        asked += 1
        return plain(self, now_s, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TenantAccount, "live", counted)
        log, _ = run(ready(read_scenario(path)))
    assert len(log.requests) > 1000
    assert asked < 700 * len(log.requests), "twice the tenants for each request, not their square"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["validate", "tpu-v1", "--write", ""], "it is a folder"),
        (["profile", "alexnet", "-c", "t4", "--html", ""], "it is a folder"),
        (["profile", "alexnet", "-c", "t4", "-b", "9" * 23], "batch must be at most 1,000,000,000"),
        (
            ["plan", "alexnet", "-c", "t4", "--slo", "1s", "--rate", "1e300"],
            "beyond any service",
        ),
    ],
)
def test_what_no_machine_can_hold_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_what_a_file_says_gives_a_terminal_no_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO.replace('name = "t"', 'name = "t\\u001b[31m"', 1))
    with pytest.raises(DataFileError, match=r"'t.*x1b\[31m' holds control characters"):
        read_scenario(path)
    chip = Path(tenfold.__file__).parent / "chips" / "catalogue" / "t4.toml"
    path.write_text(chip.read_text().replace('name = "t4"', 'name = "t4\\u0007"', 1))
    with pytest.raises(DataFileError, match="holds control characters"):
        tenfold.chip(str(path))
    monkeypatch.setattr(sys, "argv", ["tenfold", "profile", "\x1b[31m.onnx", "-c", "t4"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[31m.onnx" in said
