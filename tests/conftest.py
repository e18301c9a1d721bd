"""What tests share: a real registry with real models, a command line that is called as `main(argv)` does."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.leftovers import removed

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
# else each server of MLflow's keeps eight more processes, of 250 MB, that wait for jobs
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")

# `make test` asks the same random models every time; `make nightly` asks other ones, and more.
settings.register_profile("default", max_examples=120, derandomize=True, database=None)
settings.register_profile("nightly", max_examples=1200, print_blob=True)
settings.load_profile("default")

REQUIRED = {name for name in os.environ.get("MODELREL_TEST_REQUIRE", "").split(",") if name}
_EXPECTED_SKIPS = ("not on this platform",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", action="store_true", help="rewrite the golden files; read the diff before you commit it"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The process that starts the others takes away what all of them leave."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # a shell that starts us in the background: the commands that tests stop would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        everything = removed()
        everything.__enter__()
        config.add_cleanup(lambda: everything.__exit__(None, None, None))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where CI names what the machine must have, a test that is skipped for another reason is a failure."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and REQUIRED and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(expected in reason for expected in _EXPECTED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"unexpected skip of {item.nodeid}: {reason}"


_ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test stands in an empty folder, with none of the user's settings, and leaves none of its own."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MODELREL_") and not name.startswith("MODELREL_TEST_"):
            monkeypatch.delenv(name)
    for name in _ADDRESSES:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in _ADDRESSES:
        # MLflow writes them for its child processes: a registry that a later fixture fills would be this one
        os.environ.pop(name, None)


@dataclass
class Done:
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process, through `main`, which is what the `modelrel` command calls."""

    def call(*words: object) -> Done:
        from modelrel.commands import main

        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture(scope="session")
def sqlite_registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sqlite registry: `flowers` (3 versions, text columns), `digits` (XGBoost), and aliases.

    The processes of one run share it: the first one that asks fills it.
    """
    from tests import registered

    top = tmp_path_factory.getbasetemp()
    folder = (top.parent if os.environ.get("PYTEST_XDIST_WORKER") else top) / "registry"
    folder.mkdir(exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "filled").exists():
            # in a process of its own: MLflow keeps the address and its database connections for good
            subprocess.run([sys.executable, registered.__file__, uri, str(folder / "artifacts")], check=True)
            (folder / "filled").touch()
    return uri


@pytest.fixture
def own_registry(sqlite_registry: str, tmp_path: Path) -> str:
    """A copy of the registry that a test may change (the artifacts are shared)."""
    source = Path(sqlite_registry.removeprefix("sqlite:///"))
    copy = tmp_path / "own.db"
    copy.write_bytes(source.read_bytes())
    return f"sqlite:///{copy}"


@pytest.fixture(scope="session")
def base_image() -> str:
    """The image that engine tests build on; `.ci/docker.sh` makes it and names it."""
    name = os.environ.get("MODELREL_TEST_BASE_IMAGE", "")
    if not name:
        pytest.skip("MODELREL_TEST_BASE_IMAGE names no base image: run `. .ci/docker.sh` first")
    return name


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def http_registry(sqlite_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same models behind a real `mlflow server`, which also hands out the artifacts."""
    folder = tmp_path_factory.mktemp("server")
    copy = folder / "mlflow.db"
    copy.write_bytes(Path(sqlite_registry.removeprefix("sqlite:///")).read_bytes())
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{copy}", "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _answering(f"{url}/health", server, folder / "log")
        yield url
    finally:
        os.killpg(server.pid, 9)  # a busy machine would keep us waiting for a polite end
        server.wait()


def _answering(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")
