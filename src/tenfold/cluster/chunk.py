"""What the stages of a training step come to on their chips, and what those hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from tenfold.chips import MatrixPrecision
from tenfold.cluster.recipe import Shard, Training
from tenfold.estimate import Estimate

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

MOMENTS_BYTES, MASTER_BYTES = 8, 4  # in fp32 (Kingma, Ba 2015; Micikevicius et al. 2018)
# blocks of which a chip has all weights at once, where copies share them: the one that is computed
# and the next, which is gathered meanwhile (Zhao et al. 2023, PyTorch FSDP, section 4.2)
GATHERED_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """One stage, a microbatch forward and backward: seconds of both, of which what is computed
    again and the links take so much, and of handing results on; bytes kept until the backward pass,
    and what it needs besides. ``weights`` are those of a chip, in ``blocks``; ``experts`` of them
    lie apart from those of other copies. ``energy_j`` is for ``time``. ``flops`` are those of its
    products forward and backward, on all chips that share it, as a model's are counted (Chowdhery
    et al. 2022, PaLM, appendix B).
    """

    time: Estimate
    handed: Estimate
    forward_s: float
    again_s: float
    links_s: float
    weights: int
    experts: int
    blocks: int
    kept_bytes: float
    work_bytes: float
    energy_j: Estimate
    flops: int


@dataclass(frozen=True, slots=True)
class Stages:
    """Chunks as arrays, the last axis of which is stages (value, low and high of what has an
    interval before it); by place of the pipeline the last two are turns and places.
    """

    time: Floats
    handed: Floats
    forward_s: Floats
    again_s: Floats
    links_s: Floats
    weights: Floats
    experts: Floats
    blocks: Floats
    kept_bytes: Floats
    work_bytes: Floats
    energy_j: Floats
    flops: Floats

    @staticmethod
    def of(chunks: Sequence[Chunk]) -> Stages:
        def array(name: str) -> Floats:
            found = [getattr(c, name) for c in chunks]
            if isinstance(found[0], Estimate):
                return np.array([[e.value, e.low, e.high] for e in found], np.float64).T
            return np.array(found, np.float64)

        return Stages(**{f.name: array(f.name) for f in fields(Stages)})

    def merged(self, count: int) -> Stages:
        """These as blocks of ``count`` stages, as even as they go, the last ones with fewer: only
        the last block of a stage hands on, and one is computed at a time.
        """
        each, more = divmod(len(self.weights), count)
        starts = np.arange(count) * each + np.minimum(np.arange(count), more)
        last = np.append(starts[1:], len(self.weights)) - 1
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        summed = {n: np.add.reduceat(a, starts, axis=-1) for n, a in found.items()}
        summed["handed"] = self.handed[:, last]
        summed["work_bytes"] = np.maximum.reduceat(self.work_bytes, starts)
        return Stages(**summed)

    def placed(self, pipeline: int) -> Stages:
        """By turn and place: stage after stage goes round the chips."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return Stages(**{n: a.reshape(*a.shape[:-1], -1, pipeline) for n, a in found.items()})


def state_bytes(precision: MatrixPrecision) -> int:
    """Of the optimiser for a weight: both moments, and a master copy of narrow ones."""
    return MOMENTS_BYTES + (MASTER_BYTES if precision.bits < 32 else 0)


def updated(held: Floats, experts: Floats, training: Training) -> Floats:
    """Of weights that a chip holds those that it updates: all, or its share among the copies that
    hold the same.
    """
    if training.shard is Shard.NONE:
        return held
    layout = training.layout
    return (held - experts) / layout.holders + experts / (layout.holders // layout.experts)


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
    placed: Stages, training: Training, rounds: int, precision: MatrixPrecision
) -> Memory:
    """Bytes of the fullest chip. Where copies share weights each holds its share in fp32, which the
    optimiser updates, and gathers narrow ones for a block or two.
    """
    held, experts = placed.weights.sum(0), placed.experts.sum(0)
    share = updated(held, experts, training)
    shared = training.shard is Shard.WEIGHTS
    width = precision.bits / 8
    # experts that no other chip holds are not gathered
    alone = training.layout.experts == training.layout.holders
    around = placed.weights - placed.experts if alone else placed.weights
    block = (around / placed.blocks).max(0)
    gathered = block * (GATHERED_BLOCKS * width + training.gradient_bytes)
    parts = {
        "weights": share * max(width, MASTER_BYTES) if shared else held * width,
        "gradients": (share if shared else held) * training.gradient_bytes,
        "optimiser": share * (MOMENTS_BYTES if shared else state_bytes(precision)),
        "activations": _kept(placed.kept_bytes, training, rounds),
        "workspace": placed.work_bytes.max(0) + np.where(shared & (share < held), gathered, 0.0),
    }
    fullest = int(sum(parts.values(), np.zeros_like(held)).argmax())
    return Memory(**{n: float(a[fullest]) for n, a in parts.items()})


def _kept(kept: Floats, training: Training, rounds: int) -> Floats:
    """Bytes of as many microbatches as are on their way at each place (Narayanan et al. 2021,
    section 2.2).
    """
    pipeline = training.layout.pipeline
    after = pipeline - np.arange(pipeline) - 1
    if training.interleave == 1:
        return np.minimum(rounds, after + 1) * kept[0]
    # all of the earlier stages of a chip go round before the last one begins
    early = (pipeline + 2 * after) * kept[0] + pipeline * kept[1:-1].sum(0)
    return np.minimum(rounds * kept.sum(0), early + kept[-1])
