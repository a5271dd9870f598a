"""Laws over the catalogue: time does not fall as a product grows, whatever the tiling."""

from __future__ import annotations

import pytest

from tenfold.chips import Chip, Kind, chip, names
from tenfold.evaluate.operators import OperatorCall, kernel_of, kernels_of
from tenfold.machine import time_kernels

SIZES = (1, 16, 64, 65, 128, 129, 255, 256, 257, 384, 511, 512, 513, 768, 1024, 1025, 2048, 4096)
OTHERS = ((512, 4096), (100, 1000), (3000, 700))
FALL = 0.02  # that tilings with other padding may differ by
MODELLED = [n for n in names() if chip(n).kind in (Kind.SYSTOLIC, Kind.GPU)]


def seconds(c: Chip, m: int, n: int, k: int) -> float:
    precision = c.storage(None)
    call = OperatorCall(1, "matmul", precision.value, {"m": m, "n": n, "k": k}, engine=False)
    kernels = kernels_of(kernel_of(call, c, precision), call, c)
    return sum(t.time_s for t in time_kernels(c, kernels)[0])


@pytest.mark.parametrize("name", MODELLED)
@pytest.mark.parametrize("dimension", range(3))
def test_time_does_not_fall_as_a_product_grows(name: str, dimension: int) -> None:
    c = chip(name)
    for others in OTHERS:
        before = 0.0
        for size in SIZES:
            extents = [*others]
            extents.insert(dimension, size)
            now = seconds(c, *extents)
            assert now >= before * (1 - FALL), f"{extents} on {name}"
            before = now
