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

from tenfold.chips import names
from tenfold.errors import DataFileError, UnknownName
from tenfold.facts import ABOVE_0, FROM_0, Figure, FigureText, Spec, check_sources, read_file
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


class _Older(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    chips: list[str]
    stacks: list[Stack]
    forward: FigureText
    backward: FigureText


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    sources: dict[str, str]
    stack: dict[Stack, _Stack]
    older_attention: list[_Older]


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


@dataclass(frozen=True, slots=True)
class AttentionPace:
    """How many times longer a stack's own kernel for an attention takes than the best there is."""

    forward: float = 1.0
    backward: float = 1.0


@lru_cache(maxsize=64)
def attention_pace(stack: Stack, sold_as: str) -> AttentionPace:
    """Of ``stack`` on the chip that is sold by this name."""
    ratio = Spec(Dimension.COUNT, ABOVE_0)
    for older in _file().older_attention:
        if stack in older.stacks and sold_as in older.chips:
            forward, backward = (f.read(ratio).value for f in (older.forward, older.backward))
            return AttentionPace(forward, backward)
    return AttentionPace()


@lru_cache(maxsize=1)
def _file() -> _File:
    file = read_file(DATA, _File)
    given = {f"{n}.host_launch": s.host_launch.source for n, s in file.stack.items()}
    given |= {n: s.source for n, s in file.stack.items()}
    for i, older in enumerate(file.older_attention):
        ways = {"forward": older.forward, "backward": older.backward}
        given |= {f"older_attention.{i}.{n}": f.source for n, f in ways.items()}
        unknown = sorted(set(older.chips) - set(names()))
        if unknown:
            raise DataFileError(f"{DATA.name}: older_attention: no chip '{unknown[0]}'")
    check_sources(DATA, given, file.sources)
    return file


@lru_cache(maxsize=8)
def stack_facts(stack: Stack) -> StackFacts:
    file = _file()
    found = file.stack[stack]
    launch = found.host_launch.read(Spec(Dimension.TIME_S, FROM_0))
    return StackFacts(found.does, found.fusion, found.score_passes, launch)
