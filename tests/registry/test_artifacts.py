"""Fetching a model's files without mlflow: the same bytes as mlflow's own download, and nothing outside the folder."""

from __future__ import annotations

import json
import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import Invalid, Unavailable
from modelrel.registry import Registry
from modelrel.registry.artifacts import fetched
from modelrel.registry.mlflow import Mlflow
from modelrel.registry.quick import open_lookup
from modelrel.registry.rest import RestLookup

_LOG = """
import pathlib, sys, mlflow, sklearn.linear_model
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("served")
model = sklearn.linear_model.LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
found = mlflow.sklearn.log_model(model, name="model", input_example=[[1.0]])
notes = pathlib.Path(sys.argv[2], "more notes")
notes.mkdir()
(notes / "grüße + co.txt").write_bytes(b"x" * 3_000_000)
mlflow.MlflowClient().log_model_artifacts(found.model_id, sys.argv[2])
print(found.model_id)
"""

_PULLED = """
import sys
from modelrel.commands import main
code = main(["pull", *sys.argv[1:]])
sys.exit(code or 50 * any(name.partition(".")[0] == "mlflow" for name in sys.modules))
"""


@pytest.fixture(scope="session")
def served_model(http_registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of a logged model whose files the server hands out itself."""
    folder = tmp_path_factory.mktemp("notes")
    done = subprocess.run(
        [sys.executable, "-c", _LOG, http_registry, str(folder)], check=True, capture_output=True, text=True
    )
    return next(line for line in done.stdout.split() if line.startswith("m-"))


@pytest.fixture(params=["sqlite", "http", "served", "sqlite logged"])
def asked(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A registry, and a model in it: files in a folder, or behind the server; a version, or a logged model."""
    kind = request.param.split()[0]
    uri = request.getfixturevalue(f"{'http' if kind == 'served' else kind}_registry")
    if kind == "served":
        return uri, f"models:/{request.getfixturevalue('served_model')}"
    if request.param == "sqlite":
        return uri, "models:/flowers/2"
    if kind == "http":
        return uri, "models:/digits/1"
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        return uri, f"models:/{database.execute('select model_id from logged_models limit 1').fetchone()[0]}"


def _files(top: Path) -> dict[str, bytes]:
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_the_same_bytes_arrive_as_by_mlflow_itself(asked: tuple[str, str], tmp_path: Path) -> None:
    uri, model = asked
    lookup = open_lookup(uri)
    assert lookup is not None
    names: list[str] = []
    (tmp_path / "ours").mkdir()
    assert fetched(lookup, model, tmp_path / "ours", names.append)
    code = (
        "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); mlflow.artifacts.download_artifacts(*sys.argv[2:])"
    )
    code = code.replace("(*sys.argv[2:])", "(sys.argv[2], dst_path=sys.argv[3])")
    subprocess.run([sys.executable, "-c", code, uri, model, str(tmp_path / "mlflow")], check=True)
    theirs = _files(tmp_path / "mlflow")
    theirs.pop("registered_model_meta", None)  # which mlflow adds to what it downloads
    assert _files(tmp_path / "ours") == theirs
    assert sorted(names) == sorted(theirs)
    assert {"MLmodel", "requirements.txt"} <= theirs.keys()


def test_a_first_pull_does_not_import_mlflow(asked: tuple[str, str]) -> None:
    uri, model = asked
    done = subprocess.run(
        [sys.executable, "-c", _PULLED, model, "--registry", uri], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["sqlite", "http"])
def test_what_a_run_logged_is_what_mlflow_says(request: pytest.FixtureRequest, kind: str) -> None:
    uri = request.getfixturevalue(f"{kind}_registry")
    registry = Registry(uri)
    for name in ("flowers", "digits"):
        version = registry.version(name, "1")
        assert version is not None
        assert registry.run(version.run_id) == Mlflow(uri).run(version.run_id)
        assert registry.run(version.run_id).metrics["accuracy"] > 0.9
    assert registry.run("0" * 32) == Mlflow(uri).run("0" * 32)


def test_a_metric_that_is_no_number_stays_none(own_registry: str) -> None:
    registry = Registry(own_registry)
    version = registry.version("flowers", "1")
    assert version is not None
    with sqlite3.connect(own_registry.removeprefix("sqlite:///")) as database:
        database.execute("insert into latest_metrics values ('loss', 0, 0, 0, 1, ?)", (version.run_id,))
    assert math.isnan(registry.run(version.run_id).metrics["loss"])
    assert math.isnan(Mlflow(own_registry).run(version.run_id).metrics["loss"])


@pytest.mark.parametrize("location", ["s3://bucket/model", "mlflow-artifacts:/1/model", "http://elsewhere/model"])
def test_another_store_is_left_to_mlflow(own_registry: str, location: str, tmp_path: Path) -> None:
    with sqlite3.connect(own_registry.removeprefix("sqlite:///")) as database:
        database.execute("update model_versions set storage_location = ?", (location,))
    lookup = open_lookup(own_registry)
    assert lookup is not None
    (tmp_path / "into").mkdir()
    assert not fetched(lookup, "models:/flowers/1", tmp_path / "into", lambda _: None)


def test_a_folder_named_by_a_file_uri_is_read(own_registry: str, tmp_path: Path) -> None:
    top = tmp_path / "a model"
    top.mkdir()
    (top / "MLmodel").write_text("x")
    with sqlite3.connect(own_registry.removeprefix("sqlite:///")) as database:
        database.execute("update model_versions set storage_location = ?", (top.as_uri(),))
    lookup = open_lookup(own_registry)
    assert lookup is not None
    (tmp_path / "into").mkdir()
    assert fetched(lookup, "models:/flowers/1", tmp_path / "into", lambda _: None)
    assert _files(tmp_path / "into") == {"MLmodel": b"x"}


Answer = Callable[[str], tuple[int, dict[str, str], bytes]]


@contextmanager
def _server(answer: Answer) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server that speaks the protocol and answers what a test wants; gives its address, and what was asked of it."""
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers.get("Authorization", "")))
            code, headers, body = answer(self.path)
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()


def _listing(*names: str) -> Answer:
    """Answer as a server whose one logged model has files of these names, five bytes each; it sends `bytes`."""

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if "logged-models" in path:
            said: Any = {"model": {"info": {"artifact_uri": "mlflow-artifacts:/1/model"}}}
        elif path.startswith("/api/2.0/mlflow-artifacts/artifacts?"):
            said = {"files": [{"path": name, "is_dir": False, "file_size": 5} for name in names]}
        elif path.startswith("/api/2.0/mlflow-artifacts/artifacts/"):
            return 200, {}, b"short"[: 5 - path.count("cut")]
        else:
            return 404, {}, b""  # server-info, which older servers do not have
        return 200, {}, json.dumps(said).encode()

    return answer


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "C:/x", "a\nb", "..\\outside"])
def test_a_served_name_that_leads_outside_is_refused_before_anything_is_fetched(name: str, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    with _server(_listing("MLmodel", name)) as (uri, seen), pytest.raises(Invalid, match="outside"):
        fetched(RestLookup(uri), "models:/m-1", tmp_path / "into", lambda _: None)
    assert not [path for path, _ in seen if "artifacts/" in path.removeprefix("/api/2.0/mlflow-artifacts/")]
    assert [path.name for path in tmp_path.iterdir()] == ["into"]
    assert not list((tmp_path / "into").iterdir())


def test_what_was_fetched_is_what_was_listed(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    with _server(_listing("MLmodel", "data/model")) as (uri, _):
        assert fetched(RestLookup(uri), "models:/m-1", tmp_path / "into", lambda _: None)
    assert sorted(_files(tmp_path / "into")) == ["MLmodel", "data/model"]


def test_a_file_that_is_cut_off_every_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0.01")
    (tmp_path / "into").mkdir()
    with _server(_listing("MLmodel", "cut")) as (uri, seen), pytest.raises(Unavailable, match="4 of 5 bytes"):
        fetched(RestLookup(uri), "models:/m-1", tmp_path / "into", lambda _: None)
    assert len([path for path, _ in seen if path.endswith("/cut")]) == 5


@pytest.mark.parametrize(("host", "kept"), [("127.0.0.1", True), ("localhost", False)])
def test_credentials_follow_a_redirect_to_the_same_host_only(
    host: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        if path.startswith("/moved"):
            return 200, {}, b'{"registered_models": []}'
        return 302, {"Location": f"http://{host}:{port}/moved"}, b""

    with _server(answer) as (uri, seen):
        port = uri.rpartition(":")[2]
        assert RestLookup(uri).names() == []
    assert [credentials for _, credentials in seen] == ["Bearer secret", "Bearer secret" if kept else ""]
