"""Profiles that people have: read into rows and passes; what is wrong with one is one clear line.

The trace is one that PyTorch writes here, on a processor; what a GPU adds to it, kernels with the
``External id`` of their operator, is added in the form that kineto gives it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tenfold.calibration import Forward, ProfiledModel, read_given
from tenfold.calibration.profiles import Tool, is_profile, read_profile
from tenfold.chips import chip
from tenfold.errors import InputError
from tenfold.evaluate.operators import OperatorCall
from tenfold.machine import Stack

A100 = "NVIDIA A100-SXM4-80GB"
LAUNCHES = (
    "mkldnn_convolution", "clamp_min", "addmm", "native_layer_norm", "gelu", "add", "bmm",
    "_softmax", "_scaled_dot_product_flash_attention_for_cpu",
)  # fmt: skip
_TRACE = """
import json, sys, torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
net = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1, stride=2, groups=2), nn.ReLU(), nn.Flatten(),
                    nn.Linear(256, 32), nn.LayerNorm(32), nn.GELU()).eval()
x, q = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 16, 32)
one = torch.randn(2, 4, 1, 32)
attend = nn.functional.scaled_dot_product_attention
with torch.no_grad():
    net(x)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as p:
        for _ in range(3):
            y = net(x)
            y + y
            y + 1.0
            torch.softmax(torch.bmm(q[0], q[0].mT), -1)
            attend(q, q, q, is_causal=True)
            attend(one, q, q)
