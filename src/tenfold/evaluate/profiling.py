"""The main job: a model on a chip, from file to time, energy, money and carbon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenfold.carbon import Footprint, footprint
from tenfold.chips import Chip
from tenfold.chips import chip as chip_named
from tenfold.compiler import DEFAULT, Options, build
from tenfold.economics import Rent, rent
from tenfold.ir.graph import Graph
from tenfold.machine import Run, simulate
from tenfold.model import Bound, Sizes, prepare

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Profile:
    """One run of the main job on ``chip``. ``rent`` and ``footprint`` are for a million items; None
    where not asked or no price.
    """

    run: Run
    chip: Chip
    batch: int
    sizes: Mapping[str, int]
    rent: Rent | None = None
    footprint: Footprint | None = None


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
) -> Profile:
    """As ``profile``, for a graph that is bound already, on a chip by name or as a record."""
    record = chip_named(chip) if isinstance(chip, str) else chip
    program = build(bound.graph, record, record.storage(dtype), bound.batch, options)
    run = simulate(program, record)
    if region is None:
        return Profile(run, record, bound.batch, bound.sizes)
    seconds = run.time_s * (MILLION / bound.batch)
    joules = run.energy_j * (MILLION / bound.batch)
    return Profile(
        run,
        record,
        bound.batch,
        bound.sizes,
        rent(record, seconds, region),
        footprint(record, joules, region),
    )
