"""``python -m serving healthcheck``: is the server on this machine ready? Made for a container's health check.

It imports a socket and nothing else, because it starts every few seconds for as long as the container lives.
"""

from __future__ import annotations

import os
import socket
from typing import Final

TIMEOUT_S: Final = 5.0


def is_ready(port: int, host: str = "127.0.0.1") -> bool:
    """Ask ``GET /v2/health/ready``; anything but 200 within five seconds is a no.

    Where ``MODELREL_TLS_CERT`` is set it asks by TLS, and takes any certificate: it asks this machine, by address.
    """
    request = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with _wrapped(socket.create_connection((host, port), TIMEOUT_S)) as connection:
            connection.sendall(request)
            start = b""
            while len(start) < len(b"HTTP/1.1 200") and (chunk := connection.recv(64)):
                start += chunk
    except OSError:
        return False
    return start.startswith(b"HTTP/1.1 200")


def _wrapped(connection: socket.socket) -> socket.socket:
    if not os.environ.get("MODELREL_TLS_CERT"):
        return connection
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)
