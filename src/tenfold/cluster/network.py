"""The links of a topology as the machine asks for them."""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.collective import collective
from tenfold.cluster.part import Prices
from tenfold.cluster.topology import Topology
from tenfold.estimate import Estimate
from tenfold.ir.sharding import Collective
from tenfold.machine import Stack, Together

LARGE, SMALL = 1 << 26, 1  # bytes that tell what a byte takes, and what a start


@dataclass(frozen=True, slots=True)
class Joined:
    """Chips of one kind in a topology; engines bring all-reduces of their own."""

    topology: Topology
    chip: Chip
    stack: Stack = Stack.ENGINE

    def seconds(self, what: Together) -> Estimate:
        """Raises InputError for chips that are not joined so."""
        return collective(
            what.collective,
            what.bytes,
            what.ways,
            self.topology,
            self.chip,
            engine=self.stack is Stack.ENGINE,
            stride=what.stride,
        ).time

    def sent(self, size_bytes: float, stride: int) -> Estimate:
        """From one chip to that ``stride`` places further; one alone hands nothing on."""
        if self.topology.most == 1:
            return Estimate.exact(0.0)
        passed = Together(Collective.SEND_RECV, int(size_bytes), 2, stride)
        return self.seconds(passed)


def prices(chip: Chip, precision: MatrixPrecision, network: Joined, ways: int) -> Prices:
    """What cutting and gathering over ``ways`` chips costs, in outline."""
    # one chip gathers nothing, and hands on to the next one
    alone = ways == 1
    kind, taking = (Collective.SEND_RECV, 2) if alone else (Collective.ALL_GATHER, ways)
    start = whole = 0.0
    if network.topology.most > 1:
        start, whole = (
            network.seconds(Together(kind, size, taking)).value for size in (SMALL, LARGE)
        )
    share = 1.0 if alone else (ways - 1) / ways
    memory = chip.memory_bytes_per_s
    assert memory is not None
    return Prices(
        memory_bytes_per_s=memory,
        flops_per_s=chip.peak_flops[precision],
        link_bytes_per_s=share * LARGE / max(whole - start, 1e-12),
        link_s=start,
    )
