"""The ONNX standard's own node tests: value, type and shape of every op that Tenfold imports.

Left out are only ops of ``LEFT_OUT``, models of sequences, optionals or strings-only domains, and
training. Random ops are checked for type, shape and range. ``KNOWN_MISSES`` lists what does not
pass, and why.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import pytest

from support import check_declared, check_values, node_cases, to_array
from tenfold.errors import TenfoldError
from tenfold.importers.onnx import import_model
from tenfold.importers.onnx.left_out import LEFT_OUT
from tenfold.ir import Graph, interpret, verify

BF16 = "the expanded function rounds to bf16 between steps, the expected values do not"
TRAINING = "training mode"

KNOWN_MISSES: dict[str, str] = {
    "test_attention_3d_causal_bf16_expanded": BF16,
    "test_attention_4d_attn_mask_causal_bf16_expanded": BF16,
    "test_attention_4d_causal_bf16_expanded": BF16,
    "test_attention_4d_causal_padded_kv_bf16_expanded": BF16,
    "test_attention_4d_padded_kv_bf16_expanded": BF16,
}
UNDER_90_PERCENT: set[str] = set()  # ops that may pass fewer than nine in ten of their tests
SHAPE_NOT_CHECKED: set[str] = set()
RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


def _ops(model: onnx.ModelProto) -> set[str]:
    """The ops of a model, those of its bodies included."""
    found: set[str] = set()
    stack = [model.graph]
    while stack:
        for node in stack.pop().node:
            found.add(node.op_type)
            stack += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found


def _in_scope(case: Any) -> bool:
    graph = case.model.graph
    if any(n.domain not in ("", "ai.onnx") for n in graph.node) or _ops(case.model) & set(LEFT_OUT):
        return False
    if "training_dropout" in case.name:
        return False
    return all(i.type.WhichOneof("value") == "tensor_type" for i in (*graph.input, *graph.output))


CASES = [c for c in node_cases() if _in_scope(c)]


def _run(case: Any) -> tuple[Graph, list[tuple[dict[str, Any], list[Any]]]]:
    """The imported graph, and for each data set our results beside the expected ones."""
    graph = import_model(case.model, case.name)
    verify(graph)
    runs = []
    for inputs, outputs in case.data_sets:
        feeds = dict(zip(graph.inputs, map(to_array, inputs), strict=False))
        runs.append((interpret(graph, feeds), [to_array(o) for o in outputs]))
    return graph, runs


def _check(
    case: Any, graph: Graph, runs: list[tuple[dict[str, Any], list[Any]]], rtol: float, atol: float
) -> None:
    for results, expected in runs:
        for name, want in zip(graph.outputs, expected, strict=True):
            got = results[name]
            want = np.asarray(want)
            floor = 1e-3 if got.dtype == np.float16 else 1e-6
            check_values(
                got,
                want if want.dtype.kind not in "US" else want.astype(object),
                rtol,
                max(atol, floor),
                name,
            )
            if case.name not in SHAPE_NOT_CHECKED:
                check_declared(graph, name, got)


def _check_random(graph: Graph, runs: list[tuple[dict[str, Any], list[Any]]]) -> None:
    """Shape and type of the expected outputs, and values in the range of theirs (draws are 0 or 1,
    or of unit scale).
    """
    for results, expected in runs:
        for name, want in zip(graph.outputs, expected, strict=True):
            got = results[name]
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            check_declared(graph, name, got)
            assert set(np.unique(got.astype(float))) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.name not in KNOWN_MISSES],
    ids=lambda c: c.name.removeprefix("test_"),
)
def test_node(case: Any) -> None:
    graph, runs = _run(case)
    assert not any(op.kind == "opaque" for op in graph.walk()), "imported as an opaque op"
    if _ops(case.model) & RANDOM:
        _check_random(graph, runs)
    else:
        _check(case, graph, runs, case.rtol, case.atol)


@pytest.mark.parametrize("name", sorted(KNOWN_MISSES))
def test_known_miss_fails_cleanly_or_is_close(name: str) -> None:
    case = next(c for c in CASES if c.name == name)
    try:
        graph, runs = _run(case)
    except TenfoldError as error:
        assert str(error)
        assert "\n" not in str(error)
        return
    assert KNOWN_MISSES[name] == BF16
    _check(case, graph, runs, 1e-2, 1e-2)


def test_nearly_all_node_tests_pass_natively_and_every_op_does() -> None:
    """A test passes natively unless it is a known miss: ``test_node`` holds that for each one."""
    passed: dict[str, list[bool]] = defaultdict(list)
    for case in CASES:
        main = {n.op_type for n in case.model.graph.node}
        for op in main if len(main) == 1 else {case.name}:
            passed[op].append(case.name not in KNOWN_MISSES)
    ratio = sum(c.name not in KNOWN_MISSES for c in CASES) / len(CASES)
    assert len(CASES) > 1700
    assert ratio >= 0.99
    single = {
        op: sum(results) / len(results)
        for op, results in passed.items()
        if not op.startswith("test_")
    }
    assert len(single) > 150
    assert {op for op, share in single.items() if share < 0.9} <= UNDER_90_PERCENT


NO_NODE_TEST = {"ConcatFromSequence", "SequenceErase"}


@pytest.mark.parametrize("op", sorted(set(LEFT_OUT) - NO_NODE_TEST))
def test_left_out_op_is_refused_with_its_reason(op: str) -> None:
    """Every node test with it is refused, for the op or for the type that feeds it."""
    cases = [c for c in node_cases() if op in _ops(c.model)]
    assert cases
    for case in cases:
        with pytest.raises(
            TenfoldError,
            match=r"is not supported|only tensors are supported|unsupported type|is unknown",
        ):
            import_model(case.model, case.name)
