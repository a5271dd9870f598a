"""Decoders from their configurations: a reader for each architecture.

Fields that are missing take the defaults of the transformers library's configuration classes
(4.57.1).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from tenfold.errors import ModelError
from tenfold.families import Decoder
from tenfold.families.decoder import Experts, Function, Latent
from tenfold.families.heads import Head
from tenfold.importers.configuration import Config


def _llama(
    c: Config,
    *,
    width: int = 4096,
    inner: int = 11008,
    layers: int = 32,
    heads: int = 32,
    kv: int | None = None,
    vocabulary: int = 32000,
    epsilon: float = 1e-6,
    tied: bool = False,
    head_dim: int = 0,
    function: Function | None = None,
) -> Decoder:
    """What all decoders in the manner of Llama share, with the defaults that differ."""
    heads = c.number("num_attention_heads", heads)
    return Decoder(
        layers=c.number("num_hidden_layers", layers),
        width=c.number("hidden_size", width),
        inner=c.number("intermediate_size", inner),
        heads=heads,
        vocabulary=c.number("vocab_size", vocabulary),
        kv_heads=c.number("num_key_value_heads", kv or heads),
        head_dim=c.number("head_dim", head_dim, 0),
        epsilon=c.real("rms_norm_eps", epsilon),
        rope_theta=c.theta(),
        tied=c.flag("tie_word_embeddings", tied),
        function=function or c.function("hidden_act", "silu"),
        **_ending(c),
    )


def _ending(c: Config) -> dict[str, Any]:
    """What a decoder ends in, by ``architectures``."""
    head = {
        "": Head.VOCABULARY,
        "ForCausalLM": Head.VOCABULARY,
        "LMHeadModel": Head.VOCABULARY,
        "ForConditionalGeneration": Head.VOCABULARY,
        "ForSequenceClassification": Head.CLASSES,
        "Model": Head.NONE,
    }[
        c.architecture(
            "ForCausalLM",
            "LMHeadModel",
            "ForConditionalGeneration",
            "ForSequenceClassification",
            "Model",
        )
    ]
    return {"head": head, "classes": c.labels() if head is Head.CLASSES else 0}


def plain_llama(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    return replace(_llama(c), qkv_bias=bias, out_bias=bias, mlp_bias=c.flag("mlp_bias", False))


def _later_layers(c: Config) -> tuple[int, ...]:
    """Qwen's windows: only where asked for, in the layers from ``max_window_layers`` on."""
    first = c.number("max_window_layers", 28, 0)
    return c.windows(4096, lambda i: i >= first, used=c.flag("use_sliding_window", False))


def qwen2(c: Config) -> Decoder:
    kv = 32 if "num_key_value_heads" not in c.fields else None
    return replace(
        _llama(c, inner=22016, kv=kv, vocabulary=151936), qkv_bias=True, windows=_later_layers(c)
    )


