"""Times for a list of operators: a CSV in, the same rows with time, bound and energy out."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from tenfold.chips import Chip, MatrixPrecision
from tenfold.compiler import Options, build
from tenfold.errors import InputError, TenfoldError
from tenfold.estimate import Estimate
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Attr, Graph, Op, Value
from tenfold.ir.infer import Scope, infer_op
from tenfold.ir.table import Lowering
from tenfold.machine import Attention, Kernel, Product, Traffic, require_model, time_kernel
from tenfold.machine.run import Timed
from tenfold.machine.simulate import dynamic_energy, static_power

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "matmul": ("m", "n", "k"),
    "attention_prefill": ("batch", "q_len", "heads", "kv_heads", "head_dim", "causal"),
    "attention_decode": ("batch", "kv_len", "heads", "kv_heads", "head_dim"),
    "moe": ("tokens", "hidden", "inter", "topk", "experts", "tp", "ep", "distribution"),
    "softmax": ("rows", "cols"),
    "layernorm": ("rows", "cols"),
    "gelu": ("rows", "cols"),
}
RESULT_COLUMNS = ("time_s", "bound", "energy_j")
_FLOATS = {
    "fp32": DType.F32, "fp16": DType.F16, "bf16": DType.BF16, "fp8": DType.F8E4M3, "int8": DType.I8, "tf32": DType.F32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One row: what to run, in which dtype, with which extents; ``line`` is its line in the file."""

    line: int
    op: str
    dtype: str
    extents: Mapping[str, int]
    distribution: str = ""


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
        requests.append(_request(line, raw[-1]))
    if not requests:
        raise InputError("the file has no rows after its first line")
    return raw, requests


def _request(line: int, row: Mapping[str, str]) -> Request:
    op = row["op"].strip()
    if op not in COLUMNS:
        raise InputError(f"line {line}: unknown op '{op}': known are {', '.join(COLUMNS)}")
    dtype = row["dtype"].strip()
    if dtype not in _FLOATS:
        raise InputError(f"line {line}: unknown dtype '{dtype}': known are {', '.join(_FLOATS)}")
    extents: dict[str, int] = {}
    for name in COLUMNS[op]:
        if name == "distribution":
            continue
        text = row.get(name, "").strip()
        if text == "" and name in ("tp", "ep"):
            text = "1"
        if name == "causal":
            text = {"true": "1", "false": "0", "": "1"}.get(text.lower(), text)
        if not (text.isdecimal() and text.isascii()) or (int(text) == 0 and name != "causal"):
            raise InputError(f"line {line}, column '{name}': {op} needs a whole number above 0, found '{text}'")
        if int(text) > 2**40:
            raise InputError(f"line {line}, column '{name}': {text} is beyond any machine (limit 2**40)")
        extents[name] = int(text)
    if op.startswith("attention") and extents["heads"] % extents["kv_heads"]:
        raise InputError(f"line {line}: {extents['heads']} heads do not divide by {extents['kv_heads']} kv_heads")
    return Request(line, op, dtype, extents, row.get("distribution", "").strip() or "balanced")


def predict(request: Request, chip: Chip) -> Prediction:
    """Time and energy of ``request`` on ``chip``, operands in off-chip memory, everything else idle.

    Raises InputError with the line for a dtype that the chip has not.
    """
    require_model(chip)
    try:
        precision = chip.storage(request.dtype)
        timed = _MODELS[request.op](request, chip, precision)
    except TenfoldError as error:
        raise type(error)(f"line {request.line}: {error}") if isinstance(error, InputError) else error from error
    launch = chip.constant("launch_s") if chip.kind == "systolic" else 0.0
    time = Estimate.within(timed.time_s + launch, chip.constant("time_error"))
    parts = dynamic_energy(chip, precision, timed.counters)
    energy = Estimate.total(e.energy_j for e in parts) + static_power(chip, precision) * time
    return Prediction(time, timed.bound, energy)


# --- operators -------------------------------------------------------------------------------------------


def _single(
    kind: str, chip: Chip, precision: MatrixPrecision, dtype: DType, shapes: list[tuple[int, ...]], attrs: Mapping[str, Attr]
) -> Kernel:
    """The kernel that the op table and the lowering make of one op."""
    scope = Scope()
    names = tuple(f"x{i}" for i in range(len(shapes)))
    for name, shape in zip(names, shapes, strict=True):
        scope.declare(Value(name, dtype, shape))
    op = infer_op(scope, Op(kind, names, ("y",), attrs))
    graph = Graph(kind, names, ("y",), (op,), scope.values, {})
    kernel = build(graph, chip, precision, 1, Options(without=("residency",))).kernels[0]
    return _keep_result(kernel, chip)


def _keep_result(kernel: Kernel, chip: Chip) -> Kernel:
    """On a software-scheduled chip a result that fits half of the vector memory stays there for its consumer."""
    room = max((s.bytes for s in chip.sram if s.name == "VMEM"), default=0.0) / 2 if chip.kind == "systolic" else 0.0
    return replace(kernel, traffic=replace(kernel.traffic, outputs=0)) if kernel.traffic.outputs <= room else kernel


