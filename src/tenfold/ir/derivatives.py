"""Gradient rules: for each kind of op what its operands' gradients are, as further ops.

A rule gets the gradients of the results and writes on the tape what gives those of the operands
(reverse mode; Griewank, Walther 2008, Evaluating Derivatives, chapter 3). Kinds without one are
either smooth nowhere or only where they are flat, or have none yet: training refuses those by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from tenfold.ir.graph import Attr, Op
from tenfold.ir.windows import window_pads

if TYPE_CHECKING:
    from tenfold.ir.table import Call
    from tenfold.ir.tape import Tape


@dataclass(frozen=True, slots=True)
class Backward:
    """What a rule is asked: the op, its call, the gradient of each result ("" where nothing depends
    on it), and which operands' gradients are wanted.
    """

    op: Op
    call: Call
    grads: tuple[str, ...]
    wanted: tuple[bool, ...]

    @property
    def grad(self) -> str:
        return self.grads[0]

    def x(self, i: int = 0) -> str:
        return self.op.inputs[i]

    @property
    def y(self) -> str:
        return self.op.outputs[0]


# gradients of the operands, "" where there is none
GradientRule: TypeAlias = "Callable[[Tape, Backward], Sequence[str]]"


def _add(t: Tape, b: Backward) -> list[str]:
    return [t.sum_to(b.grad, t.shape(n)) if w else "" for n, w in _pairs(b)]


def _pairs(b: Backward) -> list[tuple[str, bool]]:
    return list(zip(b.op.inputs, b.wanted, strict=True))


def _sub(t: Tape, b: Backward) -> list[str]:
    left, right = _add(t, b)
    return [left, t.op("neg", right) if right else ""]


def _mul(t: Tape, b: Backward) -> list[str]:
    others = b.op.inputs[::-1]
    return [
        t.sum_to(t.op("mul", b.grad, other), t.shape(n)) if w else ""
        for (n, w), other in zip(_pairs(b), others, strict=True)
    ]


def _div(t: Tape, b: Backward) -> list[str]:
    over = t.op("div", b.grad, b.x(1))
    left = t.sum_to(over, t.shape(b.x(0))) if b.wanted[0] else ""
    right = ""
    if b.wanted[1]:
        moved = t.op("neg", t.op("mul", over, b.y))
        right = t.sum_to(moved, t.shape(b.x(1)))
    return [left, right]


def _scaled(kind: str) -> GradientRule:
    """The gradient by an op of its own, from the operand."""

    def rule(t: Tape, b: Backward) -> list[str]:
        return [t.op(f"{kind}_grad", b.x(), b.grad, **b.op.attrs)]

    return rule


def _from_result(kind: str) -> GradientRule:
    """As ``_scaled``, from the result."""

    def rule(t: Tape, b: Backward) -> list[str]:
        return [t.op(f"{kind}_grad", b.y, b.grad, **b.op.attrs)]

    return rule


def _exp(t: Tape, b: Backward) -> list[str]:
    return [t.op("mul", b.grad, b.y)]


def _log(t: Tape, b: Backward) -> list[str]:
    return [t.op("div", b.grad, b.x())]


def _neg(t: Tape, b: Backward) -> list[str]:
    return [t.op("neg", b.grad)]


def _sqrt(t: Tape, b: Backward) -> list[str]:
    return [t.op("div", t.op("mul", b.grad, t.number(0.5, b.grad)), b.y)]


def _sin(t: Tape, b: Backward) -> list[str]:
    return [t.op("mul", b.grad, t.op("cos", b.x()))]


def _cos(t: Tape, b: Backward) -> list[str]:
    return [t.op("neg", t.op("mul", b.grad, t.op("sin", b.x())))]


def _cast(t: Tape, b: Backward) -> list[str]:
    return [t.op("cast", b.grad, to=b.call.input(0).dtype.value)]


def _where(t: Tape, b: Backward) -> list[str]:
    zero = t.number(0.0, b.grad)
    pairs = ((b.x(1), (b.grad, zero)), (b.x(2), (zero, b.grad)))
    both = (
        t.sum_to(t.op("where", b.x(0), *kept), t.shape(n)) if w else ""
        for (n, kept), w in zip(pairs, b.wanted[1:], strict=True)
    )
    return ["", *both]


def _same_again(t: Tape, b: Backward) -> list[str]:
    """Of views: the gradient in the operand's shape."""
    return [t.reshape(b.grad, t.shape(b.x())), *("" for _ in b.op.inputs[1:])]


