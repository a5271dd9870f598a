"""Scenarios: tenants, models and arrivals on one chip, from a file to what they come to under a
policy.
"""

from tenfold.scenario.arrivals import Closed
from tenfold.scenario.read import Scenario, left_out, read_scenario
from tenfold.scenario.run import (
    PCIE3_X16_BYTES_PER_S,
    Ready,
    energy_j,
    policy_of,
    ready,
    run,
    source_of,
)
from tenfold.scenario.service import LARGEST_BATCH, Models, Service, batches, served, service
from tenfold.scenario.tune import SHIPPED, Score, grid, score_of, shipped, tuned

__all__ = [
    "LARGEST_BATCH",
    "PCIE3_X16_BYTES_PER_S",
    "SHIPPED",
    "Closed",
    "Models",
    "Ready",
    "Scenario",
    "Score",
    "Service",
    "batches",
    "energy_j",
    "grid",
    "left_out",
    "policy_of",
    "read_scenario",
    "ready",
    "run",
    "score_of",
    "served",
    "service",
    "shipped",
    "source_of",
    "tuned",
]
