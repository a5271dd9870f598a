"""Fixtures, and what every test run has in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import settings

from support import model_path, real_model

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", action="store_true", help="write the golden files anew instead of comparing"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with the file of that name in tests/golden, or writes it there under
    --golden.
    """

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), (
            f"{name} differs: after a deliberate change run `make golden`"
        )

    return compare


def pytest_configure() -> None:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def load_model() -> Callable[[str], onnx.ModelProto]:
    """Reads a real model by name; skips where it has not been fetched."""
    return real_model


@pytest.fixture
def resnet50() -> onnx.ModelProto:
    return real_model("light/light_resnet50.onnx")


@pytest.fixture
def light_resnet50_path() -> str:
    return str(model_path("light/light_resnet50.onnx"))
