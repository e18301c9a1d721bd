"""A container image: a build context that anybody can build, and the image itself where an engine answers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelrel import __version__, archive, interpreters, render, wheels
from modelrel.delivered import Image, Package
from modelrel.errors import Invalid, Unavailable
from modelrel.targets import payload
from modelrel.targets.delivery import Draft, Note, Places, Running
from modelrel.targets.engine import Engine
from modelrel.targets.process import Program, run_server
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "onnxruntime", "numpy", "jinja2", "uv")
FORMAT: Final = "onnx"
PREFIX: Final = "io.modelrel."
"""Our reverse-DNS prefix for labels."""

_SERVER: Final = ("uvicorn", "httptools", "uvloop", "msgspec")
# grammar: distribution, reference/regexp.go; here: [host[:port]/]path[:tag]
_PATH: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?"
_TAG: Final = re.compile(rf"(?:{_HOST}/)?{_PATH}(?:/{_PATH})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """An image label; `quoted` is its value as a Dockerfile writes it."""

    key: str
    value: str

    @property
    def quoted(self) -> str:
        """The value in double quotes, with what Docker would expand or end the line at made harmless."""
        plain = re.sub(r"\s+", " ", self.value)
        return '"' + plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What the Dockerfile template is about; the templates know it as `image`."""

    name: str
    version: str
    base: str
    python: str
    platform: str
    labels: tuple[Label, ...]
    port: int = 8080
    user: int = 65532
    app: str = "/opt/modelrel"
    models: str = "/models"


def options(given: PackageOptions) -> PackageOptions:
    """Fill in: the Python modelrel runs on, this machine's platform, the official slim image."""
    python = wheels.check_python(given.python or "{}.{}".format(*sys.version_info[:2]))
    platform = wheels.check_platform(given.platform or wheels.host_platform())
    for tag in given.tags:
        if not _TAG.fullmatch(tag):
            raise Invalid(f"{tag!r} is not an image name that an engine takes", "Write it as churn:7, in lower case.")
    return PackageOptions(
        python=python,
        platform=platform,
        base_image=given.base_image or f"python:{python}-slim",
        tags=given.tags,
        render_only=given.render_only,
        templates=given.templates,
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `image` and `parity`."""
    return {"image": _spec(parity, options, licenses), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out `context/`, and build it where an engine answers and the options do not forbid it."""
    context = places.into / "context"
    context.mkdir()
    lock = places.previous / "context" / payload.LOCK
    fetched = payload.fetch(parity, _SERVER, options, lock, note)
    load = payload.gather(parity, fetched, "site-packages/")
    payload.copy(load.files, context)
    archive.write(context / payload.LOCK, fetched.lock.encode())
    known = variables(parity, options, wheels.licenses(fetched.folder))
    render.render("docker", context, known, options.templates)
    files = {path.relative_to(context).as_posix(): path for path in archive.walk(context)}
    archive.write(context / payload.MANIFEST, payload.manifest(parity, files).encode())
    image, notes = (None, ()) if options.render_only else _build(context, parity, options, note)
    if image is None:
        tag = _tags(parity, options)[0]
        at = places.previous / "context"
        notes = (*notes, f"no image was built; build it with: docker build -t {tag} {at}")
    return Draft(
        artifact="context",
        python=options.python,
        platform=options.platform,
        size=sum(path.stat().st_size for path in archive.walk(context)),
        parts=load.parts,
        image=image,
        notes=(*fetched.notes, *notes),
    )


def _spec(parity: ParityReport, options: PackageOptions, licenses: str) -> ImageSpec:
    labels = {**_standard_labels(parity, options, licenses), **_model_labels(parity)}
    return ImageSpec(
        name=payload.slug(parity.source.name),
        version=payload.version_slug(parity),
        base=options.base_image,
        python=options.python,
        platform=options.platform,
        labels=tuple(Label(key=key, value=value) for key, value in labels.items() if value),
    )


def _standard_labels(parity: ParityReport, options: PackageOptions, licenses: str) -> Mapping[str, str]:
    # keys: OCI image-spec, annotations.md
    source = parity.source
    facts = {
        "title": source.name,
        "description": f"{source.label}, served over the Open Inference Protocol",
        "version": source.version,
        "revision": source.git_commit,
        "source": source.tags.get("mlflow.source.git.repoURL", ""),
        "created": payload.created(parity),
        "licenses": licenses,
        "base.name": options.base_image,
    }
    return {f"org.opencontainers.image.{key}": value for key, value in facts.items()}


def _model_labels(parity: ParityReport) -> Mapping[str, str]:
    source = parity.source
    worst = max((output.max_abs_error for output in parity.outputs), default=0.0)
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
        "parity.max-abs-error": f"{worst:g}",
    }
    return {PREFIX + key: value for key, value in facts.items()}


def _tags(parity: ParityReport, options: PackageOptions) -> tuple[str, ...]:
    return options.tags or (f"{payload.slug(parity.source.name)}:{payload.version_slug(parity)}",)


def _build(
    context: Path, parity: ParityReport, options: PackageOptions, note: Note
) -> tuple[Image | None, tuple[str, ...]]:
    """Build the context; where no engine answers, return no image and why."""
    try:
        engine = Engine.connect()
    except Unavailable as error:
        return None, (error.message,)
    with engine:
        engine.have_base(options.base_image, options.platform, options.python, note)
        return engine.build(context, _tags(parity, options), options.base_image, options.platform, note), ()


def stands(package: Package, options: PackageOptions) -> bool:
    """Return whether the image is in the engine; without one, whether there still is no engine to build it."""
    if package.image is None and options.render_only:
        return True
    try:
        engine = Engine.connect()
    except Unavailable:
        return True
    with engine:
        return package.image is not None and engine.holds(package.image)


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the image in the engine; where none was built, the context as a plain process."""
    if package.image is not None:
        with Engine.connect() as engine, engine.run(package.image, note) as running:
            yield running
        return
    python = interpreters.find(package.python)
    if python is None or package.platform != wheels.host_platform():
        raise Unavailable(
            f"there is no image, and no Python {package.python} for {package.platform} here to start the context with",
            f"Start a container engine and package again, or package with --python {sys.version_info[0]}."
            f"{sys.version_info[1]} --platform {wheels.host_platform()}.",
        )
    note(f"no image was built: starting the context with {python.name}")
    context = archive.within(package.folder, package.artifact)
    command = ("-m", "serving", "model", "--host", "127.0.0.1", "--port")
    with run_server(context, Program(python=python, arguments=command, paths=("site-packages", ""))) as running:
        yield running
