"""Asking a registry: a sqlite file and a real server give the same answers, quickly and by way of MLflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelrel.errors import Invalid, Unavailable
from modelrel.registry import Registry
from modelrel.registry.lookup import hide_credentials
from modelrel.registry.mlflow import Mlflow
from modelrel.registry.quick import open_lookup
from modelrel.registry.reference import parse
from tests.conftest import free_port


@pytest.fixture(params=["sqlite", "http"])
def uri(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_registry")
    return found


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("flowers/3", "3"),
        ("flowers", "3"),
        ("flowers@candidate", "2"),
        ("models:/flowers/Production", "1"),
        ("flowers/latest", "3"),
    ],
)
def test_every_reference_is_resolved_to_a_number(uri: str, text: str, version: str) -> None:
    assert Registry(uri).resolve(parse(text)).version == version


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("flwers", "no model 'flwers'", "Did you mean flowers?"),
        ("nothing-like-it", "no model", "digits, flowers"),
        ("flowers/9", "no version 9", "flowers/3"),
        ("flowers@champion", "no alias 'champion'", "candidate"),
        ("flowers/Staging", "no version of flowers is in the stage Staging", "flowers/3"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(uri: str, text: str, words: str, hint: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        Registry(uri).resolve(parse(text))
    assert hint in caught.value.hint


def test_the_quick_reader_and_mlflow_agree(uri: str) -> None:
    quick, slow = open_lookup(uri), Mlflow(uri)
    assert quick is not None
    assert sorted(quick.names()) == sorted(slow.names()) == ["digits", "flowers"]
    questions = (
        lambda registry: registry.model("flowers"),
        lambda registry: registry.latest("flowers"),
        lambda registry: registry.latest("flowers", "Production"),
        lambda registry: registry.version("flowers", "9"),
        lambda registry: registry.latest("nobody"),
        lambda registry: registry.model("nobody"),
    )
    for ask in questions:
        assert ask(quick) == ask(slow)
    one, other = quick.version("flowers", "1"), slow.version("flowers", "1")
    assert one is not None
    assert other is not None
    assert (one.run_id, one.stage, one.tags) == (other.run_id, other.stage, other.tags)


def test_an_alias_is_resolved_without_importing_mlflow(sqlite_registry: str) -> None:
    code = (
        "import sys; from modelrel.registry import Registry; from modelrel.registry.reference import parse;"
        f"print(Registry({sqlite_registry!r}).resolve(parse('flowers@candidate')).version);"
        "sys.exit('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr


def test_a_server_that_is_down_is_told_at_once() -> None:
    with pytest.raises(Unavailable, match="does not answer: Connection refused"):
        Registry(f"http://127.0.0.1:{free_port()}").resolve(parse("flowers"))


def test_a_missing_sqlite_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not exist"):
        Registry(f"sqlite:///{tmp_path}/none.db").mlflow  # noqa: B018
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    with pytest.raises(Unavailable, match="cannot be read"):
        Registry(f"sqlite:///{tmp_path}/x.db").resolve(parse("flowers"))


@pytest.mark.parametrize("reader", ["quick", "mlflow"])
def test_credentials_in_an_address_are_never_shown(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reader == "mlflow":
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert hide_credentials("https://me:secret@mlflow.example:5000/x") == "https://mlflow.example:5000/x"
    with pytest.raises(Unavailable) as caught:
        Registry(f"http://me:secret@127.0.0.1:{free_port()}").names()
    assert "secret" not in caught.value.message + caught.value.hint
