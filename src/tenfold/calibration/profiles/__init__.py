"""What profilers write, read into rows of measured times and the seconds of a whole pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tenfold.calibration.profiles import nsight, onnxruntime, torch_trace, trtexec
from tenfold.calibration.profiles.record import Profile, Tool
from tenfold.errors import InputError

__all__ = ["Profile", "Tool", "is_profile", "read_profile"]

_TOOLS = ", ".join(t.value for t in Tool)


def is_profile(text: str) -> bool:
    """Whether a file is one that a profiler wrote, and no table of ``predict``'s columns."""
    return text.lstrip()[:1] in ("{", "[") or nsight.header_at(text.splitlines()) is not None


def read_profile(text: str) -> Profile:
    """A Chrome trace of torch.profiler, trtexec's ``--exportProfile``, Nsight Systems'
    ``cuda_gpu_kern_sum`` as CSV, or ONNX Runtime's profile.

    Raises InputError where it is none of them, of a version whose fields differ, without work of a
    GPU, or with times that are none.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return nsight.read(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the profile is no whole JSON ({error}): was its writing cut off?"
        ) from None
    if isinstance(found, dict):
        if not isinstance(found.get("traceEvents"), list):
            keys = ", ".join(list(found)[:6]) or "none"
            raise InputError(
                "the JSON is no Chrome trace: it needs a list 'traceEvents', found the keys"
                f" {keys}; read are profiles of {_TOOLS}"
            )
        return torch_trace.read(found)
    for is_its, read in _LISTS:
        if is_its(found):
            return read(found)
    raise InputError(
        "the JSON is a list of neither trtexec's layers (entries with 'averageMs') nor ONNX"
        f" Runtime's events (entries with 'cat'): read are profiles of {_TOOLS}"
    )


_List = list[Any]
_LISTS: tuple[tuple[Callable[[_List], bool], Callable[[_List], Profile]], ...] = (
    (trtexec.is_its, trtexec.read),
    (onnxruntime.is_its, onnxruntime.read),
)
