"""Installed packages as they are, less what differs between two installs of one wheel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from modelrel import archive

_TESTED: Final = frozenset({"numpy", "pandas", "pyarrow", "scipy", "sklearn", "xgboost", "lightgbm"})
"""Packages that run without the folders of their own tests."""

_RECORDS: Final = frozenset({"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"})


def tidy(folder: Path) -> None:
    """Delete what differs between two installs of one wheel, and what only tests large libraries; set plain modes."""
    shutil.rmtree(folder / "bin", ignore_errors=True)  # scripts name the interpreter that they were installed for
    for top, folders, names in os.walk(folder):
        tested = Path(top).relative_to(folder).parts[:1]
        for name in {"__pycache__", *(("tests",) if tested and tested[0] in _TESTED else ())} & set(folders):
            folders.remove(name)
            shutil.rmtree(Path(top, name))
        Path(top).chmod(0o755)
        for name in names:
            path = Path(top, name)
            record = name in _RECORDS and top.endswith(".dist-info")
            if record or name == ".lock" or name.endswith(".pyc"):
                path.unlink()
            else:
                path.chmod(0o644)
    for listing in folder.glob("*.dist-info/RECORD"):  # importlib.metadata finds the packages of a distribution by it
        kept = (line for line in listing.read_text(encoding="utf-8").splitlines() if _stands(folder, line))
        listing.write_text("".join(f"{line}\n" for line in sorted(kept)), encoding="utf-8")


def _stands(folder: Path, line: str) -> bool:
    """Return whether the file of a line of RECORD (name, digest, size) is there; names with commas are in quotes."""
    name = line[1:].partition('"')[0] if line.startswith('"') else line.partition(",")[0]
    return not name.startswith(("/", "..")) and (folder / name).is_file()


def foreign(folder: Path, machine: int, *, modules: bool = False) -> Path | None:
    """Return a shared library below `folder` that is built for another `machine` (`e_machine`), None without one.

    `modules`: only those that Python imports are looked at; a package may have others for several machines.
    """
    for path in archive.walk(folder):
        if modules and not any(mark in path.name for mark in (".cpython-", ".abi3.")):
            continue
        with path.open("rb") as stream:
            head = stream.read(20)
        if head[:4] == b"\x7fELF" and int.from_bytes(head[18:20], "little") != machine:
            return path
    return None
