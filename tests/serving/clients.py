"""Other people's clients as they come: with the versions that they ask for, in an environment of their own.

kserve wants an older pandas than modelrel is tested with, tritonclient's gRPC an older protobuf, and ovmsclient brings
a package ``tensorflow`` of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from modelrel import wheels

CLIENTS = ("kserve==0.21.0", "tritonclient[grpc,http]==2.73.0")


@pytest.fixture(scope="session")
def kserve_python() -> Path:
    """The interpreter that has kserve's client and tritonclient's; made once for a machine, kept in the cache folder.

    Without a package index the tests that ask for it fail, and say what uv said.
    """
    return _made(*CLIENTS)


@pytest.fixture(scope="session")
def ovms_python() -> Path:
    """The interpreter that has OpenVINO's client of TensorFlow Serving's API; as ``kserve_python``."""
    return _made("ovmsclient==2023.1")


def _made(*clients: str) -> Path:
    wanted = "\n".join([*clients, sys.version])
    folder = wheels.cache_dir() / "clients" / sha256(wanted.encode()).hexdigest()[:16]
    python, whole = folder / "bin" / "python", folder / "whole"
    with wheels.alone(folder.parent):
        if not whole.exists():
            _uv("venv", "--clear", "--no-project", "--python", sys.executable, folder)
            _uv("pip", "install", "--python", python, *clients)
            whole.touch()
    return python


def _uv(*words: str | Path) -> None:
    given = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run(
        [wheels.uv(), *map(str, words), "--quiet"], capture_output=True, text=True, env=given, check=False
    )
    assert done.returncode == 0, f"the clients' environment cannot be made: {done.stderr}"


def run_client(python: Path, script: str, *arguments: object) -> Any:
    """Run a script with ``arguments`` in ``sys.argv[1:]``; return what its last line, which is JSON, says."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=given,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
