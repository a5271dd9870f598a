"""Importers: model files to graphs."""

from tenfold.importers.huggingface import config_generates, load_config
from tenfold.importers.onnx import load_onnx, load_onnx_bytes

__all__ = ["config_generates", "load_config", "load_onnx", "load_onnx_bytes"]
