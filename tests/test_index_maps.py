"""The index maps of the op table against what NumPy computes: an element of an operand is changed,
and no result may change where the map says that it cannot.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tenfold.errors import ModelError
from tenfold.ir import TABLE, Graph, Op, op_call
from tenfold.ir.graph import Array
from tenfold.ir.infer import row_of
from tenfold.ir.interpreter import run_op
from tenfold.ir.space import Index, Map, Reach, Space, refolded
from test_op_table import NEVER_STATIC, Example, examples

# What a perturbation cannot show: results that are drawn, bodies, files, and operands that only
# name a size.
UNSEEN = {"random", "bernoulli", "multinomial", "if", "loop", "scan", "opaque", "image_decoder"}
KINDS = sorted(set(TABLE) - UNSEEN - NEVER_STATIC)
ELEMENTS, EXAMPLES = 3, 80  # of each operand, of each kind


def _values(example: Example) -> dict[str, Array | None]:
    """Every value that the example's op reads."""
    graph = example.graph
    live: dict[str, Array | None] = {**example.feeds, **graph.constants}
    for op in graph.ops:
        if op is example.op:
            break
        run_op(graph, op, live, np.random.default_rng(0))
    return live


def _run(graph: Graph, op: Op, values: dict[str, Array | None]) -> list[Array | None]:
    live = {n: values[n] for n in op.inputs if n}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_op(graph, op, live, np.random.default_rng(0))
    return [live.get(o) if o else None for o in op.outputs]


def _changed(before: Array, after: Array) -> Array:
    if before.dtype.kind in "fc":
        wide = before.astype(np.float64), after.astype(np.float64)
        return ~np.isclose(*wide, rtol=0, atol=0, equal_nan=True)
    return before != after


def _allowed(space: Space, map_: Map, at: tuple[int, ...], result: Map | None, shape: Any) -> Array:
    """Where a result may change when the element ``at`` of an operand does."""
    allowed = np.ones(shape, bool)
    if result is None:
        return allowed
    fixed = {
        index.loops[0]: at[axis]
        for axis, index in enumerate(map_)
        if index.reach is Reach.SAME and not space.is_reduced(index.loops[0])
    }
    for axis, index in enumerate(result):
        if index.reach is Reach.SAME and index.loops[0] in fixed:
            wanted = np.arange(shape[axis]) == fixed[index.loops[0]]
            allowed &= wanted.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return allowed


def _crossed(map_: Map, at: tuple[int, ...], result: Map | None, changed: Array) -> set[Index]:
    """The axes whose index is not that of a loop alone, and along which something did cross."""
    found = set()
    places = np.argwhere(changed)
    for axis, index in enumerate(map_):
        for loop in index.loops if index.reach is not Reach.SAME else ():
            along = [a for a, r in enumerate(result or ()) if r.loops == (loop,)]
            if any((places[:, a] != at[axis]).any() for a in along):
                found.add(index)
    return found


def _perturbed(a: Array, at: tuple[int, ...]) -> Array:
    changed = np.array(a)
    if a.dtype == bool:
        changed[at] = not a[at]
    elif a.dtype.kind in "iu":
        changed[at] = a[at] + 1 if a[at] < np.iinfo(a.dtype).max else a[at] - 1
    else:
        changed[at] = a.dtype.type(np.float64(a[at]) * 1.5 + 2)
    return changed


def _rerun(
    graph: Graph, op: Op, values: dict[str, Array | None], name: str, changed: Array
) -> list[Array | None]:
    """Results with one operand changed; none where that makes no sense to the op (an index that is
    too large).
    """
    try:
        return _run(graph, op, {**values, name: changed})
    except (IndexError, ValueError, ModelError, RuntimeError):
        return [None] * len(op.outputs)


def _cases(kind: str) -> Iterator[tuple[Example, Space, dict[str, Array | None]]]:
    for example in islice(reversed(examples()[kind]), EXAMPLES):
        space = row_of(example.op).space(op_call(example.graph, example.op))
        try:
            values = _values(example)
        except Exception:  # an example that only infers: what it computes is tested elsewhere
            continue
        yield example, space, values


