"""onnxruntime-web as npm installs it from a lock, kept by digest; and the programs node and npm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from modelrel import archive, wheels
from modelrel.errors import Refused, Unavailable
from modelrel.targets.delivery import Note
from modelrel.values import digest

PINNED: Final = Path(__file__).parent / "pinned"
VERSION: Final = "1.30.0"
"""Of onnxruntime-web, as in the lock."""

RANGE: Final = ">=1.27.0 <1.31.0"
"""The versions of onnxruntime-web that were tried."""

NODE: Final = "20.16"
"""The oldest Node that has `process.getBuiltinModule`."""

WEB: Final = "onnxruntime-web"
BUNDLE: Final = "ort.wasm.bundle.min.mjs"
BINARY: Final = "ort-wasm-simd-threaded.wasm"
FILES: Final = (BUNDLE, "ort-wasm-simd-threaded.mjs", BINARY)
"""What runs a model: the first is imported, which in Node imports the second; the third is loaded."""

_CLEANING: Final = 1  # counted up when `_fill` changes
_SILENCE: Final = (
    "ENOTFOUND",
    "ECONNREFUSED",
    "ECONNRESET",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "ENETUNREACH",
    "ENOTCACHED",
    "EIDLETIMEOUT",
)


def program(name: str) -> Path:
    """Return the path of `node` or `npm`: the one beside this Python, else on PATH; raises `Unavailable`."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if not found:
        raise Unavailable(
            f"{name} is not installed here, which npm packages are run with",
            'Install Node 20.16 or later, or: pip install "modelrel[npm]".',
        )
    return Path(found)


def node() -> tuple[Path, str]:
    """Return the path of Node and its version; raises `Unavailable` where there is none, or one that is too old."""
    path = program("node")
    done = subprocess.run([path, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    version = done.stdout.strip().removeprefix("v")
    if done.returncode or not re.match(r"\d+\.\d+", version):
        raise Unavailable(f"{path} does not run", "Install Node again.")
    if tuple(map(int, version.split(".")[:2])) < tuple(map(int, NODE.split("."))):
        raise Unavailable(
            f"Node {version} is here, and the package needs {NODE}", 'Install it: pip install "modelrel[npm]".'
        )
    return path, version


def modules(note: Note) -> Path:
    """Return a folder `node_modules` that holds onnxruntime-web as locked (shared: never write there).

    npm's own settings say which registry, proxy and certificates. Raises `Unavailable` where npm is not here or no
    registry answers, `Refused` where one serves other bytes than the lock has digests of.
    """
    locked = [(PINNED / name).read_text(encoding="utf-8") for name in ("package.json", "package-lock.json")]
    folder = wheels.cache_dir() / "npm" / digest([*locked, _CLEANING])
    if not folder.is_dir():
        with wheels.alone(folder.parent):
            if not folder.is_dir():
                note(f"fetching {WEB} {VERSION}")
                _fill(folder)
    return folder / "node_modules"


def _fill(folder: Path) -> None:
    npm = program("npm")
    with archive.fresh_folder(folder) as work:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(PINNED / name, work / name)
        # what runs npm is the node beside it
        environment = {**os.environ, "PATH": f"{npm.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=work, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode:
            raise _failure(done.stderr)
        dist = work / "node_modules" / WEB / "dist"
        for path in dist.iterdir():
            if path.name not in FILES:
                path.unlink()
        for name in FILES:
            if not (dist / name).is_file():
                raise Refused(f"{WEB} {VERSION} has no {name}", "Report it to whoever runs the registry.")


def _failure(stderr: str) -> Unavailable | Refused:
    told = [line.removeprefix("npm error ").strip() for line in stderr.splitlines() if line.startswith("npm error ")]
    code = next((line.removeprefix("code ") for line in told if line.startswith("code ")), "")
    first = next((line for line in told if line and not line.startswith(("code ", "errno ", "syscall "))), "it failed")
    text = first[:240]
    if code == "EINTEGRITY":
        return Refused(
            f"the npm registry served other bytes than those locked: {text}", "Report it to whoever runs the registry."
        )
    if code in _SILENCE:
        return Unavailable(
            f"{WEB} cannot be fetched, no npm registry answers: {text}",
            "Check the network, or npm's own settings (npm config get registry, HTTPS_PROXY).",
        )
    return Unavailable(f"{WEB} {VERSION} cannot be fetched: {text}", "Check npm's settings: npm config list.")
