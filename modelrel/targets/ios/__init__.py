"""A Swift package for iPhones and Macs: the model as a resource, a typed wrapper over onnxruntime, and its test."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelrel import archive, extras, render, served
from modelrel.delivered import Check, Package
from modelrel.errors import Invalid, Refused
from modelrel.targets import alone, bom, payload
from modelrel.targets import process as processes
from modelrel.targets.delivery import Draft, Note, Places, Program, always
from modelrel.targets.ios import edges, swift
from modelrel.values import ConvertedModel, PackageOptions, ParityReport

if TYPE_CHECKING:
    import onnx

TOOLS: Final = ("modelrel", "jinja2", "onnx")
FORMATS: Final = ("onnx",)
OPTIONS: Final[frozenset[str]] = frozenset()
VALUES: Final[Mapping[str, str]] = {
    "module": "the name of the Swift module (the model's)",
    "onnxruntime": "the least version of onnxruntime's Swift package (1.20.0)",
}
IMAGES: Final[tuple[str, ...]] = ()
stands = always  # the folder is all there is

MODEL: Final = "Sources/Model/Resources/model.onnx"
GOLDEN: Final = "Tests/ModelTests/Resources/golden.json"
MANIFEST: Final = "modelrel.json"
_ANY: Final = "any"
_RUNTIME: Final = "1.20.0"  # the first with ai.onnx 22 and ai.onnx.ml 5 TreeEnsemble
_LIBRARY: Final = "pkg:swift/github.com/microsoft/onnxruntime-swift-package-manager"
_ASK: Final = Path(__file__).with_name("ask.py")
_FIRST: Final = "// swift-tools-version: 5.9\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class IosSpec:
    """What the templates are about; they know it as `ios`. `changed` are datatypes that cross the edge as others."""

    module: str
    title: str
    origin: str
    runtime: str
    rows: bool
    label: str
    cases: tuple[swift.Case, ...]
    inputs: tuple[swift.Port, ...]
    outputs: tuple[swift.Port, ...]
    fetched: str
    example: str
    changed: tuple[str, ...]
    rtol: float
    atol: float


def options(given: PackageOptions) -> PackageOptions:
    """Return the options: Xcode decides where the package runs. Raises `Invalid` for a setting that is none."""
    for name, sort in (("python", "a Python"), ("platform", "a platform")):
        if getattr(given, name) not in ("", _ANY):
            raise Invalid(f"a Swift package has not {sort} to choose", f"Leave out --{name}.")
    module = given.values.get("module", "")
    if module and (not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", module) or swift.module(module) != module):
        raise Invalid(f"{module!r} is no name of a Swift module", f"{swift.module(module)!r} is one.")
    runtime = given.values.get("onnxruntime", _RUNTIME)
    if not re.fullmatch(r"\d+\.\d+\.\d+", runtime):
        raise Invalid(f"onnxruntime is {runtime!r}, not a version", f"Write for example {_RUNTIME}.")
    return replace(given, python=_ANY, platform=_ANY)


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `ios` and `parity`."""
    del licenses
    entering, leaving = _edges(parity.converted, _load(parity.converted))
    return {"ios": _spec(parity, options, entering, leaving), "parity": parity}


