"""The plan: from a model, an SLO, a rate and a region to chip, batch, count, p99, money and carbon
(lessons 4, 5 and 10).
"""

from tenfold.planner.front import ask_mix, ask_one, plan, planned
from tenfold.planner.headroom import GROWTH, Growth, LeftOut, Mixed, growth, mixes, overfit
from tenfold.planner.plan import answer
from tenfold.planner.record import (
    Ask,
    Conditions,
    Count,
    Demand,
    Measure,
    Option,
    Plan,
    Rejected,
    Spare,
    Way,
)
from tenfold.planner.screen import FINALISTS, refuse_cooling
from tenfold.planner.why import differences

__all__ = [
    "FINALISTS",
    "GROWTH",
    "Ask",
    "Conditions",
    "Count",
    "Demand",
    "Growth",
    "LeftOut",
    "Measure",
    "Mixed",
    "Option",
    "Plan",
    "Rejected",
    "Spare",
    "Way",
    "answer",
    "ask_mix",
    "ask_one",
    "differences",
    "growth",
    "mixes",
    "overfit",
    "plan",
    "planned",
    "refuse_cooling",
]
