"""Promoting into another registry: a version there with the same bytes and facts, or nothing that looks like one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrel import archive, records
from modelrel.errors import Refused, Unavailable
from modelrel.registry import Registry, carried
from modelrel.values import Dataset, SourceModel
from tests.conftest import Run
from tests.steps import promotable

AS = "prod.churn"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with promotable.server(tmp_path_factory.mktemp("server"), 2) as found:
        yield found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty registry in a sqlite file, to be copied."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('empty')}/mlflow.db"
    code = f"import mlflow; mlflow.MlflowClient(tracking_uri={uri!r}, registry_uri={uri!r}).search_registered_models()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    return uri


@pytest.fixture
def file(empty: str, tmp_path: Path) -> str:
    (tmp_path / "prod").mkdir()
    (tmp_path / "prod/mlflow.db").write_bytes(Path(empty.removeprefix("sqlite:///")).read_bytes())
    return f"sqlite:///{tmp_path}/prod/mlflow.db"


def pulled(folder: Path) -> SourceModel:
    """Return what `pull` left of a model with a run."""
    (folder / "source/data").mkdir(parents=True)
    (folder / "source/MLmodel").write_text("flavors: {}\n")
    (folder / "source/data/größe.bin").write_bytes(bytes(range(256)) * 5000)
    return SourceModel(
        folder=folder, name="churn", version="7", uri="models:/churn/7", registry="http://here", flavor="sklearn",
        flavors=("sklearn",), run_id="ab12" * 8, experiment="churn-training",
        metrics={"auc": 0.91, "loss": float("nan")}, signature=None,
        params={"depth": "3", **{f"p{number}": str(number) for number in range(150)}},
        tags={"team": "growth", "mlflow.user": "ada", "mlflow.runName": "sly-fox"},
        datasets=(Dataset(name="customers", digest="d1", context="training"),),
        files=archive.describe_tree(folder / "source", folder),
    )  # fmt: skip


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize("kind", ["file", "server"])
def test_files_and_what_the_run_logged_arrive_whole(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    registry = Registry(request.getfixturevalue(kind))
    source = pulled(tmp_path / "churn-7")
    name = f"carried.{kind}"
    assert carried.there(registry, name, source.digest) == ""
    version = carried.carry(registry, name, source, {"reviewed": "yes", "modelrel.from_uri": source.uri}, quiet)
    assert version == "1" == carried.there(registry, name, source.digest)
    (tmp_path / "back").mkdir()
    registry.download(f"models:/{name}/1", tmp_path / "back", quiet)
    back = {
        f"source/{path.relative_to(tmp_path / 'back').as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "back").rglob("*")
        if path.is_file()
    }
    assert back == {one.path: one.sha256 for one in source.files}
    found = registry.version(name, "1")
    assert found is not None
    assert (found.tags["reviewed"], found.tags["modelrel.from_uri"]) == ("yes", "models:/churn/7")
    run = registry.run(found.run_id)
    assert (run.experiment, run.params) == ("churn-training", source.params)
    assert (run.metrics["auc"], run.metrics["loss"] != run.metrics["loss"]) == (0.91, True)
    assert (run.tags["team"], run.tags["mlflow.user"]) == ("growth", "ada")
    assert [(one.name, one.digest, one.context) for one in run.datasets] == [("customers", "d1", "training")]


def test_a_store_that_gives_back_other_bytes_is_refused_and_nothing_is_registered(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(file)
    source = pulled(tmp_path / "churn-7")
    (tmp_path / "churn-7/source/data/größe.bin").write_bytes(b"changed on the way")
    with pytest.raises(Refused, match="gives back other bytes than it was sent: data/größe"):
        carried.carry(registry, "churn", source, {}, quiet)
    assert registry.names() == []


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_inputs", "log_artifacts", "create_model_version"])
def test_what_is_broken_off_is_no_version(
    call: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(file)
    source = pulled(tmp_path / "churn-7")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("cut")

    with monkeypatch.context() as broken:
        broken.setattr(registry.mlflow.client, call, fail)
        with pytest.raises(Unavailable):
            carried.carry(registry, "churn", source, {}, quiet)
    assert registry.version("churn", "1") is None
    assert carried.carry(registry, "churn", source, {}, quiet) == "1"


def test_a_version_whose_answer_got_lost_is_found(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(file)
    source = pulled(tmp_path / "churn-7")
    create = registry.mlflow.client.create_model_version

    def lost(*given: Any, **named: Any) -> None:
        create(*given, **named)
        raise ConnectionError("cut")

    monkeypatch.setattr(registry.mlflow.client, "create_model_version", lost)
    assert carried.carry(registry, "churn", source, {}, quiet) == "1"
    assert registry.run(getattr(registry.version("churn", "1"), "run_id", "")).params == source.params


def test_the_command_carries_once_moves_the_alias_there_and_leaves_the_origin(
    run: Run, server: str, file: str, tmp_path: Path
) -> None:
    folder = promotable.released(tmp_path / "dist", "1")
    source = records.read(SourceModel, folder / "SourceModel.json", folder=folder)
    assert source is not None
    shared = ("--to", "champion", "--into", file, "--as", AS, "--registry", server, "--json")
    words = ("promote", f"{promotable.NAME}/1", *shared)
    dry = run(*words, "--dry-run")
    assert (dry.code, Registry(file).names()) == (0, []), dry.out + dry.err
    done = run(*words, "--message", "to production")
    assert done.code == 0, done.out + done.err
    there = Registry(file)
    assert there.aliases(AS) == {"champion": "1"}
    tags = getattr(there.version(AS, "1"), "tags", {})
    assert (tags["modelrel.from_uri"], tags["modelrel.from_registry"]) == (source.uri, server)
    assert tags["modelrel.source_sha256"] == source.digest
    assert json.loads(tags["modelrel.promotion.champion"])["source_sha256"] == source.digest
    assert Registry(server).aliases(promotable.NAME) == {}
    again = run(*words)
    assert (again.code, again.json["stages"][-1]["outcome"], there.version(AS, "2")) == (0, "up to date", None)
    told = run("history", AS, "--registry", file, "--json").json["history"]
    assert [(one["event"], one["version"], one["message"]) for one in told] == [("promoted", "1", "to production")]


def carried_over(run: Run, server: str, file: str, dist: Path) -> None:
    """Promote two versions, of other files each, into another registry."""
    for version in "12":
        promotable.released(dist, version, more=f"model_uuid: '{version}'\n")
        words = ("promote", f"{promotable.NAME}/{version}", "--to", "champion", "--into", file, "--as", AS)
        done = run(*words, "--registry", server, "--dist", dist)
        assert done.code == 0, done.err
    assert Registry(file).aliases(AS) == {"champion": "2"}


def test_a_rollback_where_it_went_stands_on_the_evidence_of_where_it_came_from(
    run: Run, server: str, file: str, tmp_path: Path
) -> None:
    dist = tmp_path / "dist"
    carried_over(run, server, file, dist)
    shared = ("--alias", "champion", "--registry", file, "--dist", dist, "--json")
    dry = run("rollback", AS, *shared, "--dry-run")
    assert (dry.code, Registry(file).aliases(AS)) == (0, {"champion": "2"}), dry.err
    done = run("rollback", AS, *shared, "--message", "it was worse")
    assert done.code == 0, done.err
    assert Registry(file).aliases(AS) == {"champion": "1"}
    assert Registry(server).aliases(promotable.NAME) == {}
    told = run("history", AS, "--registry", file, "--json").json["history"]
    assert [(one["event"], one["previous"], one["version"]) for one in told] == [
        ("promoted", "", "1"), ("promoted", "1", "2"), ("rolled back", "2", "1")
    ]  # fmt: skip
    assert (dist / "churn-1" / f"Promotion.{AS}-champion.json").is_file()


def test_a_rollback_where_it_went_is_held_against_the_tags_there(
    run: Run, server: str, file: str, tmp_path: Path
) -> None:
    dist = tmp_path / "dist"
    carried_over(run, server, file, dist)
    Path("modelrel.toml").write_text('[policy.champion.tags]\nreviewed = "yes"\n')
    shared = ("--alias", "champion", "--registry", file, "--dist", dist, "--json")
    untagged = run("rollback", AS, *shared)
    assert (untagged.code, "tags.reviewed" in untagged.json["error"]["message"]) == (4, True), untagged.out
    Registry(file).writer.set_tags(AS, "1", {"reviewed": "yes"})
    done = run("rollback", AS, *shared)
    assert (done.code, Registry(file).aliases(AS)) == (0, {"champion": "1"}), done.out


def test_a_rollback_is_refused_where_the_evidence_is_about_other_files_than_were_carried_over(
    run: Run, server: str, file: str, tmp_path: Path
) -> None:
    carried_over(run, server, file, tmp_path / "dist")
    promotable.released(tmp_path / "other", "1", more="model_uuid: 'another'\n")
    shared = ("--alias", "champion", "--registry", file, "--json")
    other = run("rollback", AS, *shared, "--dist", tmp_path / "other")
    assert other.code == 4
    assert "prod.churn/1 in the registry" in other.json["error"]["message"]
    none = run("rollback", AS, *shared, "--dist", tmp_path / "empty")
    assert none.code == 4
    assert Registry(file).aliases(AS) == {"champion": "2"}


def test_a_name_without_another_registry_is_a_wrong_command(run: Run, server: str, tmp_path: Path) -> None:
    promotable.released(tmp_path / "dist", "1")
    done = run(
        "promote", f"{promotable.NAME}/1", "--to", "champion", "--as", AS, "--registry", server, "--json"
    )  # fmt: skip
    assert (done.code, "--into URI" in done.json["error"]["hint"]) == (2, True)
