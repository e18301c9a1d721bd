"""Node, npm, TypeScript and a static server for the tests of packages for JavaScript."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from modelrel import archive, wheels
from modelrel.delivered import Package
from modelrel.errors import Unavailable
from modelrel.targets.npm import runtime, tarball
from modelrel.targets.process import free_port
from tests.targets import tiny

TYPESCRIPT = "7.0.2"


def awaited(element: str, ready: str) -> str:
    """Return an expression for a page: the text of an element (`told`), as soon as a condition holds."""
    return (
        f"new Promise((done) => {{ const told = document.getElementById({json.dumps(element)});\n"
        f"const look = () => ({ready} ? done(told.textContent) : setTimeout(look, 20)); look(); }})"
    )


GOLDEN = awaited("golden", '!told.textContent.startsWith("Loading")')
"""What the page of a package says of its golden rows."""


@cache
def node() -> Path:
    """Return the path of Node; without it, or a registry to have the runtime from, the test is skipped."""
    try:
        path = runtime.node()[0]
        runtime.modules(lambda _: None)
    except Unavailable as error:
        tiny.absent("node", error.message)
    return path


def run(*words: object, at: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of Node's (`node`, `npm`) in a folder."""
    name, *others = words
    node()
    program = name if isinstance(name, Path) else runtime.program(str(name))
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [program, *map(str, others)], cwd=at, env=environment, capture_output=True, text=True, input=given, check=False
    )


def nodes() -> list[Path]:
    """Return each Node at hand that is new enough: the one that modelrel takes, and those on PATH."""
    found = {node().resolve(): node()}
    for folder in os.environ["PATH"].split(os.pathsep):
        path = Path(folder, "node")
        if os.access(path, os.X_OK) and path.resolve() not in found:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if [int(part) for part in said.strip()[1:].split(".")] >= [int(part) for part in runtime.NODE.split(".")]:
                found[path.resolve()] = path
    return list(found.values())


def unpacked(package: Package, into: Path) -> Path:
    """Unpack a delivered tarball as npm would install it below `into`; return the package's folder."""
    node()
    path = package.folder / package.artifact
    opened = into / "opened"
    tarball.unpacked(path, opened)
    name = json.loads((opened / "package.json").read_text())["name"]
    home = into / "node_modules" / name
    home.parent.mkdir(parents=True)
    opened.rename(home)
    (into / "node_modules" / runtime.WEB).symlink_to(runtime.modules(print) / runtime.WEB)
    return home


def script(code: str, at: Path) -> Any:
    """Run a module in a folder and return what it printed as JSON."""
    (at / "script.mjs").write_text(code, encoding="utf-8")
    done = run("node", "script.mjs", at=at)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@cache
def typescript() -> Path:
    """Return the folder of TypeScript, which npm installs once and every process of the tests shares."""
    node()
    folder = wheels.cache_dir() / "npm" / f"typescript-{TYPESCRIPT}"
    return kept(folder, f"typescript@{TYPESCRIPT}") / "node_modules" / "typescript"


def kept(folder: Path, *words: str) -> Path:
    """Return a folder in which npm has installed packages, once for a machine."""
    with wheels.alone(folder.parent):
        if not folder.is_dir():
            with archive.fresh_folder(folder) as work:
                (work / "package.json").write_text('{"private": true}')
                done = run("npm", "install", "--no-audit", "--no-fund", *words, at=work)
                assert done.returncode == 0, done.stderr
                for link in [path for path in work.rglob("*") if path.is_symlink()]:
                    link.unlink()
    return folder


def checked(folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """Return what the compiler of TypeScript says of files, strictly."""
    words = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--types", "", *files]
    return run("node", typescript() / "bin" / "tsc", *words, at=folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder with Python's own static server; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    assert process.poll() is None
                    time.sleep(0.02)
                else:
                    connection.close()
                    break
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def installed(package: Package, at: Path) -> Path:
    """Install a delivered tarball with npm itself in an empty project; return the project's folder."""
    at.mkdir()
    (at / "package.json").write_text('{"private": true, "type": "module"}')
    shutil.copy(package.folder / package.artifact, at)
    done = run("npm", "install", "--no-audit", "--no-fund", f"./{Path(package.artifact).name}", at=at)
    assert done.returncode == 0, done.stderr
    return at
