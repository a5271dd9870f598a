"""How well this machine is predicted: ``python -m benchmarks.host MODEL.onnx …``.

Calibrates the host (no model is fitted on), then runs each model with ONNX Runtime at batches 1, 8
and 32 beside its prediction, twice, and takes the quicker. Prints predicted over measured less one:
of whole models, and of convolutions and products that take 20 us or more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from tenfold.chips import Chip
from tenfold.errors import InputError, TenfoldError
from tenfold.evaluate.agreement import seeded_inputs
from tenfold.evaluate.profiling import profile_bound
from tenfold.importers.onnx import load_onnx
from tenfold.measure import Comparison, calibrate_host, compare_nodes, measure
from tenfold.model import Sizes, prepare, roles

BATCHES = (1, 8, 32)
LEAST_S = 20e-6
PRODUCTS = ("Conv", "MatMul", "Gemm")


def main(paths: list[str]) -> None:
    found, _ = calibrate_host()
    whole: list[float] = []
    nodes: list[float] = []
    for path in paths:
        for batch in BATCHES:
            try:
                runs = list(_compared(path, batch, found.chip))
            except TenfoldError as error:
                print(f"{path} at batch {batch}: {error}")
                continue
            best = min(runs, key=lambda c: c.measured_s)
            error = best.predicted_s / best.measured_s - 1
            whole.append(error)
            nodes += [
                p.predicted_s / p.measured_s - 1
                for p in best.pairs
                if p.measured_s >= LEAST_S and any(o in p.ops for o in PRODUCTS)
            ]
            print(
                f"{path:60} batch {batch:2}  {best.measured_s * 1e3:9.3f} ms measured "
                f" {error:+6.1%}"
            )
    for what, errors in (("models", whole), ("convolutions and products", nodes)):
        if errors:
            sizes = np.abs(errors)
            print(
                f"{what}: {len(sizes)}, mean {sizes.mean():.1%}, median {np.median(sizes):.1%},"
                f" bias {np.mean(errors):+.1%}"
            )


def _compared(path: str, batch: int, record: Chip) -> Iterator[Comparison]:
    graph = load_onnx(path)
    bound = prepare(graph, Sizes(batch))
    if batch > 1 and "batch" not in roles(graph).values():
        raise InputError("it has no batch")
    run = profile_bound(bound, record).run
    for _ in range(2):
        yield compare_nodes(
            run, measure(path, seeded_inputs(bound.graph, 7), runs=15), record, bound.graph
        )


if __name__ == "__main__":
    main(sys.argv[1:])
