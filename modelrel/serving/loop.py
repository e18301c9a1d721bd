"""uvicorn as this server runs it: JSON for what is not HTTP, a line when it listens, a drain at a stop signal."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .app import application

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .model import Model

DRAIN_S: Final = 25
"""How long running requests may take after a stop signal; SageMaker kills 30 seconds after it."""

KEEP_ALIVE_S: Final = 75
"""How long an idle connection is kept: longer than the 60 seconds of common load balancers, which must close first."""


class Protocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """uvicorn's, but with JSON for what is not even HTTP."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn passes it by name)
        """Answer with an error like any other, and close."""
        body = b'{"error":"the request is not valid HTTP"}'
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body))
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's, but it tells when it listens, and a stop signal is a good end."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        """Keep the line to print when it listens."""
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and say so on stderr."""
        await super().startup(sockets)
        print(self._ready, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain at a stop signal; uvicorn would raise it again afterwards."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield


def run(model: Model, max_body: int, listener: socket.socket, ready: str) -> None:
    """Serve on a bound socket until a stop signal; raises OSError where somebody else took the port meanwhile."""
    config = uvicorn.Config(
        application(model, max_body),
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
    Server(config, ready).run([listener])
