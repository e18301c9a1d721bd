"""A container image that modelrel writes itself: no engine, no root, no network but the base's registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from modelrel import wheels
from modelrel.targets import container, docker, images, metadata, payload
from modelrel.targets.bom import Contents
from modelrel.targets.delivery import Draft, Note, Places
from modelrel.targets.loaded import launch_image
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "onnxruntime", "numpy", "jinja2", "uv")
FORMATS: Final = docker.FORMATS
OPTIONS: Final = frozenset({"python", "platform", "base_image", "tags", "manifest", "push"})
VALUES: Final = docker.VALUES
IMAGES: Final[tuple[str, ...]] = ()
stands = images.stands  # the tar is all there is, but for its base
launch = launch_image


def options(given: PackageOptions) -> PackageOptions:
    """Fill in: the Python modelrel runs on, this machine's platform, the official slim image, OCI manifests."""
    asked = given.platform.split(",") if given.platform else [wheels.host_platform()]
    platforms = dict.fromkeys(wheels.check_platform(one.strip()) for one in asked)
    plain = docker.options(replace(given, platform=""))
    return replace(plain, platform=",".join(platforms), builder="", manifest=given.manifest or images.KINDS[0])


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `image` and `parity`."""
    return {"image": container.spec(parity, options, licenses), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the image: for each platform its wheels, lock and manifest, all of them in one tar."""
    inside, parts, notes = {}, dict[str, int](), list[str]()
    for platform in options.platform.split(","):
        folder = places.into / platform.replace("/", "-")
        folder.mkdir()
        lock = places.previous / folder.name / payload.LOCK
        shape = payload.Shape(libraries=docker.SERVER, wheels_at="site-packages/", lock=lock)
        load = container.compiled(payload.gather(parity, replace(options, platform=platform), shape, note), options)
        about = Contents(kind="container", base=images.base_name(options.base_image))
        written = metadata.write(parity, load, {}, about, folder)
        groups = {**load.groups, container.METADATA: written}
        inside[platform] = container.Inside(groups=groups, load=load, folder=folder)
        parts |= {**load.parts, "metadata": sum(path.stat().st_size for path in written.values())}
        told = (*load.wheels.notes, *container.uncompiled(load, options))
        notes += [said for said in told if said not in notes]
    image = container.write(parity, options, places, inside, note)
    file = Path(image.at).name
    return Draft(
        artifact=file,
        python=options.python,
        platform=options.platform,
        size=image.size,
        parts=parts,
        image=image,
        notes=(*notes, *_how(places.previous / file, options)),
    )


def _how(file: Path, options: PackageOptions) -> Iterator[str]:
    yield f"load it with: docker load -i {file}"
    first, *others = options.platform.split(",")
    if others:
        yield f"docker load takes the image for {first}; a registry gets {options.platform}"
