"""Hugging Face ``config.json``: the architecture without its weights, and without torch or
transformers.

Fields that are missing take the defaults of the transformers library's configuration classes
(4.57.1). Fields that change no shape and no cost (dropout, initialisers, token numbers …) are
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tenfold.errors import ModelError, UnknownName
from tenfold.families import Decoder, Encoder, Seq2Seq, build
from tenfold.families.decoder import Experts, Latent
from tenfold.importers.configuration import LARGEST, Config
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph

_DTYPES = {"float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16}


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
    **more: Any,
) -> Decoder:
    """What all decoders in the manner of Llama share."""
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
        function=more.pop("function", None) or c.function("hidden_act", "silu"),
        **more,
    )


def _plain_llama(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    return _llama(c, qkv_bias=bias, out_bias=bias, mlp_bias=c.flag("mlp_bias", False))


def _later_layers(c: Config) -> tuple[int, ...]:
    """Qwen's windows: only where asked for, in the layers from ``max_window_layers`` on."""
    first = c.number("max_window_layers", 28, 0)
    return c.windows(4096, lambda i: i >= first, used=c.flag("use_sliding_window", False))


def _qwen2(c: Config) -> Decoder:
    kv = 32 if "num_key_value_heads" not in c.fields else None
    return _llama(c, inner=22016, kv=kv, vocabulary=151936, qkv_bias=True, windows=_later_layers(c))


