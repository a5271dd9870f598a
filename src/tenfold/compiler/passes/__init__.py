"""The passes over graphs, in order. Each leaves the graph's results unchanged; any can be left out
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from tenfold.compiler.passes import batch_norm, canonicalise, cse, dce, fold, merge, recognise
from tenfold.compiler.passes.sweep import Pass, without_weights
from tenfold.ir.graph import Graph

PASSES: tuple[Pass, ...] = (
    canonicalise.PASS,
    fold.PASS,
    batch_norm.PASS,
    cse.PASS,
    recognise.PASS,
    merge.PASS,
)
RUNTIME_PASSES = (
    canonicalise.PASS,
    fold.PASS,
    batch_norm.RUNTIME_PASS,
    cse.PASS,
    recognise.RUNTIME_PASS,
)
DCE = dce.PASS

Observer = Callable[[str, Graph], None]


def run_passes(
    graph: Graph,
    without: Collection[str] = (),
    observe: Observer | None = None,
    *,
    single_ops: bool = False,
) -> Graph:
    """``graph`` after every pass that is not left out, dead code eliminated after each.

    ``observe`` sees the graph after each pass: the tests' verifier hangs there. ``single_ops``: for
    a runtime of single operators, composites become one op only where it has that op, and products
    stay as many as they are.
    """
    for p in RUNTIME_PASSES if single_ops else PASSES:
        if p.name in without:
            continue
        graph = p.apply(graph)
        if DCE.name not in without:
            graph = DCE.apply(graph)
        if observe is not None:
            observe(p.name, graph)
    return graph


__all__ = ["DCE", "PASSES", "Observer", "Pass", "run_passes", "without_weights"]
