"""The command line: ``python -m serving DIR`` serves, ``python -m serving healthcheck`` asks whether it does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PORT: Final = 8080
DEFAULT_MAX_BODY: Final = 64 * 1024 * 1024
PORT_VARIABLES: Final = ("PORT", "AIP_HTTP_PORT")
FOLDER_VARIABLE: Final = "MODELREL_MODEL_DIR"
HOST_VARIABLE: Final = "MODELREL_HOST"  # an image sets it, since platforms replace the command line


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    words = list(arguments)
    if words[:1] == ["healthcheck"]:
        return _healthcheck(words[1:])
    if words[:1] == ["serve"]:  # SageMaker starts a container with this word
        del words[0]
    return _serve(words)


def _healthcheck(words: list[str]) -> int:
    # Not argparse: importing it would double the time this takes.
    from .healthcheck import is_ready

    port: str | None = None
    if len(words) == 2 and words[0] == "--port":
        port = words[1]
    elif len(words) == 1 and words[0].startswith("--port="):
        port = words[0].partition("=")[2]
    elif words:
        print("usage: healthcheck [--port PORT]", file=sys.stderr)
        return 2
    try:
        return 0 if is_ready(_port(port)) else 1
    except ValueError as error:
        print(f"modelrel serving: {error}", file=sys.stderr)
        return 2


def _serve(words: list[str]) -> int:
    import argparse

    from .process import Settings, serve

    parser = argparse.ArgumentParser(
        prog="serving", description="Serve one released model over HTTP.", epilog="Also: healthcheck [--port PORT]"
    )
    parser.add_argument("folder", nargs="?", metavar="DIR", help=f"the model folder (default: ${FOLDER_VARIABLE})")
    host = os.environ.get(HOST_VARIABLE) or "127.0.0.1"
    parser.add_argument("--host", default=host, help=f"address to listen on (default: ${HOST_VARIABLE}, or 127.0.0.1)")
    parser.add_argument("--port", help=f"port, 0 for any (default: ${' or $'.join(PORT_VARIABLES)}, or {DEFAULT_PORT})")
    parser.add_argument(
        "--max-body", type=_count, default=DEFAULT_MAX_BODY, metavar="BYTES", help="largest request (default: 64 MiB)"
    )
    parser.add_argument("--threads", type=_count, metavar="N", help="threads that compute one request (default: 1)")
    options = parser.parse_args(words)
    folder = options.folder or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        parser.error(f"no model folder: name one, or set {FOLDER_VARIABLE}")
    try:
        port = _port(options.port)
    except ValueError as error:
        parser.error(str(error))
    return serve(Settings(folder, options.host, port, options.max_body, options.threads))


def _port(flag: str | None) -> int:
    """Return the port of the flag, else of the environment, else the default. Raises ``ValueError``."""
    source, text = "--port", flag
    if text is None:
        source = next((name for name in PORT_VARIABLES if os.environ.get(name)), "")
        text = os.environ.get(source) or str(DEFAULT_PORT)
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ValueError(f"{source} must be a port number, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