def _qwen3(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    return _llama(
        c,
        inner=22016,
        kv=32,
        vocabulary=151936,
        head_dim=128,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        windows=_later_layers(c),
    )


def _mistral(c: Config) -> Decoder:
    return _llama(c, inner=14336, kv=8, windows=c.windows(4096, lambda _i: True))


def _mixtral(c: Config) -> Decoder:
    inner = c.number("intermediate_size", 14336)
    experts = Experts(c.number("num_local_experts", 8), c.number("num_experts_per_tok", 2), inner)
    return _llama(
        c,
        inner=14336,
        kv=8,
        epsilon=1e-5,
        experts=experts,
        windows=c.windows(None, lambda _i: True),
    )


def _gemma(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    function = c.function("hidden_activation", "gelu_pytorch_tanh")
    return _llama(
        c,
        width=3072,
        inner=24576,
        layers=28,
        heads=16,
        kv=16,
        vocabulary=256000,
        tied=True,
        head_dim=256,
        qkv_bias=bias,
        out_bias=bias,
        scaled_embedding=True,
        function=function,
    )


def _gemma_later(c: Config, vocabulary: int, **more: Any) -> Decoder:
    """Gemma 2 and 3: norms before and after; every second layer, or all but every sixth, within a
    window.
    """
    scale = c.real("query_pre_attn_scalar", 256, 0) ** -0.5
    function = c.function("hidden_activation", "gelu_pytorch_tanh")
    return _llama(
        c,
        width=2304,
        inner=9216,
        layers=26,
        heads=8,
        kv=4,
        vocabulary=vocabulary,
        tied=True,
        head_dim=256,
        scaled_embedding=True,
        post_norms=True,
        query_scale=scale,
        function=function,
        **more,
    )


def _gemma2(c: Config) -> Decoder:
    caps = {
        "softcap": c.if_any("attn_logit_softcapping", 50),
        "logit_softcap": c.if_any("final_logit_softcapping", 30),
    }
    return _gemma_later(c, 256000, windows=c.windows(4096, lambda i: i % 2 == 0, 26), **caps)


def _gemma3(c: Config) -> Decoder:
    every = c.number("sliding_window_pattern", 6)
    return _gemma_later(
        c,
        262208,
        qk_norm=True,
        windows=c.windows(4096, lambda i: (i + 1) % every != 0, 26),
        local_theta=c.real("rope_local_base_freq", 10000, 0),
    )


def _qwen3_moe(c: Config) -> Decoder:
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
    return _llama(
        c,
        width=2048,
        inner=6144,
        layers=24,
        kv=4,
        vocabulary=151936,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=True,
        experts=experts,
        windows=_later_layers(c),
    )


def _deepseek(c: Config, *, layers: int, experts: Experts, **more: Any) -> Decoder:
    """Latent attention and experts beside shared ones, from layer ``first_k_dense_replace`` on."""
    if c.number("moe_layer_freq", 1) != 1:
        raise ModelError(
            f"{c.where}: 'moe_layer_freq' must be 1: experts in every layer from"
            " 'first_k_dense_replace' on"
        )
    if experts.first >= (count := c.number("num_hidden_layers", layers)):
        raise ModelError(
            f"{c.where}: 'first_k_dense_replace' of {experts.first} leaves none of {count} layers"
            " for the experts"
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
    return _llama(
        c,
        layers=layers,
        experts=experts,
        latent=latent,
        qkv_bias=c.flag("attention_bias", False),
        **more,
    )


def _deepseek2(c: Config) -> Decoder:
    inner = c.number("moe_intermediate_size", 1407)
    experts = Experts(
        c.number("n_routed_experts", 64),
        c.number("num_experts_per_tok", None),
        inner,
        first=c.number("first_k_dense_replace", 0, 0),
        shared_inner=inner * c.number("n_shared_experts", 2, 0),
        scale=c.real("routed_scaling_factor", 1.0),
    )
    return _deepseek(c, layers=32, experts=experts)


def _deepseek3(c: Config) -> Decoder:
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
    return _deepseek(
        c, layers=61, experts=experts, width=7168, inner=18432, heads=128, kv=128, vocabulary=129280
    )


def _gpt2(c: Config) -> Decoder:
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
    )


def _bert(c: Config, vocabulary: int = 30522, positions: int = 512, reserved: int = 0) -> Encoder:
    return Encoder(
        layers=c.number("num_hidden_layers", 12),
        width=c.number("hidden_size", 768),
        inner=c.number("intermediate_size", 3072),
        heads=c.number("num_attention_heads", 12),
        vocabulary=c.number("vocab_size", vocabulary),
        reserved=reserved,
        positions=c.number("max_position_embeddings", positions),
        types=c.number("type_vocab_size", 2),
        pooler=True,
        function=c.function("hidden_act", "gelu"),
        epsilon=c.real("layer_norm_eps", 1e-12),
    )


def _roberta(c: Config) -> Encoder:
    """As BERT; positions are counted from the one after the padding token's."""
    return _bert(c, 50265, reserved=c.number("pad_token_id", 1, 0) + 1)


def _distilbert(c: Config) -> Encoder:
    return Encoder(
        layers=c.number("n_layers", 6),
        width=c.number("dim", 768),
        inner=c.number("hidden_dim", 3072),
        heads=c.number("n_heads", 12),
        vocabulary=c.number("vocab_size", 30522),
        positions=c.number("max_position_embeddings", 512),
        function=c.function("activation", "gelu"),
    )


def _vit(c: Config) -> Encoder:
    """Classifies, unless ``architectures`` names the bare model, which pools."""
    labels, bare = c.fields.get("id2label"), c.fields.get("architectures") == ["ViTModel"]
    classes = len(labels) if isinstance(labels, dict) else c.number("num_labels", 2)
    return Encoder(
        layers=c.number("num_hidden_layers", 12),
        width=c.number("hidden_size", 768),
        inner=c.number("intermediate_size", 3072),
        heads=c.number("num_attention_heads", 12),
        image=c.side("image_size", 224),
        patch=c.side("patch_size", 16),
        channels=c.number("num_channels", 3),
        classes=0 if bare else classes,
        pooler=bare,
        pre_norm=True,
        qkv_bias=c.flag("qkv_bias", True),
        function=c.function("hidden_act", "gelu"),
        epsilon=c.real("layer_norm_eps", 1e-12),
    )


def _t5(c: Config) -> Seq2Seq:
    projection = c.fields.get("feed_forward_proj") or "relu"
    gated = isinstance(projection, str) and projection.startswith("gated-")
    name = str(projection).removeprefix("gated-")
    written = Config(
        c.where, {"feed_forward_proj": "gelu_new" if gated and name == "gelu" else name}
    )
    function = written.function("feed_forward_proj", "relu")
    layers = c.number("num_layers", 6)
    return Seq2Seq(
        layers=layers,
        width=c.number("d_model", 512),
        inner=c.number("d_ff", 2048),
        heads=c.number("num_heads", 8),
        head_dim=c.number("d_kv", 64),
        vocabulary=c.number("vocab_size", 32128),
        decoder_layers=c.number("num_decoder_layers", layers),
        buckets=c.number("relative_attention_num_buckets", 32),
        gated=gated,
        function=function,
        tied=c.flag("tie_word_embeddings", True),
    )


ARCHITECTURES: Mapping[str, tuple[str, Callable[[Config], Any]]] = {
    "llama": ("decoder", _plain_llama),
    "qwen2": ("decoder", _qwen2),
    "qwen3": ("decoder", _qwen3),
    "qwen3_moe": ("decoder", _qwen3_moe),
    "mistral": ("decoder", _mistral),
    "mixtral": ("decoder", _mixtral),
    "gemma": ("decoder", _gemma),
    "gemma2": ("decoder", _gemma2),
    "gemma3_text": ("decoder", _gemma3),
    "deepseek_v2": ("decoder", _deepseek2),
    "deepseek_v3": ("decoder", _deepseek3),
    "gpt2": ("decoder", _gpt2),
    "bert": ("encoder", _bert),
    "roberta": ("encoder", _roberta),
    "distilbert": ("encoder", _distilbert),
    "vit": ("encoder", _vit),
    "t5": ("seq2seq", _t5),
}


_OTHER_NAMES: Mapping[str, Mapping[str, str]] = {  # that the library takes for a field
    "gpt2": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    },
    "t5": {
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "head_dim": "d_kv",
    },
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    },
}