def _transpose(t: Tape, b: Backward) -> list[str]:
    rank = len(t.shape(b.x()))
    perm = [int(p) % rank for p in b.call.attr("perm") or range(rank - 1, -1, -1)]
    back = tuple(perm.index(i) for i in range(rank))
    return [t.op("transpose", b.grad, perm=back)]


def _expand(t: Tape, b: Backward) -> list[str]:
    return [t.sum_to(b.grad, t.shape(b.x())), ""]


def _axis(b: Backward, rank: int, default: int = 0) -> int:
    return int(b.call.attr("axis", default)) % rank


def _concat(t: Tape, b: Backward) -> list[str]:
    axis = _axis(b, len(t.shape(b.y)))
    sizes = [t.shape(n)[axis] for n in b.op.inputs]
    parts = t.several(len(sizes), "split", b.grad, t.ints(*sizes), axis=axis)
    return [p if w else "" for p, w in zip(parts, b.wanted, strict=True)]


def _split(t: Tape, b: Backward) -> list[str]:
    axis = _axis(b, len(t.shape(b.x())))
    parts = [g or _zeros(t, o) for g, o in zip(b.grads, b.op.outputs, strict=True)]
    return [t.op("concat", *parts, axis=axis), *("" for _ in b.op.inputs[1:])]


def _zeros(t: Tape, like: str) -> str:
    return t.op("full", t.ints(*t.shape(like)), t.number(0.0, like))


def _slice(t: Tape, b: Backward) -> list[str]:
    """Zeros around what was kept; steps of one only."""
    shape = t.shape(b.x())
    rank = len(shape)
    starts, ends = (b.call.need(i) for i in (1, 2))
    axes = b.call.need(3) if b.call.has(3) else range(len(starts))
    if b.call.has(4) and any(int(s) != 1 for s in b.call.need(4)):
        raise NotImplementedError("the gradient of a slice with steps")
    before, after = [0] * rank, [0] * rank
    for start, end, axis in zip(starts, ends, axes, strict=True):
        extent = shape[int(axis)]
        first, last, _ = slice(int(start), int(end)).indices(extent)
        before[int(axis)], after[int(axis)] = first, extent - last
    padded = t.op("pad", b.grad, t.ints(*before, *after), t.number(0.0, b.grad))
    return [padded, *("" for _ in b.op.inputs[1:])]


def _reduced_axes(t: Tape, b: Backward) -> tuple[list[int], tuple[int, ...]]:
    """The axes that a reduction goes along, and the result's shape with them kept."""
    shape = t.shape(b.x())
    given = b.call.need(1) if b.call.has(1) else []
    axes = [int(a) % len(shape) for a in given]
    if not axes and not b.call.attr("noop_with_empty_axes", 0):
        axes = list(range(len(shape)))
    return axes, tuple(1 if a in axes else d for a, d in enumerate(shape))


def _reduce_sum(t: Tape, b: Backward) -> list[str]:
    _, kept = _reduced_axes(t, b)
    spread = t.op("expand", t.reshape(b.grad, kept), t.ints(*t.shape(b.x())))
    return [spread, *("" for _ in b.op.inputs[1:])]


def _reduce_mean(t: Tape, b: Backward) -> list[str]:
    axes, kept = _reduced_axes(t, b)
    count = math.prod(t.shape(b.x())[a] for a in axes)
    each = t.op("mul", t.reshape(b.grad, kept), t.number(1 / count, b.grad))
    return [t.op("expand", each, t.ints(*t.shape(b.x()))), *("" for _ in b.op.inputs[1:])]


def _matmul(t: Tape, b: Backward) -> list[str]:
    """dA = dY B', dB = A' dY; a weight that a whole batch shares meets all of its rows at once."""
    left, right = b.x(0), b.x(1)
    ta, tb = bool(b.call.attr("transpose_a", 0)), bool(b.call.attr("transpose_b", 0))
    if min(len(t.shape(left)), len(t.shape(right))) < 2:
        raise NotImplementedError("the gradient of a product with a vector")
    shared = len(t.shape(right)) == 2 and not ta
    grad_left = grad_right = ""
    if b.wanted[0]:
        attrs = {} if tb else {"transpose_b": 1}
        product = t.op("matmul", b.grad, right, **attrs)
        grad_left = t.sum_to(t.swapped(product) if ta else product, t.shape(left))
    if b.wanted[1] and shared:
        flat = [t.reshape(n, (math.prod(t.shape(n)[:-1]), t.shape(n)[-1])) for n in (left, b.grad)]
        first, second = flat[::-1] if tb else flat
        grad_right = t.op("matmul", first, second, transpose_a=1)
    elif b.wanted[1]:
        rows = left if ta else t.swapped(left)
        product = t.op("matmul", rows, b.grad)
        grad_right = t.sum_to(t.swapped(product) if tb else product, t.shape(right))
    return [grad_left, grad_right]


