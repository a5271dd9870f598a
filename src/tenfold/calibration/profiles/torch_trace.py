"""A Chrome trace of ``torch.profiler``: kernels of the GPU, and the operators that launched them.

Shapes are there where it was told ``record_shapes=True``; passes where each ended with ``step()``.
A kernel belongs to the operator of its ``External id`` (pytorch/kineto, output_json.cpp).
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tenfold.calibration.profiles.record import (
    Calls,
    Profile,
    Tool,
    rows_and_columns,
    seconds,
    shapes_of,
)
from tenfold.errors import InputError
from tenfold.evaluate.operators import CONV, DECODE, PREFILL

_STEP = re.compile(r"^ProfilerStep#(\d+)$")
_DTYPES = {
    "float": "fp32",
    "c10::Half": "fp16",
    "c10::BFloat16": "bf16",
    "c10::Float8_e4m3fn": "fp8",
}
_US = 1e-6
_SOURCE = "torch-profiler"
Event: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = Sequence[int]


def read(trace: Mapping[str, Any]) -> Profile:
    """Raises InputError for a trace without kernels, or with times that are none."""
    events = [e for e in trace["traceEvents"] if isinstance(e, dict) and e.get("ph") == "X"]
    kernels = [e for e in events if e.get("cat") == "kernel"]
    if not kernels:
        found = sorted({str(e.get("cat")) for e in events}) or ["none"]
        raise InputError(
            "the trace holds no kernels of a GPU (events of the category 'kernel'), found"
            f" {', '.join(found[:6])}: profile with ProfilerActivity.CUDA, and let it record a pass"
        )
    spans = [_span(e) for e in kernels]
    by_id: dict[int | str | None, float] = {}
    for e, (_, took) in zip(kernels, spans, strict=True):
        owner = _id(e)
        by_id[owner] = by_id.get(owner, 0.0) + took
    calls, left = Calls(_SOURCE), dict[str, float]()
    ops = {i: e for e in events if e.get("cat") == "cpu_op" and (i := _id(e)) is not None}
    for owner, took in by_id.items():
        op = ops.get(owner) if owner is not None else None
        what = _what(op) if op is not None and took > 0 else None
        if what is None:
            name = str(op.get("name")) if op is not None else "without an operator"
            left[name] = left.get(name, 0.0) + took
        else:
            calls.add(*what, took)
    passes, pass_s = _passes(events, spans)
    return Profile(
        tool=Tool.TORCH,
        device=_device(trace),
        busy_s=sum(took for _, took in spans),
        passes=passes,
        pass_s=pass_s,
        operators=calls.rows(),
        left_out=left,
    )


def _id(e: Event) -> int | str | None:
    """Which operator an event belongs to; None where it does not say."""
    found = _args(e).get("External id", _args(e).get("external id"))
    return found if isinstance(found, int | str) else None


def _args(e: Event) -> Mapping[str, Any]:
    args = e.get("args")
    return args if isinstance(args, dict) else {}


def _span(e: Event) -> tuple[float, float]:
    """When an event starts and how long it takes, in seconds."""
    where = f"the kernel '{str(e.get('name'))[:40]}' of the trace"
    return seconds(e.get("ts"), _US, where), seconds(e.get("dur"), _US, where)


def _passes(
    events: Sequence[Event], kernels: Sequence[tuple[float, float]]
) -> tuple[int | None, float | None]:
    """How many passes, and the median from the first kernel of one to the end of its last; where
    the GPU's own marks of steps are missing, only how many.
    """
    steps = {e["name"] for e in events if _STEP.match(str(e.get("name", "")))}
    marks: dict[str, tuple[float, float]] = {}  # a mark for each stream of a step
    for e in events:
        name = str(e.get("name", ""))
        if e.get("cat") == "gpu_user_annotation" and _STEP.match(name):
            start, took = _span(e)
            first, last = marks.get(name, (start, start + took))
            marks[name] = min(first, start), max(last, start + took)
    ordered = sorted(kernels)
    starts = [s for s, _ in ordered]
    taken: list[float] = []
    for first, last in marks.values():
        own = ordered[bisect_left(starts, first) : bisect_left(starts, last)]
        if own:
            taken.append(max(s + t for s, t in own) - own[0][0])
    if taken:
        return len(taken), statistics.median(taken)
    return (len(steps) or None), None


def _device(trace: Mapping[str, Any]) -> str:
    listed = trace.get("deviceProperties")
    first = listed[0] if isinstance(listed, list) and listed else {}
    return str(first.get("name", "")) if isinstance(first, dict) else ""


def _what(op: Event) -> tuple[str, str, dict[str, int]] | None:
    """Operator, dtype and extents of a call, None for what ``predict`` has no row for."""
    args = _args(op)
    shapes, types = shapes_of(args.get("Input Dims")), args.get("Input type")
    made = _READ.get(str(op.get("name", "")).removeprefix("aten::"))
    if made is None or shapes is None or not isinstance(types, list):
        return None
    dtype = next((_DTYPES[t] for t in types if isinstance(t, str) and t in _DTYPES), None)
    concrete = args.get("Concrete Inputs")
    given = [str(c) for c in concrete] if isinstance(concrete, list) else []
    try:
        found = made(shapes, given)
    except (IndexError, ValueError, TypeError, ArithmeticError):
        return None  # not the arguments that this name had when this was written
    if found is None or dtype is None or any(n < 1 for n in _sizes(found[1])):
        return None
    return found[0], dtype, found[1]


def _sizes(extents: Mapping[str, int]) -> list[int]:
    return [n for name, n in extents.items() if name not in ("padding", "causal")]


_Made: TypeAlias = "tuple[str, dict[str, int]] | None"
_Reader: TypeAlias = Callable[[Sequence[Shape], Sequence[str]], _Made]


def _product(at: int) -> _Reader:
    def read_product(shapes: Sequence[Shape], _: Sequence[str]) -> _Made:
        m, k = shapes[at]
        n = shapes[at + 1][1]
        return "matmul", {"m": m, "n": n, "k": k}

    return read_product


def _batched(at: int) -> _Reader:
    def read_batched(shapes: Sequence[Shape], _: Sequence[str]) -> _Made:
        b, m, k = shapes[at]
        n = shapes[at + 1][2]
        return "batched_matmul", {"batch": b, "m": m, "n": n, "k": k}

    return read_batched


def _list(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.strip("[]() ").split(",") if n.strip())


def _conv(padding: int, stride: int, dilation: int, groups: int | None) -> _Reader:
    """A convolution over two axes with square windows; where its arguments are."""

    def read_conv(shapes: Sequence[Shape], concrete: Sequence[str]) -> _Made:
        batch, channels, height, width = shapes[0]
        filters, each, side, other = shapes[1]
        pads, strides = _list(concrete[padding]), _list(concrete[stride])
        square = side == other and len({*pads}) == len({*strides}) == 1
        if not square or {*_list(concrete[dilation])} != {1}:
            return None
        return CONV, {
            "batch": batch,
            "channels": channels,
            "height": height,
            "width": width,
            "filters": filters,
            "kernel": side,
            "stride": strides[0],
            "padding": pads[0],
            "groups": channels // each if groups is None else int(concrete[groups]),
        }

    return read_conv


def _rows(kind: str, axis: int | None = None) -> _Reader:
    """Rows of the last axis; where ``axis`` says which argument names it, only that one."""

    def read_rows(shapes: Sequence[Shape], concrete: Sequence[str]) -> _Made:
        last = (-1, len(shapes[0]) - 1)
        if axis is not None and int(concrete[axis]) not in last:
            return None
        return kind, rows_and_columns(shapes[0])

    return read_rows


def _elementwise(kind: str, tensors: int) -> _Reader:
    """Nothing is broadcast: all operands are of one shape."""

    def read_elementwise(shapes: Sequence[Shape], _: Sequence[str]) -> _Made:
        own = [list(s) for s in shapes[:tensors]]
        return (kind, rows_and_columns(own[0])) if own[0] and own.count(own[0]) == tensors else None

    return read_elementwise


def _attention(causal: int, *, heads_second: bool) -> _Reader:
    def read_attention(shapes: Sequence[Shape], concrete: Sequence[str]) -> _Made:
        q, k = shapes[0], shapes[1]
        if not heads_second:
            q, k = ([s[0], s[2], s[1], s[3]] for s in (q, k))
        batch, heads, queries, dim = q
        held = {"batch": batch, "heads": heads, "kv_heads": k[1], "head_dim": dim}
        if queries == 1:
            return DECODE, {**held, "kv_len": k[2]}
        if queries != k[2]:
            return None
        return PREFILL, {**held, "q_len": queries, "causal": int(concrete[causal] == "True")}

    return read_attention


_READ: Mapping[str, _Reader] = {
    "mm": _product(0),
    "addmm": _product(1),
    "bmm": _batched(0),
    "baddbmm": _batched(1),
    "cudnn_convolution": _conv(padding=2, stride=3, dilation=4, groups=5),
    "miopen_convolution": _conv(padding=3, stride=4, dilation=5, groups=6),
    "mkldnn_convolution": _conv(padding=3, stride=4, dilation=5, groups=6),
    "_conv_depthwise2d": _conv(padding=5, stride=4, dilation=6, groups=None),
    "native_layer_norm": _rows("layernorm"),
    "_softmax": _rows("softmax", axis=1),
    "_flash_attention_forward": _attention(8, heads_second=False),
    "_scaled_dot_product_cudnn_attention": _attention(6, heads_second=True),
    "_scaled_dot_product_flash_attention_for_cpu": _attention(4, heads_second=True),
    "clamp_min": _elementwise("relu", 1),
    **{n: _elementwise(n, 1) for n in ("gelu", "relu", "tanh", "sigmoid", "exp")},
    **{n: _elementwise(n, 2) for n in ("add", "sub", "mul", "div", "pow")},
}
