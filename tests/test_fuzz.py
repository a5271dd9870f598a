"""Five hundred damaged files with a fixed seed: refused with one line or priced, never a crash.

`make fuzz` runs ten thousand.
"""

from __future__ import annotations

import os

import pytest

import fuzz


def test_five_hundred_mutants() -> None:
    if not fuzz.MODELS.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the real models are not there: run `make models`")
        pytest.skip("real models are not there: run `make models`")
    cases = fuzz.run(1, 500, 2, progress=False)
    assert len(cases) == 500
    failures = [c for c in cases if c.outcome not in ("ok", "refused")]
    assert not failures, failures[:3]
    assert {"ok", "refused"} == {c.outcome for c in cases}