def _einsum(t: Tape, b: Backward) -> list[str]:
    """The equation with the result and an operand exchanged; no index is summed in one operand
    alone, and none is repeated.
    """
    equation = str(b.op.attrs["equation"]).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    names = terms.split(",")
    if not arrow or len(names) != 2 or "." in equation:
        raise NotImplementedError(f"the gradient of einsum '{equation}'")
    found = []
    for i, w in enumerate(b.wanted):
        other = names[1 - i]
        if set(names[i]) - set(result) - set(other):
            raise NotImplementedError(f"the gradient of einsum '{equation}'")
        written = f"{result},{other}->{names[i]}"
        found.append(t.op("einsum", b.grad, b.x(1 - i), equation=written) if w else "")
    return found


def _softmax(t: Tape, b: Backward) -> list[str]:
    return [t.op("softmax_grad", b.y, b.grad, axis=int(b.call.attr("axis", -1)))]


def _norm(kind: str) -> GradientRule:
    """Gradients of the operand, of the scale, and of a bias."""

    def rule(t: Tape, b: Backward) -> list[str]:
        count = len(b.op.inputs)
        scale = b.x(1) if count > 1 else ""
        grads = t.several(max(count, 1), f"{kind}_grad", b.x(), scale, b.grad, **b.op.attrs)
        return list(grads[:count])

    return rule


def _gather(t: Tape, b: Backward) -> list[str]:
    """Rows of the gradient added up where they were looked up."""
    axis = _axis(b, len(t.shape(b.x())))
    rows = t.shape(b.x())[axis]
    places = t.op("mod", b.x(1), t.number(rows, b.x(1)))  # negative ones count from the end
    return [t.op("gather_grad", places, b.grad, rows=rows, axis=axis), ""]


def _rotary(t: Tape, b: Backward) -> list[str]:
    """Turned back by the same angles."""
    back = t.op("neg", b.x(2))
    places = b.op.inputs[3:]
    grad = t.op("rotary_embedding", b.grad, b.x(1), back, *places, **b.op.attrs)
    return [grad, *("" for _ in b.op.inputs[1:])]


def _attention(t: Tape, b: Backward) -> list[str]:
    if any(b.op.inputs[4:]) or any(b.grads[1:]):
        raise NotImplementedError("the gradient of an attention with a cache")
    mask = b.x(3) if len(b.op.inputs) > 3 else ""
    keys = b.call.shape(1)[2 if len(b.call.shape(1)) == 4 else 1]
    if mask and t.shape(mask)[-1] not in (1, keys):
        raise NotImplementedError("the gradient of an attention whose mask ends before the keys")
    count = 4 if mask and b.wanted[3] else 3
    found = t.several(count, "attention_grad", *b.op.inputs[:3], b.grad, b.y, mask, **b.op.attrs)
    return [*found, *("" for _ in b.op.inputs[count:])]


def _moe(t: Tape, b: Backward) -> list[str]:
    bias = b.x(4) if len(b.op.inputs) > 4 else ""
    four = t.several(4, "moe_grad", *b.op.inputs[:4], b.grad, bias, **b.op.attrs)
    return [*four, *("" for _ in b.op.inputs[4:])]


def _conv(t: Tape, b: Backward) -> list[str]:
    x, w = t.shape(b.x(0)), t.shape(b.x(1))
    attrs: dict[str, Attr] = {
        "strides": tuple(b.call.attr("strides") or (1,) * (len(x) - 2)),
        "dilations": tuple(b.call.attr("dilations") or (1,) * (len(x) - 2)),
        "pads": tuple(int(str(p)) for p in window_pads(b.op.attrs, x[2:], w[2:])),
        "group": int(b.call.attr("group", 1)),
    }
    found = ["", ""]
    if b.wanted[0]:
        found[0] = t.op("conv_input_grad", b.grad, b.x(1), extents=x[2:], **attrs)
    if b.wanted[1]:
        found[1] = t.op("conv_weight_grad", b.x(0), b.grad, kernel_shape=w[2:], **attrs)
    if len(b.op.inputs) > 2:
        axes = t.ints(0, *range(2, len(x)))
        found.append(t.op("reduce_sum", b.grad, axes, keepdims=0) if b.wanted[2] else "")
    return found


def _pool(kind: str) -> GradientRule:
    def rule(t: Tape, b: Backward) -> list[str]:
        return [t.op(f"{kind}_grad", b.x(), b.grad, **b.op.attrs)]

    return rule


