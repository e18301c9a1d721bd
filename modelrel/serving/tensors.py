"""Datatypes of the Open Inference Protocol, and the way between JSON values and numpy arrays."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from .answers import Refused, decode

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""Open Inference datatype -> numpy dtype. BYTES is an object array of ``str``, which is how ONNX strings travel."""

ONNX_TYPES: Final[dict[str, str]] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""onnxruntime's type names -> Open Inference datatype."""

# Beyond these an integer may have no exact float; a few larger ones would, but a rule that depends on how many
# zero bits a number ends in helps nobody.
_EXACT: Final = {"FP16": 2**11, "FP32": 2**24, "FP64": 2**53}


# The first number that rounds to infinity as FP32. Some clients print the largest FP32 as 3.4028235e38, just below it.
_FP32_END: Final = float(np.finfo(np.float32).max) + 2.0**103


def json_type(datatype: str, depth: int) -> Any:
    """Return the type that a decoder needs to check type and range of each value of a list nested ``depth`` deep."""
    dtype = DTYPES[datatype]
    nested: Any = {"b": bool, "O": str, "f": float | None}.get(dtype.kind, int)
    if datatype == "FP32":
        nested = Annotated[float, msgspec.Meta(gt=-_FP32_END, lt=_FP32_END)] | None
    elif dtype.kind in "iu" and datatype != "UINT64":  # beyond int64 the decoder cannot compare; numpy will refuse
        nested = Annotated[int, msgspec.Meta(ge=int(np.iinfo(dtype).min), le=int(np.iinfo(dtype).max))]
    for _ in range(depth):
        nested = list[nested]
    return nested


@cache
def _decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[object]]:
    """Build the decoder of a list nested ``depth`` deep. It checks type and range of each value, in C."""
    return msgspec.json.Decoder(json_type(datatype, depth))


def _depth(data: bytes) -> int:
    """Count the brackets that open a JSON value; only the first 256 bytes are looked at."""
    stripped = data[:256].translate(None, b" \t\r\n")
    return len(stripped) - len(stripped.lstrip(b"["))


def from_json(raw: msgspec.Raw, datatype: str, shape: list[int]) -> Array:
    """Read the ``data`` of a tensor: row-major, nested to ``shape`` or as one flat list.

    ``null`` is NaN for floats. Raises ``Refused`` (400) for values that are not of the datatype or out of its range,
    and when the number of elements is not the product of the shape. Nothing is allocated by what the shape claims.
    """
    data = bytes(raw)
    depth = _depth(data)
    if depth not in {1, len(shape)}:
        raise Refused(400, f"data is nested {depth} deep; it must be a flat list or nested to the shape {shape}")
    values = decode(_decoder(datatype, depth), data)
    try:
        array = np.array(values, DTYPES[datatype])
    except (ValueError, OverflowError) as error:
        raise Refused(400, f"data does not fit {datatype}: {error}") from error
    if depth == 1 and array.size == prod(shape):
        return array.reshape(shape)
    if list(array.shape) != shape:
        raise Refused(400, f"data has {array.size} elements, the shape {shape} asks for {prod(shape)}")
    return array


def cast_exactly(array: Array, source: str, target: str) -> Array:
    """Return ``array`` (of datatype ``source``) as datatype ``target``.

    Integers go to integers and floats, floats to floats. Nothing else is a cast: a boolean is no number, and a float is
    no integer even when its value is whole. Raises ``Refused`` (400) also when a single value would change.
    """
    old, new = DTYPES[source], DTYPES[target]
    exact = False
    if old.kind in "iu" and new.kind in "iu":
        exact = bool(array.min(initial=0) >= np.iinfo(new).min and array.max(initial=0) <= np.iinfo(new).max)
    elif old.kind in "iu" and new.kind == "f":
        exact = bool(array.min(initial=0) >= -_EXACT[target] and array.max(initial=0) <= _EXACT[target])
    elif old.kind == "f" and new.kind == "f":
        with np.errstate(over="ignore"):
            exact = np.array_equal(array.astype(new).astype(old), array, equal_nan=True)
    if not exact:
        raise Refused(400, f"the model takes {target}; the request sends {source}, which would change its values")
    return array.astype(new)
