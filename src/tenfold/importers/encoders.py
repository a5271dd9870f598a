"""Encoders, and networks of two stacks, from their configurations; defaults as for decoders."""

from __future__ import annotations

from typing import Any

import msgspec

from tenfold.errors import ModelError
from tenfold.families import Encoder, Seq2Seq
from tenfold.families.decoder import Experts
from tenfold.families.heads import Head
from tenfold.importers.configuration import Config


def bert(c: Config, vocabulary: int = 30522, positions: int = 512, reserved: int = 0) -> Encoder:
    return Encoder(
        layers=c.number("num_hidden_layers", 12),
        width=c.number("hidden_size", 768),
        inner=c.number("intermediate_size", 3072),
        heads=c.number("num_attention_heads", 12),
        vocabulary=c.number("vocab_size", vocabulary),
        reserved=reserved,
        positions=c.number("max_position_embeddings", positions),
        types=c.number("type_vocab_size", 2),
        function=c.function("hidden_act", "gelu"),
        epsilon=c.real("layer_norm_eps", 1e-12),
        **_encoder_ending(c, pooler=True),
    )


def _encoder_ending(c: Config, *, pooler: bool) -> dict[str, Any]:
    """What an encoder of tokens ends in, by ``architectures``; ``pooler`` of the bare model."""
    match c.architecture(
        "Model",
        "ForMaskedLM",
        "LMHeadModel",
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForQuestionAnswering",
    ):
        case "ForMaskedLM" | "LMHeadModel":
            return {"masked_lm": True}
        case "ForSequenceClassification":
            return {"pooler": True, "classes": c.labels()}
        case "ForTokenClassification":
            return {"token_classes": c.labels()}
        case "ForQuestionAnswering":  # where the answer begins, and where it ends
            return {"token_classes": 2}
        case _:
            return {"pooler": pooler}


def roberta(c: Config) -> Encoder:
    """As BERT; positions are counted from the one after the padding token's."""
    return bert(c, 50265, reserved=c.number("pad_token_id", 1, 0) + 1)


def distilbert(c: Config) -> Encoder:
    return Encoder(
        layers=c.number("n_layers", 6),
        width=c.number("dim", 768),
        inner=c.number("hidden_dim", 3072),
        heads=c.number("n_heads", 12),
        vocabulary=c.number("vocab_size", 30522),
        positions=c.number("max_position_embeddings", 512),
        function=c.function("activation", "gelu"),
        **_encoder_ending(c, pooler=False),
    )


def vit(c: Config) -> Encoder:
    """Classifies, unless ``architectures`` names the bare model, which pools."""
    bare = c.architecture("ForImageClassification", "Model") == "Model"
    return Encoder(
        layers=c.number("num_hidden_layers", 12),
        width=c.number("hidden_size", 768),
        inner=c.number("intermediate_size", 3072),
        heads=c.number("num_attention_heads", 12),
        image=c.side("image_size", 224),
        patch=c.side("patch_size", 16),
        channels=c.number("num_channels", 3),
        classes=0 if bare else c.labels(),
        pooler=bare,
        pre_norm=True,
        qkv_bias=c.flag("qkv_bias", True),
        function=c.function("hidden_act", "gelu"),
        epsilon=c.real("layer_norm_eps", 1e-12),
    )


def t5(c: Config, *, small: bool = False) -> Seq2Seq:
    """T5, or with the defaults of mT5 (Xue et al. 2021), which are its ``small``."""
    projection = c.fields.get("feed_forward_proj") or ("gated-gelu" if small else "relu")
    ending = c.architecture("ForConditionalGeneration", "EncoderModel", "Model")
    gated = isinstance(projection, str) and projection.startswith("gated-")
    name = str(projection).removeprefix("gated-")
    written = Config(
        c.where, {"feed_forward_proj": "gelu_new" if gated and name == "gelu" else name}
    )
    function = written.function("feed_forward_proj", "relu")
    layers = c.number("num_layers", 8 if small else 6)
    return Seq2Seq(
        layers=layers,
        width=c.number("d_model", 512),
        inner=c.number("d_ff", 1024 if small else 2048),
        heads=c.number("num_heads", 6 if small else 8),
        head_dim=c.number("d_kv", 64),
        vocabulary=c.number("vocab_size", 250112 if small else 32128),
        decoder_layers=c.number("num_decoder_layers", layers),
        buckets=c.number("relative_attention_num_buckets", 32),
        gated=gated,
        function=function,
        tied=c.flag("tie_word_embeddings", not small),
        encoder_only=ending == "EncoderModel",
        head=Head.NONE if ending == "Model" else Head.VOCABULARY,
    )


def switch(c: Config) -> Seq2Seq:
    """Switch Transformers (Fedus, Zoph, Shazeer 2021): T5 with one of several experts for a token.

    Raises ModelError where the two stacks have their experts in different layers.
    """
    plain = t5(c)
    counts = [c.number(f"num_sparse_{n}_layers", 3) for n in ("encoder", "decoder")]
    every = [
        max(1, layers // count) if count else 0
        for count, layers in zip(counts, (plain.layers, plain.decoder_layers), strict=True)
    ]
    if every[0] != every[1]:
        raise ModelError(
            f"{c.where}: experts are in every {every[0]} layers of the encoder and every"
            f" {every[1]} of the decoder: they must be in the same"
        )
    if not every[0]:
        return plain
    routed = Experts(
        count=c.number("num_experts", 8),
        top_k=1,
        inner=plain.inner,
        gated=plain.gated,
        every=every[0],
        first=min(0, 2 - every[0]),  # the second of every so many has them
        capacity=c.number("expert_capacity", 64),
    )
    return msgspec.structs.replace(plain, experts=routed)