p.export_chrome_trace(sys.argv[1])
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A trace as of a GPU: each call that does arithmetic launches a kernel of 5 us, and the
    convolution a second of 2 us.
    """
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("trace") / "cpu.json"
    subprocess.run([sys.executable, "-c", _TRACE, str(path)], check=True, capture_output=True)
    found: dict[str, Any] = json.loads(path.read_text())
    found["deviceProperties"] = [{"id": 0, "name": A100}]
    at, kernels = 1e6, list[dict[str, Any]]()
    for op in [e for e in found["traceEvents"] if e.get("cat") == "cpu_op"]:
        if op["name"].removeprefix("aten::") not in LAUNCHES:
            continue
        for took in (5.0, 2.0) if "convolution" in op["name"] else (5.0,):
            owner = {"External id": op["args"]["External id"], "stream": 7}
            kernels.append(_event("kernel", "k", at, took, owner))
            at += took + 1
    found["traceEvents"] += kernels
    return found


def _event(cat: str, name: str, ts: float, dur: float, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": dict(args)}


def _read(found: object) -> Any:
    return read_profile(json.dumps(found))


def test_a_trace_gives_operators_with_shapes_and_their_kernels(trace: dict[str, Any]) -> None:
    profile = _read(trace)
    assert (profile.tool, profile.device, profile.passes) == (Tool.TORCH, A100, None)
    rows = {m.what.op: m for m in profile.operators}
    assert all(m.what.dtype == "fp32" and not m.what.engine for m in profile.operators)
    extents = {op: dict(m.what.extents) for op, m in rows.items()}
    assert extents == {
        "conv2d": {
            "batch": 2, "channels": 4, "height": 8, "width": 8, "filters": 16, "kernel": 3,
            "stride": 2, "padding": 1, "groups": 2,
        },
        "relu": {"rows": 128, "cols": 4},
        "matmul": {"m": 2, "n": 32, "k": 256},
        "layernorm": {"rows": 2, "cols": 32},
        "gelu": {"rows": 2, "cols": 32},
        "add": {"rows": 2, "cols": 32},
        "batched_matmul": {"batch": 4, "m": 16, "n": 16, "k": 32},
        "softmax": {"rows": 64, "cols": 16},
        "attention_prefill": {
            "batch": 2, "heads": 4, "kv_heads": 4, "head_dim": 32, "q_len": 16, "causal": 1,
        },
        "attention_decode": {
            "batch": 2, "heads": 4, "kv_heads": 4, "head_dim": 32, "kv_len": 16,
        },
    }  # fmt: skip
    assert rows["conv2d"].time_s == pytest.approx(7e-6)
    assert rows["matmul"].time_s == pytest.approx(5e-6)
    told = sum(profile.left_out.values()) + 3 * sum(m.time_s for m in profile.operators)
    assert told == pytest.approx(profile.busy_s)  # counted once, as a row or as left out


def test_a_trace_with_steps_gives_the_time_of_a_pass(trace: dict[str, Any]) -> None:
    kernels = [e for e in trace["traceEvents"] if e.get("cat") == "kernel"]
    first, last = kernels[0]["ts"], kernels[-1]["ts"] + kernels[-1]["dur"]
    third = (last - first) / 3
    marks = [
        _event("gpu_user_annotation", f"ProfilerStep#{i}", first + i * third, third, {})
        for i in range(3)
    ]
    found = {**trace, "traceEvents": [*trace["traceEvents"], *marks]}
    profile = _read(found)
    assert profile.passes == 3
    assert profile.pass_s == pytest.approx(third * 1e-6, rel=0.1)
    given = read_given(
        json.dumps(found), chip("a100-sxm-80"), ProfiledModel("m", 8, stack=Stack.EAGER)
    )
    assert given.rows[-1].time_s == profile.pass_s
    assert given.rows[-1].what == Forward("m", 8, None, "fp32", Stack.EAGER)  # as its operators are
    for whole, said in (
        (ProfiledModel("m", 8), "say --stack eager or compiled"),
        (
            ProfiledModel("m", 8, dtype="fp16", stack=Stack.EAGER),
            "--dtype fp16: the operators .* are in fp32",
        ),
    ):
        with pytest.raises(InputError, match=said):
            read_given(json.dumps(found), chip("a100-sxm-80"), whole)


TRTEXEC = [
    {"count": 625},
    {"name": "Reformatting CopyNode for Input Tensor 0 to Conv_0", "timeMs": 36.6844,
     "averageMs": 0.058695, "percentage": 47.0},
    {"name": "Conv_0 + PWN(Clip_3)", "timeMs": 41.4232, "averageMs": 0.0662771,
     "percentage": 53.0},
    {"name": "Reformatting CopyNode for Input Tensor 0 to Conv_8", "timeMs": 0, "averageMs": 0,
     "percentage": 0},
]  # fmt: skip
NSIGHT = """Generating SQLite file report1.sqlite from report1.nsys-rep
Processing [report1.sqlite] with [cuda_gpu_kern_sum.py]...

Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
76.0,76000000,64,1187500.0,1.0,1,2,0.1,"void gemm<(int)128, float>(float *)"
24.0,24000000,64,375000.0,1.0,1,2,0.1,softmax_warp_forward
"""


def _node(name: str, op: str, dur: int, shapes: Any, out: Any, provider: str) -> dict[str, Any]:
    args = {
        "op_name": op,
        "provider": provider,
        "input_type_shape": shapes,
        "output_type_shape": out,
    }
    return _event("Node", f"{name}_kernel_time", 1, dur, args)


def _onnxruntime(provider: str = "CUDAExecutionProvider") -> list[dict[str, Any]]:
    conv = [{"float16": [8, 64, 56, 56]}, {"float16": [128, 64, 3, 3]}]
    once = [
        _node("c", "Conv", 9, conv, [{"float16": [8, 128, 28, 28]}], provider),
        _event("Kernel", "implicit_gemm", 2, 40, {"stream": "7"}),
        _event("Kernel", "bias", 3, 5, {"stream": "7"}),
        _node(
            "m",
            "MatMul",
            9,
            [{"float16": [8, 16, 256]}, {"float16": [256, 100]}],
            [{"float16": [8, 16, 100]}],
            provider,
        ),
        _event("Kernel", "gemm", 5, 20, {"stream": "7"}),
        _event("Session", "model_run", 1, 90, {}),
    ]
    return [_event("Session", "session_initialization", 0, 500, {}), *once, *once]


def test_onnxruntime_gives_kernels_of_nodes_and_passes() -> None:
    profile = _read(_onnxruntime())
    assert (profile.tool, profile.passes) == (Tool.ONNXRUNTIME, 2)
    assert profile.pass_s == pytest.approx(90e-6)
    conv, matmul = profile.operators
    assert isinstance(conv.what, OperatorCall)
    assert dict(conv.what.extents) == {
        "batch": 8, "channels": 64, "height": 56, "width": 56, "filters": 128, "kernel": 3,
        "stride": 2, "padding": 1, "groups": 1,
    }  # fmt: skip
    assert conv.time_s == pytest.approx(45e-6)
    assert dict(matmul.what.extents) == {"m": 128, "n": 100, "k": 256}
    assert matmul.what.dtype == "fp16"


def test_trtexec_gives_passes() -> None:
    profile = _read(TRTEXEC)
    assert (profile.tool, profile.passes) == (Tool.TRTEXEC, 625)
    assert profile.pass_s == pytest.approx(0.1249721e-3)
    with pytest.raises(InputError, match="--runs 3: the profile says that it holds 625 passes"):
        profile.seconds_of_pass(3)


def test_nsight_needs_to_be_told_how_many_passes() -> None:
    assert is_profile(NSIGHT)
    profile = read_profile(NSIGHT)
    assert profile.busy_s == pytest.approx(0.1)
    assert profile.seconds_of_pass(32) == pytest.approx(0.1 / 32)
    with pytest.raises(InputError, match="does not say how many passes.*give --runs N"):
        profile.seconds_of_pass(None)


def test_a_whole_pass_becomes_a_row_of_its_model() -> None:
    what = Forward("resnet50", 16, None, "fp16", Stack.ENGINE)
    given = read_given(json.dumps(TRTEXEC), chip("t4"), ProfiledModel("resnet50", 16))
    (row,) = given.rows
    assert (row.what, row.source, row.group) == (what, "trtexec", "forward resnet50")
    with pytest.raises(InputError, match="gives no shapes here: say which model it is of"):
        read_given(json.dumps(TRTEXEC), chip("t4"), None)
    with pytest.raises(InputError, match="leave --stack eager out"):
        read_given(
            json.dumps(TRTEXEC), chip("t4"), ProfiledModel("resnet50", 16, stack=Stack.EAGER)
        )
    with pytest.raises(InputError, match="trtexec runs on NVIDIA's cards, and mi300x is none"):
        read_given(json.dumps(TRTEXEC), chip("mi300x"), ProfiledModel("resnet50", 16))


@pytest.mark.parametrize(
    ("name", "device", "refused"),
    [
        ("a100-sxm-80", A100, ""),
        ("h100-sxm", A100, "which is not h100-sxm: calibrate a100-pcie-40"),
        ("l4", "NVIDIA L40S", "which is not l4: calibrate l40s"),
        ("b200", "NVIDIA GB200", "which is not b200: calibrate gb200"),
        ("rtx-4090", "NVIDIA GeForce RTX 4090", ""),
        ("mi210", "AMD Instinct MI210", ""),
        ("t4", "A card that nobody knows", ""),
    ],
)
def test_a_profile_of_another_card_is_refused(name: str, device: str, refused: str) -> None:
    kernel = _event("kernel", "k", 1, 5, {"External id": 1})
    args = {"External id": 1, "Input Dims": [[4, 8], [8, 2]], "Input type": ["float", "float"]}
    op = _event("cpu_op", "aten::mm", 0, 9, args)
    text = json.dumps({"deviceProperties": [{"name": device}], "traceEvents": [op, kernel]})
    if not refused:
        assert len(read_given(text, chip(name), None).rows) == 1
        return
    with pytest.raises(InputError, match=refused):
        read_given(text, chip(name), None)


def _changed(change: Callable[[Any], object]) -> str:
    found = json.loads(json.dumps(TRTEXEC))
    change(found)
    return json.dumps(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"traceEvents": [', "no whole JSON"),
        ('{"schemaVersion": 1, "nodes": []}', "found the keys schemaVersion, nodes"),
        ('{"traceEvents": []}', "holds no kernels of a GPU"),
        (json.dumps({"traceEvents": [_event("cpu_op", "aten::mm", 1, 2, {})]}), "found cpu_op"),
        (
            json.dumps({"traceEvents": [_event("kernel", "gemm", 1, -2, {})]}),
            "the kernel 'gemm' of the trace: a time must be a number 0 or more, found '-2'",
        ),
        ("[]", "a list of neither trtexec's layers"),
        ("[1, 2]", "a list of neither trtexec's layers"),
        (_changed(lambda p: p.pop(0)), "one entry 'count', the number of passes .*, found none"),
        (_changed(lambda p: p[0].update(count=0)), r"found \[0\]"),
        (_changed(lambda p: p[0].update(count=10**40)), "the number of passes .1 to 1,000,000,000"),
        (_changed(lambda p: p[1].update(averageMs=1e308)), "a time must be a number"),
        (_changed(lambda p: p[1].update(averageMs=-1)), "entry 2 .*found '-1'"),
        (_changed(lambda p: p[1].pop("averageMs")), "entry 2 .*has no 'averageMs'"),
        (
            json.dumps([{"count": 3}, {"name": "a", "averageMs": 0, "timeMs": 0}]),
            "no layer that takes time",
        ),
        (json.dumps(_onnxruntime("CPUExecutionProvider")), "ran with CPUExecutionProvider"),
        (json.dumps(_onnxruntime()[:2]), "no run of the model"),
        (NSIGHT.replace("Total Time (ns)", "Total Time"), "'Total Time \\(ns\\)' is not there"),
        (NSIGHT.replace("76000000", "0"), "line 5, column 'Total Time \\(ns\\)': .*above 0, found"),
        (NSIGHT.replace("76000000", "n/a"), "line 5, .*found 'n/a'"),
        ("\n".join(NSIGHT.splitlines()[:4]), "holds no kernel"),
    ],
)
def test_what_is_wrong_with_a_profile_is_one_line(text: str, said: str) -> None:
    assert is_profile(text)
    with pytest.raises(InputError, match=said) as error:
        read_profile(text)
    assert "\n" not in str(error.value)


def test_calibrate_reads_a_profile_and_shows_before_and_after(tmp_path: Path) -> None:
    profile, out = tmp_path / "p.json", tmp_path / "t4.toml"
    profile.write_text(json.dumps(TRTEXEC))
    words = ["--model", "resnet50", "-b", "1", "--json", "-o", str(out)]
    command = [sys.executable, "-m", "tenfold", "calibrate", "t4", str(profile), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    (model,) = document["models"]
    measured, before, after = (model[f"{n}_s"] for n in ("measured", "before", "after"))
    assert measured == pytest.approx(0.1249721e-3)
    assert abs(after / measured - 1) < abs(before / measured - 1)
    assert document["families"]["whole models"]["error"]["before"] == pytest.approx(
        abs(before / measured - 1)
    )
    assert chip(str(out)).number("calibration.model_error") is not None


def test_options_of_a_profile_need_its_model(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("op,dtype,m,n,k,time_us\nmatmul,fp16,1,2,3,4\n")
    for words, said in (
        (["--batch", "8"], "--batch: of which model? --model says it"),
        (["--model", "resnet50"], "a table of measured times has rows 'forward'"),
    ):
        command = [sys.executable, "-m", "tenfold", "calibrate", "t4", str(table), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stderr


def test_steps_on_several_streams_are_counted_once() -> None:
    """Kineto marks a step once for each stream; a pass is from its first kernel to its last end."""
    events = []
    for step in range(3):
        for stream in (7, 20):
            at = 1000.0 * step + (stream == 20) * 50
            mark = _event("gpu_user_annotation", f"ProfilerStep#{step}", at, 50, {"stream": stream})
            events += [mark, _event("kernel", "k", at, 50, {"stream": stream})]
    profile = _read({"traceEvents": events})
    assert profile.passes == 3
    assert profile.pass_s == pytest.approx(100e-6)


@pytest.mark.parametrize(
    "args",
    [
        {"External id": [1]},
        {"External id": {"a": 1}},
        {"External id": 1, "Input Dims": "x", "Input type": ["float"]},
        {"External id": 1, "Input Dims": [["4", 8], [8, 2]], "Input type": ["float", "float"]},
        {"External id": 1, "Input Dims": [[4, 8]], "Input type": ["float"]},
        {"External id": 1, "Input Dims": [[4, 0], [0, 2]], "Input type": ["float", "float"]},
        {"External id": 1, "Input Dims": [[4, 10**40], [10**40, 2]], "Input type": ["float"]},
        {},
    ],
)
def test_what_an_operator_does_not_say_makes_no_row(args: dict[str, Any]) -> None:
    """And what its kernels took is told as left out, not given to another."""
    op = _event("cpu_op", "aten::mm", 0, 9, args)
    own = {"External id": args["External id"]} if "External id" in args else {}
    other = _event("kernel", "b", 9, 3, {"correlation": 9})
    profile = _read({"traceEvents": [op, _event("kernel", "a", 1, 5, own), other]})
    assert profile.operators == ()
    assert sum(profile.left_out.values()) == pytest.approx(8e-6)


@pytest.mark.parametrize(
    ("given", "out"),
    [([None], [{"float": [1]}]), ([{"float": None}], []), ([{"float": [1, 2]}], [{"float": ["a"]}]),
     ([{"float": [1, 3, 8, 8]}, {"float": [4, 3, 3, 3]}], [{"float": [1, 4, 0, 0]}])],
)  # fmt: skip
def test_nodes_of_unknown_shapes_make_no_row(given: Any, out: Any) -> None:
    node = _node("c", "Conv", 9, given, out, "CUDAExecutionProvider")
    run = _event("Session", "model_run", 1, 90, {})
    profile = _read([node, _event("Kernel", "k", 2, 5, {}), run])
    assert profile.operators == ()


def test_a_time_beyond_numbers_is_none() -> None:
    text = json.dumps([{"count": 1}, {"name": "a", "averageMs": 10**400, "timeMs": 1}])
    with pytest.raises(InputError, match="a time must be a number"):
        read_profile(text)
