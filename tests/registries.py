"""Debian's docker-registry, started for a test on a port that the kernel chose."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.targets import tiny

USER, PASSWORD = "ann", "secret"
_BCRYPT = "$2b$05$f7ILY34/ivuLZ.nayTwiCuclQ30uYpm/2OxyEfQxMqizVQuwaMxDe"  # of PASSWORD


def program() -> str:
    """Return where docker-registry is; without it the test is skipped, or fails in CI."""
    for name in ("docker-registry", "skopeo"):
        if not shutil.which(name):
            tiny.absent("registry", f"{name} is not installed here (Debian: apt-get install {name})")
    return str(shutil.which("docker-registry"))


@contextmanager
def running(folder: Path, *, guarded: bool = False) -> Iterator[str]:
    """Give the address of a registry that keeps its blobs in a folder; `guarded` lets in only USER with PASSWORD."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "version: 0.1", "log: {level: info}", f"storage: {{filesystem: {{rootdirectory: '{folder}/blobs'}}}}",
        "http: {addr: '127.0.0.1:0'}",
    ]  # fmt: skip
    if guarded:
        (folder / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        lines.append(f"auth: {{htpasswd: {{realm: images, path: '{folder}/htpasswd'}}}}")
    (folder / "config.yml").write_text("\n".join(lines))
    log = folder / "log"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [program(), "serve", str(folder / "config.yml")], stdout=stream, stderr=stream, env=environment
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        process.wait(120)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        if found := re.search(r"listening on (127\.0\.0\.1:[1-9]\d*)", log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(f"the registry did not start: {log.read_text()[-2000:]}")


def skopeo(*words: object) -> bytes:
    """Return what skopeo says."""
    program()
    done = subprocess.run(["skopeo", *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
