"""How a training step is done: layout, microbatches, what is computed again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tenfold.chips import MatrixPrecision
from tenfold.cluster.layout import Layout


class Recompute(StrEnum):
    """What of the forward pass is computed again in the backward pass instead of being kept."""

    NONE = "none"
    ATTENTION = "attention"  # scores and what follows from them (Korthikanti et al. 2022)
    OPS = "ops"  # all but attention and every second product (torchtitan's per-op policy)
    FULL = "full"  # all of each layer but what it was given


class Shard(StrEnum):
    """What copies hold only a share of (Rajbhandari et al. 2020, ZeRO)."""

    NONE = "none"
    OPTIMISER = "optimiser"  # stage 1
    WEIGHTS = "weights"  # stage 3, weights and gradients too (FSDP; Zhao et al. 2023)


@dataclass(frozen=True, slots=True)
class Training:
    """How a step is laid out: sequences of a ``micro`` batch, stages a chip (``interleave``), what
    is computed again, sums cut along sequences (``sequence``), what the copies ``shard``, attention
    in one kernel (``flash``), what goes round the copies beside what is computed (``overlap``),
    ``dropout``, how many times the mean the busiest chip of experts apart gets (``skew``), and
    bytes of a gradient. ``products`` of layers are in fewer bits than tensors, where it says so.
    """

    layout: Layout
    micro: int = 1
    interleave: int = 1
    recompute: Recompute = Recompute.NONE
    sequence: bool = False
    shard: Shard = Shard.NONE
    flash: bool = True
    overlap: bool = True
    dropout: bool = False
    skew: float = 1.0
    products: MatrixPrecision | None = None
    gradient_bytes: int = 4
