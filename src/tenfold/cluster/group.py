"""A network on several chips: parts and stages compiled and run, and what the group comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tenfold.chips import Chip, MatrixPrecision
from tenfold.cluster.apart import Experts, check_experts, experts_apart
from tenfold.cluster.layout import Layout, Side
from tenfold.cluster.network import Joined, prices
from tenfold.cluster.part import Part
from tenfold.cluster.partition import partition
from tenfold.cluster.stages import in_stages, width_of
from tenfold.cluster.topology import Topology, joining
from tenfold.compiler import DEFAULT, Options, build
from tenfold.errors import DoesNotFit, InputError
from tenfold.estimate import Estimate
from tenfold.facts import Account, Entry
from tenfold.ir.cost import graph_totals
from tenfold.ir.graph import Graph
from tenfold.machine import Run, simulate
from tenfold.machine.energy import energy_model


@dataclass(frozen=True, slots=True)
class Stage:
    """What each chip of one stage runs, the seconds until the next one has its results, and what it
    holds while every stage works on a batch of its own.
    """

    run: Run
    handed: Estimate
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Group:
    """Chips that run one network: ``stages`` follow each other, of each copy.

    ``flops`` are those of products of one pass over the whole batch, ``repeated_flops`` what chips
    do besides since more than one does it.
    """

    layout: Layout
    topology: Topology
    stages: tuple[Stage, ...]
    flops: int
    repeated_flops: int
    idle_w: Estimate

    @property
    def slowest(self) -> Run:
        return max((s.run for s in self.stages), key=lambda r: r.time_s.value)

    @property
    def time_s(self) -> Estimate:
        """From the inputs to the results."""
        return Estimate.total(t for s in self.stages for t in (s.run.time_s, s.handed))

    @property
    def every_s(self) -> Estimate:
        """Between two passes, when one follows the other as soon as it can: no stage does two
        things at once.
        """
        each = [s.run.time_s + s.handed for s in self.stages]
        return max(each, key=lambda t: t.value)

    @property
    def together_s(self) -> float:
        """Of ``time_s``, waiting for links."""
        kernels = (k for s in self.stages for k in s.run.kernels if k.kernel.together)
        inside = sum(k.time_s * k.kernel.repeat for k in kernels)
        return inside + sum(s.handed.value for s in self.stages)

    @property
    def energy(self) -> Account:
        """Of all chips, a pass after the other; stages that wait draw static power."""
        each = self.layout.tensor * self.layout.data
        runs = (s.run.energy.times(each) for s in self.stages)
        waits = sum(max(0.0, self.every_s.value - s.run.time_s.value) for s in self.stages)
        waiting = (Entry("static, while waiting", self.idle_w * (waits * each)),) if waits else ()
        return Account.sum((*runs, Account(waiting)))

    @property
    def mfu(self) -> float:
        """Arithmetic of the products that are asked for over what the chips could do while passes
        follow each other.
        """
        possible = self.layout.chips * self.stages[0].run.peak_flops * self.every_s.value
        return self.flops / possible if possible else 0.0

    @property
    def memory_bytes(self) -> int:
        """Of the chip that holds most."""
        return max(s.memory_bytes for s in self.stages)


def grouped(
    graph: Graph,
    chip: Chip,
    precision: MatrixPrecision,
    items: int,
    layout: Layout,
    *,
    topology: Topology | None = None,
    options: Options = DEFAULT,
) -> Group:
    """``graph``, bound for ``items`` of one copy, on the chips of ``layout``, joined as ``chip`` is
    sold unless a ``topology`` is given.

    Raises InputError for a layout that the network or the topology does not have, DoesNotFit where
    a chip lacks the memory.
    """
    joined = joining(chip, topology, layout.chips)
    network = Joined(joined, chip, options.stack)
    parts: Sequence[Part] = ()
    price = prices(chip, precision, network, layout.tensor)
    whole_flops = int(str(graph_totals(graph).contraction_flops))
    name, inputs = graph.name, graph.inputs
    if layout.context > 1:
        raise InputError(
            f"{Side.CONTEXT}={layout.context}: sequences lie apart in training only: share layers"
            f" ({Side.TENSOR}) instead"
        )
    check_experts(graph, layout.experts)
    if layout.experts > 1:
        graph = experts_apart(graph, Experts(layout.experts, layout.tensor)).graph
    if layout.tensor > 1:
        parts = partition(graph, layout.tensor, price)
    stages = []
    for stage in in_stages(parts[-1].graph if parts else graph, layout.pipeline, price):
        program = build(stage.graph, chip, precision, items, options)
        # as many batches are on their way as there are stages, each with what it is given
        given = (n for n in stage.graph.inputs if n in inputs)
        floats = (v for v in (stage.graph.values[n] for n in given) if v.dtype.is_float)
        caches = sum(int(str(v.elements)) for v in floats) * precision.bits / 8
        flying = int(caches * (layout.pipeline - 1))
        need = program.memory_bytes + flying
        if chip.memory_bytes is not None and need > chip.memory_bytes:
            what = f"{name}, {layout}: one chip's part"
            raise DoesNotFit(what, need, chip.name, chip.memory_bytes)
        wide = precision.bits / 8 / width_of(graph)
        handed = Estimate.exact(0.0)
        if stage.sent_bytes:
            handed = network.sent(stage.sent_bytes * wide, layout.tensor)
        stages.append(Stage(simulate(program, chip, network), handed, need))
    return Group(
        layout=layout,
        topology=joined,
        stages=tuple(stages),
        flops=whole_flops * layout.data,
        repeated_flops=sum(p.repeated_flops for p in parts) * layout.data,
        idle_w=energy_model(chip, precision).static_w,
    )
