"""The command line: ``tenfold VERB``.

Exit 0 done, 1 the answer is no, 2 bad input, 3 a fault of Tenfold itself. Tables and JSON go to
stdout, everything else to stderr.
"""

from __future__ import annotations

from tenfold.cli import app as verbs
from tenfold.cli import calibrate as calibrate_verbs
from tenfold.cli import compiler as compiler_verbs
from tenfold.cli import load as load_verb
from tenfold.cli import plan as plan_verb
from tenfold.cli import profile as profile_verb
from tenfold.cli import serve as serve_verbs
from tenfold.cli import train as train_verb
from tenfold.cli import trust as trust_verbs
from tenfold.cli.common import app
from tenfold.cli.entry import main

__all__ = [
    "app",
    "calibrate_verbs",
    "compiler_verbs",
    "load_verb",
    "main",
    "plan_verb",
    "profile_verb",
    "serve_verbs",
    "train_verb",
    "trust_verbs",
    "verbs",
]
