"""Open sets of measured times, as their authors publish them, read from a folder into rows of one
form.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tenfold.calibration.measured import FORWARD, Forward, Measured, group_of, split
from tenfold.evaluate.operators import CONV, POINTWISE, OperatorCall

_Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """One file of one chip: where it is in the folder, who measured, and how a line of it reads.

    ``fitted_on`` names the groups to fit on; without it every third group is held out.
    """

    chip: str
    path: str
    source: str
    read: Callable[[Sequence[_Row], str], Iterator[Measured]]
    device: str = ""
    fitted_on: str = ""

    def rows(self, folder: Path) -> list[Measured]:
        """All rows, none where the file is not there."""
        path = folder / self.path
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            lines = [
                r
                for r in csv.DictReader(file)
                if not self.device or self.device in (r.get("device"), r.get("chip"))
            ]
        return list(self.read(lines, self.source))

    def parts(self, folder: Path) -> tuple[list[Measured], list[Measured]]:
        """The rows to fit on, and those to score."""
        rows = self.rows(folder)
        if not self.fitted_on:
            return split(rows)
        return [m for m in rows if self.fitted_on in m.group], [
            m for m in rows if self.fitted_on not in m.group
        ]


def _measured(
    line: int,
    op: str,
    dtype: str,
    extents: Mapping[str, int],
    seconds: float,
    source: str,
    distribution: str = "",
    group: str = "",
    *,
    engine: bool = True,
    warm: bool = False,
) -> Measured:
    request = OperatorCall(line, op, dtype, extents, distribution, engine, warm)
    return Measured(request, seconds, source, group or group_of(request))


SHORTEST_FOR_POWER_S = 50e-6
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "fp8": "fp8"}


def _gemm(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    for i, r in enumerate(rows, 2):
        if r["gemm_dtype"] in _DTYPES:
            extents = {n: int(r[n]) for n in ("m", "n", "k")}
            yield _measured(
                i,
                "matmul",
                _DTYPES[r["gemm_dtype"]],
                extents,
                float(r["latency_ms"]) * 1e-3,
                source,
            )


def _gemm_power(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    """Only kernels long enough for their power to be their own."""
    long = [r for r in rows if float(r["latency_ms"]) >= SHORTEST_FOR_POWER_S * 1e3]
    for r, m in zip(
        [r for r in long if r["gemm_dtype"] in _DTYPES], _gemm(long, source), strict=True
    ):
        yield replace(m, power_w=float(r["power"]))


def _prefill(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    """In a loop on the same operands, as its authors say, and so is decode."""
    for i, r in enumerate(rows, 2):
        extents = {"q_len": int(r["isl"]), "causal": 1, **_heads(r)}
        yield _measured(
            i,
            "attention_prefill",
            _DTYPES[r["attn_dtype"]],
            extents,
            float(r["latency_ms"]) * 1e-3,
            source,
            warm=True,
        )


def _decode(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    for i, r in enumerate(rows, 2):
        extents = {"kv_len": int(r["isl"]) + int(r["step"]), **_heads(r)}
        yield _measured(
            i,
            "attention_decode",
            _DTYPES[r["attn_dtype"]],
            extents,
            float(r["latency_ms"]) * 1e-3,
            source,
            warm=True,
        )


def _heads(r: _Row) -> dict[str, int]:
    named = {
        "batch": "batch_size",
        "heads": "num_heads",
        "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
    }
    return {ours: int(r[theirs]) for ours, theirs in named.items()}


# Experts of the Nemotron 3 family have no gate (recalled; their widths are unique in the set)
_UNGATED = (1856, 2688)


def _moe(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    named = {
        "tokens": "num_tokens",
        "hidden": "hidden_size",
        "inter": "inter_size",
        "topk": "topk",
        "experts": "num_experts",
        "tp": "moe_tp_size",
        "ep": "moe_ep_size",
    }
    for i, r in enumerate(rows, 2):
        extents = {ours: int(r[theirs]) for ours, theirs in named.items()}
        extents["gated"] = int(extents["inter"] not in _UNGATED)
        yield _measured(
            i,
            "moe",
            _DTYPES[r["moe_dtype"]],
            extents,
            float(r["latency_ms"]) * 1e-3,
            source,
            r["distribution"],
        )


def _vidur(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    """The four products of a transformer layer: Agrawal et al. 2024, Vidur."""
    for i, r in enumerate(rows, 2):
        heads, kv, embd, inner, tp, tokens = (
            int(r[c])
            for c in (
                "n_head",
                "n_kv_head",
                "n_embd",
                "n_expanded_embd",
                "num_tensor_parallel_workers",
                "num_tokens",
            )
        )
        gates = 2 if r["use_gated_mlp"].lower() in ("true", "1") else 1
        products = {
            "attn_pre_proj_ms": ((heads + 2 * max(kv, tp)) * (embd // heads) // tp, embd),
            "attn_post_proj_ms": (embd, embd // tp),
            "mlp_up_proj_ms": (gates * inner // tp, embd),
            "mlp_down_proj_ms": (embd, inner // tp),
        }
        for column, (n, k) in products.items():
            if r[column]:
                yield _measured(
                    i,
                    "matmul",
                    "fp16",
                    {"m": tokens, "n": n, "k": k},
                    float(r[column]) * 1e-3,
                    source,
                    group=f"matmul {r['model']}",
                )


def _llmcompass(op: str) -> Callable[[Sequence[_Row], str], Iterator[Measured]]:
    def read(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
        for i, r in enumerate(rows, 2):
            if op == "matmul":
                extents = {"m": int(r["M"]), "n": int(r["N"]), "k": int(r["K"])}
                yield _measured(
                    i,
                    op,
                    "fp16",
                    extents,
                    float(r["latency_ms"]) * 1e-3,
                    source,
                    group=f"matmul {'-'.join(map(str, extents.values()))}",
                )
                continue
            shape = (
                {"rows": 1, "cols": int(r["elements"])}
                if op == "gelu"
                else {"rows": int(r["M"]), "cols": int(r["N"])}
            )
            elements = shape["rows"] * shape["cols"]
            yield _measured(
                i, op, "fp16", shape, elements / float(r["giga_elements_per_s"]) * 1e-9, source
            )

    return read


# fp32 operators of eager PyTorch: Lee et al., NeuSight, ASPLOS 2025
_NEUSIGHT = {
    "linear": ("matmul", {"m": "m", "n": "n", "k": "k"}),
    "bmm": ("batched_matmul", {"batch": "batch", "m": "m", "n": "n", "k": "k"}),
    **{
        theirs: (ours, {"rows": "batch", "cols": "width"})
        for theirs, ours in (("ln", "layernorm"), *((n, n) for n in ("softmax", *POINTWISE)))
    },
}


def _neusight(ops: Sequence[str]) -> Callable[[Sequence[_Row], str], Iterator[Measured]]:
    def read(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
        for i, r in enumerate(rows, 2):
            if r["op"] in ops:
                op, columns = _NEUSIGHT[r["op"]]
                extents = {ours: int(float(r[theirs])) for ours, theirs in columns.items()}
                seconds = float(r["latency_ms"]) * 1e-3
                yield _measured(i, op, "fp32", extents, seconds, source, engine=False)

    return read


def _neusight_conv(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    named = {
        "batch": "batch",
        "channels": "channels",
        "height": "size",
        "width": "size",
        "filters": "filters",
        "kernel": "kernel_size",
        "stride": "stride",
        "padding": "padding",
    }
    for i, r in enumerate(rows, 2):
        extents = {ours: int(r[theirs]) for ours, theirs in named.items()} | {"groups": 1}
        seconds = float(r["latency_ms"]) * 1e-3
        yield _measured(i, CONV, "fp32", extents, seconds, source, engine=False)


def _tpu_gemm(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    for i, r in enumerate(rows, 2):
        yield _measured(
            i,
            "matmul",
            "bf16",
            {n: int(r[n]) for n in ("m", "n", "k")},
            float(r["device_us"]) * 1e-6,
            source,
        )


def _forward(rows: Sequence[_Row], source: str) -> Iterator[Measured]:
    for r in rows:
        what = Forward(r["model"], int(r["batch"]), int(r["seq"]))
        yield Measured(what, float(r["device_ms"]) * 1e-3, source, f"{FORWARD} {r['model']}")


def published_forward() -> dict[str, list[Measured]]:
    """Measured forward passes that ship with the product, by chip; nothing was fitted to them."""
    text = (Path(__file__).parent / "data" / "tpu-forward.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    return {
        c: list(_forward([r for r in rows if r["chip"] == c], f"{_TPU}-forward"))
        for c in dict.fromkeys(r["chip"] for r in rows)
    }


_NS, _KERNELS = "neusight", "neusight/kernels.csv"
_AIC, _LLMC, _TPU = "aiconfigurator", "llmcompass", "scalesim-tpu"
SETS: tuple[MeasuredSet, ...] = (
    *(
        MeasuredSet(chip, f"{_AIC}/{file}_{short}.csv", _AIC, read)
        for chip, short in (("a100-sxm-80", "a100"), ("h100-sxm", "h100"))
        for file, read in (
            ("gemm", _gemm),
            ("attention_prefill", _prefill),
            ("attention_decode", _decode),
            ("moe", _moe),
        )
    ),
    *(
        MeasuredSet(chip, "vidur/mlp_layers.csv", "vidur", _vidur, device, "Llama-2-7b")
        for chip, device in (("a100-sxm-80", "a100"), ("h100-sxm", "h100"))
    ),
    *(
        MeasuredSet(chip, f"{_LLMC}/{op}_{short}.csv", f"{_LLMC}-{op}", _llmcompass(op))
        for chip, short in (("a100-sxm-80", "A100"), ("mi210", "MI210"))
        for op in ("matmul", "softmax", "layernorm", "gelu")
    ),
    *(
        MeasuredSet(chip, _KERNELS, _NS, _neusight(("linear", "bmm")), device=chip)
        for chip in ("v100-pcie-32", "a100-pcie-40", "t4")
    ),
    MeasuredSet("h200-sxm", f"{_AIC}/gemm_power_h200.csv", _AIC, _gemm_power),
    MeasuredSet("tpu-v6e", "tpu/gemm_v6e.csv", f"{_TPU}-matmul", _tpu_gemm),
    *(
        MeasuredSet(chip, "tpu/e2e_forward.csv", f"{_TPU}-forward", _forward, chip, FORWARD)
        for chip in ("tpu-v4", "tpu-v6e")
    ),
)
# of chips and operators that nothing was fitted to
UNSEEN: tuple[MeasuredSet, ...] = (
    MeasuredSet("mi210", _KERNELS, _NS, _neusight(("linear", "bmm")), device="mi210"),
    *(
        MeasuredSet(chip, _KERNELS, _NS, _neusight(("softmax", "ln", *POINTWISE)), device=chip)
        for chip in ("v100-pcie-32", "t4", "a100-pcie-40")
    ),
    *(
        MeasuredSet(chip, "neusight/conv.csv", _NS, _neusight_conv, device=chip)
        for chip in ("v100-pcie-32", "t4")
    ),
)
