"""Gradients against differences: of every kind of op that has a rule, and of whole networks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tenfold.errors import ModelError
from tenfold.ir import TABLE, DType, Graph, interpret, op_call
from tenfold.ir.derivatives import FLAT, NOT_YET, RULES, NoGradient
from tenfold.ir.dims import all_static
from tenfold.ir.gradient import differentiated, trained
from tenfold.ir.graph import Array, Value
from tenfold.ir.infer import Scope, infer_op
from test_index_maps import _values
from test_op_table import Example, examples
from test_partition import SMALL, built

STEP, EXAMPLES = 1e-6, 12
KINDS = sorted(RULES)


def test_the_column_has_an_entry_for_every_kind() -> None:
    lists = (set(RULES), set(FLAT), set(NOT_YET))
    assert sum(map(len, lists)) == len(set().union(*lists)) == len(TABLE)
    for kind, row in TABLE.items():
        assert callable(row.gradient) is (kind in RULES)
        assert isinstance(row.gradient, NoGradient) is (kind not in RULES)


def _wide(array: Array) -> Array:
    """Floats as doubles, so that small differences are seen."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _apart(array: Array, rng: np.random.Generator) -> Array:
    """Doubles a little moved, so that no two are equal and none is at a bend."""
    moved = array * (1 + 0.01 * rng.random(array.shape)) + 1e-3 * rng.random(array.shape)
    return moved if array.dtype == np.float64 else array


def _alone(example: Example) -> tuple[Graph, dict[str, Array]] | None:
    """The op of an example by itself, in doubles."""
    try:
        values = _values(example)
    except Exception:  # an example that only infers
        return None
    op = example.op
    given = {n: values.get(n) for n in op.inputs if n}
    rng = np.random.default_rng(1)
    feeds = {n: _apart(_wide(a), rng) for n, a in given.items() if a is not None}
    if len(feeds) < len(given) or any(a.dtype.kind not in "fbiu" for a in feeds.values()):
        return None
    call, scope = op_call(example.graph, op), Scope()
    constants: dict[str, Array | None] = {}
    for i, n in enumerate(op.inputs):
        if not n or n in scope.values:
            continue
        kept = i in call.known and feeds[n].dtype.kind != "f"
        dtype = DType.F64 if feeds[n].dtype.kind == "f" else example.graph.values[n].dtype
        scope.declare(Value(n, dtype, feeds[n].shape), feeds[n] if kept else None)
        if kept:
            constants[n] = feeds.pop(n)
    try:
        op = infer_op(scope, op)
    except ModelError:
        return None
    if not op.outputs[0] or scope.values[op.outputs[0]].dtype is not DType.F64:
        return None
    if not all_static(d for o in op.outputs if o for d in scope.values[o].shape or ("?",)):
        return None
    outputs = tuple(o for o in op.outputs if o)[:1]
    return (
        Graph("alone", tuple(feeds), outputs, (op,), scope.values, constants),
        feeds,
    )


def check(graph: Graph, feeds: Mapping[str, Array], wanted: Any, rtol: float) -> int:
    """The gradient along one direction for each of ``wanted`` against a central difference."""
    rng: Any = np.random.default_rng(0)
    made = differentiated(graph, wanted)
    seeds = {
        s: rng.standard_normal([int(d) for d in made.graph.values[s].dims]) for s in made.seeds
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = interpret(made.graph, {**feeds, **seeds})

    def along(name: str, by: Array) -> float:
        moved = _with(graph, feeds, name, by)
        out = interpret(moved[0], moved[1])
        return float(sum((out[s.removeprefix("grad.")] * g).sum() for s, g in seeds.items()))

    for name, grad in made.grads.items():
        base = feeds[name] if name in feeds else graph.constants[name]
        assert base is not None
        direction = rng.standard_normal(base.shape)
        up, down = (along(name, step * direction) for step in (STEP, -STEP))
        want = (up - down) / (2 * STEP)
        have = float((got[grad].astype(np.float64) * direction).sum())
        scale = max(abs(want), abs(have), 1e-3)
        assert got[grad].shape == base.shape
        assert abs(want - have) <= rtol * scale, (graph.name, name, want, have)
    return len(made.grads)


def _with(
    graph: Graph, feeds: Mapping[str, Array], name: str, by: Array
) -> tuple[Graph, Mapping[str, Array]]:
    if name in feeds:
        return graph, {**feeds, name: feeds[name] + by}
    constant = graph.constants[name]
    assert constant is not None
    return replace(graph, constants={**graph.constants, name: constant + by}), feeds


# at whose steps there is no slope, or which look at exact ties
ROUGH = {"cast"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_each_kind_is_the_slope(kind: str) -> None:
    seen = 0
    for example in islice(reversed(examples()[kind]), EXAMPLES * 4):
        found = _alone(example)
        if found is None or seen >= EXAMPLES:
            continue
        graph, feeds = found
        wanted = [n for n in graph.inputs if graph.values[n].dtype is DType.F64]
        if not wanted or not all(feeds[n].size for n in wanted):
            continue
        try:
            seen += check(replace(graph, name=example.name), feeds, wanted, 2e-4) > 0
        except ModelError as error:
            assert "cannot be trained" in str(error)
    assert seen or kind in ROUGH, f"no example of {kind} was differentiated"


TRAINABLE = list(SMALL)


def doubles(graph: Graph) -> Graph:
    """The graph with every float a double."""
    values = {
        n: replace(v, dtype=DType.F64) if v.dtype.is_float else v for n, v in graph.values.items()
    }
    ops = tuple(
        replace(op, attrs={**op.attrs, "to": "fp64"}) if op.attrs.get("to") == "fp32" else op
        for op in graph.ops
    )
    constants = {n: _wide(a) if a is not None else None for n, a in graph.constants.items()}
    return replace(graph, values=values, ops=ops, constants=constants)


@pytest.mark.parametrize("name", TRAINABLE)
def test_gradients_of_whole_networks_are_slopes(name: str) -> None:
    from tenfold.evaluate.agreement import seeded_inputs

    graph = doubles(built(name))
    # what is added to scores only to choose experts has none
    weights = [n for n in trained(graph) if not n.endswith("router.bias")]
    assert check(graph, seeded_inputs(graph, 0), weights, 1e-3) == len(weights)


def test_what_has_no_gradient_yet_says_so() -> None:
    example = next(e for e in examples()["gru"] if len(e.graph.ops) == 1)
    with pytest.raises(ModelError, match=r"\(gru\) cannot be trained: its gradient is not written"):
        differentiated(example.graph, example.graph.inputs)


@pytest.mark.parametrize("name", TRAINABLE)
@pytest.mark.parametrize("ways", [2, 4])
@pytest.mark.parametrize("sequence", [False, True])
def test_gradients_in_parts_are_those_of_the_whole(name: str, ways: int, sequence: bool) -> None:
    """Each weight's gradient is cut as the weight is, so that a chip updates what it holds."""
    from test_partition import FAST
    from test_partition import check as same

    graph = doubles(built(name))
    weights = [n for n in trained(graph) if not n.endswith("router.bias")]
    made = differentiated(graph, weights)
    like = {grad: n for n, grad in made.grads.items()}
    parts = same(made.graph, ways, FAST, like, sequence=sequence)
    place = {o: i for i, o in enumerate(made.graph.outputs)}
    for part in parts:
        held = {h.source: h.cut for h in part.constants.values()}
        cuts = tuple(part.outputs.values())
        for n, grad in made.grads.items():
            assert cuts[place[grad]] == held[n], n
