"""Predictions against everything that was published or measured, and what came out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

from tenfold.errors import InputError, UnknownName
from tenfold.validation import (
    collectives,
    cycles,
    energy,
    layer,
    libraries,
    measured,
    published,
    serving,
    training,
)
from tenfold.validation.record import Bar, Row, Summary, bars, summaries

Comparison: TypeAlias = Callable[[Path], Iterator[Row]]

MEASURED: Mapping[str, Comparison] = {
    "cycles": cycles.scalesim,
    "kernels": measured.kernels,
    "uncalibrated": measured.uncalibrated,
    "unseen": measured.unseen,
    "frameworks": measured.frameworks,
    "collectives": collectives.measured,
    "exchange": collectives.experts,
    "layer": layer.operators,
    "megatron": training.megatron,
    "backward": training.eager,
    "torchtitan": training.torchtitan,
    "bridge": training.bridge,
    "pods": training.pods,
    "energy": energy.kernels,
    "mlperf": published.mlperf,
    "systems": energy.systems,
    "server-ratio": serving.server_over_offline,
    "per-operation": lambda folder: energy.per_operation(
        folder.parent / "reference" / "energy-per-op.csv"
    ),
}
PUBLISHED: Mapping[str, Callable[[], Iterator[Row]]] = {
    "tpu-v1": published.tpu_v1,
    "tpu-v4i": published.tpu_v4i,
    "power": energy.published,
    "sustained": published.sustained,
    "libraries": libraries.attention,
    "p99": serving.p99_of_tpu_v1,
}
BOTH: Mapping[str, Callable[[Path | None], Iterator[Row]]] = {"models": measured.forward}
NAMES = (*MEASURED, *BOTH, *PUBLISHED)


def compare(name: str, folder: Path | None) -> list[Row]:
    """The rows of one comparison; none where it needs a ``folder`` of measured data and there is
    none.

    Raises UnknownName with the nearest names.
    """
    if name in PUBLISHED:
        return list(PUBLISHED[name]())
    if name in BOTH:
        return list(BOTH[name](folder))
    if name not in MEASURED:
        raise UnknownName("comparison", name, NAMES)
    return list(MEASURED[name](folder)) if folder is not None else []


def _cores() -> int:
    """That this process may run on, where the system tells; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


FIRST = ("server-ratio", "kernels")  # the longest, which are begun first


def compare_all(
    names: Sequence[str], folder: Path | None, advance: Callable[[], None] = lambda: None
) -> list[Row]:
    """The rows of several comparisons in the order of ``names``, each in a process of its own on as
    many as there are cores; ``advance`` is called after each. Raises as ``compare`` does.
    """
    if unknown := [n for n in names if n not in NAMES]:
        raise UnknownName("comparison", unknown[0], NAMES)
    cores = min(_cores(), len(names))
    if cores < 2:
        found = {}
        for n in names:
            found[n] = compare(n, folder)
            advance()
        return [r for n in names for r in found[n]]
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        begun = sorted(names, key=lambda n: FIRST.index(n) if n in FIRST else len(FIRST))
        jobs = {n: pool.submit(compare, n, folder) for n in begun}
        for _ in as_completed(jobs.values()):
            advance()
    return [r for n in names for r in jobs[n].result()]


def data_folder(path: Path | None) -> Path | None:
    """``path`` where it is a folder. Raises InputError where it is given and is none."""
    if path is not None and not path.is_dir():
        raise InputError(
            f"there is no folder '{path}': give the folder of measured sets, or leave --data out"
        )
    return path


__all__ = [
    "MEASURED",
    "NAMES",
    "PUBLISHED",
    "Bar",
    "Row",
    "Summary",
    "bars",
    "compare",
    "compare_all",
    "data_folder",
    "summaries",
]
