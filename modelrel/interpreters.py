"""Where a Python interpreter of a given version stands on this machine: every candidate is run, none is believed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_ASK: Final = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
_SECONDS: Final = 20.0


@cache
def find(python: str) -> Path | None:
    """Return a CPython of that version (`3.13`) that runs here, or None where there is none.

    Looked for, in this order: the interpreter that runs modelrel, PATH, the installations beside it (where pyenv
    and uv keep them), pyenv's own folder, uv.
    """
    seen = set()
    for candidate in _candidates(python):
        place = os.path.realpath(candidate)
        if place not in seen and _answers(candidate, python):
            return candidate
        seen.add(place)
    return None


def install(python: str, uv: str) -> Path | None:
    """Let uv fetch a CPython of that version; return it, or None where that does not work."""
    quiet = {**os.environ, "UV_NO_PROGRESS": "1", "UV_HTTP_RETRIES": os.environ.get("UV_HTTP_RETRIES", "0")}
    command = [uv, "python", "install", "--quiet", "--no-bin", python]
    done = subprocess.run(command, capture_output=True, env=quiet, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        return None
    find.cache_clear()
    return find(python)


def _candidates(python: str) -> Iterator[Path]:
    if python == "{}.{}".format(*sys.version_info[:2]):
        yield Path(sys.executable)
    name = f"python{python}"
    # A version manager's shim on PATH may refuse, so the ones behind it are candidates too.
    for folder in os.get_exec_path():
        yield Path(folder, name)
    roots = [Path(sys.base_prefix).parent]
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")  # noqa: PTH111  # no HOME: no error
    roots.append(Path(pyenv, "versions"))
    for root in roots:
        if root.is_absolute() and root.is_dir():
            yield from sorted(root.glob(f"*/bin/{name}"), reverse=True)
    yield from _known_to_uv(python)


def _known_to_uv(python: str) -> Iterator[Path]:
    program = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    quiet = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    try:
        done = subprocess.run(
            [program, "python", "find", "--no-project", "--system", python],
            capture_output=True, text=True, env=quiet, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode == 0 and done.stdout.strip():
        yield Path(done.stdout.strip())


def _answers(candidate: Path, python: str) -> bool:
    if not os.access(candidate, os.X_OK):
        return False
    try:
        done = subprocess.run(
            [str(candidate), "-I", "-S", "-c", _ASK],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.split() == ["cpython", python]
