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

from modelrel import archive, interpreters, wheels
from modelrel.delivered import Package
from modelrel.errors import Refused, Unavailable
from modelrel.targets import events
from modelrel.targets.delivery import Note, Response, Running, Send
from modelrel.targets.engine import Engine
from modelrel.targets.process import Program, Started, ended, resident, started, tail
from modelrel.targets.runtime_api import Result, RuntimeApi, runtime_api

HANDLER: Final = "handler.handler"
MEMORY_MB: Final = 1769
IMAGE: Final = "python:{python}-slim"
"""What the engine runs the zip in where this machine has not the Python: the official image."""

# AWS's base images for Lambda: the function is here, the runtime client there
_TASK: Final = "/var/task"
_RUNTIME: Final = "/var/runtime"
_UNREACHED: Final = "Failed to get next"  # what awslambdaric ends with


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the zip of a package with its Python: this machine's, the engine's, or one that uv fetches.

    It is ended when the block ends. Raises `Unavailable` where none of them is to be had.
    """
    client = wheels.fetch((("awslambdaric",),), package.python, package.platform, note=note).folder
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work, runtime_api() as api, ExitStack() as stack:
        unpacked = _Unpacked(package=package, work=Path(work), client=client, api=api.address)
        with zipfile.ZipFile(archive.within(package.folder, package.artifact)) as packed:
            packed.extractall(unpacked.task)
        before = _protect(unpacked.task)
        program = _start(unpacked, stack, note)
        function = _Function(api=api, program=program)
        yield Running(
            runner=program.runner,
            send=function.sender(events.http_api),
            started=program.at,
            memory_bytes=program.memory_bytes,
            log=program.log,
            shapes={
                **{name: function.sender(shape) for name, shape in events.SHAPES.items()},
                "direct invocation": function.direct,
            },
            settled=lambda: _unchanged(unpacked.task, before),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unpacked:
    """A zip, unpacked in a folder of its own, and what starts it: the runtime client and the Runtime API's address."""

    package: Package
    work: Path
    client: Path
    api: str

    @property
    def task(self) -> Path:
        return self.work / "task"

    def program(self, python: Path, task: PurePath, client: PurePath) -> Program:
        return Program(
            python=python,
            arguments=("-m", "awslambdaric", HANDLER),
            paths=("", str(client)),
            variables=_variables(self.package, task, self.api),
        )

    @contextmanager
    def on_host(self, python: Path, note: Note) -> Iterator[Started]:
        note(f"starting the zip with {python.name} and awslambdaric")
        log, begun = self.work / "log", time.perf_counter()
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
        program = self.program(Path(f"python{python}"), PurePath(_TASK), PurePath(_RUNTIME))
        with Engine.connect() as engine:
            digest = engine.have_base(image, self.package.platform, python, note)
            note(f"starting the zip in {image} with awslambdaric")
            with engine.run_program(digest, program, {_TASK: self.task, _RUNTIME: self.client}) as inside:
                yield replace(inside, runner="awslambdaric in the engine", exit_code=lambda: _reaching(inside, python))


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


def _reaching(inside: Started, python: str) -> int | None:
    """Return the exit code of what a container runs; raises `Unavailable` where it does not reach our Runtime API."""
    code = inside.exit_code()
    if code is not None and _UNREACHED in inside.log():
        raise Unavailable(
            "the engine's host network is not this machine's: the function does not reach the Runtime API",
            f"In Docker Desktop, enable host networking; or install the Python here: uv python install {python}",
        )
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Function:
    """A started function: events go in through the Runtime API."""

    api: RuntimeApi
    program: Started

    def invoke(self, event: events.Event) -> Result:
        try:
            return self.api.invoke(events.dumps(event), self.program.exit_code)
        except ConnectionError as error:
            raise ended(str(error), self.program.log()) from error

    def sender(self, shape: events.Shape) -> Send:
        def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
            result = self.invoke(shape(method, path, headers, body))
            return events.response(result.payload) if result.ok else Response(502, {}, result.payload)

        return send

    def direct(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        result = self.invoke(events.direct(method, path, headers, body))
        return Response(200 if result.ok else 400, {}, result.payload)


def _variables(package: Package, task: PurePath, api: str) -> dict[str, str]:
    # AWS Lambda developer guide, "Defined runtime environment variables"; no credentials: the function needs none
    return {
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": HANDLER,
        "LAMBDA_TASK_ROOT": str(task),
        "LAMBDA_RUNTIME_DIR": _RUNTIME,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{package.python}",
        "AWS_LAMBDA_FUNCTION_NAME": "model",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/model",
        "AWS_LAMBDA_LOG_STREAM_NAME": "smoke",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
    }


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
