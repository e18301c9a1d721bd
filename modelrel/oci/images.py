"""An image put together: a base, layers on top, and the config that says how a container of it is started.

Source: OCI image-spec (config.md, manifest.md, image-index.md); Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from modelrel.errors import Invalid
from modelrel.oci import layout, media, names
from modelrel.oci.bases import Base
from modelrel.oci.content import Descriptor, canonical
from modelrel.oci.layers import Blob
from modelrel.oci.tars import Place

Kind = Literal["oci", "docker"]
"""Whose manifests: some platforms (SageMaker, Lambda) want Docker's."""

EPOCH: Final = "1970-01-01T00:00:00Z"

_SETTINGS: Final = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Healthcheck",
    "Shell",
)  # fmt: skip
_DOCKER: Final = {media.OCI_LAYER: media.DOCKER_LAYER, media.OCI_LAYER_GZIP: media.DOCKER_LAYER_GZIP}
_OCI: Final = {docker: oci for oci, docker in _DOCKER.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A layer that we put on a base: what is in it, its blob, and the sentence in the image's history."""

    name: str
    blob: Blob
    history: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How an image looks from outside, and how a container of it is started.

    `settings` are those of a container, as in the `config` of an image's config. `created` is RFC 3339, "" for nobody
    knows. `annotations` are for the manifest; Docker's has no place for them.
    """

    settings: Mapping[str, Any]
    annotations: Mapping[str, str]
    created: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image for one platform: its manifest, the digests of config and layers, its bytes, and where its parts are."""

    manifest: Descriptor
    config: str
    layers: tuple[str, ...]
    size: int
    contents: layout.Contents


def build(base: Base, added: Sequence[Added], look: Look) -> Built:
    """Put layers on a base.

    Environment, labels, ports and volumes of the base are kept where the settings have no others, its command where
    they have no entrypoint. Raises `Invalid` for settings that no engine takes.
    """
    blobs = (*base.layers, *(one.blob for one in added))
    created = look.created or EPOCH
    history = [*_history(base), *({"created": created, "created_by": one.history} for one in added)]
    config = {
        **{key: base.config[key] for key in ("architecture", "os", "variant") if base.config.get(key)},
        "created": created,
        "config": _settings(base, look.settings),
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
        "history": history,
    }
    content = canonical(config)
    docker = look.kind == "docker"
    kinds = _DOCKER if docker else _OCI
    described = Descriptor.of(content, media.DOCKER_CONFIG if docker else media.OCI_CONFIG)
    parts = [replace(one.part, media_type=kinds.get(one.part.media_type, one.part.media_type)) for one in blobs]
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.DOCKER_MANIFEST if docker else media.OCI_MANIFEST,
        "config": described.plain(),
        "layers": [Descriptor(media_type=one.media_type, digest=one.digest, size=one.size).plain() for one in parts],
    }
    if not docker:
        manifest["annotations"] = dict(look.annotations)
    whole = canonical(manifest)
    found = Descriptor.of(whole, manifest["mediaType"], platform=base.platform)
    files: layout.Contents = {one.part.digest: Place.of(one.path) for one in blobs}
    return Built(
        manifest=found,
        config=described.digest,
        layers=tuple(one.digest for one in parts),
        size=found.size + described.size + sum(one.size for one in {one.digest: one for one in parts}.values()),
        contents={**files, found.digest: whole, described.digest: content},
    )


def write(path: Path, images: Sequence[Built], tags: Sequence[str], look: Look) -> Descriptor:
    """Write images of one model for several platforms (or for one) as one tar; return its manifest, or its index.

    `docker load` gets the first of them: it knows no index. Its descriptor in the tar has the first tag.
    """
    contents = {digest: content for image in images for digest, content in image.contents.items()}
    top = replace(images[0].manifest, platform="")
    if len(images) > 1:
        docker = look.kind == "docker"
        index: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media.DOCKER_LIST if docker else media.OCI_INDEX,
            "manifests": [image.manifest.plain() for image in images],
        }
        if not docker:
            index["annotations"] = dict(look.annotations)
        content = canonical(index)
        top = Descriptor.of(content, index["mediaType"])
        contents[top.digest] = content
    full = [str(names.parse(tag)) for tag in tags]
    named = {layout.REF: names.parse(tags[0]).tag, layout.CONTAINERD: full[0]} if tags else {}
    first = images[0]
    layout.write(
        path, replace(top, annotations=named), contents, [layout.loading(first.config, first.layers, _short(full))]
    )
    return top


def _short(full: Sequence[str]) -> list[str]:
    """Return names of images as Docker says them."""
    return [name.removeprefix("docker.io/").removeprefix("library/") for name in full]


def _history(base: Base) -> list[Any]:
    """Return the history of a base, one entry for each of its layers; made up where it has another number of them."""
    stated = base.config.get("history")
    stated = [one for one in stated if isinstance(one, dict)] if isinstance(stated, list) else []
    filled = sum(not one.get("empty_layer") for one in stated)
    return stated if filled == len(base.layers) else [{"created_by": f"layer of {base.name}"} for _ in base.layers]


def _settings(base: Base, ours: Mapping[str, Any]) -> dict[str, Any]:
    for key in ours:
        if key not in _SETTINGS:
            raise Invalid(
                f"config.json sets {key!r}, which is no setting of a container", f"Known: {', '.join(_SETTINGS)}."
            )
    theirs = {key: base.settings[key] for key in _SETTINGS if base.settings.get(key)}
    if ours.get("Entrypoint"):
        theirs.pop("Cmd", None)
    found = {**theirs, **ours}
    for key in ("Labels", "ExposedPorts", "Volumes"):
        both = {**_mapping(theirs, key), **_mapping(ours, key)}
        if both:
            found[key] = both
    for key in ("Entrypoint", "Cmd", "Env"):
        if not all(isinstance(word, str) for word in found.get(key) or ()):
            raise Invalid(f"config.json has a {key} that is no list of texts", 'Write it as ["python3", "-m"].')
    variables = {**base.variables, **dict(line.partition("=")[::2] for line in ours.get("Env") or ())}
    found["Env"] = [f"{name}={value}" for name, value in variables.items()]
    return found


def _mapping(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = settings.get(key) or {}
    if not isinstance(found, dict):
        raise Invalid(f"the {key} of an image are no object: {str(found)[:80]!r}", "Correct config.json, or the base.")
    return found
