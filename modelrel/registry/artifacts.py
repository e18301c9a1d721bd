"""The files of a model, fetched without importing mlflow: from a folder, or from an MLflow server that hands them out.

Protocol: `GET api/2.0/mlflow-artifacts/artifacts?path=FOLDER` lists one level, `.../artifacts/FILE` is one file's bytes
(`mlflow.store.artifact.http_artifact_repo`, `mlflow_artifacts_repo`).
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from modelrel import archive
from modelrel.errors import Unavailable
from modelrel.registry.rest import RestLookup
from modelrel.registry.sqlite import SqliteLookup

_SERVED: Final = "/api/2.0/mlflow-artifacts/artifacts"
_DEEPEST: Final = 64


def fetched(lookup: SqliteLookup | RestLookup, uri: str, into: Path, note: Callable[[str], None]) -> bool:
    """Download every file of `models:/churn/7` or `models:/m-...` into the empty folder `into`.

    Returns False, leaving `into` empty, where only mlflow knows how: another store, or anything unexpected (it says
    what is wrong). Raises `Invalid` for a name that leads outside, or a link; `Unavailable` where the files are gone,
    or do not arrive whole.
    """
    location = _location(lookup, uri) or ""
    parts = urllib.parse.urlsplit(location)
    if parts.netloc or parts.query or parts.fragment:
        return False
    if parts.scheme == "file" or (not parts.scheme and parts.path.startswith("/")):
        copied(Path(urllib.request.url2pathname(parts.path)), into, note)
        return True
    if parts.scheme != "mlflow-artifacts" or not isinstance(lookup, RestLookup):
        return False
    try:
        _served(lookup, parts.path.strip("/"), into, note)
    except (urllib.error.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        for path in into.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return False
    return True


def one(lookup: SqliteLookup | RestLookup, uri: str, name: str) -> bytes | None:
    """Return one file of a model, or None where only mlflow knows how to fetch it, or whether it is there."""
    location = _location(lookup, uri) or ""
    parts = urllib.parse.urlsplit(location)
    if parts.netloc or parts.query or parts.fragment:
        return None
    try:
        if parts.scheme == "file" or (not parts.scheme and parts.path.startswith("/")):
            return archive.within(Path(urllib.request.url2pathname(parts.path)), name).read_bytes()
        if parts.scheme != "mlflow-artifacts" or not isinstance(lookup, RestLookup) or _from_its_store(lookup):
            return None
        return lookup.read(f"{_SERVED}/{parts.path.strip('/')}/{name}")
    except (OSError, ValueError):
        return None


def _location(lookup: SqliteLookup | RestLookup, uri: str) -> str | None:
    """Return where the files of a model lie; a version may point at a logged model, which lies somewhere."""
    name, _, version = uri.removeprefix("models:/").partition("/")
    if not uri.startswith("models:/") or not name:
        return None
    if not version:
        return lookup.logged(name)
    found = lookup.location(name, version)
    return _location(lookup, found) if found and found.startswith("models:/m-") else found


def copied(top: Path, into: Path, note: Callable[[str], None]) -> None:
    """Copy every file below `top`. Raises `Invalid` for a link or device, `Unavailable` where there is no `top`."""
    if not top.is_dir():
        raise Unavailable(
            f"the artifacts of the model are not at {top}",
            "They were moved or deleted, or lie on another machine; log the model again.",
        )
    for path in archive.walk(top):
        name = path.relative_to(top).as_posix()
        note(name)
        target = archive.within(into, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _served(server: RestLookup, root: str, into: Path, note: Callable[[str], None]) -> None:
    """Fetch every file below `root` from the server; raises ValueError where it answers what is not of the protocol."""
    if _from_its_store(server):
        raise ValueError(root)  # mlflow knows how
    # all names are checked before the first byte is fetched
    found = [(name, size, archive.within(into, name)) for name, size in _listed(server, root, "", 0)]
    if not found:
        raise ValueError(root)
    for name, size, target in found:
        note(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        server.fetch(f"{_SERVED}/{root}/{name}", target, size)


def _from_its_store(server: RestLookup) -> bool:
    """Return whether the server would rather have files fetched from the store behind it; old ones do not say."""
    status, said = server.ask("/api/3.0/mlflow/server-info")
    return status == 200 and bool(said.get("multipart_downloads_enabled"))


def _listed(server: RestLookup, root: str, below: str, depth: int) -> Iterator[tuple[str, int]]:
    """Yield the name (relative to `root`) and size of every file."""
    if depth > _DEEPEST:
        raise ValueError(below)
    status, said = server.ask(_SERVED, path=f"{root}/{below}".rstrip("/"))
    if status != 200:
        raise ValueError(below)
    for entry in said.get("files", []):
        name = f"{below}{entry['path']}"
        if entry["is_dir"]:
            yield from _listed(server, root, f"{name}/", depth + 1)
        else:
            yield name, int(entry["file_size"])
