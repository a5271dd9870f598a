"""Semantics borrowed from the ``onnx`` package.

The standard ships a NumPy implementation of every op. For the rare ones (region pooling, spectra,
hashing) it is the definition itself, so the op table uses it rather than a second copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tenfold.ir.graph import Array
from tenfold.ir.table import Context

OPSET = 23


def onnx_reference(
    op_type: str, opset: int = OPSET, domain: str = ""
) -> Callable[..., Sequence[Array]]:
    """An evaluate function that runs one ONNX op through ``onnx.reference``; attributes keep their
    ONNX names.
    """

    def run(ctx: Context, *arrays: Array | None) -> Sequence[Array]:
        present = tuple(a is not None for a in arrays)
        evaluator = _evaluator(
            op_type, opset, domain, present, ctx.outputs, tuple(sorted(ctx.attrs.items()))
        )
        feeds = {f"i{j}": np.asarray(a) for j, a in enumerate(arrays) if a is not None}
        with np.errstate(all="ignore"):
            return [np.asarray(y) for y in evaluator.run(None, feeds)]

    return run


@lru_cache(maxsize=256)
def _evaluator(
    op_type: str,
    opset: int,
    domain: str,
    present: tuple[bool, ...],
    outputs: int,
    attrs: tuple[tuple[str, Any], ...],
) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [f"i{j}" if p else "" for j, p in enumerate(present)]
    results = [f"o{j}" for j in range(outputs)]
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in attrs}
    node = onnx.helper.make_node(op_type, names, results, domain=domain, **plain)
    graph = onnx.helper.make_graph(
        [node],
        op_type,
        [onnx.helper.make_empty_tensor_value_info(n) for n in names if n],
        [onnx.helper.make_empty_tensor_value_info(n) for n in results],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    if domain:
        imports.append(onnx.helper.make_opsetid(domain, 1))
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))
