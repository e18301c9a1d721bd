"""An AWS Lambda function as a container image: AWS's runtime client on any base with Python, and a SAM template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from modelrel import archive, render
from modelrel.delivered import Image
from modelrel.errors import Invalid, Unavailable
from modelrel.targets import as_is, aws_lambda, container, deployment, docker, image_function, metadata, payload, slim
from modelrel.targets.bom import Contents
from modelrel.targets.delivery import Draft, Note, Places
from modelrel.targets.engine import Engine
from modelrel.targets.images import Body, Wanted, base_name, base_of, pin, read_settings, write_image
from modelrel.targets.invoked import TASK
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "onnxruntime", "numpy", "jinja2", "uv")
FORMATS: Final = docker.FORMATS
OPTIONS: Final = frozenset({"python", "platform", "base_image", "tags", "render_only", "builder", "push"})
VALUES: Final = {**deployment.VALUES, **as_is.VALUES}
IMAGES: Final[tuple[str, ...]] = ()
BUILDERS: Final = docker.BUILDERS
stands = docker.stands
launch = image_function.launch

_LIBRARIES: Final = ("awslambdaric", "msgspec")
_NAME: Final = "lambda-image"
_CONTEXT: Final = "context"
_HANDLER: Final = "handler.py"
_ECR: Final = "ACCOUNT.dkr.ecr.REGION.amazonaws.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec(deployment.Deployment):
    """What the templates know as `function`: `tag` is the image here, `uri` that in ECR, `tar` what modelrel writes."""

    name: str
    version: str
    title: str
    python: str
    architecture: str
    licenses: str
    tag: str
    uri: str
    tar: str

    @property
    def quoted_title(self) -> str:
        """The title as a YAML (and JSON) string."""
        return json.dumps(self.title)


def options(given: PackageOptions) -> PackageOptions:
    """Fill in: the Python modelrel runs on, x86_64, the official slim image."""
    chosen = docker.options(replace(given, platform=given.platform or "linux/amd64"))
    if chosen.render_only and chosen.builder:
        raise Invalid("--render-only builds nothing, --builder says who builds", "Leave one of the two out.")
    deployment.deployment(given.values)
    return chosen


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `function`, `image` and `parity`."""
    name, version = payload.slug(parity.source.name), payload.version_slug(parity)
    function = FunctionSpec(
        name=name,
        version=version,
        title=parity.source.label,
        python=options.python,
        architecture=aws_lambda.ARCHITECTURES[options.platform],
        licenses=licenses,
        tag=container.tags(parity, options)[0],
        uri=_uri(parity, options),
        tar=_tar(parity),
        **asdict(deployment.deployment(options.values)),
    )
    return {"function": function, "image": container.spec(parity, options, licenses), "parity": parity}


