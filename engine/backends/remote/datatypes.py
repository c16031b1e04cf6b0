"""Element types by their names in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping

DATATYPE_BY_DTYPE: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
DTYPE_BY_DATATYPE: Mapping[str, str] = {datatype: dtype for dtype, datatype in DATATYPE_BY_DTYPE.items()}
