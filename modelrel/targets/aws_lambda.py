"""An AWS Lambda function: a zip that the Python runtimes take as it is, and a SAM template that deploys it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelrel import archive, render, wheels
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.targets import function, payload
from modelrel.targets.delivery import Draft, Note, Places, Running, always
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "onnxruntime", "numpy", "jinja2", "uv")
FORMAT: Final = "onnx"
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
class FunctionSpec:
    """What the templates are about; they know it as `function`."""

    name: str
    version: str
    title: str
    zip: str
    python: str
    architecture: str
    licenses: str
    memory_mb: int = 1769
    timeout_s: int = 29

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
    if given.base_image or given.tags:
        raise Invalid("--base-image and --tag are about images, the lambda target makes a zip", "Leave them out.")
    return PackageOptions(
        python=python,
        platform=wheels.check_platform(given.platform or "linux/amd64"),
        render_only=given.render_only,
        templates=given.templates,
    )


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `function` and `parity`."""
    return {"function": _spec(parity, options, licenses), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the zip, its lock, the SAM template and what else the templates render to.

    Raises `Refused` where the zip or what it unpacks to is beyond Lambda's limits.
    """
    lock = places.previous / payload.LOCK
    fetched = payload.fetch(parity, _LIBRARIES, options, lock, note)
    load = payload.gather(parity, fetched)
    spec = _spec(parity, options, "")
    archive.write(places.into / payload.LOCK, fetched.lock.encode())
    known = variables(parity, options, wheels.licenses(fetched.folder))
    render.render("lambda", places.into, known, options.templates)
    inside = places.into / _FUNCTION
    files = {**load.files, payload.LOCK: places.into / payload.LOCK}
    files |= {path.relative_to(inside).as_posix(): path for path in archive.walk(inside)}
    archive.write(inside / payload.MANIFEST, payload.manifest(parity, files).encode())
    files[payload.MANIFEST] = inside / payload.MANIFEST
    parts = {**load.parts, "handler": (inside / "handler.py").stat().st_size}
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
        notes=(*fetched.notes, f"deploy it with: {_deploy(spec, places.previous)}"),
    )


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