def _spec(
    parity: ParityReport,
    options: PackageOptions,
    entering: tuple[edges.Edge, ...],
    leaving: tuple[edges.Edge, ...],
) -> IosSpec:
    converted = parity.converted
    rows = converted.signature.kind == "columns" and all(one.spec.shape[:1] == (-1,) for one in leaving)
    shown = served.outputs(converted)
    label = _label(converted, leaving) if rows else ""
    inputs = swift.ports(entering, tuple(one.spec.name for one in entering), "")
    crossing = [one for one in (*entering, *leaving) if one.names != (one.spec.name,)]
    kind = next((one.spec.datatype for one, spec in zip(leaving, shown, strict=True) if spec.name == label), "")
    return IosSpec(
        module=options.values.get("module") or swift.module(parity.source.name),
        title=" ".join(parity.source.label.split()),
        origin=f"run {' '.join(parity.source.run_id.split()) or 'unknown'}",
        runtime=options.values.get("onnxruntime", _RUNTIME),
        rows=rows,
        label={"BYTES": "String", "": ""}.get(kind, kind.title().replace("Uint", "UInt")),
        cases=swift.cases(converted.classes) if label else (),
        inputs=inputs,
        outputs=swift.ports(leaving, tuple(one.name for one in shown), label),
        fetched=", ".join(swift.literal(name) for one in leaving for name in one.names),
        example=_example(parity, inputs, rows=rows),
        changed=tuple(dict.fromkeys(one.spec.datatype for one in crossing)),
        rtol=parity.tolerance.rtol,
        atol=parity.tolerance.atol,
    )


def _label(converted: ConvertedModel, leaving: tuple[edges.Edge, ...]) -> str:
    """Return the served output that is a class of text or a whole number, "" where there is none."""
    for edge, spec in zip(leaving, served.outputs(converted), strict=True):
        fits = {"BYTES": str, "INT64": int, "INT32": int}.get(spec.datatype)
        kinds = {type(one) for one in converted.classes}
        if edge.spec.name == converted.predict and len(spec.shape) == 1 and kinds == {fits}:
            return spec.name
    return ""


def _example(parity: ParityReport, inputs: tuple[swift.Port, ...], *, rows: bool) -> str:
    """Return the first golden row, for README."""
    content = json.loads(archive.within(parity.source.folder, parity.golden.path).read_bytes())["inputs"]
    given = [content[spec.name] for spec in served.inputs(parity.converted)]
    if not rows:
        return ", ".join(f"{one.identifier}: Tensor(shape: …, data: …)" for one in inputs)
    cells = [values[0][0] for values in given]
    return ", ".join(f"{one.identifier}: {_cell(cell)}" for one, cell in zip(inputs, cells, strict=True))


def _cell(cell: object) -> str:
    if cell is None:
        return "nil"
    return swift.literal(cell) if isinstance(cell, str) else json.dumps(cell)


def _load(converted: ConvertedModel) -> onnx.ModelProto:
    import onnx

    return onnx.load(converted.path)


