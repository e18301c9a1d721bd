"""Wheels are resolved for another machine, locked with hashes, kept, and cleaned to the same bytes."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from modelrel import archive, complaints, interpreters, wheels
from modelrel.errors import Invalid, Refused, Unavailable

WANTED = (("flatbuffers", "httptools"),)
"""Small ones, of which one is built for a Python and a processor."""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "modelrel"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): archive.sha256(path) for path in archive.walk(folder)}


def test_the_lock_holds_a_hash_for_every_wheel() -> None:
    lock = wheels.fetch(WANTED, "3.13", "linux/amd64").lock
    assert len(re.findall(r"^[\w-]+==\S+ \\\n    --hash=sha256:", lock, re.MULTILINE)) == lock.count("==") == 2


def test_the_lock_names_no_host_and_no_path() -> None:
    lock = wheels.fetch(WANTED, "3.13", "linux/amd64").lock
    assert not re.search(r"://|file:|--index|--find-links|" + re.escape(str(wheels.cache_dir().parent)) + "/", lock)


def test_wheels_for_another_processor_are_of_that_processor() -> None:
    found = wheels.fetch(WANTED, "3.13", "linux/arm64")
    wheels.check_machine(found.folder, "linux/arm64")
    with pytest.raises(Refused, match="not built for linux/amd64"):
        wheels.check_machine(found.folder, "linux/amd64")


def test_two_installs_of_one_lock_give_the_same_files(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = wheels.fetch(WANTED, "3.13", "linux/amd64")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_cache.parent / "other"))
    old = os.umask(0o077)
    try:
        second = wheels.fetch(WANTED, "3.13", "linux/amd64", first.lock)
    finally:
        os.umask(old)
    assert first.folder != second.folder
    assert contents(first.folder) == contents(second.folder)


def test_nothing_about_the_install_is_kept() -> None:
    names = {path.name for path in archive.walk(wheels.fetch(WANTED, "3.13", "linux/amd64").folder)}
    assert not names & {"RECORD", "INSTALLER", "REQUESTED", "uv_cache.json", "direct_url.json"}


def test_every_wheel_keeps_its_metadata() -> None:
    folder = wheels.fetch(WANTED, "3.13", "linux/amd64").folder
    assert len(list(folder.glob("*.dist-info/METADATA"))) == 2


@pytest.mark.usefixtures("own_cache")
def test_a_second_time_needs_no_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    first = wheels.fetch(WANTED, "3.13", "linux/amd64")
    request.getfixturevalue("no_network")
    assert wheels.fetch(WANTED, "3.13", "linux/amd64") == first


def test_an_old_lock_is_still_good_when_no_index_answers(own_cache: Path, request: pytest.FixtureRequest) -> None:
    first = wheels.fetch(WANTED, "3.13", "linux/amd64")
    for kept in (own_cache / "locks").iterdir():
        os.utime(kept, (time.time() - 9 * 86400,) * 2)
    request.getfixturevalue("no_network")
    again = wheels.fetch(WANTED, "3.13", "linux/amd64")
    assert (again.lock, again.folder) == (first.lock, first.folder)
    assert "resolved 9 days ago" in again.notes[0]


@pytest.mark.usefixtures("own_cache")
def test_an_earlier_lock_is_followed() -> None:
    old = wheels.fetch((("httptools==0.6.4",),), "3.13", "linux/amd64").lock
    renamed = old.replace("httptools==0.6.4\n", "httptools\n", 1)  # as if it had been the newest then
    assert "httptools==0.6.4" in wheels.fetch((("httptools",),), "3.13", "linux/amd64", renamed).lock


@pytest.mark.usefixtures("own_cache", "no_network")
def test_no_network_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"^the wheels cannot be fetched, no package index answers: [^\n]+$"):
        wheels.fetch(WANTED, "3.13", "linux/amd64")


@pytest.mark.usefixtures("own_cache", "no_network")
def test_no_network_leaves_nothing_behind(own_cache: Path) -> None:
    with pytest.raises(Unavailable):
        wheels.fetch(WANTED, "3.13", "linux/amd64")
    assert not list(own_cache.rglob("*"))


@pytest.mark.usefixtures("own_cache")
def test_what_a_killed_run_left_is_cleared_away(own_cache: Path) -> None:
    left = own_cache / "wheels" / f"{archive.UNFINISHED}x" / "numpy"
    left.mkdir(parents=True)
    wheels.fetch(WANTED, "3.13", "linux/amd64")
    assert not left.parent.exists()


def test_a_python_without_wheels_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"^there are no wheels for Python 3\.5 on linux/amd64: [^\n]+$"):
        wheels.fetch((("httptools>=0.6",),), "3.5", "linux/amd64")


def test_the_next_choice_is_taken_and_said() -> None:
    found = wheels.fetch((("httptools==0.0.1",), ("httptools",)), "3.13", "linux/amd64")
    assert re.match(r"packaged with httptools [\d.]+ instead of httptools 0\.0\.1: ", found.notes[0])


@pytest.mark.parametrize("python", ["3", "2.7", "3.13.1", "3.13t", "latest"])
def test_a_python_that_is_none_is_an_error_of_the_command(python: str) -> None:
    with pytest.raises(Invalid, match="not a Python version"):
        wheels.fetch(WANTED, python, "linux/amd64")


def test_the_essential_line_has_no_warnings_and_no_hints() -> None:
    stderr = "warning: old\n  × No solution found:\n  ╰─▶ Because a\n      is gone.\n\nhint: do this\n"
    assert complaints.essential(stderr) == "No solution found: Because a is gone"


def test_the_interpreter_that_runs_this_is_found() -> None:
    assert interpreters.find("{}.{}".format(*sys.version_info[:2]))


def test_an_interpreter_that_is_not_there_is_not_found() -> None:
    assert interpreters.find("3.99") is None


def test_a_program_that_only_has_the_name_is_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.98"
    shim.write_text("#!/bin/sh\necho cpython 3.11\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert interpreters.find("3.98") is None
