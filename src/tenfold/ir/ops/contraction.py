"""Matrix products and convolutions: what matrix units exist for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tenfold.ir.dims import Dim, Shape, broadcast, mul, prod
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array
from tenfold.ir.ops.common import (
    all_reads,
    all_writes,
    always,
    everything,
    same_dtype,
    space_of,
    widen,
)
from tenfold.ir.sharding import by_sums
from tenfold.ir.space import ONE, Map, Space, aligned, at
from tenfold.ir.table import (
    Call,
    Context,
    Lowering,
    Matmul,
    OpRow,
    Work,
    attributes,
)


def _operands(call: Call) -> tuple[Shape, Shape]:
    """Shapes of both operands after the transposes that the attributes ask for."""
    a, b = call.shape(0), call.shape(1)
    if not a or not b:
        raise ValueError(f"matmul needs operands of rank 1 and more, got {a} x {b}")
    if call.attr("transpose_a", 0):
        a = (*a[:-2], a[-1], a[-2])
    if call.attr("transpose_b", 0):
        b = (*b[:-2], b[-1], b[-2])
    return a, b


def _matmul_shape(call: Call) -> Sequence[Shape]:
    a, b = _operands(call)
    inner_b = b[-2] if len(b) > 1 else b[0]
    if isinstance(a[-1], int) and isinstance(inner_b, int) and a[-1] != inner_b:
        raise ValueError(
            f"matmul of {call.shape(0)} and {call.shape(1)}: inner extents {a[-1]} and {inner_b}"
            " differ"
        )
    batch = broadcast((a[:-2], b[:-2]))
    return [(*batch, *((a[-2],) if len(a) > 1 else ()), *((b[-1],) if len(b) > 1 else ()))]


def matmul_of(call: Call) -> Matmul:
    """The product as the matrix unit sees it: a weight shared by the batch makes the batch part of
    m.
    """
    a, b = _operands(call)
    m = a[-2] if len(a) > 1 else 1
    n = b[-1] if len(b) > 1 else 1
    batch = prod(broadcast((a[:-2], b[:-2])))
    if prod(b[:-2]) == 1:
        return Matmul(1, mul(batch, m), n, a[-1])
    return Matmul(batch, m, n, a[-1])


def _matmul_space(call: Call) -> Space:
    """Loops over batch, rows and columns of the result, then over k."""
    a, b = call.shape(0), call.shape(1)
    out = call.out()
    k = len(out)
    batch = out[: k - (len(a) > 1) - (len(b) > 1)]
    m, n = len(batch), k - 1
    left = (m, k) if len(a) > 1 else (k,)
    right = (k, n) if len(b) > 1 else (k,)
    if call.attr("transpose_a", 0):
        left = left[::-1]
    if call.attr("transpose_b", 0):
        right = right[::-1]
    maps = (
        (*aligned(a[:-2], batch), *map(at, left)),
        (*aligned(b[:-2], batch), *map(at, right)),
    )
    zeros = (
        _zero_point_map(call, 2, m if len(a) > 1 else k),
        _zero_point_map(call, 3, n if len(b) > 1 else k),
    )
    return space_of(call, *maps, *zeros, reduced=(_operands(call)[0][-1],))


def _zero_point_map(call: Call, i: int, loop: int) -> Map | None:
    """One number for all, or one for each row or column."""
    if not call.has(i):
        return None
    shape = call.shape(i)
    if len(shape) == 1:
        return (ONE if shape[0] == 1 else at(loop),)
    return everything(call, i)


def _matmul_work(call: Call) -> Work:
    product = matmul_of(call)
    return Work(
        contraction_flops=mul(2, product.macs),
        matmuls=(product,),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _matmul(ctx: Context, a: Array, b: Array) -> Array:
    if ctx.get("transpose_a", 0):
        a = np.swapaxes(a, -1, -2)
    if ctx.get("transpose_b", 0):
        b = np.swapaxes(b, -1, -2)
    with np.errstate(all="ignore"):
        return np.matmul(widen(a), widen(b)).astype(a.dtype, copy=False)


def exact_int_matmul(a: Array, b: Array) -> Array:
    """Integer product in int32 through fp64 BLAS: exact below 2**53, 40 times faster than NumPy's
    integers.
    """
    return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.int64).astype(np.int32)


def zero_point(zero: Array | None, rank: int, axis: int) -> Array:
    """A zero point shaped to subtract from an operand: a scalar, or one per row or column."""
    if zero is None:
        return np.zeros((), np.int32)
    z = zero.astype(np.int32)
    if z.ndim == 1 and z.size > 1:
        shape = [1] * rank
        shape[axis] = z.size
        return z.reshape(shape)
    return z.reshape(()) if z.size == 1 else z


def _matmul_integer(
    _ctx: Context, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
) -> Array:
    left = a.astype(np.int32) - zero_point(a_zero, a.ndim, -2 if a.ndim > 1 else -1)
    right = b.astype(np.int32) - zero_point(b_zero, b.ndim, -1)
    return exact_int_matmul(left, right)


def _einsum_terms(call: Call) -> tuple[list[list[str]], list[str], dict[str, Dim]]:
    """Index names of each operand and of the result, and the extent of each index."""
    left, _, right = call.attr("equation").replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(call.inputs):
        raise ValueError(
            f"einsum '{call.attr('equation')}' names {len(operands)} operands, got"
            f" {len(call.inputs)}"
        )
    extents: dict[str, Dim] = {}
    names: list[list[str]] = []
    for i, term in enumerate(operands):
        shape = call.shape(i)
        hidden = (
            [f".{j}" for j in range(len(shape) - len(term.replace("...", "")))]
            if "..." in term
            else []
        )
        head, dots, tail = term.partition("...")
        indices = [*head, *(hidden if dots else []), *tail]
        if len(indices) != len(shape):
            raise ValueError(f"einsum term '{term}' does not fit rank {len(shape)}")
        for name, d in zip(indices, shape, strict=True):
            extents[name] = d if extents.get(name, 1) == 1 else extents[name]
        names.append(indices)
    dotted = sorted(n for n in extents if n.startswith("."))
    if "->" in call.attr("equation"):
        head, dots, tail = right.partition("...")
        result = [*head, *(dotted if dots else []), *tail]
    else:
        flat = [n for t in names for n in t]
        result = dotted + sorted(
            n for n in set(flat) if flat.count(n) == 1 and not n.startswith(".")
        )
    return names, result, extents


def _einsum_shape(call: Call) -> Sequence[Shape]:
    _, result, extents = _einsum_terms(call)
    return [tuple(extents[n] for n in result)]


def _einsum_space(call: Call) -> Space:
    names, result, extents = _einsum_terms(call)
    summed = [n for n in extents if n not in result]
    loop = {n: i for i, n in enumerate((*result, *summed))}
    maps = (
        tuple(
            ONE if d == 1 and extents[n] != 1 else at(loop[n])
            for n, d in zip(term, call.shape(i), strict=True)
        )
        for i, term in enumerate(names)
    )
    return space_of(call, *maps, reduced=[extents[n] for n in summed])


def _einsum_work(call: Call) -> Work:
    names, result, extents = _einsum_terms(call)
    if len(names) != 2 or all(n in result for n in extents):
        points = prod(extents.values())
        return Work(
            vector_flops=mul(points, max(1, len(names))),
            reads=all_reads(call),
            writes=all_writes(call),
        )
    left, right = names
    batch = prod(extents[n] for n in extents if n in left and n in right and n in result)
    m = prod(extents[n] for n in extents if n in left and n not in right and n in result)
    n_ = prod(extents[n] for n in extents if n in right and n not in left and n in result)
    k = prod(extents[n] for n in extents if n not in result)
    product = Matmul(batch, m, n_, k)
    return Work(
        contraction_flops=mul(2, product.macs),
        matmuls=(product,),
        reads=all_reads(call),
        writes=all_writes(call),
    )


def _einsum(ctx: Context, *arrays: Array) -> Array:
    wide = [widen(a) for a in arrays]
    return np.asarray(np.einsum(ctx.get("equation"), *wide, optimize=True)).astype(
        arrays[0].dtype, copy=False
    )


CONTRACTION: dict[str, Any] = {"lowering": Lowering.MATRIX, "splits": by_sums}


ROWS: tuple[OpRow, ...] = (
    OpRow(kind="matmul", arity=(2, 2), attrs=attributes(transpose_a=int, transpose_b=int),
        dtypes=same_dtype, shapes=_matmul_shape, space=_matmul_space, work=_matmul_work,
        evaluate=_matmul, scaled_axis=-1, **CONTRACTION),
    OpRow(kind="matmul_integer", arity=(2, 4), attrs={}, dtypes=always(DType.I32),
        shapes=_matmul_shape, space=_matmul_space, work=_matmul_work, evaluate=_matmul_integer,
        **CONTRACTION),
    OpRow(kind="einsum", arity=(1, 1 << 30), attrs=attributes(equation=str), dtypes=same_dtype,
        shapes=_einsum_shape, space=_einsum_space, work=_einsum_work, evaluate=_einsum,
        **CONTRACTION),
)  # fmt: skip
