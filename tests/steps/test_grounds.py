"""What a policy is held against is what the registry says now; what cannot be looked at is said, not passed over."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelrel.errors import Invalid
from modelrel.policy import Approval, Facts, read
from modelrel.promoted import Change
from modelrel.registry import Registry
from modelrel.registry.reference import parse
from modelrel.steps import grounds, pull
from modelrel.steps.into import within
from modelrel.values import SourceModel
from tests.policy.releases import smoke

ASKED = {"champion": {"metrics": {"accuracy": 0.01}, "signature": "compatible", "pickle": "safe", "tags": {"a": "*"}}}
Gather = Callable[..., Facts]


@pytest.fixture
def pulled(own_registry: str, tmp_path: Path) -> SourceModel:
    registry = Registry(own_registry)
    located = pull.locate(parse("flowers/2"), registry)
    return pull.pull(located, registry, tmp_path / "release", lambda _: None)


@pytest.fixture
def gather(own_registry: str, pulled: SourceModel) -> Gather:
    def facts(previous: str = "1", asked: dict[str, Any] = ASKED, **change: Any) -> Facts:
        made = Change(**({"kind": "alias", "to": "champion", "by": "grace"} | change))
        return grounds.gathered(
            (smoke(of=pulled),), within(Registry(own_registry), pulled), made, read(asked), previous
        )

    return facts


def change(uri: str, *statements: str) -> None:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        for one in statements:
            connection.execute(one)
    connection.close()


def test_the_holder_is_known_by_its_run_and_its_own_description(gather: Gather, pulled: SourceModel) -> None:
    found = gather()
    assert found.holder is not None
    assert found.holder.metrics.keys() == found.metrics.keys() == {"accuracy"}
    assert found.holder.signature == pulled.signature
    assert found.holds == {"candidate"}
    assert found.author == pulled.tags["mlflow.user"]
    assert {one.verdict for one in found.pickles or ()} == {"known"}


def test_what_is_not_asked_is_not_looked_up(gather: Gather) -> None:
    found = gather(asked={"champion": {"min_rows": 1}})
    assert (found.holder, dict(found.metrics), found.pickles) == (None, {}, None)
    assert gather(rollback=True).holder is None


@pytest.mark.parametrize("previous", ["", "2"])
def test_a_version_is_not_compared_with_nobody_or_itself(previous: str, gather: Gather) -> None:
    assert gather(previous).holder is None


def test_a_holder_that_was_deleted_is_gone(gather: Gather) -> None:
    found = gather("99")
    assert found.holder is not None
    assert found.holder.gone == "version 99 was deleted"


def test_a_holder_without_its_files_has_metrics_and_no_signature(
    gather: Gather, own_registry: str, tmp_path: Path
) -> None:
    change(own_registry, f"update model_versions set storage_location = '{tmp_path}/nowhere' where version = 1")
    found = gather()
    assert found.holder is not None
    assert found.holder.signature is None
    assert found.holder.problem
    assert found.holder.metrics.keys() == {"accuracy"}


def test_metrics_of_the_logged_model_win_over_those_of_the_run(
    gather: Gather, own_registry: str, pulled: SourceModel
) -> None:
    assert pulled.model_id
    into = "insert into logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value,"
    into += f" experiment_id, run_id) select '{pulled.model_id}', 'accuracy', 1, %d, %s, experiment_id, run_uuid"
    into += f" from runs where run_uuid = '{pulled.run_id}'"
    change(own_registry, into % (1, "0.5"), into % (2, "0.75"))
    assert gather().metrics == {"accuracy": 0.75}
    assert Registry(own_registry).mlflow.measured(pulled.model_id) == {"accuracy": 0.75}


def test_one_file_is_fetched_in_every_way(sqlite_registry: str, http_registry: str) -> None:
    said = {
        Registry(sqlite_registry).file("models:/flowers/1", "MLmodel"),
        Registry(http_registry).file("models:/flowers/1", "MLmodel"),
        Registry(sqlite_registry).mlflow.file("models:/flowers/1", "MLmodel"),
    }
    assert len(said) == 1
    assert b"flavors:" in said.pop()


def test_an_approval_is_read_as_it_was_written_whoever_it_is() -> None:
    people = ["ada", "ada@example.org", "ada_example.org", "Ada Lovelace", "жанна", "x" * 300]
    given = [Approval(by=one, at="2026-11-22T06:00:00+00:00", source="0" * 64, message="looked") for one in people]
    tags = dict(map(grounds.approval, given))
    assert len(tags) == len(people)
    assert all(len(key) <= 250 and key.isascii() for key in tags)
    assert sorted(grounds.approvals(tags), key=lambda one: one.by) == sorted(given, key=lambda one: one.by)


@pytest.mark.parametrize("text", ["", "yes", "[]", "{}", '{"by": ""}', '{"by": "eve"}'])
def test_a_tag_that_is_no_approval_counts_for_nobody(text: str) -> None:
    assert grounds.approvals({"modelrel.approval.ada": text}) == ()


def test_somebody_approves_in_the_registry(own_registry: str, pulled: SourceModel) -> None:
    one = Approval(by="ada@example.org", at="2026-11-22T06:00:00+00:00", source=pulled.digest)
    grounds.approve(pulled, one, Registry(own_registry))
    version = Registry(own_registry).version("flowers", "2")
    assert version is not None
    assert grounds.approvals(version.tags) == (one,)


def test_what_is_no_registered_version_is_not_approved_of(tmp_path: Path, pulled: SourceModel) -> None:
    from dataclasses import replace

    one = Approval(by="ada", at="", source="")
    with pytest.raises(Invalid, match="not a registered version"):
        grounds.approve(replace(pulled, uri=str(tmp_path)), one, Registry("sqlite:///x.db"))
    shutil.rmtree(pulled.folder)
