"""`modelrel release --dry-run`: all that can be done here is done, and no registry knows of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from junitparser import JUnitXml

from tests.conftest import Run


def dump(uri: str) -> list[str]:
    """Return all that a sqlite registry holds."""
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        return list(connection.iterdump())


def test_a_dry_run_makes_everything_and_changes_no_registry(run: Run, own_registry: str, tmp_path: Path) -> None:
    before = dump(own_registry)
    words = ("release", "flowers@candidate", "--target", "modelpack", "--promote", "live", "--registry", own_registry,
             "--dist", tmp_path / "dist", "--push", "127.0.0.1:1/flowers:2", "--json")  # fmt: skip
    done = run(*words, "--dry-run")  # nothing answers at that port, and nothing is asked
    assert done.code == 0, done.err + done.out
    assert dump(own_registry) == before
    assert done.json["dry_run"] is True
    assert done.json["would_push"] == {"modelpack": "127.0.0.1:1/flowers:2"}
    outcomes = {stage["stage"]: stage["outcome"] for stage in done.json["stages"]}
    assert outcomes == {
        "pull": "done", "convert onnx": "done", "verify onnx": "done", "package modelpack": "done",
        "smoke modelpack": "done", "attest modelpack": "done", "promote live": "would change",
    }  # fmt: skip
    assert (done.json["promotion"]["previous"], done.json["promotion"]["version"]) == ("", "2")
    assert (tmp_path / "dist/flowers-2/onnx/modelpack/SmokeReport.json").is_file()
    assert not list((tmp_path / "dist/flowers-2").glob("Promotion.*"))
    assert not list((tmp_path / "dist").rglob("Pushed.json"))
    _shown(run, words, before, own_registry)


def _shown(run: Run, words: tuple[object, ...], before: list[str], registry: str) -> None:
    shown = run(*(word for word in words if word != "--json"), "--dry-run")
    assert shown.code == 0
    for sentence in ("at least one built artifact", "would push modelpack as 127.0.0.1:1/flowers:2",
                     "a dry run: no registry was changed"):  # fmt: skip
        assert sentence in shown.out
    assert dump(registry) == before


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    """Settings whose policy this model cannot meet."""
    (tmp_path / "modelrel.toml").write_text('[policy.live]\np99_ms = 0.000001\ntags = { reviewed = "yes" }\n')
    return tmp_path


def test_a_dry_run_that_the_policy_refuses_says_why_and_what_was_made(
    run: Run, own_registry: str, strict: Path
) -> None:
    before = dump(own_registry)
    words = ("release", "flowers/1", "--target", "modelpack", "--promote", "live", "--registry", own_registry,
             "--dist", strict / "dist", "--dry-run", "--junit", strict / "j.xml")  # fmt: skip
    done = run(*words)
    assert done.code == 4
    for word in ("p99", "missing", "failed", "would be refused", "a dry run: no registry was changed"):
        assert word in done.out
    assert dump(own_registry) == before
    cases = {case.name: bool(case.result) for suite in JUnitXml.fromfile(strict / "j.xml") for case in suite}
    assert cases["pull"] is cases["smoke modelpack"] is False
    assert cases["promote live"] is cases["tags.reviewed"] is True
    told = run(*words, "--json")
    assert (told.code, told.json["error"]["code"]) == (4, 4)
    assert {rule["outcome"] for rule in told.json["error"]["evidence"]["rules"]} >= {"failed", "missing"}
    real = run(*(word for word in words if word != "--dry-run"))
    assert real.code == 4
    assert {case.name: bool(case.result) for suite in JUnitXml.fromfile(strict / "j.xml") for case in suite} == cases


def test_a_place_that_is_none_is_told_before_any_work(run: Run, own_registry: str, tmp_path: Path) -> None:
    place = f"127.0.0.1:1/x@sha256:{'0' * 64}"  # a digest, which nobody can choose
    done = run("release", "flowers/1", "--target", "modelpack", "--push", place, "--registry", own_registry,
               "--dist", tmp_path / "dist", "--dry-run")  # fmt: skip
    assert done.code == 2
    assert not (tmp_path / "dist/flowers-1/SourceModel.json").exists()


@pytest.mark.parametrize("stage", ["None-such", "v7"])
def test_an_alias_or_stage_that_cannot_be_is_told_before_any_work(run: Run, own_registry: str, stage: str) -> None:
    option = "--promote" if stage == "v7" else "--stage"
    done = run("release", "flowers/1", "--target", "modelpack", option, stage, "--registry", own_registry, "--dry-run")
    assert done.code == 2
    assert not Path("dist").exists()