@pytest.mark.parametrize("kind", KINDS)
def test_no_element_reaches_further_than_its_map(kind: str) -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for example, space, values in _cases(kind):
        op, graph = example.op, example.graph
        call = op_call(graph, op)
        assert len(space.maps) == len(op.inputs)
        assert len(space.results) == len(op.outputs)
        before = _run(graph, op, values)
        for i, (name, map_) in enumerate(zip(op.inputs, space.maps, strict=True)):
            array = values.get(name) if name else None
            if map_ is None or array is None or not array.size or i in call.known:
                continue
            assert len(map_) == array.ndim, (example.name, i)
            if array.dtype.kind not in "fbiu" and array.dtype.name != "bfloat16":
                continue
            for flat in rng.choice(array.size, min(ELEMENTS, array.size), replace=False):
                at = tuple(int(n) for n in np.unravel_index(flat, array.shape))
                after = _rerun(graph, op, values, name, _perturbed(array, at))
                for old, new, result in zip(before, after, space.results, strict=True):
                    if old is None or new is None or old.shape != new.shape:
                        continue
                    changed = _changed(old, new)
                    beyond = changed & ~_allowed(space, map_, at, result, old.shape)
                    assert not beyond.any(), (example.name, i, at, map_)
                    seen += 1
    assert seen or kind in ONLY_SIZES, f"no example of {kind} has an operand to change"


# Their operands only give sizes, or are known when compiling, or the size of the result is data.
ONLY_SIZES = {"eye", "full", "mel_weight_matrix", "non_zero", "range", "shape", "size", "window"}


CROSSING = {
    "softmax": Reach.ROW, "log_softmax": Reach.ROW, "layer_norm": Reach.ROW, "cum_sum": Reach.ROW,
    "instance_norm": Reach.ROW, "group_norm": Reach.ROW, "lrn": Reach.WINDOW, "conv": Reach.WINDOW,
    "conv_transpose": Reach.WINDOW, "max_pool": Reach.WINDOW, "average_pool": Reach.WINDOW,
    "slice": Reach.MOVED, "pad": Reach.MOVED, "concat": Reach.MOVED, "rotary_embedding": Reach.MOVED,
    "reverse_sequence": Reach.MOVED, "resize": Reach.WINDOW, "lstm": Reach.ROW, "gru": Reach.ROW,
    "top_k": Reach.ROW, "hardmax": Reach.ROW, "lp_normalization": Reach.ROW, "rms_norm": Reach.ROW,
    "causal_conv": Reach.WINDOW,
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(CROSSING))
def test_what_is_said_to_cross_does(kind: str) -> None:
    """A map that says less than it could would pass the test above: here elements do cross."""
    rng = np.random.default_rng(1)
    found: set[Reach] = set()
    for example, space, values in _cases(kind):
        op = example.op
        before = _run(example.graph, op, values)
        for name, map_ in zip(op.inputs, space.maps, strict=True):
            array = values.get(name) if name else None
            if map_ is None or array is None or array.dtype.kind != "f" or not array.size:
                continue
            for flat in rng.choice(array.size, min(16, array.size), replace=False):
                at = tuple(int(n) for n in np.unravel_index(flat, array.shape))
                after = _rerun(example.graph, op, values, name, _perturbed(array, at))
                for old, new, result in zip(before, after, space.results, strict=True):
                    if old is not None and new is not None and old.shape == new.shape:
                        crossed = _crossed(map_, at, result, _changed(old, new))
                        found |= {index.reach for index in crossed}
    assert CROSSING[kind] in found


def test_reshapes_fold_only_what_they_must() -> None:
    def shown(source: tuple[Any, ...], target: tuple[Any, ...]) -> list[str]:
        return [f"{i.reach.value}{','.join(map(str, i.loops))}" for i in refolded(source, target)]

    assert shown((2, 3, 4), (2, 12)) == ["same0", "folded1", "folded1"]
    assert shown((2, 12), (2, 3, 4)) == ["same0", "folded1,2"]
    assert shown((6, 4), (3, 8)) == ["folded0,1", "folded0,1"]
    assert shown((1, 5, 1, 7), (5, 7)) == ["one", "same0", "one", "same1"]
    assert shown((4,), (1, 4, 1)) == ["same1"]
    import sympy

    batch = sympy.Symbol("batch", positive=True, integer=True)
    assert shown((batch, 12, 64), (batch, 768)) == ["same0", "folded1", "folded1"]
    assert shown((batch, 12, 64), (batch * 12, 64)) == ["folded0", "folded0", "same1"]


def test_serial_ops_repeat_their_products_as_often_as_they_take_steps() -> None:
    """Or have none: then the machine takes their vector work step by step."""
    serial: dict[str, int] = {}
    for kind in TABLE:
        for example in examples()[kind]:
            call = op_call(example.graph, example.op)
            space = row_of(example.op).space(call)
            if space.serial is None or row_of(example.op).control is not None:
                continue
            steps, products = space.serial.steps, row_of(example.op).work(call).matmuls
            assert isinstance(steps, int)
            assert not products or any(m.repeat % steps == 0 for m in products), example.name
            serial[kind] = max(serial.get(kind, 0), steps)
    assert {"lstm", "gru", "rnn", "dynamic_quantize_lstm", "linear_attention"} < set(serial)
    assert "cum_sum" in serial
    assert "matmul" not in serial
    assert all(steps > 1 for kind, steps in serial.items()), serial
