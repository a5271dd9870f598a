"""What is added is a file or a row, and a wrong name in it fails at once with a line that says what
is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer

from support import FOUR
from tenfold import carbon, economics, zoo
from tenfold.chips import MatrixPrecision, chip
from tenfold.cli import app
from tenfold.economics.offers import read_offers
from tenfold.errors import InputError
from tenfold.estimate import Estimate
from tenfold.evaluate.profiling import profile
from tenfold.ir.table import Lowering
from tenfold.machine import Kernel, Level, Moved, Traffic, time_kernel
from tenfold.machine.energy import EnergyModel
from tenfold.model import Sizes, load
from tenfold.report.svg import energy_colour
from tenfold.serving import POLICIES

PRICE = """[[rent]]
chip = "t4"
provider = "Nobody"
location = "Nowhere"
date = "2026-11-01"
price = "0.10 USD/chip-hour"
status = "assumed"
source = "a test"
"""
GRID = """year = 2025
source = "a test"
status = "assumed"
[region.nowhere-1]
location = "Nowhere"
grid = "100 gCO2e/kWh"
carbon_free_share = 0.5
"""
MODEL = """name = "tiny"
family = "stack"
dtype = "fp32"
[parameters]
value = "1 M"
status = "assumed"
source = "a test"
[shape]
"""


def fault(monkeypatch: pytest.MonkeyPatch, where: ModuleType, text: str, folder: Path) -> str:
    """What reading ``text`` as the only file of its kind says."""
    place = folder / "grids"
    place.mkdir()
    (place / "tiny.toml").write_text(text)
    monkeypatch.setattr("tenfold.carbon.grids.DATA", folder)
    read: dict[ModuleType, Callable[[], object]] = {
        economics: lambda: read_offers(place),
        carbon: carbon.regions.__wrapped__,
        zoo: lambda: zoo._from_file(place / "tiny.toml"),
    }
    with pytest.raises(InputError) as caught:
        read[where]()
    return str(caught.value)


STATUSES = "allowed are verified, second-hand, recalled, derived, assumed, fitted"
WRONG = [
    (economics, PRICE, "provider =", "providr =", "unknown field `providr`", "may have chip, pro"),
    (economics, PRICE, "assumed", "asumed", "Invalid enum value 'asumed'", STATUSES),
    (economics, PRICE, "2026-11-01", "May 2026", "found 'May 2026'", "a date is like"),
    (economics, PRICE, '"t4"', '"t5"', "unknown chip 't5'", "did you mean"),
    (carbon, GRID, "carbon_free_share", "carbon_free", "`carbon_free`", "location, grid, carbon_"),
    (carbon, GRID, "assumed", "asumed", "Invalid enum value 'asumed'", STATUSES),
    (carbon, GRID, "0.5", "1.5", "carbon_free_share must be at most 1", "found 1.5"),
    (carbon, GRID, "100 g", "-100 g", "grid must be at least 0", "found '-100 gCO2e/kWh'"),
    (zoo, MODEL, "assumed", "asumed", "Invalid enum value 'asumed'", STATUSES),
    (zoo, MODEL, "stack", "stak", "unknown family 'stak'", "did you mean stack"),
    (zoo, MODEL, "[shape]", "[shape]\nwidht = 3", "unknown field `widht`", "it may have "),
]


@pytest.mark.parametrize(("where", "text", "old", "new", "found", "allowed"), WRONG)
def test_a_wrong_name_says_what_is_allowed(
    where: ModuleType,
    text: str,
    old: str,
    new: str,
    found: str,
    allowed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert old in text
    said = fault(monkeypatch, where, text.replace(old, new, 1), tmp_path)
    assert said.startswith("tiny.toml: ")
    assert found in said
    assert allowed in said
    assert "\n" not in said


def test_an_entry_of_energy_needs_no_colour_and_a_level_needs_its_joules() -> None:
    assert energy_colour("refresh").startswith("#")
    none = Estimate.exact(0.0)
    with pytest.raises(ValueError, match="bytes of NEAR.* have no energy"):
        EnergyModel(none, none, {Level.ON_CHIP: none, Level.OFF_CHIP: none}, none, "a test")


def test_bytes_at_a_level_that_a_machine_cannot_time_are_refused(tmp_path: Path) -> None:
    """A roofline has one memory: what says that buffers lie nearer is priced by nobody."""
    kernel = Kernel(
        name="copy",
        ops=("copy",),
        kind=Lowering.MOVE,
        precision=MatrixPrecision.BF16,
        traffic=Traffic(near=Moved(inputs=1, outputs=1)),
    )
    few = tmp_path / "mine.toml"
    few.write_text(FOUR)
    with pytest.raises(ValueError, match="mine has no time for bytes at near"):
        time_kernel(chip(str(few)), kernel)
    assert time_kernel(chip("tpu-v4i"), kernel).counters.bytes(Level.NEAR) == 2


def test_the_help_names_every_policy() -> None:
    command = typer.main.get_command(app).commands["simulate"]  # type: ignore[attr-defined]
    said = next(p.help for p in command.params if p.name == "policy")
    assert all(name in said for name in POLICIES)


def test_what_a_processors_caches_hold_is_counted_near_and_beside_the_units() -> None:
    """All of ResNet-50 fits in the last-level cache of an EPYC 9654: no byte comes from far away,
    and none is free.
    """
    run = profile(load("resnet50"), "epyc-9654", Sizes(1)).run
    moved = sum(k.kernel.traffic.off_chip.total * k.kernel.repeat for k in run.kernels)
    assert run.counters.bytes(Level.OFF_CHIP) == 0
    assert run.counters.bytes(Level.NEAR) == moved > 100e6
    assert run.counters.bytes(Level.ON_CHIP) >= moved
    assert next(e.amount.value for e in run.energy if e.what == "on-chip memory") > 0
