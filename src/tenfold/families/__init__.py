"""Families of networks: a record of shapes each, and the graph that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from tenfold.errors import InputError
from tenfold.families.convolutional import Detector, Plain, detector_graph, plain_graph
from tenfold.families.decoder import Decoder, Phase, decoder_graph
from tenfold.families.dense import Recommender, Stack, recommender_graph, stack_graph
from tenfold.families.encoder import Diffusion, Encoder, diffusion_graph, encoder_graph
from tenfold.families.recurrent import (
    Cells,
    Transducer,
    Translator,
    cells_graph,
    transducer_graph,
    translator_graph,
)
from tenfold.families.seq2seq import Seq2Seq, seq2seq_graph
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of network: its record of shapes, the builder, and whether it generates token by
    token.
    """

    shape: type[msgspec.Struct]
    build: Callable[[str, Any, Phase, DType], Graph]
    generates: bool = False


def _once(build: Callable[[str, Any, DType], Graph]) -> Callable[[str, Any, Phase, DType], Graph]:
    return lambda name, shape, _phase, dtype: build(name, shape, dtype)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "decoder": Family(Decoder, decoder_graph, generates=True),
        "seq2seq": Family(Seq2Seq, seq2seq_graph, generates=True),
        "encoder": Family(Encoder, _once(encoder_graph)),
        "diffusion": Family(Diffusion, _once(diffusion_graph)),
        "cells": Family(Cells, _once(cells_graph)),
        "translator": Family(Translator, _once(translator_graph)),
        "transducer": Family(Transducer, _once(transducer_graph)),
        "stack": Family(Stack, _once(stack_graph)),
        "recommender": Family(Recommender, _once(recommender_graph)),
        "plain": Family(Plain, _once(plain_graph)),
        "detector": Family(Detector, _once(detector_graph)),
    }
)


def build(name: str, family: str, shape: msgspec.Struct, phase: str | None, dtype: DType) -> Graph:
    """The graph of a network of ``family``, in ``phase`` (forward by default).

    Raises InputError for a phase that the family does not have.
    """
    f = FAMILIES[family]
    try:
        chosen = Phase(phase or Phase.FORWARD)
    except ValueError as error:
        raise InputError(f"unknown phase '{phase}': allowed are {', '.join(Phase)}") from error
    if chosen is not Phase.FORWARD and not f.generates:
        raise InputError(
            f"{name} has no phase '{phase}': it does not generate token by token, only forward"
        )
    return f.build(name, shape, chosen, dtype)


__all__ = ["FAMILIES", "Decoder", "Encoder", "Family", "Phase", "Seq2Seq", "build"]
