"""A folder of wheels instead of an index: nothing is asked of a network, and what is lacking is said with the cure."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from modelrel import archive, wheelhouse, wheels
from modelrel.errors import Invalid, Unavailable
from modelrel.steps.package import package
from tests.targets import houses, tiny

WANTED = (("flatbuffers", "httptools"),)
NOWHERE = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0", "HTTPS_PROXY": "http://127.0.0.1:9",
           "HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"}  # fmt: skip


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return houses.filled(tmp_path_factory.mktemp("wheelhouse") / "all", WANTED[0])


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_index")
def test_wheels_come_from_the_folder_alone(house: Path) -> None:
    with wheelhouse.only(house):
        found = wheels.fetch(WANTED, "3.13", "linux/amd64")
    assert {path.name.partition("-")[0] for path in found.folder.glob("*.dist-info")} == {"flatbuffers", "httptools"}
    assert str(house) not in found.lock
    assert found.lock.count("--hash=sha256:") == 2
    for path in archive.walk(found.folder):
        assert str(house).encode() not in path.read_bytes()


@pytest.mark.usefixtures("no_index")
def test_what_is_lacking_is_named_with_the_command_that_fetches_it(house: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    for path in house.glob("flatbuffers*"):
        shutil.copy(path, part)
    with wheelhouse.only(part), pytest.raises(Unavailable, match=r"lacks httptools for Python 3\.13") as caught:
        wheels.fetch(WANTED, "3.13", "linux/amd64")
    assert "\n" not in caught.value.message
    assert "pip download --only-binary=:all: --python-version 3.13" in caught.value.hint
    assert caught.value.hint.endswith("flatbuffers httptools")


@pytest.mark.usefixtures("no_index")
def test_wheels_of_another_python_are_none(house: Path) -> None:
    with wheelhouse.only(house), pytest.raises(Unavailable, match=r"lacks what fits for Python 3\.12 on linux/arm64"):
        wheels.fetch(WANTED, "3.12", "linux/arm64")


def test_a_cache_that_an_index_filled_is_not_mixed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_index = wheels.fetch(WANTED, "3.13", "linux/amd64")
    (tmp_path / "empty").mkdir()
    with wheelhouse.only(tmp_path / "empty"), pytest.raises(Unavailable):
        wheels.fetch(WANTED, "3.13", "linux/amd64")
    with wheelhouse.only(tmp_path / "empty"), pytest.raises(Unavailable, match="lacks flatbuffers, httptools"):
        wheels.fetch(WANTED, "3.13", "linux/amd64", of_index.lock)
    assert wheels.fetch(WANTED, "3.13", "linux/amd64", of_index.lock) == of_index


@pytest.mark.usefixtures("no_index")
def test_an_earlier_lock_is_followed_where_its_wheels_are_there(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with wheelhouse.only(house):
        first = wheels.fetch(WANTED, "3.13", "linux/amd64")
        earlier = first.lock + "# another resolution would not have this line\n"
        assert wheels.fetch(WANTED, "3.13", "linux/amd64", earlier).lock == earlier


@pytest.mark.usefixtures("no_index")
def test_a_wheel_that_is_not_the_locked_one_is_not_taken(house: Path) -> None:
    with wheelhouse.only(house):
        lock = wheels.fetch(WANTED, "3.13", "linux/amd64").lock
        forged = lock.replace(lock.partition("--hash=sha256:")[2][:64], "0" * 64)
        with pytest.raises(Unavailable, match=r"[Hh]ash mismatch"):
            wheels.fetch(WANTED, "3.13", "linux/amd64", forged)


def test_a_wheelhouse_that_is_not_there_is_said(tmp_path: Path) -> None:
    options = replace(tiny.plain("lambda"), wheelhouse=tmp_path / "nowhere")
    with pytest.raises(Invalid, match="nowhere is not a folder"):
        package(tiny.verified(tmp_path / "churn-7"), "lambda", options)


def test_a_function_is_packaged_without_an_index_and_without_a_word_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    parity = tiny.verified(tmp_path / "churn-7")
    full = houses.of_a_function()
    request.getfixturevalue("no_index")
    found = package(parity, "lambda", replace(tiny.plain("lambda"), wheelhouse=full))
    assert found.size > 10_000_000
    for file in found.files:
        assert str(full).encode() not in (found.folder / file.path).read_bytes()
