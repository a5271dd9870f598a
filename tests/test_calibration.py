"""Fitting constants: what is known comes back, what is faulty is named, what is written reads
back.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support import VALIDATION, measured
from tenfold.calibration import (
    SETS,
    Forward,
    Measured,
    calibrate,
    chip_text,
    read_measured,
    split,
    with_constants,
    write_chip,
)
from tenfold.calibration.measured import group_of
from tenfold.calibration.sought import FITTINGS
from tenfold.calibration.timing import timer
from tenfold.chips import GpuConstant, KernelFamily, Kind, Whole, chip, read_chip
from tenfold.errors import InputError
from tenfold.evaluate.operators import OperatorCall, kernel_of
from tenfold.machine import Stack, gpu_times, time_kernel
from tenfold.validation.measured import like_relative


def _rows(op: str, seed: int, count: int) -> list[Measured]:
    """Requests of one kind, their times those of the chip that is asked for."""
    rng = np.random.default_rng(seed)

    def extents() -> dict[str, int]:
        power = lambda low, high: int(2 ** rng.integers(low, high))  # noqa: E731
        kv = power(0, 4)
        return {
            "matmul": lambda: {"m": power(0, 13), "n": power(6, 14), "k": power(6, 14)},
            "attention_prefill": lambda: {
                "batch": power(0, 5),
                "q_len": power(4, 12),
                "heads": kv * power(0, 4),
                "kv_heads": kv,
                "head_dim": 128,
                "causal": 1,
            },
            "attention_decode": lambda: {
                "batch": power(0, 9),
                "kv_len": power(1, 14),
                "heads": kv * power(0, 4),
                "kv_heads": kv,
                "head_dim": 128,
            },
            "moe": lambda: {
                "tokens": power(0, 13),
                "hidden": 4096,
                "inter": power(9, 13),
                "topk": 2,
                "experts": 8 * power(0, 4),
                "tp": 1,
                "ep": power(0, 3),
                "gated": 1,
            },
        }[op]()

    requests = [OperatorCall(i, op, "bf16", extents(), "balanced") for i in range(count)]
    return [Measured(r, 1.0, "a source", group_of(r)) for r in requests]


def _timed(rows: list[Measured], record: object) -> list[Measured]:
    times = timer(record, rows)(record)  # type: ignore[arg-type]
    return [replace(m, time_s=float(t)) for m, t in zip(rows, times, strict=True)]


@pytest.mark.parametrize("op", ["matmul", "attention_prefill", "attention_decode", "moe"])
def test_constants_that_made_the_times_come_back(op: str) -> None:
    """Times made by the model itself with constants changed: fitting finds times that agree, held
    out too.
    """
    changed = chip("a100-sxm-80").with_figures(
        {
            "calibration.memory_fraction": 0.7,
            "calibration.wave_s": 1e-6,
            "calibration.attention_fraction": 0.6,
            "calibration.decode_block_s": 3e-6,
            "calibration.moe_matrix_fraction": 0.8,
            "calibration.moe_launch_s": 4e-5,
        }
    )
    rows = _timed(_rows(op, 5, 150), changed)
    start = (
        chip("a100-sxm-80")
        if op == "matmul"
        else chip("a100-sxm-80").with_figures(
            {"calibration.memory_fraction": 0.7, "calibration.wave_s": 1e-6}
        )
    )
    result = calibrate(start, *split(rows))
    errors = np.abs(result.families[0].held_out)
    assert len(errors) > 20
    assert errors.mean() < 0.03
    assert result.families[0].interval < 0.1


@pytest.mark.parametrize("op", ["matmul", "attention_prefill", "attention_decode", "moe"])
def test_many_at_once_equal_one_by_one(op: str) -> None:
    record = chip("h100-sxm")
    kernels = [
        kernel_of(m.what, record, record.storage("bf16"))
        for m in _rows(op, 3, 40)
        if not isinstance(m.what, Forward)
    ]
    together = gpu_times(record, kernels)
    assert together == pytest.approx([time_kernel(record, k).time_s for k in kernels])


def test_few_and_physical() -> None:
    """At most six constants a family of kernels - prefill and decode are one family."""
    sizes = {
        f.value: len(c) for families, c in FITTINGS[Kind.GPU].families.items() for f in families
    }
    assert sizes["attention"] + sizes["decode"] <= 6
    assert max(sizes.values()) <= 6


def test_neighbours_stay_together() -> None:
    rows = _rows("matmul", 1, 300)
    fitted, held = split(rows)
    assert {m.group for m in fitted}.isdisjoint({m.group for m in held})
    assert len(fitted) + len(held) == 300
    assert 0.2 < len(held) / 300 < 0.5
    assert split(rows[::-1])[1] == [m for m in rows[::-1] if m in held]


CSV = "op,dtype,m,n,k,time_us\nmatmul,bf16,128,128,128,5.5\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("op,dtype,m,n,k\nmatmul,bf16,1,1,1\n", "exactly one column of time"),
        ("op,dtype,m,n,k,time_us,time_ms\nmatmul,bf16,1,1,1,1,1\n", "mixed units"),
        ("dtype,m,n,k,time_us\nbf16,1,1,1,1\n", "no column 'op'"),
        (CSV.replace("5.5", "0"), "line 2, column 'time_us': a time must be above 0"),
        (CSV.replace("5.5", "-1"), "line 2, column 'time_us'"),
        (CSV.replace("5.5", "nan"), "line 2, column 'time_us'"),
        (CSV.replace("5.5", "fast"), "line 2, column 'time_us': needs a number"),
        (CSV.replace("matmul,", "matmult,"), "line 2, column 'op': unknown operator 'matmult'"),
        (CSV.replace("128,128,128", "128,,128"), "line 2, column 'n'"),
        (CSV + "matmul,bf16,1,1\n", "line 3 has fewer fields"),
        (
            "op,dtype,m,n,k,time\nmatmul,bf16,1,1,1,5 us\nmatmul,bf16,1,1,1,5 ms\n",
            "line 3, column 'time': found the unit 'ms' after 'us'",
        ),
        ("op,dtype,m,n,k,time\nmatmul,bf16,1,1,1,5\n", "no unit"),
        ("op,dtype,m,n,k,time_us,power_w\nmatmul,bf16,1,1,1,5,-3\n", "column 'power_w'"),
        ("op,dtype,model,batch,seq,time_us\nforward,bf16,gpt2,0,5,5\n", "column 'batch'"),
        (
            "op,dtype,model,batch,stack,time_us\nforward,bf16,gpt2,1,eagre,5\n",
            "line 2, column 'stack': unknown stack 'eagre'",
        ),
        (
            "op,dtype,model,batch,m,time_us\nforward,bf16,gpt2,1,8,5\n",
            "line 2, column 'm': forward does not use it",
        ),
        (
            "op,dtype,m,n,k,stack,time_us\nmatmul,bf16,1,1,1,eager,5\n",
            "line 2, column 'stack': matmul does not use it",
        ),
        (
            "op,dtype,m,n,k,warm,time_us\nmatmul,bf16,1,1,1,hot,5\n",
            "line 2, column 'warm': needs yes or no, found 'hot'",
        ),
        (
            "op,dtype,model,batch,warm,time_us\nforward,bf16,gpt2,1,yes,5\n",
            "line 2, column 'warm': forward does not use it",
        ),
        (
            "op,dtype,m,n,k,kernels,time_us\nmatmul,bf16,1,1,1,mine,5\n",
            "line 2, column 'kernels': found 'mine', allowed are engine and framework",
        ),
        ("# a card\n# a driver\nop,dtype,m,n,k,time_us\nmatmul,bf16,1,1,1,-5\n", "line 4,"),
    ],
)
def test_faulty_files_name_row_and_column(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_measured(text)


def test_what_a_row_says_beside_its_extents() -> None:
    """Comments at the head, warm operands, and the stack of a whole model."""
    text = (
        "# NVIDIA A100\n# driver 580\n"
        "op,dtype,m,n,k,warm,model,batch,seq,stack,time_us\n"
        "matmul,bf16,8,8,8,yes,,,,,5\n"
        "matmul,bf16,8,8,8,,,,,,6\n"
        "forward,fp16,,,,,resnet50,8,,compiled,900\n"
        "forward,fp16,,,,,gpt2,8,128,,950\n"
    )
    warm, cold, compiled, engine = (m.what for m in read_measured(text))
    assert isinstance(warm, OperatorCall)
    assert isinstance(cold, OperatorCall)
    assert (warm.warm, cold.warm) == (True, False)
    assert compiled == Forward("resnet50", 8, None, "fp16", Stack.COMPILED)
    assert engine == Forward("gpt2", 8, 128, "fp16", Stack.ENGINE)


def test_whole_models_move_what_they_use_and_no_further_than_they_say() -> None:
    """Models of a chip whose memory is slower than the file says: that share moves, and what they
    do not use stays.
    """
    start = chip("a100-sxm-80")
    slow = start.with_figures({"calibration.memory_fraction": 0.55})
    rows = [
        Measured(what, float(timer(slow, [Measured(what, 1.0, "s", "g")])(slow)[0]), "s", "g")
        for what in (Forward("bert-base", b, 128, "fp16") for b in (1, 2, 4))
    ]
    done = calibrate(start, rows, [])
    (fit,) = done.families
    assert fit.covers == (Whole.MODEL,)
    before, after = (float(np.abs(e).mean()) for e in (fit.fitted_on_before, fit.fitted_on))
    assert after < 0.4 * before
    moved = {n: v / start.constant(GpuConstant(n)) for n, v in fit.constants.items()}
    assert moved["memory_fraction"] < 0.98
    assert moved["lane_fraction"] == pytest.approx(1)  # nothing here is fp32
    assert not done.far
    assert done.chip.error(Whole.MODEL) == start.error(Whole.MODEL) > fit.interval  # few rows
    for m, model in zip(rows, done.models, strict=True):
        assert model.measured_s == m.time_s
        assert abs(model.after_s - m.time_s) < abs(model.before_s - m.time_s)


def test_models_that_no_chip_explains_are_said_to_be_far() -> None:
    what = Forward("resnet50", 8, None, "fp16")
    done = calibrate(chip("a100-sxm-80"), [Measured(what, 0.05, "s", "g")], [])
    assert set(done.far) <= {c.value for c in GpuConstant}
    assert min(done.far.values()) < 0.5


@measured
def test_whole_models_of_a_card_improve_those_held_out() -> None:
    """Eager PyTorch on an MI210 (NeuSight), of which only products, rows and streams were fitted:
    every third model is held out.
    """
    import csv

    folder = VALIDATION / "neusight"
    with (folder / "models.csv").open(encoding="utf-8", newline="") as file:
        given = [r for r in csv.DictReader(file) if r["chip"] == "mi210" and r["mode"] == "inf"]
    rows = [
        Measured(
            Forward(
                str(folder / "configs" / f"{r['model']}.json"),
                int(r["batch"]),
                int(r["seq"]),
                "fp32",
                Stack.EAGER,
            ),
            float(r["forward_ms"]) * 1e-3,
            "neusight",
            f"forward {r['model']}",
        )
        for r in given
        if r["model"] != "switchxl4" and not r["layout"]
    ]
    (fit,) = calibrate(chip("mi210"), *split(rows)).families
    mean = [float(np.abs(e).mean()) for e in (fit.held_out_before, fit.held_out)]
    assert mean[1] < 0.12 < mean[0]


def test_too_few_rows() -> None:
    rows = read_measured(CSV)
    with pytest.raises(InputError, match="4 rows or more"):
        calibrate(chip("a100-sxm-80"), rows, [])


def test_the_file_that_is_written_reads_back(tmp_path: Path) -> None:
    rows = _timed(_rows("matmul", 2, 60), chip("h100-sxm"))
    result = calibrate(chip("a100-sxm-80"), *split(rows))
    path = tmp_path / "a100-sxm-80.toml"
    write_chip(
        path, with_constants(chip_text("a100-sxm-80"), result, "own", 'rows of "mine"'), force=False
    )
    written = read_chip(path)
    for name, value in result.families[0].constants.items():
        assert written.constant(GpuConstant(name)) == pytest.approx(value, rel=1e-3)
        assert written.figures[f"calibration.{name}"].status == "fitted"
    assert written.sources["own"] == 'rows of "mine"'
    with pytest.raises(InputError, match="--force"):
        write_chip(path, "", force=False)


def test_a_source_has_one_offset_whatever_it_timed() -> None:
    """Products and softmax by one source: what it times beside a kernel is found once, and the file
    says what was scored.
    """
    record = chip("a100-sxm-80").with_figures({"calibration.launch_s": 3e-5})
    rows = _timed(_rows("matmul", 4, 60), record)
    softmax = [OperatorCall(i, "softmax", "bf16", {"rows": 2**i, "cols": 1024}) for i in range(12)]
    rows += _timed([Measured(r, 1.0, "a source", group_of(r)) for r in softmax], record)
    result = calibrate(chip("a100-sxm-80"), *split(rows))
    assert [set(f.offsets) for f in result.families] == [{"a source"}, {"a source"}]
    assert result.families[0].offsets == result.families[1].offsets
    assert result.families[0].offsets["a source"] == pytest.approx(3e-5, rel=0.05)


@pytest.mark.parametrize("source", ["a b", "a.b", 'quo"ted', "é = #x"])
def test_any_source_name_is_written_and_read(tmp_path: Path, source: str) -> None:
    rows = [replace(m, source=source) for m in _timed(_rows("matmul", 2, 40), chip("h100-sxm"))]
    path = tmp_path / "a100-sxm-80.toml"
    write_chip(
        path,
        with_constants(
            chip_text("a100-sxm-80"), calibrate(chip("a100-sxm-80"), *split(rows)), "own", "mine"
        ),
        force=False,
    )
    assert read_chip(path).offset(source) > 0


def test_a_relative_lends_constants_and_a_wider_interval() -> None:
    lent, own = like_relative("h100-sxm"), chip("h100-sxm")
    relative = chip("a100-sxm-80")
    assert lent.constant(GpuConstant.MEMORY_FRACTION) == relative.constant(
        GpuConstant.MEMORY_FRACTION
    )
    assert lent.achieved_share is not None
    assert relative.achieved_share is not None
    scaled = (
        relative.constant(GpuConstant.MATRIX_FRACTION)
        * lent.achieved_share
        / relative.achieved_share
    )
    assert lent.constant(GpuConstant.MATRIX_FRACTION) == pytest.approx(scaled)
    assert lent.figures["calibration.wave_s"].note == "taken from a100-sxm-80"
    assert lent.error(KernelFamily.MATMUL) > own.error(KernelFamily.MATMUL)
    assert lent.constant(GpuConstant.WAVE_S) / relative.constant(
        GpuConstant.WAVE_S
    ) == pytest.approx((relative.clock_hz or 0) / (own.clock_hz or 1))


@measured
def test_the_catalogue_holds_what_the_open_sets_give() -> None:
    """MI210's constants once more, from the rows that they were fitted to."""
    parts = [s.parts(VALIDATION) for s in SETS if s.chip == "mi210"]
    result = calibrate(
        chip("mi210"), [m for a, _ in parts for m in a], [m for _, b in parts for m in b]
    )
    for f in result.families:
        for name, value in f.constants.items():
            if chip("mi210").constant(GpuConstant(name)) > 1e-8:
                assert value == pytest.approx(
                    chip("mi210").constant(GpuConstant(name)), rel=0.05
                ), name
