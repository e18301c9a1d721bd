"""`modelrel serve`: the reference server in a process of its own, its end told as an exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from modelrel import serving
from modelrel.errors import Invalid, ModelrelError, Unavailable

if TYPE_CHECKING:
    from modelrel.commands.call import Call

_READY: Final = re.compile(r"modelrel serving (?P<model>\S+) on (?P<url>\S+)")


def servable(path: Path) -> Path | None:
    """Return the folder to serve where `path` is one, or a package that holds one (`model/`); else None."""
    for folder in (path, path / "model", path / "context" / "model", path / "onnx"):
        if (folder / "modelrel.json").is_file():
            return folder
    return None


def run(folder: Path, host: str, port: int, threads: int | None, call: Call) -> None:
    """Serve `folder` until a signal ends it.

    Raises `Unavailable` where the port is in use, `Invalid` where the folder cannot be served.
    """
    command = [sys.executable, "-m", serving.__name__, str(folder), "--host", host, "--port", str(port)]
    if threads is not None:
        command += ["--threads", str(threads)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def forward(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    last = ""
    assert child.stderr is not None  # a pipe was asked for
    for line in child.stderr:
        last = line.strip() or last
        found = _READY.match(line)
        if found and call.json:
            call.result({"model": found["model"], "url": found["url"]})
            sys.stdout.flush()
        elif not call.quiet or not found:
            print(line, end="", file=sys.stderr) if child.poll() is None or found else None
    code = child.wait()
    if code:
        raise _failure(code, last, port)


def _failure(code: int, sentence: str, port: int) -> ModelrelError:
    sentence = re.sub(r"^(error|modelrel)[^:]*: ", "", sentence)
    if code == Unavailable.exit_code:
        return Unavailable(sentence, f"Choose another port than {port} with --port, or 0 for a free one.")
    if code == Invalid.exit_code:
        return Invalid(sentence, "Package the model again.")
    return ModelrelError(f"the server ended with {code}: {sentence}", "Run it again with -v.")
