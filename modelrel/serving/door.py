"""How clients come in: the bound socket, the keys they need, the certificate they are shown."""

from __future__ import annotations

import errno
import socket
import sys
from typing import TYPE_CHECKING

from .keys import BadKeys, load_keys

if TYPE_CHECKING:
    import ssl

    from .keys import Keys
    from .options import Settings


class NoPort(Exception):
    """The port cannot be had; the message is one sentence."""


class BadSettings(Exception):
    """What the settings name cannot be used; the message is one sentence."""


class Door:
    """A bound socket that nobody listens on yet, and what is checked of those who come."""

    def __init__(self, settings: Settings) -> None:
        """Take the port, and read keys and certificate. Raises ``NoPort`` and ``BadSettings``."""
        self.settings = settings
        self.keys: Keys | None
        self.context: ssl.SSLContext | None = None
        try:
            self.keys = load_keys(settings)
        except BadKeys as error:
            raise BadSettings(str(error)) from error
        if settings.tls_cert is not None or settings.tls_key is not None:
            from . import tls

            try:
                self.context = tls.context(settings)
            except tls.BadCertificate as error:
                raise BadSettings(str(error)) from error
        try:
            self.listener = _bound(settings.host, settings.port)
        except OSError as error:
            raise self.taken(error) from error

    @property
    def url(self) -> str:
        """Where clients find the server."""
        host = self.settings.host
        scheme = "http" if self.context is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.listener.getsockname()[1]}"

    @property
    def reloads(self) -> bool:
        """Whether there are files to read again."""
        return self.context is not None or self.settings.api_key_file is not None

    def reload(self) -> None:
        """Read keys and certificate again; what cannot be read stays as it was, and stderr says why."""
        from . import tls

        try:
            if self.keys is not None:
                self.keys.reload()
            if self.context is not None:
                tls.load_certificate(self.context, self.settings)
        except (BadKeys, tls.BadCertificate) as error:
            print(f"modelrel serving: {error}; the one before stays", file=sys.stderr, flush=True)

    def taken(self, error: OSError) -> NoPort:
        """Say why the port cannot be had."""
        host, port = self.settings.host, self.settings.port
        if error.errno == errno.EADDRINUSE:
            return NoPort(f"port {port} of {host} is in use")
        return NoPort(f"port {port} of {host} cannot be had: {error.strerror}")


def _bound(host: str, port: int) -> socket.socket:
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
