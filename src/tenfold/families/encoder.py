"""Encoders: BERT and its kin over tokens, ViT over image patches, DiT over latent patches."""

from __future__ import annotations

from typing import Literal

import msgspec

from tenfold.errors import InputError
from tenfold.families.decoder import Function
from tenfold.families.net import Net
from tenfold.ir.dims import symbol
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Attr, Graph


class Encoder(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Shapes of an encoder of tokens (``vocabulary``) or of images (``image`` and ``patch``)."""

    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int = 0
    positions: int = 0
    reserved: int = 0  # of the positions, that no token takes (RoBERTa)
    types: int = 0
    image: int = 0
    patch: int = 0
    channels: int = 3
    classes: int = 0
    token_classes: int = 0  # scores of each token
    masked_lm: bool = False  # a score of each word for each token, tied to the embedding
    pooler: bool = False
    pre_norm: bool = False
    qkv_bias: bool = True
    function: Function = "gelu"
    epsilon: float = 1e-12


def check(e: Encoder, what: str) -> None:
    """Raises InputError where the shapes contradict each other."""
    if e.positions and e.reserved >= e.positions:
        raise InputError(
            f"{what}: {e.reserved} of {e.positions} positions are reserved, which leaves none"
        )
    if e.width % e.heads:
        raise InputError(f"{what}: a width of {e.width} does not divide by {e.heads} heads")
    if bool(e.vocabulary) == bool(e.image):
        raise InputError(
            f"{what}: an encoder reads tokens (vocabulary) or images (image and patch)"
        )
    if e.image and (not e.patch or e.image % e.patch):
        raise InputError(f"{what}: an image of {e.image} does not divide by patches of {e.patch}")


def encoder_graph(name: str, e: Encoder, dtype: DType) -> Graph:
    """The graph of an encoder with free ``batch``, and free ``seq`` where it reads tokens."""
    check(e, name)
    net = Net(name, dtype)
    table = net.weight("embedding", e.vocabulary, e.width) if e.vocabulary else ""
    x = _tokens(net, e, table) if e.vocabulary else _patches(net, e)
    for layer in range(e.layers):
        with net.scope(f"layer.{layer}"):
            x = _layer(net, e, x)
    if e.pre_norm:
        x = net.layer_norm(x, "norm", e.width, e.epsilon)
    outputs = [x]
    if e.pooler or e.classes:
        first = net.op("gather", x, net.ints("first", 0), name="first.take", attrs={"axis": 1})
        y = net.reshape(first, "first.flat", 0, e.width)
        if e.pooler:
            y = net.activation(net.linear(y, "pooler", e.width, e.width, bias=True), "tanh")
        if e.classes:
            y = net.linear(y, "classifier", e.width, e.classes, bias=True)
        outputs = [x, y] if e.vocabulary else [y]
    if e.token_classes:
        outputs = [net.linear(x, "classifier", e.width, e.token_classes, bias=True)]
    if e.masked_lm:
        outputs = [_words(net, e, x, table)]
    return net.graph(*outputs)


def _words(net: Net, e: Encoder, x: str, table: str) -> str:
    """Scores of all words, by the table that embeds them (Devlin et al. 2019, section 3.1)."""
    y = net.activation(net.linear(x, "transform", e.width, e.width, bias=True), e.function)
    y = net.layer_norm(y, "transform.norm", e.width, e.epsilon)
    scores = net.op("matmul", y, table, name="head", attrs={"transpose_b": 1})
    return net.op("add", scores, net.weight("head.bias", e.vocabulary), name="head.add")


def _tokens(net: Net, e: Encoder, table: str) -> str:
    batch, seq = symbol("batch"), symbol("seq")
    tokens = net.input("tokens", (batch, seq), DType.I64)
    x = net.op(
        "gather",
        table,
        tokens,
        name="embed",
        attrs={"axis": 0},
    )
    if e.positions:
        net.limit("seq", e.positions - e.reserved)
    for what, count in (("types", e.types), ("positions", e.positions)):
        if count:
            ids = net.input(what, (batch, seq), DType.I64)
            y = net.op(
                "gather",
                net.weight(f"{what}.weight", count, e.width),
                ids,
                name=f"embed.{what}",
                attrs={"axis": 0},
            )
            x = net.op("add", x, y, name=f"embed.{what}.add")
    return net.layer_norm(x, "embed.norm", e.width, e.epsilon)


def _patches(net: Net, e: Encoder) -> str:
    """Patches by a convolution, a class token before them, learned positions."""
    side = e.image // e.patch
    image = net.input("image", (symbol("batch"), e.channels, e.image, e.image))
    weights = (
        net.weight("patch.weight", e.width, e.channels, e.patch, e.patch),
        net.weight("patch.bias", e.width),
    )
    y = net.op("conv", image, *weights, name="patch", attrs={"strides": (e.patch, e.patch)})
    flat = net.reshape(y, "patch.flat", 0, e.width, side * side)
    x = net.op("transpose", flat, name="patch.last", attrs={"perm": (0, 2, 1)})
    batch = net.op(
        "slice",
        net.op("shape", x, name="batch.shape"),
        net.ints("batch.from", 0),
        net.ints("batch.to", 1),
        name="batch.size",
    )
    target = net.op(
        "concat", batch, net.ints("class.shape", 1, e.width), name="class.target", attrs={"axis": 0}
    )
    first = net.op("expand", net.weight("class.token", 1, 1, e.width), target, name="class.each")
    x = net.op("concat", first, x, name="embed", attrs={"axis": 1})
    return net.op("add", x, net.weight("positions", 1, side * side + 1, e.width), name="embed.add")


def _layer(net: Net, e: Encoder, x: str) -> str:
    for part in ("attention", "mlp"):
        fed = net.layer_norm(x, f"{part}.norm", e.width, e.epsilon) if e.pre_norm else x
        y = (
            _feed(net, e, fed)
            if part == "mlp"
            else self_attention(net, fed, e.width, e.heads, qkv_bias=e.qkv_bias)
        )
        x = net.op("add", x, y, name=f"add.{part}")
        if not e.pre_norm:
            x = net.layer_norm(x, f"{part}.norm", e.width, e.epsilon)
    return x


def _feed(net: Net, e: Encoder, x: str) -> str:
    with net.scope("mlp"):
        return net.feed_forward(x, e.width, e.inner, e.function, gated=False, bias=True)


def self_attention(net: Net, x: str, width: int, heads: int, *, qkv_bias: bool) -> str:
    """Projections, attention over everything, and the projection back."""
    with net.scope("attention"):
        q, k, v = (net.linear(x, n, width, width, bias=qkv_bias) for n in "qkv")
        attrs: dict[str, Attr] = {"q_num_heads": heads, "kv_num_heads": heads}
        return net.linear(
            net.op("attention", q, k, v, name="attend", attrs=attrs), "out", width, width, bias=True
        )


class Diffusion(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Shapes of a diffusion transformer (Peebles, Xie 2023) over a latent of ``size`` x ``size`` x
    ``channels``.
    """

    layers: int
    width: int
    inner: int
    heads: int
    size: int
    patch: int
    channels: int
    classes: int
    frequencies: int = 256
    function: Function = "gelu_tanh"
    kind: Literal["adaln-zero"] = "adaln-zero"


def diffusion_graph(name: str, d: Diffusion, dtype: DType) -> Graph:
    """One denoising step with free ``batch``."""
    net = Net(name, dtype)
    batch, side = symbol("batch"), d.size // d.patch
    latent = net.input("latent", (batch, d.channels, d.size, d.size))
    waves = net.input("time", (batch, d.frequencies))
    label = net.input("label", (batch,), DType.I64)
    weights = (
        net.weight("patch.weight", d.width, d.channels, d.patch, d.patch),
        net.weight("patch.bias", d.width),
    )
    y = net.op("conv", latent, *weights, name="patch", attrs={"strides": (d.patch, d.patch)})
    x = net.op(
        "transpose",
        net.reshape(y, "patch.flat", 0, d.width, side * side),
        name="patch.last",
        attrs={"perm": (0, 2, 1)},
    )
    time = net.activation(net.linear(waves, "time.in", d.frequencies, d.width, bias=True), "silu")
    time = net.linear(time, "time.out", d.width, d.width, bias=True)
    kind = net.op(
        "gather",
        net.weight("label.weight", d.classes + 1, d.width),
        label,
        name="label.take",
        attrs={"axis": 0},
    )
    condition = net.activation(net.op("add", time, kind, name="condition"), "silu")
    for layer in range(d.layers):
        with net.scope(f"layer.{layer}"):
            x = _block(net, d, x, condition)
    shift, scale = _modulation(net, d, condition, 2)
    y = _modulated(net, net.layer_norm(x, "norm", d.width, 1e-6, affine=False), shift, scale)
    return net.graph(net.linear(y, "head", d.width, d.patch * d.patch * d.channels * 2, bias=True))


def _modulation(net: Net, d: Diffusion, condition: str, parts: int) -> tuple[str, ...]:
    """Shifts, scales and gates of one block from its condition, each [batch, 1, width]."""
    whole = net.linear(condition, "modulation", d.width, parts * d.width, bias=True)
    each = net.ops(
        "split",
        whole,
        net.ints("modulation.sizes", *[d.width] * parts),
        name="parts",
        outputs=parts,
        attrs={"axis": 1},
    )
    return tuple(
        net.op("unsqueeze", p, net.ints(f"part.{i}.axis", 1), name=f"part.{i}")
        for i, p in enumerate(each)
    )


def _modulated(net: Net, x: str, shift: str, scale: str) -> str:
    grown = net.op(
        "mul", x, net.op("add", scale, net.number("one", 1.0), name="scale"), name="scaled"
    )
    return net.op("add", grown, shift, name="shifted")


def _block(net: Net, d: Diffusion, x: str, condition: str) -> str:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = _modulation(net, d, condition, 6)
    y = _modulated(
        net, net.layer_norm(x, "norm.attention", d.width, 1e-6, affine=False), shift_a, scale_a
    )
    x = net.op(
        "add",
        x,
        net.op("mul", gate_a, self_attention(net, y, d.width, d.heads, qkv_bias=True), name="gate"),
        name="add.attention",
    )
    y = _modulated(
        net, net.layer_norm(x, "norm.mlp", d.width, 1e-6, affine=False), shift_m, scale_m
    )
    with net.scope("mlp"):
        y = net.feed_forward(y, d.width, d.inner, d.function, gated=False, bias=True)
    return net.op("add", x, net.op("mul", gate_m, y, name="gate"), name="add.mlp")
