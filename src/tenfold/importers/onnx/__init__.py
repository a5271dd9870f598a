"""The ONNX importer: opsets 7 to 28, the common com.microsoft ops, external data, control flow."""

from tenfold.importers.onnx.load import OPSETS, import_model, load_onnx, load_onnx_bytes

__all__ = ["OPSETS", "import_model", "load_onnx", "load_onnx_bytes"]
