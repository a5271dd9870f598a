"""What goes round the copies of a network in a training step: gradients, and weights where each
holds a share of them only (Rajbhandari et al. 2020, ZeRO; Zhao et al. 2023, PyTorch FSDP).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.chips import MatrixPrecision
from tenfold.cluster.chunk import Chunk
from tenfold.cluster.network import Joined
from tenfold.cluster.recipe import Shard, Training
from tenfold.estimate import Estimate
from tenfold.ir.sharding import Collective
from tenfold.machine import Together


@dataclass(frozen=True, slots=True)
class Around:
    """The links between copies, for one way to train."""

    training: Training
    precision: MatrixPrecision
    network: Joined

    def _seconds(self, kind: Collective, own: Sequence[Chunk], each_bytes: float) -> Estimate:
        """Of all weights of ``own``: experts go round the copies that hold the same ones."""
        layout = self.training.layout
        experts = sum(c.experts for c in own)
        others = sum(c.weights for c in own) - experts
        apart = layout.data // layout.experts, layout.tensor * layout.experts
        return Estimate.total(
            self.network.seconds(Together(kind, int(count * each_bytes), ways, stride))
            for count, (ways, stride) in ((others, (layout.data, layout.tensor)), (experts, apart))
            if count and ways > 1
        )

    def once(self, own: Sequence[Chunk], backward_s: float) -> Estimate:
        """Seconds that a step of a chip waits for the copies at its end: for sums of gradients, but
        for what the last backward pass hides, and with a shared optimiser until what it updated
        went round.
        """
        training = self.training
        if training.layout.data == 1 or training.shard is Shard.WEIGHTS:
            return Estimate.exact(0.0)
        size = training.gradient_bytes
        if training.shard is Shard.NONE:
            return self._left(self._seconds(Collective.ALL_REDUCE, own, size), backward_s)
        updated = self._seconds(Collective.ALL_GATHER, own, self.precision.bits / 8)
        scattered = self._seconds(Collective.REDUCE_SCATTER, own, size)
        return self._left(scattered, backward_s) + updated

    def _left(self, sums: Estimate, beside_s: float) -> Estimate:
        hidden = min(sums.value, beside_s) if self.training.overlap else 0.0
        return sums * ((sums.value - hidden) / sums.value) if sums.value else sums

    def each(self, own: Sequence[Chunk]) -> Estimate:
        """Seconds that each microbatch of a chip waits for shared weights: block by block, they are
        gathered for the forward pass and again for the backward one, which scatters the gradients,
        beside what is computed; the first block is waited for, and the last one's gradients.
        """
        training = self.training
        if training.layout.data == 1 or training.shard is not Shard.WEIGHTS:
            return Estimate.exact(0.0)
        return Estimate.total(self._waits(c) for c in own)

    def _waits(self, c: Chunk) -> Estimate:
        narrow, wide = self.precision.bits / 8 / c.blocks, self.training.gradient_bytes / c.blocks
        gather = self._seconds(Collective.ALL_GATHER, (c,), narrow)
        scatter = self._seconds(Collective.REDUCE_SCATTER, (c,), wide)
        both = gather + scatter
        if not self.training.overlap:
            return (gather + both) * c.blocks
        computed = c.time.value - c.handed_s
        # links between parts of a layer are of both passes, as what is computed is
        forward = c.forward_s * computed / (computed - c.links_s)
        others = c.blocks - 1
        left = self._left(gather * others, forward)
        left = left + self._left(both * others, computed - forward)
        return gather + left + both
