"""Chips: every file loads and checks itself; faults are named by file and field; constants say
where they come from.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tenfold.chips import (
    CATALOGUE,
    GpuConstant,
    HostConstant,
    MatrixPrecision,
    Whole,
    chip,
    names,
    read_chip,
)
from tenfold.errors import DataFileError, MissingFigure, UnknownName, UnsupportedDType

FILES = sorted(CATALOGUE.glob("*.toml"))
DESIGN = [
    "tpu-v1",
    "tpu-v2",
    "tpu-v3",
    "tpu-v4i",
    "tpu-v4",
    "tpu-v5e",
    "tpu-v5p",
    "tpu-v6e",
    "tpu-v7",
    "k80-die",
    "p100-sxm2",
    "v100-sxm2",
    "t4",
    "a10",
    "a30",
    "a40",
    "a100-sxm-40",
    "a100-pcie-40",
    "a100-sxm-80",
    "a100-pcie-80",
    "l4",
    "l40s",
    "rtx-4090",
    "h100-sxm",
    "h100-pcie",
    "h800",
    "h200-sxm",
    "b200",
    "mi210",
    "mi250x",
    "mi300x",
    "inferentia2",
    "trainium1",
    "trainium2",
    "haswell-e5-2699v3",
    "epyc-9654",
    "host",
    "graphcore-bow",
    "hanguang-800",
]


def test_the_catalogue_is_the_designs() -> None:
    assert set(DESIGN) <= set(names())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_figure_has_value_status_and_source(path: Path) -> None:
    record = read_chip(path)
    assert record.figures
    for where, q in record.figures.items():
        assert q.low <= q.value <= q.high, where
        assert q.value > 0, where
        assert record.sources[q.source], where
    assert record.year >= 2014
    if record.kind != "listed":
        assert record.memory_bytes
        assert record.memory_bytes_per_s
        assert record.peak_flops


@pytest.mark.parametrize("name", [n for n in names() if chip(n).matrix])
def test_peak_is_arrays_times_clock_times_two(name: str) -> None:
    record = chip(name)
    text = (CATALOGUE / f"{name}.toml").read_text()
    assert record.matrix is not None
    made = record.matrix.macs_per_cycle * record.clock("peak") * 2
    stated = record.peak_flops.get(
        MatrixPrecision.BF16, record.peak_flops.get(MatrixPrecision.INT8, 0.0)
    )
    assert abs(stated / made - 1) < 0.02 or "peak_reason" in text


def broken(tmp_path: Path, old: str, new: str, name: str = "tpu-v4i") -> Path:
    text = (CATALOGUE / f"{name}.toml").read_text()
    assert re.search(old, text), old
    path = tmp_path / f"{name}.toml"
    path.write_text(re.sub(old, new, text, count=1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            r"tdp = \{",
            'tpd = { value = "1 W", status = "verified", source = "x" }\ntdp = {',
            "unknown field `tpd`",
        ),
        (r"175 W", "175 watts", "tdp.*unknown unit 'watts'"),
        (r"175 W", "175", "tdp.*has no unit"),
        (r"(clock = .*?)source = \"\w+\"", r'\1source = "nowhere"', "source 'nowhere' is not in"),
        (r"138 TFLOPS", "150 TFLOPS", "differs from arrays x rows x columns x clock x 2"),
        (r'name = "tpu-v4i"', 'name = "tpu-v4j"', "must be 'tpu-v4j.toml'"),
        (r"year = 2020", 'year = "2020"', "Expected `int`"),
        (r'status = "\w[\w-]*"', 'status = "rumoured"', "rumoured"),
        (r'value = "175 W"', 'value = "175 W", low = "180 W"', "needs low <= value <= high"),
        (r"\[sources\]", "[sources", "tpu-v4i.toml"),
    ],
)
def test_faults_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=message) as caught:
        read_chip(broken(tmp_path, old, new))
    assert "tpu-v4i.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_best_precision_and_refusals() -> None:
    assert chip("tpu-v4").storage(None) is MatrixPrecision.BF16
    assert chip("t4").storage(None) is MatrixPrecision.FP16
    assert chip("tpu-v1").storage(None) is MatrixPrecision.INT8
    assert chip("haswell-e5-2699v3").storage(None) is MatrixPrecision.FP32
    assert chip("h100-sxm").storage("fp8") is MatrixPrecision.FP8
    with pytest.raises(UnsupportedDType, match="tpu-v2 has no int8 arithmetic: it has bf16"):
        chip("tpu-v2").storage("int8")
    with pytest.raises(UnsupportedDType, match="unknown dtype 'int7': allowed are int8"):
        chip("tpu-v4").storage("int7")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean a100-sxm-80") as caught:
        chip("a100-sxm80")
    assert "a100-sxm-80" in caught.value.nearest
    with pytest.raises(UnknownName, match="unknown chip file 'no.toml'"):
        chip("no.toml")


def test_a_chip_file_by_path(tmp_path: Path) -> None:
    path = broken(tmp_path, r"614 GB/s", "1228 GB/s")
    assert chip(str(path)).memory_bytes_per_s == 1228e9


def test_constants_of_a_relative_are_marked_and_wider() -> None:
    own, taken = chip("tpu-v4"), chip("tpu-v4i")
    assert own.figures["calibration.memory_fraction"].status == "fitted"
    q = taken.figures["calibration.memory_fraction"]
    assert (q.status, q.note) == ("assumed", "taken from tpu-v4")
    assert taken.error(Whole.TIME) == 2 * own.error(Whole.TIME)


def test_shares_of_a_relative_are_scaled_by_what_matmuls_achieve_on_both() -> None:
    mi300x, h100 = chip("mi300x"), chip("h100-sxm")
    assert mi300x.achieved_share == pytest.approx(781.9 / 1307)
    assert h100.achieved_share == pytest.approx(792.1 / 989)
    scaled = h100.constant(GpuConstant.MATRIX_FRACTION) * (781.9 / 1307) / (792.1 / 989)
    assert mi300x.constant(GpuConstant.MATRIX_FRACTION) == pytest.approx(scaled)
    assert mi300x.constant(GpuConstant.MEMORY_FRACTION) == h100.constant(
        GpuConstant.MEMORY_FRACTION
    )
    assert chip("h100-pcie").achieved_share is None
    assert chip("h100-pcie").constant(GpuConstant.MATRIX_FRACTION) == h100.constant(
        GpuConstant.MATRIX_FRACTION
    )


def test_a_processor_file_of_an_earlier_version_is_to_be_made_again() -> None:
    epyc = chip("epyc-9654")
    old = replace(
        epyc, figures={n: q for n, q in epyc.figures.items() if n != "calibration.fork_s"}
    )
    with pytest.raises(
        MissingFigure, match=r"'calibration.fork_s', which its file lacks.*calibrate host"
    ):
        old.constant(HostConstant.FORK_S)


def test_missing_figures_name_the_result() -> None:
    with pytest.raises(MissingFigure, match="carbon on tpu-v5e needs 'tdp'"):
        chip("tpu-v5e").figure("tdp", "carbon")


def test_published_figures() -> None:
    """A few against the papers, by hand."""
    v1, v4i, a100 = chip("tpu-v1"), chip("tpu-v4i"), chip("a100-sxm-80")
    assert v1.memory_bytes_per_s == 34e9
    assert v1.peak_flops[MatrixPrecision.INT8] == 92e12
    assert {s.name: s.bytes / 2**20 for s in v4i.sram} == {"CMEM": 128, "VMEM": 16}
    assert v4i.tdp_w == 175
    assert a100.peak_flops[MatrixPrecision.BF16] == 312e12
    assert a100.memory_bytes_per_s == 2039e9
