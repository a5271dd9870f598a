"""Spectra, determinants, text features, and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.errors import ModelError
from tenfold.ir.dims import Dim, Shape, add, floordiv, mul, prod, simplify, sub
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    always,
    dtype_of_attr,
    everything,
    normalise_axis,
    per_output,
    pointwise_space,
    same_dtype,
    same_shape,
    space_of,
    whole_space,
    widen,
)
from tenfold.ir.ops.reference import onnx_reference
from tenfold.ir.space import ALL, Space, at, window
from tenfold.ir.table import Call, Context, Lowering, OpRow, Work, attributes


def _bits(n: Dim) -> int:
    return int(n).bit_length() if isinstance(n, int) else 10


def _fft_work(call: Call) -> Work:
    """5 n log2 n per transform (Cooley, Tukey 1965, real operations)."""
    points = prod(call.out())
    length = call.shape(0)[-2] if len(call.shape(0)) > 1 else call.shape(0)[-1]
    return Work(
        vector_flops=mul(points, 5 * _bits(length)), reads=all_reads(call), writes=all_writes(call)
    )


def _dft_shape(call: Call) -> Sequence[Shape]:
    s = list(call.shape(0))
    axis = normalise_axis(int(call.need(2)[0]) if call.has(2) else -2, len(s))
    if call.has(1):
        length = call.numbers(1)
        s[axis] = simplify(length[0]) if length is not None else call.unknown_dim("dft")
    inverse, onesided = call.attr("inverse", 0), call.attr("onesided", 0)
    if onesided and inverse and not call.has(1):
        s[axis] = mul(add(s[axis], -1), 2)
    if onesided and not inverse:
        s[axis] = add(floordiv(s[axis], 2), 1)
    s[-1] = 1 if onesided and inverse else 2
    return [tuple(s)]


def _stft_shape(call: Call) -> Sequence[Shape]:
    x = call.shape(0)
    step, length = call.numbers(1), call.numbers(3) if call.has(3) else None
    if call.has(3) and length is None and not call.has(2):
        size = call.unknown_dim("frame", x[1])
    else:
        size = (
            simplify(length[0]) if length is not None else call.shape(2)[0] if call.has(2) else x[1]
        )
    frames = (
        add(floordiv(sub(x[1], size), simplify(step[0])), 1)
        if step is not None
        else call.unknown_dim("frames", x[1])
    )
    bins = add(floordiv(size, 2), 1) if call.attr("onesided", 1) else size
    return [(x[0], frames, bins, 2)]


def _mel_shape(call: Call) -> Sequence[Shape]:
    bins, length = call.numbers(0), call.numbers(1)
    rows = (
        add(floordiv(simplify(length[0]), 2), 1)
        if length is not None
        else call.unknown_dim("spectrum")
    )
    return [(rows, simplify(bins[0]) if bins is not None else call.unknown_dim("mel"))]


def _window_shape(call: Call) -> Sequence[Shape]:
    size = call.numbers(0)
    return [(simplify(size[0]) if size is not None else call.unknown_dim("window"),)]


_COSINES = {
    "hann": (0.5, 0.5, 0.0),
    "hamming": (25 / 46, 21 / 46, 0.0),
    "blackman": (0.42, 0.5, 0.08),
}


def _window(ctx: Context, size: Array) -> Array:
    """Generalised cosine windows (Harris 1978)."""
    n = int(size.reshape(-1)[0])
    length = n if ctx.get("periodic", 1) else n - 1
    a0, a1, a2 = _COSINES[ctx.get("function")]
    t = 2 * np.pi * np.arange(n) / max(length, 1)
    dtype = DType(ctx.get("dtype", "fp32")).numpy
    return (a0 - a1 * np.cos(t) + a2 * np.cos(2 * t)).astype(dtype)


def _det_shape(call: Call) -> Sequence[Shape]:
    return [call.shape(0)[:-2]]


def _det_work(call: Call) -> Work:
    """LU factorisation: 2/3 n^3 per matrix."""
    n = call.shape(0)[-1]
    return Work(
        vector_flops=floordiv(prod((*call.shape(0)[:-2], n, n, n, 2)), 3),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _det(_ctx: Context, x: Array) -> Array:
    return np.asarray(np.linalg.det(widen(x))).astype(x.dtype)


def _tfidf_shape(call: Call) -> Sequence[Shape]:
    s = call.shape(0)
    width = max(call.attr("ngram_indexes")) + 1
    return [(*s[:-1], width)]


def _random_shape(call: Call) -> Sequence[Shape]:
    return [tuple(call.attr("shape"))] if not call.has(0) else [call.shape(0)]


def _random(ctx: Context, like: Array | None = None) -> Array:
    rng = ctx.rng if ctx.rng is not None else np.random.default_rng(0)
    shape = tuple(ctx.get("shape") or ()) if like is None else like.shape
    dtype = (
        DType(ctx.get("dtype")).numpy
        if ctx.get("dtype")
        else (like.dtype if like is not None else np.dtype(np.float32))
    )
    if ctx.get("distribution") == "normal":
        return (rng.standard_normal(shape) * ctx.get("scale", 1.0) + ctx.get("mean", 0.0)).astype(
            dtype
        )
    return rng.uniform(ctx.get("low", 0.0), ctx.get("high", 1.0), shape).astype(dtype)


def _bernoulli(ctx: Context, p: Array) -> Array:
    rng = ctx.rng if ctx.rng is not None else np.random.default_rng(0)
    dtype = DType(ctx.get("dtype")).numpy if ctx.get("dtype") else p.dtype
    return (rng.uniform(size=p.shape) < widen(p)).astype(dtype)


def _multinomial_shape(call: Call) -> Sequence[Shape]:
    return [(call.shape(0)[0], call.attr("sample_size", 1))]


def _multinomial(ctx: Context, x: Array) -> Array:
    rng = ctx.rng if ctx.rng is not None else np.random.default_rng(0)
    p = np.exp(widen(x) - widen(x).max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True)
    dtype = DType(ctx.get("dtype", "int32")).numpy
    return np.stack(
        [
            rng.choice(
                x.shape[1],
                ctx.get("sample_size", 1),
                p=row.astype(np.float64) / row.astype(np.float64).sum(),
            )
            for row in p
        ]
    ).astype(dtype)


def _image_shape(call: Call) -> Sequence[Shape]:
    channels = 1 if call.attr("pixel_format", "RGB") == "Grayscale" else 3
    return [(call.unknown_dim("height"), call.unknown_dim("width"), channels)]


def _image_decoder(ctx: Context, data: Array) -> Sequence[Array | None] | Array:
    """Decoding is Pillow's, through ``onnx.reference``."""
    try:
        return onnx_reference("ImageDecoder")(ctx, data)
    except ImportError as error:
        raise ModelError("decoding images needs Pillow: pip install 'tenfold[images]'") from error


