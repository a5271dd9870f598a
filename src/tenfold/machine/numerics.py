"""Numerics of a precision: what happens to operands of the matrix unit, and to what a kernel
stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from tenfold.ir.graph import Array, Op
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering

Range: TypeAlias = "tuple[float, float]"
Operands: TypeAlias = "Sequence[Array | None]"


class Numerics(Protocol):
    """Rounding of one precision. ``weights`` says which operands are constants."""

    def operands(self, op: Op, arrays: Operands, weights: Sequence[bool]) -> Operands: ...

    def store(self, array: Array) -> Array: ...


class Exact:
    """The file's own precision everywhere."""

    def operands(self, op: Op, arrays: Operands, weights: Sequence[bool]) -> Operands:
        return arrays

    def store(self, array: Array) -> Array:
        return array


def _is_float(a: Array | None) -> bool:
    return a is not None and a.dtype in (np.float32, np.float64)


def _rounded(a: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        return a.astype(dtype).astype(a.dtype)


@dataclass(frozen=True)
class Narrow:
    """bf16 or fp16: operands of contractions and everything stored are rounded, sums stay wide."""

    dtype: np.dtype[Any]

    def operands(self, op: Op, arrays: Operands, weights: Sequence[bool]) -> Operands:
        if row_of(op).lowering is not Lowering.MATRIX:
            return arrays
        return [_rounded(a, self.dtype) if a is not None and _is_float(a) else a for a in arrays]

    def store(self, array: Array) -> Array:
        return _rounded(array, self.dtype) if _is_float(array) else array


def quantised(op: Op, arrays: Operands, weights: Sequence[bool]) -> bool:
    """Whether int8 arithmetic is used: products and convolutions of floats with constant
    weights.
    """
    return (
        row_of(op).scaled_axis is not None
        and len(arrays) >= 2
        and weights[1]
        and not weights[0]
        and _is_float(arrays[0])
        and _is_float(arrays[1])
    )


@dataclass(frozen=True)
class Integer:
    """int8: activations in one range a tensor with a zero point, weights symmetric with a scale a
    channel (Jacob et al. 2018).

    ``ranges`` are the calibrated ranges by value; without them each is taken from the data as they
    come (dynamic). Products of dequantised numbers in fp32 are those of the integers, which are
    exact in int32, up to fp32 rounding.
    """

    ranges: Mapping[str, Range] | None = None

    def operands(self, op: Op, arrays: Operands, weights: Sequence[bool]) -> Operands:
        if not quantised(op, arrays, weights):
            return arrays
        x, w = arrays[0], arrays[1]
        assert x is not None
        assert w is not None
        given = self.ranges.get(op.inputs[0]) if self.ranges is not None else None
        axis = -2 if op.attrs.get("transpose_b", 0) else row_of(op).scaled_axis
        assert axis is not None
        return [activation(x, given or extent(x)), weight(w, axis), *arrays[2:]]

    def store(self, array: Array) -> Array:
        return array


def extent(x: Array) -> Range:
    """The range of a tensor, zero included."""
    return min(float(x.min(initial=0)), 0.0), max(float(x.max(initial=0)), 0.0)


def activation(x: Array, bounds: Range) -> Array:
    """``x`` on the 256 steps of its range, back in floats."""
    scale = (bounds[1] - bounds[0]) / 255 or 1.0
    zero = round(-bounds[0] / scale)
    steps = np.clip(np.rint(x / scale) + zero, 0, 255)
    return ((steps - zero) * scale).astype(x.dtype)


def weight(w: Array, axis: int) -> Array:
    """``w`` on the 255 symmetric steps of each channel, back in floats."""
    others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    scale = np.abs(w).max(axis=others, keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale)
    return (np.clip(np.rint(w / scale), -127, 127) * scale).astype(w.dtype)


@dataclass
class RangeFinder:
    """Exact numerics that remember the range of every operand that int8 would quantise."""

    ranges: dict[str, Range] = field(default_factory=dict)

    def operands(self, op: Op, arrays: Operands, weights: Sequence[bool]) -> Operands:
        if quantised(op, arrays, weights) and arrays[0] is not None:
            low, high = extent(arrays[0])
            before = self.ranges.get(op.inputs[0], (0.0, 0.0))
            self.ranges[op.inputs[0]] = (min(low, before[0]), max(high, before[1]))
        return arrays

    def store(self, array: Array) -> Array:
        return array
