"""Writes docs/steps.md: what each step of the compiler is worth over the zoo.

python docs/steps.py docs/steps.md
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from tenfold.chips import chip
from tenfold.compiler import STEPS, Options, build
from tenfold.machine import pace
from tenfold.model import Sizes, load, prepare

CHIPS = ("tpu-v4i", "a100-sxm-80")
MODELS = (
    ("resnet50", None, 8, None), ("inception-v2", None, 8, None), ("densenet121", None, 8, None),
    ("vgg19", None, 8, None), ("ssd-resnet34", None, 1, None), ("vit-b16", None, 8, None),
    ("dit-xl-2", None, 2, None), ("bert-base", None, 8, 128), ("bert-large", None, 8, 384), ("gpt2",
    "prefill", 1, 512), ("gpt2", "decode", 8, 512), ("qwen2.5-0.5b", "prefill", 1, 512),
    ("qwen2.5-0.5b", "decode", 8, 512), ("transformer-big", None, 8, 64), ("gnmt", None, 16, 32),
    ("rnn-t", None, 8, 64), ("tpu-v1-mlp0", None, 200, None), ("tpu-v1-lstm0", None, 64, 16),
    ("tpu-v1-cnn0", None, 8, None),
)  # fmt: skip
# these clean up for the others, or save memory and not time
SHOWN = [s for s in STEPS if s not in ("canonicalise", "cse", "fold", "order")]


def worth(model: str, phase: str | None, batch: int, seq: int | None, on: str) -> dict[str, float]:
    """Milliseconds with everything, and how many times as long without each step, and without
    any.
    """
    record = chip(on)
    graph = prepare(load(model, phase), Sizes(batch, seq)).graph

    def time(*without: str) -> float:
        program = build(graph, record, record.storage(None), batch, Options(without))
        return pace(program, record).pass_s

    whole = time()
    alone = {s: time(s) / whole for s in SHOWN}
    return (
        {"ms": whole * 1e3}
        | alone
        | {"fuse + residency": time("fuse", "residency") / whole, "all": time(*STEPS) / whole}
    )


INTRODUCTION = (
    "# What each step of the compiler is worth",
    "",
    (
        "How many times as long a pass takes without the step, and without any of them; 1.00 is no"
        " difference."
    ),
    (
        "`tenfold compile --steps` says what each step does, `profile --without STEP` repeats a"
        " cell. Written by `docs/steps.py`."
    ),
    "",
    (
        "Published for comparison: fusion gives more than 2x on MLPerf models (Patterson 2022),"
        " CMEM 1.5x on TPU v4i's production"
    ),
    (
        "applications (Jouppi et al., ISCA 2021). The two stand in for each other: what stays in"
        " CMEM need not be fused to save its"
    ),
    (
        "transfers, and a product overlaps its own transfers either way. So each alone is worth"
        " less here, and both together are the"
    ),
    "number to compare.",
)


def page() -> str:
    """The page."""
    lines = list(INTRODUCTION)
    for on in CHIPS:
        rows = [(m, worth(*m, on)) for m in MODELS]
        columns = [*SHOWN, "fuse + residency", "all"]
        lines += [
            "",
            f"## {on}, {chip(on).storage(None).value}",
            "",
            f"| model | ms | {' | '.join(columns)} |",
            "|---|" + "--:|" * (len(columns) + 1),
        ]
        for (name, phase, batch, seq), w in rows:
            label = f"{name}{f' {phase}' if phase else ''} b{batch}{f' s{seq}' if seq else ''}"
            lines.append(
                f"| {label} | {w['ms']:.3g} | " + " | ".join(f"{w[c]:.2f}" for c in columns) + " |"
            )
        means = {c: math.exp(sum(math.log(w[c]) for _, w in rows) / len(rows)) for c in columns}
        lines.append(
            "| geometric mean | | " + " | ".join(f"{means[c]:.2f}" for c in columns) + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
