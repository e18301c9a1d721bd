"""A manifest that says something about an image or an artifact, as registries list it beside that.

Source: OCI image-spec 1.1, manifest.md ("Guidelines for Artifact Usage", `subject`).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import BinaryIO

from modelrel.oci import media
from modelrel.oci.content import Descriptor, Store, canonical


def referrer(
    content: bytes, kind: str, subject: Descriptor, annotations: Mapping[str, str], called: Mapping[str, str]
) -> tuple[Descriptor, dict[str, bytes]]:
    """Return a manifest about `subject`, and the bytes of its parts by digest; `content`, of a type, is its only layer.

    `annotations` stand in the manifest, `called` at the layer.
    """
    nothing = b"{}"
    empty = Descriptor.of(nothing, media.OCI_EMPTY)
    layer = Descriptor.of(content, kind, annotations=called)
    manifest = canonical({
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": kind,
        "config": empty.plain(),
        "layers": [layer.plain()],
        "subject": Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size).plain(),
        "annotations": dict(annotations),
    })  # fmt: skip
    part = Descriptor.of(manifest, media.OCI_MANIFEST, artifact_type=kind)
    return part, {layer.digest: content, part.digest: manifest, empty.digest: nothing}


class Beside:
    """A store that has some parts in memory, and the others from another store."""

    def __init__(self, contents: Mapping[str, bytes], store: Store) -> None:
        """Take parts by their digests."""
        self._contents, self._store = contents, store

    def open(self, part: Descriptor) -> BinaryIO:
        """Return the bytes of a part as a stream."""
        found = self._contents.get(part.digest)
        return self._store.open(part) if found is None else io.BytesIO(found)
