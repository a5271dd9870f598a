"""Hugging Face ``config.json``: the architecture without its weights, and without torch or transformers.

Fields that are missing take the defaults of the transformers library's configuration classes (4.57.1).
Fields that change no shape and no cost (dropout, initialisers, token numbers …) are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tenfold.errors import ModelError, UnknownName
from tenfold.families import Decoder, Encoder, Seq2Seq, build
from tenfold.families.decoder import Experts, Latent
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph

LARGEST = 1 << 24  # bytes of a configuration file; real ones have a few thousand
_FUNCTIONS = {"silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
              "gelu_fast": "gelu_tanh", "gelu_python": "gelu"}  # fmt: skip
_DTYPES = {"float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16}


class Config:
    """The fields of a configuration, read with type, range and default."""

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        self.where, self.fields = where, fields

    def number(self, name: str, default: int | None, least: int = 1) -> int:
        """A whole number; a null field and a missing one take the default. Raises ModelError naming the field."""
        value = self.fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 40:
            raise ModelError(f"{self.where}: '{name}' must be a whole number of at least {least}, found {value!r}")
        return value

    def real(self, name: str, default: float, above: float = -1.0) -> float:
        value = self.fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12 or value <= above:
            least = "above 0" if above == 0 else "of at least 0"
            raise ModelError(f"{self.where}: '{name}' must be a number {least}, found {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.fields.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: '{name}' must be true or false, found {value!r}")
        return value

    def function(self, name: str, default: str) -> Any:
        value = self.fields.get(name) or default
        if not isinstance(value, str) or value not in _FUNCTIONS:
            raise ModelError(f"{self.where}: '{name}' is {value!r}: known are {', '.join(_FUNCTIONS)}")
        return _FUNCTIONS[value]

    def theta(self, default: float = 10000.0) -> float:
        """``rope_theta``, which version 5 of the library keeps in ``rope_parameters``."""
        nested = self.fields.get("rope_parameters")
        return (
            Config(self.where, nested).real("rope_theta", default, 0) if isinstance(nested, dict) else self.real("rope_theta", default, 0)
        )

    def windows(self, default: int | None, windowed: Callable[[int], bool], layers: int = 32, used: bool = True) -> tuple[int, ...]:
        """The sliding window of each layer, 0 where it sees everything: by ``layer_types``, else where ``windowed`` says.

        A ``sliding_window`` of null is none; a missing one is the ``default``.
        """
        size = self.number("sliding_window", default) if self.fields.get("sliding_window", default) is not None else 0
        layers, kinds = self.number("num_hidden_layers", layers), self.fields.get("layer_types")
        if kinds is None:
            return tuple(size if used and windowed(i) else 0 for i in range(layers)) if size else ()
        known = ("sliding_attention", "full_attention")
        if not isinstance(kinds, list) or len(kinds) != layers or any(k not in known for k in kinds):
            raise ModelError(f"{self.where}: 'layer_types' must list {layers} of {', '.join(known)}, found {str(kinds)[:80]}")
        return tuple(size if k == known[0] else 0 for k in kinds)


def _llama(c: Config, *, width: int = 4096, inner: int = 11008, layers: int = 32, heads: int = 32, kv: int | None = None,
           vocabulary: int = 32000, epsilon: float = 1e-6, tied: bool = False, head_dim: int = 0, **more: Any) -> Decoder:  # fmt: skip
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
    return _llama(c, inner=22016, kv=32, vocabulary=151936, head_dim=128, qkv_bias=bias, out_bias=bias, qk_norm=True,
                  windows=_later_layers(c))  # fmt: skip


def _mistral(c: Config) -> Decoder:
    return _llama(c, inner=14336, kv=8, windows=c.windows(4096, lambda i: True))


def _mixtral(c: Config) -> Decoder:
    inner = c.number("intermediate_size", 14336)
    experts = Experts(c.number("num_local_experts", 8), c.number("num_experts_per_tok", 2), inner)
    return _llama(c, inner=14336, kv=8, epsilon=1e-5, experts=experts, windows=c.windows(None, lambda i: True))


def _gemma(c: Config) -> Decoder:
    bias = c.flag("attention_bias", False)
    function = c.function("hidden_activation", "gelu_pytorch_tanh")
    return _llama(c, width=3072, inner=24576, layers=28, heads=16, kv=16, vocabulary=256000, tied=True, head_dim=256, qkv_bias=bias,
                  out_bias=bias, scaled_embedding=True, function=function)  # fmt: skip


def _gemma_later(c: Config, vocabulary: int, **more: Any) -> Decoder:
    """Gemma 2 and 3: norms before and after; every second layer, or all but every sixth, within a window."""
    scale = c.real("query_pre_attn_scalar", 256, 0) ** -0.5
    function = c.function("hidden_activation", "gelu_pytorch_tanh")
    return _llama(c, width=2304, inner=9216, layers=26, heads=8, kv=4, vocabulary=vocabulary, tied=True, head_dim=256,
                  scaled_embedding=True, post_norms=True, query_scale=scale, function=function, **more)  # fmt: skip


def _gemma2(c: Config) -> Decoder:
    caps = {"softcap": c.real("attn_logit_softcapping", 50), "logit_softcap": c.real("final_logit_softcapping", 30)}
    return _gemma_later(c, 256000, windows=c.windows(4096, lambda i: i % 2 == 0, 26), **caps)


def _gemma3(c: Config) -> Decoder:
    every = c.number("sliding_window_pattern", 6)
    return _gemma_later(c, 262208, qk_norm=True, windows=c.windows(4096, lambda i: (i + 1) % every != 0, 26),
                        local_theta=c.real("rope_local_base_freq", 10000, 0))  # fmt: skip


def _deepseek(c: Config) -> Decoder:
    inner = c.number("moe_intermediate_size", 2048)
    experts = Experts(
        c.number("n_routed_experts", 256), c.number("num_experts_per_tok", 8), inner, first=c.number("first_k_dense_replace", 3, 0),
        shared_inner=inner * c.number("n_shared_experts", 1, 0), score="sigmoid", bias=True, scale=c.real("routed_scaling_factor", 2.5),
    )  # fmt: skip
    latent = Latent(
        c.number("q_lora_rank", 1536), c.number("kv_lora_rank", 512), c.number("qk_nope_head_dim", 128), c.number("qk_rope_head_dim", 64),
        c.number("v_head_dim", 128),
    )  # fmt: skip
    return _llama(c, width=7168, inner=18432, layers=61, heads=128, kv=128, vocabulary=129280, experts=experts, latent=latent,
                  qkv_bias=c.flag("attention_bias", False))  # fmt: skip


def _gpt2(c: Config) -> Decoder:
    width = c.number("n_embd", 768)
    return Decoder(
        layers=c.number("n_layer", 12), width=width, inner=c.number("n_inner", 4 * width), heads=c.number("n_head", 12),
        vocabulary=c.number("vocab_size", 50257), positions=c.number("n_positions", 1024), rope=False, norm="layer",
        epsilon=c.real("layer_norm_epsilon", 1e-5), function=c.function("activation_function", "gelu_new"), gated=False, qkv_bias=True,
        out_bias=True, mlp_bias=True, tied=c.flag("tie_word_embeddings", True),
    )  # fmt: skip


def _bert(c: Config) -> Encoder:
    return Encoder(
        layers=c.number("num_hidden_layers", 12), width=c.number("hidden_size", 768), inner=c.number("intermediate_size", 3072),
        heads=c.number("num_attention_heads", 12), vocabulary=c.number("vocab_size", 30522),
        positions=c.number("max_position_embeddings", 512), types=c.number("type_vocab_size", 2), pooler=True,
        function=c.function("hidden_act", "gelu"), epsilon=c.real("layer_norm_eps", 1e-12),
    )  # fmt: skip


def _vit(c: Config) -> Encoder:
    labels = c.fields.get("id2label")
    return Encoder(
        layers=c.number("num_hidden_layers", 12), width=c.number("hidden_size", 768), inner=c.number("intermediate_size", 3072),
        heads=c.number("num_attention_heads", 12), image=c.number("image_size", 224), patch=c.number("patch_size", 16),
        channels=c.number("num_channels", 3), classes=len(labels) if isinstance(labels, dict) else c.number("num_labels", 2), pre_norm=True,
        qkv_bias=c.flag("qkv_bias", True), function=c.function("hidden_act", "gelu"), epsilon=c.real("layer_norm_eps", 1e-12),
    )  # fmt: skip


def _t5(c: Config) -> Seq2Seq:
    projection = c.fields.get("feed_forward_proj") or "relu"
    gated = isinstance(projection, str) and projection.startswith("gated-")
    name = str(projection).removeprefix("gated-")
    written = Config(c.where, {"feed_forward_proj": "gelu_new" if gated and name == "gelu" else name})
    function = written.function("feed_forward_proj", "relu")
    layers = c.number("num_layers", 6)
    return Seq2Seq(
        layers=layers, width=c.number("d_model", 512), inner=c.number("d_ff", 2048), heads=c.number("num_heads", 8),
        head_dim=c.number("d_kv", 64), vocabulary=c.number("vocab_size", 32128), decoder_layers=c.number("num_decoder_layers", layers),
        buckets=c.number("relative_attention_num_buckets", 32), gated=gated, function=function, tied=c.flag("tie_word_embeddings", True),
    )  # fmt: skip


ARCHITECTURES: Mapping[str, tuple[str, Callable[[Config], Any]]] = {
    "llama": ("decoder", _plain_llama),
    "qwen2": ("decoder", _qwen2),
    "qwen3": ("decoder", _qwen3),
    "mistral": ("decoder", _mistral),
    "mixtral": ("decoder", _mixtral),
    "gemma": ("decoder", _gemma),
    "gemma2": ("decoder", _gemma2),
    "gemma3_text": ("decoder", _gemma3),
    "deepseek_v3": ("decoder", _deepseek),
    "gpt2": ("decoder", _gpt2),
    "bert": ("encoder", _bert),
    "vit": ("encoder", _vit),
    "t5": ("seq2seq", _t5),
}


def load_config(path: str | Path, phase: str | None = None) -> Graph:
    """The graph that a ``config.json`` describes, with free ``batch`` and ``seq``.

    Raises ModelError for a file that is no configuration or contradicts itself, UnknownName for an architecture that is not
    known, InputError for a phase that the architecture does not have.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path}: {path.stat().st_size:,} bytes are too many for a configuration (limit {LARGEST:,})")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: a configuration is a JSON object, found {type(fields).__name__}")
    return from_fields(str(path), fields, phase)


def from_fields(where: str, fields: Mapping[str, Any], phase: str | None = None) -> Graph:
    """As ``load_config``, from the fields themselves."""
    kind = fields.get("model_type")
    if not isinstance(kind, str):
        raise ModelError(f"{where}: 'model_type' is missing: known are {', '.join(ARCHITECTURES)}")
    if kind not in ARCHITECTURES:
        raise UnknownName("architecture", kind, ARCHITECTURES, f"('model_type' in {where})")
    family, read = ARCHITECTURES[kind]
    written = fields.get("torch_dtype") or fields.get("dtype") or "float32"
    dtype = _DTYPES.get(written) if isinstance(written, str) else None
    if dtype is None:
        raise ModelError(f"{where}: 'torch_dtype' is {written!r}: known are {', '.join(_DTYPES)}")
    name = fields.get("_name_or_path")
    shape = read(Config(where, fields))
    return build(name if isinstance(name, str) and name else kind, family, shape, phase, dtype)
