"""The links of a topology as the machine asks for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.collective import collective
from tenfold.cluster.exchange import (
    LOW_LATENCY_TOKENS,
    MULTIPROCESSORS,
    Exchange,
    Tokens,
    exchange,
    has_kernels,
)
from tenfold.cluster.part import Prices
from tenfold.cluster.topology import Topology
from tenfold.estimate import Estimate
from tenfold.ir.sharding import Collective
from tenfold.machine import Stack, Together
from tenfold.machine.kernel import Exchanged

LARGE, SMALL = 1 << 26, 1  # bytes that tell what a byte takes, and what a start


@dataclass(frozen=True, slots=True)
class Joined:
    """Chips of one kind in a topology; engines bring all-reduces and exchanges of their own."""

    topology: Topology
    chip: Chip
    stack: Stack = Stack.ENGINE

    def seconds(self, what: Together) -> Estimate:
        """Raises InputError for chips that are not joined so."""
        plain = self._plain(what)
        if what.exchanged is None or self.stack is not Stack.ENGINE:
            return plain
        own = (self._kernels(what, what.exchanged, n) for n in (MULTIPROCESSORS, None))
        return min((plain, *(t for t in own if t is not None)), key=lambda t: t.value)

    def _kernels(
        self, what: Together, passed: Exchanged, multiprocessors: int | None
    ) -> Estimate | None:
        """By kernels that are made for tokens, the low-latency ones where no multiprocessors are
        given; None where there are none.
        """
        if not has_kernels(self.topology) or what.stride > 1:
            return None
        few = passed.tokens <= LOW_LATENCY_TOKENS
        if multiprocessors is None and not few:
            return None
        tokens = Tokens(math.ceil(passed.tokens * passed.skew), passed.token_bytes, passed.choices)
        way = Exchange.COMBINE if passed.back else Exchange.DISPATCH
        return exchange(
            way, tokens, what.ways, self.topology, self.chip, multiprocessors=multiprocessors
        ).time

    def _plain(self, what: Together) -> Estimate:
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
