"""Decoders, from GPT-2 to DeepSeek-V3: dense or mixtures of experts, one record of shapes for them
all.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from tenfold.errors import InputError
from tenfold.families.heads import Head
from tenfold.families.net import Net
from tenfold.ir.dims import minimum, symbol
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Attr, Graph

Function = Literal["silu", "relu", "gelu", "gelu_tanh"]
MOST_LAYERS = 2048


class Phase(StrEnum):
    """What one pass does: all positions, all positions while the cache is filled, or one token
    against the cache.
    """

    FORWARD = "forward"
    PREFILL = "prefill"
    DECODE = "decode"


class Experts(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A mixture of experts for the feed-forward part of every ``every``-th layer from ``first``."""

    count: int
    top_k: int
    inner: int
    gated: bool = True
    every: int = 1
    first: int = 0
    shared_inner: int = 0  # width of experts that every token passes
    score: Literal["softmax", "sigmoid"] = "softmax"
    bias: bool = False  # added to the scores only to choose
    scale: float = 1.0
    capacity: int = 0  # tokens of a sequence that an expert takes at most; 0: all that are sent

    def at(self, layer: int) -> bool:
        return layer >= self.first and (layer - self.first) % self.every == self.every - 1


class Latent(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): queries, keys and values through
    narrow projections.

    With a ``q_rank`` of 0 the queries are projected at once.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int


