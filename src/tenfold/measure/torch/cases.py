"""What is measured: operators over shapes that a network has, as rows of ``predict``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tenfold.evaluate.operators import CONV, DECODE, PREFILL, OperatorCall

# rows of the activations; width and depth of a product
_ROWS = (1, 16, 128, 512, 2048, 8192)
_PRODUCTS = (
    (768, 768), (3072, 768), (768, 3072), (4096, 4096), (12288, 4096), (4096, 11008), (8192, 8192),
)  # fmt: skip
_BATCHED = ((16, 128, 128, 64), (96, 512, 64, 512), (192, 384, 384, 64), (512, 128, 128, 64))
_HEADS = ((12, 12, 64), (32, 32, 128), (32, 8, 128), (64, 8, 128))
_LENGTHS = ((1, 512), (1, 4096), (8, 1024), (32, 256))
_CACHES = ((1, 4096), (16, 1024), (64, 2048), (128, 512))
# batch, channels, side, filters, window, stride, groups
_CONVOLUTIONS = (
    (8, 3, 224, 64, 7, 2, 1), (8, 64, 56, 64, 3, 1, 1), (8, 256, 56, 64, 1, 1, 1),
    (8, 128, 28, 128, 3, 1, 1), (32, 256, 14, 256, 3, 1, 1), (32, 512, 7, 2048, 1, 1, 1),
    (32, 1024, 14, 512, 1, 2, 1), (8, 96, 56, 96, 3, 1, 96), (32, 384, 14, 384, 3, 1, 384),
    (8, 128, 28, 128, 3, 1, 32),
)  # fmt: skip
_STREAMS = ((1024, 1024), (8192, 1024), (4096, 4096), (65536, 512), (16384, 8192))
_WIDE = ("fp16", "fp32")


def cases() -> Iterator[OperatorCall]:
    """Every call, operands in memory; the order is that of the operators' families."""
    for line, (op, dtype, extents) in enumerate(_all(), 1):
        yield OperatorCall(line, op, dtype, extents, engine=False)


def _all() -> Iterator[tuple[str, str, Mapping[str, int]]]:
    for dtype in ("fp16", "bf16", "fp32"):
        for n, k in _PRODUCTS:
            for m in _ROWS:
                yield "matmul", dtype, {"m": m, "n": n, "k": k}
    for dtype in _WIDE:
        for batch, m, n, k in _BATCHED:
            yield "batched_matmul", dtype, {"batch": batch, "m": m, "n": n, "k": k}
    for heads, kv_heads, dim in _HEADS:
        held = {"heads": heads, "kv_heads": kv_heads, "head_dim": dim}
        for batch, length in _LENGTHS:
            yield PREFILL, "fp16", {"batch": batch, "q_len": length, **held, "causal": 1}
        for batch, length in _CACHES:
            yield DECODE, "fp16", {"batch": batch, "kv_len": length, **held}
    for dtype in _WIDE:
        for batch, channels, side, filters, window, stride, groups in _CONVOLUTIONS:
            yield (
                CONV,
                dtype,
                {
                    "batch": batch,
                    "channels": channels,
                    "height": side,
                    "width": side,
                    "filters": filters,
                    "kernel": window,
                    "stride": stride,
                    "padding": window // 2,
                    "groups": groups,
                },
            )
    for dtype in _WIDE:
        for op in ("softmax", "layernorm", "gelu", "add"):
            for rows, cols in _STREAMS:
                yield op, dtype, {"rows": rows, "cols": cols}
