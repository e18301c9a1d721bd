"""Third-party wheels, resolved on this machine for another platform and Python, locked with hashes, kept by digest.

uv does the work. Its own settings (index, proxy, certificates, find-links) are whatever the user gave it; none of
them reaches a lock or a folder made here.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelrel import archive, complaints, distributions, installed, wheelhouse
from modelrel.errors import Invalid, Refused, Unavailable, redacted
from modelrel.values import digest

Note = Callable[[str], None]
"""Takes one line about what is going on."""

FLOORS: Final = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
}
"""Platform -> the oldest glibc that wheels may need: 2.28 is the oldest that onnxruntime is built for."""

MACHINES: Final = {"linux/amd64": 0x3E, "linux/arm64": 0xB7}
"""Platform -> `e_machine` of an ELF file (System V ABI, AMD64 and AArch64 supplements)."""

_CLEANING: Final = 2  # counted up when `_clean` changes, so that folders cleaned the old way are not used
_LOCK_DAYS: Final = 1.0  # how long a lock stands before the index is asked for newer versions
_SHUT: Final = re.compile(r"An index URL \((\S+)\) could not be queried due to [^(]*\((40[13] [^)]*)\)")
"""What uv says, as a hint only, of an index that wants other credentials."""

# Nothing that answers a request needs these; a smoke test after every packaging proves it for the model at hand.
_UNUSED: Final = (
    "bin",
    "numpy/_core/include",
    "numpy/_pyinstaller",
    "numpy/f2py",
    "numpy/typing",
    "onnxruntime/backend",
    "onnxruntime/datasets",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/transformers",
)
_UNUSED_FOLDERS: Final = frozenset({"__pycache__", "tests"})
_UNUSED_SUFFIXES: Final = (".pyc", ".pyi", ".a", ".h", ".c", ".pyx", ".pxd", ".lib", ".cmake", ".exe")
_UNUSED_RECORDS: Final = frozenset(
    {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheels:
    """Wheels, unpacked: the lock they follow, the folder that holds them (shared: never write there), and remarks."""

    lock: str
    folder: Path
    notes: tuple[str, ...] = ()


def cache_dir() -> Path:
    """Return the folder for what can be made again: `$XDG_CACHE_HOME/modelrel`, else `~/.cache/modelrel`."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "modelrel"
    home = os.path.expanduser("~")  # noqa: PTH111  # Path.home() raises where there is none
    return (Path(home) if home != "~" and os.access(home, os.W_OK) else Path(tempfile.gettempdir())) / ".cache/modelrel"


def uv() -> str:
    """Return the path of the uv program: the one that came with modelrel, else the one on PATH.

    Raises `Unavailable` where there is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise Unavailable("uv, which fetches the wheels, is not installed here", "Install it: pip install uv")
    return found


def check_python(python: str) -> str:
    """Return `python` where it reads like `3.13`; raises `Invalid` otherwise."""
    if not re.fullmatch(r"3\.[0-9]{1,2}", python):
        raise Invalid(f"{python!r} is not a Python version that wheels are built for", "Give it as 3.13.")
    return python


def check_platform(platform: str) -> str:
    """Return `platform` where wheels can be chosen for it; raises `Invalid` otherwise."""
    if platform not in FLOORS:
        raise Invalid(f"there is no platform {platform!r} here", f"Choose one of: {', '.join(FLOORS)}.")
    return platform


def host_platform() -> str:
    """Return the platform whose programs run on this machine: `linux/arm64` or `linux/amd64`."""
    return "linux/arm64" if os.uname().machine in ("aarch64", "arm64") else "linux/amd64"


def fetch(
    choices: tuple[tuple[str, ...], ...], python: str, platform: str, lock: str = "", note: Note = lambda _: None
) -> Wheels:
    """Resolve, lock and unpack wheels, or take them from the cache.

    `choices` are lists of requirements, the preferred one first; a later one is taken where an earlier one has no
    wheels for that Python and platform. `lock` is an earlier lock: where it was made from the same requirements it is
    followed. Raises `Unavailable` where an index does not answer or has no such wheels, `Invalid` for a Python version
    or platform that does not exist.
    """
    check_python(python)
    check_platform(platform)
    failure: Unavailable | None = None
    # One that stands already needs no index, not even to learn again that an earlier choice cannot be had.
    standing = [wanted for wanted in choices if _standing(wanted, python, platform, lock)]
    for wanted in standing or choices:
        try:
            text, remarks = _locked(wanted, python, platform, lock, note)
        except _NoSuchWheel as error:
            failure = failure or error
            continue
        try:
            folder = _unpacked(text, python, platform, note)
        except _NoSuchWheel as error:
            raise _lacking(error, wanted, python, platform) from error
        if wanted != choices[0]:
            remarks = (*remarks, _instead(choices[0], text, f"Python {python} on {platform}"))
        return Wheels(lock=text, folder=folder, notes=remarks)
    raise _lacking(failure, choices[0], python, platform) if failure else Invalid("no wheels were asked for")


def environment(
    wanted: tuple[str, ...], python: str, platform: str, lock: str = "", note: Note = lambda _: None
) -> Wheels:
    """Return the wheels of any packages whole, for nobody knows what a model's code needs; otherwise as `fetch`."""
    check_python(python)
    check_platform(platform)
    try:
        text, remarks = _locked(wanted, python, platform, lock, note)
        return Wheels(lock=text, folder=_unpacked(text, python, platform, note, whole=True), notes=remarks)
    except _NoSuchWheel as error:
        raise _lacking(error, wanted, python, platform) from error


