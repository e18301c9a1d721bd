"""A registry that stumbles: reads are asked again, for a bounded time; what is not whole is never taken."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import ModelrelError, Unavailable
from modelrel.registry import Registry, connections
from modelrel.registry.artifacts import fetched
from modelrel.registry.patience import Patience, Stumbled
from modelrel.registry.rest import RestLookup
from tests.conftest import free_port

MODEL = {"registered_model": {"name": "churn", "aliases": [{"alias": "champion", "version": "7"}]}}
WHOLE = json.dumps(MODEL).encode()
JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

Raw = Callable[[str, int], bytes | None]


@contextmanager
def _raw(answer: Raw) -> Iterator[tuple[str, list[str]]]:
    """A server whose answers are these very bytes (None: silence, until the client has gone); gives what was asked."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            sent = answer(self.path, seen.count(self.path))
            if sent is None:
                self.connection.recv(1)
            else:
                self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=lambda: server.serve_forever(0.02), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()


def _answer(body: bytes, *, size: int | None = None) -> bytes:
    return f"{JSON}Content-Length: {len(body) if size is None else size}\r\n\r\n".encode() + body


def _status(code: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} Trouble", *headers, "Content-Length: 0", "", ""]).encode()


STUMBLES: dict[str, bytes] = {
    "dropped": b"",
    "dropped in the headers": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "no HTTP": b"\x16\x03\x01 what?\r\n\r\n",
    "shorter than its length": _answer(WHOLE[:20], size=len(WHOLE)),
    "a chunk that is cut": f"{JSON}Transfer-Encoding: chunked\r\n\r\nff\r\n".encode() + WHOLE[:20],
    "chunks without an end": f"{JSON}Transfer-Encoding: chunked\r\n\r\n5\r\n".encode() + WHOLE[:5] + b"\r\n",
    "half of the JSON": _answer(WHOLE[:20]),
    "500": _status(500),
    "502": _status(502),
    "503": _status(503),
    "504": _status(504),
    "429 with a time": _status(429, "Retry-After: 0"),
    "503 with a date": _status(503, "Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
    "503 with nonsense": _status(503, "Retry-After: soon"),
}


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    """The usual patience; the pauses are written down instead of waited."""
    return Patience(wait=waits.append)


@pytest.mark.parametrize("stumble", STUMBLES)
def test_a_read_that_stumbles_once_is_asked_again(stumble: str, patience: Patience, waits: list[float]) -> None:
    with _raw(lambda _, tried: STUMBLES[stumble] if tried == 1 else _answer(WHOLE)) as (uri, _):
        found = RestLookup(uri, patience).model("churn")
    assert found is not None
    assert found.aliases == {"champion": "7"}
    assert len(waits) == 1


@pytest.mark.parametrize("stumble", STUMBLES)
def test_a_read_that_stumbles_every_time_ends_as_unavailable(stumble: str, patience: Patience) -> None:
    with _raw(lambda *_: STUMBLES[stumble]) as (uri, seen), pytest.raises(Unavailable):
        RestLookup(uri, patience).model("churn")
    assert len(seen) == 5


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 501])
def test_an_answer_that_another_try_will_not_change_is_taken_at_once(code: int, patience: Patience) -> None:
    with _raw(lambda *_: _status(code)) as (uri, seen), pytest.raises(Unavailable, match=str(code)):
        RestLookup(uri, patience).model("churn")
    assert len(seen) == 1


def test_a_refusal_that_is_cut_off_is_not_read_as_there_is_no_such_model(patience: Patience) -> None:
    body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}).encode()
    head = f"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with _raw(lambda _, tried: head + body[: len(body) // tried]) as (uri, seen):
        assert RestLookup(uri, patience).model("churn") is None
    with _raw(lambda *_: head + body[:10]) as (uri, seen), pytest.raises(Unavailable):
        RestLookup(uri, patience).model("churn")
    assert len(seen) > 1


