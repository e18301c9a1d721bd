"""An image on disk, read: an OCI layout (a folder or a tar), or what `docker save` wrote; made by us or by anybody.

>>> with Layout.at(Path("churn-7.tar")) as image:  # doctest: +SKIP
...     top = image.open(image.index).read()  # its manifest, or its index where it is for several platforms

Nothing is unpacked: parts are found by the digests that name them, never by a path that the image states.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, Self

from modelrel.errors import Invalid, Refused, Unavailable
from modelrel.oci import media
from modelrel.oci.blobs import pieces
from modelrel.oci.content import Descriptor, Store, canonical
from modelrel.oci.layout import CONTAINERD, REF, blob_name
from modelrel.oci.tars import Entry, Place, Stretch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DOCUMENT_BYTES: Final = 4 << 20
"""The largest manifest, index or config: as much as every registry takes (OCI distribution-spec)."""

_ENTRIES: Final = 100_000  # of the tar that holds an image: some for each of its layers
_DAMAGED: Final = "It is damaged, or no image: make it again with `docker save` or `skopeo copy`."


class Source(Store, Protocol):
    """A store that knows which part an image starts with: a layout, or a repository of a registry."""

    @property
    def index(self) -> Descriptor:
        """The manifest of the image, or its index; raises `Unavailable` where it is not there."""


def document(store: Store, part: Descriptor) -> dict[str, Any]:
    """Return a manifest, an index or a config as JSON data; raises `Refused` where it is none, or is too large."""
    if part.size > DOCUMENT_BYTES:
        raise Refused(f"{part.digest} is no description of an image: it has {part.size:,} bytes", _DAMAGED)
    with store.open(part) as stream:
        return parsed(stream.read(), part.digest)


def parsed(content: bytes, name: str) -> dict[str, Any]:
    """Return a JSON object; raises `Refused` where the bytes are none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{name} of the image is no JSON object", _DAMAGED)
    return found


