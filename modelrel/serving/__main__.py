"""The command line: ``python -m serving DIR`` serves, ``python -m serving healthcheck`` asks whether it does."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT_VARIABLES: Final = ("PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "MODELREL_PORT")


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
    from .options import read
    from .process import serve

    if any(word == "--api-key" or word.startswith("--api-key=") for word in words):
        hint = "give it by MODELREL_API_KEY or --api-key-file"
        print(
            f"modelrel serving: every user of this machine can see the key on the command line; {hint}", file=sys.stderr
        )
    return serve(read(words))


def _port(flag: str | None) -> int:
    """Return the port of the flag, else of the environment, else the default. Raises ``ValueError``."""
    # As options.read, without argparse.
    source, text = "--port", flag
    if text is None:
        source = next((name for name in PORT_VARIABLES if os.environ.get(name)), "")
        text = os.environ.get(source) or "8080"
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ValueError(f"{source} must be a port number, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
