"""The server as a process: binds, loads, says that it is ready, serves, drains."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

OK: Final = 0
BROKEN_MODEL: Final = 2
NO_PORT: Final = 3

DRAIN_S: Final = 25
"""How long running requests may take after a stop signal; SageMaker kills 30 seconds after it."""

KEEP_ALIVE_S: Final = 75
"""How long an idle connection is kept: longer than the 60 seconds of common load balancers, which must close first."""


class Settings(NamedTuple):
    """What the command line decides. ``max_body`` is in bytes; ``threads`` compute one request (None: the default)."""

    folder: str
    host: str
    port: int
    max_body: int
    threads: int | None


def serve(settings: Settings) -> int:
    """Serve a model folder until a stop signal, and return the exit code of the process.

    0 after a drained stop, 2 for a folder that cannot be served, 3 for a port that cannot be had.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # Before the server is up there is nothing to drain. Process 1 of a container ignores what it does not handle;
        # and an exception would not do, because it may strike in the import of an extension, which makes another of it.
        signal.signal(number, lambda *_: os._exit(OK))
    try:
        listener = _bind(settings.host, settings.port)
    except OSError as error:
        return _fail(NO_PORT, _bind_message(settings, error))
    from .model import BrokenModel, load_model

    try:
        model = load_model(settings.folder, settings.threads)
    except BrokenModel as error:
        return _fail(BROKEN_MODEL, str(error))

    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    from .app import application

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
        """uvicorn's, but with JSON for what is not even HTTP."""

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn passes it by name)
            body = b'{"error":"the request is not valid HTTP"}'
            head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body))
            self.transport.close()

    class Server(uvicorn.Server):
        """uvicorn's, but it tells when it listens, and a stop signal is a good end."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            url = _url(settings.host, listener.getsockname()[1])
            print(f"modelrel serving {model.name}/{model.version} on {url}", file=sys.stderr, flush=True)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.handle_exit)
            yield

    config = uvicorn.Config(
        application(model, settings.max_body),
        http=Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        backlog=2048,
    )
    try:
        Server(config).run([listener])
    except OSError as error:  # bound before the model was loaded, but someone else listened first
        return _fail(NO_PORT, _bind_message(settings, error))
    return OK


def _bind(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, so that a taken one is known at once."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _bind_message(settings: Settings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} of {settings.host} is in use"
    return f"port {settings.port} of {settings.host} cannot be had: {error.strerror}"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _fail(code: int, message: str) -> int:
    print(f"modelrel serving: {message}", file=sys.stderr)
    return code
