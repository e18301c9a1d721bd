"""A Lambda zip, unpacked and driven by AWS's own runtime client (`awslambdaric`), as Lambda would start it."""

from __future__ import annotations

import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final

from modelrel import archive, bytecode, interpreters, wheels
from modelrel.delivered import Package
from modelrel.errors import Refused, Unavailable
from modelrel.targets import payload
from modelrel.targets.delivery import Note, Running
from modelrel.targets.engine import Engine
from modelrel.targets.invoked import HANDLER, RUNTIME, TASK, Function, restored, variables
from modelrel.targets.process import Program, Started, resident, started, tail
from modelrel.targets.runtime_api import runtime_api

IMAGE: Final = "python:{python}-slim"
"""What the engine runs the zip in where this machine has not the Python: the official image."""

_UNREACHED: Final = "Failed to get next"  # what awslambdaric ends with


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the zip of a package with its Python: this machine's, the engine's, or one that uv fetches.

    It is ended when the block ends. Raises `Unavailable` where none of them is to be had.
    """
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work, runtime_api() as api, ExitStack() as stack:
        unpacked = _Unpacked(package=package, work=Path(work), api=api.address)
        with zipfile.ZipFile(archive.within(package.folder, package.artifact)) as packed:
            packed.extractall(unpacked.task)
        _client(unpacked, note)
        before = _protect(unpacked.task)
        program = _start(unpacked, stack, note)

        def again(address: str, ends: ExitStack) -> Started:
            return _start(replace(unpacked, api=address, restores=True), ends, note)

        yield replace(
            Function(api=api, program=program).running(),
            settled=lambda: _unchanged(unpacked.task, before),
            examined=lambda: (restored(package, again),),
        )


def _client(unpacked: _Unpacked, note: Note) -> None:
    """Lay out the runtime client as Lambda has it, compiled."""
    package = unpacked.package
    folder = wheels.fetch((("awslambdaric",),), package.python, package.platform, note=note).folder
    files = {path.relative_to(folder).as_posix(): path for path in archive.walk(folder)}
    payload.copy({**files, **bytecode.compiled(files, RUNTIME, package.python)}, unpacked.client)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unpacked:
    """A zip, unpacked in a folder of its own, and what starts it: the runtime client and the Runtime API's address."""

    package: Package
    work: Path
    api: str
    restores: bool = False

    @property
    def task(self) -> Path:
        return self.work / "task"

    @property
    def client(self) -> Path:
        return self.work / "runtime"

    def program(self, python: Path, task: PurePath, client: PurePath) -> Program:
        return Program(
            python=python,
            arguments=("-m", "awslambdaric", HANDLER),
            paths=("", str(client)),
            variables=variables(f"AWS_Lambda_python{self.package.python}", task, self.api, restores=self.restores),
        )

    @contextmanager
    def on_host(self, python: Path, note: Note) -> Iterator[Started]:
        note(f"starting the zip with {python.name} and awslambdaric")
        log, begun = self.work / ("log of the restored" if self.restores else "log"), time.perf_counter()
        with started(self.task, self.program(python, self.task, self.client), log) as process:
            yield Started(
                runner="awslambdaric",
                at=begun,
                exit_code=process.poll,
                memory_bytes=lambda: resident(process.pid),
                log=lambda: tail(log),
            )

    @contextmanager
    def in_engine(self, note: Note) -> Iterator[Started]:
        """Start it in a container; raises `Unavailable` where there is no engine, or no image for it."""
        python = self.package.python
        image = IMAGE.format(python=python)
        program = self.program(Path(f"python{python}"), PurePath(TASK), PurePath(RUNTIME))
        with Engine.connect() as engine:
            digest = engine.have_base(image, self.package.platform, python, note)
            note(f"starting the zip in {image} with awslambdaric")
            with engine.run_program(digest, program, {TASK: self.task, RUNTIME: self.client}) as inside:
                yield replace(inside, runner="awslambdaric in the engine", exit_code=lambda: reaching(inside, python))


def _start(unpacked: _Unpacked, stack: ExitStack, note: Note) -> Started:
    """Start the zip in the first place that has its Python; `stack` ends it."""
    package = unpacked.package
    native = package.platform == wheels.host_platform()
    python = interpreters.find(package.python) if native else None
    missing = ""
    if python is None:
        note(f"there is no Python {package.python} for {package.platform} here: asking the container engine")
        try:
            return stack.enter_context(unpacked.in_engine(note))
        except Unavailable as error:
            missing = error.message
        if native:
            note(f"{missing}: asking uv for Python {package.python}")
            python = interpreters.install(package.python, wheels.uv())
    if python is None:
        raise _nowhere(package, missing)
    return stack.enter_context(unpacked.on_host(python, note))


def _nowhere(package: Package, missing: str) -> Unavailable:
    """Return the error for a zip that nothing here can run; `missing` is what the engine lacks."""
    here = wheels.host_platform()
    ways = [f"start a container engine that has {IMAGE.format(python=package.python)}, or can pull it"]
    have = [python for python in ("3.12", "3.13", "3.14") if interpreters.find(python)]
    if have:
        ways.insert(0, f"package with --python {have[-1]} --platform {here}")
    if package.platform == here:
        ways.append(f"install it: uv python install {package.python}")
    return Unavailable(
        f"there is no Python {package.python} for {package.platform} here to run the zip with, and {missing}",
        f"To go on, {'; or '.join(ways)}",
    )


def reaching(inside: Started, python: str) -> int | None:
    """Return the exit code of what a container runs; raises `Unavailable` where it does not reach our Runtime API."""
    code = inside.exit_code()
    if code is not None and _UNREACHED in inside.log():
        raise Unavailable(
            "the engine's host network is not this machine's: the function does not reach the Runtime API",
            f"In Docker Desktop, enable host networking; or install the Python here: uv python install {python}",
        )
    return code


def _protect(task: Path) -> dict[str, tuple[int, int]]:
    """Make the task root read-only, as on Lambda; return what it looks like (root is not stopped by modes)."""
    for path in [task, *task.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return _state(task)


def _state(task: Path) -> dict[str, tuple[int, int]]:
    found = ((path, path.lstat()) for path in task.rglob("*"))
    return {
        str(path.relative_to(task)): (info.st_size, info.st_mtime_ns)
        for path, info in found
        if stat.S_ISREG(info.st_mode)
    }


def _unchanged(task: Path, before: Mapping[str, tuple[int, int]]) -> None:
    after = _state(task)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise Refused(
            f"the function writes {changed[0]} into its own folder, which is read-only on AWS Lambda",
            "Write to /tmp instead; see the handler template.",
        )