def qwen3(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    return replace(
        _llama(c, inner=22016, kv=32, vocabulary=151936, head_dim=128),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        windows=_later_layers(c),
    )


def mistral(c: Config) -> Decoder:
    return replace(_llama(c, inner=14336, kv=8), windows=c.windows(4096, lambda _i: True))


def mixtral(c: Config) -> Decoder:
    inner = c.number("intermediate_size", 14336)
    experts = Experts(c.number("num_local_experts", 8), c.number("num_experts_per_tok", 2), inner)
    return replace(
        _llama(c, inner=14336, kv=8, epsilon=1e-5),
        experts=experts,
        windows=c.windows(None, lambda _i: True),
    )


def gemma(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    function = c.function("hidden_activation", "gelu_pytorch_tanh")
    return replace(
        _llama(
            c,
            width=3072,
            inner=24576,
            layers=28,
            heads=16,
            kv=16,
            vocabulary=256000,
            tied=True,
            head_dim=256,
            function=function,
        ),
        qkv_bias=bias,
        out_bias=bias,
        scaled_embedding=True,
    )


def _gemma_later(c: Config, vocabulary: int) -> Decoder:
    """Gemma 2 and 3: norms before and after; the windows are theirs to say."""
    scale = c.real("query_pre_attn_scalar", 256, 0) ** -0.5
    function = c.function("hidden_activation", "gelu_pytorch_tanh")
    return replace(
        _llama(
            c,
            width=2304,
            inner=9216,
            layers=26,
            heads=8,
            kv=4,
            vocabulary=vocabulary,
            tied=True,
            head_dim=256,
            function=function,
        ),
        scaled_embedding=True,
        post_norms=True,
        query_scale=scale,
    )


def gemma2(c: Config) -> Decoder:
    """Every second layer within a window."""
    return replace(
        _gemma_later(c, 256000),
        softcap=c.if_any("attn_logit_softcapping", 50),
        logit_softcap=c.if_any("final_logit_softcapping", 30),
        windows=c.windows(4096, lambda i: i % 2 == 0, 26),
    )


def gemma3(c: Config) -> Decoder:
    """All layers but every sixth within a window."""
    every = c.number("sliding_window_pattern", 6)
    return replace(
        _gemma_later(c, 262208),
        qk_norm=True,
        windows=c.windows(4096, lambda i: (i + 1) % every != 0, 26),
        local_theta=c.real("rope_local_base_freq", 10000, 0),
    )


def qwen3_moe(c: Config) -> Decoder:
    if c.fields.get("mlp_only_layers"):
        raise ModelError(f"{c.where}: 'mlp_only_layers' is not supported")
    every = c.number("decoder_sparse_step", 1)
    experts = Experts(
        c.number("num_experts", 128),
        c.number("num_experts_per_tok", 8),
        c.number("moe_intermediate_size", 768),
        every=every,
    )
    bias = c.flag("attention_bias", False)
    return replace(
        _llama(c, width=2048, inner=6144, layers=24, kv=4, vocabulary=151936),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        experts=experts,
        windows=_later_layers(c),
    )


def _deepseek(c: Config, base: Decoder, experts: Experts) -> Decoder:
    """Latent attention and experts beside shared ones, from layer ``first_k_dense_replace`` on."""
    if c.number("moe_layer_freq", 1) != 1:
        raise ModelError(
            f"{c.where}: 'moe_layer_freq' must be 1: experts in every layer from"
            " 'first_k_dense_replace' on"
        )
    if experts.first >= base.layers:
        raise ModelError(
            f"{c.where}: 'first_k_dense_replace' of {experts.first} leaves none of"
            f" {base.layers} layers for the experts"
        )
    low = (
        0
        if "q_lora_rank" in c.fields and c.fields["q_lora_rank"] is None
        else c.number("q_lora_rank", 1536)
    )
    latent = Latent(
        low,
        c.number("kv_lora_rank", 512),
        c.number("qk_nope_head_dim", 128),
        c.number("qk_rope_head_dim", 64),
        c.number("v_head_dim", 128),
    )
    bias = c.flag("attention_bias", False)
    return replace(base, experts=experts, latent=latent, qkv_bias=bias)


def deepseek2(c: Config) -> Decoder:
    inner = c.number("moe_intermediate_size", 1407)
    experts = Experts(
        c.number("n_routed_experts", 64),
        c.number("num_experts_per_tok", None),
        inner,
        first=c.number("first_k_dense_replace", 0, 0),
        shared_inner=inner * c.number("n_shared_experts", 2, 0),
        scale=c.real("routed_scaling_factor", 1.0),
    )
    return _deepseek(c, _llama(c), experts)


def deepseek3(c: Config) -> Decoder:
    inner = c.number("moe_intermediate_size", 2048)
    experts = Experts(
        count=c.number("n_routed_experts", 256),
        top_k=c.number("num_experts_per_tok", 8),
        inner=inner,
        first=c.number("first_k_dense_replace", 3, 0),
        shared_inner=inner * c.number("n_shared_experts", 1, 0),
        score="sigmoid",
        bias=True,
        scale=c.real("routed_scaling_factor", 2.5),
    )
    base = _llama(c, width=7168, inner=18432, layers=61, heads=128, kv=128, vocabulary=129280)
    return _deepseek(c, base, experts)


def gpt2(c: Config) -> Decoder:
    width = c.number("n_embd", 768)
    return Decoder(
        layers=c.number("n_layer", 12),
        width=width,
        inner=c.number("n_inner", 4 * width),
        heads=c.number("n_head", 12),
        vocabulary=c.number("vocab_size", 50257),
        positions=c.number("n_positions", 1024),
        rope=False,
        norm="layer",
        epsilon=c.real("layer_norm_epsilon", 1e-5),
        function=c.function("activation_function", "gelu_new"),
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=c.flag("tie_word_embeddings", True),
        **_ending(c),
    )


def opt(c: Config) -> Decoder:
    """Zhang et al. 2022, OPT: GPT-2's block with ReLU; its table of positions begins two later."""
    width = c.number("hidden_size", 768)
    if not c.flag("do_layer_norm_before", True) or c.number("word_embed_proj_dim", width) != width:
        raise ModelError(
            f"{c.where}: OPT with norms after its blocks, or words narrower than its layers"
            " (OPT-350M), is not read"
        )
    return Decoder(
        layers=c.number("num_hidden_layers", 12),
        width=width,
        inner=c.number("ffn_dim", 3072),
        heads=c.number("num_attention_heads", 12),
        vocabulary=c.number("vocab_size", 50272),
        positions=c.number("max_position_embeddings", 2048) + OPT_RESERVED,
        reserved=OPT_RESERVED,
        rope=False,
        norm="layer",
        epsilon=1e-5,
        function=c.function("activation_function", "relu"),
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=c.flag("tie_word_embeddings", True),
        **_ending(c),
    )


OPT_RESERVED = 2


def phi3(c: Config) -> Decoder:
    """Queries, keys and values, and gate and up, are one product each there: the same shapes."""
    return replace(
        _llama(c, width=3072, inner=8192, vocabulary=32064, epsilon=1e-5),
        windows=c.windows(None, lambda _i: True),
    )
