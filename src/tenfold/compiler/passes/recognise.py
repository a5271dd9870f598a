"""Composites that a file spells out - softmax, norms, gelu and its kin, attention - become one op
again.
"""

from __future__ import annotations

import numpy as np

from tenfold.compiler.passes.match import Anything, Either, Number, Of, Pattern, matches, of
from tenfold.compiler.passes.scalar import recognise_scalar
from tenfold.compiler.passes.sweep import Pass, Sweep, sweeping
from tenfold.ir.graph import Op

X, D = Anything("x"), Anything("d")
_MEAN = of("reduce_mean", X, name="mean")


def _visit(sweep: Sweep, op: Op) -> None:
    if not any(rule(sweep, op) for rule in _RULES.get(op.kind, ())) and not (
        op.kind in _LAST and recognise_scalar(sweep, op)
    ):
        sweep.emit(op)


def _visit_for_runtime(sweep: Sweep, op: Op) -> None:
    """As ONNX Runtime has them: gelu and swish are operators of its own, the other functions stay
    as written.
    """
    rules = [r for r in _RULES.get(op.kind, ()) if r is not _softmax]
    if not any(rule(sweep, op) for rule in rules) and not (
        op.kind in _LAST and recognise_scalar(sweep, op, _RUNTIME_FUNCTIONS)
    ):
        sweep.emit(op)


# --- softmax ----------------------------------------------------------------------------

_POWER = of("exp", Either((of("sub", X, of("reduce_max", X, name="top")), X)), name="power")
_SOFTMAX = of("div", _POWER, of("reduce_sum", Anything("power"), name="sum"))


def _softmax(sweep: Sweep, op: Op) -> bool:
    """exp(x - max) / sum over one axis."""
    for found in _root(sweep, _SOFTMAX, op):
        axes = [_axes(sweep, found[n]) for n in ("sum", "top") if n in found]
        if all(a is not None and len(a) == 1 and a == axes[0] for a in axes) and _shape_kept(
            sweep, op, found["x"]
        ):
            assert axes[0] is not None
            sweep.emit(Op("softmax", (found["x"],), op.outputs, {"axis": axes[0][0]}, (), op.loc))
            return True
    return False


# --- normalisations ---------------------------------------------------------------------


def _over_root(top: Pattern, square: Pattern) -> Pattern:
    """top / sqrt(mean(square) + epsilon), in any of the ways it is written."""
    variance = of("add", of("reduce_mean", square, name="variance"), Number(name="epsilon"))
    root = of("sqrt", variance)
    over = of("div", top, Either((root, of("pow", variance, Number(0.5)))))
    inverse = Either(
        (of("reciprocal", root), of("div", Number(1.0), root), of("pow", variance, Number(-0.5)))
    )
    return Either((over, of("mul", top, inverse)))


def _square(of_what: Anything) -> Pattern:
    return Either((of("mul", of_what, of_what), of("pow", of_what, Number(2.0))))


_LAYER_NORM = _over_root(D, _square(D))
_RMS_NORM = _over_root(X, _square(X))


def _norm(sweep: Sweep, op: Op) -> bool:
    """Layer and RMS normalisation without their factor and offset, which ``_affine`` adds."""
    for found in _root(sweep, _LAYER_NORM, op):
        for inner in matches(sweep, of("sub", X, _MEAN), found["d"], found):
            if (
                _last_axis(sweep, inner["mean"])
                and _last_axis(sweep, inner["variance"])
                and _shape_kept(sweep, op, inner["x"])
            ):
                epsilon = sweep.scalar(inner["epsilon"]) or 0.0
                sweep.emit(
                    Op(
                        "layer_norm",
                        (inner["x"],),
                        op.outputs,
                        {"axis": -1, "epsilon": epsilon},
                        (),
                        op.loc,
                    )
                )
                return True
    for found in _root(sweep, _RMS_NORM, op):
        if _last_axis(sweep, found["variance"]) and _shape_kept(sweep, op, found["x"]):
            value = sweep.value(found["x"])
            width = value.dims[-1]
            if isinstance(width, int):
                ones = sweep.number(op.outputs[0], np.ones(width, value.dtype.numpy))
                sweep.memo[("ones", op.outputs[0])] = ones
                attrs = {"axis": -1, "epsilon": sweep.scalar(found["epsilon"]) or 0.0}
                sweep.emit(Op("rms_norm", (found["x"], ones), op.outputs, attrs, (), op.loc))
                return True
    return False