def test_a_page_of_another_server_is_told_at_once(patience: Patience) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    with _raw(lambda *_: page) as (uri, seen), pytest.raises(Unavailable, match="what MLflow does not"):
        RestLookup(uri, patience).model("churn")
    assert len(seen) == 1


def test_an_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "0.2")
    with _raw(lambda *_: None) as (uri, seen), pytest.raises(Unavailable, match="timed out"):
        RestLookup(uri, Patience(wait=waits.append)).model("churn")
    assert len(seen) == 5


def test_pauses_grow_and_are_never_longer_than_said(patience: Patience, waits: list[float]) -> None:
    with _raw(lambda *_: b"") as (uri, _), pytest.raises(Unavailable):
        RestLookup(uri, patience).model("churn")
    assert [most / 2 <= wait <= most for wait, most in zip(waits, (0.5, 1, 2, 4), strict=True)] == [True] * 4


def test_the_time_that_the_server_asks_for_is_given(patience: Patience, waits: list[float]) -> None:
    busy = _status(429, "Retry-After: 7")
    with _raw(lambda _, tried: busy if tried == 1 else _answer(WHOLE)) as (uri, _):
        RestLookup(uri, patience).model("churn")
    assert waits == [7.0]


def test_a_server_that_asks_for_more_time_than_there_is_is_told_at_once(patience: Patience, waits: list[float]) -> None:
    with _raw(lambda *_: _status(503, "Retry-After: 120")) as (uri, seen), pytest.raises(Unavailable, match="503"):
        RestLookup(uri, patience).model("churn")
    assert (len(seen), waits) == (1, [])


def test_all_questions_of_a_command_share_half_a_minute(patience: Patience, waits: list[float]) -> None:
    busy = _status(503, "Retry-After: 4")
    with _raw(lambda _, tried: busy if tried % 2 else _answer(WHOLE)) as (uri, _):
        server = RestLookup(uri, patience)
        with pytest.raises(Unavailable):
            [server.model("churn") for _ in range(20)]
    assert sum(waits) <= 30
    assert len(waits) >= 6


def test_an_address_where_nobody_is_gets_one_more_try(patience: Patience, waits: list[float]) -> None:
    with pytest.raises(Unavailable, match="Connection refused"):
        RestLookup(f"http://127.0.0.1:{free_port()}", patience).model("churn")
    assert len(waits) == 1


def test_a_registry_that_goes_away_after_it_answered_gets_all_tries(patience: Patience, waits: list[float]) -> None:
    with _raw(lambda *_: _answer(WHOLE)) as (uri, _):
        server = RestLookup(uri, patience)
        server.model("churn")
    with pytest.raises(Unavailable, match="Connection refused"):
        server.model("churn")
    assert len(waits) == 4


def test_every_pause_is_told(waits: list[float]) -> None:
    said: list[str] = []
    with _raw(lambda _, tried: b"" if tried == 1 else _answer(WHOLE)) as (uri, _):
        RestLookup(uri, Patience(said.append, waits.append)).model("churn")
    assert len(said) == 1
    assert said[0].startswith("the registry does not answer (")
    assert said[0].endswith(" s")


def test_a_certificate_that_is_wrong_is_not_asked_twice(patience: Patience, waits: list[float]) -> None:
    import ssl
    import urllib.error

    def ask() -> None:
        with connections.stumbling():
            raise urllib.error.URLError(ssl.SSLCertVerificationError("wrong"))

    with pytest.raises(urllib.error.URLError):
        patience.read(ask)
    assert waits == []


FILE = bytes(range(256)) * 8


def _files(bad: Callable[[int], bytes]) -> Raw:
    """A server with one logged model of one file, `weights`, that is sent well after what `bad` says for a try."""

    def answer(path: str, tried: int) -> bytes:
        if "logged-models" in path:
            return _answer(json.dumps({"model": {"info": {"artifact_uri": "mlflow-artifacts:/1/model"}}}).encode())
        if "artifacts?" in path:
            listed = {"files": [{"path": "weights", "is_dir": False, "file_size": len(FILE)}]}
            return _answer(json.dumps(listed).encode())
        return bad(tried) if path.endswith("/weights") else _status(404)

    return answer


