"""The element types, their width and their NumPy type."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import ml_dtypes
import numpy as np


class DType(StrEnum):
    """Element type; the value is the name that people read and type."""

    F64 = "fp64"
    F32 = "fp32"
    F16 = "fp16"
    BF16 = "bf16"
    F8E4M3 = "fp8_e4m3"
    F8E4M3FNUZ = "fp8_e4m3fnuz"
    F8E5M2 = "fp8_e5m2"
    F8E5M2FNUZ = "fp8_e5m2fnuz"
    F8E8M0 = "fp8_e8m0"
    F4E2M1 = "fp4_e2m1"
    I64 = "int64"
    I32 = "int32"
    I16 = "int16"
    I8 = "int8"
    I4 = "int4"
    I2 = "int2"
    U64 = "uint64"
    U32 = "uint32"
    U16 = "uint16"
    U8 = "uint8"
    U4 = "uint4"
    U2 = "uint2"
    BOOL = "bool"
    C64 = "complex64"
    C128 = "complex128"
    STRING = "string"

    @property
    def numpy(self) -> np.dtype[Any]:
        return _NUMPY[self]

    @property
    def bits(self) -> int:
        return _BITS[self]

    @property
    def is_float(self) -> bool:
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        return self.value.startswith(("int", "uint"))


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F64: np.dtype(np.float64),
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.F8E4M3: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.F8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
    DType.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    DType.F8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
    DType.F8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    DType.F4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.I16: np.dtype(np.int16),
    DType.I8: np.dtype(np.int8),
    DType.I4: np.dtype(ml_dtypes.int4),
    DType.I2: np.dtype(ml_dtypes.int2),
    DType.U64: np.dtype(np.uint64),
    DType.U32: np.dtype(np.uint32),
    DType.U16: np.dtype(np.uint16),
    DType.U8: np.dtype(np.uint8),
    DType.U4: np.dtype(ml_dtypes.uint4),
    DType.U2: np.dtype(ml_dtypes.uint2),
    DType.BOOL: np.dtype(np.bool_),
    DType.C64: np.dtype(np.complex64),
    DType.C128: np.dtype(np.complex128),
    DType.STRING: np.dtype(object),
}

_BITS = {d: t.itemsize * 8 for d, t in _NUMPY.items()} | {
    DType.I4: 4, DType.U4: 4, DType.F4E2M1: 4, DType.I2: 2, DType.U2: 2,
}  # fmt: skip

_FLOATS = frozenset(d for d in DType if d.value.startswith(("fp", "bf")))

_FROM_NUMPY = {t: d for d, t in _NUMPY.items()}


def from_numpy(dtype: np.dtype[Any]) -> DType:
    """The DType of a NumPy dtype; raises KeyError for one that has none."""
    return DType.STRING if dtype.kind in "USO" else _FROM_NUMPY[dtype]
