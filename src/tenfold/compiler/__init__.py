"""The compiler: graphs to programs."""

from tenfold.compiler.cut import twice
from tenfold.compiler.pipeline import DEFAULT, STEPS, Options, build, compile
from tenfold.machine.kernel import REORDER

__all__ = ["DEFAULT", "REORDER", "STEPS", "Options", "build", "compile", "twice"]