def _file(body: bytes, size: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + body


BAD: dict[str, bytes] = {
    **{name: sent for name, sent in STUMBLES.items() if "JSON" not in name},
    "cut off": _file(FILE[:1000], len(FILE)),
    "cut off without a length": b"HTTP/1.1 200 OK\r\n\r\n" + FILE[:1000],
    "whole, but shorter than was listed": _file(FILE[:1000], 1000),
    "longer than was listed": _file(FILE + b"x", len(FILE) + 1),
    "a page of a proxy": _file(b"<html>back soon</html>", 22),
    "a chunk that is cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" + FILE[:1000],
}


@pytest.mark.parametrize("stumble", BAD)
def test_a_download_that_stumbles_once_is_begun_anew(stumble: str, patience: Patience, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    good = _file(FILE, len(FILE))
    with _raw(_files(lambda tried: BAD[stumble] if tried == 1 else good)) as (uri, _):
        assert fetched(RestLookup(uri, patience), "models:/m-1", tmp_path / "into", lambda _: None)
    assert (tmp_path / "into" / "weights").read_bytes() == FILE


@pytest.mark.parametrize("stumble", BAD)
def test_a_download_that_is_never_whole_is_not_taken(stumble: str, patience: Patience, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    with _raw(_files(lambda _: BAD[stumble])) as (uri, _), pytest.raises(Unavailable):
        fetched(RestLookup(uri, patience), "models:/m-1", tmp_path / "into", lambda _: None)


def test_a_full_disk_is_not_taken_for_a_registry_that_stumbles(patience: Patience) -> None:
    def ask() -> None:
        with connections.stumbling():
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        patience.read(ask)


def test_mlflow_itself_asks_again_as_well(waits: list[float]) -> None:
    from modelrel.registry.mlflow import Mlflow

    with _raw(lambda _, tried: _status(503) if tried <= 2 else _answer(WHOLE)) as (uri, seen):
        found = Mlflow(uri, Patience(wait=waits.append)).model("churn")
    assert found is not None
    assert found.name == "churn"
    assert len(seen) == 3
    assert len(waits) >= 2  # MLflow keeps connections; one that was closed just then is a stumble of its own


def test_mlflow_itself_is_kept_from_sending_a_change_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the user set for reading."""
    from modelrel.registry.mlflow import Mlflow
    from tests.registry.stumbling import stumbling

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    with _raw(lambda *_: _answer(WHOLE)) as (uri, _), stumbling(uri) as proxy:
        proxy.begin(lambda _, method, __: "500 before" if method == "POST" else "")
        with pytest.raises(ModelrelError):
            Mlflow(proxy.uri).set_alias("churn", "champion", "7")
        assert [method for method, _ in proxy.seen].count("POST") == 1


def test_a_database_that_is_locked_for_a_moment_is_read(own_registry: str) -> None:
    said: list[str] = []
    with sqlite3.connect(own_registry.removeprefix("sqlite:///"), check_same_thread=False) as writer:
        writer.execute("begin exclusive")

        def heard(text: str) -> None:
            said.append(text)
            writer.rollback()

        assert Registry(own_registry, heard).holder("flowers", alias="candidate") == "2"
    assert "locked" in said[0]


def test_a_database_that_stays_locked_is_unavailable(own_registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with sqlite3.connect(own_registry.removeprefix("sqlite:///")) as writer:
        writer.execute("begin exclusive")
        with pytest.raises(Unavailable, match="does not answer: database is locked"):
            Registry(own_registry).names()


def test_what_was_asked_in_vain_is_not_an_error_of_python() -> None:
    patience = Patience(wait=lambda _: None)

    def ask() -> None:
        raise Stumbled("nothing")

    with pytest.raises(Stumbled, match="nothing"):
        patience.read(ask)
