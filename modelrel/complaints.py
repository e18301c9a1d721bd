"""What uv complains about, in one line that a person reads."""

from __future__ import annotations

import re
from typing import Final

from modelrel.errors import redacted

_SILENCE: Final = (
    "error sending request",
    "dns error",
    "failed to fetch",
    "connection refused",
    "timed out",
    "connect error",
    "client error (connect)",
    "network connectivity is disabled",
    "network was disabled",
)


def unanswered(stderr: str) -> bool:
    """Whether uv complained about an index that does not answer."""
    return any(sign in stderr.lower() for sign in _SILENCE)


def essential(stderr: str) -> str:
    """Return what uv complained about as one line: without warnings, hints and frames, 240 characters at most."""
    told: list[str] = []
    for line in stderr.splitlines():
        plain = line.strip(" ×╰─▶│├")
        if plain.startswith("hint:"):
            break
        if plain and not plain.startswith("warning:"):
            told.append(plain)
    text = re.sub(r"\s+", " ", " ".join(told))
    # of a chain of causes the first says where, the last says why
    first, *causes = re.split(r" ?(?:cause|Caused by): ", text.removeprefix("error: "))
    text = f"{first}: {causes[-1]}" if causes else first
    text = redacted(text.rstrip("."))
    return text if len(text) <= 240 else f"{text[:237]}..."
