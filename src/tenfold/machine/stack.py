"""The software that drives a GPU: what runs as one kernel, and what a launch takes on the host.

Facts are in ``data/stacks.toml``, one table a stack. Other kinds of chips have one stack, that of
their maker's compiler or runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import msgspec

from tenfold.errors import UnknownName
from tenfold.facts import FROM_0, Figure, FigureText, Spec, check_sources, read_file
from tenfold.units import Dimension

DATA = Path(__file__).parent / "data" / "stacks.toml"


class Stack(StrEnum):
    """What drives a chip."""

    ENGINE = "engine"  # fused kernels in a graph: TensorRT, serving engines
    COMPILED = "compiled"  # torch.compile
    EAGER = "eager"  # one kernel an op


def stack_named(name: str) -> Stack:
    """The stack of this name. Raises UnknownName with the nearest."""
    try:
        return Stack(name)
    except ValueError:
        raise UnknownName("stack", name, list(Stack)) from None


class Fusing(StrEnum):
    """What a stack runs as one kernel."""

    ALL = "all"
    BESIDE_PRODUCTS = "beside-products"  # but nothing with a product of a library
    NONE = "none"


class _Stack(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    does: str
    fusion: Fusing
    score_passes: int
    source: str
    host_launch: FigureText


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    stack: dict[Stack, _Stack]


@dataclass(frozen=True, slots=True)
class StackFacts:
    """``score_passes``: kernels that go over the scores of an attention beside its softmax;
    ``host_launch_s``: what the host takes for each launch, beside which the chip works.
    """

    does: str
    fusing: Fusing
    score_passes: int
    host_launch_s: Figure

    @property
    def attention_whole(self) -> bool:
        """Whether it has one kernel for an attention."""
        return self.fusing is Fusing.ALL


@lru_cache(maxsize=8)
def stack_facts(stack: Stack) -> StackFacts:
    file = read_file(DATA, _File)
    given = {f"{n}.host_launch": s.host_launch.source for n, s in file.stack.items()}
    check_sources(DATA, given | {n: s.source for n, s in file.stack.items()}, file.sources)
    found = file.stack[stack]
    launch = found.host_launch.read(Spec(Dimension.TIME_S, FROM_0))
    return StackFacts(found.does, found.fusion, found.score_passes, launch)
