"""The compiler: graphs to programs."""

from tenfold.compiler.pipeline import DEFAULT, STEPS, Options, build, compile

__all__ = ["DEFAULT", "STEPS", "Options", "build", "compile"]
