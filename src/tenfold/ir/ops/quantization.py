"""Between real numbers and small integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import per_output, same_shape, space_of, widen
from tenfold.ir.ops.pointwise import saturate_cast
from tenfold.ir.space import ALL, ONE, Map, Space, at, folded, straight
from tenfold.ir.table import Call, Context, Lowering, OpRow, attributes


def spread(parameter: Array, x_shape: tuple[int, ...], axis: int, block: int) -> Array:
    """A scale or zero point shaped like ``x``: one number, one per slice along ``axis``, or one per
    block.
    """
    if parameter.size == 1:
        return parameter.reshape(())
    if parameter.ndim == 1:
        shape = [1] * len(x_shape)
        shape[axis] = parameter.size
        return parameter.reshape(shape)
    size = block or -(-x_shape[axis] // parameter.shape[axis])
    return np.repeat(parameter, size, axis=axis)[
        tuple(slice(0, n) if i == axis else slice(None) for i, n in enumerate(x_shape))
    ]


def _quantize_dtype(call: Call) -> Sequence[DType]:
    if call.attr("dtype"):
        return [DType(call.attr("dtype"))]
    return [call.input(2).dtype if call.has(2) else DType.U8]


def limits(dtype: DType) -> tuple[int, int]:
    signed = not dtype.value.startswith("u")
    return (
        (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1)
        if signed
        else (0, (1 << dtype.bits) - 1)
    )


def _quantize(ctx: Context, x: Array, scale: Array, zero: Array | None = None) -> Array:
    target = DType(ctx.get("dtype")) if ctx.get("dtype") else None
    from tenfold.ir.dtypes import from_numpy

    target = target or (from_numpy(zero.dtype) if zero is not None else DType.U8)
    axis, block = ctx.get("axis", 1), ctx.get("block_size", 0)
    axis = axis % max(x.ndim, 1)
    wide = widen(x)
    s = spread(widen(scale), x.shape, axis, block)
    with np.errstate(all="ignore"):
        y = wide / s
    if target.is_float:
        return saturate_cast(y.astype(np.float32), target, bool(ctx.get("saturate", 1)))
    z = spread(zero.astype(np.int64), x.shape, axis, block) if zero is not None else 0
    low, high = limits(target)
    return (
        np.clip(np.rint(y).astype(np.float64) + z, low, high)
        .astype(np.int64 if target.bits >= 8 else np.int32)
        .astype(target.numpy)
    )


def _dequantize(ctx: Context, x: Array, scale: Array, zero: Array | None = None) -> Array:
    axis, block = ctx.get("axis", 1) % max(x.ndim, 1), ctx.get("block_size", 0)
    out = DType(ctx.get("dtype")).numpy if ctx.get("dtype") else scale.dtype
    value = (
        x.astype(np.float32)
        if x.dtype.kind not in "iu" or x.dtype.itemsize < 4
        else x.astype(np.float64)
    )
    if zero is not None:
        value = value - spread(zero.astype(value.dtype), x.shape, axis, block)
    return (value * spread(widen(scale).astype(np.float32), x.shape, axis, block)).astype(out)


def _dequantize_dtype(call: Call) -> Sequence[DType]:
    return [DType(call.attr("dtype")) if call.attr("dtype") else call.input(1).dtype]


def _dynamic_quantize(_ctx: Context, x: Array) -> Sequence[Array]:
    """uint8 with scale and zero point from the range of the data, zero included (ONNX
    DynamicQuantizeLinear).
    """
    low = np.minimum(x.min(initial=0.0), 0).astype(np.float32)
    high = np.maximum(x.max(initial=0.0), 0).astype(np.float32)
    scale = np.float32((high - low) / np.float32(255))
    scale = scale if scale != 0 else np.float32(1)
    zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
    y = np.clip(np.rint(x / scale) + np.float32(zero), 0, 255).astype(np.uint8)
    return y, np.asarray(scale), np.asarray(zero)


def _dynamic_shape(call: Call) -> Sequence[Shape]:
    return [call.shape(0), (), ()]


def _scaled_space(call: Call) -> Space:
    """Scales and zero points: one for all, one for each index along an axis, or one for each block
    of indices along it.
    """
    x = call.shape(0)
    axis, block = call.attr("axis", 1), call.attr("block_size", 0)
    along = axis % len(x) if x else 0

    def scale(i: int) -> Map | None:
        if not call.has(i):
            return None
        shape = call.shape(i)
        if len(shape) == 1 and not block:
            return (at(along) if len(x) > 0 and shape[0] == x[along] and shape[0] != 1 else ONE,)
        return tuple(folded(k) if block and k == along else at(k) for k in range(len(shape)))

    return space_of(call, straight(len(x)), scale(1), scale(2))


def _dynamic_space(call: Call) -> Space:
    """The scale of each number comes from all of them."""
    x = call.shape(0)
    return space_of(call, (ALL,) * len(x), results=[straight(len(x)), (), ()])


def _row(
    kind: str,
    arity: tuple[int, int],
    evaluate: Any,
    flops: int,
    dtypes: Any,
    shapes: Any = same_shape,
    lowering: Lowering = Lowering.VECTOR,
    converts: bool = False,
    space: Any = _scaled_space,
    loose: bool = False,
    **attrs: type,
) -> OpRow:
    return OpRow(
        kind=kind,
        arity=arity,
        attrs=attributes(**attrs),
        dtypes=dtypes,
        shapes=shapes,
        space=space,
        work=per_output(flops),
        evaluate=evaluate,
        lowering=lowering,
        converts=converts,
        loose=loose,
    )


ROWS: tuple[OpRow, ...] = (
    _row("quantize", (2, 3), _quantize, 4, _quantize_dtype, axis=int, block_size=int, dtype=str,
        saturate=int),
    _row("dequantize", (2, 3), _dequantize, 2, _dequantize_dtype, converts=True, axis=int,
        block_size=int, dtype=str),
    _row("dynamic_quantize", (1, 1), _dynamic_quantize, 6, lambda _c: [DType.U8, DType.F32,
        DType.U8], _dynamic_shape, Lowering.REDUCE, space=_dynamic_space, loose=True),
)  # fmt: skip
