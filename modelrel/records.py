"""Values on disk: one JSON record each, tied by digests to the files it names and the record it stands on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from modelrel import archive
from modelrel.errors import Refused
from modelrel.values import File, digest

SCHEMA: Final = 1
"""Version of the record format; a record with another one is not read, so its step runs again."""

_PARENTS: Final = frozenset({"source", "converted", "parity", "package", "smoke", "smokes", "variants", "folder"})
"""Fields that hold what a value was made from: a record names them by digest only."""

Value = TypeVar("Value")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def own_fields(value: object) -> dict[str, Any]:
    """Return the fields of a value as plain JSON data, without the values it was made from."""
    given = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]
    skip = set(_PARENTS) & set(given)
    kind: Any = type(value)
    dumped: dict[str, Any] = _adapter(kind).dump_python(value, mode="json", exclude=skip)
    return dumped


def plain(value: object) -> Any:
    """Return any value of ours as plain JSON data."""
    kind: Any = type(value)
    return _adapter(kind).dump_python(value, mode="json")


def identity(value: object) -> str:
    """Return the sha256 (hex) of a value and of all that it was made from."""
    return digest([type(value).__name__, own_fields(value), _made_from(value)])


def _made_from(value: object) -> dict[str, Any]:
    links: dict[str, Any] = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        parent = getattr(value, field.name)
        if field.name in _PARENTS - {"folder"}:
            several = isinstance(parent, tuple)
            links[field.name] = [identity(one) for one in parent] if several else identity(parent)
    return links


def write(value: object, path: Path, key: str) -> None:
    """Write the record of `value`; `key` is the sha256 of all that went into the step that made it."""
    record = {
        "record": type(value).__name__,
        "schema": SCHEMA,
        "key": key,
        "from": _made_from(value),
        "value": own_fields(value),
    }
    archive.write(path, seal(record))


def seal(record: Mapping[str, Any]) -> bytes:
    """Return a record as it is written: JSON, closed by a digest of itself (`sealed` sees any byte that changed)."""
    return _text({**record, "sha256": digest(record)})


def _text(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def sealed(path: Path) -> dict[str, Any]:
    """Return the record in a file; raises ValueError where a byte of it is not as it was written."""
    content = path.read_bytes()
    record = json.loads(content)
    rest = {key: value for key, value in record.items() if key != "sha256"} if isinstance(record, dict) else {}
    if _text(record) != content or record.get("sha256") != digest(rest):
        raise ValueError(path)
    return dict(record)


def read(kind: type[Value], path: Path, key: str | None = None, **parents: object) -> Value | None:
    """Return the value recorded at `path`, or None where there is none that still holds.

    It holds when no byte of it has changed, it was made with the same `key` (None: any) from the values given as
    `parents`, and every file that it names has the recorded digest. `parents` are the fields that records leave
    out (`folder`, `source`, ...).
    """
    value = _recorded(kind, path, key, parents)
    return value if value is not None and not changed(value, folder_of(value)) else None


def _recorded(kind: type[Value], path: Path, key: str | None, parents: Mapping[str, object]) -> Value | None:
    """Return the value in a record, whatever became of the files it names."""
    try:
        record = sealed(path)
        matches = record["record"] == kind.__name__ and record["schema"] == SCHEMA
        if not matches or (key is not None and record["key"] != key):
            return None
        shape: Any = kind
        value: Value = _adapter(shape).validate_python({**record["value"], **parents})
        return value if record["from"] == _made_from(value) else None
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def differing(kind: type[Any], path: Path, **parents: object) -> list[str]:
    """Return which files are why a record does not hold: itself, or what it names (relative to the release folder)."""
    value = _recorded(kind, path, None, parents)
    return [path.name] if value is None else changed(value, folder_of(value))


def folder_of(value: Any) -> Path:
    """Return the release folder that a value belongs to."""
    for field in ("folder", "source", "converted", "parity", "package", "smoke"):
        if hasattr(value, field):
            found = getattr(value, field)
            return found if isinstance(found, Path) else folder_of(found)
    return folder_of(value.smokes[0])


def files_of(value: object) -> tuple[File, ...]:
    """Return every file that a value names itself (not those of the values it was made from)."""
    found: list[File] = []
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        content = getattr(value, field.name)
        if isinstance(content, File):
            found.append(content)
        elif isinstance(content, tuple):
            found += [item for item in content if isinstance(item, File)]
    return tuple(found)


def changed(value: object, folder: Path) -> list[str]:
    """Return the paths that a value names and that are missing or have other bytes than recorded."""
    wrong = []
    for file in files_of(value):
        path = archive.within(folder, file.path)
        same = path.is_file() and path.stat().st_size == file.size and archive.sha256(path) == file.sha256
        if not same:
            wrong.append(file.path)
    return wrong


def intact(value: object) -> None:
    """Raise `Refused` when a file that `value` names has changed since it was recorded."""
    wrong = changed(value, folder_of(value))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Refused(
            f"{wrong[0]}{more} is not what {type(value).__name__} was recorded for",
            "Run the release again, so that the evidence is about these bytes.",
        )
