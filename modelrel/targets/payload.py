"""What every self-contained delivery carries: wheels, the serving folder, the model, and a manifest with digests.

It is gathered once as a list of names and files; a target only decides how to wrap it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from modelrel import __version__, archive, extras, wheels
from modelrel.errors import Unavailable
from modelrel.serving import adapters
from modelrel.targets.delivery import Note
from modelrel.values import PackageOptions, ParityReport

LOCK: Final = "requirements.lock"
MANIFEST: Final = "manifest.json"

_PINNED: Final = ("onnxruntime", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """Name inside the delivery -> the file that goes there; and where the third-party part comes from."""

    files: Mapping[str, Path]
    wheels: wheels.Wheels
    parts: Mapping[str, int]


def gather(parity: ParityReport, fetched: wheels.Wheels, wheels_at: str = "") -> Payload:
    """Return the files of a delivery: wheels under `wheels_at`, `serving/` and `model/`.

    Raises `Unavailable` where a file of the model is missing.
    """
    files = {f"{wheels_at}{path.relative_to(fetched.folder).as_posix()}": path for path in archive.walk(fetched.folder)}
    parts = dict(wheels.sizes(fetched.folder))
    server = {f"serving/{name}": path for name, path in serving_files().items()}
    model = {f"model/{path.name}": path for path in model_files(parity)}
    parts["serving"] = sum(path.stat().st_size for path in server.values())
    parts["model"] = sum(path.stat().st_size for path in model.values())
    return Payload(files={**files, **server, **model}, wheels=fetched, parts=parts)


def serving_files() -> dict[str, Path]:
    """Return name -> path of every file of the reference server, without tests and caches."""
    top = Path(__file__).resolve().parent.parent / "serving"
    files = {path.relative_to(top).as_posix(): path for path in archive.walk(top)}
    return {
        name: path
        for name, path in files.items()
        if not {"__pycache__", "tests"} & set(path.relative_to(top).parts) and path.suffix != ".pyc"
    }


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


def fetch(
    parity: ParityReport, others: tuple[str, ...], options: PackageOptions, previous: Path, note: Note
) -> wheels.Wheels:
    """Return the wheels that run the model: the runtime that verified it where possible, and `others`.

    `previous` is the lock of the packaging before, which is followed where it is about the same wheels.
    """
    adapter = parity.converted.adapter_path
    proven = adapters.requires(adapter) if adapter else ()
    used = {name: parity.tools.get(name) or extras.version(name) for name in (*_PINNED, *proven)}
    pins = {name: f"{name}=={version}" if version else name for name, version in used.items()}
    choices = (
        tuple(pins.values()) + others,
        (pins["onnxruntime"], "numpy", *proven, *others),
        (*_PINNED, *proven, *others),
    )
    lock = previous.read_text(encoding="utf-8") if previous.is_file() else ""
    return wheels.fetch(tuple(dict.fromkeys(choices)), options.python, options.platform, lock, note)


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


def manifest(parity: ParityReport, files: Mapping[str, Path]) -> str:
    """Return the text of `manifest.json`: which model this is, and the sha256 of every file beside it."""
    source = parity.source
    content = {
        "schema": 1,
        "name": source.name,
        "version": source.version,
        "run_id": source.run_id,
        "source_sha256": source.digest,
        "modelrel": __version__,
        "files": {name: archive.sha256(files[name]) for name in sorted(files)},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def slug(text: str, fallback: str = "model") -> str:
    """Return `text` as registries and file systems take it: lower-case ASCII letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or fallback


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
