"""Two processes promote different versions to one alias, against one real server: nothing is lost unseen."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelrel.registry import Registry, history, story, turns
from modelrel.registry.lookup import ModelInfo
from tests.steps import promotable, promoter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("MODELREL_TEST_ROUNDS", "200"))
KILLS = ROUNDS // 10
PATIENCE_S = {"killed": 8.0}
"""For how long the one who waits looks at the ticket of a killed process; where none is killed, as long as users do."""
TOP = Path(__file__).resolve().parents[2]


class Process:
    """A process that promotes."""

    def __init__(self, who: str, uri: str, dist: Path, alias: str) -> None:
        self.who, self.uri, self.dist, self.alias = who, uri, dist, alias
        self.start()

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODELREL_", "MLFLOW_"))}
        command = [sys.executable, "-m", promoter.__name__, str(PATIENCE_S.get(self.alias, turns.PATIENCE_S))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP,
            env={**kept, "MODELREL_USER": self.who},
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def send(self, version: str, *words: str) -> None:
        line = [
            "promote", f"{promotable.NAME}/{version}", "--to", self.alias, "--registry", self.uri, "--dist",
            str(self.dist), "--json", *words,
        ]  # fmt: skip
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def promote(self, version: str, *words: str) -> Any:
        self.send(version, *words)
        return self.receive()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        self.close()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@contextmanager
def processes(uri: str, dist: Path, alias: str) -> Iterator[tuple[Process, Process]]:
    both = Process("bob", uri, dist, alias), Process("eve", uri, dist, alias)
    try:
        yield both
    finally:
        for one in both:
            one.close()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    for version in "1234":
        promotable.released(folder, version)
    return folder


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with promotable.server(tmp_path_factory.mktemp("server"), 5) as found:
        yield found


def model(uri: str) -> ModelInfo:
    found = Registry(uri).model(promotable.NAME)
    assert found is not None
    return found


def story_of(uri: str, alias: str) -> list[tuple[str, str, str]]:
    return [(one.event, one.previous, one.version) for one in story.of(model(uri)) if one.to == alias]


def consistent(uri: str, alias: str) -> None:
    """Alias, the last entry of the history and the audit tags say the same, and nobody is in the row."""
    found = model(uri)
    entries = history.moves(found, "alias", alias)
    assert story_of(uri, alias) == [("promoted", one.previous, one.version) for one in entries]
    assert found.aliases[alias] == entries[-1].version
    assert not turns.claims(found, "alias", alias)
    for entry in {entry.version: entry for entry in entries}.values():
        version = Registry(uri).version(promotable.NAME, entry.version)
        assert version is not None
        audit = json.loads(version.tags[f"modelrel.promotion.{alias}"])
        assert (audit["entry"], audit["by"], audit["from"]) == (entry.id, entry.by, entry.previous)


def test_of_two_promotions_one_wins_and_the_other_says_who_or_history_shows_both(uri: str, dist: Path) -> None:
    outcomes: dict[str, int] = {}
    with processes(uri, dist, "raced") as (bob, eve):
        for number in range(ROUNDS):
            # the holder is of the other pair, so both have to move the alias
            pair = ("1", "2") if number % 2 else ("3", "4")
            was = len(history.moves(model(uri), "alias", "raced"))
            bob.send(pair[0])
            eve.send(pair[1])
            ended = {"bob": bob.receive(), "eve": eve.receive()}
            codes = sorted(one["code"] for one in ended.values())
            moved = history.moves(model(uri), "alias", "raced")[was:]
            outcome = f"{codes}, {len(moved)} moves"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            assert codes in ([0, 5], [0, 0]), ended
            assert [ended[one.by]["code"] for one in moved] == [0] * codes.count(0), ended
            for loser in (one for one in ended.values() if one["code"] == 5):
                said = loser["answer"]["error"]["message"]
                assert f"to version {moved[0].version} meanwhile, by {moved[0].by} at {moved[0].at}" in said
    print(f"{ROUNDS} rounds: {outcomes}")
    consistent(uri, "raced")


def test_a_process_that_is_killed_at_any_moment_leaves_nothing_half(uri: str, dist: Path) -> None:
    moments = random.Random(7)
    halves = 0
    with processes(uri, dist, "killed") as (bob, eve):
        took = []
        for version in "12":
            begun = time.monotonic()
            assert bob.promote(version)["code"] == 0
            took.append(time.monotonic() - begun)
        for number in range(KILLS):
            pair = ("1", "2") if number % 2 else ("3", "4")
            bob.send(pair[0])
            time.sleep(moments.uniform(0, 1.2 * min(took)))
            bob.kill()
            found = model(uri)
            told = [one for one in story.of(found) if one.to == "killed"]
            # at once, before anybody mends it
            assert told[-1].version == found.aliases["killed"]
            assert {one.event for one in told} == {"promoted"}
            halves += bool(turns.claims(found, "alias", "killed"))
            assert eve.promote(pair[1])["code"] == 0
            consistent(uri, "killed")
            bob.start()
    print(f"{KILLS} kills, {halves} of them in the row")


def test_a_client_that_takes_no_turns_is_noticed(uri: str, dist: Path) -> None:
    with processes(uri, dist, "shared") as (bob, _eve):
        assert bob.promote("1")["code"] == 0
        promotable.ask(uri, "POST", "registered-models/alias", name=promotable.NAME, alias="shared", version="5")
        refused = bob.promote("2", "--expect", "1")
        assert refused["code"] == 5
        assert "is at version 5, moved there outside modelrel" in refused["answer"]["error"]["message"]
        assert bob.promote("2", "--expect", "5", "--message", "theirs was not tested")["code"] == 0
    assert story_of(uri, "shared") == [("promoted", "", "1"), ("outside", "1", "5"), ("promoted", "5", "2")]
