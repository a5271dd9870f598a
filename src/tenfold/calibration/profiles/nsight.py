"""``nsys stats --report cuda_gpu_kern_sum --format csv``: the seconds of each kernel by name."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tenfold.calibration.profiles.record import Profile, Tool, seconds
from tenfold.errors import InputError

_TIME, _NAME, _INSTANCES = "Total Time (ns)", "Name", "Instances"


def header_at(lines: Sequence[str]) -> int | None:
    """Where the line with the columns is: nsys writes what it does before it."""
    for i, line in enumerate(lines[:200]):
        if "Total Time" in line and _NAME in line:
            return i
    return None


def read(text: str) -> Profile:
    """Raises InputError without its columns, or for a time that is none."""
    lines = text.splitlines()
    first = header_at(lines)
    if first is None:
        raise InputError(f"the file has no columns '{_TIME}' and '{_NAME}'")
    reader = csv.DictReader(io.StringIO("\n".join(lines[first:])))
    columns = [c.strip() for c in reader.fieldnames or ()]
    reader.fieldnames = columns
    if missing := [c for c in (_TIME, _INSTANCES, _NAME) if c not in columns]:
        raise InputError(
            f"line {first + 1}: Nsight Systems' kernel sum needs the columns '{_TIME}',"
            f" '{_INSTANCES}' and '{_NAME}', found {', '.join(columns)}; '{missing[0]}' is not"
            " there (nsys stats --report cuda_gpu_kern_sum --format csv)"
        )
    kernels: dict[str, float] = {}
    try:
        for row in reader:
            where = f"line {first + reader.line_num}, column '{_TIME}'"
            name = (row[_NAME] or "").strip()
            if not name:
                continue
            kernels[name] = kernels.get(name, 0.0) + seconds(row[_TIME], 1e-9, where, zero=False)
    except csv.Error as error:
        raise InputError(f"line {first + reader.line_num}: not a CSV: {error}") from error
    if not kernels:
        raise InputError("Nsight Systems' kernel sum holds no kernel")
    return Profile(Tool.NSIGHT, "", sum(kernels.values()), left_out=kernels)
