"""An AWS Lambda function: a zip that the Python runtimes take as it is, and a SAM template that deploys it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelrel import archive, render, wheels
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.targets import deployment, function, metadata, payload, slim
from modelrel.targets.bom import Contents
from modelrel.targets.delivery import Draft, Note, Places, Running, always
from modelrel.targets.invoked import TASK
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "onnxruntime", "numpy", "jinja2", "uv")
FORMATS: Final = ("onnx",)
OPTIONS: Final = frozenset({"python", "platform"})
VALUES: Final = deployment.VALUES
IMAGES: Final[tuple[str, ...]] = ()
stands = always  # the zip is all there is

PYTHONS: Final = ("3.12", "3.13", "3.14")
"""The runtimes on Amazon Linux 2023; older ones have a glibc that onnxruntime cannot be loaded with."""

ARCHITECTURES: Final = {"linux/amd64": "x86_64", "linux/arm64": "arm64"}
"""Platform -> Lambda's name for it."""

ZIP_BYTES: Final = 50 * 1024 * 1024
"""The largest zip that Lambda takes directly."""

UNZIPPED_BYTES: Final = 250 * 1024 * 1024
"""The most that a function may unpack to, layers included."""

_PREFERRED: Final = "3.13"
_LIBRARIES: Final = ("msgspec",)
_FUNCTION: Final = "function"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec(deployment.Deployment):
    """What the templates are about; they know it as `function`."""

    name: str
    version: str
    title: str
    zip: str
    python: str
    architecture: str
    licenses: str

    @property
    def runtime(self) -> str:
        """Lambda's name for the Python: `python3.13`."""
        return f"python{self.python}"

    @property
    def quoted_title(self) -> str:
        """The title as a YAML (and JSON) string."""
        return json.dumps(self.title)


def options(given: PackageOptions) -> PackageOptions:
    """Fill in: the Python modelrel runs on where Lambda has it, x86_64."""
    running = "{}.{}".format(*sys.version_info[:2])
    python = given.python or (running if running in PYTHONS else _PREFERRED)
    if python not in PYTHONS:
        raise Invalid(
            f"AWS Lambda runs no Python {python} that onnxruntime takes", f"Choose --python {'|'.join(PYTHONS)}."
        )
    deployment.deployment(given.values)
    return replace(given, python=python, platform=wheels.check_platform(given.platform or "linux/amd64"))


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `function` and `parity`."""
    return {"function": _spec(parity, options, licenses), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the zip, its lock, the SAM template and what else the templates render to.

    Raises `Refused` where the zip or what it unpacks to is beyond Lambda's limits.
    """
    lock = places.previous / payload.LOCK
    shape = payload.Shape(libraries=_LIBRARIES, wheels_at="", lock=lock)
    load = trimmed(payload.gather(parity, options, shape, note), options, TASK)
    fetched = load.wheels
    spec = _spec(parity, options, "")
    known = variables(parity, options, wheels.licenses(fetched.folder))
    render.render("lambda", places.into, known, options.templates)
    inside = places.into / _FUNCTION
    own = {path.relative_to(inside).as_posix(): path for path in archive.walk(inside)}
    written = metadata.write(parity, load, own, Contents(kind="application"), places.into)
    files = {**load.files, **own, **written}
    weighed = {"metadata": written.values(), "handler": (inside / "handler.py",)}
    parts = {**load.parts, **{name: sum(one.stat().st_size for one in paths) for name, paths in weighed.items()}}
    _fits(sum(path.stat().st_size for path in files.values()), UNZIPPED_BYTES, "unpacked", parts)
    note(f"writing {spec.zip}")
    archive.write_zip(places.into / spec.zip, list(files.items()))
    shutil.rmtree(inside)
    size = (places.into / spec.zip).stat().st_size
    _fits(size, ZIP_BYTES, "zipped", parts)
    return Draft(
        artifact=spec.zip,
        python=options.python,
        platform=options.platform,
        size=size,
        parts=parts,
        notes=(*fetched.notes, *uncompiled(load, options), f"deploy it with: {_deploy(spec, places.previous)}"),
    )


def trimmed(load: payload.Payload, options: PackageOptions, at: str) -> payload.Payload:
    """Return a payload as a function carries it: what answering needs, its modules compiled for the folder `at`.

    The handler, which people change, is left as it is: a compiled one would be taken for it.
    """
    needed = slim.slim(load) if deployment.flag(options.values, "slim", default=True) else load
    return slim.with_bytecode(needed, at, options.python)


def uncompiled(load: payload.Payload, options: PackageOptions) -> tuple[str, ...]:
    """Say so where a function's modules could not be compiled."""
    if "bytecode" in load.parts:
        return ()
    python = options.python
    return (f"there is no Python {python} here to compile the modules with: each cold start does it (some 0.3 s)",)


def _spec(parity: ParityReport, options: PackageOptions, licenses: str) -> FunctionSpec:
    name, version = payload.slug(parity.source.name), payload.version_slug(parity)
    architecture = ARCHITECTURES[options.platform]
    return FunctionSpec(
        name=name,
        version=version,
        title=parity.source.label,
        zip=f"{name}-{version}-py{options.python.replace('.', '')}-{architecture}.zip",
        python=options.python,
        architecture=architecture,
        licenses=licenses,
        **dataclasses.asdict(deployment.deployment(options.values)),
    )


def _deploy(spec: FunctionSpec, folder: Path) -> str:
    template = folder / "template.yaml"
    return f"sam deploy --template-file {template} --stack-name {spec.name} --resolve-s3 --capabilities CAPABILITY_IAM"


def _fits(size: int, limit: int, how: str, parts: Mapping[str, int]) -> None:
    if size <= limit:
        return
    biggest = sorted(parts.items(), key=lambda part: -part[1])[:4]
    listed = ", ".join(f"{name} {part / 1e6:.1f} MB" for name, part in biggest)
    raise Refused(
        f"the function has {size / 1e6:.1f} MB {how}, AWS Lambda takes {limit / 1e6:.1f}; the biggest parts: {listed}",
        "Make the model smaller (fewer or shallower trees), or deliver it as an image: --target docker.",
    )


def launch(package: Package, note: Note) -> AbstractContextManager[Running]:
    """Unpack the zip and let AWS's own runtime client drive it."""
    return function.launch(package, note)
