"""A real model in ONNX Runtime that takes any number of items at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from tenfold.errors import InputError, ModelError
from tenfold.evaluate.agreement import SEED, seeded_inputs
from tenfold.evaluate.watch import LONGEST_RUN_S, watch
from tenfold.ir import Graph
from tenfold.ir.dims import symbols_of
from tenfold.model import Sizes, load, prepare, roles

POOL = 16  # different items that requests take in turn
LONGEST_TRIAL_S = 0.4  # of timing one batch size
MOST_RUNS, FEWEST_RUNS = 60, 5


def spare_threads() -> int:
    """One core is left for whatever sends the requests."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores - 1)


@final
class Session:
    """An ONNX model on this machine. Items are stacked on the axis of the batch, as a server does,
    within the time that counts.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int,
        seq: int | None = None,
        longest_run_s: float = LONGEST_RUN_S,
    ) -> None:
        """Raises InputError where it is no ONNX file or ONNX Runtime refuses it."""
        if Path(path).suffix != ".onnx":
            raise InputError(
                f"a load test runs ONNX files, and '{path}' is none: a network without weights"
                " cannot run"
            )
        graph = load(path)
        self.name = graph.name
        self._axes = _batch_axes(graph)
        try:
            bound = prepare(graph, Sizes(1, seq)).graph
        except ModelError as error:
            raise InputError(f"{path}: {error}") from error
        self._pool = [seeded_inputs(bound, SEED + i) for i in range(POOL)]
        self._session = _open(str(path), threads)
        self._watch = watch(longest_run_s)
        self.one_by_one = not any(a is not None for a in self._axes.values())

    def run(self, items: int) -> None:
        """Stack ``items`` and run them. Raises InputError where ONNX Runtime fails on them or has
        not come to an end within ``longest_run_s``.
        """
        import onnxruntime as ort

        feeds = self._pool[0] if items == 1 else self._stack(items)
        options = ort.RunOptions()
        try:
            with self._watch.over(options):
                self._session.run(None, feeds, options)
        except Exception as error:  # ONNX Runtime raises many kinds
            if options.terminate:
                raise InputError(
                    f"{self.name} on a batch of {items} {self._watch.endless}"
                ) from error
            raise InputError(
                f"ONNX Runtime does not run {self.name} on a batch of {items}: {error}"
            ) from error

    def _stack(self, items: int) -> Mapping[str, Any]:
        stacked = {}
        for name, axis in self._axes.items():
            parts = [self._pool[i % POOL][name] for i in range(items)]
            stacked[name] = parts[0] if axis is None else np.concatenate(parts, axis)
        return stacked

    def time(self, items: int) -> list[float]:
        """Seconds of some runs of a batch, one after the other, the first left out."""
        self.run(items)
        times: list[float] = []
        while len(times) < FEWEST_RUNS or (len(times) < MOST_RUNS and sum(times) < LONGEST_TRIAL_S):
            began = time.perf_counter()
            self.run(items)
            times.append(time.perf_counter() - began)
        return times


def _batch_axes(graph: Graph) -> dict[str, int | None]:
    kinds = roles(graph)
    axes: dict[str, int | None] = {}
    for name in graph.inputs:
        shape = graph.values[name].shape or ()
        axes[name] = next(
            (i for i, d in enumerate(shape) if any(kinds.get(s) == "batch" for s in symbols_of(d))),
            None,
        )
    return axes


def _open(path: str, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"ONNX Runtime does not load {path}: {error}") from error


def profile_batches(session: Session, slo_s: float, largest: int) -> dict[int, list[float]]:
    """Times by batch: 1, 2, 4 … up to ``largest``, until the median of one is over the SLO."""
    times: dict[int, list[float]] = {}
    batch = 1
    while batch <= (1 if session.one_by_one else largest):
        times[batch] = session.time(batch)
        if float(np.median(times[batch])) > slo_s:
            break
        batch *= 2
    return times