class _NoSuchWheel(Unavailable):
    """The index answered: it has no wheels that fit."""


def _lacking(failure: Unavailable, wanted: tuple[str, ...], python: str, platform: str) -> Unavailable:
    """Return a failure, for a wheelhouse with what it lacks and how to fill it."""
    folder = wheelhouse.current()
    if folder is None:
        return failure
    lacks = ", ".join(wheelhouse.lacking(wanted)) or "what fits"
    return Unavailable(
        f"the wheelhouse {folder} lacks {lacks} for Python {python} on {platform}: {failure.message}",
        f"Fill it where an index answers: {wheelhouse.filling(wanted, python, platform)}",
    )


def _head(wanted: tuple[str, ...], python: str, platform: str) -> str:
    return f"# Python {python} on {platform}: {' '.join(sorted(wanted))}\n"


def _locked(wanted: tuple[str, ...], python: str, platform: str, lock: str, note: Note) -> tuple[str, tuple[str, ...]]:
    """Return the lock for what is wanted, and what there is to say about it."""
    found = _standing(wanted, python, platform, lock)
    if found:
        return found, ()
    head = _head(wanted, python, platform)
    kept = _kept(head)
    note(f"resolving wheels for Python {python} on {platform}")
    try:
        text = head + _compile(wanted, python, platform)
    except _NoSuchWheel:
        raise
    except Unavailable:
        if not kept.is_file():
            raise
        return kept.read_text(encoding="utf-8"), (
            f"no index answered: the wheels are those resolved {_age_days(kept):.0f} days ago",
        )
    archive.write(kept, text.encode())
    return text, ()


def _standing(wanted: tuple[str, ...], python: str, platform: str, lock: str) -> str:
    """Return the lock to follow without asking an index: the earlier one, or one made lately; "" for none."""
    head = _head(wanted, python, platform)
    if lock.startswith(head) and wheelhouse.holds(lock):
        return lock
    kept = _kept(head)
    return kept.read_text(encoding="utf-8") if kept.is_file() and _age_days(kept) < _LOCK_DAYS else ""


def _kept(head: str) -> Path:
    return cache_dir() / "locks" / f"{digest([head, *wheelhouse.identity()])}.txt"


def _age_days(path: Path) -> float:
    return (time.time() - path.stat().st_mtime) / 86400


def _compile(wanted: tuple[str, ...], python: str, platform: str) -> str:
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        asked, answer = Path(work, "requirements.in"), Path(work, "requirements.lock")
        asked.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
        command = ["pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--output-file", str(answer), str(asked)]
        _run(command, python, platform)
        return answer.read_text(encoding="utf-8")


def _unpacked(lock: str, python: str, platform: str, note: Note, *, whole: bool = False) -> Path:
    """Return the folder that holds the wheels of `lock`, from the cache where it is there."""
    kind = [*wheelhouse.identity(), *(["whole"] if whole else [])]
    folder = cache_dir() / "wheels" / digest([lock, python, platform, _CLEANING, *kind])
    if folder.is_dir():
        return folder
    with alone(folder.parent):
        if not folder.is_dir():
            note(f"fetching {lock.count('==')} wheels for Python {python} on {platform}")
            _fill(folder, lock, python, platform, installed.tidy if whole else _clean)
    return folder


