"""An image that modelrel wrote, started from its tar: in an engine, else what was added to the base as a process."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from modelrel import archive, interpreters, wheels
from modelrel.delivered import Check, Image, Package
from modelrel.errors import Refused, Unavailable
from modelrel.oci import examine, layout
from modelrel.oci.content import Descriptor
from modelrel.oci.read import Layout, document
from modelrel.targets.delivery import Note, Running
from modelrel.targets.engine import Engine
from modelrel.targets.process import Program, free_port, served

_SMOKE: Final = "modelrel-smoke"


@contextmanager
def launch_image(package: Package, note: Note, settings: Mapping[str, Any] | None = None) -> Iterator[Running]:
    """Start the image of a package from its tar, and end it when the block ends.

    `settings` (those of `Engine.run`) are what a platform adds; a process takes command and environment of them.
    Raises `Unavailable` where there is no engine, and no Python of this machine for what the image adds to its base.
    """
    with opened(package) as image:
        try:
            engine = Engine.connect()
        except Unavailable as error:
            note(f"{error.message}: starting what the image adds to its base as a process")
            with _unpacked(package, image, settings or {}) as running:
                yield replace(running, examined=lambda: examined(package, image))
            return
        with engine, loaded(engine, package, image, note) as known, engine.run(known, note, settings) as running:
            yield replace(running, examined=lambda: examined(package, image))


def opened(package: Package) -> Layout:
    """Return the image of a package, from its tar."""
    assert package.image is not None  # a package without one has nothing to open
    return Layout.at(archive.within(package.folder, package.image.at))


def of_platform(image: Layout, platform: str) -> tuple[Descriptor, dict[str, Any]]:
    """Return the manifest of an image for a platform; the first where it has none for it."""
    found = examine.manifests(image)
    return next((one for one in found if one[0].platform == platform), found[0])


@contextmanager
def loaded(engine: Engine, package: Package, image: Layout, note: Note) -> Iterator[Image]:
    """Load an image into an engine, for its processor, under a name that nobody uses, which goes when the block ends.

    The names of the package stay with whatever the engine has under them.
    """
    assert package.image is not None
    part, manifest = of_platform(image, f"linux/{engine.client.version()['Arch']}")
    config, *parts = (Descriptor.read(one) for one in (manifest["config"], *manifest["layers"]))
    contents = {one.digest: image.place(one.digest) for one in (part, config, *parts)}
    tag = f"{_SMOKE}:{secrets.token_hex(8)}"
    load = layout.loading(config.digest, [one.digest for one in parts], [tag])
    note(f"loading {Path(package.image.at).name} into the engine")
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        tar = Path(work, "image.tar")
        named = {layout.CONTAINERD: f"docker.io/library/{tag}"}
        layout.write(tar, replace(part, platform="", annotations=named), contents, [load])
        identity = _load(engine, tar, tag)
    try:
        yield replace(package.image, id=identity)
    finally:
        _forget(engine, tag)


def _load(engine: Engine, tar: Path, tag: str) -> str:
    import docker
    from requests.exceptions import RequestException

    try:
        with tar.open("rb") as stream:
            engine.client.images.load(stream)
        return str(engine.client.images.get(tag).id)
    except (docker.errors.DockerException, RequestException) as error:
        raise Refused(
            f"the engine does not load the image: {' '.join(str(error).split())[:300]}",
            "See the engine's own log; engines before version 23 take no layers that are compressed with zstd.",
        ) from error


def _forget(engine: Engine, tag: str) -> None:
    import docker

    # another smoke test may be at it, under a name of its own
    with contextlib.suppress(docker.errors.APIError):
        engine.client.images.remove(tag)


@contextmanager
def _unpacked(package: Package, image: Layout, added: Mapping[str, Any]) -> Iterator[Running]:
    """Start what an image adds to its base with this machine's Python, as its config says."""
    assert package.image is not None
    host = wheels.host_platform()
    python = interpreters.find(package.python)
    if python is None or host not in package.platform.split(","):
        raise Unavailable(
            f"there is no engine, and no Python {package.python} for {package.platform} here to start the image with",
            f"Start a container engine, or package with --platform {host} and a --python that this machine has.",
        )
    _, manifest = of_platform(image, host)
    settings = document(image, Descriptor.read(manifest["config"]))["config"]
    ours = {layer.digest for layer in package.image.layers}
    parts = [part for part in map(Descriptor.read, manifest["layers"]) if part.digest in ours]
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        root, log, port = Path(work, "root"), Path(work, "log"), free_port()
        examine.unpack(image, parts, root)
        own = {"Cmd": added["command"]} if added.get("command") else {}
        more = {**added.get("environment", {}), "PORT": str(port), "MODELREL_HOST": "127.0.0.1"}
        program = program_of(python, {**settings, **own}, root, more)
        folder = root / str(settings.get("WorkingDir", "")).lstrip("/")
        with served(folder, program, port, log) as running:
            yield running


def program_of(python: Path, settings: Mapping[str, Any], root: Path, more: Mapping[str, str]) -> Program:
    """Return the program that a config starts, with its paths below `root`, and more variables.

    Raises `Unavailable` where that is no Python program.
    """
    name, *arguments = [*(settings.get("Entrypoint") or ()), *(settings.get("Cmd") or ())] or [""]
    if not Path(name).name.startswith("python"):
        raise Unavailable(
            f"without an engine there is nothing here to start {name!r} with", "Start a container engine."
        )
    stated = dict(line.partition("=")[::2] for line in settings.get("Env") or ())
    variables = {key: _moved(value, root) for key, value in stated.items() if key != "PATH"}
    paths = tuple(variables.pop("PYTHONPATH", "").split(os.pathsep))
    return Program(python=python, arguments=tuple(arguments), paths=paths, variables={**variables, **more})


def _moved(value: str, root: Path) -> str:
    """Return a value with each path of it that is in the image where it is now."""
    parts = value.split(os.pathsep)
    return os.pathsep.join(
        str(root / part.lstrip("/")) if part.startswith("/") and (root / part.lstrip("/")).exists() else part
        for part in parts
    )


def examined(package: Package, image: Layout) -> Iterator[Check]:
    """Yield what is seen of an image without starting it; raises `Refused` for one that is not as it should be."""
    assert package.image is not None
    yield Check(name="image", detail=examine.whole(image))
    ours = frozenset(layer.digest for layer in package.image.layers)
    platforms = package.platform.split(",")
    for platform, (part, manifest) in zip(platforms, examine.manifests(image), strict=True):
        if part.platform not in ("", platform):
            raise Refused(f"the image has {part.platform} where {platform} should be", "Package again with --force.")
        detail = examine.machines(image, manifest, wheels.MACHINES[platform], ours)
        yield Check(name=f"programs for {platform}", detail=detail)
