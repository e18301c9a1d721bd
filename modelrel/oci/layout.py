"""An image in one tar that `docker load`, skopeo and every reader of OCI layouts take.

Both forms name the same blobs: `index.json` with `oci-layout` (OCI image-spec, image-layout.md), and `manifest.json`
(what `docker save` writes since version 25). `read` reads both.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from modelrel import archive
from modelrel.oci import media
from modelrel.oci.content import Descriptor, canonical
from modelrel.oci.tars import Place, Stretch, head

REF: Final = "org.opencontainers.image.ref.name"
CONTAINERD: Final = "io.containerd.image.name"

Contents = Mapping[str, bytes | Place]
"""Digest -> what has it: bytes, or where they are."""


def write(
    path: Path,
    top: Descriptor,
    contents: Contents,
    loads: Sequence[Mapping[str, Any]] = (),
    beside: Sequence[Descriptor] = (),
) -> None:
    """Write an image, or another artifact, as a tar whose bytes depend on that alone.

    `top` is its manifest or index, `loads` what `manifest.json` says to `docker load`; `beside` are manifests that are
    about it. Raises `Unavailable` where the disk is full.
    """
    listed = [one.plain() for one in (top, *beside)]
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}
    documents: dict[str, bytes | Place] = {
        "oci-layout": canonical({"imageLayoutVersion": "1.0.0"}),
        "index.json": canonical(index),
    }
    if loads:
        documents["manifest.json"] = canonical(loads)
    with archive.translated(path), path.open("wb") as stream:
        for name, content in documents.items():
            _entry(stream, name, content)
        for folder in ("blobs", "blobs/sha256"):
            stream.write(head(folder, folder=True))
        for found in sorted(contents):
            _entry(stream, blob_name(found), contents[found])
        stream.write(b"\0" * (2 * tarfile.BLOCKSIZE))
    path.chmod(0o644)


def blob_name(found: str) -> str:
    """Return the name of a part in a layout."""
    return f"blobs/{found.replace(':', '/')}"


def loading(config: str, layers: Sequence[str], tags: Sequence[str]) -> dict[str, Any]:
    """Return what `manifest.json` says about an image whose config and layers have these digests."""
    return {"Config": blob_name(config), "RepoTags": list(tags) or None, "Layers": [blob_name(one) for one in layers]}


def _entry(into: BinaryIO, name: str, content: bytes | Place) -> None:
    if isinstance(content, bytes):
        size = len(content)
        into.write(head(name, size) + content)
    else:
        size = content.size
        into.write(head(name, size))
        with Stretch(content) as stream:
            shutil.copyfileobj(stream, into, 1 << 20)
    into.write(b"\0" * (-size % tarfile.BLOCKSIZE))
