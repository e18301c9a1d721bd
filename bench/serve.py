"""One forest behind four servers, in one run: how soon, how fast, how large.

``python bench/serve.py`` compares modelrel's reference server with ``mlflow models serve``, with MLServer, and with a
bare ASGI handler around onnxruntime that checks nothing (bench/bare.py), which is the limit. It prints a table and
writes it to bench/results/. Needed: wrk on PATH; MLServer is installed once, by uv, into bench/.venvs/.

Each server runs as its own process and answers with the forest's own prediction before it is measured. All are up
while one is under load; the others are idle. A load counts only if every answer was 2xx.
"""

from __future__ import annotations

import argparse
import datetime as dt
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import forest as model

HERE = Path(__file__).resolve().parent
MLSERVER = ["mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22"]
CONNECTIONS = (1, 16)
START_LIMIT_S = 120
VERIFIED_ROWS = 50


class Server(NamedTuple):
    """How a server is started, where it answers and with what it is asked. ``starts`` is how often it is timed."""

    name: str
    route: str
    command: list[str]
    port: int
    path: str
    starts: int


class Figures(NamedTuple):
    """What was measured of a server: seconds, requests per second by connections, MiB of resident memory."""

    start_s: float
    requests_per_s: dict[int, float]
    memory_mib: float


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


def mlserver_python() -> Path:
    """Return the Python of the environment of MLServer, which is made on first use."""
    import sklearn

    environment = HERE / ".venvs" / f"mlserver-sklearn-{sklearn.__version__}"
    python = environment / "bin" / "python"
    if not (environment / "complete").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        print("installing MLServer into bench/.venvs (once)", flush=True)
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, environment], check=True)
        # The forest is pickled, so the environment needs the scikit-learn that pickled it.
        needed = [*MLSERVER, f"scikit-learn=={sklearn.__version__}"]
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *needed], check=True)
        (environment / "complete").touch()
    return python


def servers(trained: model.Forest, folder: Path, names: set[str]) -> list[Server]:
    """Write every model folder and say how each server is started."""
    columns = model.write_onnx(trained, folder / "columns", "columns")
    tensor = model.write_onnx(trained, folder / "tensor", "tensor")
    infer = "/v2/models/forest/infer"
    found = []
    for route, served, path in (("invocations", columns, "/invocations"), ("v2", tensor, infer)):
        for name in ("modelrel", "bare"):
            port = free_port()
            command = [sys.executable, "-m", "modelrel.serving", str(served), "--port", str(port)]
            if name == "bare":
                command = [sys.executable, str(HERE / "bare.py"), str(served), str(port)]
            found.append(Server(name, route, command, port, path, 7))
    if "mlflow" in names:
        kept, port = model.write_mlflow(trained, folder / "mlflow"), free_port()
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(kept), "--env-manager", "local"]
        command += ["-h", "127.0.0.1", "-p", str(port)]
        found.append(Server("mlflow", "invocations", command, port, "/invocations", 1))
    if "mlserver" in names:
        port = free_port()
        kept = model.write_mlserver(trained, folder / "mlserver", port)
        command = [str(mlserver_python().with_name("mlserver")), "start", str(kept)]
        found.append(Server("mlserver", "v2", command, port, infer, 1))
    return found


def body_of(server: Server, trained: model.Forest, rows: int) -> bytes:
    """Return a request for the first rows, in the protocol of the server."""
    return (model.invocation if server.route == "invocations" else model.inference)(trained, rows)


def labels_of(reply: dict[str, Any]) -> list[int]:
    """Return the predicted labels of an answer in either protocol."""
    return reply["predictions"] if "predictions" in reply else reply["outputs"][0]["data"]


