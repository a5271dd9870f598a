"""The constants of each kind of machine, and the families of kernels that errors are stated for.

A chip file may have these and no others under ``[calibration]``; a misspelt one is an error. What
each means is said where its machine uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from tenfold.chips.kinds import Kind
from tenfold.facts import ABOVE_0, FROM_0, SHARE, WHOLE, Range, Spec
from tenfold.units import Dimension


class KernelFamily(StrEnum):
    """Kernels that share constants and errors."""

    MATMUL = "matmul"
    FP32 = "fp32_matmul"
    FP32_WINDOWS = "fp32_convolution"
    QUANTIZED = "quantized_matmul"
    BLOCKED = "blocked_matmul"
    ATTENTION = "attention"
    DECODE = "decode"
    EXPERTS = "moe"
    SOFTMAX = "softmax"
    NORM = "norm"
    STREAM = "stream"


class Whole(StrEnum):
    """What else an error is stated for."""

    TIME = "time"  # any kernel whose family has none of its own
    MODEL = "model"  # a whole model
    ENERGY = "energy"


Predicted: TypeAlias = "KernelFamily | Whole"


class SystolicConstant(StrEnum):
    """Of software-scheduled chips (``machine/systolic``)."""

    LAUNCH_S = "launch_s"
    KERNEL_S = "kernel_s"
    MEMORY_FRACTION = "memory_fraction"
    MATRIX_FRACTION = "matrix_fraction"
    VECTOR_FRACTION = "vector_fraction"
    MINIMUM_ROWS = "minimum_rows"


class GpuConstant(StrEnum):
    """Of hardware-scheduled chips (``machine/gpu``)."""

    LAUNCH_S = "launch_s"
    MATRIX_FRACTION = "matrix_fraction"
    MEMORY_FRACTION = "memory_fraction"
    L2_FRACTION = "l2_fraction"
    TILE_FACTOR = "tile_factor"
    WAVE_S = "wave_s"
    REDUCTION_S = "reduction_s"
    QUANTIZE_S = "quantize_s"
    BLOCK_QUANTIZE_S = "block_quantize_s"
    BLOCK_FRACTION = "block_fraction"
    LANE_FRACTION = "lane_fraction"
    LANE_FILL_FACTOR = "lane_fill_factor"
    LANE_WAVE_S = "lane_wave_s"
    ATTENTION_FRACTION = "attention_fraction"
    ATTENTION_BLOCK_S = "attention_block_s"
    ATTENTION_LAUNCH_S = "attention_launch_s"
    DECODE_BLOCK_S = "decode_block_s"
    DECODE_STREAM_FACTOR = "decode_stream_factor"
    DECODE_LAUNCH_S = "decode_launch_s"
    DECODE_GROUP_ROWS = "decode_group_rows"
    DECODE_CACHE_FRACTION = "decode_cache_fraction"
    MOE_MATRIX_FRACTION = "moe_matrix_fraction"
    MOE_MEMORY_FRACTION = "moe_memory_fraction"
    MOE_TOKEN_FACTOR = "moe_token_factor"
    MOE_LAUNCH_S = "moe_launch_s"
    MOE_WAVE_S = "moe_wave_s"
    MOE_EXPERT_S = "moe_expert_s"
    STREAM_FRACTION = "stream_fraction"
    SOFTMAX_FRACTION = "softmax_fraction"
    NORM_FRACTION = "norm_fraction"
    ROW_S = "row_s"
    BUSY_FRACTION = "busy_fraction"
    MAC_ENERGY_FACTOR = "mac_energy_factor"


class HostConstant(StrEnum):
    """Of processors as a runtime of single operators drives them (``machine/host``)."""

    LAUNCH_S = "launch_s"
    RUN_S = "run_s"
    FORK_S = "fork_s"
    WATCHING_S = "watching_s"
    MATRIX_FRACTION = "matrix_fraction"
    CONV_FRACTION = "conv_fraction"
    GROUPED_FRACTION = "grouped_fraction"
    INT8_FRACTION = "int8_fraction"
    VECTOR_FRACTION = "vector_fraction"
    MEMORY_FRACTION = "memory_fraction"
    MOVE_FRACTION = "move_fraction"
    PASS_FACTOR = "pass_factor"
    CACHE_FACTOR = "cache_factor"
    PRIVATE_FACTOR = "private_factor"
    CACHED_SHARE = "cached_share"


Constant: TypeAlias = "SystolicConstant | GpuConstant | HostConstant"
OF_KIND: Mapping[Kind, tuple[Constant, ...]] = {
    Kind.SYSTOLIC: tuple(SystolicConstant),
    Kind.GPU: tuple(GpuConstant),
    Kind.HOST: tuple(HostConstant),
    Kind.ROOFLINE: (),
    Kind.LISTED: (),
}
PREDICTED: tuple[Predicted, ...] = (*KernelFamily, *Whole)
SHARES_OF_PEAK: tuple[Constant, ...] = (
    GpuConstant.MATRIX_FRACTION,
    GpuConstant.ATTENTION_FRACTION,
    GpuConstant.MOE_MATRIX_FRACTION,
    SystolicConstant.MATRIX_FRACTION,
    HostConstant.MATRIX_FRACTION,
)

_SECONDS = Spec(Dimension.TIME_S, FROM_0)
_SHARE = Spec(Dimension.FRACTION, SHARE)
_FACTOR = Spec(Dimension.FRACTION, ABOVE_0)
ERROR = Spec(Dimension.FRACTION, Range(0.0, 100.0))
# A processor's clock may exceed the one that its peak was computed from, and so may its shares.
_OVER_1 = frozenset(
    {
        HostConstant.MATRIX_FRACTION,
        HostConstant.CONV_FRACTION,
        HostConstant.GROUPED_FRACTION,
        HostConstant.INT8_FRACTION,
        HostConstant.VECTOR_FRACTION,
        HostConstant.MEMORY_FRACTION,
    }
)


def spec_of(constant: Constant) -> Spec:
    """What a constant is, by the ending of its name; shares lie in (0, 1]."""
    if constant in _OVER_1 and isinstance(constant, HostConstant):
        return Spec(Dimension.FRACTION, Range(0.0, 10.0, open_low=True))
    if constant.endswith("_s"):
        return _SECONDS
    if constant.endswith("_rows"):
        return Spec(Dimension.COUNT, WHOLE)
    return _FACTOR if constant.endswith("_factor") else _SHARE
