"""An npm package for Node and browsers: the model, a module over onnxruntime-web, types, and a page that asks it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final

from modelrel import archive, render, served
from modelrel.delivered import Check, Package
from modelrel.errors import Invalid, Refused
from modelrel.targets import bom, payload
from modelrel.targets import process as processes
from modelrel.targets.delivery import Draft, Note, Places, Program, always
from modelrel.targets.npm import naming, runtime, tarball, typings
from modelrel.values import ConvertedModel, PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "jinja2")
FORMATS: Final = ("onnx",)
OPTIONS: Final[frozenset[str]] = frozenset()
VALUES: Final[Mapping[str, str]] = {
    "name": "the package's name, for example @acme/churn (the model's)",
    "license": "what package.json says, an SPDX expression (UNLICENSED)",
    "runtime": "dependency: npm installs onnxruntime-web; bundled: it is in the package (dependency)",
}
IMAGES: Final[tuple[str, ...]] = ()
stands = always  # the folder is all there is

FOLDER: Final = "package"
"""Where the files of the tarball are, beside it."""

_ANY: Final = "any"
_RUNTIMES: Final = ("dependency", "bundled")
_SHOWN: Final = 2  # rows that the page starts with
_ASK: Final = Path(__file__).with_name("ask.mjs")


@dataclass(frozen=True, slots=True, kw_only=True)
class NpmSpec:
    """What the templates are about; they know it as `npm`. `spec` is what the module knows of the model, as JSON."""

    name: str
    version: str
    title: str
    origin: str
    description: str
    license: str
    tarball: str
    bundled: bool
    kind: str
    spec: str
    label: str
    classes: str
    inputs: tuple[typings.Typed, ...]
    outputs: tuple[typings.Typed, ...]
    example: str
    rtol: float
    atol: float
    imported: str
    runtime_version: str = runtime.VERSION
    range: str = runtime.RANGE
    node: str = runtime.NODE
    shown: int = _SHOWN

    @property
    def mapped(self) -> str:
        """Where the page finds the runtime that npm installed beside the package."""
        return f"{'../' * (3 if '/' in self.name else 2)}{runtime.WEB}/dist/{runtime.BUNDLE}"


def options(given: PackageOptions) -> PackageOptions:
    """Return the options: the package runs wherever its runtime does. Raises `Invalid` for a setting that is none."""
    for name, sort in (("python", "a Python"), ("platform", "a platform")):
        if getattr(given, name) not in ("", _ANY):
            raise Invalid(f"an npm package has not {sort} of its own", f"Leave out --{name}.")
    values = dict(given.values)
    if values.get("name"):
        naming.check(values["name"])
    if values.get("runtime", _RUNTIMES[0]) not in _RUNTIMES:
        raise Invalid(f"runtime is {values['runtime']!r}", f"Choose one of: {', '.join(_RUNTIMES)}.")
    return replace(given, python=_ANY, platform=_ANY)


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `npm` and `parity`."""
    del licenses
    converted, chosen = parity.converted, options.values
    name = chosen.get("name") or naming.package(parity.source.name)
    version = naming.version(parity.source.version, payload.version_slug(parity))
    bundled = chosen.get("runtime") == "bundled"
    label = next(filter(None, (typings.labels(converted, spec.name) for spec in served.outputs(converted))), ())
    spec = NpmSpec(
        name=name,
        version=version,
        title=" ".join(parity.source.label.split()).replace("*/", "* /"),
        origin=f"run {' '.join(parity.source.run_id.split()) or 'unknown'}".replace("*/", "* /"),
        description=f"The model {parity.source.label}, verified against its original",
        license=chosen.get("license") or "UNLICENSED",
        tarball=f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz",
        bundled=bundled,
        kind=converted.signature.kind,
        spec=_spec(parity),
        label=typings.union(label),
        classes=f"[{', '.join(map(typings.literal, converted.classes))}]",
        inputs=tuple(map(typings.of_input, served.inputs(converted))),
        outputs=tuple(typings.of_output(one, typings.labels(converted, one.name)) for one in served.outputs(converted)),
        example=_example(parity),
        rtol=parity.tolerance.rtol,
        atol=parity.tolerance.atol,
        imported=f"./runtime/{runtime.BUNDLE}" if bundled else f"{runtime.WEB}/wasm",
    )
    return {"npm": spec, "parity": parity}


def _spec(parity: ParityReport) -> str:
    """Return what `index.mjs` knows of the model."""
    converted = parity.converted
    through = {spec.name for spec in served.passed(converted.interface, converted.signature.kind)}
    chosen = converted.interface.outputs
    inputs = [
        {"name": one.name, "datatype": one.datatype, "shape": one.shape, "required": one.required}
        | ({"passed": True} if one.name in through else {})
        for one in served.inputs(converted)
    ]
    outputs = [
        {"name": one.name, "own": chosen.get(one.name, one.name), "datatype": one.datatype}
        | ({"passed": True} if one.name in through else {})
        | ({"plain": True} if typings.labels(converted, one.name) and "64" in one.datatype else {})
        for one in served.outputs(converted)
    ]
    content = {
        "name": parity.source.name,
        "version": parity.source.version,
        "kind": converted.signature.kind,
        "inputs": inputs,
        "outputs": outputs,
    }
    return json.dumps(content, indent=2)