def _dft_space(call: Call) -> Space:
    """All along one axis, and both parts of each number."""
    rank, known = len(call.shape(0)), call.numbers(2) if call.has(2) else [-2]
    if known is None:
        return whole_space(call)
    axis = normalise_axis(int(known[0]), rank)
    map_ = tuple(ALL if i in (axis, rank - 1) else at(i) for i in range(rank))
    return space_of(call, map_, everything(call, 1))


def _stft_space(call: Call) -> Space:
    """Frames of a signal: windows along it, one item apart from another."""
    signal = (at(0), window(1), *(ALL for _ in call.shape(0)[2:]))
    return space_of(call, signal, everything(call, 1), everything(call, 2), everything(call, 3))


def _det_space(call: Call) -> Space:
    rank = len(call.shape(0))
    return space_of(call, (*map(at, range(rank - 2)), ALL, ALL))


def _rows_space(call: Call) -> Space:
    """Each item with all of its own numbers."""
    rank = len(call.shape(0))
    return space_of(call, (*map(at, range(rank - 1)), ALL))


def _row(
    kind: str,
    arity: tuple[int, int],
    shapes: Any,
    evaluate: Any,
    work: Any,
    *,
    dtypes: Any = same_dtype,
    space: Any = whole_space,
    pure: bool = True,
    lowering: Lowering = Lowering.VECTOR,
    grows: bool = False,
    **attrs: type,
) -> OpRow:
    return OpRow(
        kind=kind,
        arity=arity,
        attrs=attributes(**attrs),
        dtypes=dtypes,
        shapes=shapes,
        space=space,
        work=work,
        evaluate=evaluate,
        lowering=lowering,
        pure=pure,
        grows=grows,
    )


ROWS: tuple[OpRow, ...] = (
    _row("dft", (1, 3), _dft_shape, onnx_reference("DFT"), _fft_work, inverse=int, onesided=int,
        space=_dft_space),
    _row("stft", (2, 4), _stft_shape, onnx_reference("STFT"), _fft_work, onesided=int,
        space=_stft_space),
    _row("mel_weight_matrix", (5, 5), _mel_shape, onnx_reference("MelWeightMatrix"),
        per_output(8), dtypes=lambda c: [DType.F32 if c.attr("output_datatype", 1) == 1 else
        DType.F64 if c.attr("output_datatype") == 11 else DType.F16], output_datatype=int,
        grows=True),
    _row("window", (1, 1), _window_shape, _window, per_output(4, 1),
        dtypes=dtype_of_attr("dtype", DType.F32), function=str, periodic=int, dtype=str,
        grows=True),
    _row("det", (1, 1), _det_shape, _det, _det_work, space=_det_space),
    _row("tfidf", (1, 1), _tfidf_shape, onnx_reference("TfIdfVectorizer"), per_output(4),
        dtypes=always(DType.F32), lowering=Lowering.GATHER, max_gram_length=int, max_skip_count=int,
        min_gram_length=int, mode=str, ngram_counts=tuple, ngram_indexes=tuple, pool_int64s=tuple,
        pool_strings=tuple, weights=tuple, space=_rows_space),
    _row("image_decoder", (1, 1), _image_shape, _image_decoder, per_output(20),
        dtypes=always(DType.U8), lowering=Lowering.GATHER, pixel_format=str),
    _row("random", (0, 1), _random_shape, _random, per_output(8), pure=False, distribution=str,
        shape=tuple, dtypes=lambda c: [DType(c.attr("dtype")) if c.attr("dtype") else
        c.input(0).dtype if c.has(0) else DType.F32], mean=float, scale=float, low=float,
        high=float, dtype=str),
    _row("bernoulli", (1, 1), same_shape, _bernoulli, per_output(8),
        dtypes=dtype_of_attr("dtype"), pure=False, space=pointwise_space, dtype=str),
    _row("multinomial", (1, 1), _multinomial_shape, _multinomial, per_output(8), pure=False,
        sample_size=int, dtype=str, dtypes=dtype_of_attr("dtype", DType.I32), space=_rows_space),
)  # fmt: skip
