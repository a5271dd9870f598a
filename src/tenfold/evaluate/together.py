"""Collectives as rows of ``predict``: what several chips take together."""

from __future__ import annotations

from collections.abc import Mapping

from tenfold.chips import Chip
from tenfold.cluster import (
    MULTIPROCESSORS,
    Collective,
    Exchange,
    Moved,
    Tokens,
    Topology,
    collective,
    exchange,
    joining,
)
from tenfold.errors import InputError
from tenfold.evaluate.operators import DTYPES, OperatorCall

_EXCHANGED = ("tokens", "hidden", "topk", "chips", "low_latency", "multiprocessors")
TOGETHER: Mapping[str, tuple[str, ...]] = {
    **{c.value: ("bytes", "chips") for c in Collective},
    **dict.fromkeys(Exchange, _EXCHANGED),
}
TOGETHER_DEFAULTS = {"low_latency": "0", "multiprocessors": "0"}
SCALED, SCALE_BYTES = 128, 4  # elements of 8 bits for each scale of four bytes (DeepSeek-V3, 3.3)


def moved(r: OperatorCall, chip: Chip, topology: Topology | None) -> Moved:
    """One collective over ``chips`` of ``topology``, that in which the chip is sold where None.

    Raises InputError with the line for a warm one, and for a count that the topology does not have.
    """
    if r.warm:
        raise InputError(f"line {r.line}: {r.op} has no operands in L2: leave warm out")
    try:
        joined = joining(chip, topology, max(2, r.extents["chips"]))
        if r.op in tuple(Exchange):
            return _exchanged(r, joined, chip)
        size, count = r.extents["bytes"], r.extents["chips"]
        return collective(Collective(r.op), size, count, joined, chip, engine=r.engine)
    except InputError as error:
        raise type(error)(f"line {r.line}: {error}") from error


def _exchanged(r: OperatorCall, topology: Topology, chip: Chip) -> Moved:
    """Multiprocessors are those of the normal kernels, of which low latency has none."""
    e = r.extents
    quick, given = bool(e["low_latency"]), e["multiprocessors"]
    if quick and given:
        raise InputError(
            f"multiprocessors = {given} is of the normal kernels: leave it out with low_latency"
        )
    if given > (chip.units or given):
        raise InputError(
            f"multiprocessors = {given}: {chip.name} has {chip.units}, of which DeepEP takes some"
        )
    width = DTYPES[r.dtype].bits / 8
    token = e["hidden"] * width + (e["hidden"] / SCALED * SCALE_BYTES if width == 1 else 0)
    what = Tokens(e["tokens"], token, e["topk"])
    taken = None if quick else given or MULTIPROCESSORS
    return exchange(Exchange(r.op), what, e["chips"], topology, chip, multiprocessors=taken)
