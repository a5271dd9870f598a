"""A chip with some figures changed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tenfold.chips import MatrixPrecision, chip, variants, what_if
from tenfold.cli import app
from tenfold.errors import InputError, UnknownName
from tenfold.evaluate.profiling import profile_bound
from tenfold.machine.energy import energy_model
from tenfold.model import Sizes, load, prepare


def test_what_follows_follows() -> None:
    base = chip("tpu-v4")
    wide = what_if(base, ["matrix.rows=256", "clock=2x"])
    assert wide.matrix is not None
    assert wide.matrix.rows == 256
    assert wide.peak_flops[MatrixPrecision.BF16] == pytest.approx(
        base.peak_flops[MatrixPrecision.BF16] * 4
    )
    assert wide.clock_hz == pytest.approx(2 * (base.clock_hz or 0))
    assert wide.memory_bytes_per_s == base.memory_bytes_per_s


def test_a_peak_that_is_set_stays() -> None:
    fast = what_if(chip("a100-sxm-80"), ["units=2x", "peak.bf16=500 TFLOPS"])
    assert fast.peak_flops[MatrixPrecision.BF16] == 5e14
    assert fast.peak_flops[MatrixPrecision.FP16] == pytest.approx(
        2 * chip("a100-sxm-80").peak_flops[MatrixPrecision.FP16]
    )


@pytest.mark.parametrize(
    ("value", "expected"), [("2x", 2 * 1200e9), ("2.4 TB/s", 2.4e12), ("2.4e12", 2.4e12)]
)
def test_ways_to_say_it(value: str, expected: float) -> None:
    assert what_if(
        chip("tpu-v4"), [f"memory.bytes_per_s={value}"]
    ).memory_bytes_per_s == pytest.approx(expected)


@pytest.mark.parametrize(
    "name", ["tpu-v1", "tpu-v4i", "tpu-v6e", "h100-sxm", "t4", "mi210", "epyc-9654"]
)
def test_every_field_can_be_set_to_what_it_is(name: str) -> None:
    """Each figure at its own value changes nothing about the time of a model."""
    base = chip(name)
    same = what_if(
        base,
        [
            f"{path}=1x" if path in ("process", "die_area") else f"{path}={q.value!r}"
            for path, q in base.figures.items()
        ],
    )
    bound = prepare(load("resnet50"), Sizes(4))
    assert profile_bound(bound, same).run.time_s.value == pytest.approx(
        profile_bound(bound, base).run.time_s.value, rel=1e-6
    )


def test_more_bandwidth_is_never_slower() -> None:
    bound = prepare(load("bert-base"), Sizes(1, 128))
    times = [
        profile_bound(bound, what_if(chip("tpu-v6e"), [f"memory.bandwidth={f}x"])).run.time_s.value
        for f in (0.5, 1, 2, 4)
    ]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]


def test_what_is_changed_changes_the_time_and_not_the_energy_of_an_event() -> None:
    """A card whose power holds its clock gains nothing from a higher one, one that has watts left
    does; a faster memory does not make a multiply-add cheaper.
    """
    bound = prepare(load("bert-base"), Sizes(8, 128))
    for name, gains in (("t4", False), ("a100-sxm-80", True)):
        slow, fast = (profile_bound(bound, what_if(chip(name), s)).run for s in ([], ["clock=2x"]))
        assert (fast.time_s.value < 0.9 * slow.time_s.value) is gains
    base = chip("tpu-v4i")
    ours, wide = (
        energy_model(c, c.storage(None))
        for c in (base, what_if(base, ["memory.bandwidth=4x", "matrix.arrays=2x"]))
    )
    assert ours == wide
    assert energy_model(what_if(base, ["tdp=2x"]), base.storage(None)) != ours


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ("memory.bytes_per_s", InputError, "FIELD=VALUE"),
        ("memory.bytes_per_s=", InputError, "FIELD=VALUE"),
        ("memory.bytes_per_sec=2x", UnknownName, "did you mean memory.bytes_per_s"),
        ("memory.bytes_per_s=0", InputError, "above 0"),
        ("memory.bytes_per_s=2 apples", InputError, "unknown unit"),
        ("matrix.rows=100.5", InputError, "whole number"),
        ("clock=-1x", InputError, "clock"),
        ("clock=1e300", InputError, "no machine"),
        ("calibration.memory_fraction=0", InputError, "above 0"),
        ("process=7", InputError, "needs a unit"),
    ],
)
def test_faulty_settings(setting: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        what_if(chip("tpu-v4"), [setting])


def test_several_values_are_a_chip_for_each_and_each_combination() -> None:
    base = chip("a100-sxm-80")
    found = variants(base, ["memory.bandwidth=1x,2x", "units=100,108", "tdp=500 W"])
    assert [c.name for c in found] == [
        f"a100-sxm-80 (memory.bandwidth {b}, units {u}, tdp 500 W)"
        for b in ("1x", "2x")
        for u in ("100", "108")
    ]
    assert [c.memory_bytes_per_s for c in found] == [
        pytest.approx(f * (base.memory_bytes_per_s or 0)) for f in (1, 1, 2, 2)
    ]
    assert variants(base, []) == [base]
    many = ",".join(str(n) for n in range(1, 66))
    with pytest.raises(InputError, match="65 chips of one: at most 64"):
        variants(base, [f"units={many}"])
    with pytest.raises(InputError, match="FIELD=VALUE"):
        variants(base, ["units=108,"])


def test_a_sweep_says_before_and_after_and_keeps_its_prices() -> None:
    run = CliRunner(env={"COLUMNS": "160"})
    sweep = ["--chip", "l4", "--set", "units=1x,2x"]
    asked = run.invoke(app, ["profile", "alexnet", *sweep, "--json"])
    made = json.loads(asked.stdout)["runs"]
    assert [r["set_by_hand"]["units"] for r in made] == [
        {"before": 58, "after": 58},
        {"before": 58, "after": 116},
    ]
    plan = run.invoke(
        app,
        ["plan", "alexnet", "--slo", "20ms", "--rate", "100", "--region", "us-central1", *sweep],
    )
    assert plan.exit_code == 0, plan.output
    assert "Set by hand: units of l4, which is 58, to " in plan.stdout
    assert "g2-standard-4" in plan.stdout
    assert "is first: " not in plan.stdout, "a tie is no difference"
