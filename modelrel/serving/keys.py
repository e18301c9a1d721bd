"""Who may ask: keys that clients send, and pages of other sites that may not."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .options import Settings

OPEN: Final = frozenset(
    {"/ping", "/health", "/v2/health/live", "/v2/health/ready", os.environ.get("AIP_HEALTH_ROUTE", "/ping")}
    | {"grpc:/v2/health/live", "grpc:/v2/health/ready"}
)
"""Paths that need no key: those who ask whether a server is up, load balancers and containers, have none."""

CHALLENGE: Final = {"www-authenticate": 'Bearer realm="modelrel"'}


class BadKeys(Exception):
    """There are no keys to be had where they should be; the message is one sentence."""


class Keys:
    """The keys of a server. What is kept, and compared in a time that says nothing, are digests of them."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys. Raises ``BadKeys`` for a file that cannot be read, is no text or holds none."""
        self._settings = settings
        self._salt = os.urandom(32)
        self._digests: tuple[bytes, ...] = ()
        self.reload()

    def reload(self) -> None:
        """Read the keys again; raises ``BadKeys`` and then keeps what it had."""
        given = [self._settings.api_key] if self._settings.api_key is not None else []
        path = self._settings.api_key_file
        if path is not None:
            given += _lines(path)
        if not all(given):
            raise BadKeys("the API key is empty")
        self._digests = tuple(self._digest(key.encode()) for key in given)

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Whether the headers (lower-case names) of a request, HTTP's or gRPC's, bring one of the keys.

        It comes as ``Authorization: Bearer KEY`` or as ``X-Api-Key: KEY``.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest = self._digest(sent.encode("latin-1", "replace"))
        found = False
        for known in self._digests:  # all of them, always
            found |= hmac.compare_digest(digest, known)
        return found

    def _digest(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._salt).digest()


def load_keys(settings: Settings) -> Keys | None:
    """Return the keys of a server, or None where everybody may ask. Raises ``BadKeys``."""
    return Keys(settings) if settings.api_key is not None or settings.api_key_file is not None else None


def _lines(path: str) -> Iterable[str]:
    try:
        text = Path(path).read_text("utf-8")
    except OSError as error:
        raise BadKeys(f"the file of API keys {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadKeys(f"the file of API keys {path} is not text") from error
    keys = [line.strip() for line in text.splitlines()]
    found = [key for key in keys if key and not key.startswith("#")]
    if not found:
        raise BadKeys(f"the file of API keys {path} holds none")
    return found
