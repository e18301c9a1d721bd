"""Parts of images, named by the digest of their bytes, and the places that keep them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Protocol

from modelrel.errors import Invalid

_NONE: Final = "{!r} does not describe a part of an image"
_DAMAGED: Final = "It is damaged, or no image."
# OCI image-spec, descriptor.md; sha512 and others are registered, and used by nobody
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What names a part: media type, digest (`sha256:...`), bytes; of manifests in an index, the platform.

    Source: OCI image-spec, descriptor.md.
    """

    media_type: str
    digest: str
    size: int
    platform: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON data; what is empty is left out."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if self.platform:
            system, _, machine = self.platform.partition("/")
            found["platform"] = {"architecture": machine, "os": system}
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found

    @classmethod
    def of(cls, content: bytes, media_type: str, **others: Any) -> Descriptor:
        """Return the descriptor of some bytes."""
        return cls(media_type=media_type, digest=digest(content), size=len(content), **others)

    @classmethod
    def read(cls, plain: Any) -> Descriptor:
        """Return a descriptor from its JSON form; raises `Invalid` where it is none."""
        try:
            platform = plain.get("platform") or {}
            found = cls(
                media_type=str(plain.get("mediaType", "")),
                digest=str(plain["digest"]),
                size=plain["size"],
                platform=f"{platform['os']}/{platform['architecture']}" if platform else "",
                artifact_type=str(plain.get("artifactType", "")),
                annotations={str(key): str(value) for key, value in (plain.get("annotations") or {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise Invalid(_NONE.format(str(plain)[:120]), _DAMAGED) from error
        if not _DIGEST.fullmatch(found.digest) or type(found.size) is not int or found.size < 0:
            raise Invalid(_NONE.format(str(plain)[:120]), _DAMAGED)
        return found


class Store(Protocol):
    """A place that keeps parts: a folder (OCI layout), a tar, a registry."""

    def open(self, part: Descriptor) -> BinaryIO:
        """Return the bytes of a part as a stream. Raises `Unavailable` where it is not there.

        Who reads it to its end has `Refused` raised where the bytes do not have the digest.
        """


def digest(content: bytes) -> str:
    """Return the digest of some bytes: `sha256:...`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical(value: Any) -> bytes:
    """Return JSON whose bytes depend on the value alone: keys sorted, no spaces, UTF-8 (as RFC 8785 for our types)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
