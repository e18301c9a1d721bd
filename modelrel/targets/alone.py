"""A model folder in a process of its own: what a target of files gives to a smoke test."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelrel.targets import process as processes

Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Name -> nested lists in, `{"outputs": ...}` or `{"error": ...}` out."""

_ASK_MODEL: Final = Path(__file__).with_name("ask_model.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A started script: what it can be asked, its process, and the `time.perf_counter()` at which it was started."""

    ask: Ask
    process: subprocess.Popen[bytes]
    started: float


@contextmanager
def asked(folder: Path, script: str = "", ours: Path = _ASK_MODEL) -> Iterator[Alone]:
    """Run a script of a folder (`--lines`), or `ours` on the model there, in a copy of the folder.

    It is ended when the block ends. It sees the libraries that are installed here, and nothing of modelrel.
    """
    paths = tuple(dict.fromkeys(sysconfig.get_path(name) for name in ("platlib", "purelib")))
    words = (script, "--lines") if script else (str(ours), ".")
    program = processes.Program(python=Path(sys.executable), arguments=words, paths=paths)
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        copy, log = Path(work, "package"), Path(work, "log")
        shutil.copytree(folder, copy)
        begun = time.perf_counter()
        with processes.started(copy, program, log, talks=True) as process:
            yield Alone(
                ask=lambda inputs: processes.asked(process, {"inputs": inputs}, log), process=process, started=begun
            )
