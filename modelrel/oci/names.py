"""What an image is called: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from modelrel.errors import Invalid

# grammar: distribution, reference/regexp.go
_PATH: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_NAME: Final = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PATH}(?:/{_PATH})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_HUB: Final = "docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """An image's name with everything said: `docker.io/library/python:3.13-slim` for `python:3.13-slim`.

    Without tag and digest the tag is `latest`. A tag beside a digest is told to people; the digest decides.
    """

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Host and path."""
        return f"{self.host}/{self.path}"

    @property
    def reference(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        """Return it whole."""
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Name:
    """Return the name that `text` is short for; raises `Invalid` where it is none.

    >>> str(parse("python:3.13-slim")), str(parse("localhost:5000/churn"))
    ('docker.io/library/python:3.13-slim', 'localhost:5000/churn:latest')
    """
    found = _NAME.fullmatch(text)
    if not found or len(text) > 512:
        raise Invalid(f"{text[:120]!r} is not the name of an image", "Write it as registry.example/churn:7.")
    host, path = found["host"] or "", found["path"]
    if host and not ("." in host or ":" in host or host == "localhost" or host != host.lower()):
        host, path = "", f"{host}/{path}"  # Docker's rule: without dot or port it is the first part of the path
    if not host:
        host, path = _HUB, path if "/" in path else f"library/{path}"
    tag = found["tag"] or ("" if found["digest"] else "latest")
    return Name(host=host, path=path, tag=tag, digest=found["digest"] or "")
