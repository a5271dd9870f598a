"""Importers: model files to graphs."""

from tenfold.importers.onnx import load_onnx, load_onnx_bytes

__all__ = ["load_onnx", "load_onnx_bytes"]
