"""The plan: from a model, an SLO, a rate and a region to chip, batch, count, p99, money and carbon
(lessons 4, 5 and 10).
"""

from tenfold.planner.front import ask_mix, ask_one, plan, planned
from tenfold.planner.headroom import GROWTH, Growth, LeftOut, Mixed, growth, mixes, overfit
from tenfold.planner.plan import answer
from tenfold.planner.record import RANKS, Ask, Count, Demand, Option, Plan, Rejected
from tenfold.planner.screen import FINALISTS, refuse_cooling
from tenfold.planner.why import differences

__all__ = [
    "FINALISTS",
    "GROWTH",
    "RANKS",
    "Ask",
    "Count",
    "Demand",
    "Growth",
    "LeftOut",
    "Mixed",
    "Option",
    "Plan",
    "Rejected",
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
