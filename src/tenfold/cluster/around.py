"""What goes on between stages and between copies of a network in a training step: stages hand on
results and gradients; gradients go round the copies, weights too where each holds a share only
(Rajbhandari et al. 2020, ZeRO; Zhao et al. 2023, PyTorch FSDP), and Adam updates them (Kingma, Ba
2015).
"""

from __future__ import annotations

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.chunk import Floats, Stages, state_bytes
from tenfold.cluster.network import Joined
from tenfold.cluster.recipe import Shard, Training
from tenfold.estimate import Estimate
from tenfold.ir.sharding import Collective
from tenfold.ir.table import Lowering
from tenfold.machine import Kernel, Together, time_kernel
from tenfold.machine.energy import dynamic_energy, energy_model
from tenfold.machine.kernel import Moved, Traffic

ADAM_OPS = 12  # of a weight
NOTHING = Estimate.exact(0.0)


class Around:
    """The links between stages and between copies, and what these do with their weights; what was
    asked before is remembered.
    """

    def __init__(self, chip: Chip, precision: MatrixPrecision, network: Joined) -> None:
        self.chip, self.precision, self.network = chip, precision, network
        self.known: dict[Together, Estimate] = {}
        self.sent: dict[tuple[Together, bool], Estimate] = {}
        self.updates: dict[tuple[int, int, bool], tuple[float, Estimate]] = {}

    def _seconds(
        self, kind: Collective, training: Training, held: float, experts: float, each_bytes: float
    ) -> Estimate:
        """Of all weights that a chip holds: experts go round the copies that hold the same ones."""
        layout = training.layout
        apart = layout.holders // layout.experts, layout.tensor * layout.experts
        total = NOTHING
        for count, (ways, stride) in (
            (held - experts, (layout.holders, layout.tensor)),
            (experts, apart),
        ):
            if count and ways > 1:
                asked = Together(kind, int(count * each_bytes), ways, stride)
                if asked not in self.known:
                    self.known[asked] = self.network.seconds(asked)
                total = total + self.known[asked]
        return total

    def handed(self, training: Training, size_bytes: float) -> Estimate:
        """Seconds to hand a microbatch's results from one stage to the next, and their gradient
        back: where sums are cut each chip its part; else each chip its part over the links between
        and all of it around inside (Narayanan et al. 2021, section 4.1), or whole, whichever is
        quicker.
        """
        layout = training.layout
        if layout.pipeline == 1 or not size_bytes:
            return NOTHING
        stride, ways = layout.tensor * layout.holders, layout.tensor
        key = Together(Collective.SEND_RECV, int(size_bytes), ways, stride), training.sequence
        if key not in self.sent:
            part = self.network.sent(size_bytes / ways, stride)
            if ways > 1 and not training.sequence:
                around = Together(Collective.ALL_GATHER, int(size_bytes), ways)
                shared = part + self.network.seconds(around)
                alone = self.network.sent(size_bytes, stride)
                part = min(alone, shared, key=lambda t: t.value)
            self.sent[key] = part * 2
        return self.sent[key]

    def once(self, training: Training, held: float, experts: float, backward_s: float) -> Estimate:
        """Seconds that a step of a chip waits for the copies at its end: for sums of gradients, but
        for what the last backward pass hides, and with a shared optimiser until what it updated
        went round.
        """
        if training.layout.holders == 1 or training.shard is Shard.WEIGHTS:
            return NOTHING
        wide, narrow = training.gradient_bytes, self.precision.bits / 8
        if training.shard is Shard.NONE:
            sums = self._seconds(Collective.ALL_REDUCE, training, held, experts, wide)
            return _left(training, sums, backward_s)
        sums = self._seconds(Collective.REDUCE_SCATTER, training, held, experts, wide)
        gathered = self._seconds(Collective.ALL_GATHER, training, held, experts, narrow)
        return _left(training, sums, backward_s) + gathered

    def each(self, training: Training, placed: Stages) -> list[Estimate]:
        """Seconds that each microbatch of each place waits for shared weights: block by block, they
        are gathered for the forward pass and again for the backward one, which scatters the
        gradients, beside what is computed; the first block is waited for, and the last one's
        gradients.
        """
        places = placed.weights.shape[-1]
        if training.layout.holders == 1 or training.shard is not Shard.WEIGHTS:
            return [NOTHING] * places
        numbers = placed.weights, placed.experts, placed.blocks, placed.forward_s, placed.links_s
        columns = zip(*(a.sum(0).tolist() for a in (*numbers, placed.time[0])), strict=True)
        return [self._waits(training, *column) for column in columns]

    def _waits(
        self,
        training: Training,
        held: float,
        experts: float,
        blocks: float,
        forward_s: float,
        links_s: float,
        computed_s: float,
    ) -> Estimate:
        bits = (training.products or self.precision).bits
        narrow, wide = bits / 8 / blocks, training.gradient_bytes / blocks
        gather = self._seconds(Collective.ALL_GATHER, training, held, experts, narrow)
        both = gather + self._seconds(Collective.REDUCE_SCATTER, training, held, experts, wide)
        if not training.overlap:
            return (gather + both) * blocks
        # links between parts of a layer are of both passes, as what is computed is
        forward = forward_s * computed_s / (computed_s - links_s)
        others = blocks - 1
        left = _left(training, gather * others, forward)
        left = left + _left(training, both * others, computed_s - forward)
        return gather + left + both

    def update(self, training: Training, count: float) -> tuple[float, Estimate]:
        """Seconds and joules (beside static power) of Adam on ``count`` weights: gradient and state
        are read, state and weight written.
        """
        key = int(count), training.gradient_bytes, training.shard is Shard.WEIGHTS
        if key not in self.updates:
            self.updates[key] = self._updated(*key)
        return self.updates[key]

    def _updated(self, count: int, gradient_bytes: int, shared: bool) -> tuple[float, Estimate]:
        state, width = state_bytes(self.precision), self.precision.bits // 8
        wide = self.precision.bits >= 32  # the weight itself is updated, and no copy of it
        read = gradient_bytes + state + (width if wide else 0)
        written = state + (width if wide or not shared else 0)
        kernel = Kernel(
            name="optimiser",
            ops=("adam",),
            kind=Lowering.VECTOR,
            precision=self.precision,
            vector_ops=ADAM_OPS * count,
            traffic=Traffic(Moved(inputs=read * count, outputs=written * count)),
        )
        t = time_kernel(self.chip, kernel)
        model = energy_model(self.chip, self.precision)
        return t.time_s, dynamic_energy(model, t.counters, t.clocked).total


def _left(training: Training, sums: Estimate, beside_s: float) -> Estimate:
    hidden = min(sums.value, beside_s) if training.overlap else 0.0
    return sums * ((sums.value - hidden) / sums.value) if sums.value else sums


def total(a: Floats) -> Estimate:
    """Of a row of values, lows and highs."""
    return Estimate(*map(float, a))
