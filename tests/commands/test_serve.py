"""`modelrel serve`: one model or several, the options of the server, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from modelrel.commands import server
from modelrel.errors import Invalid
from modelrel.serving.options import OPTIONS
from tests.conftest import Run
from tests.serving.conftest import tensor_folder
from tests.serving.released import digits_folder


class Serving(NamedTuple):
    """A running `modelrel serve --json`, and the document that it printed."""

    process: subprocess.Popen[str]
    said: Any

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return the exit code, and the rest of stdout and of stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    """Start `modelrel serve --port 0 --json` and wait for its document."""
    started = []

    def start(*words: object, **environment: str) -> Serving:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelrel", "serve", *map(str, words), "--port", "0", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":  # the document is indented, so this is its end
                break
        text = "".join(lines)
        assert text, process.communicate()
        return Serving(process, json.loads(text))

    yield start
    for process in started:
        process.terminate()  # the server with it: it is in a group of its own
        process.communicate(timeout=60)


def test_several_folders_are_served_together(serve: Callable[..., Serving], tmp_path: Path) -> None:
    digits_folder(tmp_path / "digits")
    tensor_folder(tmp_path / "packages" / "a" / "model", version="1")
    tensor_folder(tmp_path / "packages" / "b", version="2")
    running = serve(tmp_path / "digits", tmp_path / "packages")
    models = {(one["name"], one["version"], one["format"]) for one in running.said["models"]}
    assert models == {("digits", "7", "onnx"), ("churn", "1", "onnx"), ("churn", "2", "onnx")}
    for path in ("digits", "churn", "churn/versions/1", "churn/versions/2"):
        assert httpx.get(f"{running.said['url']}/v2/models/{path}/ready").status_code == 200
    code, out, _ = running.end()
    assert (code, out) == (0, "")


def test_a_release_folder_gives_the_format_that_is_asked_for(tmp_path: Path) -> None:
    release = tmp_path / "dist" / "churn-7"
    tensor_folder(release / "onnx")
    tensor_folder(release / "tflite", format="tflite")
    (release / "SourceModel.json").write_text("{}")
    assert server.servable(release) == server.Served(folders=(release / "onnx",))
    assert server.servable(release, "tflite") == server.Served(folders=(release / "tflite",))
    assert server.servable(release.parent) == server.Served(folders=(release / "onnx",))
    assert server.servable(release.parent, "tflite") == server.Served(folders=(release / "tflite",))
    assert server.servable(release / "onnx") == server.Served(folders=(release / "onnx",))
    for path in (release, release / "onnx"):
        with pytest.raises(Invalid, match="has no pmml copy, only onnx"):
            server.servable(path, "pmml")


def test_a_folder_of_models_is_handed_on_so_that_later_ones_can_be_loaded(tmp_path: Path) -> None:
    tensor_folder(tmp_path / "a" / "model")
    assert server.servable(tmp_path) == server.Served(folders=(tmp_path,))
    assert server.servable(tmp_path / "a") == server.Served(folders=(tmp_path / "a" / "model",))
    assert server.servable(tmp_path / "nothing") is None


def test_registry_references_are_released_first_and_an_alias_becomes_a_label(
    serve: Callable[..., Serving], sqlite_registry: str, tmp_path: Path
) -> None:
    folder = digits_folder(tmp_path / "mine", name="mine")
    running = serve("digits/1", "flowers@candidate", folder, "--registry", sqlite_registry)
    names = {one["name"]: one for one in running.said["models"]}
    assert set(names) == {"digits", "flowers", "mine"}
    assert Path(names["digits"]["folder"]) == Path("dist/digits-1/onnx")
    assert (Path("dist") / f"flowers-{names['flowers']['version']}" / "onnx" / "ParityReport.json").is_file()
    line = Path(f"/proc/{child_of(running.process.pid)}/cmdline").read_bytes().decode().split("\0")
    assert f"--label=flowers/candidate={names['flowers']['version']}" in line
    reply = httpx.get(f"{running.said['url']}/examples/digits/versions/1/v2")
    answer = httpx.post(f"{running.said['url']}/v2/models/digits/infer", json=reply.json())
    golden = json.loads((Path(names["digits"]["folder"]) / "golden.json").read_text())
    assert answer.json()["outputs"][0]["data"] == golden["outputs"]["label"][:1]
    assert running.end()[0] == 0


def child_of(pid: int) -> int:
    import psutil

    return psutil.Process(pid).children()[0].pid


def test_the_page_of_a_release_says_where_it_comes_from(serve: Callable[..., Serving], sqlite_registry: str) -> None:
    running = serve("digits/1", "--registry", sqlite_registry)
    text = httpx.get(running.said["url"] + "/").text
    source = json.loads(Path("dist/digits-1/SourceModel.json").read_text())
    report = json.loads(Path("dist/digits-1/onnx/ParityReport.json").read_text())
    manifest = json.loads(Path("dist/digits-1/onnx/modelrel.json").read_text())["metadata"]
    for said in ("models:/digits/1", manifest["run_id"], manifest["source_digest"], manifest["model_sha256"]):
        assert said
        assert said in text
    assert "xgboost" in text
    rows = report["value"]["rows"] if "value" in report else report["rows"]
    assert f"rows compared: {rows:,}" in text
    assert source
    assert len(text.encode()) < 20_000


def test_options_reach_the_server_and_a_key_is_in_no_command_line(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    words = ["--max-body", "1000", "--label", "churn/a=7", "--label=churn/b=7", "--api-key", "very-secret", "--otel"]
    command, environment = server._started(
        server.Served(folders=(tmp_path,), labels=("churn/c=7",)),
        {"max_body": "1000", "label": ["churn/a=7"], "api_key": "very-secret", "otel": True},
        quiet=True,
    )
    assert command[3:] == [
        str(tmp_path), "--max-body=1000", "--label=churn/c=7", "--label=churn/a=7", "--no-access-log", "--otel",
    ]  # fmt: skip
    assert environment["MODELREL_API_KEY"] == "very-secret"
    running = serve(tensor_folder(tmp_path / "churn"), *words[:5])
    line = Path(f"/proc/{child_of(running.process.pid)}/cmdline").read_text()
    assert "--max-body=1000" in line
    body = httpx.post(f"{running.said['url']}/v2/models/churn/infer", content=b" " * 1001)
    assert body.status_code == 413


def test_every_option_of_the_server_is_one_of_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run("serve", "--help").out
    for option in OPTIONS:
        assert option.flag in text
        assert option.help[1:20] in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "70000"], "--port must be a port number, not '70000'"),
        (["--workers", "0"], "--workers must be a whole number from 1, not '0'"),
        (["--sample", "2"], "--sample must be from 0 to 1, not '2'"),
        (["--v1", "triton"], "--v1 must be tfserving or kserve, not 'triton'"),
    ],
    ids=["port", "workers", "sample", "v1"],
)
def test_a_value_that_makes_no_sense_is_one_sentence(run: Run, tmp_path: Path, words: list[str], said: str) -> None:
    done = run("serve", tensor_folder(tmp_path / "churn"), *words, "--json")
    assert done.code == 2
    assert done.json["error"]["message"] == said


def test_a_folder_that_cannot_be_served_is_exit_code_2_and_one_json_document(run: Run, tmp_path: Path) -> None:
    folder = tensor_folder(tmp_path / "churn")
    (folder / "model.onnx").write_bytes(b"not a model")
    done = run("serve", folder, "--port", "0", "--json")
    assert done.code == 2
    assert "model.onnx" in done.json["error"]["message"]


def test_one_broken_folder_among_others_is_told_and_the_others_serve(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    good, bad = tensor_folder(tmp_path / "churn"), tensor_folder(tmp_path / "fraud", name="fraud")
    (bad / "model.onnx").write_bytes(b"not a model")
    running = serve(good, bad)
    assert [one["name"] for one in running.said["models"]] == ["churn"]
    code, _, err = running.end()
    assert code == 0
    assert "model.onnx cannot be loaded" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_is_a_good_end(serve: Callable[..., Serving], tmp_path: Path, number: int) -> None:
    code, out, err = serve(tensor_folder(tmp_path / "churn")).end(number)
    assert (code, out) == (0, "")
    assert "Traceback" not in err


def test_ctrl_c_reaches_the_server_once_and_a_request_in_flight_is_answered(
    serve: Callable[..., Serving], tmp_path: Path
) -> None:
    import socket

    running = serve(tensor_folder(tmp_path / "churn"))
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()
    head = b"POST /v2/models/churn/infer HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    address = running.said["url"].removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), 60) as connection:
        connection.sendall(head % len(body))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")  # it is in the server's hands now
        running.process.send_signal(signal.SIGINT)
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert running.process.wait(60) == 0


def test_without_json_the_line_of_the_server_is_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelrel", "serve", str(tensor_folder(tmp_path / "churn")), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("modelrel serving churn/7 on http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0


def test_names_with_commas_are_told_apart(tmp_path: Path) -> None:
    tensor_folder(tmp_path / "a", name="a, b", version="1")
    tensor_folder(tmp_path / "b", name="b", version="11")
    found = server.described(server.Served(folders=(tmp_path,)), "a, b/1, c/2")
    assert [(one["name"], one["version"]) for one in found] == [("a, b", "1")]
