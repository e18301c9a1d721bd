"""What every self-contained delivery carries: wheels, the serving folder, the model, and a manifest with digests.

It is gathered once as a list of names and files; a target only decides how to wrap it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from modelrel import __version__, archive, digests, distributions, extras, wheels
from modelrel.errors import Unavailable
from modelrel.serving import adapters
from modelrel.targets import as_is
from modelrel.targets.delivery import Note
from modelrel.values import PackageOptions, ParityReport, digest
from modelrel.wheels import Wheels

LOCK: Final = "requirements.lock"
MANIFEST: Final = "manifest.json"

_RUNTIMES: Final = {
    "onnx": ("onnxruntime", "numpy"),
    "tflite": ("ai-edge-litert", "numpy"),
    "python": ("numpy",),  # its own packages are apart from the server's
}
"""Format -> the distributions that a server of it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a target wants of its payload.

    `libraries` are requirements besides the runtime of the model, `wheels_at` is the folder that they are in ("" or
    ending with `/`), `lock` the lock of the packaging before, which is followed where it is about the same wheels.
    """

    libraries: tuple[str, ...]
    wheels_at: str
    lock: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A delivery's files in groups, from what changes least to what changes most: `wheels`, `serving`, `model`.

    Each group is name inside the delivery -> the file that goes there: an image makes a layer of each. Of a model as it
    is, `environment` comes first: its own packages, in a folder of this name; its files stand as long as this value.
    `digests` are those of the files that are the same in every delivery.
    """

    groups: Mapping[str, Mapping[str, Path]]
    wheels: Wheels
    parts: Mapping[str, int]
    as_is: as_is.AsItIs | None = None
    digests: Mapping[Path, str] = field(default_factory=dict)

    @property
    def installed(self) -> tuple[Wheels, ...]:
        """All wheels inside: the server's, and those of the model's own environment."""
        return (self.wheels, self.as_is.environment) if self.as_is else (self.wheels,)

    @property
    def licenses(self) -> str:
        """One SPDX expression over what the wheels inside say they are under."""
        return distributions.licenses(self.distributions)

    @property
    def distributions(self) -> tuple[distributions.Distribution, ...]:
        """What the wheels inside are, by name; what stands in two places is named once."""
        found = {
            (one.canonical, one.version): one for inside in self.installed for one in distributions.read(inside.folder)
        }
        return tuple(found[key] for key in sorted(found))

    @property
    def verdict(self) -> str:
        """The worst of what loading the model would run, "" of a format that runs nothing."""
        return str(self.pickle.get("verdict", ""))

    @property
    def pickle(self) -> Mapping[str, Any]:
        """What loading the model would run, as `manifest.json` says it; {} of a format that runs nothing."""
        return self.as_is.verdict if self.as_is else {}

    @property
    def files(self) -> Mapping[str, Path]:
        """The files of all groups."""
        return {name: path for group in self.groups.values() for name, path in group.items()}


def gather(parity: ParityReport, options: PackageOptions, shape: Shape, note: Note) -> Payload:
    """Return what every self-contained delivery carries: wheels, `serving/` and `model/`.

    Raises `Unavailable` where a file of the model is missing, or wheels cannot be had; `Refused` where a model as it is
    would run programs.
    """
    files = model_files(parity)
    own = as_is.laid_out(parity, options, shape.lock, note) if parity.converted.format == as_is.FORMAT else None
    fetched = _fetch(parity, options, shape, note)
    libraries = list(archive.walk(fetched.folder))
    groups = {
        **({"environment": own.packages} if own else {}),
        "wheels": {f"{shape.wheels_at}{path.relative_to(fetched.folder).as_posix()}": path for path in libraries},
        "serving": {f"serving/{name}": path for name, path in serving_files().items()},
        "model": own.files if own else {f"model/{path.name}": path for path in files},
    }
    weighed = {name: sum(path.stat().st_size for path in groups[name].values()) for name in ("serving", "model")}
    if own:
        weighed |= as_is.sizes(own.environment)
        fetched = replace(fetched, notes=(*fetched.notes, *own.notes))
    known = {**digests.of(libraries, _seen(fetched.folder)), **serving_digests()}
    parts = {**wheels.sizes(fetched.folder), **weighed}
    return Payload(groups=groups, wheels=fetched, parts=parts, as_is=own, digests=known)


