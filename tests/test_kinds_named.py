"""Kinds of ops that code names outside the op table are in it: a recogniser that looks for
``lp_norm`` where the op is ``lp_normalization`` would never find one, and say nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenfold
from tenfold.compiler.passes.match import of
from tenfold.ir import TABLE

HOME = Path(tenfold.__file__).parent
RECOGNISERS = ("compiler", "machine/host", "measure/compare.py", "ir/rebatch.py", "ir/views.py")
WORD = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
OTHER = {  # what recognisers say in words that are no kinds and no attributes
    "fields of a work": "contraction_flops transcendentals vector_flops",
    "NumPy's": "string int fiu ignore stable",
    "a processor's rates and reports": "reorder joins time",
    "steps and names of the compiler": "fuse order pass precision residency peak tightest",
    "passes and dimensions": "canonicalise cse dce fold merge recognise batch",
    "prefixes of new values": "const folded merged scaled family families",
    "operands": "d mask masked ones over power q scores sum times top variance x y",
}
KNOWN = (
    {a for row in TABLE.values() for a in row.attrs}
    | set(TABLE)
    | set(" ".join(OTHER.values()).split())
)


def _sources() -> Iterator[Path]:
    for place in RECOGNISERS:
        path = HOME / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else (path,)


def _words(path: Path) -> set[str]:
    """Literals that could be a kind; what a package exports is not one."""
    if path.name == "__init__.py":
        return set()
    tree = ast.parse(path.read_text())
    literals = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {w for w in literals if isinstance(w, str) and WORD.fullmatch(w)}


@pytest.mark.parametrize("path", list(_sources()), ids=lambda p: str(p.relative_to(HOME)))
def test_a_kind_named_outside_the_table_is_in_it(path: Path) -> None:
    assert not _words(path) - KNOWN, "neither kinds, nor attributes, nor known words"


def test_a_pattern_takes_only_kinds() -> None:
    with pytest.raises(ValueError, match="lp_norm"):
        of("lp_norm|mul")
