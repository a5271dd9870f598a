"""Ways to do an op in parts against what NumPy computes: parts put together are the whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tenfold.ir import TABLE, op_call
from tenfold.ir.graph import Array, Op, Value
from tenfold.ir.infer import row_of
from tenfold.ir.interpreter import run_op
from tenfold.ir.sharding import SUM, Cut, Result, Split, joined, part_of
from tenfold.ir.table import Call
from test_index_maps import UNSEEN, _values
from test_op_table import NEVER_STATIC, Example, examples

KINDS = sorted(set(TABLE) - UNSEEN - NEVER_STATIC)
WAYS, EXAMPLES = (2, 3), 60


def part_target(call: Call, split: Split, ways: int) -> tuple[int, Array] | None:
    """The shape of a part's result, for an op that takes one."""
    target = row_of(call.op).target
    if target is None:
        return None
    cut, shape = split.results[0], [int(d) for d in call.out()]
    if isinstance(cut, Cut):
        shape[cut.axis] //= ways
    return target, np.array(shape, np.int64)


def _cases(kind: str) -> Iterator[tuple[Example, Call, dict[str, Array | None]]]:
    for example in islice(reversed(examples()[kind]), EXAMPLES):
        try:
            values = _values(example)
        except Exception:  # an example that only infers: what it computes is tested elsewhere
            continue
        call = op_call(example.graph, example.op)
        if all(_as_declared(v, values.get(v.name)) for v in call.inputs if v is not None):
            yield example, call, values


def _as_declared(value: Value, array: Array | None) -> bool:
    """Whether an operand has the shape that was inferred (extents from data may be smaller)."""
    return array is None or array.shape == value.dims


def _run(example: Example, op: Op, values: dict[str, Array | None]) -> list[Array | None]:
    live = {n: values[n] for n in op.inputs if n}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_op(example.graph, op, live, np.random.default_rng(0))
    return [live.get(o) if o else None for o in op.outputs]


def _part(call: Call, split: Split, rank: int, ways: int, values: dict[str, Any]) -> Any:
    """The op and the operands of one chip. What is added once is left out of the others'."""
    inputs, live = [], {}
    target = part_target(call, split, ways)
    for i, (name, cut) in enumerate(zip(call.op.inputs, split.operands, strict=True)):
        left_out = i in split.once and rank
        inputs.append("" if left_out else f"{i}:{name}" if name else "")
        if name:
            live[f"{i}:{name}"] = part_of(values[name], cut, rank, ways)
        if target is not None and i == target[0]:
            live[f"{i}:{name}"] = target[1]
        if i in split.shifted:
            along = split.results[0]
            assert isinstance(along, Cut)
            each = int(call.out()[along.axis]) // ways
            live[f"{i}:{name}"] = values[name] - rank * each
    attrs = {**call.op.attrs, **split.attrs}
    return Op(call.op.kind, tuple(inputs), call.op.outputs, attrs), live


def _together(parts: list[Any], cut: Result) -> Array:
    if cut is SUM:
        return sum(p.astype(np.float64) if p.dtype.kind == "f" else p for p in parts)
    return joined(parts, cut)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_put_together_are_the_whole(kind: str) -> None:
    for example, call, values in _cases(kind):
        whole = _run(example, example.op, values)
        row = row_of(example.op)
        for ways in WAYS:
            for split in row.splits(row, call, ways):
                assert len(split.operands) == len(example.op.inputs)
                assert len(split.results) == len(example.op.outputs)
                parts = []
                for rank in range(ways):
                    op, live = _part(call, split, rank, ways, values)
                    parts.append(_run(example, op, live))
                for i, want in enumerate(whole):
                    if want is None:
                        continue
                    got = _together([p[i] for p in parts], split.results[i])
                    assert got.shape == want.shape, (example.name, split)
                    if want.dtype.kind in "fc" or want.dtype.name.startswith("bfloat"):
                        wide = got.astype(np.float64), want.astype(np.float64)
                        tolerance = 1e-2 if want.dtype.itemsize < 4 else 2e-4
                        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)
                    else:
                        np.testing.assert_array_equal(got, want, err_msg=f"{example.name} {split}")
