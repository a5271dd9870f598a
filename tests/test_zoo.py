"""The zoo and Hugging Face configurations: sizes as published, phases that agree, same networks
whoever writes them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from support import imported, model_of
from tenfold.chips import chip
from tenfold.compiler import Options, build
from tenfold.errors import InputError, ModelError, UnknownName
from tenfold.evaluate.profiling import profile_bound
from tenfold.families import Decoder, Phase
from tenfold.families.decoder import decoder_graph
from tenfold.importers import load_config
from tenfold.importers.huggingface import ARCHITECTURES
from tenfold.ir import (
    DType,
    Graph,
    active_parameters,
    bind,
    graph_totals,
    interpret,
    op_work,
    verify,
)
from tenfold.ir.ops.experts import touched
from tenfold.ir.text import parse_text, to_text
from tenfold.model import Sizes, load, prepare
from tenfold.zoo import NAMES, model

OFF_BY = {"tpu-v1-mlp0": 0.03, "tpu-v1-lstm0": 0.04}  # their files say why
GENERATES = [n for n in NAMES if model(n).family in ("decoder", "seq2seq")]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_published(name: str) -> None:
    m = model(name)
    graph = m.graph()
    assert m.source
    if m.published is not None:
        assert graph.parameters == pytest.approx(m.published, rel=OFF_BY.get(name, 0.01))
        assert name not in OFF_BY or m.note
    if m.active is not None:
        assert active_parameters(graph) == pytest.approx(m.active, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_sound_and_can_be_priced(name: str) -> None:
    for phase in [p.value for p in Phase] if name in GENERATES else [None]:
        bound = prepare(
            model(name).graph(phase),
            Sizes(batch=2, seq=64 if "seq" in model(name).graph(phase).symbols else None),
        )
        verify(bound.graph)
        assert graph_totals(bound.graph).opaque_flops == 0
        v4 = chip("tpu-v4")
        program = build(bound.graph, v4, v4.storage(None), 2)
        assert program.kernels
        assert program.native_fraction == 1


EXACT = {  # counted elsewhere, by hand or by the libraries themselves
    "gpt2": 124_439_808,
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-405b": 405_853_388_800,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-32b": 32_762_123_264,
    "smollm2-135m": 134_515_008,
    "mixtral-8x7b": 46_702_792_704,
    "deepseek-v3": 671_026_419_200,
    "palm-540b": 540_356_474_880,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "vit-b16": 86_567_656,
    "rnn-t": 45_323_037,
}


@pytest.mark.parametrize("name", EXACT)
def test_parameters_to_the_last_one(name: str) -> None:
    assert model(name).graph().parameters == EXACT[name]


def linear_flops(graph: Graph) -> int:
    return sum(
        int(op_work(graph, op).contraction_flops) for op in graph.ops if op.kind != "attention"
    )


@pytest.mark.parametrize("name", [n for n in NAMES if model(n).family == "decoder"])
def test_prefill_is_the_sum_of_decodes_in_the_linear_layers(name: str) -> None:
    length, batch = 24, 3
    prefill = linear_flops(bind(model(name).graph("prefill"), {"batch": batch, "seq": length}))
    decode = sum(
        linear_flops(bind(model(name).graph("decode"), {"batch": batch, "seq": n + 1}))
        for n in range(length)
    )
    assert prefill == decode


@pytest.mark.parametrize("name", ["gpt2", "smollm2-135m", "qwen2.5-0.5b"])
def test_dense_decoders_do_two_flops_a_weight_and_token(name: str) -> None:
    """2 N D (Kaplan et al. 2020, table 1): every weight of a product meets every token once."""
    graph = bind(model(name).graph(), {"batch": 2, "seq": 10})
    used = {n for op in graph.ops if op.kind == "matmul" for n in op.inputs if n in graph.constants}
    weights = sum(int(graph.values[n].elements) for n in used)
    assert linear_flops(graph) == 2 * weights * 20


@pytest.mark.parametrize(("latent", "window"), [(False, 0), (True, 0), (False, 3)])
def test_decoding_continues_what_prefill_began(latent: bool, window: int) -> None:
    """With weights: the last token's logits are the same whether all tokens come at once or the
    last one against the cache.
    """
    from tenfold.families.decoder import Experts, Latent

    extra: dict[str, Any] = (
        {"latent": Latent(24, 16, 8, 8, 12)}
        if latent
        else {"kv_heads": 2, "qk_norm": True, "windows": (window, 0), "local_theta": 500.0}
    )
    shape = Decoder(
        layers=2,
        width=32,
        inner=48,
        heads=4,
        vocabulary=50,
        experts=Experts(4, 2, 20, first=1),
        **extra,
    )
    length, rng = 6, np.random.default_rng(0)
    graphs = {p: decoder_graph("tiny", shape, p, DType.F32) for p in Phase}
    weights = {
        n: (
            (
                rng.standard_normal([int(d) for d in graphs[Phase.FORWARD].values[n].dims]) * 0.2
            ).astype(np.float32)
        )
        for n, a in graphs[Phase.FORWARD].constants.items()
        if a is None
    }
    whole, cached, one = (
        bind(_filled(graphs[p], weights), {"batch": 2, "seq": s})
        for p, s in (
            (Phase.FORWARD, length),
            (Phase.PREFILL, length - 1),
            (Phase.DECODE, length - 1),
        )
    )
    tokens = rng.integers(0, 50, (2, length))
    at = np.tile(np.arange(length), (2, 1))
    want = interpret(whole, {"tokens": tokens, "positions": at})[whole.outputs[0]][:, -1]
    before = interpret(cached, {"tokens": tokens[:, :-1], "positions": at[:, :-1]})
    kept = [before[n] for n in cached.outputs[1:]]
    feeds: dict[str, Any] = {"tokens": tokens[:, -1:], "positions": at[:, -1:]}
    if latent:
        caches = [np.concatenate(kept[2 * i : 2 * i + 2], -1)[:, None] for i in range(shape.layers)]
    else:
        caches = [np.swapaxes(k.reshape(2, length - 1, 2, 8), 1, 2) for k in kept]
        caches[:2] = [c[:, :, -(window - 1) :] if window else c for c in caches[:2]]
    feeds |= dict(zip(one.inputs[2:], caches, strict=True))
    got = interpret(one, feeds)[one.outputs[0]][:, -1]
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def _filled(graph: Graph, weights: dict[str, Any]) -> Graph:
    return Graph(
        graph.name,
        graph.inputs,
        graph.outputs,
        graph.ops,
        graph.values,
        {**graph.constants, **weights},
    )


# --- Hugging Face -----------------------------------------------------------------------

CONFIGS: dict[str, tuple[dict[str, Any], int]] = {
    "llama": ({"num_hidden_layers": 32}, 6_738_415_616),
    "qwen2": ({"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
        494_032_768),
    "qwen3": ({"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8}, 32_762_123_264),
    "mistral": ({"vocab_size": 32000}, 7_241_732_096),
    "gemma": ({}, 8_537_680_896),
    "gpt2": ({}, 124_439_808),
    "mixtral": ({}, 46_702_792_704),
    "deepseek_v3": ({}, 671_026_419_200),
    "bert": ({}, 109_482_240),
    "vit": ({"id2label": {str(i): str(i) for i in range(1000)}}, 86_567_656),
    "t5": ({"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, 222_903_552),
    "switch_transformers": ({"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12,
        "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6}, 619_339_008),
}  # fmt: skip


def written(tmp_path: Path, **fields: Any) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_counts_what_was_published(kind: str, tmp_path: Path) -> None:
    """Missing fields take the library's defaults: the counts are those of the models that the
    defaults describe.
    """
    fields, parameters = CONFIGS[kind]
    graph = load_config(written(tmp_path, model_type=kind, **fields))
    assert graph.parameters == parameters
    assert load(tmp_path).parameters == graph.parameters


OTHERS: list[tuple[dict[str, Any], int]] = [  # files as published, with the counts of their models
    (
        {
            "model_type": "qwen3_moe",
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
        },
        30_532_122_624,
    ),
    (
        {
            "model_type": "deepseek_v2",
            "hidden_size": 2048,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "vocab_size": 102400,
        },
        15_706_484_224,
    ),
    (
        {
            "model_type": "deepseek_v3",
            "hidden_size": 2048,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 11264,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "vocab_size": 163840,
        },
        15_960_110_208,
    ),
    ({"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1}, 124_645_632),
    ({"model_type": "distilbert"}, 66_362_880),
    (
        {
            "model_type": "gpt2",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        354_823_168,
    ),
    ({"model_type": "vit", "architectures": ["ViTModel"], "image_size": [224, 224]}, 86_389_248),
    (
        {
            "model_type": "gemma3",
            "torch_dtype": "torch.bfloat16",
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "sliding_window": 1024,
            },
        },
        3_880_263_168,
    ),
]


@pytest.mark.parametrize(
    ("fields", "parameters"),
    OTHERS,
    ids=[f"{i}-{f['model_type']}" for i, (f, _) in enumerate(OTHERS)],
)
def test_published_files_count_what_was_published(
    fields: dict[str, Any], parameters: int, tmp_path: Path
) -> None:
    assert load_config(written(tmp_path, **fields)).parameters == parameters


def test_null_means_none_where_the_library_says_so(tmp_path: Path) -> None:
    capped = load_config(written(tmp_path, model_type="gemma2", num_hidden_layers=1))
    free = load_config(
        written(
            tmp_path,
            model_type="gemma2",
            num_hidden_layers=1,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
        )
    )
    assert {op.kind for op in capped.ops} - {op.kind for op in free.ops} >= {"tanh"}
    assert all("softcap" not in op.attrs for op in free.ops)


@pytest.mark.parametrize(
    ("kind", "phase", "most"),
    [("gpt2", None, 1024), ("gpt2", "decode", 1023), ("bert", None, 512), ("roberta", None, 510)],
)
def test_learned_positions_end(kind: str, phase: str | None, most: int, tmp_path: Path) -> None:
    """With one token more than there are positions nothing is priced."""
    graph = load_config(written(tmp_path, model_type=kind), phase)
    assert parse_text(to_text(graph)).limits == graph.limits == {"seq": most}
    assert bind(graph, {"batch": 1, "seq": most}).is_static
    with pytest.raises(
        InputError, match=f"has learned positions for a seq of at most {most:,}, got {most + 1:,}"
    ):
        bind(graph, {"batch": 1, "seq": most + 1})


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
def test_later_gemmas(kind: str, tmp_path: Path) -> None:
    """Gemma 2 2B is published with 2.61 billion parameters, the text model of Gemma 3 4B is of the
    same shape with a larger vocabulary.
    """
    graph = load_config(written(tmp_path, model_type=kind))
    embedding = (256000 if kind == "gemma2" else 262208) * 2304
    assert graph.parameters - embedding == pytest.approx(2_614_341_888 - 256000 * 2304, rel=1e-4)


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"model_type": "mistral"}, {4096}),
        ({"model_type": "mistral", "sliding_window": None}, {0}),
        ({"model_type": "mixtral"}, {0}),
        ({"model_type": "mistral", "sliding_window": 64}, {64}),
        ({"model_type": "qwen2", "sliding_window": 64}, {0}),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 64,
                "use_sliding_window": True,
                "max_window_layers": 30,
            },
            {0, 64},
        ),
        ({"model_type": "gemma2"}, {0, 4096}),
        ({"model_type": "gemma3_text", "sliding_window": 512}, {0, 512}),
        (
            {
                "model_type": "qwen3",
                "num_hidden_layers": 2,
                "sliding_window": 64,
                "layer_types": ["full_attention", "sliding_attention"],
            },
            {0, 64},
        ),
    ],
)
def test_windows_are_those_of_the_configuration(
    fields: dict[str, Any], windows: set[int], tmp_path: Path
) -> None:
    """Which layers see how far, and what that costs: FLOPs of a product of every query with the
    keys it sees at most.
    """
    graph = bind(load_config(written(tmp_path, **fields)), {"batch": 1, "seq": 8192})
    seen = [
        int(op.attrs.get("left_window_size", -1)) + 1 for op in graph.ops if op.kind == "attention"
    ]
    assert set(seen) == windows
    for op, window in zip((op for op in graph.ops if op.kind == "attention"), seen, strict=True):
        width = int(graph.values[op.inputs[0]].dims[-1])
        assert (
            op_work(graph, op).contraction_flops == 2 * 2 * 8192 * min(8192, window or 8192) * width
        )


def test_the_cache_of_a_window_is_no_longer_than_the_window(tmp_path: Path) -> None:
    graph = load_config(written(tmp_path, model_type="gemma2", sliding_window=512), "decode")
    for seq, kept in ((100, 100), (4000, 511)):
        bound = bind(graph, {"batch": 2, "seq": seq})
        lengths = [bound.values[n].shape[2] for n in bound.inputs if n.startswith("cache")]
        assert lengths[:4] == [kept, kept, seq, seq]


def test_every_architecture_is_tested() -> None:
    elsewhere = {
        "phi3",
        "mt5",
        "kimi_k2",
        "xlm-roberta",
        "camembert",
        "opt",
    }  # test_configurations.py
    here = {*CONFIGS, "gemma2", "gemma3_text", *(f["model_type"] for f, _ in OTHERS)}
    assert here - {"gemma3"} | elsewhere == set(ARCHITECTURES)


BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"model_type": "qwen3", "layer_types": ["full_attention"]},
        "'layer_types' must list 32 of sliding_attention, full_attention",
    ),
    ({"model_type": "gemma3"}, "a 'gemma3' needs its 'text_config'"),
    ({"model_type": "deepseek_v3", "moe_layer_freq": 2}, "'moe_layer_freq' must be 1"),
    (
        {"model_type": "deepseek_v3", "first_k_dense_replace": 100},
        "leaves none of 61 layers for the experts",
    ),
    (
        {"model_type": "mistral", "sliding_window": 0},
        "'sliding_window' must be a whole number of at least 1",
    ),
    ({"model_type": "lama"}, "the architecture 'lama' is not read: known are llama, qwen2"),
    ({}, "'model_type' is missing: known are llama"),
    (
        {"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 5},
        "32 heads do not divide by 5 key-value heads",
    ),
    (
        {"model_type": "llama", "hidden_size": 1000, "num_attention_heads": 48},
        "a width of 1000 does not divide by 48 heads",
    ),
    ({"model_type": "bert", "num_attention_heads": 7}, "a width of 768 does not divide by 7 heads"),
    ({"model_type": "vit", "image_size": 225}, "an image of 225 does not divide by patches of 16"),
    ({"model_type": "mixtral", "num_experts_per_tok": 9}, "top-9 of 8 experts"),
    (
        {"model_type": "llama", "hidden_size": "large"},
        "'hidden_size' must be a whole number of at least 1, found 'large'",
    ),
    (
        {"model_type": "llama", "num_hidden_layers": 0},
        "'num_hidden_layers' must be a whole number of at least 1, found 0",
    ),
    ({"model_type": "llama", "hidden_act": "gleu"}, "'hidden_act' is 'gleu': known are silu"),
    ({"model_type": "llama", "torch_dtype": "float7"}, "'torch_dtype' is 'float7'"),
    ({"model_type": "llama", "tie_word_embeddings": "yes"}, "must be true or false, found 'yes'"),
    ({"model_type": ["llama"]}, "'model_type' is missing"),
    ({"model_type": "llama", "hidden_act": ["silu"]}, "'hidden_act' is ['silu']: known are silu"),
    ({"model_type": "llama", "rope_theta": 0}, "'rope_theta' must be a number above 0, found 0"),
    (
        {"model_type": "gemma2", "query_pre_attn_scalar": 0},
        "'query_pre_attn_scalar' must be a number above 0, found 0",
    ),
    (
        {"model_type": "llama", "head_dim": 1},
        "rotated heads need an even width of at least 2, got 1",
    ),
    (
        {"model_type": "deepseek_v3", "qk_rope_head_dim": 3},
        "rotated heads need an even width of at least 2, got 3",
    ),
    ({"model_type": "llama", "num_hidden_layers": 20000}, "20,000 layers are beyond any network"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_bad_configurations_are_refused_with_the_reason(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        load_config(written(tmp_path, **fields))
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "\x00\x01", '"llama"', "[" * 100_000])
def test_what_is_no_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelError):
        load_config(path)


@pytest.mark.parametrize(
    ("name", "phase"), [("bert-base", "decode"), ("resnet50", "prefill"), ("gpt2", "training")]
)
def test_a_phase_that_is_not_there(name: str, phase: str) -> None:
    with pytest.raises(InputError, match="phase"):
        load(name, phase)


def test_unknown_models_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean llama-2-70b"):
        load("llama2-70b")


# --- the same network, written by hand --------------------------------------------------


def by_hand_bert(layers: int, width: int, inner: int, heads: int, batch: int, seq: int) -> Graph:
    """A BERT encoder as exporters write it: reshapes, transposes, softmax and erf spelled out."""
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "split": np.array([0, 0, heads, width // heads]),
        "join": np.array([0, 0, width]),
        "scale": np.float32(np.sqrt(width // heads)),
        "two": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }
    constants |= {
        "tok": rng.standard_normal((30522, width)),
        "pos": rng.standard_normal((512, width)),
        "typ": rng.standard_normal((2, width)),
    }
    n = helper.make_node
    nodes = [
        n("Gather", ["tok", "tokens"], ["e0"]),
        n("Gather", ["typ", "types"], ["e1"]),
        n("Gather", ["pos", "positions"], ["e2"]),
        n("Add", ["e0", "e1"], ["e3"]),
        n("Add", ["e3", "e2"], ["e4"]),
    ]

    def weight(name: str, *shape: int) -> str:
        constants[name] = rng.standard_normal(shape)
        return name

    def norm(x: str, y: str) -> None:
        nodes.append(
            n(
                "LayerNormalization",
                [x, weight(f"{y}.g", width), weight(f"{y}.b", width)],
                [y],
                epsilon=1e-12,
            )
        )

    def linear(x: str, y: str, a: int, b: int) -> str:
        nodes.extend(
            [
                n("MatMul", [x, weight(f"{y}.w", a, b)], [f"{y}.m"]),
                n("Add", [f"{y}.m", weight(f"{y}.b", b)], [y]),
            ]
        )
        return y

    norm("e4", "x0")
    for i in range(layers):
        x = f"x{i}"
        for p in "qkv":
            linear(x, f"{p}{i}", width, width)
            nodes.append(n("Reshape", [f"{p}{i}", "split"], [f"{p}s{i}"]))
            nodes.append(
                n(
                    "Transpose",
                    [f"{p}s{i}"],
                    [f"{p}t{i}"],
                    perm=[0, 2, 3, 1] if p == "k" else [0, 2, 1, 3],
                )
            )
        nodes += [
            n("MatMul", [f"qt{i}", f"kt{i}"], [f"s{i}"]),
            n("Div", [f"s{i}", "scale"], [f"d{i}"]),
            n("Softmax", [f"d{i}"], [f"p{i}"], axis=-1),
            n("MatMul", [f"p{i}", f"vt{i}"], [f"o{i}"]),
            n("Transpose", [f"o{i}"], [f"ot{i}"], perm=[0, 2, 1, 3]),
            n("Reshape", [f"ot{i}", "join"], [f"oj{i}"]),
        ]
        nodes.append(n("Add", [linear(f"oj{i}", f"a{i}", width, width), x], [f"r{i}"]))
        norm(f"r{i}", f"h{i}")
        linear(f"h{i}", f"f{i}", width, inner)
        nodes += [
            n("Div", [f"f{i}", "two"], [f"g1{i}"]),
            n("Erf", [f"g1{i}"], [f"g2{i}"]),
            n("Add", [f"g2{i}", "one"], [f"g3{i}"]),
            n("Mul", [f"f{i}", f"g3{i}"], [f"g4{i}"]),
            n("Mul", [f"g4{i}", "half"], [f"g{i}"]),
        ]
        nodes.append(n("Add", [linear(f"g{i}", f"z{i}", inner, width), f"h{i}"], [f"u{i}"]))
        norm(f"u{i}", f"x{i + 1}")
    nodes += [n("Gather", [f"x{layers}", "zero"], ["first"], axis=1)]
    constants["zero"] = np.array(0)
    nodes.append(n("Tanh", [linear("first", "pool", width, width)], ["pooled"]))
    typed = {
        k: a if np.asarray(a).dtype.kind in "i" else np.asarray(a, np.float32)
        for k, a in constants.items()
    }
    inputs = {name: (np.int64, [batch, seq]) for name in ("tokens", "types", "positions")}
    return bind(imported(model_of(nodes, inputs, [f"x{layers}", "pooled"], typed)), {})


def by_hand_llama(
    layers: int, width: int, inner: int, heads: int, kv: int, vocabulary: int, batch: int, seq: int
) -> Graph:
    """A Llama as ONNX's own ops of opset 23 write it: Attention on rank 3, RMSNormalization,
    rotation spelled out.
    """
    rng, n, dim = np.random.default_rng(0), helper.make_node, width // heads
    constants: dict[str, Any] = {
        "tok": rng.standard_normal((vocabulary, width)),
        "head": rng.standard_normal((width, vocabulary)),
    }
    nodes = [n("Gather", ["tok", "tokens"], ["x0"])]

    def weight(name: str, *shape: int) -> str:
        constants[name] = rng.standard_normal(shape)
        return name

    def norm(x: str, y: str) -> str:
        nodes.append(n("RMSNormalization", [x, weight(f"{y}.g", width)], [y], epsilon=1e-6))
        return y

    def linear(x: str, y: str, a: int, b: int) -> str:
        nodes.append(n("MatMul", [x, weight(f"{y}.w", a, b)], [y]))
        return y

    for i in range(layers):
        y = norm(f"x{i}", f"n{i}")
        for p, count in (("q", heads), ("k", kv)):
            linear(y, f"{p}{i}", width, count * dim)
            nodes.append(
                n("RotaryEmbedding", [f"{p}{i}", "cos", "sin"], [f"{p}r{i}"], num_heads=count)
            )
        linear(y, f"v{i}", width, kv * dim)
        nodes.append(
            n(
                "Attention",
                [f"qr{i}", f"kr{i}", f"v{i}"],
                [f"a{i}"],
                q_num_heads=heads,
                kv_num_heads=kv,
                is_causal=1,
            )
        )
        nodes.append(n("Add", [f"x{i}", linear(f"a{i}", f"o{i}", width, width)], [f"r{i}"]))
        y = norm(f"r{i}", f"m{i}")
        nodes += [
            n("Sigmoid", [linear(y, f"g{i}", width, inner)], [f"s{i}"]),
            n("Mul", [f"g{i}", f"s{i}"], [f"w{i}"]),
        ]
        nodes.append(n("Mul", [f"w{i}", linear(y, f"u{i}", width, inner)], [f"h{i}"]))
        nodes.append(n("Add", [f"r{i}", linear(f"h{i}", f"d{i}", inner, width)], [f"x{i + 1}"]))
    nodes.append(n("MatMul", [norm(f"x{layers}", "final"), "head"], ["logits"]))
    inputs = {
        "tokens": (np.int64, [batch, seq]),
        "cos": (np.float32, [batch, seq, dim // 2]),
        "sin": (np.float32, [batch, seq, dim // 2]),
    }
    typed = {k: np.asarray(a, np.float32) for k, a in constants.items()}
    return bind(imported(model_of(nodes, inputs, ["logits"], typed, opset=23)), {})


@pytest.mark.parametrize("on", ["tpu-v4", "a100-sxm-80"])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_configuration_and_the_same_network_by_hand_agree(
    kind: str, on: str, tmp_path: Path
) -> None:
    """In arithmetic exactly, in bytes and in how the kernels are cut almost: positions are looked
    up in one and given in the other.
    """
    if kind == "bert":
        fields = {
            "num_hidden_layers": 2,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "intermediate_size": 512,
        }
        theirs = by_hand_bert(2, 128, 512, 4, 2, 64)
    else:
        fields = {
            "num_hidden_layers": 2,
            "hidden_size": 128,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 352,
            "vocab_size": 1000,
        }
        theirs = by_hand_llama(2, 128, 352, 4, 2, 1000, 2, 64)
    ours = bind(load_config(written(tmp_path, model_type=kind, **fields)), {"batch": 2, "seq": 64})
    record = chip(on)
    mine, hand = (
        build(g, record, record.storage(None), 2, Options(("residency",))) for g in (ours, theirs)
    )
    assert (
        graph_totals(ours).contraction_flops
        == graph_totals(theirs).contraction_flops
        == mine.flops
        == hand.flops
    )

    def contractions(program: Any) -> list[tuple[Any, ...]]:
        return [
            (k.products, [o for o in k.ops if o not in ("transpose", "gather")])
            for k in program.kernels
            if k.products
        ]

    assert contractions(mine) == contractions(hand)
    assert abs(len(mine.kernels) - len(hand.kernels)) <= 1
    assert mine.moved_bytes == pytest.approx(hand.moved_bytes, rel=0.02)


def test_a_mixture_of_experts_is_priced_by_what_is_active() -> None:
    """Decoding one token reads only the experts that it is sent to; a large batch reads them
    all.
    """
    h200 = chip("h200-sxm")
    few, many = (
        profile_bound(
            prepare(load("mixtral-8x7b", "decode"), Sizes(batch=b, seq=128)), h200.name
        ).run
        for b in (1, 64)
    )
    assert few.program.moved_bytes < 0.35 * few.program.weight_bytes
    assert many.program.moved_bytes > 0.95 * many.program.weight_bytes
    assert few.time_s.value < many.time_s.value < 8 * few.time_s.value


def test_experts_touched_are_those_expected_of_independent_tokens() -> None:
    """Tokens drawn at random, two of eight experts each: how many experts some token has, on
    average.
    """
    rng = np.random.default_rng(3)
    for tokens in (1, 2, 4, 8):
        drawn = [
            len(set(np.concatenate([rng.permutation(8)[:2] for _ in range(tokens)])))
            for _ in range(4000)
        ]
        assert abs(touched(tokens, 8, 2) - float(np.mean(drawn))) < 0.55


def test_no_more_arithmetic_than_the_chip_has() -> None:
    """Long causal attention: scores that are left out are no utilisation; and a wider precision
    than the file's moves more bytes.
    """
    bound = prepare(load("llama-2-7b"), Sizes(batch=1, seq=65536))
    run = profile_bound(bound, "h200-sxm").run
    assert 0.3 < run.mfu < 0.8 < 1.2 * run.mfu * run.program.flops / (2 * run.counters.macs_useful)
    short = prepare(load("smollm2-135m", "decode"), Sizes(batch=1, seq=64))
    wide, narrow = (profile_bound(short, "h100-sxm", dtype=d).run.program for d in ("fp32", "bf16"))
    assert wide.weight_bytes == pytest.approx(2 * narrow.weight_bytes, rel=1e-4)
    assert wide.moved_bytes > 1.9 * narrow.moved_bytes