@cache
def serving_files() -> Mapping[str, Path]:
    """Return name -> path of every file of the reference server, without tests and caches."""
    top = Path(__file__).resolve().parent.parent / "serving"
    files = {path.relative_to(top).as_posix(): path for path in archive.walk(top)}
    return {
        name: path
        for name, path in files.items()
        if not {"__pycache__", "tests"} & set(path.relative_to(top).parts) and path.suffix != ".pyc"
    }


def serving_digests() -> Mapping[Path, str]:
    """Return the sha256 of every file of the reference server."""
    return digests.of(serving_files().values(), _seen(Path(__file__)))


def _seen(place: Path) -> Path:
    """Return the file that remembers what was read in a place."""
    return wheels.cache_dir() / "digests" / f"{digest(str(place))}.json"


def model_files(parity: ParityReport) -> tuple[Path, ...]:
    """Return the files a server loads: the model, its adapter if it has one, its manifest, its golden examples."""
    folder = parity.source.folder
    adapter = (parity.converted.adapter,) if parity.converted.adapter else ()
    named = (parity.converted.file, *adapter, parity.manifest, parity.golden)
    paths = tuple(archive.within(folder, file.path) for file in named)
    for path in paths:
        if not path.is_file():
            raise Unavailable(f"{path} is not there", "Convert the model again: modelrel convert.")
    return paths


def _fetch(parity: ParityReport, options: PackageOptions, shape: Shape, note: Note) -> wheels.Wheels:
    """Return the wheels that run the model: the runtime that verified it where possible, and the libraries."""
    adapter = parity.converted.adapter_path
    proven = adapters.requires(adapter) if adapter else ()
    runtimes = _RUNTIMES[parity.converted.format]
    used = {name: parity.tools.get(name) or extras.version(name) for name in (*runtimes, *proven)}
    pins = {name: f"{name}=={version}" if version else name for name, version in used.items()}
    choices = (
        tuple(pins.values()) + shape.libraries,
        (pins[runtimes[0]], *runtimes[1:], *proven, *shape.libraries),
        (*runtimes, *proven, *shape.libraries),
    )
    lock = shape.lock.read_text(encoding="utf-8") if shape.lock.is_file() else ""
    return wheels.fetch(tuple(dict.fromkeys(choices)), options.python, options.platform, lock, note)


def label(known: object) -> str:
    """Return a class as one line of text."""
    return " ".join(str(known).split()) if isinstance(known, str) else json.dumps(known)


def labels(parity: ParityReport) -> bytes:
    """Return the classes, one a line, in the order of the probabilities; b"" where there are none."""
    return "".join(f"{label(known)}\n" for known in parity.converted.classes).encode("utf-8", "replace")


def copy(files: Mapping[str, Path], into: Path) -> None:
    """Copy files to their names below `into`, with the same modes whatever the umask."""
    made = set()
    for name, source in files.items():
        path = into / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        shutil.copyfile(source, path)
        path.chmod(0o644)
    for top, _, _ in os.walk(into):
        Path(top).chmod(0o755)


def manifest(parity: ParityReport, files: Mapping[str, Path], load: Payload | None = None) -> str:
    """Return the text of `manifest.json`: which model this is, and the sha256 of every file beside it.

    The payload says what loading the model would run.
    """
    known, pickle = (load.digests, load.pickle) if load else ({}, {})
    source = parity.source
    content = {
        "schema": 1,
        "name": source.name,
        "version": source.version,
        "run_id": source.run_id,
        "source_sha256": source.digest,
        "modelrel": __version__,
        **({"pickle": pickle} if pickle else {}),
        "files": {name: known.get(files[name]) or archive.sha256(files[name]) for name in sorted(files)},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def slug(text: str, fallback: str = "model") -> str:
    """Return `text` as registries and file systems take it: at most 100 lower-case letters, digits, single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:100].rstrip("-") or fallback


def version_slug(parity: ParityReport) -> str:
    """Return the version as an image tag may carry it; a model without a version goes by its run."""
    version = parity.source.version or parity.source.run_id[:12]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", version).strip(".-")[:100] or "latest"


def created(parity: ParityReport) -> str:
    """Return when the model was logged (RFC 3339), or SOURCE_DATE_EPOCH where that is set; "" where nobody knows.

    It is never the current time, so that two packagings are alike.
    """
    # The convention of reproducible-builds.org: a variable that every tool in a build reads for itself.
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch.isdigit():
        return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = parity.source.model_dir / "MLmodel"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.search(r"^utc_time_created: '?(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)", text, re.MULTILINE)
    return f"{found[1]}T{found[2]}Z" if found else ""
