"""Tensors that lie in files beside the model."""

from __future__ import annotations

import math
import stat
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tenfold.errors import ModelError
from tenfold.ir.dtypes import DType

_WHOLE_BYTES = 8  # bits; narrower elements are packed, and read whole


def external_array(
    tensor: onnx.TensorProto, dtype: DType, folder: Path | None
) -> np.ndarray[Any, Any]:
    """The content of a tensor that is stored in a file of ``folder``, mapped and not read: a weight
    of which only the shape matters costs nothing.

    Links to files elsewhere are followed, as caches of models are made of them; a path that itself
    leads out of the folder is refused. Raises ModelError.
    """
    where = f"tensor '{tensor.name}'"
    if folder is None:
        raise ModelError(f"{where} is stored outside the file, and its data is not there")
    fields = {e.key: e.value for e in tensor.external_data}
    path = _inside(folder, fields.get("location", ""), where)
    shape = tuple(tensor.dims)
    count = math.prod(shape)
    needed = -(-count * dtype.bits // 8)
    offset = _number(fields.get("offset"), 0, where)
    length = _number(fields.get("length"), needed, where)
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(
            f"external data cannot be loaded: {where} is in {path.name}: {error.strerror}"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(
            f"external data cannot be loaded: {where} is in {path.name}, which is no file"
        )
    if length != needed or offset + length > status.st_size:
        raise ModelError(
            f"{where} of shape {list(shape)}: its data does not fit its type: {needed:,} bytes, of"
            f" which {path.name} has {min(length, max(0, status.st_size - offset)):,}"
        )
    if not count:
        return np.zeros(shape, dtype.numpy)
    try:
        if dtype.bits >= _WHOLE_BYTES:
            raw = np.memmap(path, np.uint8, "r", offset, (needed,))
            return raw.view(dtype.numpy).reshape(shape)
        return _packed(tensor, np.fromfile(path, np.uint8, needed, offset=offset).tobytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"external data cannot be loaded: {where}: {error}") from error


def _packed(tensor: onnx.TensorProto, data: bytes) -> np.ndarray[Any, Any]:
    copy = onnx.TensorProto()
    copy.data_type = tensor.data_type
    copy.dims.extend(tensor.dims)
    copy.raw_data = data
    return numpy_helper.to_array(copy)


def _inside(folder: Path, location: str, where: str) -> Path:
    parts = PurePosixPath(location).parts
    if not parts or location.startswith(("/", "\\")) or ".." in parts or "\0" in location:
        raise ModelError(
            f"external data cannot be loaded: {where} is said to be in '{location}': allowed is a"
            " path within the folder of the model"
        )
    return folder.joinpath(*parts)


def _number(text: str | None, default: int, where: str) -> int:
    if text is None or text == "":
        return default
    if not (text.isdecimal() and text.isascii()) or len(text) > 18:
        raise ModelError(
            f"external data cannot be loaded: {where} has the offset or length '{text[:20]}'"
        )
    return int(text)
