"""Measured kernels and whole models against predictions: only rows that nothing was fitted to, but
where said.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tenfold.calibration import SETS, Forward, Measured, MeasuredSet
from tenfold.calibration.sets import UNSEEN, published_forward
from tenfold.calibration.timing import timer
from tenfold.chips import Chip, KernelFamily, Library, SramRole, Whole, chip, with_library
from tenfold.compiler import Options
from tenfold.evaluate.operators import OperatorCall, kernel_of, precision_of
from tenfold.evaluate.predicting import call_overhead_s
from tenfold.evaluate.profiling import profile_bound
from tenfold.machine import Stack, target_of
from tenfold.model import Sizes, load, prepare
from tenfold.validation.record import Row

RELATIVES = {"a100-sxm-80": "h100-sxm", "h100-sxm": "a100-sxm-80", "mi210": "a100-sxm-80"}
HOST_SIDE = "offsets.llmcompass"  # a synchronous call from Python: nothing that the chip decides
_FAMILIES = {
    KernelFamily.MATMUL: "matmul, wide range",
    KernelFamily.FP32: "fp32 matmul",
    KernelFamily.FP32_WINDOWS: "fp32 convolution",
    KernelFamily.QUANTIZED: "fp8 matmul with quantization",
    KernelFamily.BLOCKED: "fp8 matmul with a scale a block",
    KernelFamily.ATTENTION: "attention prefill",
    KernelFamily.DECODE: "attention decode",
    KernelFamily.EXPERTS: "mixture of experts",
}


def kernels(folder: Path) -> Iterator[Row]:
    """Every measured set of single kernels, the rows held out."""
    for s in SETS:
        _, held = s.parts(folder)
        rows = [m for m in held if isinstance(m.what, OperatorCall)]
        record = chip(s.chip)
        if s.source == "aiconfigurator":
            record = with_library(record, Library.TENSORRT_LLM)
        for m, row in zip(rows, _rows(record, s, rows, _area), strict=True):
            yield row
            if s.source == "aiconfigurator" and _beyond_l2(record, m):
                yield replace(row, area=f"matmul, operands beyond L2 ({s.chip})")


def uncalibrated(folder: Path) -> Iterator[Row]:
    """Each GPU as if it had never been measured: all its matrix products with a relative's
    constants.
    """
    for s in SETS:
        rows = s.rows(folder) if s.chip in RELATIVES else []
        rows = [
            m
            for m in rows
            if isinstance(m.what, OperatorCall) and m.what.op == "matmul" and m.what.dtype != "fp8"
        ]
        if rows:
            yield from _rows(
                like_relative(s.chip), s, rows, lambda c, _m: f"matmul, {c.name} never calibrated"
            )


def unseen(folder: Path) -> Iterator[Row]:
    """fp32 operators of eager PyTorch (Lee et al., NeuSight, ASPLOS 2025) to which nothing was
    fitted: products and convolutions of cards never measured, rows and element-wise of all.
    """
    for s in UNSEEN:
        rows = s.rows(folder)
        yield from _rows(chip(s.chip), s, rows, _of_never)


def frameworks(folder: Path) -> Iterator[Row]:
    """Whole fp32 models as eager PyTorch and torch.compile run them (NeuSight): nothing was fitted
    to whole models, and of these cards only to products.
    """
    path = folder / "neusight" / "models.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["mode"] == "inf" and r["layout"] in _STACKS]
    for r in rows:
        config = path.parent / "configs" / f"{r['model']}.json"
        stack, c = _STACKS[r["layout"]], chip(r["chip"])
        sizes = Sizes(int(r["batch"]), int(r["seq"]))
        bound = prepare(load(config), sizes)
        done = profile_bound(bound, c, dtype="fp32", options=Options(stack=stack))
        predicted, measured = done.run.time_s.value, float(r["forward_ms"]) * 1e-3
        yield Row(
            area=f"whole fp32 models, {stack} PyTorch on {c.name}",
            case=f"{r['model']} batch {sizes.batch} seq {sizes.seq}",
            predicted=predicted,
            reference=measured,
            unit="s",
            source="neusight",
            inside=done.run.time_s.low <= measured <= done.run.time_s.high,
        )


_STACKS = {"": Stack.EAGER, "fusion": Stack.COMPILED}


def _of_never(c: Chip, m: Measured) -> str:
    assert isinstance(m.what, OperatorCall)
    match m.what.op:
        case "matmul" | "batched_matmul":
            what = m.what.op.replace("_", " ")
        case "conv2d":
            what = "convolution"
        case "softmax" | "layernorm":
            what = m.what.op
        case _:
            what = "element-wise"
    return f"fp32 {what}, {c.name} never measured"


@lru_cache(maxsize=8)
def like_relative(name: str) -> Chip:
    """The chip with none of its own constants; only what a framework's call costs on the host
    beside a kernel is kept.
    """
    own = chip(name)
    bare = own.without_calibration(HOST_SIDE)
    return bare.with_calibration_of(chip(RELATIVES[name]))


def forward(folder: Path | None) -> Iterator[Row]:
    """Whole models on TPUs: GPT-2 was fitted to where the folder is there, the others are published
    and held out.
    """
    seen = [
        (s, m)
        for s in SETS
        for m in (s.rows(folder) if folder else [])
        if isinstance(m.what, Forward)
    ]
    for s, m in seen:
        yield from _forward(chip(s.chip), [m], seen=True)
    for name, rows in published_forward().items():
        yield from _forward(chip(name), rows, seen=False)


def _forward(c: Chip, rows: Sequence[Measured], *, seen: bool) -> Iterator[Row]:
    for m, t in zip(rows, timer(c, rows)(c), strict=True):
        assert isinstance(m.what, Forward)
        what = f"{m.what.model} batch {m.what.batch} seq {m.what.seq}"
        area = f"whole models, {c.name}" + (", fitted to" if seen else ", held out")
        yield Row(
            area=area,
            case=what,
            predicted=float(t),
            reference=m.time_s,
            unit="s",
            source=m.source,
            inside=_inside(float(t), m.time_s, c.error(Whole.MODEL)),
            seen=seen,
        )


def _rows(
    c: Chip, s: MeasuredSet, rows: Sequence[Measured], area: Callable[[Chip, Measured], str]
) -> Iterator[Row]:
    for m, t in zip(rows, timer(c, rows)(c), strict=True):
        assert isinstance(m.what, OperatorCall)
        kernel = kernel_of(m.what, c, precision_of(m.what, c))
        known = m.source in c.measuring_sources
        seconds = float(t) + (call_overhead_s(c, kernel, m.source) if known else 0.0)
        extents = " ".join(f"{k}={v}" for k, v in m.what.extents.items())
        yield Row(
            area=area(c, m),
            case=f"{m.what.op} {m.what.dtype} {extents}",
            predicted=seconds,
            reference=m.time_s,
            unit="s",
            source=s.source,
            inside=_inside(seconds, m.time_s, c.error(kernel.family)),
        )


def _inside(predicted: float, measured: float, error: float) -> bool:
    return bool(abs(np.log(predicted / measured)) <= np.log1p(error))


def _area(c: Chip, m: Measured) -> str:
    assert isinstance(m.what, OperatorCall)
    if m.source == "vidur":
        return f"matmul in models ({c.sold_as})"
    if m.source.startswith("llmcompass"):
        return f"isolated calls ({c.sold_as})"
    if not target_of(c).serves:
        return f"matmul ({c.sold_as})"
    return f"{_FAMILIES[kernel_of(m.what, c, precision_of(m.what, c)).family]} ({c.sold_as})"


def _beyond_l2(c: Chip, m: Measured) -> bool:
    """Whether operands and result of a product exceed the L2."""
    assert isinstance(m.what, OperatorCall)
    if m.what.op != "matmul" or m.what.dtype == "fp8":
        return False
    m_, n, k = (m.what.extents[x] for x in ("m", "n", "k"))
    return 2 * (m_ * k + k * n + m_ * n) > c.level_bytes(SramRole.L2)
