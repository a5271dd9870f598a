"""``trtexec --exportProfile``: a count of passes, then layers with their times, in milliseconds."""

from __future__ import annotations

from typing import Any

from tenfold.calibration.profiles.record import Profile, Tool, seconds
from tenfold.errors import InputError

MOST_PASSES = 10**9


def is_its(entries: list[Any]) -> bool:
    return any(isinstance(e, dict) and {"averageMs", "timeMs"} & e.keys() for e in entries)


def read(entries: list[Any]) -> Profile:
    """Raises InputError without the count, or for a layer without its time."""
    counts = [e["count"] for e in entries if isinstance(e, dict) and "count" in e]
    if len(counts) != 1 or not isinstance(counts[0], int) or not 1 <= counts[0] <= MOST_PASSES:
        raise InputError(
            "trtexec's profile must hold one entry 'count', the number of passes (1 to"
            f" {MOST_PASSES:,}), found {str(counts or 'none')[:40]}"
        )
    layers: dict[str, float] = {}
    for i, e in enumerate(entries, 1):
        if not isinstance(e, dict) or "count" in e:
            continue
        name = str(e.get("name", ""))
        where = f"trtexec's profile, entry {i} ('{name[:40]}')"
        if "averageMs" not in e:
            raise InputError(f"{where}: has no 'averageMs', found {', '.join(map(str, e))}")
        layers[name] = layers.get(name, 0.0) + seconds(e["averageMs"], 1e-3, where)
    if not sum(layers.values()):
        raise InputError("trtexec's profile holds no layer that takes time")
    one = sum(layers.values())
    return Profile(
        tool=Tool.TRTEXEC,
        device="",
        busy_s=one * counts[0],
        passes=counts[0],
        pass_s=one,
        left_out=layers,
    )
