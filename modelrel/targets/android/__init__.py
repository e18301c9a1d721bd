"""An Android library: an AAR that holds the model, and Kotlin source of a class that takes and gives typed values."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelrel import archive, extras, render, served
from modelrel.delivered import Check, Package
from modelrel.errors import Invalid, Refused
from modelrel.targets import alone, bom, payload
from modelrel.targets import process as processes
from modelrel.targets.android import aar, kotlin
from modelrel.targets.android.kotlin import Example, Field
from modelrel.targets.delivery import Draft, Note, Places, Program, always
from modelrel.targets.identifiers import identifiers
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "jinja2")
FORMATS: Final = ("onnx", "tflite")
OPTIONS: Final[frozenset[str]] = frozenset()
VALUES: Final[Mapping[str, str]] = {
    "namespace": "the package of the Kotlin class and of the library (io.modelrel.NAME)",
    "runtime": "the version of the runtime in the Gradle lines (of onnxruntime, the one that verified)",
}
IMAGES: Final[tuple[str, ...]] = ()
stands = always  # the folder is all there is

LEAST: Final = 24
"""The oldest API level, which is that of onnxruntime-android's own manifest."""

_ANY: Final = "any"
_LITERT: Final = "1.4.1"
"""The last version of LiteRT for Android with the Interpreter class: 2.x has another one, which takes no other sizes
(github.com/google-ai-edge/LiteRT, issue 4775)."""

_RUNTIMES: Final = {
    "onnx": ("com.microsoft.onnxruntime:onnxruntime-android", "onnxruntime"),
    "tflite": ("com.google.ai.edge.litert:litert", "ai-edge-litert"),
}
"""Format -> the runtime's name to Gradle, and to Python."""

_PACKAGE: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_VERSION: Final = re.compile(r"[0-9A-Za-z.+_-]+")
_MOST_LABELS: Final = 2000
_TAKEN: Final = """
AutoCloseable Array Any Answers Boolean BooleanArray Byte ByteArray ByteBuffer ByteOrder Context Double DoubleArray
DoubleBuffer FileInputStream Float FloatArray FloatBuffer IOException Int IntArray IntBuffer Interpreter LinkedHashMap
List Long LongArray LongBuffer Map Math Nothing Number OnnxJavaType OnnxTensor OrtEnvironment OrtSession Pair Result Row
Set Short ShortArray ShortBuffer String Suppress Test Throws Unit
"""
_CLASSES: Final = frozenset(_TAKEN.split())
LABELS: Final = "labels.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySpec:
    """What the templates are about; they know it as `library`."""

    name: str
    version: str
    title: str
    cls: str
    package: str
    file: str
    model: str
    assets: str
    format: str
    columns: bool
    dependency: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    labels: tuple[str, ...]
    example: Example | None
    least: int = LEAST

    @property
    def source(self) -> str:
        """Where the class is, relative to the folder."""
        return f"{self.folder}/{self.cls}.kt"

    @property
    def test(self) -> str:
        """Where its test is, relative to the folder."""
        return self.source.replace("/main/", "/androidTest/", 1).removesuffix(".kt") + "Test.kt"

    @property
    def folder(self) -> str:
        """Where Kotlin source of this package goes in an app."""
        return f"src/main/kotlin/{self.package.replace('.', '/')}"

    @property
    def types(self) -> tuple[Field, ...]:
        """One input of each datatype that there is."""
        return tuple({one.datatype: one for one in self.inputs}.values())

    @property
    def answered(self) -> tuple[Field, ...]:
        """One output of each datatype that there is."""
        return tuple({one.array: one for one in self.outputs}.values())


def options(given: PackageOptions) -> PackageOptions:
    """Return the options: the library runs on any phone. Raises `Invalid` for what is no package or version."""
    package, runtime = given.values.get("namespace", ""), given.values.get("runtime", "")
    if package and (not _PACKAGE.fullmatch(package) or set(package.split(".")) & kotlin.KEYWORDS):
        raise Invalid(f"{package!r} is no package of Android's", "Write it as com.example.churn: two parts at least.")
    if runtime and not _VERSION.fullmatch(runtime):
        raise Invalid(f"{runtime!r} is no version", "Write it as 1.24.0.")
    return replace(given, python=_ANY, platform=_ANY)


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `library` and `parity`."""
    del licenses
    return {"library": _spec(parity, options), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Write the AAR, and render the source that uses it.

    Raises `Refused` for a model that takes what a phone does not have: an adapter in Python, or a server in front.
    """
    _deliverable(parity)
    spec = _spec(parity, options)
    files = {path.name: path for path in payload.model_files(parity)}
    note(f"writing {spec.file}")
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        if labels := payload.labels(parity):
            files[LABELS] = Path(work, LABELS)
            archive.write(files[LABELS], labels)
        assets = {f"{spec.assets}/{name}": path for name, path in files.items()}
        aar.write(places.into / spec.file, Path(work), spec.package, spec.least, assets)
    known = {"library": spec, "parity": parity}
    render.render("android", places.into, known, options.templates)
    _place(places.into, spec)
    group, name, version = spec.dependency.split(":")
    needs = (f"pkg:maven/{group}/{name}@{version}",)
    archive.write(places.into / bom.NAME, bom.bill(parity, bom.Contents(kind="library", needs=needs)))
    size = (places.into / spec.file).stat().st_size
    return Draft(
        artifact=spec.file,
        python=options.python,
        platform=options.platform,
        size=size,
        parts={"model": parity.converted.file.size, "archive": size},
        notes=(f"use it in an app with: cp {places.previous / spec.file} libs/ (see README.md for the Gradle lines)",),
    )


