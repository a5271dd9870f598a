"""Batch normalisation, and any other factor or offset per channel, into the convolution or product
before it.
"""

from __future__ import annotations

import numpy as np

from tenfold.compiler.passes.sweep import Pass, Sweep, sweeping
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Array, Op, Value
from tenfold.ir.ops.common import widen

_SIDES = {"mul": (True, False), "div": (True, False), "add": (False, True), "sub": (False, True)}


def _visit(sweep: Sweep, op: Op) -> None:
    """y = (conv(x, w) + b) * scale + shift is conv(x, w * scale) + (b * scale + shift) (Jacob et
    al. 2018, section 3.2).
    """
    affine = _affine(sweep, op)
    if affine is None:
        sweep.emit(op)
        return
    conv, channels, scale, shift, scaled = affine
    weights = sweep.value(conv.inputs[1])
    dtype = weights.dtype
    w, b = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else ""
    if scaled:
        data = sweep.constants[w]
        folded = None if data is None or scale is None else _scale(data, scale, conv)
        w = sweep.constant(sweep.name(w, "scaled"), folded, weights)
    bias = _bias(sweep, b, scale, shift, channels, dtype)
    b = sweep.constant(sweep.name(op.outputs[0], "bias"), bias, Value("", dtype, (channels,)))
    sweep.emit(
        Op(conv.kind, (conv.inputs[0], w, b), op.outputs[:1], conv.attrs, (), conv.loc or op.loc)
    )


def _scale(weights: Array, scale: Array, conv: Op) -> Array:
    if conv.kind == "conv":
        shaped = scale.reshape(-1, *(1,) * (weights.ndim - 1))
    else:  # conv_transpose: [in, out / group, …]
        group = int(conv.attrs.get("group", 1))  # type: ignore[arg-type]
        per_in = scale.reshape(group, 1, weights.shape[1]).repeat(weights.shape[0] // group, axis=1)
        shaped = per_in.reshape(weights.shape[0], weights.shape[1], *(1,) * (weights.ndim - 2))
    return np.asarray((widen(weights) * shaped).astype(weights.dtype))


def _bias(
    sweep: Sweep, b: str, scale: Array | None, shift: Array | None, channels: int, dtype: DType
) -> Array | None:
    """The new bias, or None where its content is not known."""
    old = np.zeros(channels, np.float32) if not b else sweep.constants[b]
    if old is None or scale is None or shift is None:
        return None
    return np.asarray((widen(old) * scale + shift).astype(dtype.numpy))


def _affine(sweep: Sweep, op: Op) -> tuple[Op, int, Array | None, Array | None, bool] | None:
    """The convolution, its channels, factor and offset per channel, and whether there is a factor;
    None where this is none.
    """
    if (
        op.kind not in ("batch_norm", *_SIDES)
        or len([o for o in op.outputs if o]) != 1
        or op.attrs.get("training_mode", 0)
    ):
        return None
    conv = sweep.producer.get(op.inputs[0])
    other = op.inputs[1]
    if op.kind in ("mul", "add") and (conv is None or not sweep.is_constant(other)):
        conv, other = sweep.producer.get(op.inputs[1]), op.inputs[0]
    if conv is None or conv.kind not in ("conv", "conv_transpose") or not _ours(sweep, conv, op):
        return None
    channels = sweep.value(conv.outputs[0]).dims[1]
    if not isinstance(channels, int):
        return None
    if op.kind == "batch_norm":
        if not all(sweep.is_constant(n) for n in op.inputs[1:5]):
            return None
        return conv, channels, *_normalisation(sweep, op), True
    if not sweep.is_constant(other) or not _per_channel(sweep, other, conv, channels):
        return None
    data = sweep.constants[other]
    vector = None if data is None else np.broadcast_to(widen(data).reshape(-1), (channels,))
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if _SIDES[op.kind][0]:
        return (
            conv,
            channels,
            None if vector is None else (vector if op.kind == "mul" else 1 / vector),
            zeros,
            True,
        )
    return (
        conv,
        channels,
        ones,
        None if vector is None else (vector if op.kind == "add" else -vector),
        False,
    )


def _ours(sweep: Sweep, conv: Op, op: Op) -> bool:
    """Whether nobody else reads the convolution and all that is to be changed is constant."""
    result = conv.outputs[0]
    same = (
        sweep.value(result).shape == sweep.value(op.outputs[0]).shape
        and sweep.value(result).dtype == sweep.value(op.outputs[0]).dtype
    )
    floats = sweep.value(conv.inputs[1]).dtype.is_float
    return (
        same
        and floats
        and sweep.uses.get(result, 0) == 1
        and all(sweep.is_constant(n) for n in conv.inputs[1:] if n)
    )


def _per_channel(sweep: Sweep, name: str, conv: Op, channels: int) -> bool:
    shape, rank = sweep.shape(name), len(sweep.value(conv.outputs[0]).dims)
    if shape is None or len(shape) > rank:
        return False
    full = (1,) * (rank - len(shape)) + shape
    return full == (1, channels, *(1,) * (rank - 2)) or all(d == 1 for d in full)


def _normalisation(sweep: Sweep, op: Op) -> tuple[Array | None, Array | None]:
    """Factor and offset per channel of an inference batch norm (Ioffe, Szegedy 2015, algorithm
    2).
    """
    arrays = [sweep.constants.get(n) for n in op.inputs[1:5]]
    if any(a is None for a in arrays):
        return None, None
    scale, bias, mean, variance = (widen(a) for a in arrays if a is not None)
    epsilon = np.asarray(op.attrs.get("epsilon", 1e-5), variance.dtype)
    factor: Array = scale / np.sqrt(variance + epsilon)
    return factor, bias - mean * factor


def _visit_for_runtime(sweep: Sweep, op: Op) -> None:
    """What ONNX Runtime folds (1.32, ConvMulFusion, ConvAddFusion): no transposed convolutions, no
    factor of rank one.
    """
    convolved = [n for n in op.inputs if n in sweep.producer and sweep.producer[n].kind == "conv"]
    folds = op.kind == "batch_norm"
    if op.kind in ("mul", "add") and len(convolved) == 1:
        shape = sweep.shape(op.inputs[1 - op.inputs.index(convolved[0])])
        _, channels, *window = sweep.value(convolved[0]).dims
        per_channel = (
            shape is not None and len(shape) > len(window) and shape[-1 - len(window)] == channels
        )
        folds = per_channel or (op.kind == "mul" and shape == ())
    if convolved and folds:
        _visit(sweep, op)
    else:
        sweep.emit(op)


PASS = Pass(
    "batch-norm",
    "batch normalisation and factors per channel go into the weights before them",
    sweeping(_visit),
)
RUNTIME_PASS = Pass(PASS.name, PASS.does, sweeping(_visit_for_runtime))
