"""Scalar functions applied element by element: one line each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tenfold.ir.dims import is_static, maximum, minimum
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    always,
    broadcast_shape,
    dtype_of_attr,
    dtype_of_input,
    in_fp32,
    per_output,
    pointwise_space,
    same_dtype,
    same_shape,
)
from tenfold.ir.table import Context, Evaluate, Lowering, OpRow, attributes

Scalar = Callable[..., Any]


def erf(x: Array) -> Array:
    """The error function, in the type of ``x``."""
    from scipy import special  # here: it takes a tenth of a second, and pricing needs none

    return np.asarray(special.erf(x.astype(np.float64)), dtype=x.dtype)


def sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros((), x.dtype))


def divide(a: Array, b: Array) -> Array:
    """Division; integers truncate towards zero, as ONNX says. Symbolic ints divide downwards."""
    if a.dtype == object or b.dtype == object:
        return np.asarray(np.floor_divide(a, b), dtype=object)
    if a.dtype.kind in "iu":
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = np.floor_divide(a, b)
            up = (a - quotient * b != 0) & ((a < 0) != (b < 0))
            return (quotient + up).astype(a.dtype)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(a / b).astype(a.dtype, copy=False)


def power(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        if a.dtype.kind in "iu" and b.dtype.kind in "iu":
            return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)
        return np.power(a, b.astype(a.dtype) if a.dtype.kind == "f" else b).astype(a.dtype)


def _max(a: Array, b: Array) -> Array:
    return np.frompyfunc(maximum, 2, 1)(a, b) if object in (a.dtype, b.dtype) else np.maximum(a, b)


def _min(a: Array, b: Array) -> Array:
    return np.frompyfunc(minimum, 2, 1)(a, b) if object in (a.dtype, b.dtype) else np.minimum(a, b)


def _equal(a: Array, b: Array) -> Array:
    if object in (a.dtype, b.dtype) and not all(
        isinstance(v, str) or is_static(v) for v in (*np.ravel(a)[:1], *np.ravel(b)[:1])
    ):
        raise ValueError("symbolic dimensions cannot be compared")
    return np.asarray(np.equal(a, b), dtype=bool)


def _modulo(ctx: Context, a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.fmod(a, b) if ctx.get("fmod", 0) else np.mod(a, b)


def _shift(ctx: Context, a: Array, b: Array) -> Array:
    return np.left_shift(a, b) if ctx.get("direction", "LEFT") == "LEFT" else np.right_shift(a, b)


def _clip(_ctx: Context, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    if low is not None:
        x = np.maximum(x, low.reshape(()).astype(x.dtype))
    if high is not None:
        x = np.minimum(x, high.reshape(()).astype(x.dtype))
    return x


def _gelu(ctx: Context, x: Array) -> Array:
    if ctx.get("approximate", "none") == "tanh":
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return (0.5 * x * (1 + np.tanh(inner))).astype(x.dtype)
    return (0.5 * x * (1 + erf(x / np.asarray(math.sqrt(2), x.dtype)))).astype(x.dtype)


def _is_inf(ctx: Context, x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        wide = x.astype(np.float64)
    positive, negative = ctx.get("detect_positive", 1), ctx.get("detect_negative", 1)
    return (np.isposinf(wide) & bool(positive)) | (np.isneginf(wide) & bool(negative))


def _shrink(ctx: Context, x: Array) -> Array:
    lambd, bias = ctx.get("lambd", 0.5), ctx.get("bias", 0.0)
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)


def _prelu(_ctx: Context, x: Array, slope: Array) -> Array:
    return np.where(x < 0, x * slope, x).astype(x.dtype)


def _where(_ctx: Context, condition: Array, a: Array, b: Array) -> Array:
    return np.where(condition, a, b)


def saturate_cast(x: Array, to: DType, saturate: bool = True) -> Array:
    """Cast as ONNX does: to fp8 values out of range become the largest finite one if
    ``saturate``.
    """
    target = to.numpy
    if x.dtype == object and to.is_integer and not any(isinstance(v, str) for v in np.ravel(x)[:1]):
        return x  # symbolic ints stay what they are
    if to is DType.STRING:
        return np.vectorize(_number_text, otypes=[object])(x) if x.size else x.astype(object)
    if x.dtype == object:
        return np.asarray([float(v) for v in np.ravel(x)]).reshape(x.shape).astype(target)
    with np.errstate(all="ignore"):
        if to in (DType.F8E4M3, DType.F8E4M3FNUZ, DType.F8E5M2, DType.F8E5M2FNUZ):
            return _to_fp8(x, to, saturate)
        if to is DType.F4E2M1:
            return np.clip(x.astype(np.float32), -6.0, 6.0).astype(target)
        if to.bits < 8 and to.is_integer:
            return (
                (x.astype(np.float32) if x.dtype.kind == "V" else x).astype(np.int32).astype(target)
            )
        return x.astype(np.float32).astype(target) if to is DType.F8E8M0 else x.astype(target)


def _number_text(v: Any) -> str:
    if isinstance(v, (float, np.floating)):
        return (
            f"{v:.8g}"
            if math.isfinite(v)
            else {"inf": "INF", "-inf": "-INF", "nan": "NaN"}[str(float(v))]
        )
    return str(v)


def _to_fp8(x: Array, to: DType, saturate: bool) -> Array:
    wide = x.astype(np.float32)
    if not saturate:
        return wide.astype(to.numpy)
    top = float(ml_dtypes.finfo(to.numpy).max)
    return np.where(np.isnan(wide), wide, np.clip(wide, -top, top)).astype(to.numpy)


def _cast(ctx: Context, x: Array) -> Array:
    to = DType(ctx.get("to"))
    # one number spread over a shape stays one number in memory
    if x.size > 1 and not any(x.strides):
        return np.broadcast_to(_cast(ctx, x[(0,) * x.ndim]), x.shape)
    if to is DType.F8E8M0:
        return _to_e8m0(
            x.astype(np.float32), ctx.get("round_mode", "up"), bool(ctx.get("saturate", 1))
        )
    return saturate_cast(x, to, bool(ctx.get("saturate", 1)))


def _to_e8m0(x: Array, mode: str, saturate: bool) -> Array:
    """Powers of two only: the exponent of ``x``, rounded up, down or to nearest."""
    with np.errstate(all="ignore"):
        mantissa, exponent = np.frexp(np.abs(x))
        step = {"up": mantissa > 0.5, "down": np.zeros(x.shape, bool), "nearest": mantissa >= 0.75}[
            mode
        ]
        biased = exponent - 1 + step + 127
        top = 254 if saturate else 255
        biased = np.where(np.isinf(x), top, np.clip(biased, 0, top))
        return (
            np.where(np.isnan(x), 255, np.where(x == 0, 0, biased))
            .astype(np.uint8)
            .view(DType.F8E8M0.numpy)
        )


def _bitcast(ctx: Context, x: Array) -> Array:
    return np.ascontiguousarray(x).view(DType(ctx.get("to")).numpy).reshape(x.shape)


def _popular(fn: Scalar) -> Callable[..., Array]:
    """A function of arrays alone, widened to fp32 where NumPy is weak, silent on inf and nan."""

    def run(_ctx: Context, *arrays: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(fn(*arrays))

    return run


def _row(
    kind: str,
    evaluate: Evaluate,
    flops: int = 1,
    transcendentals: int = 0,
    *,
    arity: tuple[int, int] = (1, 1),
    boolean: bool = False,
    symbolic: bool = False,
    converts: bool = False,
    dtypes: Any = None,
    additive: bool = False,
    **attrs: type,
) -> OpRow:
    return OpRow(
        kind=kind,
        arity=arity,
        attrs=attributes(**attrs),
        dtypes=dtypes or (always(DType.BOOL) if boolean else same_dtype),
        shapes=same_shape if arity == (1, 1) else broadcast_shape,
        space=pointwise_space,
        work=per_output(flops, transcendentals),
        evaluate=evaluate,
        lowering=Lowering.VECTOR,
        symbolic=symbolic,
        converts=converts,
        additive=additive,
    )


def _unary(kind: str, fn: Scalar, flops: int = 1, transcendentals: int = 0, **kw: Any) -> OpRow:
    wide = in_fp32(lambda _ctx, x: _popular(fn)(_ctx, x))
    return _row(
        kind,
        _popular(fn) if kw.get("boolean") or kw.get("symbolic") else wide,
        flops,
        transcendentals,
        **kw,
    )


def _binary(kind: str, fn: Scalar, flops: int = 1, transcendentals: int = 0, **kw: Any) -> OpRow:
    return _row(kind, _popular(fn), flops, transcendentals, arity=(2, 2), **kw)


def _param(kind: str, fn: Scalar, flops: int, transcendentals: int = 0, **attrs: Any) -> OpRow:
    """A unary function with attributes: ``fn(ctx, x)`` in fp32."""

    def run(ctx: Context, x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(fn(ctx, x))

    return _row(kind, in_fp32(run), flops, transcendentals, **attrs)


def _elu(ctx: Context, x: Array) -> Array:
    return np.where(x > 0, x, ctx.get("alpha", 1.0) * np.expm1(x)).astype(x.dtype)


def _selu(ctx: Context, x: Array) -> Array:
    alpha, gamma = ctx.get("alpha", 1.6732632423543772), ctx.get("gamma", 1.0507009873554805)
    return (gamma * np.where(x > 0, x, alpha * np.expm1(x))).astype(x.dtype)


def _celu(ctx: Context, x: Array) -> Array:
    alpha = ctx.get("alpha", 1.0)
    return (np.maximum(0, x) + np.minimum(0, alpha * np.expm1(x / alpha))).astype(x.dtype)


def _hard_sigmoid(ctx: Context, x: Array) -> Array:
    return np.clip(ctx.get("alpha", 0.2) * x + ctx.get("beta", 0.5), 0, 1).astype(x.dtype)


def _ceil_or_symbolic(x: Array) -> Array:
    return _symbolic_round(x, "ceiling") if x.dtype == object else np.ceil(x)


def _floor_or_symbolic(x: Array) -> Array:
    return _symbolic_round(x, "floor") if x.dtype == object else np.floor(x)


def _symbolic_round(x: Array, how: str) -> Array:
    import sympy

    fn = getattr(sympy, how)
    return np.asarray([fn(v) for v in np.ravel(x)], dtype=object).reshape(x.shape)


_SIGMOID = 2  # flops beside the exponential

ROWS: tuple[OpRow, ...] = (
    # one input
    _unary("abs", np.abs),
    _unary("neg", np.negative, symbolic=True),
    _unary("sign", np.sign),
    _unary("reciprocal", lambda x: (1 / x).astype(x.dtype)),
    _unary("sqrt", np.sqrt, 0, 1),
    _unary("exp", np.exp, 0, 1),
    _unary("log", np.log, 0, 1),
    _unary("sin", np.sin, 0, 1),
    _unary("cos", np.cos, 0, 1),
    _unary("tan", np.tan, 0, 1),
    _unary("asin", np.arcsin, 0, 1),
    _unary("acos", np.arccos, 0, 1),
    _unary("atan", np.arctan, 0, 1),
    _unary("sinh", np.sinh, 0, 1),
    _unary("cosh", np.cosh, 0, 1),
    _unary("tanh", np.tanh, 0, 1),
    _unary("asinh", np.arcsinh, 0, 1),
    _unary("acosh", np.arccosh, 0, 1),
    _unary("atanh", np.arctanh, 0, 1),
    _unary("erf", erf, 0, 1),
    _unary("ceil", _ceil_or_symbolic, symbolic=True),
    _unary("floor", _floor_or_symbolic, symbolic=True),
    _unary("round", np.rint),
    _unary("relu", lambda x: np.maximum(x, np.zeros((), x.dtype))),
    _unary("sigmoid", sigmoid, _SIGMOID, 1),
    _unary("softplus", softplus, 1, 2),
    _unary("softsign", lambda x: x / (1 + np.abs(x)), 3),
    _unary("mish", lambda x: x * np.tanh(softplus(x)), 2, 3),
    _unary("hard_swish", lambda x: x * np.clip(x / 6 + 0.5, 0, 1).astype(x.dtype), 4),
    _unary("not", np.logical_not, boolean=True),
    _unary("bitwise_not", np.invert),
    _unary("is_nan", lambda x: np.isnan(x.astype(np.float64)), boolean=True),
    # one input and attributes
    _param("elu", _elu, 2, 1, alpha=float),
    _param("selu", _selu, 3, 1, alpha=float, gamma=float),
    _param("celu", _celu, 4, 1, alpha=float),
    _param("hard_sigmoid", _hard_sigmoid, 4, alpha=float, beta=float),
    _param(
        "leaky_relu",
        lambda c, x: np.where(x < 0, c.get("alpha", 0.01) * x, x).astype(x.dtype),
        2,
        alpha=float,
    ),
    _param(
        "thresholded_relu",
        lambda c, x: np.where(x > c.get("alpha", 1.0), x, 0).astype(x.dtype),
        1,
        alpha=float,
    ),
    _param(
        "swish",
        lambda c, x: x * sigmoid((c.get("alpha", 1.0) * x).astype(x.dtype)),
        4,
        1,
        alpha=float,
    ),
    _param("gelu", _gelu, 4, 1, approximate=str),
    _param("shrink", _shrink, 3, lambd=float, bias=float),
    _row("is_inf", _is_inf, boolean=True, detect_positive=int, detect_negative=int),
    _row(
        "cast",
        _cast,
        0,
        symbolic=True,
        converts=True,
        dtypes=dtype_of_attr("to"),
        to=str,
        saturate=int,
        round_mode=str,
    ),
    _row("bit_cast", _bitcast, 0, dtypes=dtype_of_attr("to"), to=str),
    # two inputs
    _binary("add", np.add, symbolic=True, additive=True),
    _binary("sub", np.subtract, symbolic=True),
    _binary("mul", np.multiply, symbolic=True),
    _binary("div", divide, symbolic=True),
    _binary("pow", power, 0, 1),
    _binary("max", _max, symbolic=True),
    _binary("min", _min, symbolic=True),
    _binary("and", np.logical_and, boolean=True),
    _binary("or", np.logical_or, boolean=True),
    _binary("xor", np.logical_xor, boolean=True),
    _binary("bitwise_and", np.bitwise_and),
    _binary("bitwise_or", np.bitwise_or),
    _binary("bitwise_xor", np.bitwise_xor),
    _binary("equal", _equal, boolean=True, symbolic=True),
    _binary("less", np.less, boolean=True),
    _binary("less_equal", np.less_equal, boolean=True),
    _binary("greater", np.greater, boolean=True),
    _binary("greater_equal", np.greater_equal, boolean=True),
    _row("mod", _modulo, 1, arity=(2, 2), fmod=int),
    _row("bit_shift", _shift, 1, arity=(2, 2), direction=str),
    _row("prelu", _prelu, 2, arity=(2, 2)),
    # three inputs
    _row("clip", _clip, 2, arity=(1, 3)),
    _row("where", _where, 1, arity=(3, 3), symbolic=True, dtypes=dtype_of_input(1)),
)
