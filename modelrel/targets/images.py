"""Images that modelrel writes itself, without an engine: `base_of`, `write_image`, `launch_image`.

A target finds its base for each platform (`base_of`), puts its files in groups, each of which becomes a layer, renders
`config.json` (what a container of it is started with: the `config` of an OCI image's config), and gets one tar:

    base = base_of(options.base_image, platform, options.python, note)
    body = Body(base=base, groups={"wheels": {"opt/app/x.py": path}, ...}, settings=read_settings(path, source))
    image = write_image([body], Wanted(file=places.into / "churn-7.tar", at=..., tags=..., kind="oci", ...))

Groups come from what changes least to what changes most. Those in `STABLE` are kept in the cache, so that after a
change of the model only the others are made again. The model itself is not compressed (but under Docker's manifests,
which know no other layers everywhere): its layer has the same bytes whatever zlib is there, and costs no time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from modelrel import archive, wheels
from modelrel.delivered import Image, Layer, Package
from modelrel.errors import Invalid, Unavailable
from modelrel.oci import bases, images, layers, names
from modelrel.oci.blobs import Blobs
from modelrel.oci.content import Descriptor, digest
from modelrel.oci.read import DOCUMENT_BYTES, Layout, Source
from modelrel.oci.registry import Registry
from modelrel.targets.delivery import Note
from modelrel.values import PackageOptions

STABLE: Final = frozenset({"environment", "wheels", "serving"})
"""The groups that come again in the image of another model."""

KINDS: Final = ("oci", "docker")

_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz")
_TRANSPORTS: Final = ("oci:", "oci-archive:", "docker-archive:")


def cache() -> Blobs:
    """Return the parts of images that are kept for the next one."""
    return Blobs(wheels.cache_dir() / "images")


def base_of(text: str, platform: str, python: str, note: Note) -> bases.Base:
    """Return the base image that `text` names, for a platform, with all its layers in the cache.

    It is the name of an image in a registry, the folder of an OCI layout, or a tar (`docker save`, `oci-archive:`);
    a folder or a tar may be followed by `:TAG`, and by what skopeo puts in front. `python` is the version that it must
    have, where it states one; "" for any. Raises `Unavailable` where it is not to be had or is not made for the
    platform, `Refused` where it is damaged or hostile, `Invalid` for a text or a Python that does not fit.
    """
    place = _place(text)
    if place is not None:
        with Layout.at(*place) as source:
            base = bases.find(source, base_name(text), platform, cache(), note)
    else:
        name = names.parse(text)
        with Registry.connect(name) as registry:
            kept = Kept(registry, name, cache(), note)
            base = bases.find(kept, base_name(text), platform, cache(), note)
    if python:
        bases.python_of(base, python)
    return base


def stands(package: Package, options: PackageOptions) -> bool:
    """Return whether a base on disk is the one that the image was built on; of another one, and none, nothing is said.

    A name in a registry is not asked again: `--force` is for that.
    """
    place = _place(options.base_image) if options.base_image else None
    if place is None or package.image is None or not place[0].exists():
        return True
    with Layout.at(*place) as source:
        found = bases.digest_of(source, base_name(options.base_image), package.platform.partition(",")[0])
    return package.image.base.endswith(f"@{found}")


def base_name(text: str) -> str:
    """Return what a base is called in labels: its name, or that of its file; never where this machine has it."""
    place = _place(text)
    if place is None:
        return text.partition("@")[0]
    return f"{place[0].name}:{place[1]}" if place[1] else place[0].name


def _place(text: str) -> tuple[Path, str] | None:
    """Return path and tag of a base on disk; None for the name of an image."""
    plain = next((text.removeprefix(one) for one in _TRANSPORTS if text.startswith(one)), "")
    explicit = bool(plain)
    plain = plain or text
    for path, tag in ((plain, ""), plain.rpartition(":")[::2]):
        found = Path(path).expanduser()
        likely = explicit or path.startswith((".", "/", "~")) or path.endswith(_ARCHIVES)
        if path and (found.exists() if likely else (found / "index.json").is_file()):
            return found, tag
    if explicit or text.startswith((".", "/", "~")) or text.endswith(_ARCHIVES):
        return Path(plain).expanduser(), ""
    return None


class Kept:
    """A repository whose documents are kept, so that a base of before is there when the registry is silent."""

    def __init__(self, registry: Source, name: names.Name, blobs: Blobs, note: Note) -> None:
        """Keep in `blobs` what the registry says of `name`."""
        self._registry, self._name, self._blobs, self._note = registry, name, blobs, note

    @property
    def index(self) -> Descriptor:
        """What the name stands for now; where the registry is silent, what it stood for before."""
        known = f"names/{digest(str(self._name).encode()).removeprefix('sha256:')}"
        before = self._blobs.known(known)
        if before and self._name.digest:
            return Descriptor.read(before)
        try:
            found = self._registry.index
        except Unavailable as error:
            if not before:
                raise
            self._note(f"{error.message}: building on {before.get('digest')} of before")
            return Descriptor.read(before)
        self._blobs.note(known, found.plain())
        return found

    def open(self, part: Descriptor) -> BinaryIO:
        """Return the bytes of a part as a stream; see `content.Store`."""
        if part.size > DOCUMENT_BYTES:
            return self._registry.open(part)
        if not self._blobs.holds(part):
            with self._registry.open(part) as stream:
                self._blobs.fetch(part, stream)
        return self._blobs.open(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What an image holds for one platform: base, layers (group -> path in it -> file), settings of a container.

    `digests` are the sha256 of files that are known already.
    """

    base: bases.Base
    groups: Mapping[str, Mapping[str, Path]]
    settings: Mapping[str, Any]
    digests: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which image is wanted: the tar to write, where that will be (`at`, relative to the release folder), its names.

    `kind` is one of `KINDS`; `annotations` stand in manifests and index; `created` is RFC 3339, or "".
    """

    file: Path
    at: str
    tags: tuple[str, ...]
    kind: str
    annotations: Mapping[str, str]
    created: str


def read_settings(path: Path) -> Mapping[str, Any]:
    """Return a rendered `config.json`; raises `Invalid` where it is no JSON object."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Invalid(f"the rendered {path.name} is not JSON: {error}", "Correct your template.") from error
    if not isinstance(found, dict):
        raise Invalid(f"the rendered {path.name} is no JSON object", "Correct your template.")
    return found


