"""``python -m serving healthcheck``: is the server on this machine ready? Made for a container's health check.

It imports a socket and nothing else, because it starts every few seconds for as long as the container lives.
"""

from __future__ import annotations

import socket
from typing import Final

TIMEOUT_S: Final = 5.0


def is_ready(port: int, host: str = "127.0.0.1") -> bool:
    """Ask ``GET /v2/health/ready``; anything but 200 within five seconds is a no."""
    request = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.sendall(request)
            start = b""
            while len(start) < len(b"HTTP/1.1 200") and (chunk := connection.recv(64)):
                start += chunk
    except OSError:
        return False
    return start.startswith(b"HTTP/1.1 200")
