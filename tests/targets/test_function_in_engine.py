"""The zip in a container, where this machine has no interpreter for it: how it is run, and what comes next."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from modelrel import interpreters
from modelrel.delivered import Package
from modelrel.errors import Refused, Unavailable
from modelrel.steps.smoke import smoke
from modelrel.targets import function
from modelrel.targets.delivery import Running
from modelrel.targets.questions import Golden
from tests.targets import tiny

pytestmark = [pytest.mark.docker, pytest.mark.lambda_runtime]

IMAGE = f"modelrel-test/python-{os.getpid()}:{{python}}"
PLACES = "import sys, sysconfig; print(sys.base_prefix, sysconfig.get_path('stdlib'), *sys.version_info[:2], sep='\\n')"
LEFT_OUT = ("/test/", "/site-packages/", "/__pycache__/", "/idlelib/", "/ensurepip/")


@cache
def package() -> Package:
    tiny.base_image()
    return tiny.delivered("lambda", python=tiny.lambda_python())


def interpreter(python: str) -> io.BytesIO:
    """Pack this machine's interpreter, to stand under the same prefix in an image, with a link on PATH."""
    program = interpreters.find(python)
    asked = subprocess.run([str(program), "-I", "-c", PLACES], capture_output=True, text=True, check=True)
    prefix, library = map(Path, asked.stdout.split()[:2])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in reversed((prefix, *prefix.parents[:-1])):
            entry = tarfile.TarInfo(str(folder).lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755  # a home is for its owner only, the function is nobody's
            tar.addfile(entry)
        for path in (prefix / "bin" / f"python{python}", library, *prefix.glob("lib/libpython3*.so*")):
            tar.add(path, filter=lambda entry: None if any(part in f"{entry.name}/" for part in LEFT_OUT) else entry)
        link = tarfile.TarInfo(f"usr/local/bin/python{python}")
        link.type, link.linkname = tarfile.SYMTYPE, str(prefix / "bin" / f"python{python}")
        tar.addfile(link)
    return packed


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """An image that has the function's Python, as `python:X.Y-slim` has it."""
    python, base = package().python, tiny.base_image()
    dockerfile = f"FROM {base}\nADD python.tar /\nENV PYTHON_VERSION={python}.0\n".encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in (("python.tar", interpreter(python).getvalue()), ("Dockerfile", dockerfile)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    tag = IMAGE.format(python=python)
    with tiny.engine() as engine:
        engine.images.build(fileobj=context, custom_context=True, tag=tag, network_mode="none", rm=True, forcerm=True)
        try:
            yield tag
        finally:
            engine.images.remove(tag, force=True)


def unasked(*_: object) -> Path:
    raise AssertionError("uv was asked before the engine")


@pytest.fixture
def elsewhere(image: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same machine, without an interpreter that modelrel finds; uv is not to be asked."""
    monkeypatch.setattr(function, "IMAGE", IMAGE)
    monkeypatch.setattr(function.interpreters, "find", lambda _: None)
    monkeypatch.setattr(function.interpreters, "install", unasked)
    return image


@contextlib.contextmanager
def running(changed: Package | None = None) -> Iterator[Running]:
    with function.launch(changed or package(), lambda _: None) as started:
        yield started


def containers() -> list[Any]:
    """Return the containers of this process's smoke tests."""
    with tiny.engine() as engine:
        return [
            one.attrs for one in engine.containers.list(all=True, filters={"label": "io.modelrel.smoke"})
            if one.labels["io.modelrel.smoke"].endswith(f":{os.getpid()}")
        ]  # fmt: skip


def answered(started: Running) -> None:
    Golden.of(package().parity).judge_infer(started.send(*Golden.of(package().parity).infer()))


def with_handler(folder: Path, text: str) -> Package:
    """Return the package with another handler in its zip."""
    original = package()
    copy = tiny.verified(folder / "churn-7")
    changed = replace(original, parity=copy)
    target = changed.folder / changed.artifact
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(original.folder / original.artifact) as old,
        zipfile.ZipFile(target, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, text if name == "handler.py" else old.read(name))
    return changed


def test_a_smoke_test_passes_there_and_says_so(elsewhere: str) -> None:
    told: list[str] = []
    report = smoke(package(), note=told.append)
    assert report.runner == "awslambdaric in the engine"
    assert "direct invocation" in {check.name for check in report.checks}
    assert any(elsewhere in line for line in told)
    assert 10e6 < report.memory_bytes < 500e6
    assert containers() == []


def test_the_container_is_as_strict_as_lambda(elsewhere: str) -> None:
    with running() as started:
        answered(started)
        (found,) = containers()
    host = found["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["NetworkMode"]) == (True, ["ALL"], "host")
    assert {mount["Destination"]: mount["RW"] for mount in found["Mounts"]} == {
        "/var/task": False,
        "/var/runtime": False,
    }
    assert list(host["Tmpfs"]) == ["/tmp"]


def test_the_function_sees_lambdas_variables_and_none_of_ours(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-models")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://localhost:9"}}}')
    with running() as started:
        answered(started)
        variables = dict(line.split("=", 1) for line in containers()[0]["Config"]["Env"])
    assert variables["LAMBDA_TASK_ROOT"] == "/var/task"
    assert variables["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
    assert not {"AWS_SECRET_ACCESS_KEY", "HTTP_PROXY", "http_proxy"} & variables.keys()


def test_a_function_that_writes_into_its_own_folder_fails_as_on_lambda(elsewhere: str, tmp_path: Path) -> None:
    text = "def handler(event, context):\n    open('/var/task/new', 'w')\n"
    with running(with_handler(tmp_path, text)) as started:
        answer = started.send("GET", "/ping", {}, b"")
    assert answer.status == 502
    assert b"Read-only file system" in answer.body or b"Permission denied" in answer.body


def test_a_function_that_cannot_start_is_refused_with_the_reason(elsewhere: str, tmp_path: Path) -> None:
    with (
        pytest.raises(Refused, match="No module named 'nothing'"),
        running(with_handler(tmp_path, "import nothing\n")) as started,
    ):
        started.send("GET", "/ping", {}, b"")
    assert containers() == []


def test_a_function_that_ends_by_itself_is_refused_with_its_exit_code(elsewhere: str, tmp_path: Path) -> None:
    text = "import os\n\ndef handler(event, context):\n    os._exit(7)\n"
    with pytest.raises(Refused, match="exit code 7"), running(with_handler(tmp_path, text)) as started:
        started.send("GET", "/ping", {}, b"")
    assert containers() == []


def test_ctrl_c_leaves_no_container(elsewhere: str) -> None:
    launched = contextlib.ExitStack()
    answered(launched.enter_context(running()))
    assert len(containers()) == 1
    with pytest.raises(KeyboardInterrupt), launched:
        raise KeyboardInterrupt
    assert containers() == []


def test_a_network_that_is_not_this_machines_is_not_the_models_fault(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a Runtime API that nobody reaches, as from within Docker Desktop's virtual machine
    ours = function.variables
    monkeypatch.setattr(
        function,
        "variables",
        lambda execution, task, _, restores: ours(execution, task, "127.0.0.1:9", restores=restores),
    )
    with pytest.raises(Unavailable, match="does not reach the Runtime API") as caught, running() as started:
        started.send("GET", "/ping", {}, b"")
    assert "host networking" in caught.value.hint


def test_an_interpreter_that_is_here_comes_before_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function.Engine, "connect", lambda: pytest.fail("the engine was asked"))
    with running() as started:
        assert started.runner == "awslambdaric"


def test_uv_comes_after_an_engine_that_cannot_have_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    here = interpreters.find(package().python)
    monkeypatch.setattr(function, "IMAGE", "localhost:9/python:{python}")
    monkeypatch.setattr(function.interpreters, "find", lambda _: None)
    monkeypatch.setattr(function.interpreters, "install", lambda *_: here)
    told: list[str] = []
    with function.launch(package(), told.append) as started:
        assert started.runner == "awslambdaric"
        answered(started)
    assert [line for line in told if "cannot be pulled" in line and "asking uv" in line]
