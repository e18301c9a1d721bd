"""Python modules, compiled beforehand for programs that cannot write and would compile them at each start.

The compiled files are those of PEP 552 that are never checked against a source's date, so that their bytes depend on
the sources, on where these will stand, and on the interpreter alone.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from modelrel import archive, interpreters, wheels
from modelrel.values import digest

# A source that this Python cannot read (a template, a file for another version) is left to whoever imports it.
_COMPILE: Final = """
import json, py_compile, sys
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
for source, target, shown in json.load(sys.stdin):
    try:
        py_compile.compile(source, target, shown, doraise=True, invalidation_mode=mode)
    except (py_compile.PyCompileError, UnicodeDecodeError):
        pass
"""


def compiled(files: Mapping[str, Path], at: str, python: str) -> Mapping[str, Path]:
    """Return the compiled modules (name -> file) of the Python sources among `files` (name -> file).

    `at` is the folder that the names are below when the program runs, as tracebacks show it. They are made by this
    machine's interpreter of the version `python` (`3.13`) and kept; without one there is none.
    """
    program = interpreters.find(python)
    sources = {name: files[name] for name in sorted(files) if name.endswith(".py")}
    if program is None or not sources:
        return {}
    key = [_version(program), at, {name: archive.sha256(path) for name, path in sources.items()}]
    folder = wheels.cache_dir() / "bytecode" / digest(key)
    if not folder.is_dir():
        with wheels.alone(folder.parent):
            if not folder.is_dir():
                _fill(folder, sources, at, program, f"cpython-{python.replace('.', '')}")
    return {path.relative_to(folder).as_posix(): path for path in archive.walk(folder)}


def _version(program: Path) -> str:
    """Return what an interpreter says about itself: another build may compile to other bytes."""
    asked = [str(program), "-I", "-S", "-c", "import sys; print(sys.version)"]
    return subprocess.run(asked, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True).stdout


def _fill(folder: Path, sources: Mapping[str, Path], at: str, program: Path, tag: str) -> None:
    with archive.fresh_folder(folder) as work:
        jobs = []
        for name, path in sources.items():
            pure = PurePosixPath(name)
            target = archive.within(work, f"{pure.parent}/__pycache__/{pure.stem}.{tag}.pyc")
            jobs.append([str(path), str(target), f"{at}/{name}"])
        # the order of what is in a set, and so of constants, must not depend on chance
        subprocess.run(
            [str(program), "-S", "-s", "-W", "ignore", "-c", _COMPILE],
            input=json.dumps(jobs), text=True, check=True, capture_output=True,
            env={"PATH": os.defpath, "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
        )  # fmt: skip
        for top, _, names in os.walk(work):
            Path(top).chmod(0o755)
            for name in names:
                Path(top, name).chmod(0o644)
