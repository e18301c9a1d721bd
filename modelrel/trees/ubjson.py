"""Universal Binary JSON (ubjson.org, draft 12) as XGBoost writes it: typed arrays are left where they lie."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

_NUMBERS: Final = {
    marker: (struct.Struct(">" + kind), np.dtype(">" + numpy))
    for marker, kind, numpy in (
        (ord("i"), "b", "i1"),
        (ord("U"), "B", "u1"),
        (ord("I"), "h", "i2"),
        (ord("l"), "i", "i4"),
        (ord("L"), "q", "i8"),
        (ord("d"), "f", "f4"),
        (ord("D"), "d", "f8"),
    )
}
_ARRAY, _ARRAY_END, _OBJECT, _OBJECT_END, _TEXT, _CHARACTER, _LONG, _COUNT, _TYPED = b"[]{}SCL#$"
_TYPED_ARRAY: Final = b"[$"
_PLAIN: Final = {ord("T"): True, ord("F"): False, ord("Z"): None}


class Typed:
    """An array of numbers of one kind inside the parsed bytes."""

    __slots__ = ("content", "dtype")

    def __init__(self, content: memoryview, dtype: np.dtype[Any]) -> None:
        """Keep where it lies, and of what kind it is."""
        self.content, self.dtype = content, dtype

    def __len__(self) -> int:
        """Return how many numbers it has."""
        return len(self.content) // self.dtype.itemsize


def parsed(content: bytes, unread: frozenset[str] = frozenset()) -> Any:
    """Return the value that `content` holds: dict, list, str, int, float, bool, None, and `Typed` arrays.

    Typed arrays under the names `unread` are passed over.
    Raises `ValueError` where it is no valid UBJSON.
    """
    try:
        value, end = _Reader(content, unread).value(0)
    except (IndexError, struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"no valid UBJSON: {error}") from error
    if end != len(content):
        raise ValueError(f"no valid UBJSON: it ends at byte {end} of {len(content)}")
    return value


def array(value: Typed | Sequence[Any], dtype: Any) -> Any:
    """Return one parsed array."""
    return joined([value], dtype)


def joined(values: Sequence[Typed | Sequence[Any]], dtype: Any) -> Any:
    """Return parsed arrays one after another, as one."""
    kinds = {value.dtype if isinstance(value, Typed) else None for value in values}
    if len(kinds) == 1 and (kind := kinds.pop()) is not None:
        whole = b"".join(value.content for value in values if isinstance(value, Typed))
        return np.frombuffer(whole, kind).astype(dtype)
    parts = [
        np.frombuffer(value.content, value.dtype) if isinstance(value, Typed) else np.asarray(value, dtype)
        for value in values
    ]
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)


class _Reader:
    def __init__(self, content: bytes, unread: frozenset[str]) -> None:
        self._bytes, self._view, self._unread = content, memoryview(content), unread

    def value(self, at: int) -> tuple[Any, int]:
        """Return the value that begins at a byte, and where it ends."""
        marker = self._bytes[at]
        if marker == _ARRAY:
            return self._array(at + 1)
        if marker == _OBJECT:
            return self._object(at + 1)
        if marker == _TEXT:
            return self._text(at + 1)
        if marker in _PLAIN:
            return _PLAIN[marker], at + 1
        if marker == _CHARACTER:
            return chr(self._bytes[at + 1]), at + 2
        return self._number(marker, at + 1)

    def _number(self, marker: int, at: int) -> tuple[Any, int]:
        kind, _ = _NUMBERS[marker]
        return kind.unpack_from(self._bytes, at)[0], at + kind.size

    def _size(self, at: int) -> tuple[int, int]:
        if self._bytes[at] == _LONG:  # which is how XGBoost writes all of them
            return int.from_bytes(self._bytes[at + 1 : at + 9], "big"), at + 9
        return self._number(self._bytes[at], at + 1)

    def _text(self, at: int) -> tuple[str, int]:
        size, at = self._size(at)
        return self._bytes[at : at + size].decode(), at + size

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        count = -1
        if self._bytes[at] == _COUNT:
            count, at = self._size(at + 1)
        while count and (count > 0 or self._bytes[at] != _OBJECT_END):
            name, at = self._text(at)
            if name in self._unread and self._bytes[at : at + 2] == _TYPED_ARRAY:
                _, at = self._typed(at + 2)
            else:
                found[name], at = self.value(at)
            count -= 1
        return found, at + (count < 0)

    def _array(self, at: int) -> tuple[Any, int]:
        if self._bytes[at] == _TYPED:
            (start, dtype), end = self._typed(at + 1)
            return Typed(self._view[start:end], dtype), end
        count = -1
        if self._bytes[at] == _COUNT:
            count, at = self._size(at + 1)
        found = []
        while count and (count > 0 or self._bytes[at] != _ARRAY_END):
            one, at = self.value(at)
            found.append(one)
            count -= 1
        return found, at + (count < 0)

    def _typed(self, at: int) -> tuple[tuple[int, np.dtype[Any]], int]:
        """Return where the numbers of a typed array start and of what kind they are, and where they end."""
        _, dtype = _NUMBERS[self._bytes[at]]
        if self._bytes[at + 1] != _COUNT:
            raise ValueError("no valid UBJSON: a typed array without its size")
        count, start = self._size(at + 2)
        end = start + count * dtype.itemsize
        if count < 0 or end > len(self._bytes):
            raise ValueError("no valid UBJSON: an array that is longer than the file")
        return (start, dtype), end