def _example(parity: ParityReport) -> str:
    """Return the first golden row as `predict` takes it, for README."""
    content = json.loads(archive.within(parity.source.folder, parity.golden.path).read_bytes())["inputs"]
    if parity.converted.signature.kind == "columns":
        text = json.dumps([{name: values[0][0] for name, values in content.items()}], ensure_ascii=False)
    else:
        text = json.dumps({name: values[:1] for name, values in content.items()}, ensure_ascii=False)
    return text if len(text) <= 400 else "rows"


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out the package, and a tarball of it. Raises `Refused` for a model that JavaScript has no equal of."""
    _check(parity.converted)
    known = variables(parity, options)
    spec = known["npm"]
    assert isinstance(spec, NpmSpec)
    stage = places.into / FOLDER
    render.render("npm", stage, known, options.templates)
    payload.copy({path.name: path for path in payload.model_files(parity)}, stage)
    library = f"pkg:npm/{runtime.WEB}@{runtime.VERSION}"
    inside = bom.Contents(kind="library", needs=(library,))
    bundle: dict[str, Path] = {}
    if spec.bundled:
        inside = bom.Contents(kind="library", carries=(library,))
        dist = runtime.modules(note) / runtime.WEB / "dist"
        bundle = {f"runtime/{name}": dist / name for name in runtime.FILES}
        bundle["runtime/LICENSE"] = runtime.PINNED / "LICENSE.onnxruntime"
        payload.copy(bundle, stage)
    archive.write(stage / bom.NAME, bom.bill(parity, inside))
    tarball.write(
        places.into / spec.tarball, {path.relative_to(stage).as_posix(): path for path in archive.walk(stage)}
    )
    parts = {
        "model": (stage / "model.onnx").stat().st_size,
        **({runtime.WEB: sum(path.stat().st_size for path in bundle.values())} if bundle else {}),
    }
    return Draft(
        artifact=spec.tarball,
        python=options.python,
        platform=options.platform,
        size=(places.into / spec.tarball).stat().st_size,
        parts=parts,
        notes=(f"install it with: npm install {places.previous / spec.tarball}",),
    )


def _check(converted: ConvertedModel) -> None:
    if converted.adapter:
        what = "decodes images" if converted.interface.image else "cuts texts"
        raise Refused(
            f"an adapter in Python {what} in front of this model, and a package for JavaScript has none",
            "Deliver it with --target docker, oci or lambda"
            + (", or leave [interface] image out and send pixels." if converted.interface.image else "."),
        )
    specs = (*served.inputs(converted), *served.outputs(converted))
    if strange := [spec for spec in specs if spec.datatype not in typings.DATATYPES]:
        raise Refused(
            f"{strange[0].name!r} is {strange[0].datatype}, which has no array in every Node and browser",
            "Let the model take and give FP32.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _NodeProgram:
    """A module, run by Node."""

    node: Path
    arguments: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return (str(self.node), *self.arguments)

    def environment(self, folder: PurePath) -> dict[str, str]:
        # the `node` of a wheel is a script beside its Python
        return {"LANG": "C.UTF-8", "HOME": str(folder), "PATH": f"{self.node.parent}:/usr/bin:/bin"}


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Program]:
    """Install the tarball in an empty folder, beside onnxruntime-web as locked, and ask it with Node.

    Raises `Unavailable` where Node or onnxruntime-web is not to be had, `Refused` where the tarball is none of ours.
    """
    path, version = runtime.node()
    artifact = archive.within(package.folder, package.artifact)
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        top, log = Path(work, "app"), Path(work, "log")
        opened = Path(work, "package")
        names = tarball.unpacked(artifact, opened)
        said = _said(opened)
        home = top / "node_modules" / naming.check(said["name"])
        home.parent.mkdir(parents=True)
        opened.rename(home)
        if said.get("dependencies"):
            shutil.copytree(runtime.modules(note) / runtime.WEB, top / "node_modules" / runtime.WEB)
        shutil.copyfile(_ASK, top / _ASK.name)
        note(f"starting Node {version}")
        begun = time.perf_counter()
        program = _NodeProgram(node=path, arguments=(_ASK.name, said["name"]))
        with processes.started(top, program, log, talks=True) as process:

            def ask(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
                return processes.asked(process, {"inputs": inputs}, log)

            yield Program(
                runner=f"Node {version}, {runtime.WEB} {runtime.VERSION}",
                ask=ask,
                started=begun,
                memory_bytes=lambda: processes.resident(process.pid),
                examined=lambda: _examined(package, home, names, said),
            )


def _said(opened: Path) -> dict[str, Any]:
    try:
        said = json.loads((opened / "package.json").read_bytes())
        if re.fullmatch(naming.SEMVER, said["version"]) and said["name"]:
            return dict(said)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Refused("package.json in the tarball is none of npm's", "See the template npm/package.json.j2.")


def _examined(package: Package, home: Path, names: tuple[str, ...], said: Mapping[str, Any]) -> Iterator[Check]:
    if archive.sha256(home / "model.onnx") != package.converted.file.sha256:
        raise Refused("the model in the tarball is another than the one that was verified", "Package it again.")
    yield Check(name="the model inside", detail=package.converted.file.sha256)
    beside = archive.within(package.folder, package.artifact).parent / FOLDER
    listed = {path.relative_to(home).as_posix(): archive.sha256(path) for path in archive.walk(home)}
    if listed != {path.relative_to(beside).as_posix(): archive.sha256(path) for path in archive.walk(beside)}:
        raise Refused(f"the tarball holds other files than the folder {FOLDER}", "Package the model again.")
    yield Check(name="the tarball is the folder", detail=f"{len(listed)} files")
    pointed = [said["main"], said["types"], *_targets(said["exports"])]
    lacking = sorted({one for one in pointed if one.removeprefix("./") not in names})
    if lacking:
        raise Refused(f"package.json names {lacking[0]}, which is not in the tarball", "See the templates of npm.")
    yield Check(name="package.json", detail=f"{said['name']} {said['version']}, {len(names)} files")


def _targets(exports: object) -> Iterator[str]:
    if isinstance(exports, str):
        yield exports
    elif isinstance(exports, dict):
        for one in exports.values():
            yield from _targets(one)
