"""Times for a list of operators: a CSV in, the same rows with time, bound and energy out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tenfold.chips import Chip, GpuConstant, KernelFamily
from tenfold.cluster import Topology
from tenfold.errors import InputError, TenfoldError
from tenfold.estimate import Estimate
from tenfold.evaluate.operators import (
    COLUMNS,
    DTYPES,
    FETCH,
    OperatorCall,
    kernel_of,
    kernels_of,
    precision_of,
)
from tenfold.evaluate.together import TOGETHER, TOGETHER_DEFAULTS, moved
from tenfold.facts import Account
from tenfold.machine import Kernel, target_of, time_kernels
from tenfold.machine.energy import dynamic_energy, energy_model

WITH_OFFSET = frozenset(
    {
        KernelFamily.MATMUL,
        KernelFamily.FP32,
        KernelFamily.FP32_WINDOWS,
        KernelFamily.SOFTMAX,
        KernelFamily.NORM,
        KernelFamily.STREAM,
    }
)
RESULT_COLUMNS = (
    "time_s", "bound", "energy_j", "time_low_s", "time_high_s", "energy_low_j", "energy_high_j",
)  # fmt: skip
_DEFAULTS = {
    "tp": "1", "ep": "1", "gated": "1", "causal": "1", "stride": "1", "padding": "0", "groups": "1",
    **TOGETHER_DEFAULTS,
}  # fmt: skip
_FLAGS = ("causal", "gated", "low_latency")
_FROM_0 = (*_FLAGS, "padding", "multiprocessors")
LONGEST_NUMBER = 18  # digits
_LARGEST = {
    "q_len": 2**24,
    "kv_len": 2**30,
    "experts": 2**16,
    "topk": 2**16,
    "ep": 2**16,
    "tp": 2**16,
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Time of one call with its interval, what bounds it, and its energy; of a collective the way
    it is done, and no energy, since nobody published that of links.
    """

    time_s: Estimate
    bound: str
    energy_j: Estimate | None


def rows_of(text: str) -> csv.DictReader[str]:
    """A reader of the rows, behind comments at the head. Raises InputError for a column that is
    named twice.
    """
    lines = text.splitlines(keepends=True)
    comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    reader = csv.DictReader(io.StringIO("\n" * comments + "".join(lines[comments:])))
    try:
        for _ in range(comments):
            reader.fieldnames = None  # an empty line names no columns: read the next
            _ = reader.fieldnames
        if comments:
            reader.fieldnames = None
        reader.fieldnames = [n.strip() for n in reader.fieldnames or ()]
    except csv.Error as error:
        raise InputError(f"line {comments + 1}: not a CSV: {error}") from error
    twice_named = [n for n in reader.fieldnames if n and reader.fieldnames.count(n) > 1]
    if twice_named:
        raise InputError(f"line 1: the column '{twice_named[0]}' is there twice")
    return reader


def each(reader: csv.DictReader[str]) -> Iterator[dict[str, str]]:
    """The rows; InputError for what is no CSV."""
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not a CSV: {error}") from error


def read_requests(
    text: str, *, engine: bool = True, warm: bool = False
) -> tuple[list[dict[str, str]], list[OperatorCall]]:
    """The rows of a CSV as written and as requests; ``engine``: as serving engines' kernels;
    ``warm``: with operands in L2 from the call before.

    Raises InputError naming line and column for anything missing, unknown or not positive.
    """
    reader = rows_of(text)
    if not reader.fieldnames or "op" not in reader.fieldnames:
        raise InputError("the first line must name the columns, 'op' and 'dtype' among them")
    if "dtype" not in reader.fieldnames:
        raise InputError("there is no column 'dtype'")
    if taken := [n for n in reader.fieldnames if n in RESULT_COLUMNS]:
        raise InputError(
            f"line 1: the column '{taken[0]}' is one that predict writes: give yours another name"
        )
    raw, requests = [], []
    for row in each(reader):
        line = reader.line_num
        if None in row:
            raise InputError(f"line {line} has more fields than the first line names")
        raw.append({k: v or "" for k, v in row.items()})
        asked = request_of(line, raw[-1])
        own = warm_of(line, raw[-1])
        if warm and (raw[-1].get("warm") or "").strip() and not own:
            raise InputError(
                f"line {line}, column 'warm': says no, and --warm says yes: leave one out"
            )
        requests.append(replace(asked, engine=engine, warm=warm or own))
    if not requests:
        raise InputError("the file has no rows after its first line")
    return raw, requests