class Layout:
    """The parts of an image on disk, as a `content.Store`; use it as a context manager.

    `index` is what it starts with. `loose` says that its layers come from `docker save`: their digests are those of
    the tars inside, and no registry knows them.
    """

    def __init__(self, path: Path, places: Mapping[str, Place], tag: str) -> None:
        """Look at the named places of the image at `path`."""
        self.path, self._places, self._made = path, places, dict[str, bytes]()
        self._named: dict[str, Place] = {}
        self.loose = "oci-layout" not in places and "index.json" not in places
        self.index = self._saved(tag) if self.loose else self._listed(tag)

    @classmethod
    def at(cls, path: Path, tag: str = "") -> Self:
        """Open a folder or a tar; `tag` chooses among several images.

        Raises `Unavailable` where there is none, `Invalid` for a tag that is not there, or one that is missing,
        `Refused` for what is no image.
        """
        if not path.exists():
            raise Unavailable(f"there is no image at {path}", "Name an OCI layout folder, or a tar.")
        return cls(path, _folder(path) if path.is_dir() else _tar(path), tag)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: no file stays open."""

    def open(self, part: Descriptor) -> BinaryIO:
        """Return the bytes of a part as a stream; see `content.Store`."""
        if part.digest in self._made:
            return io.BytesIO(self._made[part.digest])
        return io.BufferedReader(_Checked(self.place(part.digest), part), 1 << 16)

    def bytes_of(self, name: str) -> bytes:
        """Return a small file of the layout by its name; raises `Refused` where it is not there, or not small."""
        place = self._places.get(name)
        if place is None or place.size > DOCUMENT_BYTES:
            raise Refused(f"{self.path} has no {name} that can be read", _DAMAGED)
        with Stretch(place) as stream:
            return stream.read() or b""

    def place(self, digest: str) -> Place:
        """Return where a part is; raises `Unavailable` where it is not there."""
        found = self._named.get(digest) or self._places.get(blob_name(digest))
        if found is None:
            raise Unavailable(f"{self.path} does not hold {digest}", _DAMAGED)
        return found

    def parts(self) -> list[Descriptor]:
        """Return every blob that it holds, by the name that it has there."""
        names = sorted(name for name in self._places if name.startswith("blobs/sha256/"))
        return [
            Descriptor.read({"digest": name.removeprefix("blobs/").replace("/", ":"), "size": self._places[name].size})
            for name in names
        ]

    def referrers(self) -> tuple[Descriptor, ...]:
        """Return the manifests beside it that have it as their `subject`: evidence, signatures."""
        listed = [] if self.loose else _list(parsed(self.bytes_of("index.json"), "index.json").get("manifests"))
        found = []
        for part in map(Descriptor.read, listed):
            subject = document(self, part).get("subject") if part.media_type in media.MANIFESTS else None
            if subject is not None and Descriptor.read(subject).digest == self.index.digest:
                found.append(part)
        return tuple(found)

    def _listed(self, tag: str) -> Descriptor:
        """Return what `index.json` lists: the one with the tag, or the only one."""
        content = self.bytes_of("index.json")
        found = [Descriptor.read(one) for one in _list(parsed(content, "index.json").get("manifests"))]
        fitting = [one for one in found if not tag or tag in _tags(one)]
        if not tag and len(named := [one for one in found if _tags(one)]) == 1:
            fitting = named  # what has no name is about it: its referrers
        if len({one.digest for one in fitting}) == 1:
            return fitting[0]
        if fitting and not tag and len({one.platform for one in fitting}) == len(fitting):
            whole = Descriptor.of(content, media.OCI_INDEX)
            self._made[whole.digest] = content
            return whole
        known = ", ".join(sorted({name for one in found for name in _tags(one)})) or "none"
        raise Invalid(
            f"{self.path} holds {len(found)} images" + (f", none with the tag {tag}" if tag else ""),
            f"Name one with a tag, as {self.path}:TAG; there are: {known[:300]}.",
        )

    def _saved(self, tag: str) -> Descriptor:
        """Return a manifest for what `docker save` wrote, made from its list of config and layers."""
        try:
            entries = json.loads(self.bytes_of("manifest.json"))
        except ValueError:
            entries = None
        entries = [one for one in _list(entries) if isinstance(one, dict)]
        fitting = [one for one in entries if not tag or any(_ends(name, tag) for name in _list(one.get("RepoTags")))]
        if len(fitting) != 1:
            raise Invalid(
                f"{self.path} holds {len(entries)} images" + (f", {len(fitting)} with the tag {tag}" if tag else ""),
                "Save one image alone: docker save -o FILE NAME:TAG.",
            )
        content = self.bytes_of(str(fitting[0].get("Config")))
        rootfs = parsed(content, "the config").get("rootfs")
        diff_ids = _list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None)
        files = _list(fitting[0].get("Layers"))
        if len(files) != len(diff_ids):
            raise Refused(f"{self.path} has {len(files)} layers, its config names {len(diff_ids)}", _DAMAGED)
        config = Descriptor.of(content, media.OCI_CONFIG)
        self._made[config.digest] = content
        layers = [self._layer(str(file), str(found)).plain() for file, found in zip(files, diff_ids, strict=True)]
        manifest = canonical(
            {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config.plain(), "layers": layers}
        )
        found = Descriptor.of(manifest, media.OCI_MANIFEST)
        self._made[found.digest] = manifest
        return found

    def _layer(self, name: str, diff_id: str) -> Descriptor:
        place = self._places.get(name)
        if place is None:
            raise Refused(f"{self.path} does not hold the layer {name[:120]!r}", _DAMAGED)
        kind, found = media.OCI_LAYER, diff_id
        with Stretch(place) as stream:
            if stream.read(2) == b"\x1f\x8b":
                stream.seek(0)
                hashed = hashlib.sha256()
                for chunk in pieces(io.BufferedReader(stream)):
                    hashed.update(chunk)
                kind, found = media.OCI_LAYER_GZIP, f"sha256:{hashed.hexdigest()}"
        part = Descriptor.read({"mediaType": kind, "digest": found, "size": place.size})
        self._named[part.digest] = place
        return part


def unzipped(stream: BinaryIO, kind: str) -> BinaryIO:
    """Return the tar that a layer of this media type holds; raises `Invalid` for a kind that we do not read."""
    if kind in (media.OCI_LAYER_GZIP, media.DOCKER_LAYER_GZIP):
        return gzip.GzipFile(fileobj=stream)  # type: ignore[return-value]
    if kind in (media.OCI_LAYER, media.DOCKER_LAYER):
        return stream
    raise Invalid(
        f"a layer of the image is of a kind that modelrel does not read: {kind[:100]!r}",
        "Copy it first: skopeo copy --dest-compress-format gzip FROM oci:DIR.",
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _tags(part: Descriptor) -> set[str]:
    ref, whole = part.annotations.get(REF, ""), part.annotations.get(CONTAINERD, "")
    return {name for one in (ref, whole) for name in (one, re.sub(r".*[:/]", "", one)) if name}


def _ends(name: Any, tag: str) -> bool:
    return isinstance(name, str) and (name == tag or name.endswith((f":{tag}", f"/{tag}")))


def _folder(path: Path) -> dict[str, Place]:
    """Return the files of a layout; its blobs are where their digests say, whatever else is there."""
    found = {}
    for name in ("oci-layout", "index.json", "manifest.json"):
        if (path / name).is_file():
            found[name] = Place(path / name, 0, (path / name).stat().st_size)
    blobs = path / "blobs" / "sha256"
    for blob in blobs.iterdir() if blobs.is_dir() else ():
        if blob.is_file():
            found[f"blobs/sha256/{blob.name}"] = Place(blob, 0, blob.stat().st_size)
    if "index.json" not in found:
        raise Refused(f"{path} is no OCI layout: it has no index.json", "Name the folder that holds index.json.")
    return found


def _tar(path: Path) -> dict[str, Place]:
    """Return name -> place of the files in a tar; links (as `docker save` writes for equal layers) are followed."""
    found, links = dict[str, Place](), dict[str, str]()
    try:
        with tarfile.open(path, mode="r:", tarinfo=Entry) as tar:
            for number, entry in enumerate(tar):
                if number >= _ENTRIES:
                    raise Refused(f"{path} has more than {_ENTRIES:,} entries", _DAMAGED)
                name = entry.name.removeprefix("./")
                if entry.isreg() and not entry.issparse():
                    found[name] = Place(path, entry.offset_data, entry.size)
                elif entry.issym():
                    links[name] = _joined(name, entry.linkname)
                elif entry.islnk():
                    links[name] = entry.linkname.removeprefix("./")
    except tarfile.TarError as error:
        with path.open("rb") as stream:
            hint = "Unpack it first: gunzip." if stream.read(2) == b"\x1f\x8b" else _DAMAGED
        raise Refused(f"{path} is not a tar that holds an image: {error}", hint) from error
    return found | {name: found[target] for name, target in links.items() if target in found and name not in found}


def _joined(name: str, target: str) -> str:
    """Return what a relative link names inside a tar; something that is not there where it leads out of it."""
    parts = name.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _Checked(io.RawIOBase):
    """The bytes of a part; reading the end raises `Refused` where they have not its digest."""

    def __init__(self, place: Place, part: Descriptor) -> None:
        super().__init__()
        self._inner, self._part = Stretch(place), part
        self._hash, self._had = hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        done = self._inner.readinto(buffer)
        self._had += done
        self._hash.update(memoryview(buffer).cast("B")[:done])
        right = f"sha256:{self._hash.hexdigest()}" == self._part.digest and self._had == self._part.size
        if not done and not right:
            raise Refused(
                f"{self._inner._place.path} holds other bytes than {self._part.digest} names",  # noqa: SLF001
                "It is damaged, or somebody changed it.",
            )
        return done

    def close(self) -> None:
        self._inner.close()
        super().close()