def _uri(parity: ParityReport, options: PackageOptions) -> str:
    """Return where the image is to be in ECR; account and region are the user's to fill in unless `--push` has them."""
    return options.push or f"{_ECR}/{payload.slug(parity.source.name)}:{payload.version_slug(parity)}"


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out `context/`, and make the image of it: written by ourselves, or built by an engine.

    The engine comes second, for a base image that it alone has; `--builder` says otherwise. Without both the context
    is all there is, unless one of them was asked for.
    """
    context = places.into / _CONTEXT
    lock = places.previous / _CONTEXT / payload.LOCK
    shape = payload.Shape(libraries=_LIBRARIES, wheels_at="site-packages/", lock=lock)
    load = _trimmed(payload.gather(parity, options, shape, note), options, parity.converted.format)
    known = {**variables(parity, options, load.licenses)}
    known["image"] = container.spec(parity, options, load.licenses, pickle=load.verdict)
    rendered = render.render(_NAME, places.into, known, options.templates)
    others = {path.relative_to(context).as_posix(): path for path in rendered if context in path.parents}
    payload.copy(load.files, context)
    about = Contents(kind="container", base=base_name(options.base_image))
    written = metadata.write(parity, load, others, about, context)
    groups = {**load.groups, container.METADATA: {**written, _HANDLER: context / _HANDLER}}
    image, notes = (None, ()) if options.render_only else _image(parity, options, places, groups, note)
    return Draft(
        artifact=Path(image.at).name if image and image.at else _CONTEXT,
        python=options.python,
        platform=options.platform,
        size=image.size if image else sum(path.stat().st_size for path in archive.walk(context)),
        parts={**load.parts, "metadata": sum(path.stat().st_size for path in written.values())},
        image=image,
        notes=(
            *load.wheels.notes,
            *aws_lambda.uncompiled(load, options),
            *notes,
            *_how(parity, options, places, image),
        ),
    )


def _trimmed(load: payload.Payload, options: PackageOptions, form: str) -> payload.Payload:
    if form != "onnx":  # what the slimmed wheels are known to answer with
        return container.compiled(load, options)
    needed = slim.slim(load, "site-packages/") if deployment.flag(options.values, "slim", default=True) else load
    return slim.with_bytecode(needed, container.APP, options.python)


def _image(
    parity: ParityReport, options: PackageOptions, places: Places, groups: Mapping[str, Mapping[str, Path]], note: Note
) -> tuple[Image | None, tuple[str, ...]]:
    """Return the image and what there is to say; None where neither way of making it is open."""
    missing = ""
    if options.builder != "engine":
        try:
            return _write(parity, options, places, groups, note), ()
        except Unavailable as error:
            if options.builder == "oci":
                raise
            missing = error.message
            note(f"{missing}: asking the container engine")
    try:
        with Engine.connect() as engine:
            base, tags = options.base_image, container.tags(parity, options)
            engine.have_base(base, options.platform, options.python, note)
            return engine.build(places.into / _CONTEXT, tags, base, options.platform, note), ()
    except Unavailable as error:
        if options.builder == "engine":
            raise
        return None, (f"{missing}, and {error.message}",)


def _write(
    parity: ParityReport, options: PackageOptions, places: Places, groups: Mapping[str, Mapping[str, Path]], note: Note
) -> Image:
    base = base_of(options.base_image, options.platform, options.python, note)
    settings = read_settings(places.into / _CONTEXT / "config.json")
    labels = {**settings.get("Labels", {}), **pin(base)}
    file = _tar(parity)
    note(f"writing {file}")
    placed = {group: {_at(name): path for name, path in files.items()} for group, files in groups.items()}
    at = places.previous.relative_to(parity.source.folder).as_posix()
    wanted = Wanted(
        file=places.into / file,
        at=f"{at}/{file}",
        tags=container.tags(parity, options),
        kind="docker",  # Lambda takes no OCI index, and Docker's manifests from everybody
        annotations={},
        created=payload.created(parity),
    )
    return write_image([Body(base=base, groups=placed, settings={**settings, "Labels": labels})], wanted)


def _at(name: str) -> str:
    """Return where a file of a delivery is in the image, relative to its root."""
    if name == _HANDLER:
        return f"{TASK.strip('/')}/{name}"
    return (name.replace("model/", "models/", 1) if name.startswith("model/") else f"{container.APP}/{name}").strip("/")


def _tar(parity: ParityReport) -> str:
    return f"{payload.slug(parity.source.name)}-{payload.version_slug(parity)}.tar"


def _how(parity: ParityReport, options: PackageOptions, places: Places, image: Image | None) -> tuple[str, ...]:
    """Return how to go on from here: build, push, deploy."""
    name, version = payload.slug(parity.source.name), payload.version_slug(parity)
    tag, uri, top = container.tags(parity, options)[0], _uri(parity, options), places.previous
    load = f"docker load -i {top / _tar(parity)}" if image and image.at else ""
    build = f"docker build -t {tag} {top / _CONTEXT}" if image is None else load
    host = uri.partition("/")[0]
    login = f"aws ecr get-login-password | docker login --username AWS --password-stdin {host}"
    push = " && ".join(step for step in (build, login, f"docker tag {tag} {uri}", f"docker push {uri}") if step)
    deploy = f"aws cloudformation deploy --template-file {top / 'template.yaml'} --stack-name {name}"
    deploy += f" --parameter-overrides ImageUri={uri} --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND"
    return (f"put version {version} into ECR with: {push}", f"deploy it with: {deploy}")
