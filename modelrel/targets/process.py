"""A plain process that stands in for a platform: started in a copy, alone with its own files, always ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Any, Final, Protocol

from modelrel.errors import Refused
from modelrel.targets.delivery import Response, Running, Send

_GRACE_S: Final = 10.0
_LOG_BYTES: Final = 4000
_REQUEST_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A Python program: interpreter, arguments, import path (relative to its folder, or absolute), variables."""

    python: Path
    arguments: tuple[str, ...]
    paths: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """The command line; nothing of the interpreter's machine is on its path but the standard library."""
        return (str(self.python), "-S", "-s", *self.arguments)

    def environment(self, folder: PurePath) -> dict[str, str]:
        """Return the variables it sees when it runs in `folder`."""
        return {
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(str(folder / path) for path in self.paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",
            **self.variables,
        }


class Command(Protocol):
    """What `started` needs to know of a program: its command line, and its variables when it runs in a folder."""

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""

    def environment(self, folder: PurePath) -> dict[str, str]:
        """Return the variables it sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A started program: how, at which `time.perf_counter()`, and what it can be asked.

    `exit_code` gives None while it runs; `log` gives its last lines.
    """

    runner: str
    at: float
    exit_code: Callable[[], int | None]
    memory_bytes: Callable[[], int]
    log: Callable[[], str]


@contextmanager
def started(folder: Path, program: Command, log: Path, *, talks: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in `folder`, and end it and its children when the block ends.

    None of our variables reach it. `talks`: its input and output are pipes, and only its errors go to the log.
    """
    environment = {"PATH": os.defpath, **program.environment(folder)}
    # where util-linux is there, the kernel ends it should we be killed
    setpriv = shutil.which("setpriv")
    leash = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*leash, *program.words],
            cwd=folder, env=environment, stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # the whole group: what it started must not outlive it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def run_server(folder: Path, program: Program) -> Iterator[Running]:
    """Run an HTTP server from a copy of `folder`; the port it gets is added to its arguments."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="modelrel-") as work:
        copy, log = Path(work, "context"), Path(work, "log")
        shutil.copytree(folder, copy)
        whole = Program(
            python=program.python,
            arguments=(*program.arguments, str(port)),
            paths=program.paths,
            variables=program.variables,
        )
        with served(copy, whole, port, log) as running:
            yield running


@contextmanager
def served(folder: Path, program: Program, port: int, log: Path) -> Iterator[Running]:
    """Run an HTTP server in `folder` that listens on a port of 127.0.0.1."""
    begun = time.perf_counter()
    with started(folder, program, log) as process, http_sender((("127.0.0.1", port),)) as send:
        yield Running(
            runner="process",
            send=guarded(send, process, log),
            started=begun,
            memory_bytes=lambda: resident(process.pid),
            log=lambda: tail(log),
        )


def guarded(send: Send, process: subprocess.Popen[bytes], log: Path) -> Send:
    """Return `send`, with a failed connection to a process that has ended turned into `Refused`."""

    def guard(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            return send(method, path, headers, body)
        except ConnectionError:
            code = process.poll()
            if code is None:
                raise
            raise ended(f"exit code {code}", tail(log)) from None

    return guard


_MISSING: Final = re.compile(r"\b(lib[\w.+-]*\.so[\w.]*): cannot open shared object file")
_PACKAGES: Final = {"libgomp.so.1": "libgomp1", "libGL.so.1": "libgl1", "libglib-2.0.so.0": "libglib2.0-0"}
"""What the loader says (ld.so(8)), and in which package Debian has what slim images lack."""


def ended(how: str, log: str) -> Refused:
    """Return the error for a server that is gone."""
    last = log.strip().splitlines()[-1:] or ["it said nothing"]
    hint = f"Its last lines:\n{log.strip()}"
    if missing := _MISSING.search(log):
        debian = _PACKAGES.get(missing[1], "")
        hint = (
            f"Where it runs there is no {missing[1]}{f' (Debian: {debian})' if debian else ''}, which a wheel does not "
            f"bring along: take a base image that has it (--base-image).\n{hint}"
        )
    return Refused(f"the packaged server ended by itself ({how}): {last[0]}", hint)


@contextmanager
def http_sender(addresses: tuple[tuple[str, int], ...]) -> Iterator[Send]:
    """Give a `Send` over one kept connection to the first of `addresses` that accepts one."""
    kept: list[http.client.HTTPConnection] = []

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        connection = kept.pop() if kept else _connect(addresses)
        try:
            connection.request(method, path, body or None, dict(headers))
            answer = connection.getresponse()
            response = Response(
                answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            )
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ConnectionError(str(error)) from error
        if answer.will_close:
            connection.close()
        else:
            kept.append(connection)
        return response

    try:
        yield send
    finally:
        for connection in kept:
            connection.close()


def _connect(addresses: tuple[tuple[str, int], ...]) -> http.client.HTTPConnection:
    problem: OSError = ConnectionRefusedError("there is no address")
    for host, port in addresses:
        connection = http.client.HTTPConnection(host, port, timeout=_REQUEST_S)
        try:
            connection.connect()
        except OSError as error:
            problem = error
        else:
            return connection
    raise ConnectionError(str(problem)) from problem


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def asked(process: subprocess.Popen[bytes], request: Mapping[str, Any], log: Path) -> Mapping[str, Any]:
    """Return what a program answers, a line of JSON for a line of JSON; raises `Refused` where no answer comes."""
    given, taken = _pipe(process.stdin), _pipe(process.stdout)
    try:
        given.write(json.dumps(request).encode() + b"\n")
        given.flush()
        line = taken.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        raise ended(f"exit code {process.wait()}", tail(log))
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Refused(f"the packaged script answered {line[:200]!r}", "It must be one JSON object a line.")
    return said


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # a program that talks has both
    return pipe


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return log.read_bytes()[-_LOG_BYTES:].decode(errors="replace") if log.is_file() else ""


def resident(pid: int) -> int:
    """Return the resident bytes of a process and those below it; 0 where /proc does not tell."""
    members, pages = [pid], 0
    for member in members:
        try:
            pages += int(Path(f"/proc/{member}/statm").read_text(encoding="ascii").split()[1])
            for task in Path(f"/proc/{member}/task").iterdir():
                members += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        except (OSError, ValueError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")
