"""The summary of a release folder, `release.json`: every file with its sha256; and whether it still is so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from modelrel import __version__, archive, records
from modelrel.values import File

NAME: Final = "release.json"

REPORT: Final = "report.html"
"""The page that is made of the records at any time, anew after each promotion: evidence of nothing, and not listed."""

RECORDS: Final = frozenset({"SourceModel", "ConvertedModel", "ParityReport", "Package", "SmokeReport", "Attestation",
                            "Pushed", "Promotion"})  # fmt: skip
"""What records are called: they are sealed by a digest of themselves, and say what they were made from."""

_DEPTHS: Final = ("*.json", "*/*.json", "*/*/*.json", "*/*/*/*.json")


def write(folder: Path, about: Mapping[str, str], known: Mapping[str, File]) -> Path:
    """Write the summary and return its path; `known` are files whose digests were compared with their bytes already."""
    files = {}
    for path in archive.walk(folder):
        name = path.relative_to(folder).as_posix()
        if name not in (NAME, REPORT):
            files[name] = known.get(name) or archive.describe(path, folder)
    listed = [{"path": one.path, "sha256": one.sha256, "size": one.size} for _, one in sorted(files.items())]
    content = {"schema": records.SCHEMA, "modelrel": __version__, **about, "files": listed}
    path, text = folder / NAME, records.seal(content)
    if not path.is_file() or path.read_bytes() != text:
        archive.write(path, text)
    return path


def changed(folder: Path, known: Mapping[str, File]) -> list[str]:
    """Return the files of a release that are not as they were written: records, the summary, and what it lists.

    `known` are files whose digests were compared with their bytes already. What was made since the summary was
    written is not in it; and records that were written again are judged by their seals, and by what stands on them.
    """
    wrong = [path.relative_to(folder).as_posix() for path in _records(folder) if not _holds(path)]
    path = folder / NAME
    if not path.is_file():
        return wrong
    try:
        listed = {str(one["path"]): str(one["sha256"]) for one in records.sealed(path)["files"]}
    except (ValueError, KeyError, TypeError):
        return [*wrong, NAME]
    for name, digest in listed.items():
        file = archive.within(folder, name)
        if _is_record(file, folder):
            continue
        digests = known[name].sha256 if name in known else archive.sha256(file) if file.is_file() else ""
        if digests != digest:
            wrong.append(name)
    return wrong


def _records(folder: Path) -> Iterator[Path]:
    for depth in _DEPTHS:
        for path in sorted(folder.glob(depth)):
            if _is_record(path, folder):
                yield path


def _is_record(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts
    if inside[0] == "source" or len(inside) > 4:
        return False
    first, *rest = path.name.split(".")
    return (
        path.suffix == ".json" and first in RECORDS and (not rest[:-1] or rest[0] == "refused" or first == "Promotion")
    )


def _holds(path: Path) -> bool:
    try:
        return bool(records.sealed(path))
    except (OSError, ValueError):
        return False
