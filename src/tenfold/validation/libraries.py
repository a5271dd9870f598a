"""Attention of serving engines, each with the constants of its library: rows held out on the cards
that these were fitted on, and cards that nothing was fitted to.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from tenfold.calibration import Measured
from tenfold.calibration.measured import group_of
from tenfold.calibration.timing import timer
from tenfold.chips import Chip, KernelFamily, Library, chip, library_named, with_library
from tenfold.evaluate.operators import COLUMNS, DECODE, OperatorCall
from tenfold.validation.record import Row

PATH = Path(__file__).parent / "data" / "libraries.csv"
FITTED = ("a100-sxm-80", "h100-sxm")


def attention() -> Iterator[Row]:
    """As the library that ran; and once more as if it were not known which did, for the interval
    that is to span them.
    """
    for (name, library, op), rows in measured_rows().items():
        what = "decode" if op == DECODE else "prefill"
        never = "" if name in FITTED else " never measured"
        record = with_library(chip(name), library)
        yield from _rows(record, rows, f"attention {what}, {library}, {name}{never}")
    for (name, _, op), rows in measured_rows().items():
        what = "decode" if op == DECODE else "prefill"
        yield from _rows(chip(name), rows, f"attention {what}, library not known")


def _rows(record: Chip, rows: list[Measured], area: str) -> Iterator[Row]:
    for m, t in zip(rows, timer(record, rows)(record), strict=True):
        assert isinstance(m.what, OperatorCall)
        family = KernelFamily.DECODE if m.what.op == DECODE else KernelFamily.ATTENTION
        within = abs(np.log(t / m.time_s)) <= np.log1p(record.error(family))
        extents = " ".join(f"{k}={v}" for k, v in m.what.extents.items())
        yield Row(
            area=area,
            case=f"{record.name} {m.source} {m.what.op} {extents}",
            predicted=float(t),
            reference=m.time_s,
            unit="s",
            source="aiconfigurator",
            inside=bool(within),
        )


@lru_cache(maxsize=1)
def measured_rows() -> dict[tuple[str, Library, str], list[Measured]]:
    """By chip, library and operator."""
    lines = [x for x in PATH.read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    found: dict[tuple[str, Library, str], list[Measured]] = {}
    for i, r in enumerate(csv.DictReader(lines), 1):
        extents = {n: int(r[n]) for n in COLUMNS[r["op"]] if r.get(n)}
        if r["op"] != DECODE:
            extents["causal"] = 1
        # calls in a loop, on the same operands
        what = OperatorCall(i, r["op"], "bf16", extents, warm=True)
        library = library_named(r["library"])
        row = Measured(what, float(r["latency_ms"]) * 1e-3, library.value, group_of(what))
        found.setdefault((r["chip"], library, r["op"]), []).append(row)
    return found
