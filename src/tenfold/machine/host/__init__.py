"""Processors as ONNX Runtime drives them."""
