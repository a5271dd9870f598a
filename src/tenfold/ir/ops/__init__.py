"""The op table: every kind of op, one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from tenfold.ir.derivatives import gradient_of
from tenfold.ir.ops import (
    attention,
    attention_apart,
    backward,
    backward_experts,
    backward_recurrent,
    backward_windows,
    contraction,
    control,
    convolution,
    experts,
    indexing,
    movement,
    normalization,
    pointwise,
    quantization,
    recurrent,
    reduction,
    sampling,
    shaping,
    signal,
    together,
    window,
)
from tenfold.ir.table import OpRow

_GROUPS = (
    pointwise, shaping, movement, indexing, reduction, normalization, contraction, convolution,
    attention, recurrent, experts, window, sampling, quantization, signal, control,
    together, backward, backward_experts, backward_windows, backward_recurrent,
    attention_apart,
)  # fmt: skip


def _collect() -> Mapping[str, OpRow]:
    table: dict[str, OpRow] = {}
    for group in _GROUPS:
        for row in group.ROWS:
            if row.kind in table:
                raise ValueError(f"op kind '{row.kind}' has two rows")
            table[row.kind] = replace(row, gradient=gradient_of(row.kind))
    return MappingProxyType(table)


TABLE: Mapping[str, OpRow] = _collect()