@contextmanager
def alone(top: Path) -> Iterator[None]:
    """Let one process at a time fill the cache, and clear away what killed ones left there."""
    with archive.translated(top):
        top.mkdir(parents=True, exist_ok=True)
        with (top / ".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            for path in top.glob(f"{archive.UNFINISHED}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield


def _fill(folder: Path, lock: str, python: str, platform: str, clean: Callable[[Path], None]) -> None:
    with archive.fresh_folder(folder) as work:
        listing = work.with_name(f"{work.name}.lock")
        try:
            listing.write_text(lock, encoding="utf-8")
            command = ["pip", "install", "--quiet", "--target", str(work), "--require-hashes", "--no-deps"]
            command += ["--no-compile-bytecode", "--link-mode", "copy", "--requirement", str(listing)]
            _run(command, python, platform)
        finally:
            listing.unlink(missing_ok=True)
        clean(work)
        check_machine(work, platform, modules=clean is not _clean)


def _run(command: list[str], python: str, platform: str) -> None:
    """Run uv for another machine; raise its essential line as one sentence."""
    given = ["--python-version", python, "--python-platform", FLOORS[platform], "--only-binary", ":all:"]
    given += ["--python", sys.executable, *wheelhouse.arguments()]
    # Asking for a Python that is not here would make uv fetch one; wheels are chosen without it.
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [uv(), *command, *given], capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise _failure(done.stderr, python, platform)


def _failure(stderr: str, python: str, platform: str) -> Unavailable:
    line = complaints.essential(stderr)
    if wheelhouse.current() is not None:
        return _NoSuchWheel(line)
    if shut := _SHUT.search(" ".join(stderr.split())):
        return Unavailable(
            f"the package index {redacted(shut[1])} does not let us in ({shut[2]})",
            "Give uv the credentials that the index wants (UV_DEFAULT_INDEX=https://USER:PASSWORD@..., or a .netrc).",
        )
    if complaints.unanswered(stderr):
        return Unavailable(
            f"the wheels cannot be fetched, no package index answers: {line}",
            "Check the network, or uv's own settings for an index, a proxy and certificates "
            "(UV_DEFAULT_INDEX, HTTPS_PROXY, SSL_CERT_FILE).",
        )
    return _NoSuchWheel(
        f"there are no wheels for Python {python} on {platform}: {line}",
        "Choose another --python, or an index that has them (UV_DEFAULT_INDEX).",
    )


def _instead(wished: tuple[str, ...], lock: str, where: str) -> str:
    """Say which pinned versions were not to be had."""
    taken = dict(line.split(" ")[0].split("==") for line in lock.splitlines() if re.match(r"[\w.-]+==", line))
    pins = [wish.split("==") for wish in wished if "==" in wish]
    other = [name for name, version in pins if taken.get(name) != version]
    packaged = " and ".join(f"{name} {taken.get(name)}" for name in other)
    wanted = " and ".join(f"{name} {version}" for name, version in pins if name in other)
    return f"packaged with {packaged} instead of {wanted}: there are no such wheels for {where}"


def _clean(folder: Path) -> None:
    """Delete what is not needed to answer, and what differs between two installs of one wheel; set plain modes."""
    for name in _UNUSED:
        shutil.rmtree(folder / name, ignore_errors=True)
    for top, folders, names in os.walk(folder):
        described = any(part.endswith(".dist-info") for part in Path(top).relative_to(folder).parts)
        for name in () if described else _UNUSED_FOLDERS & set(folders):
            folders.remove(name)
            shutil.rmtree(Path(top, name))
        Path(top).chmod(0o755)
        for name in names:
            path = Path(top, name)
            # of what describes a wheel all stays but records of the install: licences lie there under any name
            unused = name in _UNUSED_RECORDS if described else name.endswith(_UNUSED_SUFFIXES) or _duplicate(path)
            if unused or name == ".lock":
                path.unlink()
            else:
                path.chmod(0o644)
    # deepest first, so that a folder that only held empty ones goes too
    for top, _, _ in os.walk(folder, topdown=False):
        if Path(top) != folder and not any(Path(top).iterdir()):
            Path(top).rmdir()


def _duplicate(path: Path) -> bool:
    # The Python module of onnxruntime carries the whole runtime; the library beside it is for C programs.
    return path.parent.name == "capi" and path.name.startswith("libonnxruntime.so")


def check_machine(folder: Path, platform: str, *, modules: bool = False) -> None:
    """Raise `Refused` where a shared library below `folder` is built for another processor; see `installed.foreign`."""
    if (path := installed.foreign(folder, MACHINES[platform], modules=modules)) is not None:
        raise Refused(
            f"{path.relative_to(folder)} is not built for {platform}",
            "The package index served a wheel of another platform; report it to whoever runs it.",
        )


def licenses(folder: Path) -> str:
    """Return one SPDX expression over what the wheels in `folder` say they are under."""
    return distributions.licenses(distributions.read(folder))


def sizes(folder: Path) -> Mapping[str, int]:
    """Return the size in bytes of each top-level package below `folder` (`numpy.libs` counts as `numpy`)."""
    total: dict[str, int] = {}
    for path in archive.walk(folder):
        name = path.relative_to(folder).parts[0]
        name = re.sub(r"-[^-]*\.dist-info$", "", name).partition(".")[0]
        total[name] = total.get(name, 0) + path.stat().st_size
    return total
