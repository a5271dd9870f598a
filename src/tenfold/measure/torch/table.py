"""Measured rows as the CSV that ``calibrate`` reads, with where they come from at its head."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from tenfold.calibration.measured import FORWARD
from tenfold.evaluate.operators import COLUMNS, OperatorCall
from tenfold.measure.torch.bench import Bench
from tenfold.measure.torch.session import Taken

_EXTENTS = tuple(dict.fromkeys(n for c in COLUMNS.values() for n in c if n != "distribution"))
_HEAD = ("op", "dtype", "kernels", "warm", "model", "stack", "seq")
_TAIL = ("time_s", "power_w", "clock_hz", "source")
SOURCE = "tenfold-torch"


def table(b: Bench, rows: Iterable[Taken], date: str) -> str:
    """The text of the file; columns that no row fills are left out."""
    lines = [_line(t) for t in rows]
    names = [n for n in (*_HEAD, *_EXTENTS, *_TAIL) if any(n in line for line in lines)]
    out = io.StringIO()
    for comment in (b.card, b.versions, f"measured on {date}"):
        out.write(f"# {comment}\n")
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _line(t: Taken) -> dict[str, object]:
    w = t.what
    end: dict[str, object] = {"time_s": f"{t.time_s:.6g}", "source": SOURCE}
    if t.drawn is not None:
        end |= {"power_w": f"{t.drawn.power_w:.4g}", "clock_hz": f"{t.drawn.clock_hz:.4g}"}
    if isinstance(w, OperatorCall):
        warm = "yes" if w.warm else "no"
        kernels = "engine" if w.engine else "framework"
        own = {"op": w.op, "dtype": w.dtype, "kernels": kernels, "warm": warm}
        return {**own, **w.extents, **end}
    seq = {} if w.seq is None else {"seq": w.seq}
    what = {"op": FORWARD, "dtype": w.dtype, "model": w.model, "stack": w.stack.value}
    return {**what, "batch": w.batch, **seq, **end}
