"""Queueing truth: simulated waits against closed forms, conservation and Little's law at every
instant.
"""

import math

import numpy as np
import pytest
from scipy.stats import poisson

from tenfold.claims.serving import batches_arrive
from tenfold.evaluate.profiling import profile_bound
from tenfold.model import Sizes, load, prepare
from tenfold.serving import (
    ClosedLoop,
    Known,
    MaxDelay,
    Open,
    Poisson,
    Served,
    Spread,
    Stream,
    curve,
    simulate,
)

REQUESTS = 160_000
BATCHES = 20
FOREVER = Stream("tenant", "model", math.inf)


class Exponential:
    """Service times of an M/M queue."""

    def __init__(self, mean_s, seed):
        self.mean_s, self.rng = mean_s, np.random.default_rng(seed)

    def seconds(self, model, batch):
        return float(self.rng.exponential(self.mean_s))


def one_model(times_s):
    return {"model": Served(Known(times_s))}


def mean_stay(policy, rate, service, workers=1, seed=5):
    """Mean time in the system and its standard error by batch means, the first tenth left out."""
    times = Poisson(rate).times_s(REQUESTS / rate, np.random.default_rng(seed))
    log = simulate(policy, Open([(FOREVER, times)]), service, workers=workers)
    stay = (log.finish_s - np.array([r.arrival_s for r in log.requests]))[len(times) // 10 :]
    means = np.array([part.mean() for part in np.array_split(stay, BATCHES)])
    return stay.mean(), means.std(ddof=1) / math.sqrt(BATCHES)


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_mm1(rho):
    mean, error = mean_stay(MaxDelay(one_model({1: 1.0}), 1, 0.0), rho, Exponential(1.0, 1))
    assert abs(mean - 1 / (1 - rho)) < 3 * error


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_md1(rho):
    mean, error = mean_stay(
        MaxDelay(one_model({1: 1.0}), 1, 0.0), rho, Spread({"model": [1.0, 1.0]})
    )
    assert abs(mean - (1 + rho / (2 * (1 - rho)))) < 3 * error


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_mg1_is_pollaczek_khinchine(rho):
    cv = 0.7
    mean, error = mean_stay(
        MaxDelay(one_model({1: 1.0}), 1, 0.0),
        rho,
        Spread({"model": [1.0, 1.0]}, {"model": cv}, seed=2),
    )
    assert abs(mean - (1 + rho * (1 + cv**2) / (2 * (1 - rho)))) < 3 * error


def mdc_stay(rate, servers, size=600):
    """M/D/c: the number in the system at t and t + 1, with Poisson arrivals between (Crommelin
    1932).
    """
    arrivals = poisson.pmf(np.arange(size), rate)
    chain = np.zeros((size, size))
    for n in range(size):
        left = max(n - servers, 0)
        chain[n, left:] = arrivals[: size - left]
        chain[n, -1] += 1 - chain[n].sum()
    state = np.linalg.solve(
        [*(chain.T - np.eye(size))[:-1].tolist(), [1.0] * size], [0.0] * (size - 1) + [1.0]
    )
    return float(state @ np.arange(size)) / rate


@pytest.mark.parametrize("servers", [2, 4])
@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_mdc(rho, servers):
    policy = MaxDelay(one_model({1: 1.0}), 1, 0.0)
    mean, error = mean_stay(policy, rho * servers, Spread({"model": [1.0, 1.0]}), workers=servers)
    assert abs(mean - mdc_stay(rho * servers, servers)) < 3 * error


def batch_service_stay(rate, most, time, size=600):
    """Batches of all that wait, up to ``most``, each of ``time``: the chain at the ends of service
    (Bailey 1954), then Little.
    """
    arrivals = poisson.pmf(np.arange(size), rate * time)
    chain = np.zeros((size, size))
    for n in range(size):
        left = n - min(n, most) if n else 0
        chain[n, left:] = arrivals[: size - left]
        chain[n, -1] += 1 - chain[n].sum()
    state = np.linalg.solve(
        [*(chain.T - np.eye(size))[:-1].tolist(), [1.0] * size], [0.0] * (size - 1) + [1.0]
    )
    n = np.arange(size)
    length = time + np.where(n == 0, 1 / rate, 0.0)
    present = np.where(n == 0, 1, n) * time + rate * time**2 / 2
    return float(state @ present) / float(state @ length) / rate


@pytest.mark.parametrize("most", [4, 16])
@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
def test_batch_service(rho, most):
    times = {1: 1.0, most: 1.0}
    mean, error = mean_stay(
        MaxDelay(one_model(times), most, 0.0), rho * most, Spread({"model": curve(times)})
    )
    assert abs(mean - batch_service_stay(rho * most, most, 1.0)) < 3 * error


def test_closed_loop_is_the_interactive_response_time_law():
    """Clients = throughput x (response + think) (Lazowska et al. 1984)."""
    clients, think, count = 12, 0.05, 40_000
    source = ClosedLoop(FOREVER, clients, think, count, np.random.default_rng(8))
    log = simulate(MaxDelay(one_model({1: 0.006}), 1, 0.0), source, Exponential(0.006, 9))
    response = float(np.mean(log.finish_s - np.array([r.arrival_s for r in log.requests])))
    assert len(log.requests) / log.ended_s * (response + think) == pytest.approx(clients, rel=0.02)


# Jouppi et al., ISCA 2017, table 4: MLP0 within 7 ms; batch, p99 in ms, items a second
TABLE4 = [
    ("CPU", 16, 7.2, 5_482), ("CPU", 64, 21.3, 13_194), ("GPU", 16, 6.7, 13_461), ("GPU", 64, 8.3,
    36_465), ("TPU", 200, 7.0, 225_000), ("TPU", 250, 10.0, 280_000),
]  # fmt: skip


def md1_wait_within(x, rate, time):
    """P(wait <= x) of M/D/1 (Erlang 1909)."""
    terms = (
        ((-rate * (x - k * time)) ** k / math.factorial(k)) * math.exp(rate * (x - k * time))
        for k in range(int(x / time) + 1)
    )
    return (1 - rate * time) * math.fsum(terms)


@pytest.mark.parametrize(("kind", "batch", "p99_ms", "items"), TABLE4)
def test_the_six_points_of_table_4_are_whole_batches_in_a_queue(kind, batch, p99_ms, items):
    """At the published rate there is one service time with which M/D/1 has the published p99; the
    simulation finds the same p99 with it, p99 is many batch times, and on the TPU that service time
    is the machine model's own.
    """
    rate, p99 = items / batch, p99_ms * 1e-3
    low, high = 1e-5, 1 / rate * 0.999
    for _ in range(60):
        time = (low + high) / 2
        low, high = (time, high) if md1_wait_within(p99 - time, rate, time) > 0.99 else (low, time)
    assert batches_arrive(time, rate).total.p99_s == pytest.approx(p99, rel=0.25)
    assert p99 / time > 4
    if kind == "TPU":
        assert 7 < p99 * rate < 12  # in the paper's batch times (batch over items a second)
        machine = profile_bound(
            prepare(load("tpu-v1-mlp0"), Sizes(batch)), "tpu-v1"
        ).run.time_s.value
        assert machine == pytest.approx(time, rel=0.1)
