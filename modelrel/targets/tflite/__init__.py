"""A TFLite file for phones and small machines, with its labels, golden examples, and a script that runs it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelrel import archive, extras, render, served
from modelrel.delivered import Check, Package
from modelrel.errors import Refused
from modelrel.targets import alone, bom, payload
from modelrel.targets import process as processes
from modelrel.targets.delivery import Draft, Note, Places, Program, always
from modelrel.targets.questions import Golden
from modelrel.targets.tflite import metadata, micro, packed, variants
from modelrel.targets.tflite.metadata import LABELS
from modelrel.targets.tflite.variants import Variant, named, variant
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "jinja2", "ai-edge-litert", "flatbuffers")
FORMATS: Final = ("tflite",)
OPTIONS: Final = frozenset({"micro"})
VALUES: Final[Mapping[str, str]] = {
    "variants": "other copies beside the model: some of float32, float16, dynamic, int8 (none)",
}
IMAGES: Final[tuple[str, ...]] = ()
stands = always  # the folder is all there is

MODEL: Final = "model.tflite"
_ADAPTERS: Final = "adapters/"
_SCRIPT: Final = "try_model.py"
_ANY: Final = "any"
_NEEDS: Final = ("pkg:pypi/ai-edge-litert", "pkg:pypi/numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What the templates are about; they know it as `model`."""

    name: str
    version: str
    title: str
    symbol: str = ""
    variants: tuple[Variant, ...] = ()


def options(given: PackageOptions) -> PackageOptions:
    """Return the options: the file runs on any machine. Raises `Invalid` for a variant that there is none of."""
    variants.modes(given.values.get("variants", ""))
    return replace(given, python=_ANY, platform=_ANY)


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `model` and `parity`."""
    del licenses
    return {"model": _spec(parity, options), "parity": parity}


def _spec(parity: ParityReport, options: PackageOptions) -> ModelSpec:
    name, version = payload.slug(parity.source.name), payload.version_slug(parity)
    symbol = micro.symbol(parity.source.name) if options.micro else ""
    return ModelSpec(name=name, version=version, title=parity.source.label, symbol=symbol)


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out the file, with metadata in it, and what goes with it.

    Raises `Refused` where the interface of modelrel.toml is one that a file cannot have.
    """
    if served.manifest(parity.converted):
        raise Refused(
            "the [interface] of modelrel.toml renames outputs or passes fields through, and a TFLite file has no "
            "server in front that could",
            "Leave those out of [interface] for this target; the app names outputs itself.",
        )
    note("writing the metadata of the model")
    if parity.converted.adapter:
        code = payload.serving_files()
        payload.copy({name: path for name, path in code.items() if name.startswith(_ADAPTERS)}, places.into)
    notes = _lay_out(parity, places.into)
    weighed = {"model": (places.into / MODEL).stat().st_size}
    copies = [variant(parity, MODEL, weighed["model"])]
    for other in places.variants:
        name = named(other)
        notes += _lay_out(other, places.into / name)
        weighed[name] = (places.into / name / MODEL).stat().st_size
        copies.append(variant(other, f"{name}/{MODEL}", weighed[name]))
    if options.micro:
        content = (places.into / MODEL).read_bytes()
        micro.write(content, parity.source.name, parity.source.label, places.into)
        weighed["C source"] = sum((places.into / name).stat().st_size for name in (micro.SOURCE, micro.HEADER))
    known = {"model": replace(_spec(parity, options), variants=tuple(copies)), "parity": parity}
    render.render("tflite", places.into, known, options.templates)
    archive.write(places.into / bom.NAME, bom.bill(parity, bom.Contents(kind="machine-learning-model", needs=_NEEDS)))
    tried = f"try it with: python {places.previous / _SCRIPT} (pip install ai-edge-litert numpy)"
    return Draft(
        artifact=MODEL,
        python=options.python,
        platform=options.platform,
        size=sum(weighed.values()),
        parts=weighed,
        notes=(*notes, *_compared(copies), tried),
    )


