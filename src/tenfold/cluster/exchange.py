"""Tokens to the chips of their experts and back: DeepEP's kernels (deepseek-ai/DeepEP, README).

Facts are in ``data/exchange.toml``. Low latency: every choice of a token is a message of its own.
Normal: a token goes once to each chip that has any of its experts, over the fabric once to each
box; of n chips a token with k choices, each chip alike, reaches n (1 - (1 - 1/n)^k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import msgspec

from tenfold.chips import Chip
from tenfold.cluster.collective import Moved, Way
from tenfold.cluster.link import DATA, RELATIVE_ERROR_FACTOR, Link
from tenfold.cluster.topology import Shape, Topology, bandwidth
from tenfold.errors import InputError
from tenfold.facts import ABOVE_0, FROM_0, SHARE, FigureText, Spec, check_sources, read_file
from tenfold.units import Dimension

PATH = DATA / "exchange.toml"
MEASURED = Link.NVLINK4
HAS_KERNELS = (Link.NVLINK3, Link.NVLINK4, Link.NVLINK5)  # NVLink to each other chip of a box
LOW_LATENCY_TOKENS = 256  # of a chip, at most, for the kernels of that name (its README)
MULTIPROCESSORS = 24  # that DeepEP's normal kernels take where nobody says (its README)


class Exchange(StrEnum):
    """Which way tokens go."""

    DISPATCH = "moe_dispatch"
    COMBINE = "moe_combine"


class _Kernel(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    launch: FigureText
    inside_fraction: FigureText
    between_launch: FigureText
    between_fraction: FigureText
    error: FigureText
    each: FigureText | None = None


class _Kernels(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    low_latency: _Kernel
    normal: _Kernel


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    dispatch: _Kernels
    combine: _Kernels


@dataclass(frozen=True, slots=True)
class Kernel:
    """Seconds, shares of links, and bytes a second of one multiprocessor (infinite where kernels
    are not bound by them).
    """

    launch_s: float
    inside: float
    between_launch_s: float
    between: float
    each_bytes_per_s: float
    error: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """What is exchanged: ``tokens`` of each chip, of so many bytes, each with ``choices`` of
    experts.
    """

    tokens: int
    token_bytes: float
    choices: int


@lru_cache(maxsize=4)
def kernel(way: Exchange, *, low_latency: bool) -> Kernel:
    """Raises DataFileError for a faulty file."""
    file = read_file(PATH, _File)
    both = {Exchange.DISPATCH: file.dispatch, Exchange.COMBINE: file.combine}[way]
    found = both.low_latency if low_latency else both.normal
    given = {n: x for n in _Kernel.__struct_fields__ if (x := getattr(found, n)) is not None}
    check_sources(PATH, {f"{way}.{n}": x.source for n, x in given.items()}, file.sources)
    seconds, share = Spec(Dimension.TIME_S, FROM_0), Spec(Dimension.FRACTION, SHARE)
    rate = Spec(Dimension.BYTES_PER_S, ABOVE_0)
    return Kernel(
        launch_s=found.launch.read(seconds).value,
        inside=found.inside_fraction.read(share).value,
        between_launch_s=found.between_launch.read(seconds).value,
        between=found.between_fraction.read(share).value,
        each_bytes_per_s=found.each.read(rate).value if found.each is not None else math.inf,
        error=found.error.read(Spec(Dimension.FRACTION, FROM_0)).value,
    )


def has_kernels(topology: Topology) -> bool:
    """Whether there are such kernels for it: boxes on NVSwitch."""
    inner = topology.levels[0] if topology.levels else None
    return inner is not None and inner.shape is Shape.SWITCH and inner.link in HAS_KERNELS


def exchange(
    way: Exchange,
    what: Tokens,
    count: int,
    topology: Topology,
    chip: Chip,
    *,
    multiprocessors: int | None,
) -> Moved:
    """Over ``count`` chips; ``multiprocessors`` of the normal kernels, None for low latency.

    Raises InputError for a count that the topology does not have, and for one that is no switch of
    boxes, for which there are no such kernels.
    """
    if not has_kernels(topology):
        raise InputError(
            f"{way} is DeepEP's, for boxes on NVSwitch: on {topology.name} all_to_all is what there"
            " is"
        )
    parts = topology.parts(count)
    if count == 1:
        return Moved(0.0, Way.NOTHING, 0.0, 0.0)
    k = kernel(way, low_latency=multiprocessors is None)
    (level, (inner,)), *outer = parts
    boxes = math.prod(n for _, (n,) in outer)
    wider = 1.0 if level.link is MEASURED else RELATIVE_ERROR_FACTOR
    rate = bandwidth(level, chip) * k.inside
    sent = what.tokens * what.token_bytes
    if multiprocessors is None:
        inside, between = (
            sent * what.choices * share
            for share in ((inner - 1) / inner / boxes, (boxes - 1) / boxes)
        )
    else:
        rate = min(rate, multiprocessors * k.each_bytes_per_s)
        inside = sent * _reached(count, what.choices) * (count - 1) / count
        between = sent * _reached(boxes, what.choices) * (boxes - 1) / boxes
    time = k.launch_s + inside / rate
    if outer:
        fabric = bandwidth(outer[0][0], chip) * k.between
        time = k.launch_s + k.between_launch_s + max(inside / rate, between / fabric)
    return Moved(time, Way.LEVELS if outer else Way.DIRECT, inside + between, k.error * wider)


def _reached(groups: int, choices: int) -> float:
    """Groups that have any of ``choices`` experts, each group alike (the expected number)."""
    return groups * (1 - (1 - 1 / groups) ** choices)
