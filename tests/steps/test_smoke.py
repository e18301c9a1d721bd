"""Smoke: what was built is started for real; a wrong answer, a crash and silence are refused, and written down."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import archive
from modelrel.delivered import Package
from modelrel.errors import Refused, Unavailable
from modelrel.steps.smoke import smoke
from tests.targets import tiny

HERE = "{}.{}".format(*sys.version_info[:2])
OURS = f"io.modelrel.smoke={os.uname().nodename}:{os.getpid()}"
"""The label of the containers that this process started; other tests run at the same time."""
Change = Callable[[str], str]


def process_package() -> Package:
    return tiny.delivered("docker", python=HERE)


def function_package() -> Package:
    return tiny.delivered("lambda", python=tiny.lambda_python())


def copied(package: Package, folder: Path) -> Package:
    """Return a package that a test may spoil: a copy of its release folder, with digests to match."""
    shutil.copytree(package.folder, folder)
    parity = package.parity
    converted = parity.converted
    source = replace(converted.source, folder=folder)
    return replace(package, parity=replace(parity, converted=replace(converted, source=source)))


def again(package: Package) -> Package:
    """Return the package with the digests of its files taken anew."""
    return replace(
        package, files=tuple(archive.describe(package.folder / f.path, package.folder) for f in package.files)
    )


def spoiled_context(folder: Path, name: str, change: Change) -> Package:
    """Return a copy of the context package in which the text of one file was changed."""
    package = copied(process_package(), folder)
    path = package.folder / package.artifact / name
    path.write_text(change(path.read_text()))
    return again(package)


def spoiled_zip(folder: Path, name: str, change: Change) -> Package:
    """Return a copy of the function package in which the text of one file was changed."""
    package = copied(function_package(), folder)
    path = package.folder / package.artifact
    spoiled = path.with_suffix(".new")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(spoiled, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry, change(content.decode()) if entry.filename == name else content, zipfile.ZIP_STORED)
    spoiled.replace(path)
    return again(package)


def other_golden(package: Package) -> Package:
    """Return the package with another probability recorded for row 1 than the model gives."""
    parity = package.parity
    path = package.folder / parity.golden.path
    golden = json.loads(path.read_text())
    golden["outputs"]["probabilities"][1] = [0.5, 0.5]
    path.write_text(json.dumps(golden))
    return replace(package, parity=tiny.remember(parity))


def running(*needles: str) -> list[str]:
    """Return the command lines of processes that mention every needle."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(needle in line for needle in needles) and str(os.getpid()) != path.parent.name:
            lines.append(line)
    return lines


def test_a_context_without_an_image_is_started_as_a_process() -> None:
    report = smoke(process_package())
    assert report.runner == "process"
    assert {"golden rows by V2 infer", "golden rows by /invocations", "one row", "a batch"} <= {
        check.name for check in report.checks
    }
    assert report.rows >= 200
    assert 0 < report.p50_ms <= report.p99_ms
    assert 0 < report.first_answer_s < 30
    assert report.memory_bytes > 10_000_000


@pytest.mark.lambda_runtime
def test_a_zip_is_driven_by_the_runtime_client_of_aws() -> None:
    report = smoke(function_package())
    assert report.runner == "awslambdaric"
    assert {
        "HTTP API (2.0) with a base64 body", "REST API (1.0)", "function URL", "load balancer",
        "load balancer with multi-value headers", "direct invocation",
    } <= {check.name for check in report.checks}  # fmt: skip
    assert report.max_abs_error < 1e-5


@pytest.mark.docker
def test_an_image_is_started_in_the_engine() -> None:
    report = smoke(tiny.delivered("docker", image=True))
    assert report.runner == "image"
    assert report.memory_bytes > 10_000_000


@pytest.mark.docker
def test_the_container_is_removed() -> None:
    smoke(tiny.delivered("docker", image=True))
    with tiny.engine() as engine:
        assert not engine.containers.list(all=True, filters={"label": OURS})


