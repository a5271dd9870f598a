"""What a configuration says beside its sizes: the class, how weights are stored, other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tenfold.errors import InputError, ModelError
from tenfold.importers import load_config
from tenfold.importers.huggingface import ARCHITECTURES
from tenfold.ir import bind, graph_totals
from tenfold.model import generates

LLAMA3: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
}  # fmt: skip
T5: dict[str, Any] = {
    "model_type": "t5", "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64,
    "num_layers": 24, "vocab_size": 32128, "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}  # fmt: skip
MISTRAL: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 32000,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip


def written(tmp_path: Path, fields: dict[str, Any]) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    return path


# counts of the checkpoints themselves, and by hand from the shapes
COUNTED: dict[str, tuple[dict[str, Any], int]] = {
    "encoder of T5": (T5 | {"architectures": ["T5EncoderModel"]}, 4_762_310_656),
    "T5 whole": (T5 | {"architectures": ["T5ForConditionalGeneration"]}, 11_135_332_352),
    "T5 without head": (T5 | {"architectures": ["T5Model"]}, 11_135_332_352 - 32128 * 4096),
    "reward": (
        LLAMA3 | {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1},
        7_504_928_768,
    ),
    "language model": (LLAMA3 | {"architectures": ["LlamaForCausalLM"]}, 8_030_261_248),
    "no class named": (LLAMA3 | {"architectures": None}, 8_030_261_248),
    "embedder": (MISTRAL | {"architectures": ["MistralModel"]}, 7_110_660_096),
    "masked words": (
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        109_514_298,
    ),
    "entities": (
        {
            "model_type": "bert",
            "architectures": ["BertForTokenClassification"],
            "id2label": {str(i): str(i) for i in range(9)},
        },
        109_482_240 - (768 * 768 + 768) + 768 * 9 + 9,
    ),
    "answers": (
        {"model_type": "bert", "architectures": ["BertForQuestionAnswering"]},
        109_482_240 - (768 * 768 + 768) + 768 * 2 + 2,
    ),
    "XLM-RoBERTa": (
        {
            "model_type": "xlm-roberta",
            "architectures": ["XLMRobertaModel"],
            "vocab_size": 250002,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        278_043_648,
    ),
    "CamemBERT": (
        {
            "model_type": "camembert",
            "vocab_size": 32005,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        110_621_952,
    ),
    "mT5 small": ({"model_type": "mt5"}, 300_176_768),
    "OPT 1.3B": (
        {
            "model_type": "opt",
            "hidden_size": 2048,
            "ffn_dim": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "word_embed_proj_dim": 2048,
        },
        1_315_758_080,
    ),
    "BERT as a language model": (
        {"model_type": "bert", "architectures": ["BertLMHeadModel"]},
        109_514_298,
    ),
    "Phi-3 mini": ({"model_type": "phi3"}, 3_821_079_552),
    "text part of Mistral Small 3.1": (
        {
            "model_type": "mistral3",
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "mistral",
                "hidden_size": 5120,
                "intermediate_size": 32768,
                "num_hidden_layers": 40,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 131072,
            },
        },
        23_572_403_200,
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_those_of_the_class(name: str, tmp_path: Path) -> None:
    fields, parameters = COUNTED[name]
    assert load_config(written(tmp_path, fields)).parameters == parameters


def test_kimi_is_deepseek_under_another_name(tmp_path: Path) -> None:
    fields = {"hidden_size": 7168, "num_hidden_layers": 4, "n_routed_experts": 384}
    kimi, deepseek = (
        load_config(written(tmp_path, fields | {"model_type": kind})).parameters
        for kind in ("kimi_k2", "deepseek_v3")
    )
    assert kimi == deepseek


def test_one_pass_of_the_encoder_by_hand(tmp_path: Path) -> None:
    """512 tokens through 24 layers, and every pair of tokens twice."""
    graph = load_config(written(tmp_path, COUNTED["encoder of T5"][0]))
    flops = graph_totals(bind(graph, {"batch": 1, "seq": 512})).flops
    products = 512 * 2 * 24 * (4 * 4096**2 + 3 * 4096 * 10240) + 24 * 4 * 512**2 * 4096
    assert flops == pytest.approx(products, rel=0.002)


def test_masked_words_take_the_head_and_its_transform(tmp_path: Path) -> None:
    plain, masked = (
        graph_totals(bind(load_config(written(tmp_path, fields)), {"batch": 1, "seq": 128})).flops
        for fields in ({"model_type": "bert"}, COUNTED["masked words"][0])
    )
    assert masked - plain == pytest.approx(2 * 768 * (768 + 30522) * 128, rel=0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (LLAMA3 | {"architectures": ["LlamaForQuestionAnswering"]}, "LlamaForQuestionAnswering"),
        ({"model_type": "gpt2", "architectures": ["GPT2DoubleHeadsModel"]}, "DoubleHeadsModel"),
        (T5 | {"architectures": ["T5ForSequenceClassification"]}, "read are classes that end in"),
        ({"model_type": "vit", "architectures": ["ViTForMaskedImageModeling"]}, "ForMaskedImage"),
        (LLAMA3 | {"architectures": ["A", "B"]}, "'architectures' must name one class"),
        (LLAMA3 | {"architectures": "LlamaForCausalLM"}, "'architectures' must name one class"),
    ],
)
def test_a_class_that_would_be_another_network_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        load_config(written(tmp_path, fields))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "(awq, 4 bits)"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "(gptq, 4 bits)"),
        ({"quantization_config": {"quant_method": "fp8"}}, "(fp8)"),
        ({"quantization_config": {"load_in_4bit": True}}, "'quantization_config' is not modelled"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "'compression_config'"),
    ],
)
def test_weights_stored_in_another_form_are_refused_by_name(
    stored: dict[str, Any], said: str, tmp_path: Path
) -> None:
    inside = {"model_type": "gemma3", "text_config": {"hidden_size": 2560} | stored}
    for fields in (LLAMA3 | stored, inside):
        with pytest.raises(ModelError) as caught:
            load_config(written(tmp_path, fields))
        assert said in str(caught.value)
    assert load_config(written(tmp_path, LLAMA3 | {"quantization_config": None})).parameters


@pytest.mark.parametrize("kind", ["gpt_oss", "bloom", "resnet", "qwen3_vl", "lama"])
def test_an_architecture_that_is_not_read_invites_to_no_other(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_config(written(tmp_path, {"model_type": kind}))
    assert "did you mean" not in str(caught.value)
    assert all(known in str(caught.value) for known in ARCHITECTURES)


@pytest.mark.parametrize(
    ("fields", "writes"),
    [
        (LLAMA3, True),
        (T5, True),
        (COUNTED["encoder of T5"][0], False),
        (COUNTED["embedder"][0], False),
        (COUNTED["reward"][0], False),
        ({"model_type": "bert"}, False),
    ],
)
def test_what_generates_ends_in_words(fields: dict[str, Any], writes: bool, tmp_path: Path) -> None:
    assert generates(written(tmp_path, fields)) is writes


def test_an_encoder_alone_has_no_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it generates nothing, only forward"):
        load_config(written(tmp_path, COUNTED["encoder of T5"][0]), "decode")
