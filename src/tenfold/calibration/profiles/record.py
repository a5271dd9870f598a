"""What a profile tells: operators with their times, and how long a pass takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tenfold.calibration.measured import Measured, group_of
from tenfold.errors import InputError
from tenfold.evaluate.operators import OperatorCall


class Tool(StrEnum):
    """What wrote a profile."""

    TORCH = "torch.profiler"
    TRTEXEC = "trtexec"
    NSIGHT = "Nsight Systems"
    ONNXRUNTIME = "ONNX Runtime"


@dataclass(frozen=True, slots=True)
class Profile:
    """``device`` as the profile names it, "" where it does not.

    ``busy_s`` is all that kernels took; ``passes`` how many passes that is, and ``pass_s`` the
    median of one, where it says. ``operators`` are the medians of calls of one shape;
    ``left_out`` the seconds of kernels that no row stands for, by name.
    """

    tool: Tool
    device: str
    busy_s: float
    passes: int | None = None
    pass_s: float | None = None
    operators: tuple[Measured, ...] = ()
    left_out: Mapping[str, float] | None = None

    def seconds_of_pass(self, runs: int | None) -> float:
        """Seconds of one pass; ``runs`` says how many there are where the profile does not.

        Raises InputError where neither does, or where the two differ.
        """
        if runs is not None and self.passes not in (None, runs):
            raise InputError(
                f"--runs {runs}: the profile says that it holds {self.passes} passes; leave --runs"
                " out"
            )
        count = self.passes or runs
        if count is None:
            raise InputError(
                f"a profile of {self.tool} does not say how many passes of the model it holds: give"
                " --runs N"
            )
        return self.pass_s if self.pass_s is not None else self.busy_s / count


def seconds(value: Any, scale: float, where: str, *, zero: bool = True) -> float:
    """A time in a profile, ``scale`` seconds a unit. Raises InputError for what is none."""
    try:
        number = float(value) * scale
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number <= LONGEST_S or number < 0 or (number == 0 and not zero):
        least = "0 or more" if zero else "above 0"
        raise InputError(f"{where}: a time must be a number {least}, found {str(value)[:40]!r}")
    return number


class Calls:
    """Seconds of calls by what was called, in the order in which they come."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._times: dict[tuple[Any, ...], list[float]] = {}
        self._what: dict[tuple[Any, ...], OperatorCall] = {}

    def add(self, op: str, dtype: str, extents: Mapping[str, int], time_s: float) -> None:
        key = (op, dtype, *extents.items())
        # kernels of a framework, which are not those of serving engines
        self._what.setdefault(key, OperatorCall(0, op, dtype, extents, "balanced", engine=False))
        self._times.setdefault(key, []).append(time_s)

    def rows(self) -> tuple[Measured, ...]:
        return tuple(
            Measured(what, statistics.median(self._times[k]), self._source, group_of(what))
            for k, what in self._what.items()
        )


def shapes_of(value: Any) -> list[list[int]] | None:
    """Shapes as a profile writes them, None for what is none."""
    if not isinstance(value, list):
        return None
    whole = [s if isinstance(s, list) else [] for s in value]
    if any(not isinstance(d, int) or isinstance(d, bool) or d > LARGEST for s in whole for d in s):
        return None
    return whole


LARGEST = 2**40  # extent beyond any machine
LONGEST_S = 1e6  # a time beyond any pass


def rows_and_columns(dims: Sequence[int]) -> dict[str, int]:
    """A tensor as rows of its last axis."""
    return {"rows": max(1, math.prod(dims[:-1])), "cols": dims[-1] if dims else 1}
