"""Running ONNX models with ONNX Runtime on this machine, node by node."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.errors import InputError
from tenfold.evaluate.watch import LONGEST_RUN_S, Watch, watch

WARM_UP, SHORTEST_RUNS, LONGEST_S = 3, 7, 1.5


@dataclass(frozen=True, slots=True)
class NodeTime:
    """A node as ONNX Runtime runs it: its name, operator, and median seconds."""

    name: str
    op: str
    time_s: float


@dataclass(frozen=True, slots=True)
class ModelTime:
    """Median seconds of a whole run, and of each node in order."""

    time_s: float
    nodes: tuple[NodeTime, ...]


def measure(
    model: bytes | str,
    feeds: Mapping[str, Any],
    runs: int = 40,
    longest_run_s: float = LONGEST_RUN_S,
) -> ModelTime:
    """Seconds of ``model`` (its bytes, or the path of its file) on ``feeds``, on all cores.

    At most ``runs`` runs, fewer where one takes long. Raises InputError where ONNX Runtime refuses
    the model or the inputs, or where a run does not end within ``longest_run_s``.
    """
    whole = _session(model, None)
    times = _timed(whole, feeds, runs, watch(longest_run_s))
    with tempfile.TemporaryDirectory() as folder:
        profiled = _session(model, Path(folder) / "nodes")
        count = WARM_UP + max(
            SHORTEST_RUNS, min(runs, int(LONGEST_S / max(statistics.median(times), 1e-6)))
        )
        for _ in range(count):
            profiled.run(None, dict(feeds))
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    return ModelTime(statistics.median(times), _nodes(events))


def _session(model: bytes | str, profile: Path | None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many kinds
        raise InputError(f"ONNX Runtime does not load the model: {error}") from error


def _timed(session: Any, feeds: Mapping[str, Any], runs: int, over: Watch) -> list[float]:
    import onnxruntime as ort

    options = ort.RunOptions()
    times: list[float] = []
    began = time.perf_counter()
    try:
        for i in range(WARM_UP + runs):
            with over.over(options):
                start = time.perf_counter()
                session.run(None, dict(feeds), options)
                took = time.perf_counter() - start
            if i >= WARM_UP:
                times.append(took)
            if len(times) >= SHORTEST_RUNS and time.perf_counter() - began > LONGEST_S:
                break
    except Exception as error:
        if options.terminate:
            raise InputError(f"the model {over.endless}") from error
        raise InputError(f"ONNX Runtime does not run the model on these inputs: {error}") from error
    return times


def _nodes(events: list[dict[str, Any]]) -> tuple[NodeTime, ...]:
    spent: dict[str, list[float]] = {}
    ops: dict[str, str] = {}
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            name = e["name"].removesuffix("_kernel_time")
            spent.setdefault(name, []).append(e["dur"] * 1e-6)
            ops[name] = str(e["args"]["op_name"])
    return tuple(NodeTime(n, ops[n], statistics.median(t[WARM_UP:] or t)) for n, t in spent.items())


def normal_inputs(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Seeded normal floats of these shapes."""
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