def request_of(line: int, row: Mapping[str, str]) -> OperatorCall:
    """The request in one row of a CSV. Raises InputError naming line and column."""
    op = row["op"].strip()
    if op not in _ALL:
        raise InputError(f"line {line}: unknown op '{op}': known are {', '.join(_ALL)}")
    dtype = row["dtype"].strip()
    if dtype not in DTYPES:
        raise InputError(
            f"line {line}, column 'dtype': unknown dtype '{dtype}': known are {', '.join(DTYPES)}"
        )
    check_unread(line, op, row, _ALL[op])
    extents: dict[str, int] = {}
    for name in _ALL[op]:
        if name == "distribution":
            continue
        text = _whole((row.get(name) or "").strip()) or _DEFAULTS.get(name, "")
        if name in _FLAGS:
            text = {"true": "1", "false": "0", "yes": "1", "no": "0"}.get(text.lower(), text)
            if text not in ("0", "1"):
                raise InputError(f"line {line}, column '{name}': needs 0 or 1, found '{text[:20]}'")
        if len(text) > LONGEST_NUMBER:
            raise InputError(f"line {line}, column '{name}': {text[:12]}… is beyond any machine")
        if not (text.isdecimal() and text.isascii()) or (int(text) == 0 and name not in _FROM_0):
            raise InputError(
                f"line {line}, column '{name}': {op} needs a whole number above 0, found '{text}'"
            )
        limit = _LARGEST.get(name, 2**40)
        if int(text) > limit:
            raise InputError(
                f"line {line}, column '{name}': {text} is beyond any machine (limit {limit})"
            )
        extents[name] = int(text)
    if op.startswith("attention") and extents["heads"] % extents["kv_heads"]:
        raise InputError(
            f"line {line}: {extents['heads']} heads do not divide by {extents['kv_heads']} kv_heads"
        )
    return OperatorCall(
        line, op, dtype, extents, (row.get("distribution") or "").strip() or "balanced"
    )


_ALL: Mapping[str, tuple[str, ...]] = {**COLUMNS, **TOGETHER}
_EXTENTS = frozenset(name for columns in _ALL.values() for name in columns)


def check_unread(line: int, op: str, row: Mapping[str, str], own: Sequence[str]) -> None:
    """Raises InputError for an extent of other operators that ``op``, with columns of its ``own``,
    would leave without use.
    """
    for name in _EXTENTS - set(own):
        text = (row.get(name) or "").strip()
        if text:
            other = "; products side by side are batched_matmul" if op == "matmul" else ""
            raise InputError(
                f"line {line}, column '{name}': {op} does not use it, found '{text[:20]}' (it has"
                f" {', '.join(own)}{other})"
            )


def warm_of(line: int, row: Mapping[str, str]) -> bool:
    """Whether the column ``warm`` says so: yes or no, empty is no."""
    text = (row.get("warm") or "").strip().lower()
    if text not in ("", *_YES, *_NO):
        raise InputError(f"line {line}, column 'warm': needs yes or no, found '{text[:20]}'")
    return text in _YES


_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")


def _whole(text: str) -> str:
    """A whole number as spreadsheets write it, without its ``.0``."""
    whole, point, rest = text.partition(".")
    return whole if point and whole and not rest.strip("0") else text


def predict(
    request: OperatorCall,
    chip: Chip,
    source: str | None = None,
    topology: Topology | None = None,
) -> Prediction:
    """Time and energy of ``request`` on ``chip``, operands in off-chip memory, everything else
    idle; collectives over chips of ``topology`` (where None, as the chip is sold).

    ``source`` names who measured: what one call costs beside the kernel differs from one to the
    other. Without it a kernel in a graph of kernels is meant. Raises InputError with the line for a
    dtype that the chip has not.
    """
    if request.op in TOGETHER:
        if source is not None:
            raise InputError(
                f"line {request.line}: {request.op} has no time of a measuring source: leave"
                " --source out"
            )
        done = moved(request, chip, topology)
        return Prediction(done.time, done.way.value, None)
    target_of(chip)
    try:
        precision = precision_of(request, chip)
        kernel = kernel_of(request, chip, precision)
        kernels = kernels_of(kernel, request, chip)
        timed, _ = time_kernels(chip, kernels)
    except TenfoldError as error:
        raise (
            type(error)(f"line {request.line}: {error}") if isinstance(error, InputError) else error
        ) from error
    seconds = (
        sum(t.time_s for t in timed)
        - overlapped_fetch_s(chip, kernels)
        + call_overhead_s(chip, kernel, source)
    )
    time = Estimate.within(seconds, chip.error(kernel.family))
    model = energy_model(chip, precision)
    parts = (dynamic_energy(model, t.counters, t.clocked) for t in timed)
    energy = Account.sum(parts).total + model.static_w * time
    return Prediction(time, max(timed, key=lambda t: t.time_s).bound, energy)


def overlapped_fetch_s(chip: Chip, kernels: Sequence[Kernel]) -> float:
    """Seconds counted twice where operands are fetched in a step of their own: that starts with the
    product.
    """
    near = target_of(chip).near()
    return near.balance(kernels[0]).start_s if near and kernels[0].name == FETCH else 0.0


def call_overhead_s(chip: Chip, kernel: Kernel, source: str | None) -> float:
    """Seconds that ``source`` measures beside the kernel, over what the kernel's own launch takes
    in a graph.

    Attention, experts and quantized products were fitted with a launch of their own, and have no
    offset.
    """
    if source is None:
        return 0.0
    offset = chip.offset(source)
    if not target_of(chip).serves or kernel.family not in WITH_OFFSET:
        return 0.0
    return offset - chip.constant(GpuConstant.LAUNCH_S)


def predict_all(
    requests: Sequence[OperatorCall],
    chip: Chip,
    source: str | None = None,
    topology: Topology | None = None,
) -> Iterator[Prediction]:
    """Predictions in order; equal rows are computed once."""
    seen: dict[tuple[object, ...], Prediction] = {}
    for r in requests:
        key = (r.op, r.dtype, tuple(r.extents.items()), r.distribution, r.engine, r.warm)
        if key not in seen:
            seen[key] = predict(r, chip, source, topology)
        yield seen[key]