def _compared(copies: Sequence[Variant]) -> tuple[str, ...]:
    """Return a sentence for each copy, where there are several."""
    said = (f"{one.file}: {one.name}, {one.size:,} bytes, {one.figures} ({one.rows:,} rows)" for one in copies)
    return tuple(said) if len(copies) > 1 else ()


def _lay_out(parity: ParityReport, into: Path) -> tuple[str, ...]:
    """Write a model with its metadata, its labels, its golden rows and its manifest; return what to tell of it."""
    model = {path.name: path for path in payload.model_files(parity)}
    payload.copy(model, into)
    labels = payload.labels(parity)
    if labels:
        archive.write(into / LABELS, labels)
    said, content = metadata.said(parity), (into / MODEL).read_bytes()
    problem = packed.obstacle(content)
    if problem and parity.converted.interface.image:
        raise Refused(f"the file cannot say how images become numbers: {problem}", "Leave [interface] out.")
    if problem:
        return (f"{MODEL} has no metadata: {problem}",)
    archive.write(into / MODEL, packed.packed(content, said, {LABELS: labels} if labels else {}))
    return ()


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Program]:
    """Run the packaged script with LiteRT in a process of its own, in a copy of the folder.

    Raises `Unavailable` where LiteRT is not installed.
    """
    extras.load("ai_edge_litert")
    note("starting LiteRT in a process of its own")
    folder = archive.within(package.folder, package.artifact).parent
    with alone.asked(folder, _SCRIPT) as started:
        yield Program(
            runner=f"LiteRT {extras.version('ai-edge-litert')}",
            ask=started.ask,
            started=started.started,
            memory_bytes=lambda: processes.resident(started.process.pid),
            examined=lambda: _examined(package, folder),
        )


def _examined(package: Package, folder: Path) -> Iterator[Check]:
    """Compare graphs, run the other copies, and what the C source holds."""
    yield _graph(package.parity, folder / MODEL)
    for other in package.variants:
        top = folder / named(other)
        yield _graph(other, top / MODEL)
        files = {path.relative_to(top).as_posix(): path for path in archive.walk(top)}
        yield _answers(other, folder, files, f"variant {top.name}")
    if not (folder / micro.SOURCE).is_file():
        return
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        path, manifest = Path(work, MODEL), Path(work, "modelrel.json")
        path.write_bytes(micro.array(folder))
        said = json.loads((folder / manifest.name).read_bytes())
        given = packed.outputs(path.read_bytes())
        said["outputs"] = [one for one in said["outputs"] if one["name"] in given]
        manifest.write_text(json.dumps(said), encoding="utf-8")
        yield _answers(package.parity, folder, {MODEL: path, manifest.name: manifest}, "C array")
    if linked := micro.compiled(folder, package.parity.source.name):
        yield linked


def _graph(parity: ParityReport, path: Path) -> Check:
    verified, content = parity.converted.path.read_bytes(), path.read_bytes()
    if packed.bare(content) != packed.bare(verified):
        raise Refused(f"{path.name} is not the {named(parity)} copy that was verified", "Package it again.")
    return Check(
        name=f"graph of {named(parity)}",
        detail=f"as verified; {len(content):,} bytes, and {len(verified):,} without metadata",
    )


def _answers(parity: ParityReport, folder: Path, files: Mapping[str, Path], name: str) -> Check:
    """Put other files in the place of the model's, and ask for its golden rows."""
    golden = Golden.of(parity)
    if MODEL in files:  # source for microcontrollers has no labels
        given = packed.outputs(files[MODEL].read_bytes())
        golden = replace(golden, outputs={key: value for key, value in golden.outputs.items() if key in given})
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        again = Path(shutil.copytree(folder, Path(work, "other")))
        for inside, path in files.items():
            shutil.copyfile(path, again / inside)
        with alone.asked(again, _SCRIPT) as started:
            error = golden.judge(started.ask(golden.plain()))
    return Check(name=name, detail=f"{golden.rows} golden rows, largest error {error:.3g}")
