"""What the image of a model says and where its files are, whoever writes the image: labels, tags, layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelrel import __version__, render
from modelrel.delivered import Image
from modelrel.errors import Invalid, redacted
from modelrel.oci.bases import Base
from modelrel.targets import as_is, payload, slim
from modelrel.targets.delivery import Note, Places
from modelrel.targets.images import Body, Wanted, base_name, base_of, pin, read_settings, write_image
from modelrel.targets.payload import Payload
from modelrel.values import PackageOptions, ParityReport

PREFIX: Final = "io.modelrel."
"""Our reverse-DNS prefix for labels."""

APP: Final = "/opt/modelrel"
"""Where the server and its wheels are in an image."""

METADATA: Final = "metadata"
"""The last group of an image: what was put in (lock, bill of materials, licences, manifest)."""

_CONFIG: Final = "config.json"
# grammar: distribution, reference/regexp.go; here: [host[:port]/]path[:tag]
_PATH: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?"
_TAG: Final = re.compile(rf"(?:{_HOST}/)?{_PATH}(?:/{_PATH})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """An image label; `quoted` is its value as a Dockerfile writes it, `json` the whole as JSON does."""

    key: str
    value: str

    @property
    def json(self) -> str:
        """Key and value as a member of a JSON object."""
        return f"{json.dumps(self.key)}: {json.dumps(self.value)}"

    @property
    def quoted(self) -> str:
        """The value in double quotes, with what Docker would expand or end the line at made harmless."""
        plain = re.sub(r"\s+", " ", self.value)
        return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What the templates of images are about; they know it as `image`.

    `environment` is the folder of the model's own packages, "" where it needs none.
    """

    name: str
    version: str
    base: str
    python: str
    platform: str
    labels: tuple[Label, ...]
    port: int = 8080
    user: int = 65532
    app: str = APP
    models: str = "/models"
    environment: str = ""


def compiled(load: Payload, options: PackageOptions) -> Payload:
    """Return a payload with the modules of a model as it is compiled: MLflow's take most of the time of its start."""
    return slim.with_bytecode(load, APP, options.python, ("environment", "wheels", "serving")) if load.as_is else load


def uncompiled(load: Payload, options: PackageOptions) -> tuple[str, ...]:
    """Say so where the modules of a model as it is could not be compiled."""
    if load.as_is is None or "bytecode" in load.parts:
        return ()
    return (f"there is no Python {options.python} here to compile the modules with: each start does it, in seconds",)


def check_tags(tags: tuple[str, ...]) -> None:
    """Raise `Invalid` for a name that no engine takes."""
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise Invalid(f"{tag!r} is not an image name that an engine takes", "Write it as churn:7, in lower case.")


def spec(
    parity: ParityReport, options: PackageOptions, licenses: str, base: Base | None = None, pickle: str = ""
) -> ImageSpec:
    """Return what the image of a model says; `base` pins the one that it is built on, `pickle` is the verdict."""
    labels = {**standard_labels(parity, options, licenses), **_model_labels(parity), **(pin(base) if base else {})}
    labels[f"{PREFIX}pickle"] = pickle
    return ImageSpec(
        name=payload.slug(parity.source.name),
        version=payload.version_slug(parity),
        base=base_name(options.base_image),
        python=options.python,
        platform=options.platform,
        environment=as_is.FOLDER if parity.converted.format == as_is.FORMAT else "",
        labels=tuple(Label(key=key, value=value) for key, value in labels.items() if value),
    )


def standard_labels(parity: ParityReport, options: PackageOptions, licenses: str) -> dict[str, str]:
    """Return the labels (and annotations) that OCI defines: image-spec, annotations.md; what is unknown is "" there."""
    source = parity.source
    facts = {
        "title": source.name,
        "description": f"{source.label}, served over the Open Inference Protocol",
        "version": source.version,
        "revision": source.git_commit,
        "source": redacted(source.tags.get("mlflow.source.git.repoURL", "")),
        "created": payload.created(parity),
        "licenses": licenses,
        "base.name": base_name(options.base_image),
    }
    return {f"org.opencontainers.image.{key}": value for key, value in facts.items()}


def _model_labels(parity: ParityReport) -> Mapping[str, str]:
    source = parity.source
    facts = {
        "version": __version__,
        "model.name": source.name,
        "model.version": source.version,
        "model.flavor": source.flavor,
        "model.format": parity.converted.format,
        "model.sha256": parity.converted.file.sha256,
        "run-id": source.run_id,
        "source.sha256": source.digest,
        "parity.rows": str(parity.rows),
        "parity.max-abs-error": f"{parity.max_abs_error:g}",
    }
    return {PREFIX + key: value for key, value in facts.items()}


def tags(parity: ParityReport, options: PackageOptions) -> tuple[str, ...]:
    """Return the names of the image: those asked for, else `churn:7`, and the one that it is pushed by."""
    own = options.tags or (f"{payload.slug(parity.source.name)}:{payload.version_slug(parity)}",)
    return tuple(dict.fromkeys((*own, *filter(_TAG.fullmatch, [options.push]))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What goes into an image for one platform: groups (name inside -> file), and the payload that they are of.

    `folder` is where its `config.json` is rendered to.
    """

    groups: Mapping[str, Mapping[str, Path]]
    load: Payload
    folder: Path


def write(
    parity: ParityReport, options: PackageOptions, places: Places, contents: Mapping[str, Inside], note: Note
) -> Image:
    """Write the image of a model for each platform that has contents; see `images.write_image`."""
    bodies, named = [], {}
    for platform, content in contents.items():
        base = base_of(options.base_image, platform, options.python, note)
        chosen = replace(options, platform=platform, base_image=base.name)
        image = spec(parity, chosen, content.load.licenses, base, content.load.verdict)
        content.folder.mkdir(exist_ok=True)
        render.render("oci", content.folder, {"image": image, "parity": parity}, options.templates)
        groups = {
            group: {_at(name, image): path for name, path in files.items()} for group, files in content.groups.items()
        }
        settings = read_settings(content.folder / _CONFIG)
        bodies.append(Body(base=base, groups=groups, settings=settings, digests=content.load.digests))
        named = standard_labels(parity, chosen, "")
    file = f"{payload.slug(parity.source.name)}-{payload.version_slug(parity)}.tar"
    note(f"writing {file}")
    at = places.previous.relative_to(parity.source.folder).as_posix()
    wanted = Wanted(
        file=places.into / file,
        at=f"{at}/{file}",
        tags=tags(parity, options),
        kind=options.manifest,
        annotations={key: value for key, value in named.items() if value},
        created=payload.created(parity),
    )
    return write_image(bodies, wanted)


def _at(name: str, image: ImageSpec) -> str:
    """Return where a file of a delivery is in an image, relative to its root."""
    place = image.models + name.removeprefix("model") if name.startswith("model/") else f"{image.app}/{name}"
    return place.removeprefix("/")
