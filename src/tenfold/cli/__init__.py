"""The command line: ``tenfold VERB``.

Exit 0 done, 1 the answer is no, 2 bad input. Tables and JSON go to stdout, everything else to
stderr.
"""

from __future__ import annotations

import sys

from tenfold.cli import app as verbs
from tenfold.cli import compiler as compiler_verbs
from tenfold.cli import load as load_verb
from tenfold.cli import plan as plan_verb
from tenfold.cli import profile as profile_verb
from tenfold.cli import serve as serve_verbs
from tenfold.cli import trust as trust_verbs
from tenfold.cli.common import app
from tenfold.errors import TenfoldError

__all__ = [
    "app",
    "compiler_verbs",
    "load_verb",
    "main",
    "plan_verb",
    "profile_verb",
    "serve_verbs",
    "trust_verbs",
    "verbs",
]


def main() -> None:
    """Run the command line; a fault that the user can mend is one line and exit 2."""
    try:
        app()
    except TenfoldError as error:
        print(f"tenfold: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away, for example `| head`
        sys.stderr.close()
        sys.exit(0)
