"""What a stage of a training step comes to on a chip, and what its chip holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.chips import MatrixPrecision
from tenfold.cluster.recipe import Shard, Training
from tenfold.estimate import Estimate

MOMENTS_BYTES, MASTER_BYTES = 8, 4  # in fp32 (Kingma, Ba 2015; Micikevicius et al. 2018)
# blocks of which a chip has all weights at once, where copies share them: the one that is computed
# and the next, which is gathered meanwhile (Zhao et al. 2023, PyTorch FSDP, section 4.2)
GATHERED_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """One stage, a microbatch forward and backward: seconds of both, of which what is computed
    again and the links take so much; bytes kept until the backward pass, and what it needs besides.
    ``weights`` are those of a chip, in ``blocks``; ``experts`` of them lie apart from those of
    other copies. ``energy_j`` is for the time but that in which results are handed on. ``flops``
    are those of its products forward and backward, on all chips that share it, as a model's are
    counted (Chowdhery et al. 2022, PaLM, appendix B).
    """

    time: Estimate
    forward_s: float
    again_s: float
    links_s: float
    handed_s: float
    weights: int
    experts: int
    blocks: int
    kept_bytes: float
    work_bytes: float
    energy_j: Estimate
    flops: int


def state_bytes(precision: MatrixPrecision) -> int:
    """Of the optimiser for a weight: both moments, and a master copy of narrow ones."""
    return MOMENTS_BYTES + (MASTER_BYTES if precision.bits < 32 else 0)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a chip, by what they are."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    workspace: float

    @property
    def total(self) -> float:
        parts = self.weights, self.gradients, self.optimiser, self.activations, self.workspace
        return sum(parts)


def memory_of(
    own: Sequence[Chunk],
    training: Training,
    place: int,
    rounds: int,
    precision: MatrixPrecision,
) -> Memory:
    """Bytes of the chip at a ``place`` of the pipeline. Where copies share weights each holds its
    share in fp32, which the optimiser updates, and gathers narrow ones for a block or two.
    """
    held = sum(c.weights for c in own)
    share = updated(own, training)
    shared = training.shard is Shard.WEIGHTS
    width = precision.bits / 8
    around = max(c.weights / c.blocks for c in own) if shared and share < held else 0.0
    state = MOMENTS_BYTES if shared else state_bytes(precision)
    gathered = around * (GATHERED_BLOCKS * width + training.gradient_bytes)
    return Memory(
        weights=share * max(width, MASTER_BYTES) if shared else held * width,
        gradients=(share if shared else held) * training.gradient_bytes,
        optimiser=share * state,
        activations=_kept(own, training, place, rounds),
        workspace=max(c.work_bytes for c in own) + gathered,
    )


def updated(own: Sequence[Chunk], training: Training) -> float:
    """Weights that a chip updates: all that it holds, or its share among the copies that hold the
    same.
    """
    held, experts = (sum(getattr(c, n) for c in own) for n in ("weights", "experts"))
    if training.shard is Shard.NONE:
        return held
    layout = training.layout
    return float((held - experts) / layout.data + experts / (layout.data // layout.experts))


def _kept(own: Sequence[Chunk], training: Training, place: int, rounds: int) -> float:
    """Bytes of as many microbatches as are on their way there (Narayanan et al. 2021, section
    2.2).
    """
    pipeline, after = training.layout.pipeline, training.layout.pipeline - place - 1
    if training.interleave == 1:
        return min(rounds, after + 1) * own[0].kept_bytes
    # all of the earlier stages of a chip go round before the last one begins
    first, *others = own
    early = (pipeline + 2 * after) * first.kept_bytes
    early += sum(pipeline * c.kept_bytes for c in others[:-1])
    return min(rounds * sum(c.kept_bytes for c in own), early + own[-1].kept_bytes)
