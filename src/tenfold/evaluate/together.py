"""Collectives as rows of ``predict``: what several chips take together."""

from __future__ import annotations

from collections.abc import Mapping

from tenfold.chips import Chip
from tenfold.cluster import Collective, Moved, Topology, collective, topology_of
from tenfold.errors import InputError
from tenfold.evaluate.operators import OperatorCall

TOGETHER: Mapping[str, tuple[str, ...]] = {c.value: ("bytes", "chips") for c in Collective}


def moved(r: OperatorCall, chip: Chip, topology: Topology | None) -> Moved:
    """One collective over ``chips`` of ``topology``, that in which the chip is sold where None.

    Raises InputError with the line for a warm one, and for a count that the topology does not have.
    """
    if r.warm:
        raise InputError(f"line {r.line}: {r.op} has no operands in L2: leave warm out")
    size, count = r.extents["bytes"], r.extents["chips"]
    try:
        joined = topology if topology is not None else topology_of(chip)
        return collective(Collective(r.op), size, count, joined, chip, engine=r.engine)
    except InputError as error:
        raise type(error)(f"line {r.line}: {error}") from error
