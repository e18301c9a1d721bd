"""Folders of wheels, and a package index of our own on this machine that serves one to who knows the password."""

from __future__ import annotations

import base64
import hashlib
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name, parse_wheel_filename

from modelrel import extras, wheelhouse
from tests.targets import tiny

USER, PASSWORD = "r3ader-of-wheels", "hush-5ecret"


def filled(folder: Path, wanted: tuple[str, ...], python: str = "3.13") -> Path:
    """Fill a folder by the very command that modelrel prints where one is empty."""
    folder.mkdir()
    with wheelhouse.only(folder):
        command = shlex.split(wheelhouse.filling(wanted, python, "linux/amd64"))
    assert command[:2] == ["pip", "download"]
    subprocess.run([sys.executable, "-m", *command, "--quiet", "--disable-pip-version-check"], check=True)
    return folder


@cache
def of_a_function() -> Path:
    """Return a folder with all that a Lambda function of an ONNX model takes (made once per run)."""
    pins = tuple(f"{name}=={extras.version(name)}" for name in ("onnxruntime", "numpy"))
    return filled(tiny.place() / "wheelhouse", (*pins, "msgspec"))


@contextmanager
def private_index(house: Path) -> Iterator[str]:
    """Serve a folder by the simple repository API (PEP 503), with basic authentication; give its host and port."""
    wants = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wants:
                return self._answer(401, b"", "text/plain")
            top, _, name = self.path.strip("/").partition("/")
            if top == "files":
                return self._answer(200, (house / Path(name).name).read_bytes(), "application/octet-stream")
            links = "".join(
                f'<a href="/files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
                for path in house.glob("*.whl")
                if parse_wheel_filename(path.name)[0] == canonicalize_name(name)
            )
            return self._answer(200 if links else 404, links.encode(), "text/html")

        do_HEAD = do_GET

        def _answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("WWW-Authenticate", 'Basic realm="wheels"')
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
