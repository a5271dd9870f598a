"""Times for a list of operators: a CSV in, the same rows with time, bound and energy out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tenfold.chips import Chip
from tenfold.errors import InputError, TenfoldError
from tenfold.estimate import Estimate
from tenfold.machine import Kernel, require_model, time_kernels
from tenfold.machine.simulate import dynamic_energy, static_power
from tenfold.operators import COLUMNS, DTYPES, Request, in_order, kernel_of

RESULT_COLUMNS = ("time_s", "bound", "energy_j")
_DEFAULTS = {"tp": "1", "ep": "1", "gated": "1", "causal": "1"}
_FLAGS = ("causal", "gated")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Time of one call with its interval, the unit that bounds it, and its energy."""

    time_s: Estimate
    bound: str
    energy_j: Estimate


def read_requests(text: str) -> tuple[list[dict[str, str]], list[Request]]:
    """The rows of a CSV as written and as requests.

    Raises InputError naming line and column for anything missing, unknown or not positive.
    """
    reader = csv.DictReader(io.StringIO(text))
    if not reader.fieldnames or "op" not in reader.fieldnames:
        raise InputError("the first line must name the columns, 'op' and 'dtype' among them")
    if "dtype" not in reader.fieldnames:
        raise InputError("there is no column 'dtype'")
    raw, requests = [], []
    for line, row in enumerate(reader, start=2):
        if None in row:
            raise InputError(f"line {line} has more fields than the first line names")
        raw.append({k: v or "" for k, v in row.items()})
        requests.append(request_of(line, raw[-1]))
    if not requests:
        raise InputError("the file has no rows after its first line")
    return raw, requests


def request_of(line: int, row: Mapping[str, str]) -> Request:
    """The request in one row of a CSV. Raises InputError naming line and column."""
    op = row["op"].strip()
    if op not in COLUMNS:
        raise InputError(f"line {line}: unknown op '{op}': known are {', '.join(COLUMNS)}")
    dtype = row["dtype"].strip()
    if dtype not in DTYPES:
        raise InputError(f"line {line}: unknown dtype '{dtype}': known are {', '.join(DTYPES)}")
    extents: dict[str, int] = {}
    for name in COLUMNS[op]:
        if name == "distribution":
            continue
        text = (row.get(name) or "").strip() or _DEFAULTS.get(name, "")
        if name in _FLAGS:
            text = {"true": "1", "false": "0"}.get(text.lower(), text)
        if not (text.isdecimal() and text.isascii()) or (int(text) == 0 and name not in _FLAGS):
            raise InputError(f"line {line}, column '{name}': {op} needs a whole number above 0, found '{text}'")
        if int(text) > 2**40:
            raise InputError(f"line {line}, column '{name}': {text} is beyond any machine (limit 2**40)")
        extents[name] = int(text)
    if op.startswith("attention") and extents["heads"] % extents["kv_heads"]:
        raise InputError(f"line {line}: {extents['heads']} heads do not divide by {extents['kv_heads']} kv_heads")
    return Request(line, op, dtype, extents, (row.get("distribution") or "").strip() or "balanced")


def predict(request: Request, chip: Chip, source: str | None = None) -> Prediction:
    """Time and energy of ``request`` on ``chip``, operands in off-chip memory, everything else idle.

    ``source`` names who measured: what one call costs beside the kernel differs from one to the other. Without it a
    kernel in a graph of kernels is meant.
    Raises InputError with the line for a dtype that the chip has not.
    """
    require_model(chip)
    try:
        precision = chip.storage(request.dtype)
        kernel = kernel_of(request, chip, precision)
        kernels = tuple(in_order(kernel, chip))
        timed, counters = time_kernels(chip, kernels)
    except TenfoldError as error:
        raise type(error)(f"line {request.line}: {error}") if isinstance(error, InputError) else error from error
    seconds = sum(t.time_s for t in timed) - launched_early(chip, kernels) + beside(chip, kernel, source)
    time = Estimate.within(seconds, chip.error(kernel.family))
    parts = dynamic_energy(chip, precision, counters)
    energy = Estimate.total(e.energy_j for e in parts) + static_power(chip, precision) * time
    return Prediction(time, timed[-1].bound if counters.cycles else "launch", energy)


def launched_early(chip: Chip, kernels: Sequence[Kernel]) -> float:
    """Seconds counted twice where one call runs as several kernels: it starts once."""
    return (len(kernels) - 1) * chip.constant("kernel_s") if chip.kind == "systolic" else 0.0


def beside(chip: Chip, kernel: Kernel, source: str | None) -> float:
    """Seconds that ``source`` measures beside the kernel, over what the kernel's own launch takes in a graph."""
    return 0.0 if source is None else chip.offset(source) - chip.constant("launch_s") * (chip.kind == "gpu")


def predict_all(requests: Sequence[Request], chip: Chip, source: str | None = None) -> Iterator[Prediction]:
    """Predictions in order; equal rows are computed once."""
    seen: dict[tuple[object, ...], Prediction] = {}
    for r in requests:
        key = (r.op, r.dtype, tuple(r.extents.items()), r.distribution)
        if key not in seen:
            seen[key] = predict(r, chip, source)
        yield seen[key]