def write_image(bodies: Sequence[Body], wanted: Wanted) -> Image:
    """Write an image for one or several platforms as one tar, which `docker load`, skopeo and OCI readers take.

    Raises `Invalid` for names or settings that an image cannot have.
    """
    docker = wanted.kind == "docker"
    with tempfile.TemporaryDirectory(prefix=archive.UNFINISHED, dir=wanted.file.parent) as work:
        fresh = Blobs(Path(work), lasting=False)
        built, made = [], dict[str, Layer]()
        for body in bodies:
            added = []
            for group, files in body.groups.items():
                stable = group in STABLE
                store = cache() if stable else fresh
                blob = layers.write(
                    files, store, compress=group != "model" or docker, remember=stable, digests=body.digests
                )
                added.append(images.Added(name=group, blob=blob, history=f"modelrel: {group}"))
                shared = blob.part.digest in made or len(bodies) == 1
                made[blob.part.digest] = _layer(group if shared else f"{group} {body.base.platform}", blob)
            pinned = {**wanted.annotations, **pin(body.base)}
            look = images.Look(
                settings=body.settings, annotations=pinned, created=wanted.created, kind="docker" if docker else "oci"
            )
            built.append(images.build(body.base, added, look))
        top = images.write(wanted.file, built, wanted.tags, replace(look, annotations=wanted.annotations))
    first = bodies[0].base
    return Image(
        tags=wanted.tags,
        id=built[0].config,
        size=wanted.file.stat().st_size,
        added=sum(layer.size for layer in made.values()),
        base=f"{first.name}@{first.digest}",
        at=wanted.at,
        manifest=top.digest,
        layers=tuple(made.values()),
    )


def pin(base: bases.Base) -> dict[str, str]:
    """Return the annotations (and labels) that say what an image is built on: OCI image-spec, annotations.md."""
    return {"org.opencontainers.image.base.name": base.name, "org.opencontainers.image.base.digest": base.digest}


def _layer(name: str, blob: layers.Blob) -> Layer:
    return Layer(name=name, digest=blob.part.digest, diff_id=blob.diff_id, size=blob.part.size)
