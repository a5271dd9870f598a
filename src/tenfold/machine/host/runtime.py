"""What ONNX Runtime 1.32 fuses: a contraction with at most a sum and one simple function behind it.

Every other op is a kernel of its own. The rules name ops, since the runtime's own patterns do.
"""

from __future__ import annotations

from tenfold.ir.graph import Graph, Op
from tenfold.ir.infer import row_of
from tenfold.ir.table import Lowering
from tenfold.machine.target import Joining

_FUNCTIONS = frozenset(
    {"relu", "clip", "sigmoid", "tanh", "leaky_relu", "hard_sigmoid", "hard_swish"}
)
_ADD, _MUL, _CAST, _PAD, _TRANSPOSE = "add", "mul", "cast", "pad", "transpose"
_CONV, _MATMUL, _MATMUL_INTEGER = "conv", "matmul", "matmul_integer"
_REFUSED = "a runtime of single operators fuses only a sum and one function behind a contraction"


def refuses(joining: Joining) -> str:
    """Why an op is not taken into a contraction, or ""."""
    return "" if _simple_end(joining) else _REFUSED


def feeds(_graph: Graph, contraction: Op, op: Op) -> bool:
    """Whether a contraction does ``op`` as it reads: views, changes of type, padding before a
    convolution, the last two dimensions of a product's operand swapped.
    """
    row = row_of(op)
    if row.lowering is Lowering.VIEW or row.converts:
        return True
    if op.kind == _PAD:
        return contraction.kind == _CONV
    return op.kind == _TRANSPOSE and contraction.kind == _MATMUL and _swaps_last(op)


def _swaps_last(op: Op) -> bool:
    perm = op.attrs.get("perm", ())
    assert isinstance(perm, tuple)
    straight = tuple(range(len(perm)))
    return len(perm) > 1 and perm == (*straight[:-2], straight[-1], straight[-2])


def _simple_end(j: Joining) -> bool:
    """A sum, then a function."""
    ended = [op.kind for op in j.ended]
    if j.anchor is None or any(k in _FUNCTIONS for k in ended):
        return False
    if j.anchor.kind == _MATMUL_INTEGER:
        return _scales_back(j, j.anchor, ended)
    if j.anchor.kind == _MATMUL and len(j.graph.values[j.op.outputs[0]].dims) > 2:
        return False  # there is a bias for matrices alone
    sums = j.op.kind == _ADD and _ADD not in ended and _sums_in_place(j, j.anchor)
    return j.op.kind in _FUNCTIONS or sums


def _scales_back(j: Joining, anchor: Op, ended: list[str]) -> bool:
    """What makes floats of an integer product: a cast, a scale for all or one a column, a bias."""
    if j.op.kind == _CAST:
        return not ended
    if j.op.kind == _MUL and ended == [_CAST]:
        columns = j.graph.values[j.op.outputs[0]].dims[-1]
        return all(j.graph.values[n].elements in (1, columns) for n in j.outside)
    return j.op.kind == _ADD and ended == [_CAST, _MUL] and _sums_in_place(j, anchor)


def _sums_in_place(j: Joining, anchor: Op) -> bool:
    """A bias of one number a column or channel; behind a convolution also another result of the
    same shape.
    """
    conv = anchor.kind == _CONV
    shape = j.graph.values[j.op.outputs[0]].dims
    columns = shape[1 if conv else -1] if shape else 1
    others = [n for n in j.outside if n]
    bias = all(n in j.graph.constants and j.graph.values[n].elements == columns for n in others)
    same = conv and all(_made(j.graph, n) and j.graph.values[n].dims == shape for n in others)
    return bias or same


def _made(graph: Graph, name: str) -> bool:
    """Whether an op makes the value, which is no constant and no input."""
    return name not in graph.constants and name not in graph.inputs