def _deliverable(parity: ParityReport) -> None:
    converted = parity.converted
    if converted.interface.image or served.manifest(converted):
        raise Refused(
            "the [interface] of modelrel.toml is what a server shows, and an app has none in front",
            "Leave [interface] out for this target; the app names outputs and decodes images itself.",
        )
    if converted.adapter:
        raise Refused(
            f"what turns the texts of {parity.source.label} into numbers (adapter.json) is Python, which no phone has",
            "Deliver it to a server, or train it on numbers.",
        )


def _place(folder: Path, spec: LibrarySpec) -> None:
    """Move the rendered source to where its package wants it."""
    if spec.example is None:  # the golden rows are too many numbers for source
        (folder / "ModelTest.kt").unlink()
    for name in ("Model.kt", "ModelTest.kt"):
        path = folder / (spec.source if name == "Model.kt" else spec.test)
        if (folder / name).is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(path)


def _spec(parity: ParityReport, options: PackageOptions) -> LibrarySpec:
    converted, source = parity.converted, parity.source
    name, version = payload.slug(source.name), payload.version_slug(parity)
    word = identifiers([source.name], "snake", kotlin.KEYWORDS)[source.name]
    columns = converted.signature.kind == "columns"
    inputs = kotlin.fields(parity, converted.inputs)
    if columns and kotlin.slots(inputs) > kotlin.MOST_SLOTS:
        raise Refused(
            f"a row of {source.label} has {len(inputs)} columns, and a Kotlin class of the JVM takes some "
            f"{kotlin.MOST_SLOTS}",
            "Log the model with a signature of one tensor.",
        )
    outputs = kotlin.fields(parity, converted.outputs)
    classes = converted.classes if len(converted.classes) <= _MOST_LABELS else ()  # the rest is in labels.txt
    if converted.format == "tflite" and any(size < 0 for one in outputs for size in one.shape[1:]):
        raise Refused(
            f"an output of {source.label} is of a size that nobody knows before, as LiteRT's Java API wants it",
            "Deliver it with --to onnx.",
        )
    runtime, own = _RUNTIMES[converted.format]
    proven = _LITERT if converted.format == "tflite" else parity.tools.get(own) or extras.version(own)
    return LibrarySpec(
        name=name,
        version=version,
        title=source.label,
        cls=identifiers([source.name], "pascal", _CLASSES)[source.name],
        package=options.values.get("namespace") or f"io.modelrel.{word}",
        file=f"{name}-{version}.aar",
        model=converted.path.name,
        assets=f"modelrel/{name}",
        format=converted.format,
        columns=columns,
        dependency=f"{runtime}:{options.values.get('runtime') or proven}",
        inputs=inputs,
        outputs=outputs,
        labels=tuple(kotlin.text(payload.label(known)) for known in classes),
        example=kotlin.example(parity, inputs, outputs),
    )


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Program]:
    """Take the model out of the built AAR, and run it with its runtime in a process of its own."""
    form = package.converted.format
    own = _RUNTIMES[form][1]
    extras.load(own.replace("-", "_"))
    path = archive.within(package.folder, package.artifact)
    spec = _spec(package.parity, PackageOptions())
    note(f"taking the model out of {path.name}")
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        aar.unpack(path, spec.assets, Path(work))
        with alone.asked(Path(work)) as started:
            yield Program(
                runner=f"{own} {extras.version(own)}",
                ask=started.ask,
                started=started.started,
                memory_bytes=lambda: processes.resident(started.process.pid),
                examined=lambda: _examined(path, spec),
            )


def _examined(path: Path, spec: LibrarySpec) -> Iterator[Check]:
    """Look at the archive, and at the source as far as that can be without Android."""
    found = sorted(path.parent.glob(f"src/main/kotlin/**/{spec.cls}.kt"))
    said = re.findall(r"^package ([a-z0-9_.]+)$", found[0].read_text(encoding="utf-8"), re.MULTILINE) if found else []
    if len(said) != 1 or found[0].parent.relative_to(path.parent / "src/main/kotlin").as_posix() != said[0].replace(
        ".", "/"
    ):
        raise Refused(f"{spec.cls}.kt is not where its package wants it", "Package it again.")
    yield aar.examined(path, said[0], spec.least)
    yield Check(name="Kotlin", detail=f"{found[0].name} of {said[0]}, for {spec.dependency}; not compiled")
