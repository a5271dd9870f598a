"""Order and memory: when each kernel runs, and where each buffer lives."""

from tenfold.compiler.schedule.memory import plan_memory
from tenfold.compiler.schedule.offsets import Interval, place, tightest
from tenfold.compiler.schedule.order import ordered, peak

__all__ = ["Interval", "ordered", "peak", "place", "plan_memory", "tightest"]
