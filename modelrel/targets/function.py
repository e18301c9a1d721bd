"""A Lambda zip, unpacked and driven by AWS's own runtime client (`awslambdaric`), as Lambda would start it."""

from __future__ import annotations

import stat
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelrel import archive, interpreters, wheels
from modelrel.errors import Refused, Unavailable
from modelrel.targets import events
from modelrel.targets.delivery import Note, Response, Running, Send
from modelrel.targets.process import Program, ended, resident, started, tail
from modelrel.targets.runtime_api import Result, RuntimeApi, runtime_api
from modelrel.values import Package

HANDLER: Final = "handler.handler"
MEMORY_MB: Final = 1769


@contextmanager
def launch(package: Package, note: Note) -> Iterator[Running]:
    """Start the zip of a package with an interpreter of its version; end it when the block ends.

    Raises `Unavailable` where this machine has no such interpreter.
    """
    python = _interpreter(package, note)
    client = wheels.fetch((("awslambdaric",),), package.python, package.platform, note=note).folder
    note(f"starting the zip with {python.name} and awslambdaric")
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work, runtime_api() as api:
        task, log = Path(work, "task"), Path(work, "log")
        with zipfile.ZipFile(archive.within(package.folder, package.artifact)) as packed:
            packed.extractall(task)
        before = _protect(task)
        program = Program(
            python=python,
            arguments=("-m", "awslambdaric", HANDLER),
            paths=("", str(client)),
            variables=_variables(package, task, api.address),
        )
        begun = time.perf_counter()
        with started(task, program, log) as process:
            function = _Function(api=api, process=process, log=log)
            yield Running(
                runner="awslambdaric",
                send=function.sender(events.http_api),
                started=begun,
                memory_bytes=lambda: resident(process.pid),
                log=lambda: tail(log),
                shapes={
                    **{name: function.sender(shape) for name, shape in events.SHAPES.items()},
                    "direct invocation": function.direct,
                },
                settled=lambda: _unchanged(task, before),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Function:
    """A started function: events go in through the Runtime API."""

    api: RuntimeApi
    process: subprocess.Popen[bytes]
    log: Path

    def invoke(self, event: events.Event) -> Result:
        try:
            return self.api.invoke(events.dumps(event), self.process.poll)
        except ConnectionError as error:
            raise ended(str(error), tail(self.log)) from error

    def sender(self, shape: events.Shape) -> Send:
        def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
            result = self.invoke(shape(method, path, headers, body))
            return events.response(result.payload) if result.ok else Response(502, {}, result.payload)

        return send

    def direct(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        result = self.invoke(events.direct(method, path, headers, body))
        return Response(200 if result.ok else 400, {}, result.payload)


def _interpreter(package: Package, note: Note) -> Path:
    if package.platform == wheels.host_platform():
        found = interpreters.find(package.python)
        if found is None:
            note(f"there is no Python {package.python} here: asking uv for one")
            found = interpreters.install(package.python, wheels.uv())
        if found is not None:
            return found
    have = [python for python in ("3.12", "3.13", "3.14") if interpreters.find(python)]
    other = f"package with --python {have[-1]} --platform {wheels.host_platform()}, or " if have else ""
    raise Unavailable(
        f"there is no Python {package.python} for {package.platform} here to run the zip with",
        f"To go on, {other}install it: uv python install {package.python}",
    )


def _variables(package: Package, task: Path, api: str) -> dict[str, str]:
    # AWS Lambda developer guide, "Defined runtime environment variables"; no credentials: the function needs none
    return {
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": HANDLER,
        "LAMBDA_TASK_ROOT": str(task),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
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
