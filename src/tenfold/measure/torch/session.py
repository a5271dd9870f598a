"""One session of measuring: rows as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tenfold.calibration import Forward
from tenfold.evaluate.operators import OperatorCall
from tenfold.machine import Stack
from tenfold.measure.torch.bench import Bench, Drawn
from tenfold.measure.torch.calls import call_of
from tenfold.measure.torch.models import inputs, module

WATCHED_MACS = 2e11  # multiply-adds of a product from which power and clock are its own


@dataclass(frozen=True, slots=True)
class Taken:
    """A row as it was measured."""

    what: OperatorCall | Forward
    time_s: float
    drawn: Drawn | None = None


def measure_operators(b: Bench, asked: Sequence[OperatorCall]) -> Iterator[Taken]:
    """Each call cold, and warm as well; what does not fit into the card's memory is passed over.

    Large products are repeated while power and clock are read.
    """
    for r in asked:
        try:
            call = call_of(b.torch, r, b.place.value)
            for warm in (False, True):
                time_s = b.seconds(call, warm=warm)
                drawn = b.drawn(call) if warm and _macs(r) >= WATCHED_MACS else None
                yield Taken(replace(r, warm=warm), time_s, drawn)
        except b.torch.OutOfMemoryError:
            continue


def measure_models(b: Bench, asked: Sequence[Forward]) -> Iterator[Taken]:
    """Whole models in evaluation, from the host's call to the end."""
    torch = b.torch
    for what in asked:
        dtype = {"fp16": torch.float16, "fp32": torch.float32}[what.dtype]
        network = module(torch, what.model).to(b.place.value, dtype).eval()
        given = inputs(torch, what, b.place.value, dtype)
        run: Callable[..., object] = network
        if what.stack is Stack.COMPILED:
            run = torch.compile(network)
        yield Taken(what, b.wall(lambda: run(given)))  # noqa: B023


def _macs(r: OperatorCall) -> float:
    if r.op != "matmul":
        return 0.0
    return float(r.extents["m"]) * r.extents["n"] * r.extents["k"]