def _affine(sweep: Sweep, op: Op) -> bool:
    """A constant per column that multiplies, or is added to, a normalisation becomes its scale or
    bias.
    """
    for i in (0, 1):
        norm, other = sweep.producer.get(op.inputs[i]), op.inputs[1 - i]
        if (
            norm is None
            or norm.kind not in ("layer_norm", "rms_norm")
            or len([o for o in norm.outputs if o]) != 1
        ):
            continue
        width = sweep.value(norm.inputs[0]).dims[-1]
        if (
            not sweep.is_constant(other)
            or sweep.shape(other) != (width,)
            or not _shape_kept(sweep, op, norm.inputs[0])
        ):
            continue
        ones = ("ones", norm.outputs[0]) in sweep.memo
        if op.kind == "mul" and ((norm.kind == "layer_norm" and len(norm.inputs) == 1) or ones):
            sweep.emit(Op(norm.kind, (norm.inputs[0], other), op.outputs, norm.attrs, (), norm.loc))
            return True
        if op.kind == "add" and norm.kind == "layer_norm" and len(norm.inputs) == 2:
            sweep.emit(Op(norm.kind, (*norm.inputs, other), op.outputs, norm.attrs, (), norm.loc))
            return True
    return False


# --- attention --------------------------------------------------------------------------

_SCORES = of("matmul", Anything("q"), Anything("k"), name="scores")
_SCALED = Either(
    (
        of("mul", _SCORES, Number(name="times"), name="scaled"),
        of("div", _SCORES, Number(name="over"), name="scaled"),
        _SCORES,
    )
)
_MASKED = Either((of("add", _SCALED, Anything("mask"), name="masked"), _SCALED))
_WEIGHTS = of("softmax", _MASKED, name="weights")


def _attention(sweep: Sweep, op: Op) -> bool:
    """softmax(q k^T * scale + mask) v (Vaswani et al. 2017, equation 1) whose scores nobody else
    reads.
    """
    if op.attrs.get("transpose_a", 0):
        return False
    for found in matches(sweep, _WEIGHTS, op.inputs[0], {}):
        inner = [found[n] for n in ("scores", "scaled", "masked", "weights") if n in found]
        if all(sweep.uses.get(n, 0) == 1 for n in inner) and _attention_fits(sweep, found, op):
            _emit_attention(sweep, found, op)
            return True
    return False


def _attention_fits(sweep: Sweep, found: dict[str, str], op: Op) -> bool:
    weights, scores = sweep.producer[found["weights"]], sweep.producer[found["scores"]]
    shapes = [sweep.shape(n) for n in (found["q"], found["k"], op.inputs[1], op.outputs[0])]
    if (
        any(s is None or len(s) not in (3, 4) for s in shapes)
        or not sweep.value(found["q"]).dtype.is_float
    ):
        return False
    rank = len(shapes[3] or ())
    batch = [s[:-2] for s in shapes if s is not None]
    same = all(b == batch[0] for b in batch) and all(len(s or ()) == rank for s in shapes)
    fits = "mask" not in found or _mask_fits(
        sweep.shape(found["mask"]), sweep.shape(found["scores"]), rank
    )
    last = int(weights.attrs.get("axis", -1)) in (-1, rank - 1)  # type: ignore[arg-type]
    return same and fits and last and not scores.attrs.get("transpose_a", 0)


def _mask_fits(mask: tuple[int, ...] | None, scores: tuple[int, ...] | None, rank: int) -> bool:
    """Whether the mask says something of every key and only spreads over the scores, as the op asks
    for.
    """
    if (
        not mask
        or scores is None
        or len(mask) > rank
        or (rank == 3 and len(mask) == 1)
        or mask[-1] != scores[-1]
    ):
        return False
    return all(m in (1, s) for m, s in zip(reversed(mask), reversed(scores), strict=False))


