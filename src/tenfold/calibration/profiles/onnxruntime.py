"""ONNX Runtime's profile: nodes with shapes, and what their kernels took on the GPU.

The seconds of a node are those of the host, which only launches; the GPU's are events of the
category ``Kernel`` behind it, written by builds that profile CUDA. Without them only whole passes
are read (microsoft/onnxruntime, gpu_profiler_common.h).
"""

from __future__ import annotations

import statistics
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
from tenfold.evaluate.operators import CONV

_US = 1e-6
_SOURCE = "onnxruntime"
_NODE, _KERNEL, _SESSION = "Node", "Kernel", "Session"
_END = "_kernel_time"
_ON_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "ROCMExecutionProvider",
           "MIGraphXExecutionProvider", "NvTensorRTRTXExecutionProvider")  # fmt: skip
_DTYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16"}
Event: TypeAlias = Mapping[str, Any]


def is_its(events: list[Any]) -> bool:
    return any(isinstance(e, dict) and e.get("cat") in (_NODE, _SESSION) for e in events)


def read(events: list[Any]) -> Profile:
    """Raises InputError for a processor's profile, one without a pass, or times that are none."""
    whole = [e for e in events if isinstance(e, dict)]
    runs = [_took(e) for e in whole if e.get("cat") == _SESSION and e.get("name") == "model_run"]
    if not runs:
        raise InputError("ONNX Runtime's profile holds no run of the model ('model_run')")
    providers = {str(_args(e).get("provider")) for e in whole if _is_node(e)}
    if not providers & {*_ON_GPU}:
        raise InputError(
            "ONNX Runtime's profile holds no work of a GPU: its nodes ran with"
            f" {', '.join(sorted(providers)) or 'no provider'}; for this machine's processor there"
            " is `tenfold calibrate host`"
        )
    calls, left = Calls(_SOURCE), dict[str, float]()
    kernels = _of_nodes(whole)
    for node, took in kernels:
        what = _what(node)
        if what is None:
            name = str(_args(node).get("op_name"))
            left[name] = left.get(name, 0.0) + took
        elif took > 0:
            calls.add(*what, took)
    return Profile(
        tool=Tool.ONNXRUNTIME,
        device="",
        busy_s=sum(t for _, t in kernels) or sum(runs),
        passes=len(runs),
        pass_s=statistics.median(runs),
        operators=calls.rows(),
        left_out=left,
    )


def _args(e: Event) -> Mapping[str, Any]:
    args = e.get("args")
    return args if isinstance(args, dict) else {}


def _is_node(e: Event) -> bool:
    return e.get("cat") == _NODE and str(e.get("name", "")).endswith(_END)


def _took(e: Event) -> float:
    return seconds(e.get("dur"), _US, f"the event '{str(e.get('name'))[:40]}' of the profile")


def _of_nodes(events: Sequence[Event]) -> list[tuple[Event, float]]:
    """Nodes with the seconds of the kernels that come behind each."""
    found: list[tuple[Event, float]] = []
    for e in events:
        if _is_node(e) and _args(e).get("provider") in _ON_GPU:
            found.append((e, 0.0))
        elif e.get("cat") == _KERNEL and found:
            node, before = found[-1]
            found[-1] = (node, before + _took(e))
    return [(n, t) for n, t in found if t]


def _shapes(node: Event, which: str) -> list[tuple[str, list[int]]]:
    listed = _args(node).get(f"{which}_type_shape")
    pairs = [
        (str(kind), dims)
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
        for kind, dims in entry.items()
    ]
    shapes = shapes_of([dims for _, dims in pairs])
    return [] if shapes is None else [(k, s) for (k, _), s in zip(pairs, shapes, strict=True)]


def _what(node: Event) -> tuple[str, str, dict[str, int]] | None:
    """Operator, dtype and extents of a node, None for what ``predict`` has no row for."""
    made = _READ.get(str(_args(node).get("op_name")))
    given, out = _shapes(node, "input"), _shapes(node, "output")
    if made is None or not given or given[0][0] not in _DTYPES:
        return None
    try:
        found = made([d for _, d in given], [d for _, d in out])
    except (IndexError, ValueError, TypeError, ArithmeticError):
        return None
    if found is None or any(n < 1 for name, n in found[1].items() if name != "padding"):
        return None
    return found[0], _DTYPES[given[0][0]], found[1]


_Shapes: TypeAlias = Sequence[Sequence[int]]
_Made: TypeAlias = "tuple[str, dict[str, int]] | None"


def _product(given: _Shapes, out: _Shapes) -> _Made:
    x, w, y = given[0], given[1], out[0]
    m, n = y[-2], y[-1]
    k = w[-2] if w[-1] == n else w[-1]
    if len(w) == 2:
        rows = 1
        for d in y[:-1]:
            rows *= d
        return "matmul", {"m": rows, "n": n, "k": k}
    if x[:-2] != w[:-2]:
        return None
    batch = 1
    for d in x[:-2]:
        batch *= d
    return "batched_matmul", {"batch": batch, "m": m, "n": n, "k": k}


def _conv(given: _Shapes, out: _Shapes) -> _Made:
    """The profile has no attributes: stride and padding lead from the input to the output."""
    (batch, channels, height, width), (filters, each, side, other) = given[0], given[1]
    tall = out[0][2]
    if side != other:
        return None
    stride = max(1, round(height / tall))
    padding = max(0, -(-((tall - 1) * stride + side - height) // 2))
    return CONV, {
        "batch": batch,
        "channels": channels,
        "height": height,
        "width": width,
        "filters": filters,
        "kernel": side,
        "stride": stride,
        "padding": padding,
        "groups": channels // each,
    }


def _rows(kind: str, tensors: int = 1) -> Callable[[_Shapes, _Shapes], _Made]:
    def read_rows(given: _Shapes, _: _Shapes) -> _Made:
        own = [list(s) for s in given[:tensors]]
        if not own[0] or own.count(own[0]) != tensors:
            return None
        return kind, rows_and_columns(own[0])

    return read_rows


_READ: Mapping[str, Callable[[_Shapes, _Shapes], _Made]] = {
    "MatMul": _product,
    "Gemm": _product,
    "FusedMatMul": _product,
    "Conv": _conv,
    "FusedConv": _conv,
    "Softmax": _rows("softmax"),
    "LayerNormalization": _rows("layernorm"),
    "Relu": _rows("relu"),
    "Gelu": _rows("gelu"),
    "Tanh": _rows("tanh"),
    "Sigmoid": _rows("sigmoid"),
    "Exp": _rows("exp"),
    "Add": _rows("add", 2),
    "Sub": _rows("sub", 2),
    "Mul": _rows("mul", 2),
    "Div": _rows("div", 2),
}
