"""Fused attention on GPUs (Dao 2023, FlashAttention-2): the scores never leave the chip.

Prefill: blocks of 64 queries, each over the keys it sees in steps of 32, dealt to the
multiprocessors longest first (Graham 1969); one more kernel turns queries and keys and writes the
cache before. Decode: a block for each sequence and head - or group of heads that share keys - with
a fixed latency, keys and values streamed once, in splits where blocks are few, which a second
launch adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tenfold.chips import Chip, GpuConstant, MatrixPrecision
from tenfold.machine.gpu.rates import rates
from tenfold.machine.kernel import Attention
from tenfold.machine.roofline import Parts, norm

_QUERIES, _KEYS = 64, 32  # block of queries, step of keys
_FEWEST_QUERIES = 16  # rows of the smallest matrix instruction
_TAIL = 0.5  # of the longest block, that the last round waits for on average
_HEADS_RESIDENT = 6.0  # decode blocks of single heads that share a multiprocessor (assumed)
# a second tile of 16 heads costs three quarters of the first (observed)
_GROUP_ROWS, _GROUP_STEP = (
    16.0,
    0.75,
)
# of one multiprocessor: A100's 2039 GB/s over its 108 at 1.41 GHz, on which decode was fitted
_STREAM_BYTES_PER_CYCLE = 13.4
_DECODE_KEYS = 64  # keys are read in pages
_SPLITS = 2.0 ** np.arange(9)
# exponent of the norm of the interface and the streams of the multiprocessors (assumed)
_STREAM_OVERLAP = 2.0


def attention_parts(
    chip: Chip,
    precision: MatrixPrecision,
    attentions: Sequence[Attention],
    moved_bytes: np.ndarray,
    near_bytes: np.ndarray,
) -> Parts:
    """Time of each attention, launch included; ``moved_bytes`` cross the off-chip interface,
    ``near_bytes`` are read from L2. All decode, or all prefill.
    """
    r = rates(chip, precision)
    memory = moved_bytes / r.memory_bytes_per_s
    memory = memory + near_bytes / max(r.l2_bytes_per_s, r.memory_bytes_per_s)
    if attentions[0].decodes:
        return _decode(chip, precision, attentions, memory)
    return _prefill(chip, precision, attentions, memory)


def _prefill(
    chip: Chip, precision: MatrixPrecision, attentions: Sequence[Attention], memory: np.ndarray
) -> Parts:
    r = rates(chip, precision)
    rows = np.array([_blocks(a) for a in attentions])
    queries, keys_all, keys_most, blocks_each = rows.T
    batch, heads, dim = (
        np.array([getattr(a, n) for a in attentions], dtype=np.float64)
        for n in ("batch", "heads", "head_dim")
    )
    rate = r.macs_per_unit_s * chip.constant(GpuConstant.ATTENTION_FRACTION)
    work = 2 * queries * batch * heads * keys_all * dim / rate / r.units
    longest = 2 * queries * keys_most * dim / rate
    blocks = batch * heads * blocks_each
    many = blocks > r.units
    matrix = np.maximum(work + longest * _TAIL * many, longest)
    fixed = chip.constant(GpuConstant.ATTENTION_BLOCK_S) * (
        np.maximum(blocks / r.units, 1) + _TAIL * many
    )
    writes_cache = np.array([a.writes_cache for a in attentions])
    cache = (
        writes_cache * _query_key_value_bytes(attentions, precision.bits / 8) / r.memory_bytes_per_s
    )
    overhead = fixed + chip.constant(GpuConstant.ATTENTION_LAUNCH_S)
    zero = np.zeros(len(work))
    return Parts(
        norm(matrix, memory) + cache + overhead, matrix, zero, memory + cache, zero, overhead
    )


def _blocks(a: Attention) -> tuple[float, float, float, float]:
    """Queries a block, keys over all blocks of one head, keys of the longest block, number of
    blocks. Of queries that are spread their share of those of all.
    """
    if a.spread:
        each, seen_by_all, longest, blocks = _blocks(replace(a, q_len=a.kv_len, spread=False))
        share = a.q_len / a.kv_len
        return each, seen_by_all * share, longest, blocks * share
    queries = (
        _QUERIES if a.q_len >= _QUERIES else max(_FEWEST_QUERIES, 1 << (a.q_len - 1).bit_length())
    )
    count = -(-a.q_len // queries)
    past = max(0, a.kv_len - a.q_len)
    ends = (
        past + np.minimum(np.arange(1, count + 1) * queries, a.q_len)
        if a.causal
        else np.full(count, a.kv_len)
    )
    seen = np.minimum(ends, a.window + queries - 1) if a.window else ends
    keys = np.ceil(seen / _KEYS) * _KEYS
    return float(queries), float(keys.sum()), float(keys.max()), float(count)


def _query_key_value_bytes(attentions: Sequence[Attention], width: float) -> np.ndarray:
    return np.array(
        [a.batch * a.q_len * (a.heads + 2 * a.kv_heads) * a.head_dim * width for a in attentions]
    )


def _decode(
    chip: Chip, precision: MatrixPrecision, attentions: Sequence[Attention], seconds: np.ndarray
) -> Parts:
    r = rates(chip, precision)
    names = ("batch", "heads", "kv_heads", "seen", "head_dim")
    batch, heads, kv_heads, keys, dim = (
        np.array([getattr(a, n) for a in attentions], dtype=np.float64)[:, None] for n in names
    )
    group = heads / kv_heads
    # beyond what a library's block handles it takes each head on its own
    grouped = (group > 1) & (group <= chip.constant(GpuConstant.DECODE_GROUP_ROWS))
    blocks = batch * np.where(grouped, kv_heads, heads)
    resident = np.where(grouped, 1.0, _HEADS_RESIDENT)
    share = np.array([a.cache_read for a in attentions])[:, None]
    latency = chip.constant(GpuConstant.DECODE_BLOCK_S) * np.where(
        grouped, np.maximum(1.0, np.ceil(group / _GROUP_ROWS) * _GROUP_STEP), 1.0
    )
    chunk = (
        np.ceil(keys / _SPLITS / _DECODE_KEYS) * _DECODE_KEYS * 2 * dim * precision.bits / 8 * share
    )
    # kernels keep as much in flight as their memory asks for, and no less than A100's
    one = np.maximum(r.peak_memory_bytes_per_s / r.units, _STREAM_BYTES_PER_CYCLE * r.clock_hz)
    rate = chip.constant(GpuConstant.DECODE_STREAM_FACTOR) * one
    stream = np.maximum(blocks * _SPLITS / r.units, 1) * chunk / rate
    memory = seconds[:, None]
    waves = np.maximum(blocks * _SPLITS / r.units / resident, 1)
    launch = chip.constant(GpuConstant.DECODE_LAUNCH_S)
    overhead = waves * latency + launch * np.where(_SPLITS > 1, 2.0, 1.0)
    total = (memory**_STREAM_OVERLAP + stream**_STREAM_OVERLAP) ** (1 / _STREAM_OVERLAP) + overhead
    at = np.arange(len(attentions)), np.argmin(total, axis=1)
    zero = np.zeros(len(attentions))
    return Parts(total[at], zero, zero, memory[:, 0], stream[at], overhead[at])
