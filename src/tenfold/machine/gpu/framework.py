"""What frameworks run as one kernel on a GPU, beside what engines do.

A product takes its bias in (cuBLAS's epilogue, as ``addmm`` of PyTorch asks for it); behind that
eager PyTorch launches a kernel for every op, and torch.compile one for each chain of element-wise
and row-wise ops. The rules name an op, since the libraries' own patterns do.
"""

from __future__ import annotations

from typing import assert_never

from tenfold.ir.graph import Graph, Op
from tenfold.machine.stack import Fusing
from tenfold.machine.target import FusionRules, Joining

_ADD = "add"


def rules_of(fusing: Fusing, rules: FusionRules) -> FusionRules:
    """``rules`` of an engine, or as far as a framework follows them."""
    match fusing:
        case Fusing.ALL:
            return rules
        case Fusing.BESIDE_PRODUCTS:
            return _BESIDE_PRODUCTS
        case Fusing.NONE:
            return _NONE
        case _:
            assert_never(fusing)


def _is_bias(j: Joining) -> bool:
    """One number a column, added to a product that nothing was done to."""
    if j.anchor is None or j.ended or j.op.kind != _ADD:
        return False
    shape = j.graph.values[j.op.outputs[0]].dims
    others = [n for n in j.outside if n]
    return all(
        n in j.graph.constants and shape and j.graph.values[n].elements == shape[-1] for n in others
    )


def _beside_products(j: Joining) -> str:
    if j.anchor is None or _is_bias(j):
        return ""
    return "products are the library's own kernels, which take a bias in"


def _none(j: Joining) -> str:
    return "" if _is_bias(j) else "a framework launches a kernel for every op"


def _feeds_nothing(_graph: Graph, _product: Op, _op: Op) -> bool:
    return False


_BESIDE_PRODUCTS = FusionRules(
    row_elements=128, vector_prologue=False, refuses=_beside_products, feeds=_feeds_nothing
)
_NONE = FusionRules(row_elements=0, vector_prologue=False, refuses=_none, feeds=_feeds_nothing)
