"""The operators of one layer of GPT-3 in four tensor-parallel parts on four A100 (Zhang et al.,
LLMCompass, ISCA 2024, figure 5): batch 8, a prompt of 2,048 and a token against 3,072.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from tenfold.chips import chip
from tenfold.evaluate.operators import OperatorCall
from tenfold.evaluate.predicting import predict
from tenfold.validation.record import Row

_Operators: TypeAlias = Mapping[str, tuple[str, Mapping[str, int]]]
_HEADS, _WIDTH_OF_HEAD, _PARTS, _BATCH = 96, 128, 4, 8
_WIDTH = _HEADS * _WIDTH_OF_HEAD
_INNER = 4 * _WIDTH
_PHASES = (("prefill_s", 2048, 2048), ("decode_s", 1, 3072))
# each was measured as a call from Python, whose own time other rows of that source gave
_SOURCES = {
    "matmul": "llmcompass-matmul",
    "batched_matmul": "llmcompass-matmul",
    "softmax": "llmcompass-softmax",
    "layernorm": "llmcompass-layernorm",
    "gelu": "llmcompass-gelu",
}


def operators(folder: Path) -> Iterator[Row]:
    """Each operator of both phases, products and rows as eager PyTorch runs them."""
    path = folder / "llmcompass" / "gpt3_layer_A100x4.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    a100 = chip("a100-sxm-80")
    for column, queries, keys in _PHASES:
        found = _operators(queries, keys)
        for i, r in enumerate(rows, 2):
            op, extents = found[r["op"]]
            call = OperatorCall(i, op, "fp16", extents, engine=False)
            time, measured_s = predict(call, a100, _SOURCES.get(op)).time_s, float(r[column])
            yield Row(
                area="operators of a GPT-3 layer, four A100",
                case=f"{column.removesuffix('_s')} {r['op']}",
                predicted=time.value,
                reference=measured_s,
                unit="s",
                source="llmcompass",
                inside=time.low <= measured_s <= time.high,
            )


def _operators(queries: int, keys: int) -> _Operators:
    tokens, heads = _BATCH * queries, _BATCH * _HEADS // _PARTS
    norm = "layernorm", {"rows": tokens, "cols": _WIDTH}
    total = "all_reduce", {"bytes": 2 * tokens * _WIDTH, "chips": _PARTS}
    return {
        "Q_K_V": ("matmul", {"m": tokens, "n": 3 * _WIDTH // _PARTS, "k": _WIDTH}),
        "Q_mul_K": ("batched_matmul", _product(heads, queries, keys, _WIDTH_OF_HEAD)),
        "A_mul_V": ("batched_matmul", _product(heads, queries, _WIDTH_OF_HEAD, keys)),
        "Wo_proj": ("matmul", {"m": tokens, "n": _WIDTH, "k": _WIDTH // _PARTS}),
        "W1_proj": ("matmul", {"m": tokens, "n": _INNER // _PARTS, "k": _WIDTH}),
        "W2_proj": ("matmul", {"m": tokens, "n": _WIDTH, "k": _INNER // _PARTS}),
        "Softmax": ("softmax", {"rows": heads * queries, "cols": keys}),
        "LayerNorm_MHA": norm,
        "LayerNorm_FFN": norm,
        "GeLU": ("gelu", {"rows": tokens, "cols": _INNER // _PARTS}),
        "AllReduce_MHA": total,
        "AllReduce_FFN": total,
    }


def _product(batch: int, m: int, n: int, k: int) -> Mapping[str, int]:
    return {"batch": batch, "m": m, "n": n, "k": k}
