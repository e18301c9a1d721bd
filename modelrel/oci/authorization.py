"""How a registry lets us in: Basic, or a token that its token endpoint gives for a scope.

Sources: distribution, docs/spec/auth/token.md and oauth.md. Credentials go to the registry itself and to the token
endpoint that it names, never over http where the registry is reached by https.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from modelrel.errors import Refused, Unavailable
from modelrel.oci import challenge, credentials
from modelrel.oci.names import Name

_EVERY: Final = "*"
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


Endpoint = Callable[[str, str, Mapping[str, str], bytes | None], tuple[int, bytes]]
"""Asks a token endpoint: method, address, headers, body -> status, body."""


class Authorization:
    """What is shown to one registry; safe to be used by several threads."""

    def __init__(self, name: Name, endpoint: Endpoint) -> None:
        """Know nobody yet: credentials are looked for when the registry asks for them."""
        self._name, self._endpoint = name, endpoint
        self._shown: dict[str, str] = {}
        self._lock = threading.RLock()
        self._found: credentials.Credentials | None = None

    @property
    def _known(self) -> credentials.Credentials:
        with self._lock:
            if self._found is None:
                self._found = credentials.find(self._name)
            return self._found

    def shown(self, scope: str) -> str:
        """Return the `Authorization` header for a scope, "" where none was asked for yet."""
        with self._lock:
            return self._shown.get(scope) or self._shown.get(_EVERY, "")

    def let_in(self, asked: str, scope: str, refused: str, origin: str) -> bool:
        """Get what a registry asks for (`WWW-Authenticate`) where `refused` did not do; False: there is nothing else.

        Raises `Unavailable` where there is no token to be had, `Refused` where credentials would leave https.
        """
        if self.shown(scope) != refused:
            return True  # another thread was faster
        offered = challenge.parse(asked)
        if "bearer" in offered:
            found = f"Bearer {self._token(offered['bearer'], scope, origin)}"
            with self._lock:
                self._shown[scope] = found
            return True
        if "basic" in offered and self._known.basic and not refused:
            with self._lock:
                self._shown[_EVERY] = self._known.basic
            return True
        return False

    def refusal(self, status: int) -> Unavailable:
        """Return the error for a registry that does not let us in."""
        host, known = self._name.host, self._known
        if not (known.basic or known.identity):
            return Unavailable(
                f"the registry {host} lets nobody in without credentials ({status}), and none are known here",
                f"Log in: docker login {host}, or podman login {host}.",
            )
        return Unavailable(
            f"the registry {host} does not take the credentials that are known here ({status})",
            f"Log in again: docker login {host}, or podman login {host}.",
        )

    def _token(self, offered: Mapping[str, str], scope: str, origin: str) -> str:
        known, realm, host = self._known, offered.get("realm", ""), self._name.host
        at = _host(realm)
        if not at:
            raise Refused(f"the registry {host} names no address to get a token from", "Ask who runs it.")
        secret = known.basic or known.identity
        if secret and realm.startswith("http:") and origin.startswith("https:"):
            raise Refused(
                f"the registry {host} wants credentials sent over http to {at}",
                "Anybody on the way could read them; ask who runs the registry.",
            )
        query = [("service", offered.get("service", "")), *(("scope", one) for one in scope.split(" "))]
        if known.identity:
            form = [("grant_type", "refresh_token"), ("refresh_token", known.identity), ("client_id", "modelrel")]
            body = urlencode([*form, query[0], ("scope", scope)]).encode()
            status, content = self._endpoint("POST", realm, _FORM, body)
        else:
            headers = {"Authorization": known.basic} if known.basic else {}
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode([pair for pair in query if pair[1]])}"
            status, content = self._endpoint("GET", url, headers, None)
        if status in (401, 403):
            raise self.refusal(status)
        token = _read(content) if status == 200 else ""
        if not token:
            raise Unavailable(
                f"the token endpoint {at} of the registry {host} answered with {status} and no token",
                "Try again later, or ask who runs it.",
            )
        return token


def _read(content: bytes) -> str:
    """Return the token in an answer; "" where there is none that a header can carry."""
    try:
        found: Any = json.loads(content)
        token = found.get("token") or found.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        return ""
    fine = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    return token if fine else ""


def _host(url: str) -> str:
    """Return the host of an http(s) address, "" where it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
