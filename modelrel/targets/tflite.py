"""A TFLite file for phones and small machines, with its labels, golden examples, and a script that runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelrel import archive, extras, render, served
from modelrel.delivered import Package
from modelrel.errors import Invalid, Refused
from modelrel.targets import payload
from modelrel.targets import process as processes
from modelrel.targets.delivery import Draft, Note, Places, Program, always
from modelrel.values import PackageOptions, ParityReport

TOOLS: Final = ("modelrel", "jinja2")
FORMAT: Final = "tflite"
stands = always  # the folder is all there is

LABELS: Final = "labels.txt"
MODEL: Final = "model.tflite"
_ADAPTERS: Final = "adapters/"
_SCRIPT: Final = "try_model.py"
_ANY: Final = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What the templates are about; they know it as `model`."""

    name: str
    version: str
    title: str


def options(given: PackageOptions) -> PackageOptions:
    """Return the options: the file runs on any machine, so that there is nothing to choose but templates."""
    if given.base_image or given.tags:
        raise Invalid("--base-image and --tag are about images, the tflite target makes a file", "Leave them out.")
    if (given.python or _ANY) != _ANY or (given.platform or _ANY) != _ANY:
        raise Invalid("a TFLite file runs on any machine, without Python", "Leave out --python and --platform.")
    return PackageOptions(python=_ANY, platform=_ANY, templates=given.templates)


def variables(parity: ParityReport, options: PackageOptions, licenses: str = "") -> Mapping[str, object]:
    """Return what the templates know: `model` and `parity`."""
    del options, licenses
    name, version = payload.slug(parity.source.name), payload.version_slug(parity)
    return {"model": ModelSpec(name=name, version=version, title=parity.source.label), "parity": parity}


def assemble(parity: ParityReport, options: PackageOptions, places: Places, note: Note) -> Draft:
    """Lay out the file with what goes with it."""
    del note
    if served.manifest(parity.converted) or parity.converted.interface.image:
        raise Refused(
            "the [interface] of modelrel.toml is what a server shows, and a TFLite file has none in front",
            "Leave [interface] out for this target; the app names outputs and decodes images itself.",
        )
    model = {path.name: path for path in payload.model_files(parity)}
    if parity.converted.adapter:
        model |= {name: path for name, path in payload.serving_files().items() if name.startswith(_ADAPTERS)}
    payload.copy(model, places.into)
    if parity.converted.classes:
        text = "".join(f"{_line(known)}\n" for known in parity.converted.classes)
        archive.write(places.into / LABELS, text.encode())
    render.render("tflite", places.into, variables(parity, options), options.templates)
    parts = {"model": (places.into / MODEL).stat().st_size}
    return Draft(
        artifact=MODEL,
        python=options.python,
        platform=options.platform,
        size=parts["model"],
        parts=parts,
        notes=(f"try it with: python {places.previous / _SCRIPT} (pip install ai-edge-litert numpy)",),
    )


def _line(known: object) -> str:
    """Return a class as one line of text."""
    return " ".join(str(known).split()) if isinstance(known, str) else json.dumps(known)


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Program]:
    """Run the packaged script with LiteRT in a process of its own, in a copy of the folder.

    Raises `Unavailable` where LiteRT is not installed.
    """
    extras.load("ai_edge_litert")
    note("starting LiteRT in a process of its own")
    folder = archive.within(package.folder, package.artifact).parent
    paths = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("platlib", "purelib")))
    program = processes.Program(python=Path(sys.executable), arguments=(_SCRIPT, "--lines"), paths=paths)
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        copy, log = Path(work, "package"), Path(work, "log")
        shutil.copytree(folder, copy)
        begun = time.perf_counter()
        with processes.started(copy, program, log, talks=True) as process:

            def ask(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
                return _asked(process, {"inputs": inputs}, log)

            yield Program(
                runner=f"LiteRT {extras.version('ai-edge-litert')}",
                ask=ask,
                started=begun,
                memory_bytes=lambda: processes.resident(process.pid),
            )


def _asked(process: subprocess.Popen[bytes], request: Mapping[str, Any], log: Path) -> Mapping[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        raise processes.ended(f"exit code {process.wait()}", processes.tail(log))
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Refused(f"the packaged script answered {line[:200]!r}", "It must be one JSON object a line.")
    return said
