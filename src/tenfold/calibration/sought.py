"""What is sought in fitting, by kind of machine: constants with bounds, family by family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from tenfold.chips import Constant, GpuConstant, KernelFamily, Kind, SystolicConstant


@dataclass(frozen=True, slots=True)
class Sought:
    """A constant of the machine model, with where the search starts and the bounds it stays in."""

    name: Constant
    start: float
    low: float
    high: float

    @property
    def is_share(self) -> bool:
        return self.high == 1.0


class Search(Enum):
    """How the least is looked for."""

    GRADIENT = "gradient"
    SIMPLEX = "simplex"  # whole cycles and changing plans make steps that a gradient stumbles over


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a kind of machine is fitted.

    ``families`` are fitted in order: later ones use the rates of earlier ones. ``whole_models``:
    whether rows of whole models count beside those of operators; where they do not, ``moved`` are
    the constants that they move at the end, away from what operators say. ``plans``: how often they
    are planned anew with the constants found, since what fits in memory when depends on them.
    ``beside``: whether a measuring source times something beside the kernel, which is fitted too.
    ``power``: whether measured power is fitted. ``together``: whether kernels of one family are
    timed as arrays.
    """

    families: Mapping[tuple[KernelFamily, ...], tuple[Sought, ...]]
    search: Search
    whole_models: bool
    moved: tuple[Constant, ...]
    plans: int
    beside: bool
    power: bool
    together: bool


def _share(name: Constant, start: float = 0.8) -> Sought:
    return Sought(name, start, 0.02, 1.0)


def _seconds(name: Constant, start: float) -> Sought:
    return Sought(name, start, 1e-9, 1e-3)


_GPU: Mapping[tuple[KernelFamily, ...], tuple[Sought, ...]] = {
    (KernelFamily.MATMUL,): (
        _share(GpuConstant.MATRIX_FRACTION),
        _share(GpuConstant.MEMORY_FRACTION),
        _share(GpuConstant.L2_FRACTION, 0.5),
        Sought(GpuConstant.TILE_FACTOR, 1.0, 1e-3, 20),
        _seconds(GpuConstant.WAVE_S, 1e-6),
        _seconds(GpuConstant.REDUCTION_S, 2e-6),
    ),
    (KernelFamily.FP32,): (
        _share(GpuConstant.LANE_FRACTION, 0.95),
        Sought(GpuConstant.LANE_FILL_FACTOR, 1.0, 1e-3, 20),
        _seconds(GpuConstant.LANE_WAVE_S, 1e-6),
    ),
    (KernelFamily.QUANTIZED,): (_seconds(GpuConstant.QUANTIZE_S, 1e-5),),
    (KernelFamily.BLOCKED,): (
        _seconds(GpuConstant.BLOCK_QUANTIZE_S, 5e-6),
        _share(GpuConstant.BLOCK_FRACTION, 0.8),
    ),
    (KernelFamily.ATTENTION,): (
        _share(GpuConstant.ATTENTION_FRACTION, 0.5),
        _seconds(GpuConstant.ATTENTION_BLOCK_S, 2e-6),
        _seconds(GpuConstant.ATTENTION_LAUNCH_S, 1e-5),
    ),
    (KernelFamily.DECODE,): (
        _seconds(GpuConstant.DECODE_BLOCK_S, 5e-6),
        Sought(GpuConstant.DECODE_STREAM_FACTOR, 1.6, 0.1, 50),
        _seconds(GpuConstant.DECODE_LAUNCH_S, 6e-6),
    ),
    (KernelFamily.EXPERTS,): (
        _share(GpuConstant.MOE_MATRIX_FRACTION, 0.6),
        _share(GpuConstant.MOE_MEMORY_FRACTION),
        Sought(GpuConstant.MOE_TOKEN_FACTOR, 1.0, 0.01, 20),
        _seconds(GpuConstant.MOE_LAUNCH_S, 2e-5),
        _seconds(GpuConstant.MOE_WAVE_S, 1e-6),
        _seconds(GpuConstant.MOE_EXPERT_S, 1e-7),
    ),
    (KernelFamily.SOFTMAX, KernelFamily.NORM, KernelFamily.STREAM): (
        _share(GpuConstant.STREAM_FRACTION),
        _share(GpuConstant.SOFTMAX_FRACTION, 0.5),
        _share(GpuConstant.NORM_FRACTION, 0.7),
        _seconds(GpuConstant.ROW_S, 1e-8),
    ),
}
# What a few whole models can say of: rates, and the time of a launch. The rest has rows of its own.
_MOVED = (
    GpuConstant.MATRIX_FRACTION,
    GpuConstant.LANE_FRACTION,
    GpuConstant.MEMORY_FRACTION,
    GpuConstant.STREAM_FRACTION,
    GpuConstant.SOFTMAX_FRACTION,
    GpuConstant.NORM_FRACTION,
    GpuConstant.ATTENTION_FRACTION,
    GpuConstant.LAUNCH_S,
)
_SYSTOLIC = (
    _seconds(SystolicConstant.KERNEL_S, 1e-6),
    _share(SystolicConstant.MEMORY_FRACTION),
    _share(SystolicConstant.MATRIX_FRACTION, 0.9),
    _share(SystolicConstant.VECTOR_FRACTION, 0.6),
)
FITTINGS: Mapping[Kind, Fitting] = {
    Kind.GPU: Fitting(
        families=_GPU,
        search=Search.GRADIENT,
        whole_models=False,
        moved=_MOVED,
        plans=1,
        beside=True,
        power=True,
        together=True,
    ),
    Kind.SYSTOLIC: Fitting(
        families={tuple(KernelFamily): _SYSTOLIC},
        search=Search.SIMPLEX,
        whole_models=True,
        moved=(),
        plans=2,
        beside=False,
        power=False,
        together=False,
    ),
}
