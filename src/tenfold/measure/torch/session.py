"""One session of measuring: rows as they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not measured, and why."""

    why: str


def measure_operators(b: Bench, asked: Sequence[OperatorCall]) -> Iterator[Taken | LeftOut]:
    """Each call cold, and warm as well; large products are repeated while power and clock are
    read. What the card has no memory for is left out with its reason.
    """
    for r in asked:
        try:
            call = call_of(b.torch, r, b.place.value)
            for warm in (False, True):
                time_s = b.seconds(call, warm=warm)
                drawn = b.drawn(call) if warm and _macs(r) >= WATCHED_MACS else None
                yield Taken(replace(r, warm=warm), time_s, drawn)
        except b.torch.OutOfMemoryError:
            yield LeftOut(f"{r.op} {r.dtype} {dict(r.extents)}: out of memory")


def measure_models(b: Bench, asked: Sequence[Forward]) -> Iterator[Taken | LeftOut]:
    """Whole models in evaluation, from the host's call to the end; what does not fit, or what
    PyTorch cannot compile here, is left out with its reason.
    """
    for what in asked:
        try:
            yield Taken(what, _whole(b, what))
        except Exception as error:  # compilers raise many kinds
            reason = str(error).strip().split("\n")[0][:200]
            yield LeftOut(f"{what.model} {what.dtype} {what.stack} batch {what.batch}: {reason}")


def _whole(b: Bench, what: Forward) -> float:
    torch = b.torch
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[what.dtype]
    network = module(torch, what.model).to(b.place.value, dtype).eval()
    given = inputs(torch, what, b.place.value, dtype)
    if what.stack is Stack.COMPILED:
        torch.compiler.reset()  # else the next batch is compiled for sizes that change
        network = torch.compile(network, dynamic=False)
    return b.wall(lambda: network(given))


def _macs(r: OperatorCall) -> float:
    if r.op != "matmul":
        return 0.0
    return float(r.extents["m"]) * r.extents["n"] * r.extents["k"]