@pytest.mark.docker
def test_the_container_is_removed_after_a_refusal(tmp_path: Path) -> None:
    package = other_golden(copied(tiny.delivered("docker", image=True), tmp_path / "release"))
    with pytest.raises(Refused):
        smoke(package)
    with tiny.engine() as engine:
        assert not engine.containers.list(all=True, filters={"label": OURS})


@pytest.mark.docker
def test_the_container_is_removed_after_an_interrupt() -> None:
    def interrupt(line: str) -> None:
        if "timing" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smoke(tiny.delivered("docker", image=True), interrupt)
    with tiny.engine() as engine:
        assert not engine.containers.list(all=True, filters={"label": OURS})


@pytest.mark.docker
def test_an_image_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    package = tiny.delivered("docker", image=True)
    assert package.image is not None
    with pytest.raises(Unavailable, match="is not in the engine any more"):
        smoke(replace(package, image=replace(package.image, id="sha256:" + "0" * 64)))


@pytest.mark.docker
def test_an_engine_that_is_gone_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    package = tiny.delivered("docker", image=True)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(Unavailable, match="no container engine answers"):
        smoke(package)


def gone(command: str) -> bool:
    """Return whether no such process is left; tests that run at the same time end theirs within seconds."""
    end = time.monotonic() + 60
    while running(command) and time.monotonic() < end:
        time.sleep(0.2)
    return not running(command)


def test_the_process_is_gone_afterwards() -> None:
    smoke(process_package())
    assert gone("-m serving model --host 127.0.0.1")