def _matmul(r: Request, chip: Chip, precision: MatrixPrecision) -> Timed:
    e = r.extents
    kernel = _single("matmul", chip, precision, _FLOATS[r.dtype], [(e["m"], e["k"]), (e["k"], e["n"])], {})
    # either operand may be the stationary one: the second counts as weights
    second = min(kernel.traffic.inputs, math.ceil(e["k"] * e["n"] * chip.bits(precision) / 8))
    t = replace(kernel.traffic, weights=second, inputs=kernel.traffic.inputs - second)
    kernel = replace(kernel, traffic=t)
    return time_kernel(chip, kernel)


def _row_wise(kind: str, attrs: Mapping[str, Attr], affine: bool) -> Callable[[Request, Chip, MatrixPrecision], Timed]:
    def model(r: Request, chip: Chip, precision: MatrixPrecision) -> Timed:
        rows, cols = r.extents["rows"], r.extents["cols"]
        shapes: list[tuple[int, ...]] = [(rows, cols)] + ([(cols,), (cols,)] if affine else [])
        kernel = _single(kind, chip, precision, _FLOATS[r.dtype], shapes, attrs)
        return time_kernel(chip, kernel)

    return model


def _attention(r: Request, chip: Chip, precision: MatrixPrecision) -> Timed:
    e = r.extents
    decode = r.op == "attention_decode"
    q_len, kv_len = (1, e["kv_len"]) if decode else (e["q_len"], e["q_len"])
    causal = not decode and bool(e["causal"])
    width = chip.bits(precision) / 8
    batch, heads, kv_heads, dim = e["batch"], e["heads"], e["kv_heads"], e["head_dim"]
    group = heads // kv_heads
    attention = Attention(batch, heads, kv_heads, q_len, kv_len, dim, causal)
    keys = math.ceil(kv_len * attention.computed)
    kv = 2 * batch * kv_len * kv_heads * dim * width
    q = batch * q_len * heads * dim * width
    scores = batch * heads * q_len * keys
    kernel = Kernel(
        name=r.op,
        ops=("attention",),
        kind=Lowering.MATRIX,
        precision=precision,
        products=(Product(batch * kv_heads, q_len * group, keys, dim), Product(batch * kv_heads, q_len * group, dim, keys)),
        flops=4 * scores * dim,
        vector_ops=4 * scores,
        transcendentals=scores,
        traffic=Traffic(inputs=int(kv + q), outputs=int(q)),
        operand_bits=chip.bits(precision),
        attention=attention,
    )
    return time_kernel(chip, kernel)


def _moe(r: Request, chip: Chip, precision: MatrixPrecision) -> Timed:
    """Gated experts of one rank: two products for each expert that has tokens (Shazeer et al. 2017, section 2)."""
    e = r.extents
    if e["experts"] % e["ep"] or e["topk"] > e["experts"]:
        raise InputError(
            f"{e['experts']} experts with top-{e['topk']} over {e['ep']} ranks: experts must divide by ep and topk not exceed them"
        )
    here = e["experts"] // e["ep"]
    share = heaviest_share(e["experts"], e["ep"], r.distribution, r.line)
    routed = max(1, round(e["tokens"] * e["topk"] * share))
    active = max(1, round(here * (1 - (1 - 1 / here) ** routed))) if here > 1 else 1
    m, inter = math.ceil(routed / active), math.ceil(e["inter"] / e["tp"])
    width = chip.bits(precision) / 8
    kernel = Kernel(
        name="moe",
        ops=("moe",),
        kind=Lowering.MATRIX,
        precision=precision,
        products=(Product(active, m, 2 * inter, e["hidden"]), Product(active, m, e["hidden"], inter)),
        flops=6 * routed * inter * e["hidden"],
        vector_ops=3 * routed * inter,
        transcendentals=routed * inter,
        traffic=Traffic(
            weights=int(3 * active * inter * e["hidden"] * width),
            inputs=int(routed * (e["hidden"] + inter) * width),
            outputs=int(routed * (e["hidden"] + 3 * inter) * width),
        ),
        operand_bits=chip.bits(precision),
    )
    return time_kernel(chip, kernel)


def heaviest_share(experts: int, ranks: int, distribution: str, line: int) -> float:
    """Share of the routed tokens that the most loaded rank gets, experts dealt to ranks in turn by popularity."""
    if distribution == "balanced":
        return 1 / ranks
    name, _, exponent = distribution.rpartition("_")
    try:
        alpha = float(exponent)
    except ValueError:
        alpha = -1.0
    if name != "power_law" or alpha <= 0:
        raise InputError(f"line {line}, column 'distribution': found '{distribution}', allowed are balanced and power_law_ALPHA")
    weights = [(i + 1) ** -alpha for i in range(experts)]
    return sum(weights[::ranks]) / sum(weights)


_MODELS: Mapping[str, Callable[[Request, Chip, MatrixPrecision], Timed]] = {
    "matmul": _matmul,
    "attention_prefill": _attention,
    "attention_decode": _attention,
    "moe": _moe,
    "softmax": _row_wise("softmax", {"axis": -1}, affine=False),
    "layernorm": _row_wise("layer_norm", {"axis": -1}, affine=True),
    "gelu": _row_wise("gelu", {}, affine=False),
}


def predict_all(requests: list[Request], chip: Chip) -> Iterator[Prediction]:
    """Predictions in order; equal rows are computed once."""
    seen: dict[tuple[object, ...], Prediction] = {}
    for r in requests:
        key = (r.op, r.dtype, tuple(r.extents.items()), r.distribution)
        if key not in seen:
            seen[key] = predict(r, chip)
        yield seen[key]
