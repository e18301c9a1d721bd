"""Layers of images: tars whose bytes depend on names and contents alone.

Entries are sorted, every folder has one, all belong to root, with mode 0755 (folders) or 0644 and the time 0, so that
a layer of the same files is the same blob in the image of every model. Source: OCI image-spec, layer.md.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from modelrel import archive
from modelrel.errors import Invalid
from modelrel.oci import media
from modelrel.oci.blobs import Blobs, pieces
from modelrel.oci.content import Descriptor, canonical, digest
from modelrel.oci.tars import head

LEVEL: Final = 4
"""Of gzip: half the time of level 6 for three hundredths more bytes (of numpy and onnxruntime)."""

_RECIPE: Final = 1  # counted up when the bytes of a layer of the same files change
_WHITEOUT: Final = ".wh."  # a name that deletes what is below it
# RFC 1952: no name, no time, made by nobody; the same as `gzip -n` writes but for the last two bytes
_GZIP: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A layer: its blob, the digest of the tar inside (`sha256:...`), the file that holds it."""

    part: Descriptor
    diff_id: str
    path: Path


def write(
    files: Mapping[str, Path],
    blobs: Blobs,
    *,
    compress: bool = True,
    remember: bool = True,
    digests: Mapping[Path, str] = MappingProxyType({}),
) -> Blob:
    """Write a layer of name in the image (relative to its root, with `/`) -> file.

    It is taken from `blobs` where one of the same names and contents is there; `remember` is for what will come again.
    `digests` are the sha256 of files that need not be read for it.
    Raises `Invalid` for names that lead elsewhere, or that an image would not keep.
    """
    kind = media.OCI_LAYER_GZIP if compress else media.OCI_LAYER
    key = ""
    if remember:
        content = [[name, digests.get(files[name]) or archive.sha256(files[name])] for name in sorted(files)]
        known = [_RECIPE, zlib.ZLIB_RUNTIME_VERSION, LEVEL] if compress else [_RECIPE]
        key = f"layers/{digest(canonical([known, content])).removeprefix('sha256:')}"
        found = blobs.known(key)
        if found:
            part = Descriptor.read({**found, "mediaType": kind})
            if blobs.holds(part):
                return Blob(part=part, diff_id=str(found.get("diff_id")), path=blobs.path(part.digest))
    hashed = hashlib.sha256()
    tar = _hashed(_tar(files), hashed)
    named, size = blobs.add(gzipped(tar) if compress else tar)
    diff_id = f"sha256:{hashed.hexdigest()}"
    if remember:
        blobs.note(key, {"digest": named, "size": size, "diff_id": diff_id})
    part = Descriptor(media_type=kind, digest=named, size=size)
    return Blob(part=part, diff_id=diff_id, path=blobs.path(named))


def _hashed(chunks: Iterator[bytes], into: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        into.update(chunk)
        yield chunk


def gzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks compressed; the bytes depend on them, on `LEVEL`, and on the zlib in use."""
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    check, size = 0, 0
    yield _GZIP
    for chunk in chunks:
        check, size = zlib.crc32(chunk, check), size + len(chunk)
        yield deflate.compress(chunk)
    yield deflate.flush()
    yield check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _tar(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Yield a tar (POSIX.1-2001, pax) of the files, with an entry for each folder above them."""
    made: set[str] = set()
    for name in sorted(files):
        _check(name)
        for folder in reversed(PurePosixPath(name).parents[:-1]):
            if folder.as_posix() not in made:
                made.add(folder.as_posix())
                yield head(folder.as_posix(), folder=True)
        path = files[name]
        with path.open("rb") as stream:
            size = path.stat().st_size
            yield head(name, size)
            left = size
            for chunk in pieces(stream):
                left -= len(chunk)
                yield chunk
            if left:
                raise Invalid(f"{path} changed while it was read", "Run the command again.")
        yield b"\0" * (-size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _check(name: str) -> None:
    parts = name.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in name:
        raise Invalid(f"the file name {name!r} leads outside its image", "Log the model again without it.")
    if any(part.startswith(_WHITEOUT) for part in parts):
        raise Invalid(
            f"a layer of an image cannot hold {name!r}: names that start with {_WHITEOUT} delete other files",
            "Log the model again under another name.",
        )
