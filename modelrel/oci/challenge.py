"""What a registry asks for: the `WWW-Authenticate` header, read as RFC 9110, section 11, has it."""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # the grammar's word
_PART: Final = re.compile(rf'\s*,?\s*(?:({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))|({_TOKEN}))')


def parse(text: str) -> dict[str, dict[str, str]]:
    """Return scheme (lower case) -> its parameters; {} for what is none.

    >>> parse('Bearer realm="https://a.example/token",service="b", Basic realm=c')
    {'bearer': {'realm': 'https://a.example/token', 'service': 'b'}, 'basic': {'realm': 'c'}}
    """
    found: dict[str, dict[str, str]] = {}
    scheme, at = "", 0
    while at < len(text) and (part := _PART.match(text, at)):
        key, quoted, plain, word = part.groups()
        if word is not None:
            scheme = word.lower()
            found.setdefault(scheme, {})
        elif scheme:
            found[scheme][key.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = part.end()
    return found