def ask(server: Server, body: bytes) -> list[int] | None:
    """Post a request; None if the server does not answer 200 (yet)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", server.path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        content = reply.read()
        return labels_of(json.loads(content)) if reply.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def start(server: Server, body: bytes, right: list[int]) -> tuple[subprocess.Popen[bytes], float]:
    """Start a server; return its process and the seconds to its first right answer."""
    # mlflow starts the uvicorn that it finds on PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "PATH": path}
    # A group of its own, because mlflow's server is a child that would outlive it.
    began = time.perf_counter()
    process = subprocess.Popen(
        server.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while time.perf_counter() - began < START_LIMIT_S:
        if ask(server, body) == right:
            return process, time.perf_counter() - began
        if process.poll() is not None:
            break
        time.sleep(0.002)
    stop(process)
    raise SystemExit(f"{server.name} ({server.route}) did not answer: {' '.join(server.command)}")


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


def load(server: Server, body: Path, connections: int, seconds: int) -> float:
    """Return the requests per second of wrk over the given time; every answer has to be 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / "post.lua")]
    command.append(f"http://127.0.0.1:{server.port}{server.path}")
    printed = subprocess.run(
        command, env=os.environ | {"BODY": str(body)}, capture_output=True, text=True, check=True
    ).stdout
    bad = re.search(r"Non-2xx.*|Socket errors.*", printed)
    if bad:
        raise SystemExit(f"{server.name} ({server.route}), {connections} connections: {bad[0]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])


def measure(
    found: list[Server], trained: model.Forest, folder: Path, options: argparse.Namespace
) -> dict[str, Figures]:
    """Measure every server: starts one after the other, then load, in rounds, so that no one has the quiet minute."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    starts: dict[str, list[float]] = {}
    rates: dict[str, dict[int, list[float]]] = {}
    bodies: dict[str, Path] = {}
    try:
        for server in found:
            key = f"{server.name} {server.route}"
            body = body_of(server, trained, 1)
            bodies[key] = folder / f"{server.name}-{server.route}.json"
            bodies[key].write_bytes(body)
            starts[key], rates[key] = [], {count: [] for count in CONNECTIONS}
            for turn in range(server.starts):
                process, seconds = start(server, body, trained.labels[:1])
                starts[key].append(seconds)
                if turn + 1 < server.starts:
                    stop(process)
            running[key] = process
            if ask(server, body_of(server, trained, VERIFIED_ROWS)) != trained.labels[:VERIFIED_ROWS]:
                raise SystemExit(f"{key} predicts something else than the forest")
        for _ in range(options.rounds):
            for count in CONNECTIONS:
                for server in found:
                    key = f"{server.name} {server.route}"
                    rates[key][count].append(load(server, bodies[key], count, options.seconds))
        return {
            key: Figures(
                statistics.median(starts[key]),
                {count: statistics.median(rates[key][count]) for count in CONNECTIONS},
                memory_mib(running[key]),
            )
            for key in running
        }
    finally:
        for process in running.values():
            stop(process)


def ratios(figures: dict[str, Figures]) -> dict[str, dict[str, float]]:
    """Return modelrel's figures as multiples of each peer's, on the same route."""
    found = {}
    for key, peer in figures.items():
        name, route = key.split()
        ours = figures[f"modelrel {route}"]
        if name != "modelrel":
            found[key] = {
                "start": ours.start_s / peer.start_s,
                **{
                    f"requests_{count}": ours.requests_per_s[count] / peer.requests_per_s[count]
                    for count in CONNECTIONS
                },
                "memory": ours.memory_mib / peer.memory_mib,
            }
    return found


def command_start() -> dict[str, float] | None:
    """Return the milliseconds that ``modelrel --version`` takes, and that Python itself takes; None without it."""

    def median_ms(*words: str) -> float:
        times = []
        for _ in range(9):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=HERE.parent)
            times.append((time.perf_counter() - began) * 1e3)
        return statistics.median(times)

    try:
        return {"modelrel_ms": median_ms("-m", "modelrel", "--version"), "python_ms": median_ms("-c", "pass")}
    except subprocess.CalledProcessError:
        return None


def show(figures: dict[str, Figures], compared: dict[str, dict[str, float]], command: dict[str, float] | None) -> None:
    """Print the table."""
    print(f"\n{'server':<12}{'route':<13}{'start s':>9}{'req/s 1':>10}{'req/s 16':>10}{'MiB':>8}   modelrel is")
    for key in sorted(figures, key=lambda key: (key.split()[1], key.split()[0] != "modelrel", key)):
        name, route = key.split()
        one = figures[key]
        row = f"{name:<12}{route:<13}{one.start_s:>9.2f}{one.requests_per_s[1]:>10.0f}{one.requests_per_s[16]:>10.0f}"
        row += f"{one.memory_mib:>8.0f}"
        if key in compared:
            times = compared[key]
            row += f"   {times['requests_1']:.2f}x, {times['requests_16']:.2f}x the requests; "
            row += f"{times['start']:.2f}x the start; {times['memory']:.2f}x the memory"
        print(row)
    if command is None:
        print("\nmodelrel --version: skipped, there is no command yet")
    else:
        print(f"\nmodelrel --version: {command['modelrel_ms']:.0f} ms (python -c pass: {command['python_ms']:.0f} ms)")


def main() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="of load for each measure (default: 5)")
    parser.add_argument("--rounds", type=int, default=2, help="of load; the median counts (default: 2)")
    parser.add_argument("--without", nargs="*", default=[], choices=["mlflow", "mlserver"], help="peers to leave out")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not on PATH; it makes the load (most systems have a package of that name)")
    trained = model.train()
    with tempfile.TemporaryDirectory() as folder:
        found = servers(trained, Path(folder), {"mlflow", "mlserver"} - set(options.without))
        figures = measure(found, trained, Path(folder), options)
    compared, command = ratios(figures), command_start()
    show(figures, compared, command)
    now = dt.datetime.now(dt.UTC)
    results = {
        "when": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "seconds": options.seconds,
        "figures": {key: one._asdict() for key, one in figures.items()},
        "modelrel_to_peer": compared,
        "command": command,
    }
    target = HERE / "results" / f"serve-{now:%Y%m%d-%H%M%S}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {target.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
