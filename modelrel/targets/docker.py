"""A container image: a build context that anybody can build, and the image itself where an engine answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from modelrel import archive, interpreters, render, wheels
from modelrel.delivered import Image, Package
from modelrel.errors import Invalid, Unavailable
from modelrel.targets import as_is, container, images, metadata, payload
from modelrel.targets.bom import Contents
from modelrel.targets.delivery import Draft, Note, Places, Running
from modelrel.targets.engine import Engine
from modelrel.targets.loaded import launch_image
from modelrel.targets.process import Program, run_server
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "onnxruntime", "numpy", "jinja2", "uv")
FORMATS: Final = ("onnx", "python", "tflite")
OPTIONS: Final = frozenset({"python", "platform", "base_image", "tags", "render_only", "builder", "manifest", "push"})
VALUES: Final = as_is.VALUES
IMAGES: Final[tuple[str, ...]] = ()
BUILDERS: Final = ("auto", "engine", "oci")
SERVER: Final = ("uvicorn", "httptools", "uvloop", "msgspec")
"""What the server in an image needs."""


def options(given: PackageOptions) -> PackageOptions:
    """Fill in: the Python modelrel runs on, this machine's platform, the official slim image."""
    python = wheels.check_python(given.python or "{}.{}".format(*sys.version_info[:2]))
    platform = wheels.check_platform(given.platform or wheels.host_platform())
    container.check_tags(given.tags)
    as_is.checked(given)
    for option, value, known in (("builder", given.builder, BUILDERS), ("manifest", given.manifest, images.KINDS)):
        if value and value not in known:
            raise Invalid(f"--{option} is {value!r}", f"Choose one of: {', '.join(known)}.")
    return replace(given, python=python, platform=platform, base_image=given.base_image or f"python:{python}-slim")


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `image` and `parity`."""
    return {"image": container.spec(parity, options, licenses), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out `context/`, and build it where an engine answers and the options do not forbid it."""
    context = places.into / "context"
    context.mkdir()
    lock = places.previous / "context" / payload.LOCK
    shape = payload.Shape(libraries=SERVER, wheels_at="site-packages/", lock=lock)
    load = container.compiled(payload.gather(parity, options, shape, note), options)
    fetched = load.wheels
    payload.copy(load.files, context)
    spec = container.spec(parity, options, load.licenses, pickle=load.verdict)
    rendered = render.render("docker", context, {"image": spec, "parity": parity}, options.templates)
    others = {path.relative_to(context).as_posix(): path for path in rendered}
    base = images.base_name(options.base_image)
    written = metadata.write(parity, load, others, Contents(kind="container", base=base), context)
    groups = {**load.groups, container.METADATA: written}
    inside = container.Inside(groups=groups, load=load, folder=places.into / "image")
    image, notes = (None, ()) if options.render_only else _image(parity, options, places, inside, note)
    if image is None:
        tag = container.tags(parity, options)[0]
        at = places.previous / "context"
        notes = (*notes, f"no image was built; build it with: docker build -t {tag} {at}")
    return Draft(
        artifact="context",
        python=options.python,
        platform=options.platform,
        size=sum(path.stat().st_size for path in archive.walk(context)),
        parts={**load.parts, "metadata": sum(path.stat().st_size for path in written.values())},
        image=image,
        notes=(*fetched.notes, *container.uncompiled(load, options), *notes),
    )


def _image(
    parity: ParityReport, options: PackageOptions, places: Places, inside: container.Inside, note: Note
) -> tuple[Image | None, tuple[str, ...]]:
    """Build the context, or write the image ourselves; where neither can be done (and need not), say why."""
    missing = ""
    if options.builder != "oci":
        try:
            return _build(places.into / "context", parity, options, note), ()
        except _NoEngine as error:
            if options.builder == "engine":
                raise
            missing = error.message
    try:
        image = container.write(parity, options, places, {options.platform: inside}, note)
    except Unavailable as error:
        if options.builder == "oci":
            raise
        return None, (f"{missing}, and {error.message}",)
    file = places.previous / Path(image.at).name
    return image, (f"modelrel wrote the image itself; load it with: docker load -i {file}",)


class _NoEngine(Unavailable):
    """No engine answers."""


def _build(context: Path, parity: ParityReport, options: PackageOptions, note: Note) -> Image:
    try:
        engine = Engine.connect()
    except Unavailable as error:
        raise _NoEngine(error.message, error.hint) from error
    with engine:
        engine.have_base(options.base_image, options.platform, options.python, note)
        return engine.build(context, container.tags(parity, options), options.base_image, options.platform, note)


def stands(package: Package, options: PackageOptions) -> bool:
    """Return whether the image is in the engine; without one, whether there still is no engine to build it."""
    if package.image is not None and package.image.at:
        return images.stands(package, options)
    if package.image is None and options.render_only:
        return True
    try:
        engine = Engine.connect()
    except Unavailable:
        return True
    with engine:
        return package.image is not None and engine.holds(package.image)


@contextmanager
def launch(package: Package, note: Note, settings: Mapping[str, Any] | None = None) -> Iterator[Running]:
    """Start the image in the engine; where none was built, the context as a plain process.

    `settings` (those of `Engine.run`) are what a platform adds; a process takes command and environment of them.
    """
    if package.image is not None and package.image.at:
        with launch_image(package, note, settings) as running:
            yield running
        return
    if package.image is not None:
        with Engine.connect() as engine, engine.run(package.image, note, settings) as running:
            yield running
        return
    added = settings or {}
    python = interpreters.find(package.python)
    if python is None or package.platform != wheels.host_platform():
        raise Unavailable(
            f"there is no image, and no Python {package.python} for {package.platform} here to start the context with",
            f"Start a container engine and package again, or package with --python {sys.version_info[0]}."
            f"{sys.version_info[1]} --platform {wheels.host_platform()}.",
        )
    note(f"no image was built: starting the context with {python.name}")
    context = archive.within(package.folder, package.artifact)
    own = {"MODELREL_PYTHON": as_is.FOLDER} if (context / as_is.FOLDER).is_dir() else {}
    program = Program(
        python=python,
        arguments=("-m", "serving", *added.get("command", ()), "model", "--host", "127.0.0.1", "--port"),
        paths=("site-packages", ""),
        variables={**own, **added.get("environment", {})},
    )
    with run_server(context, program) as running:
        yield running
