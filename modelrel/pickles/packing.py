"""Packed streams, unpacked to be looked through: gzip, zlib, bzip2, xz and lzma, and never without end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zlib
from collections.abc import Callable, Mapping
from typing import IO, Final, cast

IN_MEMORY: Final = 2**26
PIECE: Final = 2**20
_MOST: Final = 2**33
"""Bytes that one packed file is unpacked to, to be looked through."""


class TooLarge(Exception):
    """It unpacks to more than is looked through."""


def _inflated(stream: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Inflated(stream), PIECE)


class _Inflated(io.RawIOBase):
    """What zlib packed, as a stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._inflate, self._left = stream, zlib.decompressobj(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._inflate.eof:
            piece = self._left or self._stream.read(PIECE)
            if not piece:
                raise EOFError("it stops short")
            found = self._inflate.decompress(piece, len(buffer))
            self._left = self._inflate.unconsumed_tail
            if found:
                buffer[: len(found)] = found
                return len(found)
        return 0


PACKED: Final[Mapping[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    b"\x1f\x8b": lambda stream: cast("IO[bytes]", gzip.GzipFile(fileobj=stream, mode="rb")),
    b"BZh": lambda stream: bz2.BZ2File(stream, "rb"),
    b"\xfd7zXZ\x00": lambda stream: lzma.LZMAFile(stream, "rb"),  # noqa: SIM115 - the caller closes it
    b"\x5d\x00\x00": lambda stream: lzma.LZMAFile(stream, "rb"),  # noqa: SIM115 - the caller closes it
    **dict.fromkeys((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"), _inflated),
}
"""How a packed stream begins (RFC 1950, RFC 1952, bzip2, xz, lzma) -> what unpacks it."""


def spooled(content: IO[bytes]) -> IO[bytes]:
    """Return all of a stream, which can be read twice; on disk where it is large."""
    whole = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - the caller closes it
    try:
        total = 0
        while piece := content.read(PIECE):
            total += len(piece)
            if total > _MOST:
                raise TooLarge  # noqa: TRY301 - what was written is closed below
            whole.write(piece)
        whole.seek(0)
    except BaseException:
        whole.close()
        raise
    return whole


def end(stream: IO[bytes]) -> int:
    """Return the size of a stream, which is at its beginning afterwards."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return size