class Decoder(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Shapes of a decoder. ``positions`` above 0 are learned; ``rope`` rotates queries and keys."""

    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int
    kv_heads: int = 0  # 0: as many as heads
    head_dim: int = 0  # 0: width / heads
    positions: int = 0
    reserved: int = 0  # of the positions, that no token takes
    rope: bool = True
    rope_theta: float = 10000.0
    norm: Literal["rms", "layer"] = "rms"
    epsilon: float = 1e-5
    function: Function = "silu"
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    scaled_embedding: bool = False
    parallel: bool = False  # attention and feed-forward from one norm (PaLM)
    post_norms: bool = False  # norms after attention and feed-forward too (Gemma 2)
    softcap: float = 0.0
    logit_softcap: float = 0.0
    query_scale: float = 0.0  # 0: 1 / sqrt(head_dim)
    experts: Experts | None = None
    latent: Latent | None = None
    # of each layer: positions that one attends to at most, itself included; 0: all
    windows: tuple[int, ...] = ()
    head: Head = Head.VOCABULARY
    classes: int = 0
    local_theta: float = 0.0  # of layers with a window, where they rotate at another rate (Gemma 3)

    def window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0

    @property
    def groups(self) -> int:
        return self.kv_heads or self.heads

    @property
    def per_head(self) -> int:
        return self.head_dim or self.width // self.heads


def check(d: Decoder, what: str) -> None:
    """Raises InputError where the shapes contradict each other."""
    if d.heads % d.groups:
        raise InputError(f"{what}: {d.heads} heads do not divide by {d.groups} key-value heads")
    if not d.head_dim and d.width % d.heads:
        raise InputError(
            f"{what}: a width of {d.width} does not divide by {d.heads} heads, and no head_dim is"
            " given"
        )
    if (d.classes > 0) != (d.head is Head.CLASSES):
        raise InputError(f"{what}: {d.classes} classes and the head '{d.head}' do not go together")
    if d.experts and not 1 <= d.experts.top_k <= d.experts.count:
        raise InputError(
            f"{what}: top-{d.experts.top_k} of {d.experts.count} experts: top_k must be 1 to"
            f" {d.experts.count}"
        )
    turned = d.latent.rope_dim if d.latent else d.per_head
    if d.rope and (turned < 2 or turned % 2):
        raise InputError(f"{what}: rotated heads need an even width of at least 2, got {turned}")
    if d.windows and len(d.windows) != d.layers:
        raise InputError(f"{what}: windows of {len(d.windows)} layers for {d.layers} layers")
    if d.layers > MOST_LAYERS:
        raise InputError(
            f"{what}: {d.layers:,} layers are beyond any network (limit {MOST_LAYERS:,})"
        )
    small = {
        n: v
        for n, v in (
            ("layers", d.layers),
            ("width", d.width),
            ("heads", d.heads),
            ("vocabulary", d.vocabulary),
        )
        if v < 1
    }
    for name, value in small.items():
        raise InputError(f"{what}: {name} must be at least 1, got {value}")


def decoder_graph(name: str, d: Decoder, phase: Phase, dtype: DType) -> Graph:
    """The graph of a decoder with free ``batch`` and ``seq``.

    In ``decode`` one token a sequence is added to a cache of ``seq`` tokens, or of the last ones
    that a layer's window reaches. ``prefill`` and ``decode`` also give the new keys and values of
    every layer. Logits are of every position, as in the published implementations.
    """
    check(d, name)
    net = Net(name, dtype)
    batch, seq = symbol("batch"), symbol("seq")
    now = 1 if phase is Phase.DECODE else seq
    tokens = net.input("tokens", (batch, now), DType.I64)
    positions = net.input("positions", (batch, now), DType.I64) if d.rope or d.positions else ""
    table = net.weight("embedding", d.vocabulary, d.width)
    x = net.op("gather", table, tokens, name="embed", attrs={"axis": 0})
    if d.scaled_embedding:
        x = net.op("mul", x, net.number("embedding.scale", d.width**0.5), name="embed.scaled")
    if d.positions:
        net.limit("seq", d.positions - d.reserved - (phase is Phase.DECODE))
        table_of_positions = net.weight("positions.weight", d.positions, d.width)
        learned = net.op(
            "gather", table_of_positions, positions, name="embed.positions", attrs={"axis": 0}
        )
        x = net.op("add", x, learned, name="embed.add")
    angles = _angles(net, positions, d, d.rope_theta, "rope") if d.rope else ("", "")
    local = (
        _angles(net, positions, d, d.local_theta, "rope.local")
        if d.local_theta and any(d.windows)
        else angles
    )
    cache: list[str] = []
    for layer in range(d.layers):
        with net.scope(f"layer.{layer}"):
            x = _layer(net, d, x, local if d.window(layer) else angles, layer, phase, cache)
    x = _norm(net, d, x, "norm")
    if d.head is not Head.VOCABULARY:
        scored = d.head is Head.CLASSES
        y = net.linear(x, "score", d.width, d.classes, bias=False) if scored else x
        return net.graph(y, *cache)
    head = table if d.tied else net.weight("head.weight", d.width, d.vocabulary)
    y = net.op("matmul", x, head, name="head", attrs={"transpose_b": 1} if d.tied else None)
    if d.logit_softcap:
        y = _capped(net, y, d.logit_softcap)
    return net.graph(y, *cache)


def _angles(net: Net, positions: str, d: Decoder, theta: float, name: str) -> tuple[str, str]:
    """cos and sin of each position and frequency (Su et al. 2021, RoFormer, section 3.2.2), once
    for all layers.
    """
    half = (d.latent.rope_dim if d.latent else d.per_head) // 2
    ends = (
        net.number(f"{name}.first", 0),
        net.number(f"{name}.end", half),
        net.number(f"{name}.step", 1),
    )
    steps = net.op("range", *ends, name=f"{name}.steps")
    rates = net.op(
        "exp",
        net.op(
            "mul", steps, net.number(f"{name}.log", -math.log(theta) / half), name=f"{name}.logs"
        ),
        name=f"{name}.rates",
    )
    floats = net.op("cast", positions, name=f"{name}.at", attrs={"to": net.dtype.value})
    at = net.op("unsqueeze", floats, net.ints(f"{name}.axis", 2), name=f"{name}.column")
    angle = net.op("mul", at, rates, name=f"{name}.angle")
    return net.op("cos", angle, name=f"{name}.cos"), net.op("sin", angle, name=f"{name}.sin")


def _norm(net: Net, d: Decoder, x: str, name: str) -> str:
    return (
        net.rms_norm(x, name, d.width, d.epsilon)
        if d.norm == "rms"
        else net.layer_norm(x, name, d.width, d.epsilon)
    )


def _layer(
    net: Net,
    d: Decoder,
    x: str,
    angles: tuple[str, str],
    layer: int,
    phase: Phase,
    cache: list[str],
) -> str:
    normed = _norm(net, d, x, "attention.norm")
    with net.scope("attention"):
        if d.latent:
            mixed = _latent_attention(net, d, normed, angles, phase, cache)
        else:
            mixed = _attention(net, d, normed, angles, d.window(layer), phase, cache)
    if d.post_norms:
        mixed = _norm(net, d, mixed, "attention.post_norm")
    if d.parallel:
        # beside each other first, so that chips that share a layer sum both at once
        both = net.op("add", mixed, _feed(net, d, normed, layer), name="add.attention")
        return net.op("add", x, both, name="add.mlp")
    x = net.op("add", x, mixed, name="add.attention")
    fed = _feed(net, d, _norm(net, d, x, "mlp.norm"), layer)
    if d.post_norms:
        fed = _norm(net, d, fed, "mlp.post_norm")
    return net.op("add", x, fed, name="add.mlp")


def _feed(net: Net, d: Decoder, x: str, layer: int) -> str:
    with net.scope("mlp"):
        if d.experts is None or not d.experts.at(layer):
            return net.feed_forward(x, d.width, d.inner, d.function, gated=d.gated, bias=d.mlp_bias)
        y = experts(net, d.experts, x, d.width, d.function)
        if d.experts.shared_inner:
            with net.scope("shared"):
                shared = net.feed_forward(
                    x,
                    d.width,
                    d.experts.shared_inner,
                    d.function,
                    gated=d.experts.gated,
                    bias=False,
                )
            y = net.op("add", y, shared, name="add.shared")
        return y


def experts(net: Net, e: Experts, x: str, width: int, function: str) -> str:
    """The mixture itself."""
    weights = [
        net.weight("router", width, e.count),
        net.weight("experts.up", e.count, width, e.inner * (2 if e.gated else 1)),
        net.weight("experts.down", e.count, e.inner, width),
    ]
    if e.bias:
        weights.append(net.weight("router.bias", e.count))
    attrs: dict[str, Attr] = {
        "top_k": e.top_k,
        "gated": int(e.gated),
        "activation": function,
        "score": e.score,
        "renormalise": int(e.top_k > 1),
        "scale": e.scale,
        **({"capacity": e.capacity} if e.capacity else {}),
    }
    return net.op("moe", x, *weights, name="experts", attrs=attrs)


def _rotated(net: Net, x: str, angles: tuple[str, str], name: str, heads: int) -> str:
    return net.op("rotary_embedding", x, *angles, name=name, attrs={"num_heads": heads})


def _attention(
    net: Net,
    d: Decoder,
    x: str,
    angles: tuple[str, str],
    window: int,
    phase: Phase,
    cache: list[str],
) -> str:
    q = net.linear(x, "q", d.width, d.heads * d.per_head, bias=d.qkv_bias)
    k = net.linear(x, "k", d.width, d.groups * d.per_head, bias=d.qkv_bias)
    v = net.linear(x, "v", d.width, d.groups * d.per_head, bias=d.qkv_bias)
    if d.qk_norm:
        q, k = (_head_norm(net, d, y, n, h) for y, n, h in ((q, "q", d.heads), (k, "k", d.groups)))
    if d.rope:
        q, k = (
            _rotated(net, q, angles, "q.rope", d.heads),
            _rotated(net, k, angles, "k.rope", d.groups),
        )
    attrs: dict[str, Attr] = {
        "q_num_heads": d.heads,
        "kv_num_heads": d.groups,
        "is_causal": int(phase is not Phase.DECODE),
    }
    if d.query_scale:
        attrs["scale"] = d.query_scale
    if d.softcap:
        attrs["softcap"] = d.softcap
    if window and phase is not Phase.DECODE:
        attrs["left_window_size"] = window - 1
    y = _attend(net, d, (q, k, v), attrs, window, phase, cache)
    return net.linear(y, "out", d.heads * d.per_head, d.width, bias=d.out_bias)


def _head_norm(net: Net, d: Decoder, x: str, name: str, heads: int) -> str:
    """RMS norm of each head, one weight for all heads (Qwen3)."""
    split = net.reshape(x, f"{name}.split", 0, 0, heads, d.per_head)
    return net.reshape(
        net.rms_norm(split, f"{name}.norm", d.per_head, d.epsilon),
        f"{name}.join",
        0,
        0,
        heads * d.per_head,
    )


def _attend(
    net: Net,
    d: Decoder,
    qkv: tuple[str, str, str],
    attrs: dict[str, Attr],
    window: int,
    phase: Phase,
    cache: list[str],
) -> str:
    """Attention over what is here, and in decoding over the cache before it; new keys and values
    are kept.
    """
    past: tuple[str, ...] = ()
    if phase is Phase.DECODE:
        batch, seq = symbol("batch"), symbol("seq")
        number, kept = len(cache) // 2, minimum(seq, window - 1) if window else seq
        past = (
            "",
            *(net.input(f"cache.{number}.{n}", (batch, d.groups, kept, d.per_head)) for n in "kv"),
        )
    if phase is not Phase.FORWARD:
        cache += qkv[1:]
    return net.op("attention", *qkv, *past, name="attend", attrs=attrs)


def _latent_attention(
    net: Net, d: Decoder, x: str, angles: tuple[str, str], phase: Phase, cache: list[str]
) -> str:
    """Keys and values are expanded from the latent, or in decoding the queries are brought to it
    (section 2.1.2).
    """
    m = d.latent
    assert m is not None
    query = m.nope_dim + m.rope_dim
    if m.q_rank:
        low = net.rms_norm(
            net.linear(x, "q_a", d.width, m.q_rank, bias=d.qkv_bias),
            "q_a.norm",
            m.q_rank,
            d.epsilon,
        )
        whole = net.linear(low, "q_b", m.q_rank, d.heads * query, bias=False)
    else:
        whole = net.linear(x, "q", d.width, d.heads * query, bias=False)
    q = net.reshape(whole, "q.split", 0, 0, d.heads, query)
    q_nope, q_rope = net.ops(
        "split",
        q,
        net.ints("q.sizes", m.nope_dim, m.rope_dim),
        name="q.parts",
        outputs=2,
        attrs={"axis": -1},
    )
    q_rope = _rope_heads(net, q_rope, angles, "q.rope", d.heads, m.rope_dim)
    both = net.linear(x, "kv_a", d.width, m.kv_rank + m.rope_dim, bias=d.qkv_bias)
    latent, k_rope = net.ops(
        "split",
        both,
        net.ints("kv.sizes", m.kv_rank, m.rope_dim),
        name="kv.parts",
        outputs=2,
        attrs={"axis": -1},
    )
    latent = net.rms_norm(latent, "kv_a.norm", m.kv_rank, d.epsilon)
    k_rope = _rotated(net, k_rope, angles, "k.rope", 1)
    attrs: dict[str, Attr] = {"scale": query**-0.5, "is_causal": int(phase is not Phase.DECODE)}
    keys = net.weight("kv_b.keys", d.heads, m.nope_dim, m.kv_rank)
    values = net.weight("kv_b.values", d.heads, m.kv_rank, m.value_dim)
    parts = _Parts(q_nope, q_rope, latent, k_rope, keys, values)
    y = (_absorbed if phase is Phase.DECODE else _expanded)(net, m, parts, attrs)
    if phase is not Phase.FORWARD:
        cache += [latent, k_rope]
    joined = net.reshape(
        net.op("transpose", y, name="heads.last", attrs={"perm": (0, 2, 1, 3)}),
        "heads.join",
        0,
        0,
        d.heads * m.value_dim,
    )
    return net.linear(joined, "out", d.heads * m.value_dim, d.width, bias=d.out_bias)


def _rope_heads(net: Net, x: str, angles: tuple[str, str], name: str, heads: int, dim: int) -> str:
    """Rotation of [batch, seq, heads, dim]."""
    flat = net.reshape(x, f"{name}.flat", 0, 0, heads * dim)
    return net.reshape(_rotated(net, flat, angles, name, heads), f"{name}.heads", 0, 0, heads, dim)


def _einsum(net: Net, equation: str, x: str, w: str, name: str) -> str:
    return net.op("einsum", x, w, name=name, attrs={"equation": equation})


def _joined(net: Net, parts: tuple[str, str], name: str) -> str:
    return net.op("concat", *parts, name=name, attrs={"axis": -1})


def _heads_first(net: Net, x: str, name: str) -> str:
    return net.op("transpose", x, name=name, attrs={"perm": (0, 2, 1, 3)})


class _Parts(NamedTuple):
    """What latent attention is made of: values by name, and the weights that lead out of the
    latent.
    """

    q_nope: str
    q_rope: str
    latent: str
    k_rope: str
    keys: str
    values: str


def _expanded(net: Net, m: Latent, p: _Parts, attrs: dict[str, Attr]) -> str:
    """Every head has its own keys and values."""
    q = _heads_first(net, _joined(net, (p.q_nope, p.q_rope), "q.joined"), "q.heads")
    k_nope = _einsum(net, "bsr,hnr->bhsn", p.latent, p.keys, "kv_b.k")
    v = _einsum(net, "bsr,hrv->bhsv", p.latent, p.values, "kv_b.v")
    one = net.op("unsqueeze", p.k_rope, net.ints("k.axis", 1), name="k.one")
    shape = net.op("shape", k_nope, name="k.shape")
    lead = net.op("slice", shape, net.ints("k.from", 0), net.ints("k.to", 3), name="k.lead")
    target = net.op(
        "concat", lead, net.ints("k.rope_dim", m.rope_dim), name="k.target", attrs={"axis": 0}
    )
    k = _joined(net, (k_nope, net.op("expand", one, target, name="k.all")), "k.joined")
    return net.op("attention", q, k, v, name="attend", attrs=attrs)


def _absorbed(net: Net, m: Latent, p: _Parts, attrs: dict[str, Attr]) -> str:
    """All heads share one key, the cached latent with its rotated part, and one value, the
    latent.
    """
    q_latent = _einsum(net, "bshn,hnr->bhsr", p.q_nope, p.keys, "kv_b.q")
    q = _joined(net, (q_latent, _heads_first(net, p.q_rope, "q.rope.first")), "q.joined")
    axis = net.ints("kv.axis", 1)
    v = net.op("unsqueeze", p.latent, axis, name="v.one")
    k = _joined(net, (v, net.op("unsqueeze", p.k_rope, axis, name="k.one")), "k.joined")
    past = net.input(net.path("cache"), (symbol("batch"), 1, symbol("seq"), m.kv_rank + m.rope_dim))
    cut = (net.ints("v.from", 0), net.ints("v.to", m.kv_rank), net.ints("v.axis", 3))
    past_v = net.op("slice", past, *cut, name="v.past")
    y = net.op("attention", q, k, v, "", past, past_v, name="attend", attrs=attrs)
    return _einsum(net, "bhsr,hrv->bhsv", y, p.values, "kv_b.v")


def _capped(net: Net, x: str, cap: float) -> str:
    """cap * tanh(x / cap) (Gemma 2)."""
    small = net.op("div", x, net.number("cap.over", cap), name="cap.div")
    return net.op(
        "mul", net.op("tanh", small, name="cap.tanh"), net.number("cap.times", cap), name="cap.mul"
    )
