"""The documents of ``--json`` are what their published schema says, and every verb has one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

import tenfold
from tenfold.cli import app
from tenfold.report.documents import VERBS, VERSION, plain, schema
from tenfold.report.documents.part import Part
from tenfold.report.documents.profile import RelaxedPart

runner = CliRunner()
SCHEMA = Path(__file__).parent.parent / "docs" / "schema.json"
CALLS = (
    "chips",
    "chips tpu-v4i",
    "models resnet50",
    "profile resnet50 -c tpu-v4i,t4 -b 8 --region us-central1 --sources",
    "profile gpt2 -c a100-sxm-80 --phase decode",
    "compile tpu-v1-mlp0 -c tpu-v4i",
    "compile --steps",
    "plan resnet50 --slo 20ms --rate 2000 --region us-central1 --sources -c tpu-v4i,t4",
    "plan resnet50 --slo 0.01ms --rate 10 -c tpu-v4i",
    "prices l4",
    "prices tpu-v1",
    "simulate steady --explain 2",
    "simulate --list",
    "estimate --power 1.2kW --hours 24",
    "lessons envelope",
    "lessons 3",
    "validate tpu-v1",
)


def decoded(verb: str, text: str) -> Part:
    """The document as one of the records of ``verb``, which refuse keys that they have not."""
    document: dict[str, Any] = json.loads(text)
    assert next(iter(document)) == "version"
    assert document.pop("version") == VERSION
    assert document.pop("tenfold") == tenfold.__version__
    for record in VERBS[verb]:
        try:
            return msgspec.convert(document, record)
        except msgspec.ValidationError as error:
            found = error
    raise found


@pytest.mark.parametrize("call", CALLS)
def test_a_document_is_as_its_record_says(call: str) -> None:
    words = call.split()
    done = runner.invoke(app, [*words, "--json"])
    assert done.stdout, done.output
    again = json.loads(json.dumps(plain(decoded(words[0], done.stdout))))
    assert again == json.loads(done.stdout)


def test_every_verb_that_speaks_json_has_a_document() -> None:
    import typer

    group = typer.main.get_command(app)
    speaking = {
        name
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        if any("--json" in p.opts for p in command.params)
    }
    assert speaking == set(VERBS)


def test_the_published_schema_is_the_one_of_the_records() -> None:
    """`python docs/schema.py docs/schema.json` writes it anew."""
    assert json.loads(SCHEMA.read_text()) == schema()


def test_a_part_is_no_document() -> None:
    with pytest.raises(TypeError, match="RelaxedPart is a part"):
        plain(RelaxedPart(unit="matrix", gain=0.1))


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("call", CALLS)
def test_no_figure_is_cut_or_broken_on_any_terminal(call: str, columns: int) -> None:
    """All figures of the widest terminal are there as whole words on the others, and no line of a
    table is wider than the terminal.
    """
    words = call.replace(" --sources", "").split()
    wide, here = (
        runner.invoke(app, words, env={"COLUMNS": str(c)}).stdout for c in (1000, columns)
    )
    rows = list(_rows(here))
    assert Counter(_figures(_rows(wide))) <= Counter(_figures(rows))
    assert not [line for line in rows if len(line) > columns]


def _rows(text: str) -> Iterator[str]:
    """The lines of tables: from a rule to the next line that is blank."""
    inside = False
    for line in text.splitlines():
        inside = line.strip().startswith("─") or (inside and bool(line.strip()))
        if inside:
            yield line


def _figures(rows: Iterable[str]) -> list[str]:
    """Words that begin as a number, an interval or an amount does."""
    return [w for line in rows for w in line.split() if w.lstrip("(+-$~<=")[:1].isdigit()]
