"""Draws the README's picture: the main job on seven chips, as the terminal shows it.

python docs/picture.py docs/profile.svg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from tenfold.evaluate.profiling import profile_bound
from tenfold.model import Sizes, load, prepare
from tenfold.report.tables import bars, profile_table

CHIPS = ("tpu-v1", "tpu-v4i", "tpu-v4", "tpu-v6e", "t4", "a100-sxm-80", "h100-sxm")


def picture() -> str:
    """The SVG text."""
    bound = prepare(load("resnet50"), Sizes(batch=8))
    done = [profile_bound(bound, c, region="us-central1") for c in CHIPS]
    console = Console(
        record=True, width=150, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(profile_table(done, money=True))
    console.print(
        bars("time per item", [(p.run.program.chip, p.run.time_s / p.batch) for p in done], "s")
    )
    console.print(
        bars("energy per item", [(p.run.program.chip, p.run.energy_j / p.batch) for p in done], "J")
    )
    title = "tenfold profile resnet50 --batch 8 --region us-central1"
    return console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id="tenfold")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
