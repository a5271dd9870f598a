"""Kernels of the backward pass of what looks at windows, and of norms over pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Shape, floordiv, mul, prod
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    in_fp32,
    per_input,
    per_output,
    same_dtype,
    same_shape,
    space_of,
    widen,
)
from tenfold.ir.ops.convolution import valid_taps
from tenfold.ir.ops.window import counted, windows_of
from tenfold.ir.sharding import SUM, Cut, Split, SplitRule, by_loops, divides
from tenfold.ir.space import ALL, Space, at, row, straight, window
from tenfold.ir.table import Call, Context, Lowering, Matmul, OpRow, Rate, Work, attributes

# --- convolutions -------------------------------------------------------------------------


def _input_grad_shape(call: Call) -> Sequence[Shape]:
    g, w = call.shape(0), call.shape(1)
    return [(g[0], mul(w[1], int(call.attr("group"))), *call.attr("extents"))]


def _weight_grad_shape(call: Call) -> Sequence[Shape]:
    x, g = call.shape(0), call.shape(1)
    return [(g[1], floordiv(x[1], int(call.attr("group"))), *call.attr("kernel_shape"))]


def _input_grad_space(call: Call) -> Space:
    """Each place of a picture from the windows that it was in."""
    g, w = call.shape(0), call.shape(1)
    alone = int(call.attr("group")) == 1
    around = (at(0), ALL, *(window(i) for i in range(2, len(g))))
    filters = (ALL, at(1) if alone else ALL, *(ALL for _ in w[2:]))
    return space_of(call, around, filters)


def _weight_grad_space(call: Call) -> Space:
    """Each weight from all items and places."""
    x, g = call.shape(0), call.shape(1)
    alone = int(call.attr("group")) == 1
    pictures = (ALL, at(1) if alone else ALL, *(ALL for _ in x[2:]))
    return space_of(call, pictures, (ALL, at(0), *(ALL for _ in g[2:])))


def _input_grad_splits(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By items, by channels, by filters whose parts are summed, by groups."""
    ways_of: list[Any] = [((Cut(0), None), (Cut(0),), {})]
    group = int(call.attr("group"))
    if group == 1:
        ways_of += [((None, Cut(1)), (Cut(1),), {}), ((Cut(1), Cut(0)), (SUM,), {})]
    elif group % ways == 0:
        ways_of += [((Cut(1), Cut(0)), (Cut(1),), {"group": group // ways})]
    yield from _possible(call, ways_of, ways)


def _weight_grad_splits(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By filters, by channels, by items whose parts are summed, by groups."""
    ways_of: list[Any] = [((Cut(0), Cut(0)), (SUM,), {})]
    group = int(call.attr("group"))
    if group == 1:
        ways_of += [((None, Cut(1)), (Cut(0),), {}), ((Cut(1), None), (Cut(1),), {})]
    elif group % ways == 0:
        ways_of += [((Cut(1), Cut(1)), (Cut(0),), {"group": group // ways})]
    yield from _possible(call, ways_of, ways)


def _possible(call: Call, found: Sequence[Any], ways: int) -> Iterator[Split]:
    """The splits whose operands and results can be cut."""
    for operands, results, attrs in found:
        shapes = [*(call.shape(i) for i in range(len(operands))), call.out()]
        cuts = [*operands, *(r if isinstance(r, Cut) else None for r in results)]
        if all(divides(c, s, ways) for c, s in zip(cuts, shapes, strict=True)):
            yield Split(operands, results, attrs=attrs)


def _steps(c: Any, rank: int) -> tuple[Sequence[int], Sequence[int], list[int]]:
    strides, dilations = c.get("strides") or (1,) * rank, c.get("dilations") or (1,) * rank
    return strides, dilations, [int(p) for p in c.get("pads") or [0] * 2 * rank]


def _macs(call: Call, x: Shape, w: Shape, out: Shape) -> Any:
    """As many as the convolution has: taps that fall inside the input."""
    rank = len(x) - 2
    strides, dilations, pads = _steps(call.op.attrs, rank)
    taps = prod(
        valid_taps(x[2 + i], out[2 + i], w[2 + i], strides[i], dilations[i], pads[i])
        for i in range(rank)
    )
    return prod((x[0], w[0], w[1], taps))


def _input_grad_work(call: Call) -> Work:
    """As a product over the filters and windows that each place was in."""
    g, w, x = call.shape(0), call.shape(1), call.out()
    group, rank = int(call.attr("group")), len(x) - 2
    strides, _, _ = _steps(call.op.attrs, rank)
    steps = prod(strides)
    depth = floordiv(mul(floordiv(w[0], group), prod(w[2:])), steps)
    product = Matmul(group, mul(x[0], prod(x[2:])), w[1], depth if depth else 1)
    macs = _macs(call, x, w, g)
    return Work(
        contraction_flops=mul(2, macs),
        matmuls=(product,),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _weight_grad_work(call: Call) -> Work:
    x, g, w = call.shape(0), call.shape(1), call.out()
    group = int(call.attr("group"))
    depth = mul(g[0], prod(g[2:]))
    product = Matmul(group, floordiv(w[0], group), mul(w[1], prod(w[2:])), depth)
    macs = _macs(call, x, w, g)
    return Work(
        contraction_flops=mul(2, macs),
        matmuls=(product,),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _tap(tap: Sequence[int], out: Sequence[int], strides: Any, dilations: Any) -> tuple[Any, ...]:
    """The places of a padded picture that windows see with one tap."""
    return tuple(
        slice(tap[i] * dilations[i], tap[i] * dilations[i] + (out[i] - 1) * strides[i] + 1,
              strides[i])
        for i in range(len(out))
    )  # fmt: skip


def _spread(
    each: Any, kernel: Sequence[int], out: Sequence[int], shape: Sequence[int], c: Any
) -> Array:
    """What ``each`` gives for a tap, [N, C, out...], added where windows saw it."""
    rank = len(out)
    strides, dilations, pads = _steps(c, rank)
    room = [
        max(shape[2 + i] + pads[i] + pads[i + rank],
            (out[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1)
        for i in range(rank)
    ]  # fmt: skip
    total = np.zeros((*shape[:2], *room), np.float64)
    for tap in itertools.product(*(range(k) for k in kernel)):
        here: Any = (slice(None), slice(None), *_tap(tap, out, strides, dilations))
        total[here] += each(tap)
    crop: Any = tuple(slice(pads[i], pads[i] + shape[2 + i]) for i in range(rank))
    return total[(slice(None), slice(None), *crop)]


def _conv_input_grad(c: Context, g: Array, w: Array) -> Array:
    group, rank = int(c.get("group")), g.ndim - 2
    shape = (g.shape[0], w.shape[1] * group, *c.get("extents"))
    per = w.shape[0] // group
    gw, ww = widen(g), widen(w)

    def each(tap: Sequence[int]) -> Array:
        parts = []
        for n in range(group):
            rows = slice(n * per, (n + 1) * per)
            here: Any = (rows, slice(None), *tap)
            parts.append(np.moveaxis(np.tensordot(gw[:, rows], ww[here], axes=(1, 0)), -1, 1))
        return np.concatenate(parts, 1)

    found = _spread(each, w.shape[2:], g.shape[2:], shape, c)
    assert found.ndim == rank + 2
    return found.astype(g.dtype)


def _conv_weight_grad(c: Context, x: Array, g: Array) -> Array:
    group, rank = int(c.get("group")), x.ndim - 2
    kernel, out = c.get("kernel_shape"), g.shape[2:]
    strides, dilations, pads = _steps(c.attrs, rank)
    padded = np.pad(widen(x), [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))])
    per, each = x.shape[1] // group, g.shape[1] // group
    axes = (0, *range(2, 2 + rank))
    found = np.zeros((g.shape[1], per, *kernel), np.result_type(padded))
    for tap in itertools.product(*(range(k) for k in kernel)):
        seen = padded[(slice(None), slice(None), *_tap(tap, out, strides, dilations))]
        for n in range(group):
            rows = slice(n * each, (n + 1) * each)
            here: Any = (rows, slice(None), *tap)
            found[here] = np.tensordot(
                widen(g)[:, rows], seen[:, n * per : (n + 1) * per], axes=(axes, axes)
            )
    return found.astype(x.dtype)


# --- pools --------------------------------------------------------------------------------


def _max_pool_grad(c: Context, x: Array, g: Array) -> Array:
    """To the first largest number of each window."""
    wide, rank = widen(x), x.ndim - 2
    windows, out, pads = windows_of(c.attrs, wide, -np.inf)
    kernel = tuple(c.get("kernel_shape"))
    flat = windows.reshape(*windows.shape[: 2 + rank], -1)
    best = flat.argmax(-1)
    places = {tap: i for i, tap in enumerate(itertools.product(*(range(k) for k in kernel)))}

    def each(tap: Sequence[int]) -> Array:
        return np.where(best == places[tuple(tap)], widen(g), 0)

    attrs = {**c.attrs, "pads": pads}
    return _spread(each, kernel, out, x.shape, attrs).astype(g.dtype)


def _average_pool_grad(c: Context, x: Array, g: Array) -> Array:
    """To all numbers of each window alike."""
    kernel = tuple(c.get("kernel_shape"))
    _, out, pads = windows_of(c.attrs, widen(x), 0)
    share = widen(g) / counted(c.attrs, x.shape, out, pads)
    attrs = {**c.attrs, "pads": pads}
    return _spread(lambda _tap: share, kernel, out, x.shape, attrs).astype(g.dtype)


def _pool_grad_space(call: Call) -> Space:
    rank = len(call.shape(0))
    seen = tuple(at(i) if i < 2 else window(i) for i in range(rank))
    return space_of(call, seen, seen)


def _pool_grad_work(call: Call) -> Work:
    taps = prod(call.attr("kernel_shape"))
    return Work(
        vector_flops=mul(prod(call.shape(1)), taps), reads=all_reads(call), writes=all_writes(call)
    )


# --- norms over pictures ------------------------------------------------------------------


def _batch_norm_grad(
    c: Context, x: Array, scale: Array, mean: Array, variance: Array, g: Array
) -> list[Array]:
    """Ioffe, Szegedy 2015, section 3; with given statistics they are constants."""
    wide, grad = widen(x).astype(np.float64), widen(g).astype(np.float64)
    axes = tuple(i for i in range(x.ndim) if i != 1)
    by = (1, -1, *(1,) * (x.ndim - 2))
    training = c.get("training_mode", 0)
    m, v = (wide.mean(axes), wide.var(axes)) if training else (mean, variance)
    inverse = 1 / np.sqrt(np.asarray(v, np.float64) + c.get("epsilon", 1e-5)).reshape(by)
    n = (wide - np.asarray(m, np.float64).reshape(by)) * inverse
    h = grad * np.asarray(scale, np.float64).reshape(by)
    dx = h
    if training:
        dx = h - h.mean(axes, keepdims=True) - n * (h * n).mean(axes, keepdims=True)
    found = (dx * inverse, (grad * n).sum(axes), grad.sum(axes))
    return [f.astype(d) for f, d in zip(found, (x.dtype, scale.dtype, scale.dtype), strict=True)]


def _batch_norm_grad_space(call: Call) -> Space:
    """Channels apart; with statistics of the batch a channel is a row."""
    rank = len(call.shape(0))
    apart = tuple(at(i) if i == 1 else row(i) for i in range(rank))
    channel = (at(1),)
    results = (straight(rank), channel, channel)
    return space_of(
        call, apart, channel, channel, channel, apart, parallel=call.shape(0), results=results
    )


def _batch_norm_grad_splits(_row: OpRow, call: Call, ways: int) -> Iterator[Split]:
    """By channels; with given statistics also by items, whose parts of the sums are added up."""
    x = call.shape(0)
    if divides(Cut(1), x, ways):
        one = Cut(0)
        yield Split((Cut(1), one, one, one, Cut(1)), (Cut(1), one, one))
    if not call.attr("training_mode", 0) and divides(Cut(0), x, ways):
        yield Split((Cut(0), None, None, None, Cut(0)), (Cut(0), SUM, SUM))


def _lrn_grad(c: Context, x: Array, g: Array) -> Array:
    """Krizhevsky et al. 2012, section 3.3: y = x s^-b, s = k + a / n sum x^2 over n channels."""
    size, alpha = int(c.get("size")), c.get("alpha", 1e-4)
    beta, bias = c.get("beta", 0.75), c.get("bias", 1.0)

    def around(v: Array, before: int, after: int) -> Array:
        width = [(0, 0), (before, after), *((0, 0) for _ in v.shape[2:])]
        views = np.lib.stride_tricks.sliding_window_view(np.pad(v, width), size, axis=1)
        return np.asarray(views.sum(-1))

    before, after = (size - 1) // 2, size // 2
    s = bias + alpha / size * around(x * x, before, after)
    back = around(g * x * s ** (-beta - 1), after, before)
    return np.asarray(g * s**-beta - 2 * alpha * beta / size * x * back)


def _lrn_grad_space(call: Call) -> Space:
    rank = len(call.shape(0))
    seen = tuple(window(i) if i == 1 else at(i) for i in range(rank))
    return space_of(call, seen, seen)


_CONV = attributes(
    strides=tuple, dilations=tuple, pads=tuple, group=int, extents=tuple, kernel_shape=tuple
)
_POOL = attributes(
    kernel_shape=tuple, strides=tuple, pads=tuple, dilations=tuple, auto_pad=str, ceil_mode=int,
    count_include_pad=int, storage_order=int,
)  # fmt: skip


def _conv(kind: str, rules: tuple[Any, ...], splits: SplitRule) -> OpRow:
    shapes, space, work, evaluate = rules
    return OpRow(
        kind=kind, arity=(2, 2), attrs=_CONV, dtypes=same_dtype, shapes=shapes, space=space,
        work=work, evaluate=evaluate, lowering=Lowering.MATRIX, rate=Rate.CONVOLUTION,
        splits=splits,
    )  # fmt: skip


def _pool(kind: str, evaluate: Any) -> OpRow:
    return OpRow(
        kind=kind, arity=(2, 2), attrs=_POOL, dtypes=same_dtype, shapes=same_shape,
        space=_pool_grad_space, work=_pool_grad_work, evaluate=evaluate,
        lowering=Lowering.REDUCE, splits=by_loops,
    )  # fmt: skip


ROWS: tuple[OpRow, ...] = (
    _conv("conv_input_grad", (_input_grad_shape, _input_grad_space, _input_grad_work,
        _conv_input_grad), _input_grad_splits),
    _conv("conv_weight_grad", (_weight_grad_shape, _weight_grad_space, _weight_grad_work,
        _conv_weight_grad), _weight_grad_splits),
    _pool("max_pool_grad", _max_pool_grad),
    _pool("average_pool_grad", _average_pool_grad),
    OpRow(kind="batch_norm_grad", arity=(5, 5), attrs=attributes(epsilon=float, momentum=float,
        training_mode=int), dtypes=lambda c: [c.input(i).dtype for i in (0, 1, 1)],
        shapes=lambda c: [c.shape(0), c.shape(1), c.shape(1)], space=_batch_norm_grad_space,
        work=per_input(10), evaluate=_batch_norm_grad, lowering=Lowering.REDUCE, rate=Rate.NORM,
        splits=_batch_norm_grad_splits),
    OpRow(kind="lrn_grad", arity=(2, 2), attrs=attributes(alpha=float, beta=float, bias=float,
        size=int), dtypes=same_dtype, shapes=same_shape, space=_lrn_grad_space,
        work=per_output(16, 2), evaluate=in_fp32(_lrn_grad), lowering=Lowering.REDUCE,
        rate=Rate.POWER),
)  # fmt: skip
