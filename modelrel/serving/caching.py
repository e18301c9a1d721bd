"""Answers that are kept for requests that are exactly the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from .calls import Call
    from .engine import Stats
    from .tensors import Array

MAX_BYTES: Final = 64 * 1024 * 1024
"""What all kept answers and their keys may take."""

_SHORT: Final = 256
"""Inputs up to this size are their own key; what is longer is known by its hash."""

_TEXT_BYTES: Final = 49
"""What an empty text takes in memory."""

_ENTRY_BYTES: Final = 1000
"""What an entry takes beside its arrays, about."""


class Cache:
    """The answers that were asked for last. Methods are safe from any thread.

    A key holds the number of the loaded model, never its name: what is loaded again starts from nothing. Arrays that
    come out cannot be written to.
    """

    def __init__(self, entries: int, stats: Stats, max_bytes: int = MAX_BYTES) -> None:
        """Keep up to ``entries`` answers of ``max_bytes`` together; hits and misses are counted in ``stats``."""
        self._entries = entries
        self._max_bytes = max_bytes
        self._stats = stats
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[list[Array], int]] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, call: Call) -> tuple[Hashable, list[Array] | None]:
        """Return the key of a call, for ``keep``, and what was computed for the same; None where that is not known."""
        key = key_of(call)
        with self._lock:
            found = None if key is None else self._kept.get(key)
            if found is None:
                self._stats.cache_misses += 1
                return key, None
            self._stats.cache_hits += 1
            self._kept.move_to_end(key)
            return key, list(found[0])

    def keep(self, key: Hashable, results: Sequence[Array]) -> None:
        """Keep what was computed for the key, and forget what was not asked for longest."""
        if key is None:
            return
        kept = [_frozen(array) for array in results]
        size = _ENTRY_BYTES + sum(map(_size, kept))
        if size > self._max_bytes:
            return
        with self._lock:
            self._forget(key)
            self._kept[key] = kept, size
            self._bytes += size
            while len(self._kept) > self._entries or self._bytes > self._max_bytes:
                self._forget(next(iter(self._kept)))

    def _forget(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._bytes -= found[1]

    def __len__(self) -> int:
        return len(self._kept)


def key_of(call: Call) -> Hashable:
    """Return a key that two calls share only if the same loaded model is to compute the same of exactly the same.

    It is None for a call that has none: of texts or params that no encoding can say.
    """
    try:
        feeds = tuple((name, array.dtype.str, array.shape, _content(array)) for name, array in call.feeds.items())
        return call.model.number, tuple(call.outputs), said(call.params), feeds
    except (TypeError, ValueError):
        return None


def said(params: Mapping[str, Any] | None) -> bytes:
    """Return the params of a call as bytes; b"" where there are none. Raises ``TypeError`` and ``ValueError``."""
    return msgspec.json.encode(params, order="sorted") if params else b""


def _content(array: Array) -> bytes:
    if array.dtype.hasobject:
        content = msgspec.msgpack.encode(array.ravel().tolist())  # tells text from bytes
        return content if len(content) <= _SHORT else blake2b(content).digest()
    if array.nbytes <= _SHORT:
        return array.tobytes()
    return blake2b(np.ascontiguousarray(array).data).digest()


def _frozen(array: Array) -> Array:
    """Return an array that nobody can write to, and that is no view, which would keep a whole batch in memory."""
    own = array if array.base is None else array.copy()
    own.flags.writeable = False
    return own


def _size(array: Array) -> int:
    texts = sum(_TEXT_BYTES + len(text) for text in array.ravel().tolist()) if array.dtype.hasobject else 0
    return array.nbytes + texts