def _edges(converted: ConvertedModel, model: onnx.ModelProto) -> tuple[tuple[edges.Edge, ...], tuple[edges.Edge, ...]]:
    own = converted.interface.outputs
    known = {spec.name: spec for spec in converted.outputs}
    told = [known[own.get(spec.name, spec.name)] for spec in served.outputs(converted)]
    taken = edges.names(model)
    return edges.edges(converted.inputs, taken, edges.IN), edges.edges(tuple(told), taken, edges.OUT)


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out the package, and a zip of it. Raises `Refused` for a model that needs Python in front."""
    del note
    converted = parity.converted
    if converted.adapter or converted.interface.pass_through:
        what = "an adapter in Python stands" if converted.adapter else "fields are passed through"
        raise Refused(
            f"{what} in front of this model, and a Swift package has no server",
            "Deliver it with --target docker, oci or lambda, or leave [interface] out; the app keeps its own fields.",
        )
    payload.model_files(parity)
    model = _load(converted)
    entering, leaving = _edges(converted, model)
    spec = _spec(parity, options, entering, leaving)
    home = places.into / spec.module
    render.render("ios", home, {"ios": spec, "parity": parity}, options.templates)
    chosen = converted.interface.outputs or {one.name: one.name for one in converted.outputs}
    edges.wrapped(model, entering, leaving)
    said = model.metadata_props.add()
    said.key, said.value = edges.KEY, json.dumps(edges.plain(entering, leaving, chosen), ensure_ascii=False)
    (home / MODEL).parent.mkdir(parents=True)
    archive.write(home / MODEL, model.SerializeToString(deterministic=True))
    folder = parity.source.folder
    named = {GOLDEN: parity.golden.path, MANIFEST: parity.manifest.path}
    payload.copy({name: archive.within(folder, path) for name, path in named.items()}, home)
    library = f"{_LIBRARY}@{spec.runtime}"
    archive.write(home / bom.NAME, bom.bill(parity, bom.Contents(kind="library", needs=(library,))))
    artifact = f"{spec.module}-{payload.version_slug(parity)}.zip"
    inside = [(path.relative_to(places.into).as_posix(), path) for path in archive.walk(home)]
    archive.write_zip(places.into / artifact, inside)
    return Draft(
        artifact=artifact,
        python=options.python,
        platform=options.platform,
        size=(places.into / artifact).stat().st_size,
        parts={"model": (home / MODEL).stat().st_size},
        notes=(f'add it to Package.swift with: .package(path: "{places.previous / spec.module}")',),
    )


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Program]:
    """Run the model out of the zip with onnxruntime, in a process of its own, by the edges that the Swift code feeds.

    Raises `Unavailable` where onnxruntime is not installed, `Refused` where the zip is none of ours.
    """
    extras.load("onnxruntime")
    note("starting onnxruntime in a process of its own")
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        top = Path(work, "package")
        home = _unpacked(archive.within(package.folder, package.artifact), Path(work, "opened"))
        top.mkdir()
        shutil.copyfile(home / MODEL, top / "model.onnx")
        shutil.copyfile(home / MANIFEST, top / "modelrel.json")
        with alone.asked(top, ours=_ASK) as started:
            yield Program(
                runner=f"onnxruntime {extras.version('onnxruntime')}, without Swift",
                ask=started.ask,
                started=started.started,
                memory_bytes=lambda: processes.resident(started.process.pid),
                examined=lambda: _examined(package, home),
            )


def _unpacked(path: Path, into: Path) -> Path:
    """Unpack a zip and return the one folder in it."""
    try:
        with zipfile.ZipFile(path) as opened:
            for name in opened.namelist():
                file = archive.within(into, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(opened.read(name))
    except zipfile.BadZipFile as error:
        raise Refused(f"{path.name} is no zip: {error}", "Package the model again.") from error
    folders = list(into.iterdir())
    if len(folders) != 1 or not all((folders[0] / name).is_file() for name in (MODEL, MANIFEST, GOLDEN)):
        raise Refused(f"{path.name} does not hold one Swift package with its model", "Package the model again.")
    return folders[0]


def _examined(package: Package, home: Path) -> Iterator[Check]:
    beside = archive.within(package.folder, package.artifact).parent / home.name
    listed = {path.relative_to(home).as_posix(): archive.sha256(path) for path in archive.walk(home)}
    if listed != {path.relative_to(beside).as_posix(): archive.sha256(path) for path in archive.walk(beside)}:
        raise Refused(f"the zip holds other files than the folder {home.name}", "Package the model again.")
    yield Check(name="the zip is the folder", detail=f"{len(listed)} files")
    text = (home / "Package.swift").read_text(encoding="utf-8")
    if not text.startswith(_FIRST):
        raise Refused(f"Package.swift does not start with {_FIRST.strip()}", "See the template ios/Package.swift.j2.")
    yield Check(name="Package.swift", detail=text.partition("\n")[0])
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((home / "Sources").rglob("*.swift")))
    fed = [name for _, names in _said(home / MODEL)["inputs"].values() for name in names]
    if lacking := [name for name in fed if swift.literal(name) not in code]:
        raise Refused(f"the Swift code does not feed the input {lacking[0]!r}", "See the template ios/Sources.")
    yield Check(name="what the Swift code feeds", detail=", ".join(map(repr, fed)))


def _said(path: Path) -> dict[str, Any]:
    import onnx

    found = {one.key: one.value for one in onnx.load(path).metadata_props}
    return dict(json.loads(found[edges.KEY]))
