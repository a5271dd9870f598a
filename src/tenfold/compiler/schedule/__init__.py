"""Order and memory: when each kernel runs, and where each buffer lives."""

from tenfold.compiler.schedule.memory import plan_memory
from tenfold.compiler.schedule.offsets import Interval, place, tightest

__all__ = ["Interval", "place", "plan_memory", "tightest"]
