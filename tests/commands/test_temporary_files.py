"""Temporary files: a command leaves none on the machine, whether it ends by itself or is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def started(registry: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a conversion that keeps temporary files in `folder`."""
    folder.mkdir()
    command = [sys.executable, "-m", "modelrel", "convert", "digits/1", "--registry", registry, "--quiet"]
    own = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen(command, env=own, stderr=subprocess.DEVNULL)


def test_a_command_leaves_none(sqlite_registry: str, tmp_path: Path) -> None:
    process = started(sqlite_registry, tmp_path / "temporary")
    assert process.wait() == 0
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["interrupt", "terminate"])
def test_a_command_that_is_stopped_leaves_none(number: signal.Signals, sqlite_registry: str, tmp_path: Path) -> None:
    process = started(sqlite_registry, tmp_path / "temporary")
    while not list((tmp_path / "temporary").iterdir()):  # a worker has its folder
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() != 0
    assert list((tmp_path / "temporary").iterdir()) == []