def _emit_attention(sweep: Sweep, found: dict[str, str], op: Op) -> None:
    scores = sweep.producer[found["scores"]]
    q = found["q"]
    k = found["k"] if scores.attrs.get("transpose_b", 0) else _swapped(sweep, found["k"], op)
    v = _swapped(sweep, op.inputs[1], op) if op.attrs.get("transpose_b", 0) else op.inputs[1]
    scale = 1.0
    if "times" in found:
        scale = sweep.scalar(found["times"]) or 0.0
    elif "over" in found:
        scale = 1 / (sweep.scalar(found["over"]) or 1.0)
    mask = found.get("mask")
    rank = len(sweep.value(q).dims)
    if rank == 3:
        q, k, v = (_reshaped(sweep, n, (1, *sweep.value(n).dims), op) for n in (q, k, v))
        mask = (
            _reshaped(sweep, mask, (1, *sweep.value(mask).dims), op)
            if mask and len(sweep.value(mask).dims) == 3
            else mask
        )
    inputs = (q, k, v, mask) if mask else (q, k, v)
    if rank == 4:
        sweep.emit(Op("attention", inputs, op.outputs, {"scale": scale}, (), op.loc))
        return
    whole = sweep.make("attention", inputs, {"scale": scale}, op)
    target = sweep.number(op.outputs[0], np.asarray(sweep.value(op.outputs[0]).dims, np.int64))
    sweep.emit(Op("reshape", (whole, target), op.outputs, {"allowzero": 1}, (), op.loc))


def _swapped(sweep: Sweep, name: str, like: Op) -> str:
    """``name`` with its last two axes exchanged."""
    rank = len(sweep.value(name).dims)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    before = sweep.producer.get(name)
    if before is not None and before.kind == "transpose" and before.attrs.get("perm") is not None:
        inner: tuple[int, ...] = before.attrs["perm"]  # type: ignore[assignment]
        composed = tuple(inner[p] for p in perm)
        return (
            before.inputs[0]
            if composed == tuple(range(rank))
            else sweep.make("transpose", (before.inputs[0],), {"perm": composed}, like)
        )
    return sweep.make("transpose", (name,), {"perm": perm}, like)


def _reshaped(sweep: Sweep, name: str, shape: tuple[object, ...], like: Op) -> str:
    target = sweep.number(like.outputs[0], np.asarray(shape, np.int64))
    return sweep.make("reshape", (name, target), {"allowzero": 1}, like)


# --- shared -----------------------------------------------------------------------------


def _root(sweep: Sweep, pattern: Pattern, op: Op) -> list[dict[str, str]]:
    """Matches of ``pattern`` whose last op is ``op`` itself, which is not in the sweep yet."""
    found: list[dict[str, str]] = []
    for p in pattern.patterns if isinstance(pattern, Either) else (pattern,):
        if isinstance(p, Of) and op.kind in p.kinds and len(op.inputs) >= len(p.operands):
            sweep.producer[op.outputs[0]] = op
            found += list(matches(sweep, p, op.outputs[0], {}))
            del sweep.producer[op.outputs[0]]
    return found


def _axes(sweep: Sweep, reduced: str) -> tuple[int, ...] | None:
    """The axes that the op reduces, which must keep them as extents of 1; None where they are not
    known.
    """
    op = sweep.producer[reduced]
    rank = len(sweep.value(op.inputs[0]).dims)
    if not op.attrs.get("keepdims", 1):
        return None
    if len(op.inputs) < 2 or not op.inputs[1]:
        return None if op.attrs.get("noop_with_empty_axes", 0) else tuple(range(rank))
    data = sweep.constants.get(op.inputs[1])
    return None if data is None else tuple(sorted(int(a) % rank for a in data.reshape(-1)))


def _last_axis(sweep: Sweep, reduced: str) -> bool:
    return _axes(sweep, reduced) == (len(sweep.value(reduced).dims) - 1,)


def _shape_kept(sweep: Sweep, op: Op, x: str) -> bool:
    before, after = sweep.value(x), sweep.value(op.outputs[0])
    return before.shape == after.shape and before.dtype == after.dtype and before.dtype.is_float


_RULES = {
    "div": (_softmax, _norm),
    "mul": (_norm, _affine),
    "add": (_affine,),
    "matmul": (_attention,),
}
_LAST = frozenset({"div", "mul", "add"})  # that a function of one number may end in
_RUNTIME_FUNCTIONS = frozenset({"gelu", "swish"})

PASS = Pass(
    "recognise",
    "softmax, norms, gelu and its kin, attention become one op however they were written",
    sweeping(_visit),
)
RUNTIME_PASS = Pass(PASS.name, PASS.does, sweeping(_visit_for_runtime))
