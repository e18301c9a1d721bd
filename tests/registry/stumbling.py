"""A proxy in front of a real server that lets it stumble: the requests that a test chooses fail, in the way it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MODES = ("dropped before", "dropped after", "500 before", "500 after", "truncated")
"""Ways to fail: before the request is passed on, or after it was carried out, and an answer that ends half-way."""


@dataclass
class Proxy:
    """`fails` gets the number of a request (from 1), its method and path, and returns a mode, or "" to pass it on."""

    upstream: str
    uri: str = ""
    fails: Callable[[int, str, str], str] = lambda *_: ""
    headers: dict[str, str] = field(default_factory=dict)
    demanded: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, fails: Callable[[int, str, str], str] = lambda *_: "") -> None:
        """Count from 1 again."""
        with self._lock:
            self.seen, self.fails = [], fails

    def number(self, method: str, path: str) -> tuple[int, str]:
        """Return the number of a request, and how it fails."""
        with self._lock:
            self.seen.append((method, path))
            return len(self.seen), self.fails(len(self.seen), method, path)


def passed_on(proxy: Proxy, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
    """Return status, headers and body of what the real server answers."""
    connection = HTTPConnection(urlsplit(proxy.upstream).netloc, timeout=60)
    try:
        connection.request(method, path, body or None, {**headers, "Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    finally:
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.proxy.demanded and self.headers.get("Authorization") != self.proxy.demanded:
            self._answer(401, [], b"who are you?")
            return
        _, mode = self.proxy.number(self.command, self.path)
        if mode == "dropped before":
            self._drop()
        elif mode[:3].isdigit() and mode.endswith(" before"):
            self._answer(int(mode[:3]), [], b"trouble")
        elif mode.startswith("slow"):
            time.sleep(float(mode.removeprefix("slow")))
            self._drop()
        else:
            headers = {**dict(self.headers.items()), **self.proxy.headers}
            status, told, content = passed_on(self.proxy, self.command, self.path, headers, body)
            if mode == "dropped after":
                self._drop()
            elif mode == "500 after":
                self._answer(500, [], b"trouble")
            else:
                sent = content[: len(content) // 2] if mode == "truncated" else content
                self._answer(status, told, sent, len(content))

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _any

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, size: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "connection", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stumbling(upstream: str, port: int = 0, **options: Any) -> Iterator[Proxy]:
    """Run a proxy in front of `upstream`; its address is `.uri`."""
    proxy = Proxy(upstream, **options)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True).start()
        proxy.uri = f"http://127.0.0.1:{server.server_port}"
        try:
            yield proxy
        finally:
            server.shutdown()
