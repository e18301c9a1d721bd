"""Tensors as plain bytes: behind the JSON of a V2 request or answer, and as gRPC's raw contents.

Source: ``docs/protocol/extension_binary_data.md`` of triton-inference-server/server. Numbers are little-endian and
row-major without gaps, BOOL is a byte of 0 or 1, and each element of BYTES is its length in four bytes and then itself.

The strings of a model are text, so bytes that are not UTF-8 are refused rather than passed on as something else.
"""

from __future__ import annotations

from math import prod
from struct import pack, unpack_from
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .answers import Refused
from .tensors import DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .manifest import TensorSpec

    Buffer = bytes | memoryview

HEADER: Final = "inference-header-content-length"
"""The header that says how many bytes of a body are JSON; the rest are tensors."""

SIZE: Final = "binary_data_size"

WIRE: Final[dict[str, np.dtype[Any]]] = {name: dtype.newbyteorder("<") for name, dtype in DTYPES.items()}
"""Datatype -> dtype as it travels: little-endian, whatever the machine is."""

_PREFIX: Final = 4  # bytes of the length of a BYTES element


def json_size(headers: Mapping[str, str], body: bytes) -> int:
    """Return how much of a body is JSON. Raises ``Refused`` (400) where the header makes no sense."""
    text = headers[HEADER]
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Refused(400, f"Inference-Header-Content-Length must be a number of bytes, not {text[:40]!r}")
    if int(text) > len(body):
        raise Refused(400, f"Inference-Header-Content-Length is {int(text)}, but the body has {len(body)} bytes")
    return int(text)


class Tail:
    """The bytes behind the JSON, of which each binary input takes its own in turn."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: object) -> memoryview:
        """Return the next ``size`` bytes, not copied. Raises ``Refused`` (400) where there are not so many."""
        if type(size) is not int or size < 0:
            raise Refused(400, f"{SIZE} must be a number of bytes, not {str(size)[:40]}")
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            left = len(self._data) - start
            raise Refused(400, f"{SIZE} is {size}, but there are {left} bytes left behind the JSON")
        return self._data[start : self._at]

    def end(self) -> None:
        """Raise ``Refused`` (400) where bytes are left that no input took."""
        if self._at != len(self._data):
            raise Refused(400, f"{len(self._data) - self._at} bytes behind the JSON belong to no input")


def read(data: Buffer, datatype: str, shape: Sequence[int]) -> Array:
    """Return the tensor that ``data`` is; numbers are a view of it where it lies as the machine needs it.

    ``datatype`` is one of ``DTYPES``. Raises ``Refused`` (400) unless data is all of the tensor and nothing else.
    Nothing is allocated by what the shape claims.
    """
    count = prod(shape)
    if datatype == "BYTES":
        texts = _texts(data, count)
        return np.array(texts, np.object_).reshape(shape)
    dtype = WIRE[datatype]
    if count * dtype.itemsize != len(data):
        needed = count * dtype.itemsize
        raise Refused(400, f"there are {len(data)} bytes, the shape {list(shape)} of {datatype} takes {needed}")
    array = np.frombuffer(data, dtype)
    if datatype == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise Refused(400, "a byte of a BOOL must be 0 or 1")
    if not array.flags.aligned:  # where the JSON ends is chance, and a runtime may load several numbers at a time
        array = array.copy()
    return array.astype(DTYPES[datatype], copy=False).reshape(shape)


def _texts(data: Buffer, count: int) -> list[str]:
    """Read the elements of a BYTES tensor. Raises ``Refused`` (400) that names the element which is wrong."""
    at, end = 0, len(data)
    if count * _PREFIX > end:
        raise Refused(400, f"there are {end} bytes, too few for the lengths of {count} BYTES elements")
    found = []
    for index in range(count):
        length = unpack_from("<I", data, at)[0] if at + _PREFIX <= end else end
        start, at = at + _PREFIX, at + _PREFIX + length
        if at > end:
            raise Refused(400, f"element {index} of BYTES ends beyond the {end} bytes of the tensor")
        found.append(text(data[start:at], index))
    if at != end:
        raise Refused(400, f"{end - at} bytes are left behind the {count} elements of BYTES")
    return found


def text(element: Buffer, index: int) -> str:
    """Return an element of a BYTES tensor as the text it must be. Raises ``Refused`` (400)."""
    try:
        return str(element, "utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, f"element {index} of BYTES is not UTF-8: {error.reason} (byte {error.start})") from error


def raw_shape(spec: TensorSpec, size: int) -> list[int]:
    """Infer the shape of a lone tensor of ``size`` bytes that came without any JSON.

    One dimension may be of any size. Where there are two of which the first is the batch, that is 1. Raises
    ``Refused`` (400) where there are more, or where the size does not fit.
    """
    shape = list(spec.shape)
    if shape.count(-1) > 1 and shape[0] == -1:
        shape[0] = 1
    if spec.datatype == "BYTES":  # the body is the one element, without its length
        if any(want not in {1, -1} for want in shape):
            raise Refused(400, f"a raw body is one BYTES element, the model takes the shape {list(spec.shape)}")
        return [1] * len(shape)
    if shape.count(-1) > 1:
        raise Refused(400, f"a raw body does not tell the sizes of the shape {list(spec.shape)}; send it with JSON")
    if -1 in shape:
        unit = prod(want for want in shape if want != -1) * WIRE[spec.datatype].itemsize
        shape[shape.index(-1)] = size // unit if unit else 0
    return shape


def written(array: Array, datatype: str) -> Buffer:
    """Return the bytes of a tensor, those of numbers not copied where they lie as they travel."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, WIRE[datatype]).reshape(-1).view(np.uint8).data
    parts = []
    for element in array.ravel().tolist():
        encoded = element.encode() if isinstance(element, str) else bytes(element)
        parts += [pack("<I", len(encoded)), encoded]
    return b"".join(parts)
