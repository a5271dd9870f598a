"""No silent wrong numbers: whatever is misspelt, negative or contradictory in a chip's file is an
error that says what is allowed, and all faults of a file are named in one go.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tenfold.chips import (
    CATALOGUE,
    Kind,
    MatrixPrecision,
    MemoryTechnology,
    SramRole,
    chip,
    names,
    read_chip,
)
from tenfold.chips.constants import OF_KIND
from tenfold.chips.figures import paths
from tenfold.chips.kinds import NEEDED, ROLES
from tenfold.chips.write import chip_file
from tenfold.errors import DataFileError, InputError, UnknownName
from tenfold.machine.energy import energy_table

SAMPLE = ("tpu-v1", "tpu-v4i", "tpu-v6e", "a100-sxm-80", "mi210", "epyc-9654")
FIGURE = re.compile(r'^([\w-]+) = \{ value = "([\d.e+-]+)', re.M)


def text_of(name: str) -> str:
    return (CATALOGUE / f"{name}.toml").read_text()


def refused(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    with pytest.raises(DataFileError) as caught:
        read_chip(path)
    message = str(caught.value)
    assert message.startswith(f"{name}.toml: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", SAMPLE)
def test_no_figure_is_negative(name: str, tmp_path: Path) -> None:
    text = text_of(name)
    found = list(FIGURE.finditer(text))
    assert len(found) > 20
    for figure in found:
        changed = text[: figure.start(2)] + "-" + text[figure.start(2) :]
        assert re.search(
            rf"{figure[1]}: must be (above|at least) \d", refused(tmp_path, name, changed)
        )


@pytest.mark.parametrize("name", SAMPLE)
def test_only_a_time_and_an_error_are_zero(name: str, tmp_path: Path) -> None:
    text = text_of(name)
    for figure in FIGURE.finditer(text):
        may_be_zero = figure[1].endswith(("_s", "_error")) or figure.start() > len(
            text.split("[offsets]")[0]
        )
        changed = text[: figure.start(2)] + "0" + text[figure.end(2) :]
        if may_be_zero:
            (tmp_path / f"{name}.toml").write_text(changed)
            read_chip(tmp_path / f"{name}.toml")
        else:
            message = refused(tmp_path, name, changed)
            assert re.search(rf"{figure[1]}: must be (above 0|at least \d+)", message), figure[1]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_misspelt_name_is_never_ignored(name: str, tmp_path: Path) -> None:
    """Every figure and every field of the file, a letter doubled: named, with what was meant."""
    body = text_of(name).split("[offsets]")[0]  # their names are free
    keys = [m for m in re.finditer(r"^(\w+) = ", body, re.M) if _is_checked(body, m.start())]
    assert len(keys) > 20
    for key in keys:
        wrong = key[1] + key[1][-1]
        message = refused(tmp_path, name, body[: key.start()] + wrong + body[key.end(1) :])
        assert f"`{wrong}`" in message or "missing required field" in message, key[1]


def _is_checked(body: str, at: int) -> bool:
    """Not in [sources], whose names are free."""
    return not body[:at].rpartition("\n[")[2].startswith("sources]")


def test_a_constant_of_a_relative_is_not_taken_for_a_misspelt_one(tmp_path: Path) -> None:
    text = text_of("a100-sxm-80").replace("\nlaunch_s", "\nlunch_s")
    message = refused(tmp_path, "a100-sxm-80", text)
    assert "unknown constant of a chip of kind gpu `lunch_s`: did you mean launch_s" in message


def test_an_on_chip_memory_has_a_known_name(tmp_path: Path) -> None:
    for wrong in ("CMEN", "Vmem", "L2"):
        text = text_of("tpu-v4i").replace('name = "CMEM"', f'name = "{wrong}"')
        message = refused(tmp_path, "tpu-v4i", text)
        assert f"unknown on-chip memory of a chip of kind systolic `{wrong}`" in message
    text = text_of("tpu-v4i").replace('name = "VMEM"', 'name = "SPMEM"')
    assert "needs an on-chip memory named VMEM" in refused(tmp_path, "tpu-v4i", text)
    text = text_of("tpu-v4i").replace('name = "VMEM"', 'name = "CMEM"')
    assert "there are two named 'CMEM'" in refused(tmp_path, "tpu-v4i", text)


def test_memory_of_an_unknown_kind_is_not_priced_as_another(tmp_path: Path) -> None:
    text = text_of("tpu-v4i").replace('"HBM2"', '"HBM9"')
    assert "unknown kind of memory `HBM9`: did you mean HBM" in refused(tmp_path, "tpu-v4i", text)
    assert set(energy_table().memory) == set(MemoryTechnology)


def test_relatives_in_a_circle_are_named(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "one")):
        text = re.sub(r'^name = ".*"', f'name = "{name}"', text_of("tpu-v4i"), count=1)
        text = text.replace('"tpu-v4"', f'"{tmp_path / other}.toml"')
        (tmp_path / f"{name}.toml").write_text(text)
    with pytest.raises(DataFileError, match="calibration_from goes in a circle: one -> two -> "):
        chip(str(tmp_path / "one.toml"))
    text = text_of("tpu-v4i").replace('calibration_from = "tpu-v4"', 'calibration_from = "t4"')
    (tmp_path / "tpu-v4i.toml").write_text(text)
    with pytest.raises(InputError, match=r"t4, which is of kind 'gpu': needs a chip of its own"):
        chip(str(tmp_path / "tpu-v4i.toml"))


def test_figures_that_contradict_each_other(tmp_path: Path) -> None:
    said = {
        ("t4", '"36 W"', '"360 W"'): "idle_power: is above 'tdp'",
        ("tpu-v4i", '"55 W"', '"555 W"'): "idle_power: is above 'tdp'",
        ("tpu-v4i", '"138 TOPS"', '"200 TOPS"'): "peak.int8: peak 200.0 T differs",
        ("a100-sxm-80", '"19.5 TFLOPS"', '"195 TFLOPS"'): "peak.fp32: is above 'peak.tf32'",
        ("tpu-v4i", "year = 2020", "year = 20200"): "year: must be from 1970 to 2100",
        ("tpu-v1", 'activation_level = "VMEM"', 'activation_level = "CMEM"'): "the chip has not",
        (
            "tpu-v4i",
            'weight_level = "CMEM"',
            'weight_level = "L2"',
        ): "weight_level: names L2, which",
    }
    for (name, old, new), message in said.items():
        assert old in text_of(name)
        assert message in refused(tmp_path, name, text_of(name).replace(old, new))


def test_all_faults_are_named_in_one_go(tmp_path: Path) -> None:
    text = text_of("tpu-v4i")
    for old, new in (("1050 MHz", "-1050 MHz"), ("175 W", "175 watts"), ('name = "CMEM"', 'name = "CMEN"'),
                     ("units = ", "unitss = "), ('"HBM2"', '"HMB2"')):  # fmt: skip
        text = text.replace(old, new)
    message = refused(tmp_path, "tpu-v4i", text)
    for part in ("clock: must be above 0", "tdp: ", "`CMEN`", "`unitss`", "`HMB2`"):
        assert part in message


@pytest.mark.parametrize("name", [n for n in names() if n != "host"])
def test_a_chip_is_written_back_as_it_was_read(name: str, tmp_path: Path) -> None:
    """Links, the host link, offsets and reasons too."""
    record = read_chip(CATALOGUE / f"{name}.toml")
    path = tmp_path / f"{name}.toml"
    path.write_text(chip_file(record))
    again = read_chip(path)
    assert list(again.figures) == list(record.figures) or set(again.figures) == set(record.figures)
    for where, figure in record.figures.items():
        other = again.figures[where]
        assert (other.value, other.low, other.high) == pytest.approx(
            (figure.value, figure.low, figure.high), rel=1e-11
        )
        assert (other.status, other.source, other.note) == (
            figure.status,
            figure.source,
            figure.note,
        )
    for field in ("organisation", "year", "kind", "sources", "memory", "levels", "cooling", "note",
                  "topology", "peak_reason", "relatives", "calibration_from", "activation_level",
                  "weight_level", "whole_weight_tiles"):  # fmt: skip
        assert getattr(again, field) == getattr(record, field), field


def test_every_number_of_a_chip_follows_its_figures() -> None:
    v4i = chip("tpu-v4i")
    twice = v4i.with_figures(
        {p: 2 * v4i.figures[p].value for p in ("clock", "memory.bandwidth", "matrix.rows",
                                               "peak.bf16", "sram.CMEM.capacity", "tdp")}
    )  # fmt: skip
    assert twice.clock_hz == 2 * v4i.clock("a test")
    assert twice.memory_bytes_per_s == 2 * v4i.figures["memory.bandwidth"].value
    assert twice.matrix is not None
    assert twice.matrix.rows == 256
    assert twice.peak_flops[MatrixPrecision.BF16] == 2 * v4i.peak_flops[MatrixPrecision.BF16]
    assert twice.level_bytes(SramRole.CMEM) == 2 * v4i.level_bytes(SramRole.CMEM)
    assert twice.tdp_w == 350
    with pytest.raises(InputError, match="memory.bandwidth of tpu-v4i must be above 0, got -1"):
        v4i.with_figures({"memory.bandwidth": -1.0})
    with pytest.raises(UnknownName, match="did you mean memory.bandwidth"):
        v4i.with_figures({"memory.bandwith": 1e9})


def test_the_vocabulary_is_closed_for_every_kind() -> None:
    for kind in Kind:
        known = dict(paths(kind))
        assert all(f"calibration.{c.value}" in known for c in OF_KIND[kind])
        assert NEEDED[kind] <= ROLES[kind]
