"""Pulling: what is recorded, and what is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import Invalid
from modelrel.registry import Registry
from modelrel.registry.artifacts import copied
from modelrel.registry.reference import parse
from modelrel.steps.pull import locate, pull, release_folder, version_of
from tests.conftest import Run


@pytest.mark.parametrize("kind", ["sqlite", "http"])
def test_everything_that_the_registry_knows_is_recorded(request: pytest.FixtureRequest, kind: str) -> None:
    registry = Registry(request.getfixturevalue(f"{kind}_registry"))
    located = locate(parse("flowers@candidate"), registry)
    source = pull(located, registry, release_folder(located, Path("dist")))
    assert (source.name, source.version, source.uri) == ("flowers", "2", "models:/flowers/2")
    assert (source.flavor, source.experiment) == ("sklearn", "tests")
    assert source.metrics["accuracy"] > 0.9
    assert source.params["C"] == "1.0"
    assert source.tags["team"] == "botany"
    assert [(one.name, one.context) for one in source.datasets] == [("iris", "training")]
    assert source.signature is not None
    assert [spec.name for spec in source.signature.inputs][-2:] == ["shape", "number"]
    assert any(line.startswith("scikit-learn==") for line in source.requirements)
    assert source.input_example == "input_example.json"
    assert {file.path for file in source.files} >= {"source/MLmodel", "source/requirements.txt"}
    assert all((source.folder / file.path).stat().st_size == file.size for file in source.files)


def test_the_alias_is_resolved_once_and_the_number_is_kept(run: Run, own_registry: str) -> None:
    assert run("pull", "flowers@candidate", "--registry", own_registry).code == 0
    Registry(own_registry).mlflow.set_alias("flowers", "candidate", "3")
    assert [path.name for path in Path("dist").iterdir()] == ["flowers-2"]


def test_a_run_is_named_by_its_id(run: Run, sqlite_registry: str) -> None:
    version = Registry(sqlite_registry).version("flowers", "1")
    assert version is not None
    done = run("pull", f"runs:/{version.run_id}/model", "--registry", sqlite_registry, "--json")
    assert done.code == 0, done.out
    assert done.json["source"]["run_id"] == version.run_id
    assert done.json["folder"] == f"dist/model-{version.run_id[:8]}"


def test_a_folder_is_named_by_its_content(run: Run, sqlite_registry: str, tmp_path: Path) -> None:
    assert run("pull", "flowers/1", "--registry", sqlite_registry).code == 0
    folder = tmp_path / "dist" / "flowers-1" / "source"
    before = version_of(parse(str(folder)))
    assert run("pull", folder, "--dist", "other", "--json").json["source"]["version"] == before
    (folder / "extra").write_text("x")
    assert version_of(parse(str(folder))) != before


def test_a_link_among_the_artifacts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "MLmodel").symlink_to("/etc/hostname")
    (tmp_path / "b").mkdir()
    with pytest.raises(Invalid, match="not a regular file"):
        copied(tmp_path / "a", tmp_path / "b", lambda _: None)
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "C:/x", "a\nb", "..\\outside"])
def test_an_artifact_name_that_leads_outside_is_refused_before_anything_is_fetched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_registry: str
) -> None:
    """A registry's answer is outside input: this one lists a name that climbs."""
    from mlflow.entities import FileInfo
    from mlflow.store.artifact import artifact_repository_registry as stores

    fetched: list[str] = []

    class Hostile:
        def list_artifacts(self, path: str | None) -> list[Any]:
            return [] if path else [FileInfo("MLmodel", False, 1), FileInfo(name, False, 1)]

        def download_artifacts(self, path: str, dst_path: str) -> str:
            fetched.append(path)
            return str(Path(dst_path) / path)

    monkeypatch.setattr(stores, "get_artifact_repository", lambda _: Hostile())
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(Invalid, match="outside"):
        Registry(sqlite_registry).mlflow.download("models:/flowers/1", into, lambda _: None)
    assert fetched == []
    assert not list(into.iterdir())


def test_artifacts_that_are_gone_are_told_in_one_sentence(run: Run, own_registry: str) -> None:
    with sqlite3.connect(own_registry.removeprefix("sqlite:///")) as database:
        database.execute("update model_versions set storage_location = '/nowhere/at/all' where name = 'digits'")
    done = run("pull", "digits/1", "--registry", own_registry, "--json")
    assert done.code == 3, done.out
    assert "not at /nowhere/at/all" in done.json["error"]["message"]
    assert not Path("dist").exists()
