"""The port of gRPC, taken before the models are loaded and before gRPC itself is."""

from __future__ import annotations

import errno
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .door import NoPort
from .options import Unusable

if TYPE_CHECKING:
    from .options import Settings


def reserve(settings: Settings) -> socket.socket:
    """Take the port that the settings name, and let them name the one that was taken if they left it open (0).

    The socket has to be kept until the server ends; nobody listens on it. gRPC binds its own beside it: it cannot be
    given one, and the processes of a server with several workers need one each. Raises ``Unusable`` where gRPC is not
    installed, ``NoPort`` where the port cannot be had.
    """
    if find_spec("grpc") is None or find_spec("google") is None or find_spec("google.protobuf") is None:
        raise Unusable("--grpc-port needs grpcio and protobuf: pip install 'modelrel[grpc]'")
    try:
        # Alone first: a port that somebody shares with everybody is not free.
        alone = _bound(settings, shared=False)
        settings.grpc_port = alone.getsockname()[1]
        alone.close()
        return _bound(settings, shared=True)
    except OSError as error:
        port = f"the gRPC port {settings.grpc_port} of {settings.host}"
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        raise NoPort(f"{port} {why}") from error


def address(settings: Settings) -> str:
    """Return host and port as gRPC writes them."""
    return (
        f"[{settings.host}]:{settings.grpc_port}" if ":" in settings.host else f"{settings.host}:{settings.grpc_port}"
    )


def _bound(settings: Settings, *, shared: bool) -> socket.socket:
    assert settings.grpc_port is not None
    family, kind, protocol, _, where = socket.getaddrinfo(
        settings.host, settings.grpc_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(where)
    except OSError:
        made.close()
        raise
    return made
