"""The image that another one is built on: found, checked down to the entries of its layers, and kept by digest.

A base is not trusted: each of its layers is read once, as it comes, before anything is built on it. Nothing of it is
unpacked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final

from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.oci import media
from modelrel.oci.blobs import Blobs, pieces
from modelrel.oci.content import Descriptor
from modelrel.oci.layers import Blob, gzipped
from modelrel.oci.read import Source, document, unzipped
from modelrel.oci.tars import Tar, entries

LAYERS: Final = 120
"""The most layers of a base: containerd and Docker stop at 127, ours included."""

SWELLING: Final = 400
"""A layer may unpack to this many times its size (system images: 2 to 4 times), or to `FREE` bytes."""

FREE: Final = 64 << 20

_HINT: Final = "Choose another base with --base-image."
_CHECKED: Final = 1  # counted up when layers are checked in another way


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An image to build on: its name, the digest that pins it, its config, its layers (all in `Blobs`).

    `digest` is that of its manifest for the platform; of what `docker save` wrote, which has none, that of its config.
    """

    name: str
    digest: str
    platform: str
    config: Mapping[str, Any]
    layers: tuple[Blob, ...]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its config says of a container: `Env`, `Entrypoint`, `User` and so on."""
        found = self.config.get("config") or {}
        if not isinstance(found, dict):
            raise Refused(f"the base image {self.name} has a config that is none", _HINT)
        return found

    @property
    def variables(self) -> dict[str, str]:
        """Its environment."""
        stated = self.settings.get("Env") or []
        if not isinstance(stated, list):
            raise Refused(f"the base image {self.name} has an environment that is no list", _HINT)
        return dict(str(line).partition("=")[::2] for line in stated)


def find(source: Source, name: str, platform: str, blobs: Blobs, note: Callable[[str], None]) -> Base:
    """Return the image of a source for a platform, with all its layers in `blobs`.

    Raises `Unavailable` where it is not there, or not for that platform; `Refused` where a part has not its digest,
    or a layer holds what no image should; `Invalid` for a kind of layer that we do not read.
    """
    pinned = _manifest(source, name, platform)
    manifest = document(source, pinned)
    described = Descriptor.read(manifest.get("config"))
    config = document(source, described)
    if (config.get("os"), config.get("architecture")) != tuple(platform.split("/")[:2]):
        raise _not_made_for(name, platform)
    stated = config.get("rootfs")
    diff_ids = stated.get("diff_ids") if isinstance(stated, dict) else None
    parts = manifest.get("layers")
    if not isinstance(diff_ids, list) or not isinstance(parts, list) or len(parts) != len(diff_ids):
        raise Refused(f"the base image {name} does not say which layers it has", _HINT)
    if len(parts) > LAYERS:
        raise Refused(f"the base image {name} has {len(parts)} layers; {LAYERS} is what engines leave room for", _HINT)
    loose = bool(getattr(source, "loose", False))
    layers = tuple(
        _Layer(source, Descriptor.read(part), str(diff_id), blobs).kept(note, zipped=loose)
        for part, diff_id in zip(parts, diff_ids, strict=True)
    )
    digest = described.digest if loose else pinned.digest
    return Base(name=name, digest=digest, platform=platform, config=config, layers=layers)


def digest_of(source: Source, name: str, platform: str) -> str:
    """Return the digest that pins the image of a source, without its layers; raises as `find`."""
    pinned = _manifest(source, name, platform)
    if not getattr(source, "loose", False):
        return pinned.digest
    return Descriptor.read(document(source, pinned).get("config")).digest


def _manifest(source: Source, name: str, platform: str) -> Descriptor:
    """Return the manifest for a platform, from the index (of an index) where that is what the source has."""
    part = source.index
    for _ in range(3):
        if part.media_type in media.MANIFESTS:
            return part
        listed = document(source, part).get("manifests")
        found = [Descriptor.read(one) for one in listed] if isinstance(listed, list) else []
        # buildx lists its attestations beside the images, for the platform unknown/unknown
        fitting = [one for one in found if one.platform == platform]
        if not fitting and len(found) == 1 and not found[0].platform:
            fitting = found
        if not fitting:
            raise _not_made_for(name, platform)
        part = fitting[0]
    raise Refused(f"the base image {name} is an index in an index in an index", _HINT)


def _not_made_for(name: str, platform: str) -> Unavailable:
    return Unavailable(
        f"the base image {name} is not made for {platform}", "Choose one with --base-image, or --platform."
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer of a base, where it comes from and where it goes."""

    source: Source
    part: Descriptor
    diff_id: str
    blobs: Blobs

    def kept(self, note: Callable[[str], None], *, zipped: bool) -> Blob:
        """Return the layer once it is in `blobs`, checked; `zipped` compresses one that is not."""
        zipped = zipped and self.part.media_type == media.OCI_LAYER
        record = f"bases/{_CHECKED}-{self.part.digest.removeprefix('sha256:')}{'-gz' if zipped else ''}"
        known = self.blobs.known(record)
        if known.get("diff_id") == self.diff_id:
            blob = self._blob(known, zipped=zipped)
            if self.blobs.holds(blob.part):
                return blob
        note(f"fetching a layer of the base image, {self.part.size / 1e6:.1f} MB")
        with self.source.open(self.part) as stream:
            if zipped:
                digest, size = self.blobs.add(gzipped(pieces(stream)))
            else:
                self.blobs.fetch(self.part, stream)
                digest, size = self.part.digest, self.part.size
        facts = {"digest": digest, "size": size, "diff_id": self.diff_id}
        blob = self._blob(facts, zipped=zipped)
        try:
            with self.blobs.open(blob.part) as stream:
                check(stream, blob)
        except BaseException:
            self.blobs.path(digest).unlink(missing_ok=True)
            raise
        self.blobs.note(record, facts)
        return blob

    def _blob(self, facts: Mapping[str, Any], *, zipped: bool) -> Blob:
        kind = media.OCI_LAYER_GZIP if zipped else self.part.media_type
        part = Descriptor.read({**facts, "mediaType": kind})
        return Blob(part=part, diff_id=self.diff_id, path=self.blobs.path(part.digest))


