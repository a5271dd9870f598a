"""``predict``: every operator on every chip, bad rows by line and column, and measured data where
it is at hand.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from support import VALIDATION, measured
from tenfold.chips import Chip, chip, names
from tenfold.cli import app
from tenfold.compiler import build
from tenfold.errors import InputError, UnknownName, UnsupportedDType
from tenfold.evaluate.operators import COLUMNS, POINTWISE, OperatorCall, expert_counts
from tenfold.evaluate.predicting import predict, predict_all, read_requests
from tenfold.ir import parse_text
from tenfold.machine import simulate
from tenfold.report.trust import predicted_rows

ROWS = {
    "matmul": "m,n,k\nmatmul,{d},512,1024,256",
    "batched_matmul": "batch,m,n,k\nbatched_matmul,{d},8,512,1024,256",
    "attention_prefill": (
        "batch,q_len,heads,kv_heads,head_dim,causal\nattention_prefill,{d},2,256,8,2,64,1"
    ),
    "attention_decode": "batch,kv_len,heads,kv_heads,head_dim\nattention_decode,{d},4,1024,8,2,64",
    "moe": (
        "tokens,hidden,inter,topk,experts,tp,ep,distribution\nmoe,{d},64,512,256,2,8,1,2,power_law_1.2"
    ),
    "softmax": "rows,cols\nsoftmax,{d},128,1024",
    "layernorm": "rows,cols\nlayernorm,{d},128,1024",
    "conv2d": (
        "batch,channels,height,width,filters,kernel,stride,padding,groups\n"
        "conv2d,{d},4,32,28,28,64,3,1,1,1"
    ),
    **{op: f"rows,cols\n{op},{{d}},128,1024" for op in POINTWISE},
}


def test_there_is_an_example_of_every_operator() -> None:
    assert set(ROWS) == set(COLUMNS)


@pytest.mark.parametrize("name", [n for n in names() if chip(n).kind != "listed"])
@pytest.mark.parametrize("op", COLUMNS)
def test_every_operator_on_every_chip(name: str, op: str) -> None:
    record = chip(name)
    dtype = record.storage(None).value
    _, requests = read_requests("op,dtype," + ROWS[op].format(d=dtype))
    (p,) = predict_all(requests, record)
    assert 0 < p.time_s.low < p.time_s.value < p.time_s.high < 1
    assert p.energy_j is not None
    assert p.energy_j.low <= p.energy_j.value <= p.energy_j.high
    assert p.energy_j.value > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must name the columns"),
        ("op,m\nmatmul,3", "no column 'dtype'"),
        ("op,dtype,m,n,k", "no rows"),
        ("op,dtype,m,n,k\nmatmull,bf16,1,1,1", "line 2: unknown op 'matmull'"),
        ("op,dtype,m,n,k\nmatmul,bf17,1,1,1", "line 2, column 'dtype': unknown dtype 'bf17'"),
        ("op,dtype,m,n,k\nmatmul,bf16,1,1,1\nmatmul,bf16,1,,1", "line 3, column 'n'"),
        ("op,dtype,m,n,k\nmatmul,bf16,0,1,1", "line 2, column 'm'"),
        ("op,dtype,m,n,k\nmatmul,bf16,-1,1,1", "line 2, column 'm'"),
        ("op,dtype,m,n,k\nmatmul,bf16,1,1,1,9", "line 2 has more fields"),
        ("op,dtype,rows\nsoftmax,bf16,3", "line 2, column 'cols'"),
        ("op,dtype,m,n,k\nmatmul,bf16,99999999999999,1,1", "beyond any machine"),
        (
            "op,dtype,batch,kv_len,heads,kv_heads,head_dim\nattention_decode,bf16,1,8,7,2,64",
            "do not divide",
        ),
    ],
)
def test_bad_rows_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_requests(text)


@pytest.mark.parametrize("distribution", ["skewed", "power_law_x", "power_law_-1"])
def test_bad_distribution_is_named(distribution: str) -> None:
    text = f"op,dtype,tokens,hidden,inter,topk,experts,tp,ep,distribution\nmoe,bf16,64,512,256,2,8,1,2,{distribution}"
    with pytest.raises(InputError, match="column 'distribution'"):
        predict(read_requests(text)[1][0], chip("tpu-v4"))


def test_dtype_the_chip_lacks_is_named_with_its_line() -> None:
    _, requests = read_requests("op,dtype,m,n,k\nmatmul,bf16,1,1,1")
    with pytest.raises(InputError, match="line 2: tpu-v1 has no bf16 arithmetic"):
        predict(requests[0], chip("tpu-v1"))


def test_imbalance_grows_with_the_exponent() -> None:
    heaviest = [
        sum(expert_counts(512, 64, 2, 8, d, 0))
        for d in ("balanced", "power_law_0.5", "power_law_1.2")
    ]
    assert heaviest[0] == 512 * 2 / 8
    assert heaviest == sorted(heaviest)
    for distribution in ("balanced", "power_law_1", "power_law_1.2", "power_law_3"):
        counts = expert_counts(100, 64, 6, 1, distribution, 0)
        # every choice goes to one expert, and no expert gets a token twice
        assert sum(counts) == 600
        assert max(counts) <= 100
        assert len(counts) == 64


def test_parts_of_one_call_on_a_tpu_are_all_counted() -> None:
    """A softmax moves its rows three times; attention computes every score, causal or not, as in
    whole models.
    """
    record = chip("tpu-v6e")
    text = "op,dtype,rows,cols\nsoftmax,bf16,65536,4096\ngelu,bf16,65536,4096"
    softmax, gelu = predict_all(read_requests(text)[1], record)
    assert softmax.time_s.value > 1.3 * gelu.time_s.value
    head = (
        "op,dtype,batch,q_len,heads,kv_heads,head_dim,causal\nattention_prefill,bf16,2,1024,8,8,64,"
    )
    causal, full = (predict(read_requests(head + c)[1][0], record).time_s.value for c in "10")
    assert causal == full


def test_what_a_source_measures_beside_a_kernel() -> None:
    _, requests = read_requests("op,dtype,m,n,k\nmatmul,bf16,64,64,64")
    record = chip("a100-sxm-80")
    times = {
        s: predict(requests[0], record, s).time_s.value for s in (None, *record.measuring_sources)
    }
    assert times["llmcompass-matmul"] - times["vidur"] == pytest.approx(
        record.offset("llmcompass-matmul") - record.offset("vidur")
    )
    assert times[None] == pytest.approx(min(times["aiconfigurator"], times["vidur"]))
    with pytest.raises(UnknownName, match="did you mean vidur"):
        predict(requests[0], record, "vidor")


def _errors(rows: list[tuple[int, int, int, float]], record: Chip, dtype: str) -> np.ndarray:
    text = "op,dtype,m,n,k\n" + "\n".join(f"matmul,{dtype},{m},{n},{k}" for m, n, k, _ in rows)
    _, requests = read_requests(text)
    return np.array(
        [
            p.time_s.value / t - 1
            for p, (*_, t) in zip(predict_all(requests, record), rows, strict=True)
        ]
    )


@measured
def test_tpu_v6e_matmul_no_worse_than_the_first_try() -> None:
    """Rows that were not fitted on (the other half of a seeded permutation): 20 % mean was the
    first try.
    """
    with (VALIDATION / "tpu" / "gemm_v6e.csv").open() as file:
        rows = [
            (int(r["m"]), int(r["n"]), int(r["k"]), float(r["device_us"]) * 1e-6)
            for r in csv.DictReader(file)
        ]
    order = np.random.default_rng(0).permutation(len(rows))
    errors = np.abs(_errors([rows[i] for i in order[1::2]], chip("tpu-v6e"), "bf16"))
    assert errors.mean() < 0.15
    assert np.median(errors) < 0.08


def _vidur(device: str, *, fitted: bool) -> list[tuple[int, int, int, float]]:
    rows = []
    with (VALIDATION / "vidur" / "mlp_layers.csv").open() as file:
        for r in csv.DictReader(file):
            if r["device"] != device or ("Llama-2-7b" in r["model"]) != fitted:
                continue
            heads, kv, embd, ffn = (
                int(r[c]) for c in ("n_head", "n_kv_head", "n_embd", "n_expanded_embd")
            )
            tp, m = int(r["num_tensor_parallel_workers"]), int(r["num_tokens"])
            dim, gates = embd // heads, 2 if r["use_gated_mlp"] == "True" else 1
            shapes = (
                ("attn_pre_proj_ms", (heads + 2 * max(kv, tp)) * dim // tp, embd),
                ("attn_post_proj_ms", embd, embd // tp),
                ("mlp_up_proj_ms", gates * ffn // tp, embd),
                ("mlp_down_proj_ms", embd, ffn // tp),
            )
            rows += [(m, n, k, float(r[column]) * 1e-3) for column, n, k in shapes]
    return rows


@measured
@pytest.mark.parametrize(
    ("device", "name", "bar"), [("a100", "a100-sxm-80", 0.07), ("h100", "h100-sxm", 0.09)]
)
def test_gpu_matmul_in_models_no_worse_than_the_first_try(
    device: str, name: str, bar: float
) -> None:
    """Fitted on Llama-2-7B, scored on the other models."""
    rows = _vidur(device, fitted=False)
    assert len(rows) > 200
    assert np.abs(_errors(rows, chip(name), "fp16")).mean() < bar


def test_attention_is_one_formula_in_a_graph_and_on_its_own() -> None:
    """Without what serving engines add, an attention takes what it takes within a model."""
    gpu = chip("a100-sxm-80")
    text = "op,dtype,batch,q_len,heads,kv_heads,head_dim,causal\n"
    text += "attention_prefill,bf16,1,2048,32,8,128,1\n"
    _, (engine,) = read_requests(text)
    _, (alone,) = read_requests(text, engine=False)
    shapes = {"q": (1, 32, 2048, 128), "k": (1, 8, 2048, 128), "v": (1, 8, 2048, 128)}
    declared = "".join(f"  input %{n}: bf16{list(s)}\n" for n, s in shapes.items())
    graph = parse_text(
        f"graph 'a' {{\n{declared}"
        "  %y: bf16[1, 32, 2048, 128] = attention(%q, %k, %v) {is_causal=1}\n  output %y\n}"
    )
    run = simulate(build(graph, gpu, gpu.storage("bf16"), 1), gpu)
    assert predict(alone, gpu).time_s.value == pytest.approx(run.time_s.value)
    assert predict(engine, gpu).time_s.value > 1.03 * run.time_s.value
    host = chip("epyc-9654")
    _, (wide,) = read_requests(text.replace("bf16", "fp32"))
    assert predict(wide, host).time_s.value > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "op,dtype,m,n,k,batch\nmatmul,bf16,64,64,64,8\n",
            "line 2, column 'batch': matmul does not use it, found '8' .*batched_matmul",
        ),
        ("op,dtype,rows,cols,k\nsoftmax,bf16,64,64,64\n", "softmax does not use it, found '64'"),
        ("op,dtype,m,n,k,causal\nmatmul,bf16,64,64,64,1\n", "column 'causal': matmul does not"),
        ("op,dtype,m,n,k,time_s\nmatmul,bf16,64,64,64,1\n", "'time_s' is one that predict writes"),
    ],
)
def test_a_filled_column_that_nothing_reads_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_requests(text)


def test_spreadsheets_write_whole_numbers_with_a_point() -> None:
    _, (call,) = read_requests("op,dtype,m,n,k\nmatmul,bf16,4096.0,64.00,8\n")
    assert dict(call.extents) == {"m": 4096, "n": 64, "k": 8}
    with pytest.raises(InputError, match="needs a whole number above 0, found '4096.5'"):
        read_requests("op,dtype,m,n,k\nmatmul,bf16,4096.5,64,8\n")


@pytest.mark.parametrize("name", ["a100-sxm-80", "tpu-v6e", "epyc-9654"])
def test_batched_products_are_as_many_products_and_move_all_operands(name: str) -> None:
    text = "op,dtype,batch,m,n,k\n" + "".join(
        f"batched_matmul,fp32,{b},256,256,64\n" for b in (1, 512)
    )
    if name == "tpu-v6e":
        text = text.replace("fp32", "bf16")
    _, calls = read_requests(text)
    one, many = predict_all(calls, chip(name))
    assert many.time_s.value > 5 * one.time_s.value
    width = 2 if name == "tpu-v6e" else 4
    moved = 512 * (256 * 64 * 2 + 256 * 256) * width
    bandwidth = chip(name).memory_bytes_per_s
    assert bandwidth is not None
    if name == "a100-sxm-80":  # nothing of it fits the caches
        assert many.time_s.value > moved / bandwidth


def test_predictions_carry_their_intervals() -> None:
    text = "op,dtype,m,n,k\nmatmul,bf16,512,512,512\n"
    raw, calls = read_requests(text)
    (p,) = found = list(predict_all(calls, chip("l4")))
    (row,) = predicted_rows(raw, found)
    assert (row["time_low_s"], row["time_high_s"]) == (p.time_s.low, p.time_s.high)
    assert p.energy_j is not None
    assert (row["energy_low_j"], row["energy_high_j"]) == (p.energy_j.low, p.energy_j.high)
    assert p.time_s.low < p.time_s.value < p.time_s.high


def test_scales_for_blocks_are_not_one_scale_for_all() -> None:
    """No maximum over all is looked for before, and partial sums are scaled block by block: quicker
    for few rows, slower for many; and only where an engine has such kernels.
    """
    h100 = chip("h100-sxm")

    def seconds(dtype: str, m: int) -> float:
        call = OperatorCall(1, "matmul", dtype, {"m": m, "n": 7168, "k": 2048})
        return predict(call, h100).time_s.value

    assert seconds("fp8_block", 16) < seconds("fp8", 16)
    assert seconds("fp8_block", 8192) > 1.2 * seconds("fp8", 8192)
    for call, on in (
        (OperatorCall(1, "softmax", "fp8_block", {"rows": 8, "cols": 8}), h100),
        (OperatorCall(1, "matmul", "fp8_block", {"m": 8, "n": 8, "k": 8}), chip("tpu-v6e")),
        (OperatorCall(1, "matmul", "fp8_block", {"m": 8, "n": 8, "k": 8}, engine=False), h100),
    ):
        with pytest.raises(InputError, match="fp8_block is of products as serving engines run"):
            predict(call, on)
    with pytest.raises(UnsupportedDType, match="a100-sxm-80 has no fp8 arithmetic"):
        predict(
            OperatorCall(1, "matmul", "fp8_block", {"m": 8, "n": 8, "k": 8}), chip("a100-sxm-80")
        )


def test_words_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    ops = tmp_path / "ops.csv"
    ops.write_text("op,dtype,m,n,k\nmatmul,bf16,8,8,8\n")
    run = CliRunner(env={"COLUMNS": "150"}).invoke
    for words, said in (
        (["--library", "vllm"], "--library vllm is of attention_decode"),
        (["--cluster", "dgx-h100"], "--cluster dgx-h100 is of collectives"),
        (["--library", "vllm", "--graph"], "--graph means no engine's kernels"),
        (["--json", "-o", str(tmp_path / "o.csv")], "leave one out"),
    ):
        done = run(app, ["predict", str(ops), "-c", "h100-sxm", *words])
        assert isinstance(done.exception, InputError)
        assert said in str(done.exception)
    for text, said in (
        ("op,dtype,m,n,k\rmatmul,bf16,1,1,1\r", "line 1: not a CSV"),
        ("op,dtype,m,n,k,warm\nmatmul,bf16,8,8,8,no\n", "says no, and --warm says yes"),
    ):
        with pytest.raises(InputError, match=said):
            read_requests(text, warm=True)


def test_a_million_tokens_are_dealt_at_once() -> None:
    """With as many choices as experts every expert takes every token, whatever their popularity."""
    counts = expert_counts(10_000_000, 8, 8, 1, "power_law_1.2", 1)
    assert counts == (10_000_000,) * 8
