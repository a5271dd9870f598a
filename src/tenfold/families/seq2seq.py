"""Encoder and decoder with attention between them: T5, the first Transformer, Switch and GShard."""

from __future__ import annotations

from typing import Literal

import msgspec

from tenfold.errors import InputError
from tenfold.families.decoder import Experts, Function, Phase, experts
from tenfold.families.heads import Head
from tenfold.families.net import Net
from tenfold.ir.dims import symbol
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Attr, Graph


class Seq2Seq(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Shapes of both stacks. ``buckets`` are those of relative positions, one table a stack."""

    layers: int
    width: int
    inner: int
    heads: int
    head_dim: int
    vocabulary: int
    decoder_layers: int = 0  # 0: as many as layers
    target_vocabulary: int = 0  # 0: one embedding for both sides
    buckets: int = 0
    norm: Literal["rms", "layer"] = "rms"
    pre_norm: bool = True
    bias: bool = False  # in the feed-forward layers
    gated: bool = False
    function: Function = "relu"
    tied: bool = True
    experts: Experts | None = None
    encoder_only: bool = False
    head: Head = Head.VOCABULARY


def check(s: Seq2Seq, what: str) -> None:
    """Raises InputError for shapes that cannot be."""
    for name in ("layers", "width", "inner", "heads", "head_dim", "vocabulary"):
        if getattr(s, name) < 1:
            raise InputError(f"{what}: {name} must be at least 1, got {getattr(s, name)}")
    if s.head is Head.CLASSES:
        raise InputError(f"{what}: a network of two stacks has no head of classes here")


def seq2seq_graph(name: str, s: Seq2Seq, phase: Phase, dtype: DType) -> Graph:
    """The graph with free ``batch`` and ``seq``.

    ``forward``: both stacks over ``seq`` tokens. ``prefill``: the encoder, and the keys and values
    that the decoder will read of it. ``decode``: one token of the decoder against ``seq`` tokens on
    either side.
    """
    check(s, name)
    if s.encoder_only and phase is not Phase.FORWARD:
        raise InputError(f"{name} is an encoder alone: it generates nothing, only forward")
    net = Net(name, dtype)
    batch, seq = symbol("batch"), symbol("seq")
    source = net.weight("embedding", s.vocabulary, s.width)
    memory, outputs = "", []
    if phase is not Phase.DECODE:
        tokens = net.input("tokens", (batch, seq), DType.I64)
        x = net.op("gather", source, tokens, name="encoder.embed", attrs={"axis": 0})
        memory = _stack(net, s, x, "encoder", s.layers, phase)
    if s.encoder_only:
        return net.graph(memory)
    layers = s.decoder_layers or s.layers
    if phase is Phase.PREFILL:
        for layer in range(layers):
            with net.scope(f"decoder.layer.{layer}.cross"):
                outputs += [
                    net.linear(memory, n, s.width, s.heads * s.head_dim, bias=False) for n in "kv"
                ]
        return net.graph(*outputs)
    target = (
        net.weight("target.embedding", s.target_vocabulary, s.width)
        if s.target_vocabulary
        else source
    )
    given = net.input("target", (batch, 1 if phase is Phase.DECODE else seq), DType.I64)
    y = net.op("gather", target, given, name="decoder.embed", attrs={"axis": 0})
    y = _stack(net, s, y, "decoder", layers, phase, memory, outputs)
    if s.head is Head.NONE:
        return net.graph(y, *outputs)
    if s.tied:
        return net.graph(
            net.op("matmul", y, target, name="head", attrs={"transpose_b": 1}), *outputs
        )
    head = net.weight("head.weight", s.width, s.target_vocabulary or s.vocabulary)
    return net.graph(net.op("matmul", y, head, name="head"), *outputs)


def _norm(net: Net, s: Seq2Seq, x: str, name: str) -> str:
    return net.rms_norm(x, name, s.width) if s.norm == "rms" else net.layer_norm(x, name, s.width)


def _stack(
    net: Net,
    s: Seq2Seq,
    x: str,
    which: str,
    layers: int,
    phase: Phase,
    memory: str = "",
    cache: list[str] | None = None,
) -> str:
    with net.scope(which):
        positions = _positions(net, s, phase, which)
        for layer in range(layers):
            with net.scope(f"layer.{layer}"):
                parts = ["attention", *(["cross"] if cache is not None else []), "mlp"]
                for part in parts:
                    fed = _norm(net, s, x, f"{part}.norm") if s.pre_norm else x
                    y = (
                        _mlp(net, s, fed, layer)
                        if part == "mlp"
                        else _mix(net, s, fed, part, positions, memory, phase, cache)
                    )
                    x = net.op("add", x, y, name=f"add.{part}")
                    if not s.pre_norm:
                        x = _norm(net, s, x, f"{part}.norm")
        return _norm(net, s, x, "norm") if s.pre_norm else x


def _positions(net: Net, s: Seq2Seq, phase: Phase, which: str) -> str:
    """Relative position bias [1, heads, queries, keys], from one table a stack (Raffel et al. 2020,
    section 2.1).
    """
    if not s.buckets:
        return ""
    seq = symbol("seq")
    decoding = phase is Phase.DECODE
    shape = (1, 1) if decoding else (seq, seq)
    index = net.input(f"{which}.buckets", (shape[0], seq + 1 if decoding else seq), DType.I64)
    table = net.op(
        "gather",
        net.weight("positions", s.buckets, s.heads),
        index,
        name="positions.take",
        attrs={"axis": 0},
    )
    first = net.op("transpose", table, name="positions.heads", attrs={"perm": (2, 0, 1)})
    return net.op("unsqueeze", first, net.ints("positions.axis", 0), name="positions.bias")


def _mlp(net: Net, s: Seq2Seq, x: str, layer: int) -> str:
    with net.scope("mlp"):
        if s.experts is not None and s.experts.at(layer):
            return experts(net, s.experts, x, s.width, s.function)
        return net.feed_forward(x, s.width, s.inner, s.function, gated=s.gated, bias=s.bias)


def _mix(
    net: Net,
    s: Seq2Seq,
    x: str,
    part: str,
    positions: str,
    memory: str,
    phase: Phase,
    cache: list[str] | None,
) -> str:
    """Self-attention, or attention over what the encoder made."""
    wide, seq = s.heads * s.head_dim, symbol("seq")
    attrs: dict[str, Attr] = {"q_num_heads": s.heads, "kv_num_heads": s.heads}
    if s.buckets:
        attrs["scale"] = 1.0
    with net.scope(part):
        q = net.linear(x, "q", s.width, wide, bias=False)
        decoding = phase is Phase.DECODE
        if part == "cross" and decoding:
            k, v = (
                net.input(net.path(n), (symbol("batch"), seq, wide))
                for n in ("memory.k", "memory.v")
            )
        else:
            k, v = (
                net.linear(memory if part == "cross" else x, n, s.width, wide, bias=False)
                for n in "kv"
            )
        extra: tuple[str, ...] = ()
        if part == "attention":
            attrs["is_causal"] = int(cache is not None and not decoding)
            extra = (positions,) if positions else ()
            if cache is not None and decoding:
                past = [
                    net.input(net.path(f"cache.{n}"), (symbol("batch"), s.heads, seq, s.head_dim))
                    for n in "kv"
                ]
                extra = (positions, *past)
                cache += [k, v]
        y = net.op("attention", q, k, v, *extra, name="attend", attrs=attrs)
        return net.linear(y, "out", wide, s.width, bias=False)
