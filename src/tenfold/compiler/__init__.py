"""The compiler: graphs to programs."""

from tenfold.compiler.lower import compile, lower

__all__ = ["compile", "lower"]
