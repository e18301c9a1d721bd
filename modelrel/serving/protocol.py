"""One connection: uvicorn's, but a request goes to the app as soon as it is whole, and nobody can be slow for ever.

uvicorn parses, keeps the connections and ends them. What is different here: no ASGI between the parser and the app (a
third of the time of a small request), limits on heads, bodies and time, and answers in order whatever becomes of them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .answers import Answer, Headers, Refused
from .app import Request
from .limits import (
    BYTES_PER_S,
    HEAD_BYTES,
    HEADERS,
    KEEP_ALIVE_S,
    LINGER_S,
    RECEIVE_S,
    URL_BYTES,
    WASTED_BYTES,
    too_large,
)
from .wire import Shared, response_head, target

if TYPE_CHECKING:
    import asyncio

_NEVER: Final = float("inf")
_LARGE_BYTES: Final = 64 * 1024
_COMMON: Final = {
    name: name.decode().lower()
    for lower in (
        b"Host",
        b"Content-Type",
        b"Content-Length",
        b"Accept",
        b"Accept-Encoding",
        b"User-Agent",
        b"Connection",
    )
    for name in (lower, lower.lower())
}
"""Headers of nearly every request, as they are usually written."""


class Connection(HttpToolsProtocol):
    """One connection. ``deadline`` is when it is cut if nothing happens, by the clock of the loop."""

    shared: Shared  # set on a subclass, which is made for each server

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self.deadline = self.shared.now + RECEIVE_S
        self._coming: Request | None = None  # the request whose body is on its way
        self._busy: Request | None = None  # the request that is being answered
        self._queue: deque[Request] = deque()  # whole requests that came in before it was
        self._answered = False  # since the last read
        self._deaf = False  # nothing that comes in matters any more
        self._lingering = False
        self._last = False  # the answer on its way is the last
        self._body: bytes | bytearray = b""
        self._unread = 0  # bytes in the parser since it has last given something
        self._head_bytes = 0
        self._thrown = 0  # bytes of a body that nobody wants
        self._url = b""
        self._headers: dict[str, str] = {}
        self._heading = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was on its way."""
        self._drop_body()
        if self._coming is not None and self._coming.answer is None:
            self._queue.append(self._coming)
        self._forget()
        self._deaf = True
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Still answer a client that has said that it will send no more, where it asked something."""
        waits = self._busy is not None or bool(self._queue)
        self._last = self._deaf = True
        return waits and self.scheme != "https"

    # reading

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        if self._deaf:
            return
        self._answered = False
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last = self._deaf = True  # nobody speaks anything else here: it was answered as an ordinary request
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._broken(cause if isinstance(cause, Refused) else Refused(400, "the request is not valid HTTP"))
        except httptools.HttpParserError:
            self._broken(Refused(400, "the request is not valid HTTP"))
        else:
            if self._unread > HEAD_BYTES and not self._deaf:
                self._broken(Refused(431, f"the headers have more than {HEAD_BYTES} bytes"))

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._headers = {}
        self._head_bytes = self._unread = self._thrown = 0
        self._heading = True
        if self._busy is None:
            self.deadline = self.shared.now + RECEIVE_S

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._url += url
        if len(self._url) > URL_BYTES:
            raise Refused(414, f"the address has more than {URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those that follow a chunked body do not count."""
        if not self._heading:
            return
        headers = self._headers
        text = _COMMON.get(name) or name.decode("latin-1").lower()
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES or len(headers) >= HEADERS:
            raise Refused(431, f"the headers have more than {HEAD_BYTES} bytes, or are more than {HEADERS}")
        if text in headers:
            headers[text] += ", " + value.decode("latin-1")
        else:
            headers[text] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Decide whether the body is worth reading."""
        self._heading = False
        path, query = target(self._url)
        method = self.parser.get_method().decode("ascii")
        headers = self._headers
        request = self._coming = Request(method, path, query, headers)
        self._begin(request)
        parser = self.parser
        # Without a word about it, only HTTP/1.1 keeps a connection; with one, 1.0 wants another answer than we give.
        request.keep_alive = parser.should_keep_alive() and (
            "connection" not in headers or (parser.get_http_version() == "1.1" and not parser.should_upgrade())
        )
        refused = self.shared.app.early(request)
        if refused is not None:
            self._refuse(request, refused)
        elif "expect" in headers and headers["expect"].lower() == "100-continue" and self._busy is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unread = 0
        request = self._coming
        if self._busy is None and not self._lingering:
            self.deadline += len(body) / BYTES_PER_S
        if request is None or request.answer is not None:
            self._thrown += len(body)
            if self._thrown > WASTED_BYTES:
                self.transport.abort()
            return
        have, shared = len(self._body), self.shared
        if not have:
            self._body = body
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
                shared.receiving += have
            self._body += body
            shared.receiving += len(body)
        if have + len(body) > shared.app.max_body:
            self._refuse(request, shared.app.refused(request, too_large(shared.app.max_body)))
        elif shared.receiving > shared.most and have > _LARGE_BYTES:
            error = Refused(429, "too many large bodies are on their way here", {"retry-after": "5"})
            self._refuse(request, shared.app.refused(request, error))

    def on_message_complete(self) -> None:
        """Answer the request, or let it wait for those before it."""
        self._unread = 0
        request, self._coming = self._coming, None
        if self._lingering:
            self.transport.close()
        if request is None:
            return
        request.whole = True
        if request.answer is not None:
            return  # it has been given already
        body = self._body
        if body:
            request.body = body if isinstance(body, bytes) else bytes(body)
            self._drop_body()
        self._submit(request)

    def _refuse(self, request: Request, answer: Answer) -> None:
        """Answer a request whose body has not come in; what still comes of it is thrown away."""
        request.answer = answer
        if "expect" in request.headers:
            request.keep_alive = False  # whether the body follows is the client's choice, so nothing can follow it
        self._drop_body()
        self._submit(request)

    def _broken(self, error: Refused) -> None:
        """Answer what cannot be read any further, and close."""
        if self._deaf:
            return
        self._deaf = True
        request = Request("", "", "", {})
        request.keep_alive = False
        coming, self._coming = self._coming, None
        self._drop_body()
        if coming is not None and coming.answer is not None:  # it has its answer
            self._last = True
            if self._busy is None:
                self._end(coming)
            return
        if coming is None:
            self._begin(request)
        else:
            request.exchange = coming.exchange
        request.answer = self.shared.app.refused(request, error)
        self._submit(request)

    def _drop_body(self) -> None:
        if isinstance(self._body, bytearray):
            self.shared.receiving -= len(self._body)
        self._body = b""

    # answering

    def _submit(self, request: Request) -> None:
        if self._busy is None and not self._queue and not self._answered and not self.flow.write_paused:
            self._start(request)
        else:
            self._queue.append(request)
            self.flow.pause_reading()
            if self._busy is None:
                self.loop.call_soon(self._next)

    def _next(self) -> None:
        """Answer the next request of the queue; one at a time, so that no connection holds up the others."""
        if self._queue and self._busy is None and not self.flow.write_paused and not self.transport.is_closing():
            self._start(self._queue.popleft())

    def _start(self, request: Request) -> None:
        self._busy = request
        self._answered = True
        self.deadline = _NEVER
        try:
            answer = request.answer or self.shared.app.start(request, self._finish)
            if answer is not None:
                self._finish(request, answer)
        except BaseException:  # a fault of ours: a client that is left without an answer should know it at once
            self._deaf = True
            self.transport.abort()
            raise

    def _finish(self, request: Request, answer: Answer) -> None:
        self._busy = None
        if self.transport.is_closing():
            self._record(request, 0, 0)
            return
        keep = request.keep_alive and not (self._last and not self._queue)
        self.deadline = self.shared.now + (KEEP_ALIVE_S if keep and request.whole else RECEIVE_S)
        self._write(request, answer, keep)  # which sets another where it cannot be written at once
        if not keep:
            self._end(request)
            return
        if self._queue:
            self.loop.call_soon(self._next)
        else:
            self.flow.resume_reading()

    def _write(self, request: Request, answer: Answer, keep: bool) -> None:
        body = answer.body
        close = b"" if keep else b"connection: close\r\n"
        own = b"x-request-id: %s\r\n%s" % (request.exchange.header, close)
        headers = answer.headers
        if type(headers) is Headers:  # nearly every answer's: their bytes were made when the model was loaded
            start = self.shared.start(answer.status)
            head = b"%s%scontent-length: %d\r\n%s\r\n" % (start, headers.lines, len(body), own)
        else:
            head = response_head(answer, self.shared.start(answer.status), own)
        if request.method == "HEAD":
            self.transport.write(head)
        elif len(body) < _LARGE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines([head, body])
        self._record(request, answer.status, len(body) if request.method != "HEAD" else 0)

    def _begin(self, request: Request) -> None:
        """Tell the records that a request is coming in."""
        request.exchange.client = self.client[0] if self.client else ""
        self.shared.records.begin()

    def _record(self, request: Request, status: int, sent: int) -> None:
        """Tell the records what was answered; 0 is nothing, for a client that has gone."""
        request.exchange.received = len(request.body)
        self.shared.records.end(request.exchange, status, sent)

    def _forget(self) -> None:
        """Answer none of those that wait."""
        while self._queue:
            self._record(self._queue.popleft(), 0, 0)

    def _end(self, request: Request) -> None:
        """Close, but let a client that is still sending read its answer first: closing at once would take it away."""
        self._forget()
        self._last = True
        if request.whole or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self._lingering = True
            self.transport.write_eof()
            self.flow.resume_reading()
            self.deadline = min(self.deadline, self.shared.now + LINGER_S)

    # time

    def pause_writing(self) -> None:
        """Give a client that is slow to read the time for what there is, and nothing more to read."""
        super().pause_writing()
        self.deadline = self.shared.now + RECEIVE_S + self.transport.get_write_buffer_size() / BYTES_PER_S

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._busy is None:
            self.deadline = self.shared.now + KEEP_ALIVE_S
            if self._queue:
                self.loop.call_soon(self._next)

    def expire(self) -> None:
        """End what has taken too long."""
        if self.transport.is_closing() or self._lingering or self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._heading or (self._coming is not None and self._coming.answer is None):
            self.deadline = self.shared.now + LINGER_S
            self._broken(Refused(408, "the request took too long to come"))
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """Close when the request that has begun is answered; at once where there is none."""
        self._last = True
        if self._busy is None and not self._queue and self._coming is None and not self._heading:
            self.transport.close()


def bound(shared: Shared) -> Any:
    """Return the class of a server's connections."""
    return type("Connection", (Connection,), {"shared": shared})
