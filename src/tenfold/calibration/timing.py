"""Seconds of measured rows as functions of a chip's constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from tenfold.calibration.measured import Forward, Measured
from tenfold.calibration.record import FamilyFit
from tenfold.calibration.sought import FITTINGS
from tenfold.chips import Chip, Constant, GpuConstant
from tenfold.chips.figures import CALIBRATION
from tenfold.compiler import Options, build
from tenfold.errors import InputError
from tenfold.evaluate.operators import kernel_of, kernels_of, precision_of
from tenfold.evaluate.predicting import overlapped_fetch_s
from tenfold.facts import Status
from tenfold.machine import Kernel, Program, gpu_times, pace, time_kernels
from tenfold.model import Sizes, load, prepare

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Timer: TypeAlias = Callable[[Chip], Floats]
LAUNCH = f"{CALIBRATION}{GpuConstant.LAUNCH_S.value}"


def path_of(constant: Constant) -> str:
    return f"{CALIBRATION}{constant.value}"


def fitted_to(chip: Chip, values: Mapping[str, float]) -> Chip:
    return chip.with_figures(values, Status.FITTED)


def with_errors(chip: Chip, fit: FamilyFit) -> Chip:
    return fitted_to(chip, {f"{CALIBRATION}{of.value}_error": fit.interval for of in fit.covers})


def kernel_at(chip: Chip, m: Measured) -> Kernel:
    assert not isinstance(m.what, Forward)
    try:
        return kernel_of(m.what, chip, precision_of(m.what, chip))
    except InputError as error:
        raise type(error)(f"line {m.what.line}: {error}") from error


def errors(chip: Chip, rows: Sequence[Measured], beside: Mapping[str, float]) -> list[float]:
    """Predicted over measured less 1, row by row."""
    found: list[float] = []
    for source in dict.fromkeys(m.source for m in rows):
        own = [m for m in rows if m.source == source]
        used = fitted_to(chip, {LAUNCH: beside[source]}) if source in beside else chip
        found += (timer(chip, own)(used) / np.array([m.time_s for m in own]) - 1).tolist()
    return found


def timer(chip: Chip, rows: Sequence[Measured]) -> Timer:
    """Seconds of ``rows`` as a function of the chip's constants; what does not depend on them is
    made once.
    """
    together = FITTINGS[chip.kind].together
    programs: list[tuple[int, Program]] = []
    alike: dict[tuple[object, ...], list[tuple[int, Kernel]]] = {}
    parts: list[tuple[int, tuple[Kernel, ...]]] = []
    for i, m in enumerate(rows):
        if isinstance(m.what, Forward):
            bound = prepare(load(m.what.model), Sizes(m.what.batch, m.what.seq))
            precision, options = chip.storage(m.what.dtype), Options(stack=m.what.stack)
            programs.append((i, build(bound.graph, chip, precision, bound.batch, options)))
            continue
        k = kernel_at(chip, m)
        if together:
            alike.setdefault((k.family, k.precision), []).append((i, k))
        else:
            parts.append((i, kernels_of(k, m.what, chip)))

    def time(c: Chip) -> Floats:
        seconds = np.empty(len(rows))
        for i, program in programs:
            seconds[i] = pace(program, c).pass_s
        for i, kernels in parts:
            seconds[i] = sum(t.time_s for t in time_kernels(c, kernels)[0]) - overlapped_fetch_s(
                c, kernels
            )
        for group in alike.values():
            seconds[[i for i, _ in group]] = gpu_times(c, [k for _, k in group])
        return seconds

    return time
