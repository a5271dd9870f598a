"""Fixtures, and what every test run has in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import settings

from support import model_path, real_model

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("fixed")


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
