"""A blob as it comes from a registry: taken up again where the connection is cut, checked against its digest."""

from __future__ import annotations

import hashlib
import io
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from modelrel.errors import Refused, Unavailable
from modelrel.oci.connection import TRIES, Ask, Connection

if TYPE_CHECKING:
    import requests
    from _typeshed import WriteableBuffer

    from modelrel.oci.content import Descriptor

_PAUSE_S: Final = 0.5
_SLOW_S: Final = 120.0
_SLOW_BYTES: Final = 100_000
"""Two minutes for every so many bytes are too slow."""


class Blob(io.RawIOBase):
    """The bytes of a part; reading its end raises `Refused` where they do not have the digest."""

    def __init__(self, connection: Connection, scope: str, part: Descriptor) -> None:
        """Ask for the part; raises `Unavailable` where it is not there."""
        super().__init__()
        self._connection, self._scope, self._part = connection, scope, part
        self._hash, self._had, self._last, self._cuts = hashlib.sha256(), 0, -1, 0
        self._waited, self._skip = 0.0, 0
        self._answer = self._asked(0)

    def _asked(self, start: int) -> requests.Response:
        part, connection = self._part, self._connection
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        url = connection.url(f"blobs/{part.digest}")
        asked = Ask(method="GET", url=url, scope=self._scope, headers=headers, expect=(200, 206) if start else (200,))
        answer = connection.ask(asked)
        ranged = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        self._skip = 0 if ranged else start  # who knows no ranges sends again what we have
        return answer

    def _cut(self, how: str) -> Unavailable:
        host = self._connection.name.host
        return Unavailable(
            f"the registry {host} gave {self._had:,} of the {self._part.size:,} bytes of {self._part.digest} ({how})",
            "Try again; what is there already is not fetched again.",
        )

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read some bytes; 0 at the end, where the digest is right."""
        view = memoryview(buffer).cast("B")
        while not (chunk := self._chunk(len(view))) and self._had < self._part.size:
            self._again()
        self._had += len(chunk)
        self._hash.update(chunk)
        if self._had > self._part.size or (not chunk and f"sha256:{self._hash.hexdigest()}" != self._part.digest):
            raise Refused(
                f"the registry {self._connection.name.host} gave other bytes than {self._part.digest} names",
                "It is damaged, or somebody changed it; ask who runs it.",
            )
        view[: len(chunk)] = chunk
        return len(chunk)

    def _chunk(self, most: int) -> bytes:
        """Return what there is, b"" where the connection ended."""
        from urllib3.exceptions import HTTPError

        if self._waited > _SLOW_S * (1 + self._had / _SLOW_BYTES):
            raise self._cut("it is too slow")
        begun = time.monotonic()
        try:
            while self._skip:
                skipped = self._answer.raw.read1(min(self._skip, 1 << 16))
                if not skipped:
                    return b""
                self._skip -= len(skipped)
            found: bytes = self._answer.raw.read1(most)
        except (OSError, HTTPError):
            return b""
        finally:
            self._waited += time.monotonic() - begun
        return found

    def _again(self) -> None:
        """Take up a connection that was cut; raises `Unavailable` where that happens again and again."""
        self._answer.close()
        self._cuts = self._cuts + 1 if self._had == self._last else 1
        self._last = self._had
        if self._cuts >= TRIES:
            raise self._cut("the connection was cut")
        self._connection.wait(_PAUSE_S * self._cuts)
        self._answer = self._asked(self._had)

    def close(self) -> None:
        """Close the connection."""
        if not self.closed and hasattr(self, "_answer"):
            with closing(self._answer):
                super().close()
        super().close()
