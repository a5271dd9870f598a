"""The compiler: graphs to programs."""

from tenfold.compiler.cut import twice
from tenfold.compiler.layout import REORDER
from tenfold.compiler.pipeline import DEFAULT, STEPS, Options, build, compile

__all__ = ["DEFAULT", "REORDER", "STEPS", "Options", "build", "compile", "twice"]
