"""Servers under measurement: how one is started, asked, put under load by wrk, and stopped with all it started."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
START_LIMIT_S = 120
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class Server(NamedTuple):
    """How a server is started, and where it answers."""

    name: str
    command: list[str]
    port: int
    path: str
    folder: Path | None = None


class Body(NamedTuple):
    """A request: its bytes, its headers, and whether an answer to it is right."""

    content: bytes
    headers: dict[str, str]
    right: Callable[[bytes, http.client.HTTPMessage], bool]


class Load(NamedTuple):
    """What wrk saw: requests per second, and the milliseconds within which 99 of 100 were answered."""

    requests_per_s: float
    p99_ms: float


def free_port() -> int:
    """Return a port that is free, and whose two successors are (MLServer wants three)."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for other in (port + 1, port + 2):
                    with socket.socket() as listener:
                        listener.bind(("127.0.0.1", other))
            except (OSError, OverflowError):
                continue
            return port


def environment(name: str, *requirements: str) -> Path:
    """Return the Python of an environment with these distributions, which uv makes on first use."""
    folder = HERE / ".venvs" / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        print(f"installing {requirements[0]} into bench/.venvs (once)", flush=True)
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *requirements], check=True)
        (folder / "complete").touch()
    return python


def asked(server: Server, body: Body) -> bool:
    """Whether the server answers a request, and rightly."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", server.path, body.content, body.headers)
        reply = connection.getresponse()
        content = reply.read()
        return reply.status == 200 and body.right(content, reply.headers)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start(server: Server, body: Body) -> tuple[subprocess.Popen[bytes], float]:
    """Start a server; return its process and the seconds to its first right answer."""
    # mlflow starts the uvicorn that it finds on PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PYTHONPATH": str(HERE.parent), "PATH": path, "BENTOML_DO_NOT_TRACK": "True"}
    # A group of its own, because mlflow's server is a child that would outlive it.
    began = time.perf_counter()
    process = subprocess.Popen(
        server.command,
        env=variables,
        cwd=server.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while time.perf_counter() - began < START_LIMIT_S:
        if asked(server, body):
            return process, time.perf_counter() - began
        if process.poll() is not None:
            break
        time.sleep(0.002)
    stop(process)
    raise SystemExit(f"{server.name} did not answer rightly: {' '.join(map(str, server.command))}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def memory_mib(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a server: of all processes in its group."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(status.parent.name)) == process.pid:
                found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
                total += int(found[1]) if found else 0
        except (ProcessLookupError, FileNotFoundError):
            continue
    return total / 1024


def load(server: Server, body: Body, connections: int, seconds: float, work: Path) -> Load:
    """Put a server under wrk for some seconds; every answer has to be 2xx."""
    posted = work / "body"
    posted.write_bytes(body.content)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "--latency"]
    for name, value in body.headers.items():
        command += ["-H", f"{name}: {value}"]
    command += ["-s", str(HERE / "post.lua"), f"http://127.0.0.1:{server.port}{server.path}"]
    printed = subprocess.run(
        command, env=os.environ | {"BODY": str(posted)}, capture_output=True, text=True, check=True
    ).stdout
    bad = re.search(r"Non-2xx.*|Socket errors.*", printed)
    if bad:
        raise SystemExit(f"{server.name}, {connections} connections: {bad[0]}")
    rate, tail = re.search(r"Requests/sec:\s+([\d.]+)", printed), re.search(r"99%\s+([\d.]+)(us|ms|s|m)", printed)
    if not rate or not tail:
        raise SystemExit(printed)
    return Load(float(rate[1]), float(tail[1]) * UNITS[tail[2]])


def wrk_or_exit() -> None:
    """End with a sentence where wrk is not there."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on PATH; it makes the load (most systems have a package of that name)")