def _batch_norm(t: Tape, b: Backward) -> list[str]:
    if any(b.grads[1:]):
        raise NotImplementedError("the gradient of running statistics")
    x, scale, _, mean, variance = b.op.inputs
    three = t.several(3, "batch_norm_grad", x, scale, mean, variance, b.grad, **b.op.attrs)
    return [*three, "", ""]


def _abs(t: Tape, b: Backward) -> list[str]:
    return [t.op("mul", b.grad, t.op("sign", b.x()))]


def _reciprocal(t: Tape, b: Backward) -> list[str]:
    return [t.op("neg", t.op("mul", b.grad, t.op("mul", b.y, b.y)))]


def _erf(t: Tape, b: Backward) -> list[str]:
    bell = t.op("exp", t.op("neg", t.op("mul", b.x(), b.x())))
    return [t.op("mul", b.grad, t.op("mul", bell, t.number(2 / math.sqrt(math.pi), b.grad)))]


def _softplus(t: Tape, b: Backward) -> list[str]:
    return [t.op("mul", b.grad, t.op("sigmoid", b.x()))]


def _leaky_relu(t: Tape, b: Backward) -> list[str]:
    slope = t.number(float(b.call.attr("alpha", 0.01)), b.grad)
    below = t.op("less", b.x(), t.number(0.0, b.x()))
    return [t.op("where", below, t.op("mul", b.grad, slope), b.grad)]


def _pow(t: Tape, b: Backward) -> list[str]:
    """Of the base; the exponent is taken as given."""
    if b.wanted[1]:
        raise NotImplementedError("the gradient of an exponent")
    power = b.x(1)
    if not b.call.input(1).dtype.is_float:
        power = t.op("cast", power, to=b.call.input(0).dtype.value)
    less = t.op("pow", b.x(0), t.op("sub", power, t.number(1.0, b.x(0))))
    slope = t.op("mul", power, less)
    return [t.sum_to(t.op("mul", b.grad, slope), t.shape(b.x(0))), ""]


def _chosen(t: Tape, b: Backward) -> list[str]:
    """To the operand that is the result; where both are, to the first."""
    if len(b.op.inputs) != 2:
        raise NotImplementedError("the gradient of a maximum of several")
    first = t.op("equal", b.x(0), b.y)
    zero = t.number(0.0, b.grad)
    both = (t.op("where", first, b.grad, zero), t.op("where", first, zero, b.grad))
    pairs = zip(both, b.op.inputs, b.wanted, strict=True)
    return [t.sum_to(g, t.shape(n)) if w else "" for g, n, w in pairs]


def _clip(t: Tape, b: Backward) -> list[str]:
    """Where nothing was clipped."""
    inside = t.op("equal", b.x(), b.y)
    kept = t.op("where", inside, b.grad, t.number(0.0, b.grad))
    return [kept, *("" for _ in b.op.inputs[1:])]


def _log_softmax(t: Tape, b: Backward) -> list[str]:
    axis = int(b.call.attr("axis", -1))
    total = t.op("reduce_sum", b.grad, t.ints(axis), keepdims=1)
    return [t.op("sub", b.grad, t.op("mul", t.op("exp", b.y), total))]


def _extreme(t: Tape, b: Backward) -> list[str]:
    """To the numbers that are the result, alike."""
    axes, kept = _reduced_axes(t, b)
    best = t.op("equal", b.x(), t.reshape(b.y, kept))
    marks = t.op("cast", best, to=b.call.input(0).dtype.value)
    count = t.op("reduce_sum", marks, t.ints(*axes), keepdims=1)
    share = t.op("div", t.reshape(b.grad, kept), count)
    return [t.op("mul", marks, share), *("" for _ in b.op.inputs[1:])]


def _lstm(t: Tape, b: Backward) -> list[str]:
    """Of the sequence of results; states begin at zero, with the usual functions."""
    usual = not any(b.call.attr(n) for n in ("activations", "clip", "input_forget", "layout"))
    if not usual or any(b.grads[1:]) or any(b.op.inputs[4:]):
        raise NotImplementedError("the gradient of an LSTM with states, peepholes or other gates")
    attrs: dict[str, Attr] = {
        "hidden_size": int(b.call.attr("hidden_size")),
        "direction": str(b.call.attr("direction", "forward")),
    }
    bias = b.x(3) if len(b.op.inputs) > 3 and b.op.inputs[3] else ""
    count = 4 if bias else 3
    found = t.several(count, "lstm_grad", *b.op.inputs[:3], b.grad, bias, **attrs)
    return [*found, *("" for _ in b.op.inputs[count:])]


