"""Measuring a GPU through PyTorch: what it takes for operators and a few whole models."""

from tenfold.measure.torch.bench import Bench, Place, bench
from tenfold.measure.torch.cases import cases
from tenfold.measure.torch.models import MODELS
from tenfold.measure.torch.session import LeftOut, Taken, measure_models, measure_operators
from tenfold.measure.torch.table import table

__all__ = [
    "MODELS", "Bench", "LeftOut", "Place", "Taken", "bench", "cases", "measure_models",
    "measure_operators", "table",
]  # fmt: skip