_WITHIN = {"gemma3": "gemma3_text"}  # the text model of one that sees too, under text_config


def load_config(path: str | Path, phase: str | None = None) -> Graph:
    """The graph that a ``config.json`` describes, with free ``batch`` and ``seq``.

    Raises ModelError for a file that is no configuration or contradicts itself, UnknownName for an
    architecture that is not known, InputError for a phase that the architecture does not have.
    """
    return from_fields(str(path), _fields(Path(path)), phase)


def config_family(path: str | Path) -> str:
    """The family of networks that a ``config.json`` describes; raises as ``load_config``."""
    fields = _fields(Path(path))
    kind = str(fields.get("model_type"))
    kind = _WITHIN.get(kind, kind)
    if kind not in ARCHITECTURES:
        raise UnknownName("architecture", kind, ARCHITECTURES, f"('model_type' in {path})")
    return ARCHITECTURES[kind][0]


def _fields(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(
                f"{path}: {path.stat().st_size:,} bytes are too many for a configuration (limit"
                f" {LARGEST:,})"
            )
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: a configuration is a JSON object, found {type(fields).__name__}")
    return fields


def from_fields(where: str, fields: Mapping[str, Any], phase: str | None = None) -> Graph:
    """As ``load_config``, from the fields themselves. Of a model that also sees, the text model."""
    kind = fields.get("model_type")
    if isinstance(kind, str) and kind in _WITHIN:
        text = fields.get("text_config")
        if not isinstance(text, dict):
            raise ModelError(f"{where}: a '{kind}' needs its 'text_config'")
        return from_fields(
            f"{where}, text_config", {**_stored(fields), **text, "model_type": _WITHIN[kind]}, phase
        )
    if not isinstance(kind, str):
        raise ModelError(f"{where}: 'model_type' is missing: known are {', '.join(ARCHITECTURES)}")
    if kind not in ARCHITECTURES:
        raise UnknownName("architecture", kind, ARCHITECTURES, f"('model_type' in {where})")
    family, read = ARCHITECTURES[kind]
    written = next(iter(_stored(fields).values()), "float32")
    dtype = _DTYPES.get(written.removeprefix("torch.")) if isinstance(written, str) else None
    if dtype is None:
        raise ModelError(f"{where}: 'torch_dtype' is {written!r}: known are {', '.join(_DTYPES)}")
    name = fields.get("_name_or_path")
    others = _OTHER_NAMES.get(kind, {})
    shape = read(
        Config(
            where,
            {
                **fields,
                **{
                    own: fields[n] for n, own in others.items() if n in fields and own not in fields
                },
            },
        )
    )
    return build(name if isinstance(name, str) and name else kind, family, shape, phase, dtype)


def _stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The field that says how weights are stored, under either of its names."""
    return {n: fields[n] for n in ("torch_dtype", "dtype") if fields.get(n)}
