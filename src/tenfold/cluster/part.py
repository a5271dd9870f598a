"""What partitioning takes and gives: prices of a choice, and the part that each chip runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenfold.ir.graph import Array, Graph
from tenfold.ir.sharding import Cut


@dataclass(frozen=True, slots=True)
class Prices:
    """What a choice costs on a chip and its links, in outline: a cut is worth it where what it
    saves takes longer than gathering its results.
    """

    memory_bytes_per_s: float
    flops_per_s: float
    link_bytes_per_s: float
    link_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """Where a constant of a part comes from: which one of the whole graph, cut how; ``content``
    where the graph has none such.
    """

    source: str
    cut: Cut | None
    content: Array | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Part:
    """``graph`` is what each of ``ways`` chips runs. ``inputs`` and ``outputs`` say how those of
    the whole are cut, ``constants`` what each chip holds of which constant. ``repeated_flops`` are
    those of products that more than one chip does: of all chips together less those of the whole.
    """

    graph: Graph
    ways: int
    inputs: Mapping[str, Cut | None]
    outputs: Mapping[str, Cut | None]
    constants: Mapping[str, Held]
    repeated_flops: int
