"""A repository in a registry of images: what is there, and its parts as streams whose bytes are checked.

>>> with Registry.connect(names.parse("registry.example/python:3.13-slim")) as base:  # doctest: +SKIP
...     manifest = base.open(base.index).read()   # of the tag or digest in the name

Which error means what is a table in `connection`.
"""

from __future__ import annotations

import io
import json
import time
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from modelrel.errors import Refused, Unavailable
from modelrel.oci import media, names
from modelrel.oci.connection import Ask, Connection, Wait
from modelrel.oci.content import Descriptor
from modelrel.oci.download import Blob

_ACCEPT: Final = ", ".join((*sorted(media.INDEXES), *sorted(media.MANIFESTS)))
_DOCUMENTS: Final = media.INDEXES | media.MANIFESTS


class Registry:
    """One repository, as a `content.Store`; use it as a context manager."""

    def __init__(self, connection: Connection, name: names.Name, *, write: bool = False) -> None:
        """Look at the repository of `name` over a connection; `write` asks for the right to push, too."""
        self.connection, self.name = connection, name
        self.scope = f"repository:{name.path}:pull{',push' if write else ''}"

    @classmethod
    def connect(cls, name: names.Name, *, write: bool = False, wait: Wait = time.sleep) -> Self:
        """Connect to the registry of a name. Nothing is asked yet; see `connection` for what is raised when it is."""
        return cls(Connection(name, wait), name, write=write)

    def __enter__(self) -> Self:
        """Return the repository."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.connection.close()

    @property
    def index(self) -> Descriptor:
        """What the name stands for now: its index, or its manifest; raises `Unavailable` where it is not there."""
        found = self.resolve(self.name.reference)
        if found is None:
            raise Unavailable(f"the registry {self.name.host} does not have {self.name}", "Is the name right?")
        return found

    def resolve(self, reference: str) -> Descriptor | None:
        """Return what a tag or a digest stands for, None where it is not there; its bytes have been read."""
        found = self.manifest(reference)
        return found[0] if found else None

    def manifest(self, reference: str) -> tuple[Descriptor, bytes] | None:
        """Return index or manifest with its bytes, by tag or digest; None where it is not there."""
        url = self.connection.url(f"manifests/{reference}")
        asked = Ask(method="GET", url=url, scope=self.scope, headers={"Accept": _ACCEPT}, expect=(200, 404))
        answer, content = self.connection.document(asked)
        if answer.status_code == 404:
            return None
        plain = _parsed(content, self.name)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        stated = plain.get("mediaType", kind)
        if kind not in _DOCUMENTS or stated != kind:
            # a type that contradicts the document is an old way to have it read as something else (CVE-2021-41190)
            raise Refused(
                f"the registry {self.name.host} gives {self.name.path} as {kind[:80] or 'nothing'}, "
                f"the document says {str(stated)[:80]}",
                "It is no image, or one of a kind (schema 1) that nobody makes any more.",
            )
        part = Descriptor.of(content, kind, artifact_type=str(plain.get("artifactType", "")))
        if reference.startswith("sha256:") and part.digest != reference:
            raise wrong(self.name, reference, part.digest)
        return part, content

    def open(self, part: Descriptor) -> BinaryIO:
        """Return the bytes of a part as a stream; see `content.Store`. A cut connection is taken up again."""
        if part.media_type not in _DOCUMENTS:
            return io.BufferedReader(Blob(self.connection, self.scope, part), 1 << 16)
        found = self.manifest(part.digest)
        if found is None:
            raise Unavailable(f"the registry {self.name.host} does not have {part.digest}", "Was it deleted meanwhile?")
        return io.BytesIO(found[1])

    def has(self, part: Descriptor, repository: str = "") -> bool:
        """Return whether a blob is in this repository, or in another one of the same registry."""
        url = self.connection.url(f"blobs/{part.digest}", repository)
        scope = f"repository:{repository}:pull" if repository else self.scope
        asked = Ask(method="HEAD", url=url, scope=scope, expect=(200, 404))
        answer = self.connection.ask(asked)
        answer.close()
        return answer.status_code == 200


def _parsed(content: bytes, name: names.Name) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"what {name} stands for is no JSON document", "Is it a registry of images?")
    return found


def wrong(name: names.Name, asked: str, got: str) -> Refused:
    """Return the error for bytes that do not have their digest."""
    return Refused(
        f"the registry {name.host} gave other bytes than asked for: {got}, not {asked}",
        "It is damaged, or somebody changed it; ask who runs it.",
    )
