"""Entries of tars: written with nothing of this machine in them, and read one by one from whoever made them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from modelrel.errors import Refused
from modelrel.oci.blobs import pieces

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ENTRIES: Final = 1_000_000
"""The most files and folders of one layer."""

_HEADER_BYTES: Final = 1 << 20  # of the names and attributes of one entry
_DAMAGED: Final = "It is damaged, or made to do harm; take another."


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes are: in a file, from an offset on."""

    path: Path
    start: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the whole of a file."""
        return cls(path, 0, path.stat().st_size)


def head(name: str, size: int = 0, *, folder: bool = False) -> bytes:
    """Return the header of an entry of a tar."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    entry.mode = 0o755 if folder else 0o644
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class Entry(tarfile.TarInfo):
    """An entry as it is read: what its header states is no reason to fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the entry of a header; raises `tarfile.ReadError` where its names are too long."""
        found = super().frombuf(buf, encoding, errors)
        if not found.isreg() and found.size > _HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return found


class Stretch(io.RawIOBase):
    """A stretch of a file, as a file."""

    def __init__(self, place: Place) -> None:
        """Open it."""
        super().__init__()
        self._file = place.path.open("rb")
        self._place, self._had = place, 0
        self._file.seek(place.start)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in it."""
        self._had = max(0, offset + (0, self._had, self._place.size)[whence])
        self._file.seek(self._place.start + self._had)
        return self._had

    def tell(self) -> int:
        """Return the place in it."""
        return self._had

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read some bytes."""
        view = memoryview(buffer).cast("B")
        done = self._file.readinto(view[: max(0, min(len(view), self._place.size - self._had))])
        self._had += done
        return done

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class Tar(io.RawIOBase):
    """The bytes of a tar, counted and hashed as they are read; raises `Refused` where they are too many."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        """Read from `stream`, `limit` bytes at most."""
        super().__init__()
        self._stream, self._limit, self._had, self._hash = stream, limit, 0, hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read some bytes."""
        view = memoryview(buffer).cast("B")
        try:
            chunk = self._stream.read(len(view))
        except (EOFError, zlib.error, OSError) as error:
            raise Refused(f"a layer of the image cannot be unpacked: {error}", _DAMAGED) from error
        self._had += len(chunk)
        if self._had > self._limit:
            raise Refused(f"a layer of the image unpacks to more than {self._limit:,} bytes", _DAMAGED)
        self._hash.update(chunk)
        view[: len(chunk)] = chunk
        return len(chunk)

    def digest(self) -> str:
        """Return the digest of all of it."""
        for _ in pieces(self):  # type: ignore[arg-type]
            pass
        return f"sha256:{self._hash.hexdigest()}"


def entries(tar: Tar) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """Yield the entries of a layer, each with its content, which is to be read before the next one is asked for.

    Raises `Refused` for what is no tar, and for more than `ENTRIES`.
    """
    try:
        with tarfile.open(fileobj=io.BufferedReader(tar, 1 << 18), mode="r|", tarinfo=Entry) as members:
            for number, entry in enumerate(iter(members.next, None)):
                if number >= ENTRIES:
                    raise Refused(f"a layer of the image has more than {ENTRIES:,} entries", _DAMAGED)
                members.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                content = members.extractfile(entry) if entry.isreg() else None
                yield entry, content or io.BytesIO()  # type: ignore[misc]
    except tarfile.TarError as error:
        raise Refused(f"a layer of the image is no tar: {error}", _DAMAGED) from error
