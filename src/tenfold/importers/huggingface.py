"""Hugging Face ``config.json``: the architecture without its weights, and without torch or
transformers.

Fields that are missing take the defaults of the transformers library's configuration classes
(4.57.1). Fields that change no shape and no cost (dropout, initialisers, token numbers …) are
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tenfold.errors import InputError, ModelError
from tenfold.families import FAMILIES, build
from tenfold.families.heads import Head
from tenfold.files import read_text
from tenfold.importers import decoders, encoders
from tenfold.importers.configuration import LARGEST, Config
from tenfold.ir.dtypes import DType
from tenfold.ir.graph import Graph

_DTYPES = {"float32": DType.F32, "float16": DType.F16, "bfloat16": DType.BF16}


ARCHITECTURES: Mapping[str, tuple[str, Callable[[Config], Any]]] = {
    "llama": ("decoder", decoders.plain_llama),
    "qwen2": ("decoder", decoders.qwen2),
    "qwen3": ("decoder", decoders.qwen3),
    "qwen3_moe": ("decoder", decoders.qwen3_moe),
    "mistral": ("decoder", decoders.mistral),
    "mixtral": ("decoder", decoders.mixtral),
    "gemma": ("decoder", decoders.gemma),
    "gemma2": ("decoder", decoders.gemma2),
    "gemma3_text": ("decoder", decoders.gemma3),
    "deepseek_v2": ("decoder", decoders.deepseek2),
    "deepseek_v3": ("decoder", decoders.deepseek3),
    "gpt2": ("decoder", decoders.gpt2),
    "opt": ("decoder", decoders.opt),
    "bert": ("encoder", encoders.bert),
    "roberta": ("encoder", encoders.roberta),
    "distilbert": ("encoder", encoders.distilbert),
    "vit": ("encoder", encoders.vit),
    "t5": ("seq2seq", encoders.t5),
    "mt5": ("seq2seq", partial(encoders.t5, small=True)),
    "switch_transformers": ("seq2seq", encoders.switch),
    "phi3": ("decoder", decoders.phi3),
    # the same under another name
    "kimi_k2": ("decoder", decoders.deepseek3),
    "xlm-roberta": ("encoder", encoders.roberta),
    "camembert": ("encoder", encoders.roberta),
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


# the text model of one that sees too, under text_config
_WITHIN = {"gemma3": "gemma3_text", "mistral3": "mistral"}


def load_config(path: str | Path, phase: str | None = None) -> Graph:
    """The graph that a ``config.json`` describes, with free ``batch`` and ``seq``.

    Raises ModelError for a file that is no configuration, contradicts itself, or is of an
    architecture that is not known, InputError for a phase that the architecture does not have.
    """
    return from_fields(str(path), _fields(Path(path)), phase)


def config_generates(path: str | Path) -> bool:
    """Whether what a ``config.json`` describes generates token by token; raises as
    ``load_config``.
    """
    found = _described(str(path), _fields(Path(path)))
    ends = getattr(found.shape, "head", Head.NONE) is Head.VOCABULARY
    return FAMILIES[found.family].generates and ends and not _alone(found.shape)


def _alone(shape: msgspec.Struct) -> bool:
    return bool(getattr(shape, "encoder_only", False))


def _fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(read_text(path, most=LARGEST))
    except InputError as error:
        raise ModelError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ModelError(f"{path}: a configuration is a JSON object, found {type(fields).__name__}")
    return fields


def from_fields(where: str, fields: Mapping[str, Any], phase: str | None = None) -> Graph:
    """As ``load_config``, from the fields themselves. Of a model that also sees, the text model."""
    found = _described(where, fields)
    return build(found.name, found.family, found.shape, phase, found.dtype)


@dataclass(frozen=True, slots=True)
class _Described:
    """What a configuration says: a network of a family."""

    name: str
    family: str
    shape: msgspec.Struct
    dtype: DType


def _described(where: str, fields: Mapping[str, Any]) -> _Described:
    kind = fields.get("model_type")
    _check_stored(where, fields)
    if isinstance(kind, str) and kind in _WITHIN:
        text = fields.get("text_config")
        if not isinstance(text, dict):
            raise ModelError(f"{where}: a '{kind}' needs its 'text_config'")
        return _described(
            f"{where}, text_config", {**_stored(fields), **text, "model_type": _WITHIN[kind]}
        )
    if not isinstance(kind, str):
        raise ModelError(f"{where}: 'model_type' is missing: known are {', '.join(ARCHITECTURES)}")
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{where}: the architecture '{kind[:60]}' is not read: known are"
            f" {', '.join(ARCHITECTURES)} (under another's name it would be another network)"
        )
    family, read = ARCHITECTURES[kind]
    written = next(iter(_stored(fields).values()), "float32")
    dtype = _DTYPES.get(written.removeprefix("torch.")) if isinstance(written, str) else None
    if dtype is None:
        raise ModelError(f"{where}: 'torch_dtype' is {written!r}: known are {', '.join(_DTYPES)}")
    name = fields.get("_name_or_path")
    others = _OTHER_NAMES.get(kind, {})
    aliased = {own: fields[n] for n, own in others.items() if n in fields and own not in fields}
    shape = read(Config(where, {**fields, **aliased}))
    return _Described(name if isinstance(name, str) and name else kind, family, shape, dtype)


def _check_stored(where: str, fields: Mapping[str, Any]) -> None:
    """Raises ModelError for weights that are stored in a form that is not modelled."""
    for field in ("quantization_config", "compression_config"):
        given = fields.get(field)
        if given is None or given == {}:
            continue
        method = given.get("quant_method") if isinstance(given, dict) else None
        bits = given.get("bits") if isinstance(given, dict) else None
        said = ", ".join(x for x in (str(method or ""), f"{bits} bits" if bits else "") if x)
        raise ModelError(
            f"{where}: '{field}'{f' ({said})' if said else ''} is not modelled: its weights would"
            " be read at 16 bits. Take it out to price them so, with --dtype int8 or fp8 for 8 bits"
        )


def _stored(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The field that says how weights are stored, under either of its names."""
    return {n: fields[n] for n in ("torch_dtype", "dtype") if fields.get(n)}
