"""Our numbers for the lessons on serving and cost: p99, the mix of workloads, performance per watt
of the system.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tenfold.chips import chip
from tenfold.evaluate.profiling import profile_bound
from tenfold.model import Sizes, load, prepare
from tenfold.planner import mixes
from tenfold.serving import (
    Known,
    MaxDelay,
    Open,
    Poisson,
    Result,
    Served,
    Spread,
    Stream,
    result_of,
    simulate,
)

BATCHES_ARRIVE = 40_000


def batches_arrive(service_s: float, per_s: float, seed: int = 1) -> Result:
    """Whole batches come as a Poisson process and are served one after the other: M/D/1."""
    times = Poisson(per_s).times_s(BATCHES_ARRIVE / per_s, np.random.default_rng(seed))
    policy = MaxDelay({"m": Served(Known({1: service_s}))}, 1, 0.0)
    return result_of(
        simulate(
            policy, Open([(Stream("t", "m", math.inf), times)]), Spread({"m": [service_s] * 2})
        )
    )


@lru_cache(maxsize=4)
def p99_of_mlp0(batch: int, per_s: float) -> float:
    """Seconds on TPU v1, the service time from the machine alone."""
    bound = prepare(load("tpu-v1-mlp0"), Sizes(batch))
    service = profile_bound(bound, "tpu-v1").run.time_s.value
    return batches_arrive(service, per_s / batch).total.p99_s


def p99_at_200() -> float:
    """Milliseconds at batch 200 and 225,000 a second."""
    return p99_of_mlp0(200, 225_000) * 1e3


def p99_at_250() -> float:
    """Milliseconds at batch 250 and 280,000 a second."""
    return p99_of_mlp0(250, 280_000) * 1e3


@lru_cache(maxsize=1)
def mix_of_2020() -> float:
    """Speed of TPU v4i over TPU v3 on the production mix of 2020."""
    found = next(m for m in mixes([chip("tpu-v3"), chip("tpu-v4i")]) if m.year == 2020)
    return found.speed["tpu-v4i"] or math.nan


# Batches that meet the SLOs (Jouppi et al., ISCA 2021, table 5), the models of the zoo nearest to
# the applications
_SERVED = (
    ("tpu-v1-mlp0", 200, None), ("tpu-v1-lstm0", 64, 16), ("tpu-v1-cnn0", 8, None), ("resnet50", 16,
    None), ("bert-large", 8, 384), ("gnmt", 16, 32),
)  # fmt: skip


@lru_cache(maxsize=1)
def per_system_watt() -> float:
    """Performance per system TDP, TPU v4i over TPU v3: geometric mean over six networks."""
    a, b = chip("tpu-v4i"), chip("tpu-v3")
    watts = (
        b.figure("system_power", "performance per watt").value
        / a.figure("system_power", "performance per watt").value
    )
    ratios = []
    for name, batch, seq in _SERVED:
        bound = prepare(load(name), Sizes(batch, seq))
        ratios.append(
            profile_bound(bound, b).run.time_s.value
            / profile_bound(bound, a).run.time_s.value
            * watts
        )
    return math.exp(sum(map(math.log, ratios)) / len(ratios))
