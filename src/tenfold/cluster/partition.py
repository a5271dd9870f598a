"""One network into the part that each of several chips runs.

Cuts go forward through the graph (GSPMD, Xu et al. 2021, section 3.5, in one pass): a product with
weights that meets whole activations is cut by columns, what follows keeps the cut as far as the op
table says it can, a product that meets a cut along what it sums over is cut by rows and its results
are added up across chips (Shoeybi et al. 2019, Megatron-LM, section 3, found and not written in).
Where a cut can go no further all chips gather it, and where that costs more than the cut saves the
product is left whole on every chip.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from tenfold.cluster.asked import Asked
from tenfold.cluster.cutting import Cutting
from tenfold.cluster.layout import Side
from tenfold.cluster.part import Part, Prices
from tenfold.cluster.sums import joined_turns
from tenfold.errors import InputError
from tenfold.ir.cost import op_call
from tenfold.ir.graph import Graph
from tenfold.ir.infer import row_of

NOTHING: Mapping[str, str] = MappingProxyType({})


def partition(
    graph: Graph,
    ways: int,
    prices: Prices,
    *,
    like: Mapping[str, str] = NOTHING,
    sequence: bool = False,
    received: Collection[str] = (),
) -> tuple[Part, ...]:
    """The parts of a static ``graph`` on ``ways`` chips, one after the other: the last one's graph
    is what a chip runs. There are two where heads of keys are fewer than chips: the first cuts by
    them, the second among those that share one. ``like`` names outputs that are cut as a constant
    is (gradients, as the weights they are of). With ``sequence`` sums are cut along the second axis
    until they are needed whole (Korthikanti et al. 2022, section 4.2.2), and inputs that are
    ``received`` from another part come so.

    Raises InputError for an attention whose heads do not divide.
    """
    found: list[Part] = []
    left = ways
    for each in _in_turn(graph, ways):
        left //= each
        asked = Asked(each, left, like, sequence=sequence, received=frozenset(received))
        found.append(_part(graph, asked, prices))
        names = dict(zip(graph.outputs, found[-1].graph.outputs, strict=True))
        like = {names[n]: weight for n, weight in like.items()}
        graph = found[-1].graph
    if len(found) > 1:
        found[-1] = replace(found[-1], graph=joined_turns(found[-1].graph))
    return tuple(found)


def _in_turn(graph: Graph, ways: int) -> Iterator[int]:
    """The ways to cut one after the other."""
    most = ways
    for op in graph.ops:
        rule = row_of(op).attention
        if rule is None:
            continue
        d = rule(op_call(graph, op))
        heads, keys = int(str(d.heads)), int(str(d.kv_heads))
        if heads == 1:  # which every chip does whole
            continue
        if heads % ways or (keys % ways and ways % keys):
            raise InputError(
                f"{Side.TENSOR}={ways}: '{op.name}' has {heads} heads, {keys} of keys and values,"
                f" which {ways} chips cannot share equally: allowed are {_allowed(heads, keys)}"
            )
        if keys > 1 and keys % ways:
            most = min(most, math.gcd(keys, ways))
    yield most
    if most < ways:
        yield ways // most


def _allowed(heads: int, keys: int) -> str:
    found = (n for n in range(1, heads + 1) if not (heads % n or (keys % n and n % keys)))
    return ", ".join(map(str, found))


def _part(graph: Graph, asked: Asked, prices: Prices) -> Part:
    """Again with fewer cuts while some were not worth their gathering."""
    whole: frozenset[int] = frozenset()
    while True:
        walk = Cutting(graph, asked, whole)
        for i, op in enumerate(graph.ops):
            walk.visit(i, op)
        wasted = walk.wasted(prices)
        if wasted <= whole:
            return walk.finish()
        whole |= wasted
