"""The log on stderr: one line of JSON for each request, and of the same form for what went wrong.

A line is made where it happens and written by a thread, some at a time: a terminal or a pipe that nobody reads must
not hold up a request. Whatever a client sends stands inside a JSON string, so it can forge no line.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from .exchange import CURRENT
from .keys import OPEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange

STDERR: Final = 2
COLLECT_S: Final = 0.1
"""How long lines are collected before they are written together."""

MOST_LINES: Final = 10_000
"""More than these waiting means that nobody reads; what comes then is counted and forgotten."""

LONGEST: Final = 1024
"""Characters of a path that are shown."""

LONGEST_TRACE: Final = 4096
"""Characters of a stack trace that are shown: the last ones."""

_QUIET: Final = OPEN | {"/metrics"}

_HEALTH: Final = ("/ready", "/live")
_MILLISECONDS: Final = [f"{number:03}Z" for number in range(1000)]
_encode: Final = msgspec.json.Encoder().encode


class _Request(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    id: str
    method: str
    path: str
    status: int
    ms: float
    bytes_in: int
    bytes_out: int
    client: str = ""
    model: str = ""
    version: str = ""
    trace_id: str = ""
    span_id: str = ""


class _Event(msgspec.Struct, omit_defaults=True):
    time: str
    level: str
    message: str
    id: str = ""
    exception: str = ""
    trace_id: str = ""
    span_id: str = ""


class Lines:
    """Lines on their way to a file descriptor, by a thread. Safe from any thread; nothing here waits for the reader."""

    def __init__(self, descriptor: int = STDERR) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._awake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def add(self, line: bytes) -> None:
        """Have a line written, without its end."""
        if len(self._waiting) >= MOST_LINES:
            self.lost += 1
            return
        self._waiting.append(line)
        if not self._awake.is_set():
            self._wake()

    def close(self, timeout: float = 1.0) -> None:
        """Write what is left, unless nobody has read it after ``timeout`` seconds."""
        self._stop.set()
        with self._lock:
            thread, self._thread = self._thread, None
        self._awake.set()
        if thread is not None:
            thread.join(timeout)

    def _wake(self) -> None:
        self._awake.set()
        if self._thread is None:  # the first line, or the first one after a close
            with self._lock:
                if self._thread is None:
                    self._stop.clear()
                    self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
                    self._thread.start()

    def _write_on(self) -> None:
        while True:
            self._awake.wait()
            self._stop.wait(COLLECT_S)
            self._awake.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if lines:
                self._write(b"\n".join((*lines, b"")))
            elif self._stop.is_set():
                self._awake.clear()
                return
            if self._stop.is_set():
                self._awake.set()

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # a descriptor that somebody else has made non-blocking
                time.sleep(COLLECT_S)
            except OSError:  # the reader has gone; so has everybody who could be told
                self.lost += data.count(b"\n")
                return


class Clock:
    """Now as RFC 3339 in UTC; the seconds are written once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, now: int) -> str:
        """Return a time, nanoseconds since 1970, with milliseconds."""
        second, rest = divmod(now, 1_000_000_000)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._second = second
        return self._text + _MILLISECONDS[rest // 1_000_000]


class AccessLog:
    """Makes the line of a request. ``traced`` returns the trace and span of an exchange, "" where there are none."""

    def __init__(self, lines: Lines, traced: Callable[[Exchange], tuple[str, str]]) -> None:
        self._add = lines.add
        self._clock = Clock()
        self._traced = traced

    def write(self, exchange: Exchange, took: float) -> None:
        """Log a request that is over, but for a health check that is well; ``took`` is in seconds."""
        path = exchange.path
        status = exchange.status
        if status < 400 and (
            path in _QUIET or (path.endswith(_HEALTH) and (exchange.method == "GET" or exchange.protocol == "grpc"))
        ):
            return
        trace, span = self._traced(exchange)
        model = exchange.model
        self._add(
            _encode(
                _Request(
                    self._clock(time.time_ns()),
                    "info" if status < 500 else "error",
                    exchange.id,
                    exchange.method,
                    path if len(path) <= LONGEST else path[:LONGEST] + "…",
                    status,
                    int(took * 1e6) / 1e3,
                    exchange.received,
                    exchange.sent,
                    exchange.client,
                    "" if model is None else model.name,
                    "" if model is None else model.version,
                    trace,
                    span,
                )
            )
        )


class ErrorLines(logging.Handler):
    """Says what the server logs, its errors above all, as lines of JSON, with the id of the request it happened in."""

    def __init__(self, lines: Lines, traced: Callable[[Exchange], tuple[str, str]]) -> None:
        super().__init__()
        self.count = 0
        self._lines = lines
        self._traced = traced

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; the stack trace is a string in it, for whoever runs the server."""
        self.count += record.levelno >= logging.ERROR
        exchange = CURRENT.get()
        trace, span = ("", "") if exchange is None else self._traced(exchange)
        exception = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        line = _Event(
            Clock()(int(record.created * 1e9)),
            record.levelname.lower(),
            record.getMessage()[:LONGEST],
            "" if exchange is None else exchange.id,
            exception[-LONGEST_TRACE:],
            trace,
            span,
        )
        self._lines.add(_encode(line))
