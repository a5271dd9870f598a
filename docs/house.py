"""Writes docs/house.md: the rooms of the house, from the contract that import-linter holds and from
what each package says of itself.

python docs/house.py docs/house.md
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
INTRODUCTION = """# The house

Written by `python docs/house.py docs/house.md`; a test keeps it true. A room may import those below
it, never those above or beside it (import-linter). `scalesim` stands apart.

```
model file ─importers─▶ Graph ─model─▶ bound Graph ─compiler─▶ Program ─machine─▶ Run
zoo, families ────────▶                             Chip ▲             │
                                            economics, carbon ◀────────┤
     verbs (cli) ◀─report─ documents, pages ◀─ study, planner, scenario ◀─ serving
```

"""
SEAMS = """
What changes by kind stands behind one interface each, and is looked up in one place:

| interface | where it is looked up | who asks |
|---|---|---|
| `OpRow`, what an op means | `ir.ops.TABLE` | inference, interpreter, compiler |
| `Space`, which index touches which axis | a column of `OpRow` | batching, fusion, rows |
| `Pass` | `compiler.passes.PASSES` | the pipeline |
| `Target`, a kind of machine | `machine.targets.target_of` | compiler, timing, energy |
| `Policy`, who is served when | `serving.specs.POLICIES` | the simulated and the real driver |
| `Account`, entries that sum | `facts` | energy, money, carbon |
| documents of `--json`, with their [schema](schema.json) | `report.documents.VERBS` | every verb |
"""


def rooms() -> Iterator[list[str]]:
    """The layers from top to bottom, each a list of modules."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for layer in contract["tool"]["importlinter"]["contracts"][0]["layers"]:
        yield [module.strip() for module in layer.split("|")]


def says(module: str) -> str:
    """The first paragraph of a module's docstring, on one line."""
    path = ROOT / "src" / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


def page() -> str:
    lines = ["| room | what it is |", "|---|---|"]
    for layer in rooms():
        lines += [f"| `{module.removeprefix('tenfold.')}` | {says(module)} |" for module in layer]
    return INTRODUCTION + "\n".join(lines) + "\n" + SEAMS


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
