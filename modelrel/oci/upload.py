"""A blob on its way into a repository: not sent where it is, taken over from a neighbour, taken up again when cut.

Source: OCI distribution-spec, spec.md, "Pushing blobs" and "Mounting a blob from another repository".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from modelrel.errors import ModelrelError, Unavailable
from modelrel.oci.connection import TRIES, Ask, Cut
from modelrel.oci.registry import Registry, wrong

if TYPE_CHECKING:
    import requests

    from modelrel.oci.content import Descriptor, Store

_PAUSES_S: Final = (0.5, 2.0, 5.0)
_BYTES: Final = {"Content-Type": "application/octet-stream"}
_EMPTY: Final = {"Content-Length": "0"}


class Sent(NamedTuple):
    """What became of a blob: `sent`, `mounted` or `there`; and the bytes that went over the wire for it."""

    how: str
    wire: int = 0


class Stopped(Exception):
    """Another upload failed, or the user stopped: this one is given up."""


class Upload:
    """Puts blobs of a store into a repository; safe to be used by several threads."""

    def __init__(self, registry: Registry, store: Store, neighbours: Sequence[str], stop: threading.Event) -> None:
        """Send what `store` has; `neighbours` are repositories of the same registry that may have it already."""
        self._registry, self._store, self._stop = registry, store, stop
        self._connection = registry.connection
        self._neighbours = [one for one in dict.fromkeys(neighbours) if one != registry.name.path]

    def put(self, part: Descriptor) -> Sent:
        """Make sure that a blob is there; raises what `connection` says."""
        if self._registry.has(part):
            return Sent("there")
        if self._mounted(part):
            return Sent("mounted")
        wire, tries = [0], 0
        place = self._begin()
        offset = furthest = 0
        while True:
            try:
                if offset < part.size:
                    place, offset = self._patched(part, place, offset, wire)
                    continue
                self._finish(part, place)
            except (Cut, _Lost) as problem:
                tries = 1 if offset > furthest else tries + 1
                furthest = max(furthest, offset)
                if tries >= TRIES:
                    raise self._given_up(part, problem) from problem
                self._connection.wait(_PAUSES_S[min(tries, len(_PAUSES_S)) - 1])
                if self._registry.has(part):  # it was the answer that got lost
                    return Sent("sent", wire[0])
                place, offset = self._resumed(place, part) if isinstance(problem, Cut) else (self._begin(), 0)
            else:
                return Sent("sent", wire[0])

    def _given_up(self, part: Descriptor, problem: Exception) -> ModelrelError:
        if isinstance(problem, _Lost) and problem.error is not None:
            return problem.error
        return Unavailable(
            f"the registry {self._registry.name.host} broke off the upload of {part.digest} ({part.size:,} bytes) "
            f"{TRIES} times: {problem}",
            "Run the command again: what has arrived is not sent again, and no tag was moved.",
        )

    def _mounted(self, part: Descriptor) -> bool:
        """Take a blob over from a repository that has it; a registry that forbids it is asked no more."""
        own = self._registry
        for neighbour in list(self._neighbours):
            try:
                if not own.has(part, neighbour):
                    continue
                url = self._connection.url(f"blobs/uploads/?mount={part.digest}&from={neighbour}")
                scope = f"{own.scope} repository:{neighbour}:pull"
                asked = Ask(method="POST", url=url, scope=scope, headers=_EMPTY, expect=(201, 202))
                with closing(self._connection.ask(asked)) as answer:
                    if answer.status_code == 201:
                        _same(own, part, answer)
                        return True
                    self._cancel(url, answer)
            except Unavailable:
                if neighbour in self._neighbours:
                    self._neighbours.remove(neighbour)
        return False

    def _cancel(self, url: str, answer: requests.Response) -> None:
        """Give back an upload that a refused mount began."""
        if "Location" not in answer.headers:
            return
        place = self._connection.location(url, answer.headers["Location"])
        asked = Ask(method="DELETE", url=place, scope=self._registry.scope, expect=(200, 202, 204, 404, 405), once=True)
        try:
            self._connection.ask(asked).close()
        except (Cut, Unavailable):
            return  # it runs out by itself

    def _begin(self) -> str:
        url = self._connection.url("blobs/uploads/")
        asked = Ask(method="POST", url=url, scope=self._registry.scope, headers=_EMPTY, expect=(202,))
        with closing(self._connection.ask(asked)) as answer:
            return self._place(url, answer)

    def _place(self, url: str, answer: requests.Response) -> str:
        told = answer.headers.get("Location", "")
        if not told:
            raise Unavailable(
                f"the registry {self._registry.name.host} does not say where to upload to",
                "Is it a registry of images?",
            )
        return self._connection.location(url, told)

    def _patched(self, part: Descriptor, place: str, offset: int, wire: list[int]) -> tuple[str, int]:
        """Send what is left; return where to go on, and how much has arrived; `wire[0]` counts what was sent."""
        headers = {**_BYTES, "Content-Length": str(part.size - offset)}
        if offset:
            headers["Content-Range"] = f"{offset}-{part.size - 1}"

        def body() -> BinaryIO:
            return _Rest(self._store.open(part), (offset, part.size), self._stop, wire)  # type: ignore[return-value]

        scope = self._registry.scope
        asked = Ask(
            method="PATCH", url=place, scope=scope, headers=headers, body=body, expect=(202, 404, 416), once=True
        )
        with closing(self._connection.ask(asked)) as answer:
            if answer.status_code == 404:
                raise _Lost(self._connection.stopped(answer, asked))
            arrived = _arrived(answer.headers)
            if answer.status_code == 416 and arrived is None:
                raise _Lost(self._connection.stopped(answer, asked))
            if answer.status_code == 416 or (arrived is not None and not offset < arrived <= part.size):
                raise Cut("it wants another part than the next")
            return self._place(place, answer), part.size if arrived is None else arrived

    def _resumed(self, place: str, part: Descriptor) -> tuple[str, int]:
        """Ask how much of a cut upload has arrived; begin anew where the registry cannot say."""
        asked = Ask(method="GET", url=place, scope=self._registry.scope, expect=(200, 204, 404, 400, 405, 416))
        with closing(self._connection.ask(asked)) as answer:
            arrived = _arrived(answer.headers) if answer.status_code in (200, 204) else None
            if arrived is not None and 0 < arrived <= part.size:
                return self._place(place, answer) if "Location" in answer.headers else place, arrived
        return self._begin(), 0

    def _finish(self, part: Descriptor, place: str) -> None:
        url = f"{place}{'&' if '?' in place else '?'}digest={part.digest.replace(':', '%3A')}"
        expect = (200, 201, 204, 400, 404, 416)
        asked = Ask(
            method="PUT", url=url, scope=self._registry.scope, headers={**_BYTES, **_EMPTY}, expect=expect, once=True
        )
        with closing(self._connection.ask(asked)) as answer:
            if answer.status_code >= 400:
                raise _Lost(self._connection.stopped(answer, asked))
            _same(self._registry, part, answer)


class _Lost(Exception):
    """The registry does not know the upload any more, or has other bytes of it: it begins anew."""

    def __init__(self, error: ModelrelError | None) -> None:
        """Keep what to say should that happen again and again."""
        super().__init__("it lost what had been sent")
        self.error = error


class _Rest:
    """What is left of a part, as requests takes it: with a length, read in blocks."""

    def __init__(self, stream: BinaryIO, span: tuple[int, int], stop: threading.Event, wire: list[int]) -> None:
        """Skip to the start of the span."""
        offset, end = span
        self._stream, self._length, self._stop, self._wire = stream, end - offset, stop, wire
        while offset and (skipped := stream.read(min(offset, 1 << 20))):
            offset -= len(skipped)

    def __len__(self) -> int:
        """Return the bytes that will be sent."""
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        """Yield blocks."""
        while block := self.read(1 << 16):
            yield block

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; the store raises `Refused` at the end where they are not those of the digest."""
        if self._stop.is_set():
            raise Stopped
        block = self._stream.read(size)
        self._wire[0] += len(block)
        return block

    def close(self) -> None:
        """Close the part."""
        self._stream.close()


def _same(registry: Registry, part: Descriptor, answer: requests.Response) -> None:
    told = answer.headers.get("Docker-Content-Digest", part.digest)
    if told != part.digest and told.startswith("sha256:"):
        raise wrong(registry.name, part.digest, told[:80])


def _arrived(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes have arrived by a `Range` header: `0-9` is ten; None where it says nothing."""
    found = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", headers.get("Range", ""))
    return int(found[1]) + 1 if found else None
