"""A small Lambda Runtime API: what AWS's own runtime client (`awslambdaric`) talks to, so that it runs here unchanged.

Sources: AWS, "Using the Lambda runtime API" (2018-06-01), "Lambda SnapStart runtime hooks", "Lambda quotas".
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple

from modelrel.errors import Refused

TIMEOUT_S: Final = 60.0
LIMIT: Final = 6 * 1024 * 1024
"""Bytes of an event, and of a result, that Lambda passes on."""

_BASE: Final = "/2018-06-01/runtime"
_ARN: Final = "arn:aws:lambda:us-east-1:123456789012:function:model"
_POLL_S: Final = 0.25
_TOO_LARGE: Final = json.dumps(
    {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": f"the result has more than {LIMIT} bytes"}
).encode()


class Result(NamedTuple):
    """What a function gave for one event: its return value, or the error it raised, as JSON."""

    ok: bool
    payload: bytes


class RuntimeApi:
    """Events in, results out, through one runtime client."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        """Answer on a server that is bound already; `runtime_api` gives one."""
        host, port = server.server_address[:2]
        self.address = f"{host!s}:{port}"
        self.failed_start = ""
        self.events: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.results: dict[str, queue.Queue[Result]] = {}
        self.closed = threading.Event()
        self.restored = threading.Event()

    def invoke(self, event: bytes, exit_code: Callable[[], int | None]) -> Result:
        """Hand an event to the function; return its result.

        `exit_code` tells that of the runtime client (None while it runs). Raises ConnectionError where it has ended
        or could not start the function, `Refused` where there is no result after `TIMEOUT_S`.
        """
        number = str(uuid.uuid4())
        answer: queue.Queue[Result] = queue.Queue()
        self.results[number] = answer
        self.events.put((number, event))
        end = time.monotonic() + TIMEOUT_S
        try:
            while time.monotonic() < end:
                try:
                    return answer.get(timeout=_POLL_S)
                except queue.Empty:
                    code = exit_code()
                    if self.closed.is_set() or code is not None:
                        raise ConnectionError(self.failed_start or f"exit code {code}") from None
        finally:
            del self.results[number]
        raise Refused(f"the function gave no answer within {TIMEOUT_S:g} s")

    def close(self, reason: str = "") -> None:
        """Let everybody go who waits."""
        self.failed_start = self.failed_start or reason
        self.closed.set()


@contextmanager
def runtime_api() -> Iterator[RuntimeApi]:
    """Give a Runtime API on a free port of 127.0.0.1 while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exchange)
    server.daemon_threads = True
    api = RuntimeApi(server)
    server.RequestHandlerClass = type("_Bound", (_Exchange,), {"api": api})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.close()
        server.shutdown()
        server.server_close()


class _Exchange(BaseHTTPRequestHandler):
    """One request of the runtime client."""

    api: RuntimeApi
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body leave together; apart, they would wait 40 ms for an acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the base class's
        """Keep quiet: the standard library would write to our stderr."""

    def handle(self) -> None:
        """Take requests until the runtime client goes; being ended, it does not say goodbye."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Give the next event, as soon as there is one; a snapshot is restored as soon as it could be taken."""
        if self.path == f"{_BASE}/restore/next":
            self.api.restored.set()
            self._reply(200, b"", {})
            return
        if self.path != f"{_BASE}/invocation/next":
            self._reply(404, b"{}", {})
            return
        while not self.api.closed.is_set():
            try:
                number, event = self.api.events.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            self._reply(200, event, _headers(number))
            return
        self.close_connection = True

    def do_POST(self) -> None:
        """Take a result, or the reason why the function could not start."""
        body = self._body()
        parts = self.path.removeprefix(f"{_BASE}/").split("/")
        if parts in (["init", "error"], ["restore", "error"]):
            self.api.close(_told(body))
        elif len(parts) == 3 and parts[0] == "invocation" and parts[2] in ("response", "error"):
            waiting = self.api.results.get(parts[1])
            fits = len(body) <= LIMIT
            if waiting is not None:
                waiting.put(Result(parts[2] == "response", body) if fits else Result(False, _TOO_LARGE))
            if not fits:
                self._reply(413, _TOO_LARGE, {})
                return
        else:
            self._reply(404, b"{}", {})
            return
        self._reply(202, b'{"status":"OK"}', {})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _headers(number: str) -> dict[str, str]:
    return {
        "Lambda-Runtime-Aws-Request-Id": number,
        "Lambda-Runtime-Deadline-Ms": str(int((time.time() + TIMEOUT_S) * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": _ARN,
        "Lambda-Runtime-Trace-Id": "Root=1-5e1b4151-43a0913a12345678901234567;Sampled=0",
    }


def _told(body: bytes) -> str:
    try:
        return str(json.loads(body).get("errorMessage", ""))
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace")
