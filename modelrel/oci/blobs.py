"""A folder of parts, each under the digest of its bytes: what was fetched or made once is not fetched or made again.

Whatever is in it was checked when it came in; it comes in under a temporary name, so that nothing half is found.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from modelrel import archive
from modelrel.errors import Refused, Unavailable
from modelrel.oci.content import Descriptor

_PIECE: Final = 1 << 20


class Blobs:
    """A `content.Store` in a folder; several processes may fill it at the same time."""

    def __init__(self, folder: Path, *, lasting: bool = True) -> None:
        """Use the folder; it is made when something comes in. `lasting`: what is in it outlives a power cut."""
        self.folder, self._lasting = folder, lasting

    def path(self, digest: str) -> Path:
        """Return where the part with this digest is, or would be."""
        return self.folder / "sha256" / digest.removeprefix("sha256:")

    def holds(self, part: Descriptor) -> bool:
        """Return whether it is there, with its size."""
        path = self.path(part.digest)
        return path.is_file() and path.stat().st_size == part.size

    def open(self, part: Descriptor) -> BinaryIO:
        """Return the bytes of a part as a stream; raises `Unavailable` where it is not there."""
        if not self.holds(part):
            raise Unavailable(f"there is no {part.digest} in {self.folder}", "Run the command again.")
        return self.path(part.digest).open("rb")

    @contextmanager
    def room(self) -> Iterator[BinaryIO]:
        """Give a new file to write to; it is gone when the block ends, unless `take` took it."""
        with archive.translated(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(prefix=archive.UNFINISHED, dir=self.folder, delete=False) as stream:
                try:
                    yield stream  # type: ignore[misc]
                finally:
                    Path(stream.name).unlink(missing_ok=True)

    def take(self, stream: BinaryIO, digest: str) -> None:
        """Keep a file of `room` under the digest of what was written to it."""
        stream.flush()
        if self._lasting:
            os.fsync(stream.fileno())
        path = self.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(stream.name).chmod(0o644)
        Path(stream.name).replace(path)

    def add(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Keep some bytes; return their digest and how many they are."""
        hashed, size = hashlib.sha256(), 0
        with self.room() as stream:
            for chunk in chunks:
                hashed.update(chunk)
                size += len(chunk)
                stream.write(chunk)
            found = f"sha256:{hashed.hexdigest()}"
            self.take(stream, found)
        return found, size

    def fetch(self, part: Descriptor, source: BinaryIO) -> None:
        """Keep a part that comes from elsewhere; raises `Refused` where it has not its digest and size."""
        hashed, size = hashlib.sha256(), 0
        with self.room() as stream:
            for chunk in pieces(source):
                hashed.update(chunk)
                size += len(chunk)
                if size > part.size:
                    break
                stream.write(chunk)
            if size != part.size or f"sha256:{hashed.hexdigest()}" != part.digest:
                raise Refused(
                    f"a part of the image has not its digest: {part.digest} is named, with {part.size:,} bytes",
                    "The image is damaged, or somebody changed it.",
                )
            self.take(stream, part.digest)

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        """Write down what is known about a part, or of how it was made."""
        archive.write(self.folder / f"{name}.json", json.dumps(facts, sort_keys=True).encode())

    def known(self, name: str) -> Mapping[str, Any]:
        """Return what was noted under a name; empty where that is nothing, or unreadable."""
        try:
            found = json.loads((self.folder / f"{name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def pieces(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a stream in pieces."""
    while chunk := stream.read(_PIECE):
        yield chunk
