"""The model as it is, laid out for a server: its files, its own locked packages, and what its pickles would run."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from modelrel import archive, originals, pickles, wheels
from modelrel.errors import Invalid, Refused
from modelrel.serving.manifest import BrokenModel
from modelrel.serving.runtimes.unpacking import DESCRIPTION, unpack
from modelrel.targets.delivery import Note
from modelrel.values import PackageOptions, ParityReport

FORMAT: Final = "python"
LOCK: Final = "environment.lock"
FOLDER: Final = "environment"

VALUES: Final[Mapping[str, str]] = {
    "allow_pickle": "of a model as it is: package it though its pickles run programs, yes or no (no)",
    "mlflow": "of a model as it is: MLflow with what it depends on, whole, or without, skinny (as the model needs)",
}
"""Settings of every target that delivers the format python."""

_OLDEST: Final = 11  # Python 3.x that the server runs on
_CHOICES: Final = {"allow_pickle": ("no", "yes"), "mlflow": ("", "whole", "skinny")}


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class AsItIs:
    """What is inside, by its place in the delivery; `files` of the model stand as long as this value does."""

    environment: wheels.Wheels
    packages: Mapping[str, Path]
    files: Mapping[str, Path]
    verdict: Mapping[str, Any]
    notes: tuple[str, ...]


def checked(options: PackageOptions) -> None:
    """Raise `Invalid` for a value of `VALUES` that is none."""
    for name, choices in _CHOICES.items():
        if options.values.get(name, choices[0]) not in choices:
            known = " or ".join(filter(None, choices))
            raise Invalid(f"{name} is {options.values[name]!r}", f"Write --set {name}={known}.")


def laid_out(parity: ParityReport, options: PackageOptions, lock: Path, note: Note) -> AsItIs:
    """Unpack a model, look through its pickles, and fetch its packages; `lock` is that of the packaging before.

    Raises `Refused` where its pickles run programs and that is not allowed, `Unavailable` where a package has no wheel.
    """
    checked(options)
    work = Path(tempfile.mkdtemp(prefix="modelrel-as-is-"))
    try:
        files = _files(parity, work)
        verdict = _verdict(parity, options, files)
        found, notes = _environment(parity, options, lock, note)
        (work / LOCK).write_text(found.lock, encoding="utf-8")
        inside = {f"{FOLDER}/{path.relative_to(found.folder).as_posix()}": path for path in archive.walk(found.folder)}
        whole = AsItIs(
            environment=found,
            packages={**inside, LOCK: work / LOCK},
            files=files,
            verdict=verdict,
            notes=(*notes, _said(verdict)),
        )
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    weakref.finalize(whole, shutil.rmtree, work, ignore_errors=True)
    return whole


def sizes(environment: wheels.Wheels) -> Mapping[str, int]:
    """Return the size in bytes of each of a model's own packages, named apart from the server's."""
    return {f"{FOLDER}/{name}": size for name, size in wheels.sizes(environment.folder).items()}


def _files(parity: ParityReport, work: Path) -> dict[str, Path]:
    """Unpack the model into `work`; return name inside the delivery -> file."""
    try:
        unpack(parity.converted.path, work)
    except BrokenModel as error:
        raise Refused(str(error), "Convert it again: modelrel convert MODEL --to python --force.") from error
    folder = parity.source.folder
    manifest = json.loads(archive.within(folder, parity.manifest.path).read_bytes())
    manifest["file"] = DESCRIPTION
    name = Path(parity.manifest.path).name
    (work / name).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside = [parity.golden, *([parity.converted.adapter] if parity.converted.adapter else [])]
    unpacked = {f"model/{path.relative_to(work).as_posix()}": path for path in archive.walk(work)}
    return unpacked | {f"model/{Path(file.path).name}": archive.within(folder, file.path) for file in beside}


def _verdict(parity: ParityReport, options: PackageOptions, files: Mapping[str, Path]) -> dict[str, Any]:
    found = pickles.examine({name.removeprefix("model/model/"): path for name, path in files.items()})
    allowed = options.values.get("allow_pickle") == "yes"
    verdict = pickles.worst(found)
    if verdict == "dangerous" and not allowed:
        said = "; ".join(f"{one.path} {', '.join(one.why[:3])}" for one in found if one.verdict == "dangerous")
        raise Refused(
            f"loading {parity.source.label} would run what no model needs: {said}"[:600],
            "Find out who logged it; where that is meant, package it with --set allow_pickle=yes.",
        )
    return {"verdict": verdict, "allowed": allowed, "files": [asdict(one) for one in found]}


def _said(verdict: Mapping[str, Any]) -> str:
    listed = [f"{one['path']} ({one['verdict']})" for one in verdict["files"]]
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return f"pickle verdict: {verdict['verdict']}{': ' if listed else ''}{', '.join(listed[:5])}{more}"


def _environment(
    parity: ParityReport, options: PackageOptions, lock: Path, note: Note
) -> tuple[wheels.Wheels, tuple[str, ...]]:
    """Return the model's own packages, and what there is to say about them."""
    source = parity.source
    how = options.values.get("mlflow", "")
    if how == "skinny" and source.flavor == "pyfunc":
        source = replace(source, flavor="python")  # whose requirements are those of a library's model
    asked = originals.carried(source, whole=how == "whole")
    before = lock.with_name(LOCK)
    kept = before.read_text(encoding="utf-8") if before.is_file() else ""
    found = wheels.environment(asked, options.python, options.platform, kept, note)
    made = originals.python(parity.source, 0)
    other = f"made with Python {made}, packaged with {options.python}: its smoke test is what says that it runs"
    return found, (*found.notes, *(() if made == options.python else (other,)))


def python(parity: ParityReport) -> str:
    """Return the Python that a delivery of a model wants, "" where any will do: that which made its pickles."""
    return originals.python(parity.source, _OLDEST) if parity.converted.format == FORMAT else ""
