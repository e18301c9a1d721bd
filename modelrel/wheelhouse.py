"""A folder of wheels that stands for the package index, for machines that have none.

It holds for one packaging as a whole (`only`): whatever fetches wheels in it takes them from there, and what was kept
of an index is not mixed with it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from modelrel.errors import Invalid
from modelrel.values import digest

_FOLDERS: Final[list[Path]] = []  # of the packagings under way, the innermost last; threads of one see it too

_FLOOR: Final = ("2_28", "2_27", "2_26", "2_24", "2_17")
"""The glibc versions that pip is told, newest first: it does not know by itself that an older one fits, too."""

_MACHINES: Final = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


@contextmanager
def only(folder: Path | None) -> Iterator[None]:
    """Take wheels from `folder` alone until the block ends (None: from wherever uv's own settings say).

    Raises `Invalid` where there is no such folder.
    """
    if folder is None:
        yield
        return
    if not folder.is_dir():
        raise Invalid(f"the wheelhouse {folder} is not a folder", "Check --wheelhouse.")
    _FOLDERS.append(folder.resolve())
    try:
        yield
    finally:
        _FOLDERS.pop()


def current() -> Path | None:
    """Return the folder that stands for the index now, if one does."""
    return _FOLDERS[-1] if _FOLDERS else None


def arguments() -> list[str]:
    """Return what uv is told to take wheels from there alone; nothing where there is no wheelhouse."""
    folder = current()
    return [] if folder is None else ["--no-index", "--offline", "--find-links", str(folder)]


def identity() -> list[str]:
    """Return what keeps caches apart: a digest of what lies there now; nothing where there is no wheelhouse."""
    folder = current()
    if folder is None:
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [digest([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])]


def holds(lock: str) -> bool:
    """Return whether every version that a lock pins can be there; without a wheelhouse that is for the index to say."""
    folder = current()
    pins = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;\\]+)", lock, re.MULTILINE)
    there = _there(folder) if folder else set()
    return folder is None or {(canonicalize_name(name), version) for name, version in pins} <= there


def lacking(wanted: Iterable[str]) -> list[str]:
    """Return the names among the requirements of which no wheel at all is there."""
    folder = current()
    there = {name for name, _ in _there(folder)} if folder else set()
    names = [found[0] for line in wanted if (found := re.match(r"[A-Za-z0-9][\w.-]*", line))]
    return [name for name in names if canonicalize_name(name) not in there]


def filling(wanted: Iterable[str], python: str, platform: str) -> str:
    """Return the command that fills the folder on a machine that has an index."""
    folder, tag = current(), python.replace(".", "")
    tags = [f"manylinux_{glibc}_{_MACHINES[platform]}" for glibc in _FLOOR] + [f"manylinux2014_{_MACHINES[platform]}"]
    words = ["pip", "download", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    words += [word for abi in (f"cp{tag}", "abi3", "none") for word in ("--abi", abi)]
    words += [word for one in tags for word in ("--platform", one)]
    return shlex.join([*words, "--dest", str(folder), *wanted])


def _there(folder: Path) -> set[tuple[str, str]]:
    found = set()
    for path in folder.glob("*.whl"):
        try:
            name, version, *_ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue  # uv passes it over, too
        found.add((str(name), str(version)))
    return found
