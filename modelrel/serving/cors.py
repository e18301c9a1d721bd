"""Web pages that may ask: cross-origin resource sharing, by the Fetch standard (fetch.spec.whatwg.org)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .answers import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TOKENS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
_METHODS: Final = "GET, HEAD, POST, DELETE"
_EXPOSED: Final = "content-encoding, inference-header-content-length, retry-after, x-request-id"
_KEPT_S: Final = "600"


class Cors:
    """The origins whose pages may ask and read."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Keep the origins, such as ``https://example.org``; ``*`` is any."""
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may ask."""
        return self._any or origin.lower() in self._origins

    def preflight(self, headers: Mapping[str, str]) -> Answer | None:
        """Answer a browser that asks whether a page may ask; None for what is no such question."""
        if "origin" not in headers or "access-control-request-method" not in headers:
            return None
        found = {"vary": "access-control-request-method, access-control-request-headers"}
        if self.allows(headers["origin"]):
            asked = headers.get("access-control-request-headers", "")
            found |= {"access-control-allow-methods": _METHODS, "access-control-max-age": _KEPT_S}
            if _TOKENS.fullmatch(asked):
                found["access-control-allow-headers"] = asked
        return Answer(204, found, b"")

    def dressed(self, headers: Mapping[str, str], answer: Answer) -> Answer:
        """Return the answer with what lets the page of an allowed origin read it."""
        added: dict[str, str] = {}
        if not self._any:
            known = answer.headers.get("vary")
            added["vary"] = f"{known}, origin" if known else "origin"
        origin = headers.get("origin")
        if origin is not None and self.allows(origin):
            added["access-control-allow-origin"] = "*" if self._any else origin
            added["access-control-expose-headers"] = _EXPOSED
        return answer._replace(headers={**answer.headers, **added}) if added else answer