def killed(package: Package, folder: Path, word: str) -> int:
    """Smoke-test in a process of its own, and kill that when it says `word`; return its number."""
    (folder / "package.pickle").write_bytes(pickle.dumps(package))
    script = (
        "import pickle, sys; from modelrel.steps.smoke import smoke;"
        "smoke(pickle.load(open(sys.argv[1], 'rb')), lambda line: print(line, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "package.pickle")],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while word not in process.stdout.readline():
            assert process.poll() is None
        process.kill()
        return process.pid


@pytest.mark.skipif(not shutil.which("setpriv"), reason="not on this platform: util-linux is not there")
def test_the_server_dies_with_a_smoke_test_that_is_killed(tmp_path: Path) -> None:
    killed(process_package(), tmp_path, "first right answer")
    assert gone("-m serving model --host 127.0.0.1")


@pytest.mark.docker
def test_the_next_smoke_test_removes_the_container_of_one_that_was_killed(tmp_path: Path) -> None:
    package = tiny.delivered("docker", image=True)
    pid = killed(package, tmp_path, "first right answer")
    smoke(package)
    with tiny.engine() as engine:
        label = f"io.modelrel.smoke={os.uname().nodename}:{pid}"
        assert not engine.containers.list(all=True, filters={"label": label})


def test_a_wrong_answer_is_refused_with_output_row_expected_and_got(tmp_path: Path) -> None:
    package = other_golden(copied(process_package(), tmp_path / "release"))
    with pytest.raises(Refused, match=r"output 'probabilities' of row 1 is \[.*\], verify recorded \[0\.5, 0\.5\]"):
        smoke(package)


def test_a_refusal_is_written_beside_the_package(tmp_path: Path) -> None:
    package = other_golden(copied(process_package(), tmp_path / "release"))
    with pytest.raises(Refused) as caught:
        smoke(package)
    written = json.loads((package.folder / "onnx" / "docker" / "SmokeReport.refused.json").read_text())
    assert written["message"] == caught.value.message
    assert written["package"] == package.digest


def test_a_package_that_was_changed_since_is_refused(tmp_path: Path) -> None:
    package = copied(process_package(), tmp_path / "release")
    (package.folder / package.artifact / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(Refused, match="Dockerfile is not what Package was recorded for"):
        smoke(package)


def test_a_server_that_ends_by_itself_is_refused_with_its_last_line(tmp_path: Path) -> None:
    package = spoiled_context(tmp_path / "release", "serving/__main__.py", lambda _: "raise SystemExit('no luck')")
    with pytest.raises(Refused, match=r"ended by itself \(exit code 1\): no luck"):
        smoke(package)


def test_a_library_that_the_base_lacks_is_named_with_what_to_do(tmp_path: Path) -> None:
    loads = "import ctypes; ctypes.CDLL('libabsent.so.7')"
    package = spoiled_context(tmp_path / "release", "serving/__main__.py", lambda _: loads)
    with pytest.raises(Refused, match=r"ended by itself .*libabsent\.so\.7") as caught:
        smoke(package)
    assert caught.value.hint.startswith("Where it runs there is no libabsent.so.7, which a wheel does not bring along")


def test_a_server_that_never_answers_is_refused_in_time(tmp_path: Path) -> None:
    silent = "import time; print('thinking'); time.sleep(600)"
    package = spoiled_context(tmp_path / "release", "serving/__main__.py", lambda _: silent)
    started = time.perf_counter()
    with pytest.raises(Refused, match="gave no answer within 2 s") as caught:
        smoke(package, seconds=2)
    assert time.perf_counter() - started < 20
    assert "thinking" in caught.value.hint


def test_a_server_that_accepts_broken_requests_is_refused(tmp_path: Path) -> None:
    package = spoiled_context(
        tmp_path / "release", "serving/routing.py",
        lambda text: text.replace("return failure(path, error)", 'return Answer(200, JSON_HEADERS, b"{}")'),
    )  # fmt: skip
    with pytest.raises(Refused, match="a broken request was answered with 200"):
        smoke(package)


def test_nothing_of_this_environment_helps_the_server(tmp_path: Path) -> None:
    package = copied(process_package(), tmp_path / "release")
    shutil.rmtree(package.folder / package.artifact / "site-packages" / "msgspec")
    package = replace(package, files=tuple(file for file in package.files if "/msgspec/" not in file.path))
    with pytest.raises(Refused, match="No module named 'msgspec'"):
        smoke(package)


def test_a_context_for_a_python_that_is_not_here_says_the_way_out() -> None:
    with pytest.raises(Unavailable, match=r"no Python 3\.99") as caught:
        smoke(replace(process_package(), python="3.99"))
    assert f"--python {HERE}" in caught.value.hint


@pytest.mark.lambda_runtime
def test_a_zip_for_another_processor_says_the_way_out() -> None:
    package = function_package()
    other = "linux/arm64" if package.platform == "linux/amd64" else "linux/amd64"
    with pytest.raises(Unavailable, match=f"for {other} here") as caught:
        smoke(replace(package, platform=other))
    assert f"--platform {package.platform}" in caught.value.hint


@pytest.mark.lambda_runtime
def test_a_function_that_cannot_start_is_refused_with_the_reason(tmp_path: Path) -> None:
    package = spoiled_zip(tmp_path / "release", "handler.py", lambda text: "import nothing_like_that\n" + text)
    with pytest.raises(Refused, match="Unable to import module 'handler': No module named 'nothing_like_that'"):
        smoke(package)


@pytest.mark.lambda_runtime
def test_a_function_that_writes_into_its_own_folder_is_refused(tmp_path: Path) -> None:
    writing = "\nimport os\nos.chmod('.', 0o755)\nopen('cache.bin', 'w').close()\n"
    package = spoiled_zip(tmp_path / "release", "handler.py", lambda text: text + writing)
    with pytest.raises(Refused, match=r"writes cache\.bin into its own folder"):
        smoke(package)


@pytest.mark.lambda_runtime
def test_a_function_that_returns_nan_is_refused(tmp_path: Path) -> None:
    broken = "\ndef handler(event, context):\n    return {'statusCode': 200, 'body': '{\"outputs\": NaN}'}\n"
    package = spoiled_zip(tmp_path / "release", "handler.py", lambda text: text + broken)
    with pytest.raises(Refused, match="holds NaN, which is not JSON"):
        smoke(package)
