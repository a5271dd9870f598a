"""The main job: a model on a chip, from file to time, energy, money and carbon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tenfold.carbon import Footprint, footprint
from tenfold.chips import Chip
from tenfold.chips import chip as chip_named
from tenfold.cluster import Group, Layout, Topology, grouped
from tenfold.compiler import DEFAULT, Options, build
from tenfold.economics import Rent, rent
from tenfold.estimate import Estimate
from tenfold.facts import Account
from tenfold.ir.graph import Graph
from tenfold.machine import Run, simulate
from tenfold.model import Bound, Sizes, prepare

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Several:
    """Chips in a layout, joined as they are sold unless a topology is given."""

    layout: Layout
    topology: Topology | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One run of the main job on ``chip``, or on a ``group`` of such chips, of which ``run`` is one
    of the slowest stage. ``rent`` and ``footprint`` are for a million items; None where not asked
    or no price.
    """

    run: Run
    chip: Chip
    batch: int
    sizes: Mapping[str, int]
    rent: Rent | None = None
    footprint: Footprint | None = None
    group: Group | None = None

    @property
    def chips(self) -> int:
        return self.group.layout.chips if self.group else 1

    @property
    def name(self) -> str:
        """The chip, and how many of them."""
        return f"{self.chips} x {self.run.program.chip}" if self.group else self.run.program.chip

    @property
    def time_s(self) -> Estimate:
        """Of one pass over the batch."""
        return self.group.time_s if self.group else self.run.time_s

    @property
    def every_s(self) -> Estimate:
        """Between two passes that follow each other as soon as they can."""
        return self.group.every_s if self.group else self.run.time_s

    @property
    def energy(self) -> Account:
        """Of all chips, for one pass of many."""
        return self.group.energy if self.group else self.run.energy

    @property
    def energy_j(self) -> Estimate:
        return self.energy.total

    @property
    def power_w(self) -> float:
        """Of all chips."""
        every = self.every_s.value
        return self.energy_j.value / every if every else 0.0

    @property
    def mfu(self) -> float:
        return self.group.mfu if self.group else self.run.mfu

    @property
    def flops(self) -> int:
        """Of the products of one pass over the batch."""
        return self.group.flops if self.group else self.run.program.flops

    @property
    def memory_bytes(self) -> int:
        """Of the chip that holds most."""
        return self.group.memory_bytes if self.group else self.run.program.memory_bytes


def profile(
    graph: Graph, chip: str, sizes: Sizes, *, dtype: str | None = None, region: str | None = None
) -> Profile:
    """``graph`` on ``chip``: time, energy and, with ``region``, money and carbon for a million
    items.

    Raises InputError (UnknownName, UnsupportedDType, DoesNotFit …) for what cannot be,
    MissingFigure for a figure that nobody published.
    """
    return profile_bound(prepare(graph, sizes), chip, dtype=dtype, region=region)


def profile_bound(
    bound: Bound,
    chip: str | Chip,
    *,
    dtype: str | None = None,
    region: str | None = None,
    options: Options = DEFAULT,
    on: Several | None = None,
) -> Profile:
    """As ``profile``, for a graph that is bound already, on a chip by name or as a record, or on
    several: then the graph is bound for the batch of one copy.
    """
    record = chip_named(chip) if isinstance(chip, str) else chip
    precision = record.storage(dtype)
    if on is None:
        run = simulate(build(bound.graph, record, precision, bound.batch, options), record)
        found = Profile(run, record, bound.batch, bound.sizes)
    else:
        group = grouped(
            bound.graph,
            record,
            precision,
            bound.batch,
            on.layout,
            topology=on.topology,
            options=options,
        )
        batch = bound.batch * on.layout.data
        found = Profile(group.slowest, record, batch, bound.sizes, group=group)
    if region is None:
        return found
    seconds = found.every_s * (found.chips * MILLION / found.batch)
    joules = found.energy_j * (MILLION / found.batch)
    return replace(
        found, rent=rent(record, seconds, region), footprint=footprint(record, joules, region)
    )