def _dropout(t: Tape, b: Backward) -> list[str]:
    return [t.op("dropout_grad", b.grad, b.op.outputs[1], **b.op.attrs)]


RULES: Mapping[str, GradientRule] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div, "neg": _neg, "exp": _exp, "log": _log,
    "sqrt": _sqrt, "sin": _sin, "cos": _cos, "cast": _cast, "where": _where,
    "relu": _scaled("relu"), "gelu": _scaled("gelu"), "swish": _scaled("swish"),
    "tanh": _from_result("tanh"), "sigmoid": _from_result("sigmoid"),
    "identity": _same_again, "reshape": _same_again, "flatten": _same_again,
    "squeeze": _same_again, "unsqueeze": _same_again, "transpose": _transpose, "expand": _expand,
    "concat": _concat, "split": _split, "slice": _slice,
    "reduce_sum": _reduce_sum, "reduce_mean": _reduce_mean,
    "matmul": _matmul, "einsum": _einsum, "softmax": _softmax,
    "layer_norm": _norm("layer_norm"), "rms_norm": _norm("rms_norm"),
    "conv": _conv, "max_pool": _pool("max_pool"), "average_pool": _pool("average_pool"),
    "batch_norm": _batch_norm, "lrn": _pool("lrn"), "abs": _abs, "reciprocal": _reciprocal,
    "erf": _erf, "softplus": _softplus, "leaky_relu": _leaky_relu, "pow": _pow, "max": _chosen,
    "min": _chosen, "clip": _clip, "log_softmax": _log_softmax, "reduce_max": _extreme,
    "reduce_min": _extreme, "lstm": _lstm, "dropout": _dropout,
    "gather": _gather, "rotary_embedding": _rotary, "attention": _attention, "moe": _moe,
}  # fmt: skip


class NoGradient(Enum):
    """Why a kind has no rule."""

    FLAT = "no number of its results changes smoothly with an operand"
    NOT_YET = "its gradient is not written yet"


# no number of theirs changes smoothly with an operand: whole numbers, comparisons, steps, sizes,
# places, what is drawn
_FLAT = """sign ceil floor round not bitwise_not is_nan is_inf and or xor bitwise_and bitwise_or
    bitwise_xor equal less less_equal greater greater_equal mod bit_shift bit_cast shape size range
    eye full one_hot non_zero unique non_max_suppression tfidf image_decoder arg_max arg_min
    hardmax quantize dynamic_quantize matmul_integer conv_integer window mel_weight_matrix random
    bernoulli multinomial"""
# to be written; until then a network that has one is not trained
_NOT_YET = """tan asin acos atan sinh cosh asinh acosh atanh softsign mish hard_swish elu selu
    celu hard_sigmoid thresholded_relu shrink prelu causal_conv dequantize dft stft det tile pad
    depth_to_space space_to_depth trilu reverse_sequence center_crop_pad gather_elements
    gather_nd scatter_elements scatter_nd tensor_scatter compress max_unpool resize grid_sample
    roi_align max_roi_pool reduce_prod reduce_l1 reduce_l2 reduce_log_sum reduce_log_sum_exp
    reduce_sum_square cum_sum cum_prod top_k instance_norm group_norm lp_normalization lp_pool
    col2im affine_grid conv_transpose deform_conv cached_attention linear_attention gru rnn
    dynamic_quantize_lstm if loop scan opaque all_reduce all_gather reduce_scatter own_part
    relu_grad gelu_grad swish_grad tanh_grad sigmoid_grad softmax_grad layer_norm_grad
    rms_norm_grad gather_grad attention_grad moe_grad moe_apart moe_apart_grad attention_apart
    attention_apart_grad conv_input_grad conv_weight_grad max_pool_grad average_pool_grad
    batch_norm_grad lrn_grad lstm_grad dropout_grad"""
FLAT, NOT_YET = (frozenset(kinds.split()) for kinds in (_FLAT, _NOT_YET))


def gradient_of(kind: str) -> GradientRule | NoGradient:
    """The column's entry of a kind. Raises KeyError for one that is in none of the lists, or in
    several.
    """
    found = [RULES[kind]] if kind in RULES else []
    reasons = ((FLAT, NoGradient.FLAT), (NOT_YET, NoGradient.NOT_YET))
    entries: list[GradientRule | NoGradient] = [
        *found,
        *(why for kinds, why in reasons if kind in kinds),
    ]
    if len(entries) != 1:
        raise KeyError(f"op kind '{kind}' has {len(entries)} entries for its gradient")
    return entries[0]
