"""The server as a process: binds, loads, says that it is ready, serves, drains."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from typing import Final, NamedTuple

OK: Final = 0
BROKEN_MODEL: Final = 2
NO_PORT: Final = 3


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

    from .loop import run

    url = _url(settings.host, listener.getsockname()[1])
    ready = f"modelrel serving {model.name}/{model.version} on {url}"
    try:
        run(model, settings.max_body, listener, ready)
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
