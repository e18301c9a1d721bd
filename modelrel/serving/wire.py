"""What the connections of a process share, and the words of HTTP that uvicorn does not read and write for us."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE

from .limits import BODIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .answers import Answer
    from .app import App
    from .protocol import Connection


class Shared:
    """What the connections of a process share: the app, the clock, the date and the bytes that have come in so far."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.records = app.engine.records
        self.now = 0.0
        self.receiving = 0
        self.most = BODIES * app.max_body
        self._starts: dict[int, bytes] = {}
        self.date = b""

    def tick(self, now: float, date: bytes) -> None:
        """Take the time; a new second is a new date in the head of each answer."""
        self.now = now
        if date != self.date:
            self.date = date
            self._starts = {}

    def sweep(self, connections: Iterable[Connection]) -> None:
        """End the connections whose time is over."""
        for connection in list(connections):
            if connection.deadline < self.now:
                connection.expire()

    def start(self, status: int) -> bytes:
        """Return what the head of each answer of a status starts with: its line and the date."""
        start = self._starts.get(status)
        if start is None:
            start = self._starts[status] = b"%sdate: %s\r\n" % (STATUS_LINE[status], self.date)
        return start


def target(url: bytes) -> tuple[str, str]:
    """Return the path, percent-decoded, and the query of a request's target (RFC 9112, 3.2)."""
    if url[:1] == b"/" and b"#" not in url:
        raw, _, query = url.partition(b"?")
    elif url == b"*":
        return "*", ""
    else:
        parsed = httptools.parse_url(url)
        raw, query = parsed.path or b"/", parsed.query or b""
    path = raw.decode("ascii")
    return (unquote(path) if "%" in path else path), query.decode("ascii")


def response_head(answer: Answer, start: bytes, end: bytes) -> bytes:
    """Return the head of an answer between what it starts and what it ends with."""
    lines = [start]
    for name, value in answer.headers.items():
        # What a client may have had a hand in cannot become a header of its own.
        lines += [name.encode("latin-1"), b": ", HEADER_VALUE_RE.sub(b"", value.encode("latin-1", "replace")), b"\r\n"]
    if answer.status != 204:
        lines.append(b"content-length: %d\r\n" % len(answer.body))
    lines += [end, b"\r\n"]
    return b"".join(lines)
