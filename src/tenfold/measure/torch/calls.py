"""Operators as PyTorch calls them, with operands of normal numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from tenfold.errors import InputError
from tenfold.evaluate.operators import CONV, DECODE, POINTWISE, PREFILL, OperatorCall

Call: TypeAlias = Callable[[], Any]
_Made: TypeAlias = Callable[[Any, Callable[..., Any], Mapping[str, int]], Call]


def call_of(torch: Any, r: OperatorCall, device: str) -> Call:
    """A call of ``r`` on operands that are made here. Raises InputError for an operator or a dtype
    that is not measured through PyTorch.
    """
    made, dtype = _CALLS.get(r.op), _DTYPES.get(r.dtype)
    if made is None or dtype is None:
        raise InputError(
            f"{r.op} in {r.dtype} is not measured through PyTorch: operators are"
            f" {', '.join(_CALLS)}; dtypes {', '.join(_DTYPES)}"
        )
    kind = getattr(torch, dtype)

    def tensor(*shape: int) -> Any:
        return torch.randn(*shape, device=device, dtype=torch.float32).to(kind)

    return made(torch, tensor, r.extents)


def _matmul(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
    x, w = tensor(e["m"], e["k"]), tensor(e["n"], e["k"])
    return lambda: torch.nn.functional.linear(x, w)


def _batched(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
    x, w = tensor(e["batch"], e["m"], e["k"]), tensor(e["batch"], e["k"], e["n"])
    return lambda: torch.bmm(x, w)


def _conv(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
    x = tensor(e["batch"], e["channels"], e["height"], e["width"])
    w = tensor(e["filters"], e["channels"] // e["groups"], e["kernel"], e["kernel"])
    stride, padding, groups = e["stride"], e["padding"], e["groups"]
    return lambda: torch.nn.functional.conv2d(x, w, None, stride, padding, 1, groups)


def _attention(queries: str, keys: str) -> _Made:
    def made(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
        rows, length = e.get(queries, 1), e[keys]
        q = tensor(e["batch"], e["heads"], rows, e["head_dim"])
        k, v = (tensor(e["batch"], e["kv_heads"], length, e["head_dim"]) for _ in range(2))
        causal, grouped = bool(e.get("causal", 0)), e["heads"] != e["kv_heads"]
        attend = torch.nn.functional.scaled_dot_product_attention
        return lambda: attend(q, k, v, is_causal=causal, enable_gqa=grouped)

    return made


def _softmax(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
    x = tensor(e["rows"], e["cols"])
    return lambda: torch.softmax(x, -1)


def _layernorm(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
    x, scale, shift = tensor(e["rows"], e["cols"]), tensor(e["cols"]), tensor(e["cols"])
    width = (e["cols"],)
    return lambda: torch.nn.functional.layer_norm(x, width, scale, shift)


def _pointwise(name: str, tensors: int) -> _Made:
    def made(torch: Any, tensor: Callable[..., Any], e: Mapping[str, int]) -> Call:
        given = tuple(tensor(e["rows"], e["cols"]) for _ in range(tensors))
        apply = torch.nn.functional.gelu if name == "gelu" else getattr(torch, name)
        return lambda: apply(*given)

    return made


_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_CALLS: Mapping[str, _Made] = {
    "matmul": _matmul,
    "batched_matmul": _batched,
    PREFILL: _attention("q_len", "q_len"),
    DECODE: _attention("", "kv_len"),
    CONV: _conv,
    "softmax": _softmax,
    "layernorm": _layernorm,
    **{name: _pointwise(name, tensors) for name, tensors in POINTWISE.items()},
}