def check(stream: BinaryIO, blob: Blob) -> None:
    """Read a layer to its end; raises `Refused` where it is not what its image says, or would leave its root.

    What is refused: a tar that has not the digest of the config, names with `..` or from the root on, hard links to
    such, more entries than `tars.ENTRIES`, and one that swells beyond `SWELLING`. Devices and symbolic links are what
    systems are made of: an engine resolves them inside the container.
    """
    tar = Tar(unzipped(stream, blob.part.media_type), max(FREE, SWELLING * blob.part.size))
    for entry, _ in entries(tar):
        _inside(entry.name, blob)
        if entry.islnk():
            _inside(entry.linkname, blob)
    if tar.digest() != blob.diff_id:
        raise Refused(f"the layer {blob.part.digest} holds another tar than its image says ({blob.diff_id})", _HINT)


def _inside(name: str, blob: Blob) -> None:
    if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
        raise Refused(
            f"the layer {blob.part.digest} has an entry that leads outside: {name[:200]!r}",
            "Whoever made it wants to write elsewhere than in the image; choose another base with --base-image.",
        )


def python_of(base: Base, python: str) -> None:
    """Raise `Invalid` where a base image states another Python than `python` (as the official images state it)."""
    version = base.variables.get("PYTHON_VERSION", python)
    if version.split(".")[:2] != python.split(".")[:2]:
        raise Invalid(
            f"the base image {base.name} holds Python {version}, the wheels are for {python}",
            f"Package with --python {'.'.join(version.split('.')[:2])}, or with another --base-image.",
        )
