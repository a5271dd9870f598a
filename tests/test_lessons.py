"""The lessons: every row is computed or says not yet; the page in docs is the one the product
writes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tenfold.claims import lessons, markdown
from tenfold.errors import UnknownName
from tenfold.report.documents import plain
from tenfold.report.trust import lessons_document

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_all_ten_lessons_carbon_moe_and_envelope_have_a_row() -> None:
    ids = {r.id for r in lessons()}
    assert {*map(str, range(1, 11)), "carbon", "moe", "envelope"} <= ids


def test_a_row_is_computed_or_says_what_is_missing() -> None:
    for r in lessons():
        assert r.claim
        assert r.source
        assert (r.ours is not None) or r.missing, r.id
        assert (r.ours is None) == (r.published is None), r.id


@pytest.mark.parametrize(
    ("which", "bar"),
    [
        ("1", 0.03),
        ("5", 0.0),
        ("6", 0.05),
        ("8", 0.15),
        ("8b", 0.15),
        ("8c", 0.10),
        ("carbon", 0.015),
        ("moe", 0.30),  # computed now: two runs on two chips
        ("moeb", 0.1),
        ("envelope", 0.05),
    ],
)
def test_ours_is_near_the_published_number(which: str, bar: float) -> None:
    row = lessons(which)[0]
    assert row.error is not None
    assert abs(row.error) <= bar


@pytest.mark.parametrize(("which", "least"), [("6b", 1.15), ("9", 1.4)])
def test_what_is_on_the_chip_and_what_is_fused_pay(which: str, least: float) -> None:
    """Ours stay below the published numbers, whose applications are not public: the page says by
    how much.
    """
    ours = {r.id: r.ours for r in lessons()}[which]
    assert ours is not None
    assert ours > least


def test_a_larger_array_is_slower_on_600_wide_layers() -> None:
    small, large = (r.ours for r in lessons("8"))
    assert small is not None
    assert large is not None
    assert large > 1.5 * small


def test_unknown_lesson() -> None:
    with pytest.raises(UnknownName, match="unknown lesson '12'"):
        lessons("12")


def test_keys_are_absent_until_real() -> None:
    for row in plain(lessons_document(lessons()))["lessons"]:
        assert ("ours" in row) != (row.get("status") == "not yet")


def test_the_page_is_current() -> None:
    """Run `tenfold lessons --write docs/lessons.md` when this fails."""
    assert (DOCS / "lessons.md").read_text(encoding="utf-8") == markdown(lessons())
