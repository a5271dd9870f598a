"""How a training step is done: layout, microbatches, what is computed again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tenfold.cluster.layout import Layout


class Recompute(StrEnum):
    """What of the forward pass is computed again in the backward pass instead of being kept."""

    NONE = "none"
    ATTENTION = "attention"  # scores and what follows from them (Korthikanti et al. 2022)
    FULL = "full"  # all of each layer but what it was given


@dataclass(frozen=True, slots=True)
class Training:
    """How a step is laid out: sequences of a ``micro`` batch, stages a chip (``interleave``), what
    is computed again, sums cut along sequences (``sequence``), the optimiser's state shared by the
    copies (``sharded``), attention in one kernel (``flash``), gradients added up while the last
    backward pass still runs (``overlap``), ``dropout``, and bytes of a gradient.
    """

    layout: Layout
    micro: int = 1
    interleave: int = 1
    recompute: Recompute = Recompute.NONE
    sequence: bool = False
    sharded: bool = False
    flash: bool = True
    overlap: bool = True
    dropout: bool = False
    gradient_bytes: int = 4
