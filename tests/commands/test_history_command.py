"""`modelrel promote`, `history` and `rollback`, on a real server: a week of a team, and three o'clock at night."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrel.registry import Registry
from tests.conftest import Done, Run
from tests.steps import promotable

FLOORS = "[policy.strict]\nmin_rows = 1000000\n"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with promotable.server(tmp_path_factory.mktemp("server"), 5) as found:
        yield found


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    for version in "123":
        promotable.released(folder, version)
    return folder


@pytest.fixture
def say(run: Run, uri: str, releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say a command about the model, on copies of the releases."""
    monkeypatch.setenv("MODELREL_USER", "ada")
    shutil.copytree(releases, tmp_path / "dist")

    def call(command: str, *words: str, version: str = "") -> Done:
        name = f"{promotable.NAME}/{version}" if version else promotable.NAME
        return run(command, name, *words, "--registry", uri, "--json")

    return call


def holder(uri: str, alias: str) -> str:
    return Registry(uri).holder(promotable.NAME, alias=alias)


def moves(done: Done) -> list[tuple[str, str, str]]:
    return [(one["event"], one["previous"], one["version"]) for one in done.json["history"]]


def test_history_says_who_when_what_why_and_on_what_evidence(say: Any, uri: str, run: Run) -> None:
    assert say("promote", "--to", "told", "--message", "first", version="1").code == 0
    assert say("promote", "--to", "told", "-m", "better", version="2").code == 0
    promotable.ask(uri, "POST", "registered-models/alias", name=promotable.NAME, alias="told", version="5")
    found = say("history", "--alias", "told")
    assert moves(found) == [("promoted", "", "1"), ("promoted", "1", "2"), ("outside", "2", "5")]
    first = found.json["history"][0]
    assert (first["by"], first["message"], first["at"][:2]) == ("ada", "first", "20")
    assert len(first["evidence"]["modelpack"]) == 64
    shown = run("history", f"{promotable.NAME}@told", "--registry", uri)
    assert "outside modelrel" in shown.out
    assert "better" in shown.out
    assert found.json["aliases"] == {"told": "5"}


def test_rolling_back_twice_goes_further_back_and_then_there_is_nothing_left(say: Any, uri: str) -> None:
    for version in "123":
        assert say("promote", "--to", "back", version=version).code == 0
    first = say("rollback", "--alias", "back", "--message", "3 is slow")
    assert (first.code, first.json["promotion"]["event"], holder(uri, "back")) == (0, "rolled back", "2")
    assert say("rollback", "--alias", "back").code == 0
    assert holder(uri, "back") == "1"
    end = say("rollback", "--alias", "back")
    assert (end.code, holder(uri, "back")) == (4, "1")
    assert moves(say("history", "--alias", "back"))[3:] == [("rolled back", "3", "2"), ("rolled back", "2", "1")]
    assert say("rollback", "--alias", "back", "--to", "1").code == 0  # is there already
    assert say("rollback", "--alias", "back", "--to", "4").code == 2  # never held it


def test_a_holder_whose_evidence_does_not_verify_is_skipped_with_the_reason(say: Any, uri: str) -> None:
    for version in "123":
        assert say("promote", "--to", "skip", version=version).code == 0
    packed = next(Path(f"dist/{promotable.NAME}-2").rglob("*.tar"))
    content = bytearray(packed.read_bytes())
    content[1000] ^= 1
    packed.write_bytes(content)
    dry = say("rollback", "--alias", "skip", "--dry-run")
    assert (dry.code, dry.json["promotion"]["version"], holder(uri, "skip")) == (0, "1", "3")
    done = say("rollback", "--alias", "skip")
    assert (done.code, holder(uri, "skip")) == (0, "1")
    (skipped,) = done.json["skipped"]
    assert skipped["version"] == "2"
    assert packed.name in skipped["why"]
    shutil.rmtree(f"dist/{promotable.NAME}-1")
    assert say("promote", "--to", "skip", version="3").code == 0
    none = say("rollback", "--alias", "skip")
    assert (none.code, holder(uri, "skip")) == (4, "3")
    assert "version 1: there is no evidence" in none.json["error"]["message"]


def test_a_refusal_is_an_entry_and_a_dry_one_is_not(say: Any, uri: str) -> None:
    Path("modelrel.toml").write_text(FLOORS)
    assert say("promote", "--to", "strict", "--dry-run", version="1").code == 4
    assert moves(say("history", "--alias", "strict")) == []
    assert say("promote", "--to", "strict", version="1").code == 4
    found = say("history", "--alias", "strict")
    assert moves(found) == [("refused", "", "1")]
    assert any("1,000" in rule or "1000" in rule for rule in found.json["history"][0]["rules"])
    assert holder(uri, "strict") == ""


def test_an_expected_holder_is_compared_and_what_is_there_already_is_fine(say: Any, uri: str) -> None:
    assert say("promote", "--to", "expected", "--expect", "none", version="1").code == 0
    wrong = say("promote", "--to", "expected", "--expect", "3", version="2")
    assert wrong.code == 5
    assert "is at version 1, moved there by ada at" in wrong.json["error"]["message"]
    assert say("promote", "--to", "expected", "--expect", "none", version="2").code == 5
    assert say("promote", "--to", "expected", "--expect", "1", version="2").code == 0
    assert say("promote", "--to", "expected", "--expect", "1", version="2").code == 0
    assert len(moves(say("history", "--alias", "expected"))) == 2
    assert say("promote", "--to", "expected", "--expect", "soon", version="3").code == 2


def test_a_version_that_was_deleted_stays_in_the_history_and_is_not_gone_back_to(run: Run, uri: str) -> None:
    name = "gone"
    promotable.register(uri, 3, name)
    for version in "123":
        promotable.released(Path("dist"), version, name)
    shared = ("--registry", uri, "--json")
    for version in "123":
        assert run("promote", f"{name}/{version}", "--to", "live", *shared).code == 0
    promotable.ask(uri, "DELETE", "model-versions/delete", name=name, version="2")
    assert [one[2] for one in moves(run("history", name, *shared))] == ["1", "2", "3"]
    done = run("rollback", name, "--alias", "live", *shared)
    assert (done.code, done.json["promotion"]["version"]) == (0, "1")
    assert done.json["skipped"] == [{"version": "2", "why": "it is not in the registry any more"}]


def test_a_model_without_history_says_so_and_an_unknown_one_is_named(say: Any, run: Run, uri: str) -> None:
    promotable.register(uri, 1, "fresh")
    assert "has no history" in run("history", "fresh", "--registry", uri).out
    unknown = run("history", "frsh", "--registry", uri, "--json")
    assert (unknown.code, "fresh" in unknown.json["error"]["hint"]) == (2, True)
    assert run("rollback", "fresh", "--alias", "live", "--registry", uri, "--json").code == 4
